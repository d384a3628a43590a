//! Statements of a batch, prepared once per session. Values travel as typed binary parameters, which no setting changes.

use postgres::{Client, Statement};

use super::columns::breach_columns;
use crate::consumer::store::tables::{PARTITIONED, TABLES, Table};
use crate::message::fields::{AGENT, BREACH_ID};
use crate::process::failpoints::{self, unless_disabled};

/// Statements by table: `of_tables` in the order of [`TABLES`], `copies` in that of [`PARTITIONED`].
pub(super) struct Statements {
    of_tables: Vec<TableStatements>,
    copies: Vec<String>,
    pub(super) lock_checkpoints: Statement,
    pub(super) known_ranges: Lookup,
    pub(super) drop_ranges: Statement,
    pub(super) change_ranges: Statement,
    pub(super) insert_ranges: Statement,
    pub(super) known_breaches: Lookup,
    pub(super) copy_breaches: String,
    pub(super) change_breaches: Statement,
    pub(super) count_breaches: Statement,
    pub(super) add_totals: Statement,
    pub(super) put_totals: Statement,
    pub(super) put_losses: Statement,
    pub(super) put_touched_hours: Statement,
    pub(super) known_agents: Lookup,
    pub(super) insert_agents: Statement,
    pub(super) change_agents: Statement,
    pub(super) put_gap: Statement,
    pub(super) put_dead_letters: Statement,
    pub(super) lock_dead_letters: Statement,
    pub(super) delete_dead_letters: Statement,
    pub(super) advance: Statement,
    pub(super) read_back: Statement,
}

pub(super) struct TableStatements {
    pub(super) existing: Statement,
    pub(super) other_times: Statement,
}

impl Statements {
    pub(super) fn of(&self, table: Table) -> &TableStatements {
        &self.of_tables[table as usize]
    }

    pub(super) fn copy(&self, table: Table) -> &str {
        &self.copies[table as usize]
    }

    pub(super) fn prepare(client: &mut Client) -> Result<Self, postgres::Error> {
        Ok(Self {
            copies: PARTITIONED.into_iter().map(super::copy::statement).collect(),
            of_tables: TABLES.iter().map(|table| TableStatements::prepare(client, *table)).collect::<Result<_, _>>()?,
            lock_checkpoints: client.prepare(&unless_disabled("guard-1-lock", "FOR UPDATE", LOCK_CHECKPOINTS))?,
            known_ranges: Lookup::prepare(client, KNOWN_RANGES, "FOR UPDATE OF s")?,
            drop_ranges: client.prepare(DROP_RANGES)?,
            change_ranges: client.prepare(CHANGE_RANGES)?,
            insert_ranges: client.prepare(INSERT_RANGES)?,
            known_breaches: Lookup::prepare(client, KNOWN_BREACHES, "ORDER BY b.agent, b.breach_id FOR UPDATE OF b")?,
            copy_breaches: super::copy::breaches_statement(),
            change_breaches: client.prepare(&change_breaches())?,
            count_breaches: client.prepare(COUNT_BREACHES)?,
            add_totals: client.prepare(ADD_TOTALS)?,
            put_totals: client.prepare(PUT_TOTALS)?,
            put_losses: client.prepare(PUT_LOSSES)?,
            put_touched_hours: client.prepare(PUT_TOUCHED_HOURS)?,
            known_agents: Lookup::prepare(client, KNOWN_AGENTS, "ORDER BY a.agent FOR UPDATE OF a")?,
            insert_agents: client.prepare(INSERT_AGENTS)?,
            change_agents: client.prepare(CHANGE_AGENTS)?,
            put_gap: client.prepare(PUT_GAP)?,
            put_dead_letters: client.prepare(PUT_DEAD_LETTERS)?,
            lock_dead_letters: client.prepare(LOCK_DEAD_LETTERS)?,
            delete_dead_letters: client.prepare(DELETE_DEAD_LETTERS)?,
            advance: client.prepare(&unless_disabled("guard-3", " AND o.next_offset = n.old", ADVANCE))?,
            read_back: client.prepare(READ_BACK)?,
        })
    }
}

pub(super) struct Lookup {
    unlocked: Statement,
    locked: Statement,
}

impl Lookup {
    /// Prepares a lookup with and without `lock`, which locks rows in one order: two transactions do not wait for each other.
    fn prepare(client: &mut Client, sql: &str, lock: &str) -> Result<Self, postgres::Error> {
        Ok(Self { unlocked: client.prepare(sql)?, locked: client.prepare(&format!("{sql} {lock}"))? })
    }

    pub(super) fn of(&self, locking: bool) -> &Statement {
        if locking { &self.locked } else { &self.unlocked }
    }
}

impl TableStatements {
    fn prepare(client: &mut Client, table: Table) -> Result<Self, postgres::Error> {
        let name = table.name();
        let wanted = "unnest($1::text[], $2::timestamptz[], $3::text[], $4::bigint[]) WITH ORDINALITY
                      AS s (agent, observed_at, epoch, seq, number)";
        let entries = failpoints::number("other-times-max", OTHER_TIMES_MAX);
        Ok(Self {
            existing: client.prepare(&format!(
                "SELECT s.number FROM {wanted}
                 WHERE EXISTS (SELECT FROM {name} e WHERE e.agent = s.agent AND e.observed_at = s.observed_at
                                                      AND e.epoch = s.epoch AND e.seq = s.seq)"
            ))?,
            // Only the newest entries of each agent are read: a whole fleet's would take longer than a database may be silent.
            other_times: client.prepare(&format!(
                "WITH wanted AS MATERIALIZED (SELECT * FROM {wanted}),
                      agents AS MATERIALIZED (
                          SELECT agent, {entries} / count(*) OVER () AS newest FROM (SELECT DISTINCT agent FROM wanted) AS a)
                 SELECT DISTINCT s.number FROM agents a
                 CROSS JOIN LATERAL (SELECT e.agent, e.epoch, e.seq, e.observed_at FROM {name} e
                                     WHERE e.agent = a.agent ORDER BY e.observed_at DESC LIMIT a.newest) AS e
                 JOIN wanted s ON e.agent = s.agent AND e.epoch = s.epoch AND e.seq = s.seq AND e.observed_at <> s.observed_at"
            ))?,
        })
    }
}

const OTHER_TIMES_MAX: u64 = 1_000_000;

/// Guard 1: see `store/mod.rs`.
const LOCK_CHECKPOINTS: &str = "
    SELECT kafka_partition, next_offset, topic_generation FROM kafka_offsets
    WHERE kafka_cluster = $1 AND kafka_topic = $2 AND kafka_partition = ANY($3) ORDER BY kafka_partition FOR UPDATE";

/// Ranges do not overlap: the search starts at the last one that begins below. `OFFSET 0` keeps it within both bounds: joined first,
/// all ranges of an agent would be read for each number. Without a lock, which would write to each row.
const KNOWN_RANGES: &str = "
    SELECT s.agent, s.epoch, s.first_seq, s.last_seq, s.counted, s.first_stored_at, s.identity_conflicts
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS b (agent, epoch, first, last)
    CROSS JOIN LATERAL (SELECT * FROM agent_sequences s
                        WHERE s.agent = b.agent AND s.epoch = b.epoch AND s.last_seq >= b.first - 1
                          AND s.first_seq BETWEEN (SELECT coalesce(max(p.first_seq), 0) FROM agent_sequences p
                                                   WHERE p.agent = b.agent AND p.epoch = b.epoch AND p.first_seq < b.first)
                                              AND b.last + 1
                        OFFSET 0) AS s
    ORDER BY s.agent, s.epoch, s.first_seq";

const DROP_RANGES: &str = "
    DELETE FROM agent_sequences s
    USING unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) AS g (agent, epoch, first, last, conflicts)
    WHERE s.agent = g.agent AND s.epoch = g.epoch AND s.first_seq = g.first
      AND s.last_seq = g.last AND s.identity_conflicts = g.conflicts";

const CHANGE_RANGES: &str = "
    UPDATE agent_sequences s
    SET last_seq = b.last, first_stored_at = b.first_stored_at, last_stored_at = now(), identity_conflicts = b.conflicts
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::bigint[], $8::bigint[])
         AS b (agent, epoch, first, old_last, last, first_stored_at, old_conflicts, conflicts)
    WHERE s.agent = b.agent AND s.epoch = b.epoch AND s.first_seq = b.first
      AND s.last_seq = b.old_last AND s.identity_conflicts = b.old_conflicts";

const INSERT_RANGES: &str = "
    INSERT INTO agent_sequences (agent, epoch, first_seq, last_seq, counted, first_stored_at, last_stored_at,
                                 identity_conflicts)
    SELECT agent, epoch, first, last, counted, coalesce(first_stored_at, now()), now(), conflicts
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::timestamptz[], $7::bigint[])
         AS b (agent, epoch, first, last, counted, first_stored_at, conflicts)
    ON CONFLICT DO NOTHING";

const KNOWN_BREACHES: &str = "
    SELECT b.agent, b.breach_id, b.state = 'cleared', b.duration_ms, b.epoch, b.seq, b.observed_at, b.counted_bytes
    FROM unnest($1::text[], $2::text[]) AS k (agent, breach_id)
    JOIN breach_state b ON b.agent = k.agent AND b.breach_id = k.breach_id";

fn change_breaches() -> String {
    let columns = breach_columns();
    let is_key = |name: &str| [AGENT.name, BREACH_ID.name].contains(&name);
    let changed = columns.iter().filter(|(name, _)| !is_key(name)).map(|(name, _)| format!("{name} = n.{name}"));
    let changed = changed.collect::<Vec<_>>().join(", ");
    let old = [("old_epoch", "text"), ("old_seq", "bigint"), ("old_counted_bytes", "bigint")];
    let given = [&columns[..], &old].concat();
    let arrays: Vec<String> = (1..).zip(&given).map(|(number, (_, kind))| format!("${number}::{kind}[]")).collect();
    let names: Vec<&str> = given.iter().map(|(name, _)| *name).collect();
    format!(
        "UPDATE breach_state b SET {changed}, stored_at = now() FROM unnest({}) AS n ({})
         WHERE b.agent = n.agent AND b.breach_id = n.breach_id
           AND b.epoch = n.old_epoch AND b.seq = n.old_seq AND b.counted_bytes = n.old_counted_bytes",
        arrays.join(", "),
        names.join(", ")
    )
}

const COUNT_BREACHES: &str = "
    UPDATE breach_state b SET counted_bytes = n.counted_bytes
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS n (agent, breach_id, old_counted_bytes, counted_bytes)
    WHERE b.agent = n.agent AND b.breach_id = n.breach_id AND b.counted_bytes = n.old_counted_bytes";

const ADD_TOTALS: &str = "
    UPDATE totals t
    SET breaches = t.breaches + n.breaches,
        excess_bytes = CASE WHEN t.excess_bytes > 9223372036854775807 - n.excess_bytes THEN 9223372036854775807
                            ELSE t.excess_bytes + n.excess_bytes END
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::date[], $6::bigint[], $7::bigint[]) WITH ORDINALITY
         AS n (agent, interface, direction, limit_name, day, breaches, excess_bytes, number)
    WHERE t.agent = n.agent AND t.interface = n.interface AND t.direction = n.direction AND t.limit_name = n.limit_name
      AND t.day = n.day
    RETURNING n.number";

const PUT_TOTALS: &str = "
    INSERT INTO totals AS t (agent, interface, direction, limit_name, day, breaches, excess_bytes)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::date[], $6::bigint[], $7::bigint[])
    ON CONFLICT (agent, interface, direction, limit_name, day) DO UPDATE
    SET breaches = t.breaches + excluded.breaches,
        excess_bytes = CASE WHEN t.excess_bytes > 9223372036854775807 - excluded.excess_bytes THEN 9223372036854775807
                            ELSE t.excess_bytes + excluded.excess_bytes END";

const PUT_LOSSES: &str = "
    INSERT INTO losses (agent, epoch, first_seq, last_seq, loss_epoch, loss_seq, observed_at, stored_at, reason, detail)
    SELECT agent, epoch, first, last, loss_epoch, loss_seq, observed_at, now(), reason, detail
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[], $7::timestamptz[], $8::text[],
                $9::text[]) AS l (agent, epoch, first, last, loss_epoch, loss_seq, observed_at, reason, detail)
    ON CONFLICT DO NOTHING";

const PUT_TOUCHED_HOURS: &str = "
    INSERT INTO touched_hours (agent, starts_at) SELECT * FROM unnest($1::text[], $2::timestamptz[])";

const KNOWN_AGENTS: &str = "
    SELECT a.agent, a.epoch, a.seq, a.observed_at, a.state = 'running', a.version, a.clock_synced, a.last_started_at
    FROM unnest($1::text[]) AS k (agent) JOIN agent_state a ON a.agent = k.agent";

const INSERT_AGENTS: &str = "
    INSERT INTO agent_state (agent, epoch, seq, observed_at, state, version, clock_synced, last_started_at)
    SELECT agent, epoch, seq, observed_at, state, version, clock_synced, last_started_at
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::text[], $6::text[], $7::boolean[], $8::timestamptz[],
                $9::text[], $10::bigint[])
         AS n (agent, epoch, seq, observed_at, state, version, clock_synced, last_started_at, old_epoch, old_seq)
    WHERE old_epoch IS NULL
    ON CONFLICT DO NOTHING";

const CHANGE_AGENTS: &str = "
    UPDATE agent_state a
    SET epoch = n.epoch, seq = n.seq, observed_at = n.observed_at, stored_at = now(), state = n.state, version = n.version,
        clock_synced = n.clock_synced, last_started_at = n.last_started_at
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::text[], $6::text[], $7::boolean[], $8::timestamptz[],
                $9::text[], $10::bigint[])
         AS n (agent, epoch, seq, observed_at, state, version, clock_synced, last_started_at, old_epoch, old_seq)
    WHERE a.agent = n.agent AND a.epoch = n.old_epoch AND a.seq = n.old_seq";

pub(super) const PUT_GAP: &str = "
    INSERT INTO kafka_gaps (kafka_cluster, kafka_topic, kafka_partition, topic_generation, first_offset, last_offset, cause)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";

const PUT_DEAD_LETTERS: &str = "
    INSERT INTO dead_letters (kafka_cluster, kafka_topic, kafka_partition, topic_generation, kafka_offset, kafka_timestamp,
                              headers, key, payload, bytes, error, agent, epoch, seq)
    SELECT $1, $2, partition, generation, number, at, headers, key, payload, length(payload), error, agent, epoch, seq
    FROM unnest($3::integer[], $4::integer[], $5::bigint[], $6::timestamptz[], $7::bytea[], $8::bytea[], $9::bytea[],
                $10::text[], $11::text[], $12::text[], $13::bigint[])
         AS l (partition, generation, number, at, headers, key, payload, error, agent, epoch, seq)
    ON CONFLICT DO NOTHING";

/// Dead letters, locked: of two retries at once, one finds none.
const LOCK_DEAD_LETTERS: &str = "
    SELECT d.kafka_partition, d.topic_generation, d.kafka_offset FROM dead_letters d
    JOIN unnest($3::integer[], $4::integer[], $5::bigint[]) AS l (partition, generation, number)
         ON d.kafka_partition = l.partition AND d.topic_generation = l.generation AND d.kafka_offset = l.number
    WHERE d.kafka_cluster = $1 AND d.kafka_topic = $2 AND d.dropped_at IS NULL
    ORDER BY d.kafka_partition, d.topic_generation, d.kafka_offset FOR UPDATE OF d";

const DELETE_DEAD_LETTERS: &str = "
    DELETE FROM dead_letters d
    USING unnest($3::integer[], $4::integer[], $5::bigint[]) AS l (partition, generation, number)
    WHERE d.kafka_cluster = $1 AND d.kafka_topic = $2 AND d.kafka_partition = l.partition
      AND d.topic_generation = l.generation AND d.kafka_offset = l.number";

pub(super) const DROP_DEAD_LETTERS: &str = "
    UPDATE dead_letters d
    SET headers = NULL, key = NULL, payload = NULL, dropped_at = now(), drop_reason = $6
    FROM unnest($3::integer[], $4::integer[], $5::bigint[]) AS l (partition, generation, number)
    WHERE d.kafka_cluster = $1 AND d.kafka_topic = $2 AND d.kafka_partition = l.partition
      AND d.topic_generation = l.generation AND d.kafka_offset = l.number AND d.dropped_at IS NULL";

/// Guard 3: see `store/mod.rs`.
const ADVANCE: &str = "
    UPDATE kafka_offsets o
    SET next_offset = n.next, updated_at = now(),
        last_offset = coalesce(n.last_offset, o.last_offset), last_timestamp = coalesce(n.last_timestamp, o.last_timestamp),
        last_digest = coalesce(n.last_digest, o.last_digest),
        anchor_offset = coalesce(o.anchor_offset, n.last_offset),
        anchor_timestamp = coalesce(o.anchor_timestamp, n.last_timestamp),
        anchor_digest = coalesce(o.anchor_digest, n.last_digest)
    FROM unnest($3::integer[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
         AS n (partition, old, next, last_offset, last_timestamp, last_digest)
    WHERE o.kafka_cluster = $1 AND o.kafka_topic = $2 AND o.kafka_partition = n.partition AND o.next_offset = n.old";

const READ_BACK: &str = "
    SELECT kafka_partition, next_offset FROM kafka_offsets
    WHERE kafka_cluster = $1 AND kafka_topic = $2 AND kafka_partition = ANY($3)";
