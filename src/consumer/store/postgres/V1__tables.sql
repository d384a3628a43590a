-- Events, one row each, a partition for each day of observed_at. Days are made before the batch that needs them; there is no
-- default partition, since rows in it would block the making of their day. Identities are compared byte by byte ("C").
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
    clock_synced    boolean,                    -- NULL: unknown
    breach_id       text,
    started_at      timestamptz,                -- begin of the breach's first reading
    raised_at       timestamptz,                -- end of the reading that raised it
    ended_at        timestamptz,                -- end of the last reading so far that was over
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
    reason          text,                       -- a word of the list in the schema
    detail          text,                       -- what a person may want to know besides
    raw             text,                       -- the whole text of a kind that this version does not know
    PRIMARY KEY (agent, epoch, seq, observed_at)
) PARTITION BY RANGE (observed_at);

-- Rows of recorded series (`highwater-agent replay --publish-samples`): what a link carried up to one reading, once each. A
-- partition for each day of observed_at, as `events` has; kept as long.
CREATE TABLE samples (
    agent           text COLLATE "C" NOT NULL,
    epoch           text COLLATE "C" NOT NULL,  -- of samples alone
    seq             bigint NOT NULL,
    observed_at     timestamptz NOT NULL,
    stored_at       timestamptz NOT NULL DEFAULT now(),
    kafka_topic     text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset    bigint NOT NULL,
    interface       text NOT NULL,
    duration_ms     bigint,                     -- since the reading before; here and below NULL: nobody knows
    rx_bytes        bigint,                     -- in that time
    tx_bytes        bigint,
    rx_bps          bigint,                     -- the mean over it
    tx_bps          bigint,
    reason          text,                       -- why there is no rate: first, reset
    PRIMARY KEY (agent, epoch, seq, observed_at)
) PARTITION BY RANGE (observed_at);

-- The last word on each breach.
CREATE TABLE breach_state (
    agent           text COLLATE "C" NOT NULL,
    breach_id       text COLLATE "C" NOT NULL,
    epoch           text COLLATE "C" NOT NULL,  -- of the event that this is from
    seq             bigint NOT NULL,
    observed_at     timestamptz NOT NULL,
    state           text NOT NULL CHECK (state IN ('open', 'cleared')),
    started_at      timestamptz NOT NULL,
    raised_at       timestamptz NOT NULL,
    ended_at        timestamptz NOT NULL,
    limit_name      text NOT NULL,
    severity        text NOT NULL,
    interface       text NOT NULL,
    direction       text NOT NULL,
    limit_bps       bigint NOT NULL,
    rate_bps        bigint NOT NULL,
    peak_bps        bigint NOT NULL,
    mean_bps        bigint NOT NULL,
    duration_ms     bigint NOT NULL,
    measured_ms     bigint NOT NULL,
    excess_bytes    bigint NOT NULL,
    reason          text,
    detail          text,
    counted_bytes   bigint,                     -- the greatest excess_bytes seen, which `totals` has; NULL: not counted yet
    PRIMARY KEY (agent, breach_id)
);

-- What is known of each breach. A clear's own time is when it was judged; the traffic ended at ended_at. (An interval has no room for
-- the greatest bigint.)
CREATE VIEW breaches AS
SELECT agent, breach_id, limit_name, severity, interface, direction, state,
       started_at, raised_at, ended_at, CASE WHEN state = 'cleared' THEN observed_at END AS cleared_at,
       make_interval(secs => least(duration_ms, 9000000000000000) / 1000.0) AS lasted,
       limit_bps, rate_bps, peak_bps, mean_bps, excess_bytes, duration_ms, measured_ms,
       observed_at AS last_seen_at, reason, detail
FROM breach_state;

-- Sums over breaches of the greatest excess_bytes seen of each. "Greatest seen" is the same whatever order events come in, and
-- however often, and the last of a breach says it all where updates were evicted. It holds as long as the breach is kept: an event
-- that comes again when retention has dropped its breach counts anew.
CREATE TABLE totals (
    agent        text COLLATE "C" NOT NULL,
    interface    text COLLATE "C" NOT NULL,
    direction    text COLLATE "C" NOT NULL,
    day          date NOT NULL,               -- of the breach's raised_at, in UTC
    breaches     bigint NOT NULL,
    excess_bytes bigint NOT NULL,             -- bytes over limit; stops at the greatest bigint
    PRIMARY KEY (agent, interface, direction, day)
);

-- Events that their agent gave up, as it declared them.
CREATE TABLE losses (
    agent       text COLLATE "C" NOT NULL,
    epoch       text COLLATE "C" NOT NULL,    -- of the lost events
    first       bigint NOT NULL,
    last        bigint NOT NULL,
    loss_epoch  text COLLATE "C" NOT NULL,    -- of the declaring event
    loss_seq    bigint NOT NULL,
    observed_at timestamptz NOT NULL,
    stored_at   timestamptz NOT NULL,
    reason      text NOT NULL,
    detail      text,
    PRIMARY KEY (agent, epoch, first, last, loss_epoch, loss_seq, observed_at)
);

-- Ranges of seq seen, merged where they touch. It outlives the events, so that retention is no gap.
CREATE TABLE agent_sequences (
    agent   text COLLATE "C" NOT NULL,
    epoch   text COLLATE "C" NOT NULL,
    first   bigint NOT NULL,
    last    bigint NOT NULL,
    began   timestamptz NOT NULL,             -- when the first of it was stored
    doubled bigint NOT NULL,                  -- identities in it that came with a second observed_at
    PRIMARY KEY (agent, epoch, first)
);

-- What is missing of each agent's count, neither seen nor declared as lost.
CREATE VIEW sequence_gaps AS
SELECT agent, epoch, before + 1 AS first, first - 1 AS last, first - 1 - before AS missing, began AS since
FROM (
    SELECT agent, epoch, first, began,
           coalesce(max(last) OVER (PARTITION BY agent, epoch ORDER BY first, last
                                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
    FROM (SELECT agent, epoch, first, last, began FROM agent_sequences
          UNION ALL
          SELECT agent, epoch, first, last, stored_at FROM losses) AS known
) AS ranges
WHERE first - 1 > before AND began < now() - interval '5 minutes';

-- Where each partition is read from: the truth, which Kafka's committed offset only follows.
CREATE TABLE kafka_offsets (
    topic         text NOT NULL,
    partition     integer NOT NULL,
    next          bigint NOT NULL,            -- the first offset that is not stored
    generation    integer NOT NULL,           -- how often the topic was made anew
    cluster       text,
    last_offset   bigint,                     -- the last record stored …
    last_time     bigint,                     -- … its timestamp in ms, -1: none
    last_digest   bigint,
    anchor_offset bigint,                     -- an older one, read again to know the topic by
    anchor_time   bigint,
    anchor_digest bigint,
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition)
);

-- Offsets that Kafka's retention dropped before they were read.
CREATE TABLE kafka_gaps (
    topic      text NOT NULL,
    partition  integer NOT NULL,
    generation integer NOT NULL,
    first      bigint NOT NULL,
    last       bigint NOT NULL,
    noticed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, generation, first)
);

-- Messages that can't be rows, as they came.
CREATE TABLE dead_letters (
    topic      text NOT NULL,
    partition  integer NOT NULL,
    generation integer NOT NULL,
    "offset"   bigint NOT NULL,
    key        bytea,
    payload    bytea,                         -- NULL: a tombstone
    error      text NOT NULL,
    stored_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, generation, "offset")
);
CREATE INDEX dead_letters_stored_at ON dead_letters (stored_at);
