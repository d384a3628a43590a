-- The same as in PostgreSQL; see there for what it means.
ALTER TABLE breach_state ADD COLUMN counted_bytes integer;

CREATE TABLE totals (
    agent        text NOT NULL,
    interface    text NOT NULL,
    direction    text NOT NULL,
    day          text NOT NULL,               -- 2026-11-21, of the breach's raised_at
    breaches     integer NOT NULL,
    excess_bytes integer NOT NULL,
    PRIMARY KEY (agent, interface, direction, day)
) STRICT;

-- What was stored before.
UPDATE breach_state SET counted_bytes = max(breach_state.excess_bytes, seen.bytes)
FROM (SELECT agent, breach_id, max(excess_bytes) AS bytes FROM (
          SELECT agent, breach_id, excess_bytes FROM events WHERE breach_id IS NOT NULL
          UNION ALL
          SELECT agent, breach_id, excess_bytes FROM breach_state) GROUP BY agent, breach_id) AS seen
WHERE seen.agent = breach_state.agent AND seen.breach_id = breach_state.breach_id;

INSERT INTO totals
SELECT agent, interface, direction, substr(raised_at, 1, 10), 1, counted_bytes FROM breach_state WHERE true
ON CONFLICT DO UPDATE SET breaches = breaches + 1,
    excess_bytes = CASE WHEN totals.excess_bytes > 9223372036854775807 - excluded.excess_bytes THEN 9223372036854775807
                        ELSE totals.excess_bytes + excluded.excess_bytes END;
