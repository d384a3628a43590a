-- Tables and columns are explained by the COMMENTs below, which \d+ shows in psql. ASCII only, so that this can be executed in a database
-- of any encoding, whose encoding is then reported as wrong.

-- The key serves (agent, time) by itself. A b-tree on the time serves what asks of all agents.
CREATE TABLE events (
    agent           text COLLATE "C" NOT NULL,
    epoch           text COLLATE "C" NOT NULL,
    seq             bigint NOT NULL,
    observed_at     timestamptz NOT NULL,
    kind            text NOT NULL,
    stored_at       timestamptz NOT NULL DEFAULT now(),
    kafka_topic     text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset    bigint NOT NULL,
    boot_id         text NOT NULL,
    monotonic_ms    bigint NOT NULL,
    clock_synced    boolean,
    breach_id       text,
    started_at      timestamptz,
    raised_at       timestamptz,
    ended_at        timestamptz,
    limit_name      text,
    severity        text,
    interface       text,
    ifindex         bigint,
    direction       text,
    limit_bps       bigint,
    rate_bps        bigint,
    peak_bps        bigint,
    mean_bps        bigint,
    duration_ms     bigint,
    measured_ms     bigint,
    excess_bytes    bigint,
    speed_bps       bigint,
    lost_epoch      text,
    ranges          jsonb,
    version         text,
    reason          text,
    detail          text,
    raw             text,
    PRIMARY KEY (agent, observed_at, epoch, seq),
    CONSTRAINT events_place CHECK (seq > 0 AND kafka_partition >= 0 AND kafka_offset >= 0),
    CONSTRAINT events_figures CHECK (limit_bps >= 0 AND rate_bps >= 0 AND peak_bps >= 0 AND mean_bps >= 0 AND duration_ms >= 0
                                     AND measured_ms >= 0 AND excess_bytes >= 0),
    CONSTRAINT events_severity CHECK (severity IN ('warning', 'critical')),
    CONSTRAINT events_direction CHECK (direction IN ('rx', 'tx', 'total'))
) PARTITION BY RANGE (observed_at);
CREATE INDEX events_observed_at ON events (observed_at);

-- Gateways without a clock say 1970: such times have one partition each way, which is thinned by stored_at instead of dropped.
CREATE TABLE events_before_2020 PARTITION OF events FOR VALUES FROM (MINVALUE) TO ('2020-01-01 00:00:00+00');
CREATE TABLE events_after_2100 PARTITION OF events FOR VALUES FROM ('2100-01-01 00:00:00+00') TO (MAXVALUE);
CREATE INDEX events_before_2020_stored_at ON events_before_2020 USING brin (stored_at);
CREATE INDEX events_after_2100_stored_at ON events_after_2100 USING brin (stored_at);

CREATE TABLE samples (
    agent           text COLLATE "C" NOT NULL,
    epoch           text COLLATE "C" NOT NULL,
    seq             bigint NOT NULL,
    observed_at     timestamptz NOT NULL,
    stored_at       timestamptz NOT NULL DEFAULT now(),
    kafka_topic     text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset    bigint NOT NULL,
    interface       text NOT NULL,
    duration_ms     bigint,
    rx_bytes        bigint,
    tx_bytes        bigint,
    rx_bps          bigint,
    tx_bps          bigint,
    reason          text,
    PRIMARY KEY (agent, observed_at, epoch, seq),
    CONSTRAINT samples_place CHECK (seq > 0 AND kafka_partition >= 0 AND kafka_offset >= 0),
    CONSTRAINT samples_figures CHECK (rx_bytes >= 0 AND tx_bytes >= 0 AND rx_bps >= 0 AND tx_bps >= 0 AND duration_ms >= 0)
) PARTITION BY RANGE (observed_at);

CREATE TABLE samples_before_2020 PARTITION OF samples FOR VALUES FROM (MINVALUE) TO ('2020-01-01 00:00:00+00');
CREATE TABLE samples_after_2100 PARTITION OF samples FOR VALUES FROM ('2100-01-01 00:00:00+00') TO (MAXVALUE);
CREATE INDEX samples_before_2020_stored_at ON samples_before_2020 USING brin (stored_at);
CREATE INDEX samples_after_2100_stored_at ON samples_after_2100 USING brin (stored_at);

-- A row for each link and direction of a message: the number of a message is in the key with them.
CREATE TABLE rates (
    agent           text COLLATE "C" NOT NULL,
    epoch           text COLLATE "C" NOT NULL,
    seq             bigint NOT NULL,
    observed_at     timestamptz NOT NULL,
    stored_at       timestamptz NOT NULL DEFAULT now(),
    kafka_topic     text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset    bigint NOT NULL,
    interface       text COLLATE "C" NOT NULL,
    direction       text COLLATE "C" NOT NULL,
    started_at      timestamptz NOT NULL,
    window_ms       bigint NOT NULL,
    bytes           bigint NOT NULL,
    packets         bigint,
    errors          bigint,
    drops           bigint,
    measured_s      bigint NOT NULL,
    unmeasured_s    bigint NOT NULL,
    min_bps         bigint,
    mean_bps        bigint,
    max_bps         bigint,
    p50_bps         bigint,
    p95_bps         bigint,
    p99_bps         bigint,
    speed_bps       bigint,
    over            jsonb NOT NULL,
    has_histogram   boolean NOT NULL,
    PRIMARY KEY (agent, observed_at, epoch, seq, interface, direction),
    CONSTRAINT rates_place CHECK (seq > 0 AND kafka_partition >= 0 AND kafka_offset >= 0),
    CONSTRAINT rates_direction CHECK (direction IN ('rx', 'tx', 'total')),
    CONSTRAINT rates_figures CHECK (window_ms BETWEEN 1 AND 3600000 AND bytes >= 0 AND measured_s >= 0 AND unmeasured_s >= 0)
) PARTITION BY RANGE (observed_at);
-- As of events: for what asks of all agents. A BRIN would be smaller, and knows nothing of the latest rows, which are asked for most.
CREATE INDEX rates_observed_at ON rates (observed_at);

CREATE TABLE rates_before_2020 PARTITION OF rates FOR VALUES FROM (MINVALUE) TO ('2020-01-01 00:00:00+00');
CREATE TABLE rates_after_2100 PARTITION OF rates FOR VALUES FROM ('2100-01-01 00:00:00+00') TO (MAXVALUE);
CREATE INDEX rates_before_2020_stored_at ON rates_before_2020 USING brin (stored_at);
CREATE INDEX rates_after_2100_stored_at ON rates_after_2100 USING brin (stored_at);

-- Only windows of the last weeks are kept here, and their partitions are dropped whole: there is none for all other times.
CREATE TABLE window_histograms (
    agent       text COLLATE "C" NOT NULL,
    epoch       text COLLATE "C" NOT NULL,
    seq         bigint NOT NULL,
    observed_at timestamptz NOT NULL,
    interface   text COLLATE "C" NOT NULL,
    direction   text COLLATE "C" NOT NULL,
    histogram   bytea NOT NULL,
    PRIMARY KEY (agent, observed_at, epoch, seq, interface, direction)
) PARTITION BY RANGE (observed_at);

-- It is compressed already.
ALTER TABLE window_histograms ALTER histogram SET STORAGE EXTERNAL;

-- Notes are inserted and deleted, and never updated: two writers never wait for each other.
CREATE TABLE touched_hours (
    id        bigint GENERATED ALWAYS AS IDENTITY,
    agent     text COLLATE "C" NOT NULL,
    starts_at timestamptz NOT NULL,
    PRIMARY KEY (agent, starts_at, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

CREATE TABLE histograms (
    agent             text COLLATE "C" NOT NULL,
    interface         text COLLATE "C" NOT NULL,
    direction         text COLLATE "C" NOT NULL,
    span              text COLLATE "C" NOT NULL,
    starts_at         timestamptz NOT NULL,
    windows           bigint NOT NULL,
    late_windows      bigint NOT NULL,
    bytes             bigint NOT NULL,
    packets           bigint,
    errors            bigint,
    drops             bigint,
    measured_s        bigint NOT NULL,
    unmeasured_s      bigint NOT NULL,
    min_bps           bigint,
    mean_bps          bigint,
    max_bps           bigint,
    p50_bps           bigint,
    p95_bps           bigint,
    p99_bps           bigint,
    histogram         bytea,
    version           bigint NOT NULL,
    updated_at        timestamptz NOT NULL DEFAULT now(),
    published_version bigint,
    PRIMARY KEY (agent, interface, direction, span, starts_at),
    CONSTRAINT histograms_span CHECK (span IN ('hour', 'day')),
    CONSTRAINT histograms_direction CHECK (direction IN ('rx', 'tx', 'total'))
) WITH (fillfactor = 70);
ALTER TABLE histograms ALTER histogram SET STORAGE EXTERNAL;
CREATE INDEX histograms_starts_at ON histograms (span, starts_at);

-- Written by the one consumer that makes histograms.
CREATE TABLE unpublished_hours (
    agent     text COLLATE "C" NOT NULL,
    interface text COLLATE "C" NOT NULL,
    direction text COLLATE "C" NOT NULL,
    starts_at timestamptz NOT NULL,
    PRIMARY KEY (agent, interface, direction, starts_at)
);

CREATE TABLE partition_notes (
    partition        text PRIMARY KEY,
    newest_stored_at timestamptz NOT NULL,
    made_at          timestamptz NOT NULL DEFAULT now(),
    outside          boolean NOT NULL,
    detaching_since  timestamptz
);

-- Updated in place while a breach is open (HOT): no index on what an update changes, and room for it in the page.
CREATE TABLE breach_state (
    agent           text COLLATE "C" NOT NULL,
    breach_id       text COLLATE "C" NOT NULL,
    epoch           text COLLATE "C" NOT NULL,
    seq             bigint NOT NULL,
    observed_at     timestamptz NOT NULL,
    stored_at       timestamptz NOT NULL DEFAULT now(),
    state           text NOT NULL,
    started_at      timestamptz NOT NULL,
    raised_at       timestamptz NOT NULL,
    ended_at        timestamptz NOT NULL,
    limit_name      text COLLATE "C" NOT NULL,
    severity        text NOT NULL,
    interface       text COLLATE "C" NOT NULL,
    direction       text COLLATE "C" NOT NULL,
    limit_bps       bigint NOT NULL,
    rate_bps        bigint NOT NULL,
    peak_bps        bigint NOT NULL,
    mean_bps        bigint NOT NULL,
    duration_ms     bigint NOT NULL,
    measured_ms     bigint NOT NULL,
    excess_bytes    bigint NOT NULL,
    reason          text,
    detail          text,
    counted_bytes   bigint NOT NULL,
    PRIMARY KEY (agent, breach_id),
    CONSTRAINT breach_state_state CHECK (state IN ('open', 'cleared')),
    CONSTRAINT breach_state_severity CHECK (severity IN ('warning', 'critical')),
    CONSTRAINT breach_state_direction CHECK (direction IN ('rx', 'tx', 'total')),
    CONSTRAINT breach_state_figures CHECK (duration_ms >= 0 AND measured_ms >= 0 AND excess_bytes >= 0 AND counted_bytes >= 0)
) WITH (fillfactor = 70);
CREATE INDEX breach_state_raised_at ON breach_state (raised_at);
CREATE INDEX breach_state_open ON breach_state (raised_at) WHERE state = 'open';

CREATE TABLE agent_sequences (
    agent              text COLLATE "C" NOT NULL,
    epoch              text COLLATE "C" NOT NULL,
    first_seq          bigint NOT NULL,
    last_seq           bigint NOT NULL,
    counted            text COLLATE "C" NOT NULL,
    first_stored_at    timestamptz NOT NULL,
    last_stored_at     timestamptz NOT NULL,
    identity_conflicts bigint NOT NULL,
    PRIMARY KEY (agent, epoch, first_seq),
    CONSTRAINT agent_sequences_range CHECK (first_seq BETWEEN 1 AND last_seq AND identity_conflicts >= 0),
    CONSTRAINT agent_sequences_counted CHECK (counted IN ('events', 'samples', 'rates'))
) WITH (fillfactor = 70);

-- Written where an agent starts, stops or changes, not with each message: when it was last heard of is in agent_sequences.
CREATE TABLE agent_state (
    agent           text COLLATE "C" PRIMARY KEY,
    epoch           text COLLATE "C" NOT NULL,
    seq             bigint NOT NULL,
    observed_at     timestamptz NOT NULL,
    stored_at       timestamptz NOT NULL DEFAULT now(),
    state           text NOT NULL,
    version         text,
    clock_synced    boolean,
    last_started_at timestamptz,
    CONSTRAINT agent_state_state CHECK (state IN ('running', 'stopped'))
) WITH (fillfactor = 70);

CREATE TABLE losses (
    agent       text COLLATE "C" NOT NULL,
    epoch       text COLLATE "C" NOT NULL,
    first_seq   bigint NOT NULL,
    last_seq    bigint NOT NULL,
    loss_epoch  text COLLATE "C" NOT NULL,
    loss_seq    bigint NOT NULL,
    observed_at timestamptz NOT NULL,
    stored_at   timestamptz NOT NULL,
    reason      text NOT NULL,
    detail      text,
    PRIMARY KEY (agent, epoch, first_seq, last_seq, loss_epoch, loss_seq, observed_at),
    CONSTRAINT losses_range CHECK (first_seq BETWEEN 1 AND last_seq)
);

CREATE TABLE totals (
    agent        text COLLATE "C" NOT NULL,
    interface    text COLLATE "C" NOT NULL,
    direction    text COLLATE "C" NOT NULL,
    limit_name   text COLLATE "C" NOT NULL,
    day          date NOT NULL,
    scope        text GENERATED ALWAYS AS (CASE interface WHEN '*' THEN 'host' ELSE 'link' END) STORED,
    breaches     bigint NOT NULL,
    excess_bytes bigint NOT NULL,
    PRIMARY KEY (agent, interface, direction, limit_name, day),
    CONSTRAINT totals_direction CHECK (direction IN ('rx', 'tx', 'total')),
    CONSTRAINT totals_figures CHECK (breaches >= 0 AND excess_bytes >= 0)
) WITH (fillfactor = 70);
CREATE INDEX totals_day ON totals (day);

CREATE TABLE kafka_offsets (
    kafka_cluster    text NOT NULL,
    kafka_topic      text NOT NULL,
    kafka_partition  integer NOT NULL,
    topic_generation integer NOT NULL,
    next_offset      bigint NOT NULL,
    last_offset      bigint,
    last_timestamp   bigint,
    last_digest      bigint,
    anchor_offset    bigint,
    anchor_timestamp bigint,
    anchor_digest    bigint,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kafka_cluster, kafka_topic, kafka_partition),
    CONSTRAINT kafka_offsets_next CHECK (kafka_partition >= 0 AND next_offset >= 0 AND topic_generation >= 0)
) WITH (fillfactor = 50);

CREATE TABLE kafka_gaps (
    kafka_cluster    text NOT NULL,
    kafka_topic      text NOT NULL,
    kafka_partition  integer NOT NULL,
    topic_generation integer NOT NULL,
    first_offset     bigint NOT NULL,
    last_offset      bigint NOT NULL,
    cause            text NOT NULL,
    noticed_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kafka_cluster, kafka_topic, kafka_partition, topic_generation, first_offset),
    CONSTRAINT kafka_gaps_range CHECK (first_offset BETWEEN 0 AND last_offset),
    CONSTRAINT kafka_gaps_cause CHECK (cause IN ('expired', 'unreadable', 'expired_before_start', 'skipped_at_start'))
);

CREATE TABLE dead_letters (
    kafka_cluster    text NOT NULL,
    kafka_topic      text NOT NULL,
    kafka_partition  integer NOT NULL,
    topic_generation integer NOT NULL,
    kafka_offset     bigint NOT NULL,
    kafka_timestamp  timestamptz,
    headers          bytea,
    key              bytea,
    payload          bytea,
    bytes            bigint,
    error            text NOT NULL,
    stored_at        timestamptz NOT NULL DEFAULT now(),
    agent            text COLLATE "C",
    epoch            text COLLATE "C",
    seq              bigint,
    dropped_at       timestamptz,
    drop_reason      text,
    PRIMARY KEY (kafka_cluster, kafka_topic, kafka_partition, topic_generation, kafka_offset),
    CONSTRAINT dead_letters_place CHECK (kafka_partition >= 0 AND kafka_offset >= 0 AND topic_generation >= 0 AND bytes >= 0),
    CONSTRAINT dead_letters_dropped CHECK ((dropped_at IS NULL) = (drop_reason IS NULL))
);
CREATE INDEX dead_letters_stored_at ON dead_letters (stored_at);
CREATE INDEX dead_letters_agent ON dead_letters (agent, epoch, seq) WHERE agent IS NOT NULL;

CREATE TABLE settings (
    only_row     boolean PRIMARY KEY DEFAULT true,
    silent_after interval NOT NULL,
    CONSTRAINT settings_only_row CHECK (only_row)
);
INSERT INTO settings (silent_after) VALUES (interval '1 hour');

-- Nothing says that a breach ended whose agent lost its journal and began to count anew, was stopped, or is not heard of: it is neither
-- open nor cleared. The planner sees through this: the condition goes into both arms, where it is about one table and a constant, so
-- that state = 'open' is answered by the index of what is open, and an order by raised_at by merging two indexes. A CASE over both would
-- be computed for each breach.
CREATE VIEW breaches AS
SELECT agent, breach_id, limit_name, severity, interface, direction, state, started_at, raised_at, ended_at, cleared_at, lasted,
       limit_bps, rate_bps, peak_bps, mean_bps, excess_bytes, duration_ms, measured_ms, last_observed_at, reason, detail
FROM (
    SELECT b.agent, b.breach_id, b.limit_name, b.severity, b.interface, b.direction, 'cleared' AS state,
           b.started_at, b.raised_at, b.ended_at, b.observed_at AS cleared_at,
           -- An interval has no room for the greatest bigint.
           make_interval(secs => least(b.duration_ms, 9000000000000000) / 1000.0) AS lasted,
           b.limit_bps, b.rate_bps, b.peak_bps, b.mean_bps, b.excess_bytes, b.duration_ms, b.measured_ms,
           b.observed_at AS last_observed_at, b.reason, b.detail, b.state AS stored_state, 'cleared' AS arm
    FROM breach_state b
    UNION ALL
    SELECT b.agent, b.breach_id, b.limit_name, b.severity, b.interface, b.direction,
           CASE WHEN b.is_unknown THEN 'unknown' ELSE 'open' END, b.started_at, b.raised_at, b.ended_at, NULL,
           CASE WHEN b.is_unknown
                THEN greatest(b.observed_at - b.started_at, make_interval(secs => least(b.duration_ms, 9000000000000000) / 1000.0))
                ELSE greatest(now() - b.started_at, interval '0') END,
           b.limit_bps, b.rate_bps, b.peak_bps, b.mean_bps, b.excess_bytes, b.duration_ms, b.measured_ms,
           b.observed_at, b.reason, b.detail, b.state, 'open'
    FROM (
        SELECT o.*,
               EXISTS (SELECT FROM agent_state a
                       WHERE a.agent = o.agent AND (a.state = 'stopped' OR a.epoch <> o.epoch AND a.last_started_at > o.observed_at))
               OR NOT EXISTS (SELECT FROM agent_sequences s
                              WHERE s.agent = o.agent AND s.counted <> 'samples'
                                AND s.last_stored_at >= now() - (SELECT silent_after FROM settings))
               OR EXISTS (SELECT FROM agent_sequences s
                          WHERE s.agent = o.agent AND s.epoch <> o.epoch AND s.counted = 'events' AND s.first_stored_at >= o.stored_at
                            AND (s.first_stored_at > o.stored_at
                                 OR EXISTS (SELECT FROM events e WHERE e.agent = o.agent AND e.epoch = s.epoch
                                                                   AND e.observed_at > o.observed_at))) AS is_unknown
        FROM breach_state o) AS b) AS arms
WHERE stored_state = arm;

CREATE VIEW open_breaches AS
SELECT agent, breach_id, limit_name, severity, interface, direction, started_at, raised_at, ended_at, lasted,
       limit_bps, rate_bps, peak_bps, mean_bps, excess_bytes, duration_ms, measured_ms, last_observed_at, detail
FROM breaches WHERE state = 'open';

-- Numbers that are accounted for: seen, declared as lost, or kept as dead letters. What is between them is missing.
CREATE VIEW sequence_gaps AS
SELECT agent, epoch, before + 1 AS first_seq, first_seq - 1 AS last_seq, first_seq - 1 - before AS missing, since
FROM (
    SELECT agent, epoch, first_seq, since, counted,
           coalesce(max(last_seq) OVER (PARTITION BY agent, epoch ORDER BY first_seq, last_seq
                                        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
    FROM (SELECT agent, epoch, first_seq, last_seq, first_stored_at AS since, counted FROM agent_sequences
          UNION ALL
          SELECT agent, epoch, first_seq, last_seq, stored_at, 'events' FROM losses
          UNION ALL
          SELECT agent, epoch, seq, seq, stored_at, 'events' FROM dead_letters WHERE agent IS NOT NULL AND seq IS NOT NULL) AS known
) AS ranges
WHERE first_seq - 1 > before AND since < now() - interval '5 minutes'
  -- Where reading began in the middle of a topic, the first series of an agent may have begun before: of one that was heard of within
  -- the time that events wait in a journal, and a week.
  AND (before > 0 OR NOT EXISTS (SELECT FROM kafka_gaps g JOIN agent_sequences h ON h.agent = ranges.agent
                                 WHERE g.cause IN ('expired_before_start', 'skipped_at_start') AND g.noticed_at <= since
                                   AND h.first_stored_at < g.noticed_at + interval '37 days')
       OR EXISTS (SELECT FROM agent_sequences o
                  WHERE o.agent = ranges.agent AND o.epoch <> ranges.epoch AND o.counted = ranges.counted
                    AND o.first_stored_at < since));

CREATE VIEW missing_events AS
SELECT agent, epoch, first_seq, CASE WHEN is_open THEN NULL ELSE last_seq END AS last_seq,
       CASE WHEN is_open THEN NULL ELSE missing END AS missing, 'declared' AS cause, reason, detail, stored_at AS noticed_at
FROM (
    -- An agent that crashed does not know how many numbers it had given.
    SELECT l.*, l.reason = 'interrupted' AND l.last_seq = 281474976710656 AS is_open,
           l.last_seq - l.first_seq + 1 - coalesce((
        SELECT sum(least(s.last_seq, l.last_seq) - greatest(s.first_seq, l.first_seq) + 1) FROM agent_sequences s
        WHERE s.agent = l.agent AND s.epoch = l.epoch AND s.first_seq <= l.last_seq AND s.last_seq >= l.first_seq
          AND s.first_seq >= coalesce((SELECT max(p.first_seq) FROM agent_sequences p
                                       WHERE p.agent = l.agent AND p.epoch = l.epoch AND p.first_seq <= l.first_seq), 0)), 0)::bigint
        AS missing
    -- A number is missing once, however often it was declared: an agent that crashed may do so again. None is added to the
    -- greatest bigint, since a declaration up to that one leaves nothing to others.
    FROM (SELECT agent, epoch, greatest(first_seq - 1, before) + 1 AS first_seq, last_seq, reason, detail, stored_at
          FROM (SELECT *, coalesce(max(last_seq) OVER (PARTITION BY agent, epoch ORDER BY first_seq, stored_at, loss_seq
                                                       ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
                FROM losses) AS declared
          WHERE last_seq > before) AS l) AS declared
WHERE missing > 0
UNION ALL
SELECT agent, epoch, seq, seq, 1, CASE WHEN dropped_at IS NULL THEN 'dead_letter' ELSE 'discarded' END, drop_reason, error, stored_at
FROM dead_letters d
WHERE agent IS NOT NULL
  -- Ranges do not overlap: the last one that begins at or below the number has it, or none has.
  AND (seq IS NULL OR coalesce((SELECT s.last_seq FROM agent_sequences s
                                WHERE s.agent = d.agent AND s.epoch = d.epoch AND s.first_seq <= d.seq
                                ORDER BY s.first_seq DESC LIMIT 1), 0) < d.seq)
  -- A number is missing once: where it was declared too, or came more than once.
  AND NOT EXISTS (SELECT FROM losses l
                  WHERE l.agent = d.agent AND l.epoch = d.epoch AND d.seq BETWEEN l.first_seq AND l.last_seq)
  AND NOT EXISTS (SELECT FROM dead_letters e
                  WHERE e.agent = d.agent AND e.epoch = d.epoch AND e.seq = d.seq
                    AND (e.kafka_cluster, e.kafka_topic, e.kafka_partition, e.topic_generation, e.kafka_offset)
                      < (d.kafka_cluster, d.kafka_topic, d.kafka_partition, d.topic_generation, d.kafka_offset))
UNION ALL
SELECT agent, epoch, first_seq, last_seq, missing, 'undeclared', NULL, 'never arrived', since FROM sequence_gaps;

-- Each part is read once for all agents, and by its key for one of them.
CREATE VIEW agents AS
SELECT h.agent, h.last_heard_at, a.version,
       CASE WHEN a.state = 'stopped' THEN 'stopped'
            WHEN h.last_heard_at < now() - (SELECT silent_after FROM settings) THEN 'silent'
            ELSE 'running' END AS state,
       a.clock_synced, h.epoch, coalesce(m.missing, 0) AS missing_events, a.last_started_at
FROM (SELECT agent, max(last_stored_at) AS last_heard_at,
             (array_agg(epoch ORDER BY last_stored_at DESC, first_stored_at DESC) FILTER (WHERE counted = 'events'))[1] AS epoch
      FROM agent_sequences WHERE counted <> 'samples' GROUP BY agent) AS h
LEFT JOIN agent_state a ON a.agent = h.agent
LEFT JOIN (SELECT agent, least(coalesce(sum(missing), 0), 9223372036854775807)::bigint AS missing FROM missing_events GROUP BY agent) AS m
       ON m.agent = h.agent;

COMMENT ON TABLE events IS 'Events of the agents, one row per event. Partitioned by observed_at (UTC); see [store] partition';
COMMENT ON COLUMN events.agent IS 'The name of the agent that observed it';
COMMENT ON COLUMN events.epoch IS 'The series that seq counts in, 16 hex digits; a new journal begins a new one';
COMMENT ON COLUMN events.seq IS 'Number of the event in its epoch, from 1, without gaps';
COMMENT ON COLUMN events.observed_at IS 'When it was observed, by the wall clock of the agent';
COMMENT ON COLUMN events.kind IS 'breach_raised, breach_updated, breach_cleared, loss, link_added, link_removed, link_changed, agent_started, agent_stopped, heartbeat';
COMMENT ON COLUMN events.stored_at IS 'When the consumer stored it, by the clock of this server';
COMMENT ON COLUMN events.kafka_topic IS 'The topic it came from';
COMMENT ON COLUMN events.kafka_partition IS 'The partition it came from';
COMMENT ON COLUMN events.kafka_offset IS 'The offset it came from';
COMMENT ON COLUMN events.boot_id IS 'The boot of the agent''s host, as the kernel names it';
COMMENT ON COLUMN events.monotonic_ms IS 'Milliseconds since that boot (CLOCK_BOOTTIME)';
COMMENT ON COLUMN events.clock_synced IS 'True if the wall clock was synchronised; NULL: unknown';
COMMENT ON COLUMN events.breach_id IS 'The breach that the event is about. Not indexed: select by the agent and the times of the breach as well';
COMMENT ON COLUMN events.started_at IS 'Beginning of the first reading of the breach';
COMMENT ON COLUMN events.raised_at IS 'End of the reading that raised the breach';
COMMENT ON COLUMN events.ended_at IS 'End of the last reading so far that was over the limit';
COMMENT ON COLUMN events.limit_name IS 'The limit, as the configuration of the agent names it';
COMMENT ON COLUMN events.severity IS 'warning or critical';
COMMENT ON COLUMN events.interface IS 'The network interface; *: the sum over the host';
COMMENT ON COLUMN events.ifindex IS 'The kernel''s number of the interface';
COMMENT ON COLUMN events.direction IS 'rx: received, tx: sent, total: both';
COMMENT ON COLUMN events.limit_bps IS 'The limit, in bits per second';
COMMENT ON COLUMN events.rate_bps IS 'The last rate evaluated, in bits per second';
COMMENT ON COLUMN events.peak_bps IS 'The highest rate counted so far, in bits per second';
COMMENT ON COLUMN events.mean_bps IS 'The mean rate over measured_ms, in bits per second';
COMMENT ON COLUMN events.duration_ms IS 'From started_at to ended_at on the monotonic clock, in milliseconds';
COMMENT ON COLUMN events.measured_ms IS 'How much of duration_ms was measured, in milliseconds';
COMMENT ON COLUMN events.excess_bytes IS 'Bytes above the limit so far';
COMMENT ON COLUMN events.speed_bps IS 'Speed of the link, in bits per second; NULL: unknown';
COMMENT ON COLUMN events.lost_epoch IS 'The epoch of the events declared as lost';
COMMENT ON COLUMN events.ranges IS 'The numbers declared as lost: [[first, last], ...]';
COMMENT ON COLUMN events.version IS 'Version of the agent';
COMMENT ON COLUMN events.reason IS 'Reason, as one of the words listed in the event schema';
COMMENT ON COLUMN events.detail IS 'Details for people';
COMMENT ON COLUMN events.raw IS 'The whole event as JSON, if this version does not know its kind';

COMMENT ON TABLE samples IS 'What a link carried up to one reading of a recorded series (highwater-agent replay --publish-samples). Partitioned by week of observed_at';
COMMENT ON COLUMN samples.agent IS 'The agent that the series was published as';
COMMENT ON COLUMN samples.epoch IS 'The series that seq counts in, 16 hex digits; never one of events';
COMMENT ON COLUMN samples.seq IS 'Number of the row in its epoch, from 1';
COMMENT ON COLUMN samples.observed_at IS 'When it was read, as the series says';
COMMENT ON COLUMN samples.stored_at IS 'When the consumer stored it, by the clock of this server';
COMMENT ON COLUMN samples.kafka_topic IS 'The topic it came from';
COMMENT ON COLUMN samples.kafka_partition IS 'The partition it came from';
COMMENT ON COLUMN samples.kafka_offset IS 'The offset it came from';
COMMENT ON COLUMN samples.interface IS 'The name given to the series';
COMMENT ON COLUMN samples.duration_ms IS 'Milliseconds since the reading before; NULL: unknown';
COMMENT ON COLUMN samples.rx_bytes IS 'Bytes received in that time; NULL: unknown';
COMMENT ON COLUMN samples.tx_bytes IS 'Bytes sent in that time; NULL: unknown';
COMMENT ON COLUMN samples.rx_bps IS 'Mean rate received, in bits per second; NULL: unknown';
COMMENT ON COLUMN samples.tx_bps IS 'Mean rate sent, in bits per second; NULL: unknown';
COMMENT ON COLUMN samples.reason IS 'Why there is no rate: first, reset';

COMMENT ON TABLE rates IS 'Traffic of each link and direction in one window of time: one-second rates, summed up. Partitioned by week of observed_at';
COMMENT ON COLUMN rates.agent IS 'The agent that measured it';
COMMENT ON COLUMN rates.epoch IS 'The series that seq counts in, 16 hex digits; never one of events';
COMMENT ON COLUMN rates.seq IS 'Number of the message in its epoch, from 1; all links of an agent are in one message, or a few';
COMMENT ON COLUMN rates.observed_at IS 'End of the window, by the wall clock of the agent';
COMMENT ON COLUMN rates.stored_at IS 'When the consumer stored it, by the clock of this server';
COMMENT ON COLUMN rates.kafka_topic IS 'The topic it came from';
COMMENT ON COLUMN rates.kafka_partition IS 'The partition it came from';
COMMENT ON COLUMN rates.kafka_offset IS 'The offset it came from';
COMMENT ON COLUMN rates.interface IS 'The network interface; *: the sum over the host';
COMMENT ON COLUMN rates.direction IS 'rx: received, tx: sent, total: both';
COMMENT ON COLUMN rates.started_at IS 'Beginning of the window';
COMMENT ON COLUMN rates.window_ms IS 'Length of the window, in milliseconds';
COMMENT ON COLUMN rates.bytes IS 'Bytes counted in the window';
COMMENT ON COLUMN rates.packets IS 'Packets counted; NULL: unknown';
COMMENT ON COLUMN rates.errors IS 'Errors counted; NULL: unknown';
COMMENT ON COLUMN rates.drops IS 'Packets dropped; NULL: unknown';
COMMENT ON COLUMN rates.measured_s IS 'Seconds with a rate';
COMMENT ON COLUMN rates.unmeasured_s IS 'Seconds without a rate: gaps, resets, stalls';
COMMENT ON COLUMN rates.min_bps IS 'The lowest one-second rate, in bits per second; NULL: nothing was measured';
COMMENT ON COLUMN rates.mean_bps IS 'The mean rate over measured_s, in bits per second';
COMMENT ON COLUMN rates.max_bps IS 'The highest one-second rate, in bits per second';
COMMENT ON COLUMN rates.p50_bps IS 'The median of the one-second rates, in bits per second';
COMMENT ON COLUMN rates.p95_bps IS 'The 95th percentile of the one-second rates, in bits per second';
COMMENT ON COLUMN rates.p99_bps IS 'The 99th percentile of the one-second rates, in bits per second';
COMMENT ON COLUMN rates.speed_bps IS 'Speed of the link, in bits per second; NULL: unknown';
COMMENT ON COLUMN rates.over IS 'Seconds at or above each limit that applies: [{"limit_name": ..., "limit_bps": ..., "over_s": ...}, ...]';
COMMENT ON COLUMN rates.has_histogram IS 'True if its histogram was stored in window_histograms; false: nothing was measured, or it came too late for it';

COMMENT ON TABLE window_histograms IS 'Histograms of the windows in rates, from which those of hours are made. Partitioned by week of observed_at, and kept for 37 days';
COMMENT ON COLUMN window_histograms.agent IS 'As in rates';
COMMENT ON COLUMN window_histograms.epoch IS 'As in rates';
COMMENT ON COLUMN window_histograms.seq IS 'As in rates';
COMMENT ON COLUMN window_histograms.observed_at IS 'As in rates: end of the window';
COMMENT ON COLUMN window_histograms.interface IS 'As in rates';
COMMENT ON COLUMN window_histograms.direction IS 'As in rates';
COMMENT ON COLUMN window_histograms.histogram IS 'One-second rates in kbit/s: an HdrHistogram, encoded as V2, compressed';

COMMENT ON TABLE touched_hours IS 'Hours of which windows were stored since their histograms were last made. Empty a few seconds after the last message';
COMMENT ON COLUMN touched_hours.id IS 'A number of its own';
COMMENT ON COLUMN touched_hours.agent IS 'The agent';
COMMENT ON COLUMN touched_hours.starts_at IS 'Beginning of the hour, in UTC';

COMMENT ON TABLE histograms IS 'Traffic of each link and direction by hour and by day, made from the windows in rates and window_histograms, and made again where another one arrives';
COMMENT ON COLUMN histograms.agent IS 'The agent';
COMMENT ON COLUMN histograms.interface IS 'The network interface; *: the sum over the host';
COMMENT ON COLUMN histograms.direction IS 'rx: received, tx: sent, total: both';
COMMENT ON COLUMN histograms.span IS 'hour or day, in UTC';
COMMENT ON COLUMN histograms.starts_at IS 'Beginning of the hour or day. A window belongs to the one it began in';
COMMENT ON COLUMN histograms.windows IS 'How many windows are in it';
COMMENT ON COLUMN histograms.late_windows IS 'How many of them came too late for their histogram: they are in the numbers, not in histogram and percentiles';
COMMENT ON COLUMN histograms.bytes IS 'Bytes counted';
COMMENT ON COLUMN histograms.packets IS 'Packets counted; NULL: unknown';
COMMENT ON COLUMN histograms.errors IS 'Errors counted; NULL: unknown';
COMMENT ON COLUMN histograms.drops IS 'Packets dropped; NULL: unknown';
COMMENT ON COLUMN histograms.measured_s IS 'Seconds with a rate';
COMMENT ON COLUMN histograms.unmeasured_s IS 'Seconds of its windows without a rate. What no window covers is in neither';
COMMENT ON COLUMN histograms.min_bps IS 'The lowest one-second rate, in bits per second; NULL: nothing was measured';
COMMENT ON COLUMN histograms.mean_bps IS 'The mean rate over measured_s, in bits per second';
COMMENT ON COLUMN histograms.max_bps IS 'The highest one-second rate, in bits per second';
COMMENT ON COLUMN histograms.p50_bps IS 'The median of the one-second rates, in bits per second';
COMMENT ON COLUMN histograms.p95_bps IS 'The 95th percentile of the one-second rates, in bits per second';
COMMENT ON COLUMN histograms.p99_bps IS 'The 99th percentile of the one-second rates, in bits per second';
COMMENT ON COLUMN histograms.histogram IS 'One-second rates in kbit/s: an HdrHistogram, encoded as V2, compressed; NULL: none was kept';
COMMENT ON COLUMN histograms.version IS 'Greater each time that it changes; also after the database was restored to an earlier state';
COMMENT ON COLUMN histograms.updated_at IS 'When it last changed';
COMMENT ON COLUMN histograms.published_version IS 'Version that Kafka acknowledged last; NULL: none, or a day';

COMMENT ON TABLE unpublished_hours IS 'Hours in histograms that changed, and whose publication Kafka has not acknowledged yet';
COMMENT ON COLUMN unpublished_hours.agent IS 'As in histograms';
COMMENT ON COLUMN unpublished_hours.interface IS 'As in histograms';
COMMENT ON COLUMN unpublished_hours.direction IS 'As in histograms';
COMMENT ON COLUMN unpublished_hours.starts_at IS 'As in histograms: beginning of the hour';

COMMENT ON TABLE partition_notes IS 'What the consumer notes of each partition that it created';
COMMENT ON COLUMN partition_notes.partition IS 'Name of the partition';
COMMENT ON COLUMN partition_notes.newest_stored_at IS 'No row is newer than this and a day: noted once a day, so that writers do not wait for each other';
COMMENT ON COLUMN partition_notes.made_at IS 'When it was created';
COMMENT ON COLUMN partition_notes.outside IS 'True if it was outside the retention then; of events, and of rates, at most 12 such partitions are created per hour';
COMMENT ON COLUMN partition_notes.detaching_since IS 'When retention began to detach it: it takes no more rows, and is dropped once it is detached';

COMMENT ON TABLE breach_state IS 'Latest state of each breach. Query the views breaches and open_breaches instead';
COMMENT ON COLUMN breach_state.agent IS 'The agent';
COMMENT ON COLUMN breach_state.breach_id IS 'The breach, unique within its agent';
COMMENT ON COLUMN breach_state.epoch IS 'Epoch of its latest event';
COMMENT ON COLUMN breach_state.seq IS 'Number of its latest event';
COMMENT ON COLUMN breach_state.observed_at IS 'When its latest event was observed';
COMMENT ON COLUMN breach_state.stored_at IS 'When its latest event was stored';
COMMENT ON COLUMN breach_state.state IS 'open or cleared, as last reported by the agent';
COMMENT ON COLUMN breach_state.started_at IS 'Beginning of its first reading';
COMMENT ON COLUMN breach_state.raised_at IS 'End of the reading that raised it';
COMMENT ON COLUMN breach_state.ended_at IS 'End of the last reading so far that was over the limit';
COMMENT ON COLUMN breach_state.limit_name IS 'The limit, as the configuration of the agent names it';
COMMENT ON COLUMN breach_state.severity IS 'warning or critical';
COMMENT ON COLUMN breach_state.interface IS 'The network interface; *: the sum over the host';
COMMENT ON COLUMN breach_state.direction IS 'rx: received, tx: sent, total: both';
COMMENT ON COLUMN breach_state.limit_bps IS 'The limit, in bits per second';
COMMENT ON COLUMN breach_state.rate_bps IS 'The last rate evaluated, in bits per second';
COMMENT ON COLUMN breach_state.peak_bps IS 'The highest rate counted, in bits per second';
COMMENT ON COLUMN breach_state.mean_bps IS 'The mean rate over measured_ms, in bits per second';
COMMENT ON COLUMN breach_state.duration_ms IS 'From started_at to ended_at on the monotonic clock, in milliseconds';
COMMENT ON COLUMN breach_state.measured_ms IS 'How much of duration_ms was measured, in milliseconds';
COMMENT ON COLUMN breach_state.excess_bytes IS 'Bytes above the limit';
COMMENT ON COLUMN breach_state.reason IS 'Why it was cleared: below, link_removed, link_renamed, limit_removed, interrupted';
COMMENT ON COLUMN breach_state.detail IS 'Details for people';
COMMENT ON COLUMN breach_state.counted_bytes IS 'The highest excess_bytes seen, which is included in totals';

COMMENT ON TABLE agent_sequences IS 'Ranges of seq that were seen, merged where they touch. They outlive the events, so that retention is no gap';
COMMENT ON COLUMN agent_sequences.agent IS 'The agent';
COMMENT ON COLUMN agent_sequences.epoch IS 'The epoch';
COMMENT ON COLUMN agent_sequences.first_seq IS 'The first number of the range';
COMMENT ON COLUMN agent_sequences.last_seq IS 'The last number of the range';
COMMENT ON COLUMN agent_sequences.counted IS 'What it counts: events, samples or rates, which have epochs of their own';
COMMENT ON COLUMN agent_sequences.first_stored_at IS 'When the first of it was stored';
COMMENT ON COLUMN agent_sequences.last_stored_at IS 'When the last of it was stored';
COMMENT ON COLUMN agent_sequences.identity_conflicts IS 'How many of its numbers arrived with two different times: a state directory in use twice, or an old copy of one';

COMMENT ON TABLE agent_state IS 'What is known of each agent from its start, its stop and its windows. Query the view agents instead';
COMMENT ON COLUMN agent_state.agent IS 'The agent';
COMMENT ON COLUMN agent_state.epoch IS 'Epoch of the message that it was last changed by';
COMMENT ON COLUMN agent_state.seq IS 'Number of that message';
COMMENT ON COLUMN agent_state.observed_at IS 'When that message was observed, by the wall clock of the agent';
COMMENT ON COLUMN agent_state.stored_at IS 'When that message was stored';
COMMENT ON COLUMN agent_state.state IS 'running or stopped, as last reported by the agent';
COMMENT ON COLUMN agent_state.version IS 'Version of the agent; NULL: unknown';
COMMENT ON COLUMN agent_state.clock_synced IS 'True if its wall clock was synchronised; NULL: unknown';
COMMENT ON COLUMN agent_state.last_started_at IS 'When it last started; NULL: unknown';

COMMENT ON TABLE losses IS 'Events that their agent gave up, as it declared them';
COMMENT ON COLUMN losses.agent IS 'The agent';
COMMENT ON COLUMN losses.epoch IS 'Epoch of the lost events';
COMMENT ON COLUMN losses.first_seq IS 'The first number that is lost';
COMMENT ON COLUMN losses.last_seq IS 'The last number that is lost; 281474976710656 with reason interrupted: how many there were is not known';
COMMENT ON COLUMN losses.loss_epoch IS 'Epoch of the event that declares it';
COMMENT ON COLUMN losses.loss_seq IS 'Number of the event that declares it';
COMMENT ON COLUMN losses.observed_at IS 'When it was declared, by the wall clock of the agent';
COMMENT ON COLUMN losses.stored_at IS 'When the declaration was stored';
COMMENT ON COLUMN losses.reason IS 'evicted, expired, rejected, damaged, interrupted';
COMMENT ON COLUMN losses.detail IS 'Details for people';

COMMENT ON TABLE totals IS 'Bytes over limit by day: for each breach the highest excess_bytes that any of its events reported. Duplicates and order do not matter';
COMMENT ON COLUMN totals.agent IS 'The agent';
COMMENT ON COLUMN totals.interface IS 'The network interface; *: the sum over the host';
COMMENT ON COLUMN totals.direction IS 'rx: received, tx: sent, total: both';
COMMENT ON COLUMN totals.limit_name IS 'The limit';
COMMENT ON COLUMN totals.day IS 'The day of raised_at, in UTC';
COMMENT ON COLUMN totals.scope IS 'host: a limit on the sum over the host, whose bytes the links count too; link: all others';
COMMENT ON COLUMN totals.breaches IS 'How many breaches';
COMMENT ON COLUMN totals.excess_bytes IS 'Bytes over limit; at most the greatest bigint';

COMMENT ON TABLE kafka_offsets IS 'Where each partition is read from. The offset committed to Kafka only follows it';
COMMENT ON COLUMN kafka_offsets.kafka_cluster IS 'Id of the cluster; empty if it has none';
COMMENT ON COLUMN kafka_offsets.kafka_topic IS 'The topic';
COMMENT ON COLUMN kafka_offsets.kafka_partition IS 'The partition';
COMMENT ON COLUMN kafka_offsets.topic_generation IS 'How often the topic was recreated under its name';
COMMENT ON COLUMN kafka_offsets.next_offset IS 'The first offset that is not stored';
COMMENT ON COLUMN kafka_offsets.last_offset IS 'Offset of the last record stored';
COMMENT ON COLUMN kafka_offsets.last_timestamp IS 'Its timestamp in milliseconds since 1970; -1: none';
COMMENT ON COLUMN kafka_offsets.last_digest IS 'FNV-1a of its key and payload';
COMMENT ON COLUMN kafka_offsets.anchor_offset IS 'Offset of an older record, read again to recognize a recreated topic';
COMMENT ON COLUMN kafka_offsets.anchor_timestamp IS 'Its timestamp in milliseconds since 1970; -1: none';
COMMENT ON COLUMN kafka_offsets.anchor_digest IS 'FNV-1a of its key and payload';
COMMENT ON COLUMN kafka_offsets.updated_at IS 'When it was last changed';

COMMENT ON TABLE kafka_gaps IS 'Offsets that were never read';
COMMENT ON COLUMN kafka_gaps.kafka_cluster IS 'Id of the cluster; empty if it has none';
COMMENT ON COLUMN kafka_gaps.kafka_topic IS 'The topic';
COMMENT ON COLUMN kafka_gaps.kafka_partition IS 'The partition';
COMMENT ON COLUMN kafka_gaps.topic_generation IS 'How often the topic had been recreated under its name';
COMMENT ON COLUMN kafka_gaps.first_offset IS 'The first offset';
COMMENT ON COLUMN kafka_gaps.last_offset IS 'The last offset';
COMMENT ON COLUMN kafka_gaps.cause IS 'expired: deleted by Kafka''s retention before they were read; unreadable: in a batch that is damaged, or larger than receive.message.max.bytes; expired_before_start: deleted before this database first read the topic; skipped_at_start: skipped by kafka.start = latest. The last two are no loss';
COMMENT ON COLUMN kafka_gaps.noticed_at IS 'When it was noticed';

COMMENT ON TABLE dead_letters IS 'Messages that could not become rows, as they came. highwater-consumer dead-letters lists, retries and drops them';
COMMENT ON COLUMN dead_letters.kafka_cluster IS 'Id of the cluster; empty if it has none';
COMMENT ON COLUMN dead_letters.kafka_topic IS 'The topic';
COMMENT ON COLUMN dead_letters.kafka_partition IS 'The partition';
COMMENT ON COLUMN dead_letters.topic_generation IS 'How often the topic had been recreated under its name';
COMMENT ON COLUMN dead_letters.kafka_offset IS 'The offset';
COMMENT ON COLUMN dead_letters.kafka_timestamp IS 'Timestamp of the record';
COMMENT ON COLUMN dead_letters.headers IS 'Its headers, packed: of each the length of the name (4 bytes, big-endian), the name, the length of the value (4 bytes; -1: none), the value';
COMMENT ON COLUMN dead_letters.key IS 'Its key';
COMMENT ON COLUMN dead_letters.payload IS 'Its payload; NULL: a tombstone, or dropped';
COMMENT ON COLUMN dead_letters.bytes IS 'Length of its payload; NULL: a tombstone';
COMMENT ON COLUMN dead_letters.error IS 'Why it could not be stored';
COMMENT ON COLUMN dead_letters.stored_at IS 'When it was stored here';
COMMENT ON COLUMN dead_letters.agent IS 'Agent of the event, if payload, headers or key name it';
COMMENT ON COLUMN dead_letters.epoch IS 'Its epoch, if payload or headers name it';
COMMENT ON COLUMN dead_letters.seq IS 'Its number, if payload or headers name it';
COMMENT ON COLUMN dead_letters.dropped_at IS 'When it was dropped (dead-letters drop, or retention); its bytes were deleted then';
COMMENT ON COLUMN dead_letters.drop_reason IS 'Reason given for that';

COMMENT ON TABLE settings IS 'One row: settings of the consumer that views need. highwater-consumer run writes it';
COMMENT ON COLUMN settings.only_row IS 'Always true: keeps it one row';
COMMENT ON COLUMN settings.silent_after IS 'Time without a message after which an agent is silent: [agents] silent_after';

COMMENT ON VIEW agents IS 'Each agent that sends events or rates. state: running, stopped as it reported itself, or silent: not heard of for [agents] silent_after';
COMMENT ON VIEW breaches IS 'Each breach in its latest state. state: open, cleared, or unknown if its agent began a new epoch without it, was stopped, or is silent; lasted: to now while open, to its last event while unknown';
COMMENT ON VIEW open_breaches IS 'The breaches that are open now';
COMMENT ON VIEW sequence_gaps IS 'Numbers of each agent that are missing without explanation, five minutes after a later one was stored';
COMMENT ON VIEW missing_events IS 'Events that are not in the database. cause: declared (given up by the agent), dead_letter (kept, and can be retried), discarded (a dead letter that was dropped), undeclared (missing without explanation)';

-- A column of these views is the column of that name in their table; the others follow.
DO $$
DECLARE one record;
BEGIN
    FOR one IN
        SELECT v.attrelid::regclass AS view, v.attname AS name, col_description(t.attrelid, t.attnum) AS words
        FROM pg_attribute v
        JOIN pg_attribute t ON t.attname = v.attname AND t.attnum > 0
                           AND t.attrelid = CASE v.attrelid::regclass WHEN 'sequence_gaps'::regclass THEN 'agent_sequences'::regclass
                                                                      WHEN 'missing_events'::regclass THEN 'losses'::regclass
                                                                      WHEN 'agents'::regclass THEN 'agent_state'::regclass
                                                                      ELSE 'breach_state'::regclass END
        WHERE v.attrelid IN ('breaches'::regclass, 'open_breaches'::regclass, 'sequence_gaps'::regclass, 'missing_events'::regclass,
                             'agents'::regclass)
          AND v.attnum > 0
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', one.view, one.name, one.words);
    END LOOP;
END $$;

COMMENT ON COLUMN agents.last_heard_at IS 'When its last message was stored';
COMMENT ON COLUMN agents.state IS 'running; stopped, as it reported itself; or silent: not heard of for [agents] silent_after';
COMMENT ON COLUMN agents.epoch IS 'The epoch that its events count in';
COMMENT ON COLUMN agents.missing_events IS 'How many of its events and windows are not in the database: see missing_events';
COMMENT ON COLUMN breaches.state IS 'open, cleared, or unknown: its agent began a new epoch without it, was stopped, or is silent';
COMMENT ON COLUMN breaches.cleared_at IS 'When it was detected that the rate had been low for long enough; NULL: not cleared';
COMMENT ON COLUMN breaches.lasted IS 'From started_at to ended_at; while open to now, while unknown to the last event';
COMMENT ON COLUMN breaches.last_observed_at IS 'When its last event was observed';
COMMENT ON COLUMN open_breaches.lasted IS 'From started_at to now';
COMMENT ON COLUMN open_breaches.last_observed_at IS 'When its last event was observed';
COMMENT ON COLUMN sequence_gaps.first_seq IS 'The first number that is missing';
COMMENT ON COLUMN sequence_gaps.last_seq IS 'The last number that is missing';
COMMENT ON COLUMN sequence_gaps.missing IS 'How many are missing';
COMMENT ON COLUMN sequence_gaps.since IS 'When the number after them was stored';
COMMENT ON COLUMN missing_events.epoch IS 'Their epoch; NULL: a dead letter that does not name it';
COMMENT ON COLUMN missing_events.first_seq IS 'The first number that is missing; NULL: a dead letter that does not name it';
COMMENT ON COLUMN missing_events.last_seq IS 'The last number that is missing; NULL: how many there were is not known, or as first_seq';
COMMENT ON COLUMN missing_events.missing IS 'How many of them are not in the database; NULL: that is not known';
COMMENT ON COLUMN missing_events.cause IS 'declared, dead_letter, discarded, undeclared';
COMMENT ON COLUMN missing_events.reason IS 'Reason of the agent, or given when the dead letter was dropped';
COMMENT ON COLUMN missing_events.detail IS 'Details for people; the error of a dead letter';
COMMENT ON COLUMN missing_events.noticed_at IS 'When the declaration, the dead letter, or the number after them was stored';
