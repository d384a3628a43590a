-- Rows of recorded series (`highwater-agent replay --publish-samples`): what a link carried up to one reading, once each. A
-- partition for each day of observed_at, as `events` has; kept as long.
CREATE TABLE samples (
    agent        text COLLATE "C" NOT NULL,
    epoch        text COLLATE "C" NOT NULL,   -- of samples alone
    seq          bigint NOT NULL,
    observed_at  timestamptz NOT NULL,
    stored_at    timestamptz NOT NULL DEFAULT now(),
    topic        text NOT NULL,
    partition    integer NOT NULL,
    "offset"     bigint NOT NULL,
    interface    text NOT NULL,
    duration_ms  bigint,                      -- since the reading before; here and below NULL: nobody knows
    rx_bytes     bigint,                      -- in that time
    tx_bytes     bigint,
    rx_bps       bigint,                      -- the mean over it
    tx_bps       bigint,
    reason       text,                        -- why there is no rate: first, reset
    PRIMARY KEY (agent, epoch, seq, observed_at)
) PARTITION BY RANGE (observed_at);
