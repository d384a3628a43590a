-- The same as in PostgreSQL; see there for what it means.
CREATE TABLE samples (
    agent        text NOT NULL,
    epoch        text NOT NULL,               -- of samples alone
    seq          integer NOT NULL,
    observed_at  text NOT NULL,
    stored_at    text NOT NULL,
    topic        text NOT NULL,
    partition    integer NOT NULL,
    "offset"     integer NOT NULL,
    interface    text NOT NULL,
    duration_ms  integer,
    rx_bytes     integer,
    tx_bytes     integer,
    rx_bps       integer,
    tx_bps       integer,
    reason       text,
    PRIMARY KEY (agent, epoch, seq, observed_at)
) STRICT;
CREATE INDEX samples_observed_at ON samples (observed_at);
