-- The same tables and views as in PostgreSQL; see the comments there for what they mean. Times are text, RFC 3339 in UTC with
-- microseconds, which sorts by time; days are 2026-11-21. Booleans are 0 and 1.
CREATE TABLE events (
    agent           text NOT NULL,
    epoch           text NOT NULL,
    seq             integer NOT NULL,
    observed_at     text NOT NULL,
    kind            text NOT NULL,
    stored_at       text NOT NULL,
    kafka_topic     text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset    integer NOT NULL,
    boot_id         text NOT NULL,
    monotonic_ms    integer NOT NULL,
    clock_synced    integer,
    breach_id       text,
    started_at      text,
    raised_at       text,
    ended_at        text,
    limit_name      text,
    severity        text,
    interface       text,
    ifindex         integer,
    direction       text,
    limit_bps       integer,
    rate_bps        integer,
    peak_bps        integer,
    mean_bps        integer,
    duration_ms     integer,
    measured_ms     integer,
    excess_bytes    integer,
    speed_bps       integer,
    lost_epoch      text,
    ranges          text,
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
) STRICT;
CREATE INDEX events_observed_at ON events (observed_at);

CREATE TABLE samples (
    agent           text NOT NULL,
    epoch           text NOT NULL,
    seq             integer NOT NULL,
    observed_at     text NOT NULL,
    stored_at       text NOT NULL,
    kafka_topic     text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset    integer NOT NULL,
    interface       text NOT NULL,
    duration_ms     integer,
    rx_bytes        integer,
    tx_bytes        integer,
    rx_bps          integer,
    tx_bps          integer,
    reason          text,
    PRIMARY KEY (agent, observed_at, epoch, seq),
    CONSTRAINT samples_place CHECK (seq > 0 AND kafka_partition >= 0 AND kafka_offset >= 0),
    CONSTRAINT samples_figures CHECK (rx_bytes >= 0 AND tx_bytes >= 0 AND rx_bps >= 0 AND tx_bps >= 0 AND duration_ms >= 0)
) STRICT;

CREATE TABLE rates (
    agent           text NOT NULL,
    epoch           text NOT NULL,
    seq             integer NOT NULL,
    observed_at     text NOT NULL,
    stored_at       text NOT NULL,
    kafka_topic     text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset    integer NOT NULL,
    interface       text NOT NULL,
    direction       text NOT NULL,
    started_at      text NOT NULL,
    window_ms       integer NOT NULL,
    bytes           integer NOT NULL,
    packets         integer,
    errors          integer,
    drops           integer,
    measured_s      integer NOT NULL,
    unmeasured_s    integer NOT NULL,
    min_bps         integer,
    mean_bps        integer,
    max_bps         integer,
    p50_bps         integer,
    p95_bps         integer,
    p99_bps         integer,
    speed_bps       integer,
    over            text NOT NULL,
    has_histogram   integer NOT NULL,
    PRIMARY KEY (agent, observed_at, epoch, seq, interface, direction),
    CONSTRAINT rates_place CHECK (seq > 0 AND kafka_partition >= 0 AND kafka_offset >= 0),
    CONSTRAINT rates_direction CHECK (direction IN ('rx', 'tx', 'total')),
    CONSTRAINT rates_figures CHECK (window_ms BETWEEN 1 AND 3600000 AND bytes >= 0 AND measured_s >= 0 AND unmeasured_s >= 0)
) STRICT;
-- What expires is found by its time.
CREATE INDEX rates_observed_at ON rates (observed_at);

CREATE TABLE window_histograms (
    agent       text NOT NULL,
    epoch       text NOT NULL,
    seq         integer NOT NULL,
    observed_at text NOT NULL,
    interface   text NOT NULL,
    direction   text NOT NULL,
    histogram   blob NOT NULL,
    PRIMARY KEY (agent, observed_at, epoch, seq, interface, direction)
) STRICT;
CREATE INDEX window_histograms_observed_at ON window_histograms (observed_at);

CREATE TABLE touched_hours (
    id        integer PRIMARY KEY AUTOINCREMENT,
    agent     text NOT NULL,
    starts_at text NOT NULL
) STRICT;
CREATE INDEX touched_hours_by_hour ON touched_hours (agent, starts_at);

CREATE TABLE histograms (
    agent             text NOT NULL,
    interface         text NOT NULL,
    direction         text NOT NULL,
    span              text NOT NULL,
    starts_at         text NOT NULL,
    windows           integer NOT NULL,
    late_windows      integer NOT NULL,
    bytes             integer NOT NULL,
    packets           integer,
    errors            integer,
    drops             integer,
    measured_s        integer NOT NULL,
    unmeasured_s      integer NOT NULL,
    min_bps           integer,
    mean_bps          integer,
    max_bps           integer,
    p50_bps           integer,
    p95_bps           integer,
    p99_bps           integer,
    histogram         blob,
    version           integer NOT NULL,
    updated_at        text NOT NULL,
    published_version integer,
    PRIMARY KEY (agent, interface, direction, span, starts_at),
    CONSTRAINT histograms_span CHECK (span IN ('hour', 'day')),
    CONSTRAINT histograms_direction CHECK (direction IN ('rx', 'tx', 'total'))
) STRICT;
CREATE INDEX histograms_starts_at ON histograms (span, starts_at);

CREATE TABLE unpublished_hours (
    agent     text NOT NULL,
    interface text NOT NULL,
    direction text NOT NULL,
    starts_at text NOT NULL,
    PRIMARY KEY (agent, interface, direction, starts_at)
) STRICT;

CREATE TABLE breach_state (
    agent           text NOT NULL,
    breach_id       text NOT NULL,
    epoch           text NOT NULL,
    seq             integer NOT NULL,
    observed_at     text NOT NULL,
    stored_at       text NOT NULL,
    state           text NOT NULL,
    started_at      text NOT NULL,
    raised_at       text NOT NULL,
    ended_at        text NOT NULL,
    limit_name      text NOT NULL,
    severity        text NOT NULL,
    interface       text NOT NULL,
    direction       text NOT NULL,
    limit_bps       integer NOT NULL,
    rate_bps        integer NOT NULL,
    peak_bps        integer NOT NULL,
    mean_bps        integer NOT NULL,
    duration_ms     integer NOT NULL,
    measured_ms     integer NOT NULL,
    excess_bytes    integer NOT NULL,
    reason          text,
    detail          text,
    counted_bytes   integer NOT NULL,
    PRIMARY KEY (agent, breach_id),
    CONSTRAINT breach_state_state CHECK (state IN ('open', 'cleared')),
    CONSTRAINT breach_state_severity CHECK (severity IN ('warning', 'critical')),
    CONSTRAINT breach_state_direction CHECK (direction IN ('rx', 'tx', 'total')),
    CONSTRAINT breach_state_figures CHECK (duration_ms >= 0 AND measured_ms >= 0 AND excess_bytes >= 0 AND counted_bytes >= 0)
) STRICT;
CREATE INDEX breach_state_raised_at ON breach_state (raised_at);
CREATE INDEX breach_state_open ON breach_state (raised_at) WHERE state = 'open';

CREATE TABLE agent_sequences (
    agent              text NOT NULL,
    epoch              text NOT NULL,
    first_seq          integer NOT NULL,
    last_seq           integer NOT NULL,
    counted            text NOT NULL,
    first_stored_at    text NOT NULL,
    last_stored_at     text NOT NULL,
    identity_conflicts integer NOT NULL,
    PRIMARY KEY (agent, epoch, first_seq),
    CONSTRAINT agent_sequences_range CHECK (first_seq BETWEEN 1 AND last_seq AND identity_conflicts >= 0),
    CONSTRAINT agent_sequences_counted CHECK (counted IN ('events', 'samples', 'rates'))
) STRICT;

CREATE TABLE agent_state (
    agent           text PRIMARY KEY NOT NULL,
    epoch           text NOT NULL,
    seq             integer NOT NULL,
    observed_at     text NOT NULL,
    stored_at       text NOT NULL,
    state           text NOT NULL,
    version         text,
    clock_synced    integer,
    last_started_at text,
    CONSTRAINT agent_state_state CHECK (state IN ('running', 'stopped'))
) STRICT;

CREATE TABLE losses (
    agent       text NOT NULL,
    epoch       text NOT NULL,
    first_seq   integer NOT NULL,
    last_seq    integer NOT NULL,
    loss_epoch  text NOT NULL,
    loss_seq    integer NOT NULL,
    observed_at text NOT NULL,
    stored_at   text NOT NULL,
    reason      text NOT NULL,
    detail      text,
    PRIMARY KEY (agent, epoch, first_seq, last_seq, loss_epoch, loss_seq, observed_at),
    CONSTRAINT losses_range CHECK (first_seq BETWEEN 1 AND last_seq)
) STRICT;

CREATE TABLE totals (
    agent        text NOT NULL,
    interface    text NOT NULL,
    direction    text NOT NULL,
    limit_name   text NOT NULL,
    day          text NOT NULL,
    scope        text GENERATED ALWAYS AS (CASE interface WHEN '*' THEN 'host' ELSE 'link' END) STORED,
    breaches     integer NOT NULL,
    excess_bytes integer NOT NULL,
    PRIMARY KEY (agent, interface, direction, limit_name, day),
    CONSTRAINT totals_direction CHECK (direction IN ('rx', 'tx', 'total')),
    CONSTRAINT totals_figures CHECK (breaches >= 0 AND excess_bytes >= 0)
) STRICT;
CREATE INDEX totals_day ON totals (day);

CREATE TABLE kafka_offsets (
    kafka_cluster    text NOT NULL,
    kafka_topic      text NOT NULL,
    kafka_partition  integer NOT NULL,
    topic_generation integer NOT NULL,
    next_offset      integer NOT NULL,
    last_offset      integer,
    last_timestamp   integer,
    last_digest      integer,
    anchor_offset    integer,
    anchor_timestamp integer,
    anchor_digest    integer,
    updated_at       text NOT NULL,
    PRIMARY KEY (kafka_cluster, kafka_topic, kafka_partition),
    CONSTRAINT kafka_offsets_next CHECK (kafka_partition >= 0 AND next_offset >= 0 AND topic_generation >= 0)
) STRICT;

CREATE TABLE kafka_gaps (
    kafka_cluster    text NOT NULL,
    kafka_topic      text NOT NULL,
    kafka_partition  integer NOT NULL,
    topic_generation integer NOT NULL,
    first_offset     integer NOT NULL,
    last_offset      integer NOT NULL,
    cause            text NOT NULL,
    noticed_at       text NOT NULL,
    PRIMARY KEY (kafka_cluster, kafka_topic, kafka_partition, topic_generation, first_offset),
    CONSTRAINT kafka_gaps_range CHECK (first_offset BETWEEN 0 AND last_offset),
    CONSTRAINT kafka_gaps_cause CHECK (cause IN ('expired', 'unreadable', 'expired_before_start', 'skipped_at_start'))
) STRICT;

CREATE TABLE dead_letters (
    kafka_cluster    text NOT NULL,
    kafka_topic      text NOT NULL,
    kafka_partition  integer NOT NULL,
    topic_generation integer NOT NULL,
    kafka_offset     integer NOT NULL,
    kafka_timestamp  text,
    headers          blob,
    key              blob,
    payload          blob,
    bytes            integer,
    error            text NOT NULL,
    stored_at        text NOT NULL,
    agent            text,
    epoch            text,
    seq              integer,
    dropped_at       text,
    drop_reason      text,
    PRIMARY KEY (kafka_cluster, kafka_topic, kafka_partition, topic_generation, kafka_offset),
    CONSTRAINT dead_letters_place CHECK (kafka_partition >= 0 AND kafka_offset >= 0 AND topic_generation >= 0 AND bytes >= 0),
    CONSTRAINT dead_letters_dropped CHECK ((dropped_at IS NULL) = (drop_reason IS NULL))
) STRICT;
CREATE INDEX dead_letters_stored_at ON dead_letters (stored_at);
CREATE INDEX dead_letters_agent ON dead_letters (agent, epoch, seq) WHERE agent IS NOT NULL;

-- `silent_after` is in seconds.
CREATE TABLE settings (
    only_row     integer PRIMARY KEY DEFAULT 1,
    silent_after integer NOT NULL,
    CONSTRAINT settings_only_row CHECK (only_row)
) STRICT;
INSERT INTO settings (silent_after) VALUES (3600);

-- `lasted` is in seconds.
CREATE VIEW breaches AS
SELECT agent, breach_id, limit_name, severity, interface, direction, state, started_at, raised_at, ended_at,
       CASE WHEN state = 'cleared' THEN observed_at END AS cleared_at,
       CASE state WHEN 'open' THEN max((julianday('now') - julianday(started_at)) * 86400.0, 0.0)
                  WHEN 'unknown' THEN max((julianday(observed_at) - julianday(started_at)) * 86400.0, duration_ms / 1000.0)
                  ELSE duration_ms / 1000.0 END AS lasted,
       limit_bps, rate_bps, peak_bps, mean_bps, excess_bytes, duration_ms, measured_ms, observed_at AS last_observed_at,
       reason, detail
FROM (SELECT b.agent, b.breach_id, b.limit_name, b.severity, b.interface, b.direction, b.started_at, b.raised_at, b.ended_at,
             b.limit_bps, b.rate_bps, b.peak_bps, b.mean_bps, b.excess_bytes, b.duration_ms, b.measured_ms,
             b.observed_at, b.reason, b.detail,
             CASE WHEN b.state = 'cleared' THEN 'cleared'
                  WHEN EXISTS (SELECT 1 FROM agent_state a
                       WHERE a.agent = b.agent AND (a.state = 'stopped' OR a.epoch <> b.epoch AND a.last_started_at > b.observed_at))
             OR NOT EXISTS (SELECT 1 FROM agent_sequences s
                            WHERE s.agent = b.agent AND s.counted <> 'samples'
                              AND s.last_stored_at >= strftime('%Y-%m-%dT%H:%M:%S', 'now', '-' || (SELECT silent_after FROM settings) || ' seconds'))
             OR EXISTS (SELECT 1 FROM agent_sequences s
                        WHERE s.agent = b.agent AND s.epoch <> b.epoch AND s.counted = 'events' AND s.first_stored_at >= b.stored_at
                          AND (s.first_stored_at > b.stored_at
                               OR EXISTS (SELECT 1 FROM events e WHERE e.agent = b.agent AND e.epoch = s.epoch
                                                                   AND e.observed_at > b.observed_at)))
                  THEN 'unknown' ELSE 'open' END AS state
      FROM breach_state b);

CREATE VIEW open_breaches AS
SELECT b.agent, b.breach_id, b.limit_name, b.severity, b.interface, b.direction, b.started_at, b.raised_at, b.ended_at,
       max((julianday('now') - julianday(b.started_at)) * 86400.0, 0.0) AS lasted,
       b.limit_bps, b.rate_bps, b.peak_bps, b.mean_bps, b.excess_bytes, b.duration_ms, b.measured_ms,
       b.observed_at AS last_observed_at, b.detail
FROM breach_state b
WHERE b.state = 'open'
  AND NOT (EXISTS (SELECT 1 FROM agent_state a
                       WHERE a.agent = b.agent AND (a.state = 'stopped' OR a.epoch <> b.epoch AND a.last_started_at > b.observed_at))
             OR NOT EXISTS (SELECT 1 FROM agent_sequences s
                            WHERE s.agent = b.agent AND s.counted <> 'samples'
                              AND s.last_stored_at >= strftime('%Y-%m-%dT%H:%M:%S', 'now', '-' || (SELECT silent_after FROM settings) || ' seconds'))
             OR EXISTS (SELECT 1 FROM agent_sequences s
                        WHERE s.agent = b.agent AND s.epoch <> b.epoch AND s.counted = 'events' AND s.first_stored_at >= b.stored_at
                          AND (s.first_stored_at > b.stored_at
                               OR EXISTS (SELECT 1 FROM events e WHERE e.agent = b.agent AND e.epoch = s.epoch
                                                                   AND e.observed_at > b.observed_at))));

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
WHERE first_seq - 1 > before AND since < strftime('%Y-%m-%dT%H:%M:%S', 'now', '-5 minutes')
  -- Where reading began in the middle of a topic, the first series of an agent may have begun before: of one that was heard of within
  -- the time that events wait in a journal, and a week.
  AND (before > 0 OR NOT EXISTS (SELECT 1 FROM kafka_gaps g JOIN agent_sequences h ON h.agent = ranges.agent
                                 WHERE g.cause IN ('expired_before_start', 'skipped_at_start') AND g.noticed_at <= since
                                   AND h.first_stored_at < strftime('%Y-%m-%dT%H:%M:%S', g.noticed_at, '+37 days'))
       OR EXISTS (SELECT 1 FROM agent_sequences o
                  WHERE o.agent = ranges.agent AND o.epoch <> ranges.epoch AND o.counted = ranges.counted
                    AND o.first_stored_at < since));

CREATE VIEW missing_events AS
SELECT agent, epoch, first_seq, CASE WHEN is_open THEN NULL ELSE last_seq END AS last_seq,
       CASE WHEN is_open THEN NULL ELSE missing END AS missing, 'declared' AS cause, reason, detail, stored_at AS noticed_at
FROM (
    -- An agent that crashed does not know how many numbers it had given.
    SELECT l.*, l.reason = 'interrupted' AND l.last_seq = 281474976710656 AS is_open,
           l.last_seq - l.first_seq + 1 - coalesce((
        SELECT sum(min(s.last_seq, l.last_seq) - max(s.first_seq, l.first_seq) + 1) FROM agent_sequences s
        WHERE s.agent = l.agent AND s.epoch = l.epoch AND s.first_seq <= l.last_seq AND s.last_seq >= l.first_seq
          AND s.first_seq >= coalesce((SELECT max(p.first_seq) FROM agent_sequences p
                                       WHERE p.agent = l.agent AND p.epoch = l.epoch AND p.first_seq <= l.first_seq), 0)), 0) AS missing
    FROM (SELECT agent, epoch, max(first_seq - 1, before) + 1 AS first_seq, last_seq, reason, detail, stored_at
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
  AND NOT EXISTS (SELECT 1 FROM losses l
                  WHERE l.agent = d.agent AND l.epoch = d.epoch AND d.seq BETWEEN l.first_seq AND l.last_seq)
  AND NOT EXISTS (SELECT 1 FROM dead_letters e
                  WHERE e.agent = d.agent AND e.epoch = d.epoch AND e.seq = d.seq
                    AND (e.kafka_cluster, e.kafka_topic, e.kafka_partition, e.topic_generation, e.kafka_offset)
                      < (d.kafka_cluster, d.kafka_topic, d.kafka_partition, d.topic_generation, d.kafka_offset))
UNION ALL
SELECT agent, epoch, first_seq, last_seq, missing, 'undeclared', NULL, 'never arrived', since FROM sequence_gaps;

CREATE VIEW agents AS
SELECT h.agent, h.last_heard_at, a.version,
       CASE WHEN a.state = 'stopped' THEN 'stopped'
            WHEN h.last_heard_at < strftime('%Y-%m-%dT%H:%M:%S', 'now', '-' || (SELECT silent_after FROM settings) || ' seconds')
            THEN 'silent' ELSE 'running' END AS state,
       a.clock_synced,
       (SELECT s.epoch FROM agent_sequences s WHERE s.agent = h.agent AND s.counted = 'events'
        ORDER BY s.last_stored_at DESC, s.first_stored_at DESC LIMIT 1) AS epoch,
       (SELECT cast(total(m.missing) AS integer) FROM missing_events m WHERE m.agent = h.agent) AS missing_events,
       a.last_started_at
FROM (SELECT agent, max(last_stored_at) AS last_heard_at FROM agent_sequences WHERE counted <> 'samples' GROUP BY agent) AS h
LEFT JOIN agent_state a ON a.agent = h.agent;
