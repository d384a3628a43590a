-- The agent's journal. Whatever changes within a statement, be it a comment, makes another version: a journal whose tables are not
-- these to the letter is damaged. The version is also in the first statement: an older agent takes a journal for newer only where
-- both say so, and for damaged otherwise.

-- One row: who counts, and how far.
CREATE TABLE meta (  -- journal version 1
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    epoch      INTEGER NOT NULL,  -- 64 random bits, as a signed number
    next_seq   INTEGER NOT NULL,
    rates_epoch    INTEGER NOT NULL,  -- rates count apart from events
    next_rates_seq INTEGER NOT NULL,
    samples_epoch  INTEGER NOT NULL,  -- samples are in memory alone: their epoch, and the first that Kafka may not have; 0: none
    samples_seq    INTEGER NOT NULL,
    commits    INTEGER NOT NULL,  -- number of synced transactions: compared with the mark beside the file
    pending    TEXT    NOT NULL,  -- where the events lie, and how many: [["EPOCH", {first, next, events}], …]
    agent      TEXT    NOT NULL,  -- the agent's name: under another one it begins an epoch of its own
    machine_id TEXT    NOT NULL,  -- /etc/machine-id: a cloned image begins an epoch of its own
    former     TEXT    NOT NULL,  -- epochs of former names that have events here: [{epoch, agent, next_seq, rates}, …]
    crc        INTEGER NOT NULL   -- CRC-32 of the other columns
) STRICT;

-- Events that nobody has acknowledged.
CREATE TABLE events (
    position    INTEGER PRIMARY KEY,  -- the order in which they were registered; rates from 2^61 on
    epoch       INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    rank        INTEGER NOT NULL,     -- the lower, the sooner it goes when room is short
    observed_us INTEGER NOT NULL,     -- microseconds since 1970
    crc         INTEGER NOT NULL,     -- CRC-32 of the payload
    payload     BLOB    NOT NULL      -- JSON, as it goes to Kafka
) STRICT;

-- At most one row: the window of rates that was open when the agent stopped, as it was then.
CREATE TABLE open_window (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    crc     INTEGER NOT NULL,
    payload BLOB    NOT NULL
) STRICT;

-- The last event of each breach that is not cleared.
CREATE TABLE open_breaches (
    breach_id TEXT PRIMARY KEY,
    crc       INTEGER NOT NULL,
    payload   BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 1;
