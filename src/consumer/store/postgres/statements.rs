//! What a batch asks of the server, prepared once in a session. Values travel as typed binary parameters: no setting of the server's
//! that changes how text is read or written matters.

use postgres::{Client, Statement};

use crate::consumer::store::rows::Table;
use crate::failpoints::unless_out;

pub(super) struct Statements {
    events: OfTable,
    samples: OfTable,
    pub(super) lock_checkpoints: Statement,
    pub(super) known_ranges: Statement,
    pub(super) drop_ranges: Statement,
    pub(super) put_ranges: Statement,
    pub(super) known_breaches: Statement,
    pub(super) put_breaches: Statement,
    pub(super) count_breaches: Statement,
    pub(super) add_totals: Statement,
    pub(super) put_losses: Statement,
    pub(super) put_gap: Statement,
    pub(super) put_dead_letters: Statement,
    pub(super) lock_dead_letters: Statement,
    pub(super) delete_dead_letters: Statement,
    pub(super) advance: Statement,
    pub(super) read_back: Statement,
}

/// What each table that takes rows has of its own.
pub(super) struct OfTable {
    pub(super) copy: String,
    pub(super) existing: Statement,
    pub(super) other_times: Statement,
}

impl Statements {
    pub(super) fn of(&self, table: Table) -> &OfTable {
        match table {
            Table::Events => &self.events,
            Table::Samples => &self.samples,
        }
    }

    pub(super) fn prepare(client: &mut Client) -> Result<Self, postgres::Error> {
        Ok(Self {
            events: OfTable::prepare(client, Table::Events)?,
            samples: OfTable::prepare(client, Table::Samples)?,
            lock_checkpoints: client.prepare(&unless_out("guard-1-lock", "FOR UPDATE", LOCK_CHECKPOINTS))?,
            known_ranges: client.prepare(KNOWN_RANGES)?,
            drop_ranges: client.prepare(DROP_RANGES)?,
            put_ranges: client.prepare(PUT_RANGES)?,
            known_breaches: client.prepare(KNOWN_BREACHES)?,
            put_breaches: client.prepare(PUT_BREACHES)?,
            count_breaches: client.prepare(COUNT_BREACHES)?,
            add_totals: client.prepare(ADD_TOTALS)?,
            put_losses: client.prepare(PUT_LOSSES)?,
            put_gap: client.prepare(PUT_GAP)?,
            put_dead_letters: client.prepare(PUT_DEAD_LETTERS)?,
            lock_dead_letters: client.prepare(LOCK_DEAD_LETTERS)?,
            delete_dead_letters: client.prepare(DELETE_DEAD_LETTERS)?,
            advance: client.prepare(&unless_out("guard-3", " AND o.next_offset = n.old", ADVANCE))?,
            read_back: client.prepare(READ_BACK)?,
        })
    }
}

impl OfTable {
    fn prepare(client: &mut Client, table: Table) -> Result<Self, postgres::Error> {
        let name = table.name();
        let wanted = "unnest($1::text[], $2::timestamptz[], $3::text[], $4::bigint[]) WITH ORDINALITY
                      AS s (agent, observed_at, epoch, seq, number)";
        Ok(Self {
            copy: super::copy::statement(table),
            existing: client.prepare(&format!(
                "SELECT s.number FROM {wanted}
                 WHERE EXISTS (SELECT FROM {name} e WHERE e.agent = s.agent AND e.observed_at = s.observed_at
                                                      AND e.epoch = s.epoch AND e.seq = s.seq)"
            ))?,
            other_times: client.prepare(&format!(
                "SELECT DISTINCT s.number FROM {wanted}
                 JOIN {name} e ON e.agent = s.agent AND e.epoch = s.epoch AND e.seq = s.seq
                              AND e.observed_at <> s.observed_at"
            ))?,
        })
    }
}

/// Guard 1.
const LOCK_CHECKPOINTS: &str = "
    SELECT kafka_partition, next_offset, topic_generation FROM kafka_offsets
    WHERE kafka_cluster = $1 AND kafka_topic = $2 AND kafka_partition = ANY($3) ORDER BY kafka_partition FOR UPDATE";

/// Ranges that touch what was seen, locked in one order.
const KNOWN_RANGES: &str = "
    SELECT s.agent, s.epoch, s.first_seq, s.last_seq, s.of_samples, s.first_stored_at, s.identity_conflicts
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS b (agent, epoch, first, last)
    JOIN agent_sequences s ON s.agent = b.agent AND s.epoch = b.epoch AND s.first_seq <= b.last + 1
                          AND s.last_seq >= b.first - 1
    ORDER BY s.agent, s.epoch, s.first_seq FOR UPDATE OF s";

const DROP_RANGES: &str = "
    DELETE FROM agent_sequences s USING unnest($1::text[], $2::text[], $3::bigint[]) AS g (agent, epoch, first)
    WHERE s.agent = g.agent AND s.epoch = g.epoch AND s.first_seq = g.first";

const PUT_RANGES: &str = "
    INSERT INTO agent_sequences AS s (agent, epoch, first_seq, last_seq, of_samples, first_stored_at, last_stored_at,
                                      identity_conflicts)
    SELECT agent, epoch, first, last, of_samples, coalesce(first_stored_at, now()), now(), conflicts
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::boolean[], $6::timestamptz[], $7::bigint[])
         AS b (agent, epoch, first, last, of_samples, first_stored_at, conflicts)
    ON CONFLICT (agent, epoch, first_seq) DO UPDATE
    SET last_seq = greatest(s.last_seq, excluded.last_seq),
        first_stored_at = least(s.first_stored_at, excluded.first_stored_at), last_stored_at = excluded.last_stored_at,
        identity_conflicts = greatest(s.identity_conflicts, excluded.identity_conflicts)";

const KNOWN_BREACHES: &str = "
    SELECT b.agent, b.breach_id, b.state = 'cleared', b.duration_ms, b.epoch, b.seq, b.observed_at, b.counted_bytes
    FROM unnest($1::text[], $2::text[]) AS k (agent, breach_id)
    JOIN breach_state b ON b.agent = k.agent AND b.breach_id = k.breach_id
    ORDER BY b.agent, b.breach_id FOR UPDATE OF b";

/// What is compared is known: the rows are locked, but for those that were not there. If one of those is there by now, `xmax` of what
/// this returns tells, and the transaction is tried again.
const PUT_BREACHES: &str = "
    INSERT INTO breach_state AS b (agent, breach_id, epoch, seq, observed_at, stored_at, state, started_at, raised_at, ended_at,
                                   limit_name, severity, interface, direction, limit_bps, rate_bps, peak_bps, mean_bps,
                                   duration_ms, measured_ms, excess_bytes, reason, detail, counted_bytes)
    SELECT agent, breach_id, epoch, seq, observed_at, now(), state, started_at, raised_at, ended_at, limit_name, severity,
           interface, direction, limit_bps, rate_bps, peak_bps, mean_bps, duration_ms, measured_ms, excess_bytes, reason,
           detail, counted_bytes
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::text[], $7::timestamptz[],
                $8::timestamptz[], $9::timestamptz[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[],
                $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::text[],
                $22::text[], $23::bigint[])
         AS n (agent, breach_id, epoch, seq, observed_at, state, started_at, raised_at, ended_at, limit_name, severity, interface,
               direction, limit_bps, rate_bps, peak_bps, mean_bps, duration_ms, measured_ms, excess_bytes, reason, detail,
               counted_bytes)
    ON CONFLICT (agent, breach_id) DO UPDATE
    SET epoch = excluded.epoch, seq = excluded.seq, observed_at = excluded.observed_at, stored_at = excluded.stored_at,
        state = excluded.state, started_at = excluded.started_at, raised_at = excluded.raised_at, ended_at = excluded.ended_at,
        limit_name = excluded.limit_name, severity = excluded.severity, interface = excluded.interface,
        direction = excluded.direction, limit_bps = excluded.limit_bps, rate_bps = excluded.rate_bps,
        peak_bps = excluded.peak_bps, mean_bps = excluded.mean_bps, duration_ms = excluded.duration_ms,
        measured_ms = excluded.measured_ms, excess_bytes = excluded.excess_bytes, reason = excluded.reason,
        detail = excluded.detail, counted_bytes = excluded.counted_bytes
    RETURNING b.xmax = 0";

const COUNT_BREACHES: &str = "
    UPDATE breach_state b SET counted_bytes = n.counted_bytes
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS n (agent, breach_id, counted_bytes)
    WHERE b.agent = n.agent AND b.breach_id = n.breach_id";

const ADD_TOTALS: &str = "
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

/// Dead letters that are still there, locked until the transaction ends: of two that try at once, one finds none.
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

/// Guard 3: from the old value only.
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
