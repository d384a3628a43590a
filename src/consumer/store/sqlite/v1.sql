-- The same tables and views as in PostgreSQL; see there for what they mean. Times are text, RFC 3339 in UTC with microseconds,
-- which sorts by time. Booleans are 0 and 1.
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
    clock_synced    integer,                    -- NULL: unknown
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
    raw             text,                       -- the whole text of a kind that this version does not know
    PRIMARY KEY (agent, epoch, seq, observed_at)
) STRICT;
CREATE INDEX events_observed_at ON events (observed_at);

CREATE TABLE samples (
    agent           text NOT NULL,
    epoch           text NOT NULL,              -- of samples alone
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
    PRIMARY KEY (agent, epoch, seq, observed_at)
) STRICT;
CREATE INDEX samples_observed_at ON samples (observed_at);

-- The last word on each breach.
CREATE TABLE breach_state (
    agent           text NOT NULL,
    breach_id       text NOT NULL,
    epoch           text NOT NULL,              -- of the event that this is from
    seq             integer NOT NULL,
    observed_at     text NOT NULL,
    state           text NOT NULL CHECK (state IN ('open', 'cleared')),
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
    counted_bytes   integer,
    PRIMARY KEY (agent, breach_id)
) STRICT;

-- lasted is in seconds.
CREATE VIEW breaches AS
SELECT agent, breach_id, limit_name, severity, interface, direction, state,
       started_at, raised_at, ended_at, CASE WHEN state = 'cleared' THEN observed_at END AS cleared_at,
       duration_ms / 1000.0 AS lasted,
       limit_bps, rate_bps, peak_bps, mean_bps, excess_bytes, duration_ms, measured_ms,
       observed_at AS last_seen_at, reason, detail
FROM breach_state;

CREATE TABLE totals (
    agent        text NOT NULL,
    interface    text NOT NULL,
    direction    text NOT NULL,
    day          text NOT NULL,               -- 2026-11-21, of the breach's raised_at
    breaches     integer NOT NULL,
    excess_bytes integer NOT NULL,
    PRIMARY KEY (agent, interface, direction, day)
) STRICT;

-- Events that their agent gave up, as it declared them.
CREATE TABLE losses (
    agent       text NOT NULL,
    epoch       text NOT NULL,    -- of the lost events
    first       integer NOT NULL,
    last        integer NOT NULL,
    loss_epoch  text NOT NULL,    -- of the declaring event
    loss_seq    integer NOT NULL,
    observed_at text NOT NULL,
    stored_at   text NOT NULL,
    reason      text NOT NULL,
    detail      text,
    PRIMARY KEY (agent, epoch, first, last, loss_epoch, loss_seq, observed_at)
) STRICT;

-- Ranges of seq seen, merged where they touch. It outlives the events, so that retention is no gap.
CREATE TABLE agent_sequences (
    agent   text NOT NULL,
    epoch   text NOT NULL,
    first   integer NOT NULL,
    last    integer NOT NULL,
    began   text NOT NULL,             -- when the first of it was stored
    doubled integer NOT NULL,                  -- identities in it that came with a second observed_at
    PRIMARY KEY (agent, epoch, first)
) STRICT;

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
WHERE first - 1 > before AND began < strftime('%Y-%m-%dT%H:%M:%S', 'now', '-5 minutes');

-- Where each partition is read from: the truth, which Kafka's committed offset only follows.
CREATE TABLE kafka_offsets (
    topic         text NOT NULL,
    partition     integer NOT NULL,
    next          integer NOT NULL,            -- the first offset that is not stored
    generation    integer NOT NULL,           -- how often the topic was made anew
    cluster       text,
    last_offset   integer,                     -- the last record stored …
    last_time     integer,                     -- … its timestamp in ms, -1: none
    last_digest   integer,
    anchor_offset integer,                     -- an older one, read again to know the topic by
    anchor_time   integer,
    anchor_digest integer,
    updated_at    text NOT NULL,
    PRIMARY KEY (topic, partition)
) STRICT;

-- Offsets that Kafka's retention dropped before they were read.
CREATE TABLE kafka_gaps (
    topic      text NOT NULL,
    partition  integer NOT NULL,
    generation integer NOT NULL,
    first      integer NOT NULL,
    last       integer NOT NULL,
    noticed_at text NOT NULL,
    PRIMARY KEY (topic, partition, generation, first)
) STRICT;

-- Messages that can't be rows, as they came.
CREATE TABLE dead_letters (
    topic      text NOT NULL,
    partition  integer NOT NULL,
    generation integer NOT NULL,
    "offset"   integer NOT NULL,
    key        blob,
    payload    blob,                         -- NULL: a tombstone
    error      text NOT NULL,
    stored_at  text NOT NULL,
    PRIMARY KEY (topic, partition, generation, "offset")
) STRICT;
CREATE INDEX dead_letters_stored_at ON dead_letters (stored_at);
