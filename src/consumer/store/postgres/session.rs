//! A connection that is ready for batches: settings, migrations, temporary table, prepared statements.

use postgres::{Client, Statement};

use super::address::Address;
use super::tables::TableSql;
use crate::consumer::store::Fault;
use crate::consumer::store::rows::Table;
use crate::failpoints::{is_out, unless_out};

mod migrations {
    refinery::embed_migrations!("src/consumer/store/postgres");
}

/// One session of the server's.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) sql: Statements,
}

/// What a batch needs, prepared once.
pub(super) struct Statements {
    events: TableSql,
    samples: TableSql,
    pub(super) lock: Statement,
    pub(super) known_ranges: Statement,
    pub(super) drop_ranges: Statement,
    pub(super) put_ranges: Statement,
    pub(super) breaches: Statement,
    pub(super) totals: Statement,
    pub(super) losses: Statement,
    pub(super) gaps: Statement,
    pub(super) letters: Statement,
    pub(super) advance: Statement,
    pub(super) read_back: Statement,
}

/// Waiting is bounded everywhere: for locks, for a client of ours that went silent within a transaction, and for a statement
/// that makes no headway. (A COPY that waits for its client is ended by none of them: see `holders`.)
const SETTINGS: &str = "
    SET lock_timeout = '10s';
    SET idle_in_transaction_session_timeout = '30s';
    SET statement_timeout = '120s';
    SET timezone = 'UTC';
    SET client_min_messages = 'warning';";

/// Held while migrating: of several programs that start at once, one migrates, the others wait.
const MIGRATION_LOCK: i64 = 0x6877_6d69_6772; // "hwmigr"

impl Session {
    pub(super) fn open(address: &Address, application: &str) -> Result<Self, Fault> {
        let mut client = address.connect(application)?;
        client.batch_execute(SETTINGS)?;
        migrate(&mut client)?;
        if is_out("unique-key") {
            client.batch_execute("ALTER TABLE events DROP CONSTRAINT IF EXISTS events_pkey")?;
        }
        let sql = Statements::prepare(&mut client)?;
        Ok(Self { client, sql })
    }
}

/// Brings the schema up to date. The lock ends with the session, should it end here.
fn migrate(client: &mut Client) -> Result<(), Fault> {
    client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK])?;
    let report = migrations::migrations::runner().run(client).map_err(|error| {
        let text = format!("cannot bring the schema up to date: {}", crate::exit::chain(&error));
        if client.is_closed() { Fault::Away(text) } else { Fault::Misconfigured(text) }
    })?;
    for migration in report.applied_migrations() {
        log::info!("PostgreSQL: schema brought to {migration}");
    }
    client.execute("SELECT pg_advisory_unlock($1)", &[&MIGRATION_LOCK])?;
    Ok(())
}

/// The schema that this program knows.
pub(super) fn version() -> i64 {
    let runner = migrations::migrations::runner();
    runner.get_migrations().iter().map(|migration| i64::from(migration.version())).max().unwrap_or(0)
}

impl Statements {
    pub(super) fn of(&self, table: Table) -> &TableSql {
        match table {
            Table::Events => &self.events,
            Table::Samples => &self.samples,
        }
    }

    fn prepare(client: &mut Client) -> Result<Self, postgres::Error> {
        Ok(Self {
            events: TableSql::prepare(client, Table::Events)?,
            samples: TableSql::prepare(client, Table::Samples)?,
            lock: client.prepare(&unless_out("guard-1-lock", "FOR UPDATE", LOCK))?,
            known_ranges: client.prepare(KNOWN_RANGES)?,
            drop_ranges: client.prepare(
                "DELETE FROM agent_sequences s USING unnest($1::text[], $2::text[], $3::bigint[]) AS g (agent, epoch, first)
                 WHERE s.agent = g.agent AND s.epoch = g.epoch AND s.first = g.first",
            )?,
            put_ranges: client.prepare(PUT_RANGES)?,
            breaches: client.prepare(BREACHES)?,
            totals: client.prepare(TOTALS)?,
            losses: client.prepare(
                "INSERT INTO losses (agent, epoch, first, last, loss_epoch, loss_seq, observed_at, stored_at, reason,
                                     detail)
                 SELECT *, now(), $8::text, $9::text FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[],
                                                       $6::bigint[], $7::timestamptz[])
                 ON CONFLICT DO NOTHING",
            )?,
            gaps: client.prepare(
                "INSERT INTO kafka_gaps (topic, partition, generation, first, last) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT DO NOTHING",
            )?,
            letters: client.prepare(
                "INSERT INTO dead_letters (topic, partition, generation, \"offset\", key, payload, error)
                 SELECT $1, * FROM unnest($2::integer[], $3::integer[], $4::bigint[], $5::bytea[], $6::bytea[], $7::text[])
                 ON CONFLICT DO NOTHING",
            )?,
            advance: client.prepare(&unless_out("guard-3", " AND o.next = n.old", ADVANCE))?,
            read_back: client
                .prepare("SELECT partition, next FROM kafka_offsets WHERE topic = $1 AND partition = ANY($2)")?,
        })
    }
}

/// Guard 1.
const LOCK: &str = "
    SELECT partition, next, generation FROM kafka_offsets
    WHERE topic = $1 AND partition = ANY($2) ORDER BY partition FOR UPDATE";

/// Ranges that touch what was seen, locked in one order. (`first - 1`, since `last + 1` may be too large for a bigint.)
const KNOWN_RANGES: &str = "
    SELECT s.agent, s.epoch, s.first, s.last, s.began, s.doubled FROM agent_sequences s
    WHERE EXISTS (SELECT FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS b (agent, epoch, first, last)
                  WHERE s.agent = b.agent AND s.epoch = b.epoch AND s.first - 1 <= b.last AND b.first - 1 <= s.last)
    ORDER BY s.agent, s.epoch, s.first FOR UPDATE OF s";

const PUT_RANGES: &str = "
    INSERT INTO agent_sequences (agent, epoch, first, last, began, doubled)
    SELECT agent, epoch, first, last, coalesce(began, now()), doubled
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::bigint[])
         AS b (agent, epoch, first, last, began, doubled)
    ON CONFLICT (agent, epoch, first) DO UPDATE
    SET last = greatest(agent_sequences.last, excluded.last), began = least(agent_sequences.began, excluded.began),
        doubled = greatest(agent_sequences.doubled, excluded.doubled)";

/// The order of `rows::by_rank`, which makes the last word the same in whatever order the events come.
const BREACHES: &str = "
    INSERT INTO breach_state (agent, breach_id, epoch, seq, observed_at, state, started_at, raised_at, ended_at, limit_name,
                              severity, interface, direction, limit_bps, rate_bps, peak_bps, mean_bps, duration_ms, measured_ms,
                              excess_bytes, reason, detail)
    SELECT agent, breach_id, epoch, seq, observed_at, CASE kind WHEN 'breach_cleared' THEN 'cleared' ELSE 'open' END,
           started_at, raised_at, ended_at, limit_name, severity, interface, direction, limit_bps, rate_bps, peak_bps, mean_bps,
           duration_ms, measured_ms, excess_bytes, reason, detail
    FROM incoming WHERE greatest_bytes IS NOT NULL ORDER BY agent COLLATE \"C\", breach_id COLLATE \"C\"
    ON CONFLICT (agent, breach_id) DO UPDATE
    SET epoch = excluded.epoch, seq = excluded.seq, observed_at = excluded.observed_at, state = excluded.state,
        started_at = excluded.started_at, raised_at = excluded.raised_at, ended_at = excluded.ended_at,
        limit_name = excluded.limit_name, severity = excluded.severity, interface = excluded.interface,
        direction = excluded.direction, limit_bps = excluded.limit_bps, rate_bps = excluded.rate_bps,
        peak_bps = excluded.peak_bps, mean_bps = excluded.mean_bps, duration_ms = excluded.duration_ms,
        measured_ms = excluded.measured_ms, excess_bytes = excluded.excess_bytes, reason = excluded.reason,
        detail = excluded.detail
    WHERE CASE WHEN excluded.epoch = breach_state.epoch
               THEN (excluded.state = 'cleared', excluded.duration_ms, excluded.seq, excluded.observed_at)
                    > (breach_state.state = 'cleared', breach_state.duration_ms, breach_state.seq, breach_state.observed_at)
               ELSE (excluded.state = 'cleared', excluded.duration_ms, excluded.observed_at, excluded.epoch)
                    > (breach_state.state = 'cleared', breach_state.duration_ms, breach_state.observed_at, breach_state.epoch) END";

/// After [`BREACHES`], which has made and locked the rows: what each breach has more than was counted of it, into the sum of its
/// day. How much that is, by agent and interface.
const TOTALS: &str = "
    WITH grown AS (
        UPDATE breach_state b SET counted_bytes = n.bytes
        FROM (SELECT s.agent, s.breach_id, s.counted_bytes AS before, i.greatest_bytes AS bytes
              FROM incoming i CROSS JOIN LATERAL (
                  SELECT agent, breach_id, counted_bytes FROM breach_state
                  WHERE agent = i.agent AND breach_id = i.breach_id COLLATE \"C\" OFFSET 0) AS s
              WHERE i.greatest_bytes > coalesce(s.counted_bytes, -1)) AS n
        WHERE b.agent = n.agent AND b.breach_id = n.breach_id
        RETURNING b.agent, b.interface, b.direction, (b.raised_at AT TIME ZONE 'UTC')::date AS day,
                  n.before IS NULL AS is_new, n.bytes - coalesce(n.before, 0) AS bytes),
    put AS (
        INSERT INTO totals AS t (agent, interface, direction, day, breaches, excess_bytes)
        SELECT agent, interface, direction, day, count(*) FILTER (WHERE is_new), least(sum(bytes), 9223372036854775807)::bigint
        FROM grown GROUP BY 1, 2, 3, 4 ORDER BY agent, interface COLLATE \"C\", direction COLLATE \"C\", day
        ON CONFLICT (agent, interface, direction, day) DO UPDATE
        SET breaches = t.breaches + excluded.breaches,
            excess_bytes = CASE WHEN t.excess_bytes > 9223372036854775807 - excluded.excess_bytes THEN 9223372036854775807
                                ELSE t.excess_bytes + excluded.excess_bytes END)
    SELECT agent, interface, least(sum(bytes), 9223372036854775807)::bigint FROM grown GROUP BY 1, 2";

/// Guard 3: from the old value only.
const ADVANCE: &str = "
    UPDATE kafka_offsets o
    SET next = n.next, updated_at = now(),
        last_offset = coalesce(n.last_offset, o.last_offset), last_time = coalesce(n.last_time, o.last_time),
        last_digest = coalesce(n.last_digest, o.last_digest),
        anchor_offset = coalesce(o.anchor_offset, n.last_offset),
        anchor_time = coalesce(o.anchor_time, n.last_time),
        anchor_digest = coalesce(o.anchor_digest, n.last_digest)
    FROM unnest($2::integer[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
         AS n (partition, old, next, last_offset, last_time, last_digest)
    WHERE o.topic = $1 AND o.partition = n.partition AND o.next = n.old";
