-- The greatest excess_bytes seen of each breach, which `totals` holds the sums of; NULL: not counted yet. "Greatest seen" is the
-- same whatever order events come in, and however often, and the last of a breach says it all where updates were evicted. It holds
-- as long as the breach is kept: an event that comes again when retention has dropped its breach counts anew.
SET LOCAL statement_timeout = 0;

ALTER TABLE breach_state ADD COLUMN counted_bytes bigint;

CREATE TABLE totals (
    agent        text COLLATE "C" NOT NULL,
    interface    text COLLATE "C" NOT NULL,
    direction    text COLLATE "C" NOT NULL,
    day          date NOT NULL,               -- of the breach's raised_at, in UTC
    breaches     bigint NOT NULL,
    excess_bytes bigint NOT NULL,             -- bytes over limit; stops at the greatest bigint
    PRIMARY KEY (agent, interface, direction, day)
);

-- What was stored before.
UPDATE breach_state b SET counted_bytes = greatest(b.excess_bytes, seen.bytes)
FROM breach_state s
LEFT JOIN (SELECT agent, breach_id, max(excess_bytes) AS bytes FROM events WHERE breach_id IS NOT NULL GROUP BY 1, 2) AS seen
       ON seen.agent = s.agent AND seen.breach_id = s.breach_id
WHERE b.agent = s.agent AND b.breach_id = s.breach_id;

INSERT INTO totals
SELECT agent, interface, direction, (raised_at AT TIME ZONE 'UTC')::date, count(*),
       least(sum(counted_bytes), 9223372036854775807)::bigint
FROM breach_state GROUP BY 1, 2, 3, 4;
