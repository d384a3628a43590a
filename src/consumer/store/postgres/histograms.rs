//! Hours and days in PostgreSQL. One consumer of a database derives, as long as its session lasts; the others do not wait.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::ToSql;
use postgres::{Client, Row, Transaction};

use super::address::Address;
use super::columns::{column, index};
use super::maintenance::end_lock_holder;
use super::migrations;
use super::session::Connector;
use crate::consumer::store::histograms::{
    self, AgentHour, DeriveCursor, DeriveTransaction, HourNote, PUBLISHED_AT_ONCE, SUMMARY, SUMMARY_COLUMNS,
    StoredSummary, StoredWindow, SummaryKey, TrafficSeries, TrafficSummary,
};
use crate::consumer::store::retention::Retained;
use crate::consumer::store::{Derived, HistogramStore, HourKey, MergedHour, StoreError, StoreOptions};

pub(in crate::consumer::store) struct PostgresHistograms {
    connector: Connector,
    options: StoreOptions,
    client: Option<Client>,
    holds_lock: bool,
    cursor: DeriveCursor,
}

const LOCK: i64 = 0x6877_6869_7374; // "hwhist"

/// Silence after which the deriving session is taken for dead: a live one asks every second, or twice a minute while it publishes.
const SILENT_MAX: &str = "90 seconds";

/// Windows that began in each hour, and end within two hours of its start. `OFFSET 0` makes the planner look up hours by the key.
const WINDOWS: &str = "
    SELECT w.number, r.interface, r.direction, r.bytes, r.packets, r.errors, r.drops, r.measured_s, r.unmeasured_s, r.min_bps,
           r.max_bps, r.has_histogram, r.histogram
    FROM unnest($1::text[], $2::timestamptz[]) WITH ORDINALITY AS w (agent, starts_at, number)
    CROSS JOIN LATERAL (
        SELECT r.*, h.histogram
        FROM rates r
        LEFT JOIN window_histograms h
               ON h.agent = w.agent AND h.observed_at > w.starts_at AND h.observed_at <= w.starts_at + interval '2 hours'
              AND h.observed_at = r.observed_at AND h.epoch = r.epoch AND h.seq = r.seq AND h.interface = r.interface
              AND h.direction = r.direction
        WHERE r.agent = w.agent AND r.observed_at > w.starts_at AND r.observed_at <= w.starts_at + interval '2 hours'
          AND r.started_at >= w.starts_at AND r.started_at < w.starts_at + interval '1 hour'
        OFFSET 0) AS r
    ORDER BY w.number, r.interface, r.direction, r.observed_at, r.epoch, r.seq";

const KEYS: &str = "unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[]) WITH ORDINALITY
                    AS k (agent, interface, direction, span, starts_at, number)";

impl PostgresHistograms {
    pub(in crate::consumer::store) fn new(address: Address, options: &StoreOptions) -> Self {
        let application = format!("highwater-consumer/{}/histograms", options.instance);
        let connector = Connector::new(address, application);
        Self { connector, options: options.clone(), client: None, holds_lock: false, cursor: DeriveCursor::default() }
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Self, &mut Client) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut client = match self.client.take() {
            Some(client) if !client.is_closed() => client,
            _ => {
                self.holds_lock = false;
                self.connector.connect()?
            }
        };
        let result = work(self, &mut client);
        if result.is_ok() {
            self.client = Some(client);
        }
        result
    }

    fn with_lock<T>(
        &mut self,
        work: impl FnOnce(&mut Self, &mut Client) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.with(|this, client| {
            if !this.holds_lock {
                // Only the store migrates; this waits for it.
                if migrations::applied_version(client)?? < migrations::version() {
                    return Ok(None);
                }
                this.holds_lock = client.query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK])?.get(0);
            }
            if !this.holds_lock {
                end_lock_holder(client, LOCK, SILENT_MAX)?;
                return Ok(None);
            }
            work(this, client).map(Some)
        })
    }
}

impl HistogramStore for PostgresHistograms {
    fn derive(&mut self, now: DateTime<Utc>) -> Result<Derived, StoreError> {
        let derived = self.with_lock(|this, client| {
            let kept_from = Retained::Histograms.before(&this.options.retention, now);
            let transaction = PostgresDerivation(client.transaction()?);
            histograms::derive(transaction, &mut this.cursor, (now, kept_from), this.options.publishes)
        });
        Ok(derived?.unwrap_or_default())
    }

    fn unpublished(&mut self, after: Option<&HourKey>) -> Result<Vec<MergedHour>, StoreError> {
        let sql = format!(
            "SELECT agent, interface, direction, starts_at, {SUMMARY}, version
             FROM unpublished_hours u JOIN histograms h USING (agent, interface, direction, starts_at)
             WHERE h.span = 'hour' AND (u.agent, u.interface, u.direction, u.starts_at) > ($1, $2, $3, $4)
             ORDER BY agent, interface, direction, starts_at LIMIT $5"
        );
        let hours = self.with_lock(|_, client| {
            let text = |part: fn(&TrafficSeries) -> &str| after.map_or("", |key| part(&key.series));
            let starts_at = after.map_or(DateTime::UNIX_EPOCH, |key| key.starts_at);
            let parameters: [&(dyn ToSql + Sync); 5] = [
                &text(|series| &series.agent),
                &text(|series| &series.interface),
                &text(|series| &series.direction),
                &starts_at,
                &(PUBLISHED_AT_ONCE as i64),
            ];
            let hour = |row: &Row| MergedHour {
                key: HourKey { series: series(row, 0), starts_at: row.get(3) },
                summary: summary(row, 4),
                version: row.get(4 + SUMMARY_COLUMNS),
            };
            Ok(client.query(&sql, &parameters)?.iter().map(hour).collect())
        });
        Ok(hours?.unwrap_or_default())
    }

    fn acknowledge(&mut self, published: &[(HourKey, i64)], _now: DateTime<Utc>) -> Result<(), StoreError> {
        let sql = "
            WITH acknowledged AS (
                SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[])
                              AS a (agent, interface, direction, starts_at, version)),
            same AS (
                UPDATE histograms h SET published_version = a.version FROM acknowledged a
                WHERE h.agent = a.agent AND h.interface = a.interface AND h.direction = a.direction AND h.span = 'hour'
                  AND h.starts_at = a.starts_at AND h.version = a.version
                RETURNING h.agent, h.interface, h.direction, h.starts_at),
            done AS (
                DELETE FROM unpublished_hours u USING same s
                WHERE u.agent = s.agent AND u.interface = s.interface AND u.direction = s.direction AND u.starts_at = s.starts_at)
            INSERT INTO unpublished_hours (agent, interface, direction, starts_at)
            SELECT agent, interface, direction, starts_at FROM acknowledged
            EXCEPT SELECT agent, interface, direction, starts_at FROM same
            ON CONFLICT DO NOTHING";
        self.with(|_, client| {
            let parameters: [&(dyn ToSql + Sync); 5] = [
                &column(published, |(key, _)| key.series.agent.as_str()),
                &column(published, |(key, _)| key.series.interface.as_str()),
                &column(published, |(key, _)| key.series.direction.as_str()),
                &column(published, |(key, _)| key.starts_at),
                &column(published, |(_, version)| *version),
            ];
            client.execute(sql, &parameters)?;
            Ok(())
        })
    }
}

struct PostgresDerivation<'s>(Transaction<'s>);

impl PostgresDerivation<'_> {
    fn each(
        &mut self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
        mut each: impl FnMut(&Row),
    ) -> Result<(), StoreError> {
        let parameters = parameters.iter().map(|parameter| *parameter as &dyn ToSql);
        let mut rows = self.0.query_raw(sql, parameters.collect::<Vec<_>>())?;
        while let Some(row) = rows.next()? {
            each(&row);
        }
        Ok(())
    }
}

impl DeriveTransaction for PostgresDerivation<'_> {
    fn notes(&mut self, after: Option<&AgentHour>, limit: usize) -> Result<Vec<HourNote>, StoreError> {
        let notes = "SELECT id, agent, starts_at FROM touched_hours WHERE (agent, starts_at) > ($1, $2)
                     ORDER BY agent, starts_at, id LIMIT $3";
        let agent = after.map_or("", |(agent, _)| agent);
        let starts_at = after.map_or(DateTime::UNIX_EPOCH, |(_, starts_at)| *starts_at);
        let rows = self.0.query(notes, &[&agent, &starts_at, &(limit as i64)])?;
        Ok(rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect())
    }

    fn windows(
        &mut self,
        hours: &[AgentHour],
        each: &mut dyn FnMut(usize, TrafficSeries, StoredWindow),
    ) -> Result<(), StoreError> {
        let (agents, starts) = (column(hours, |(agent, _)| agent.as_str()), column(hours, |(_, starts_at)| *starts_at));
        self.each(WINDOWS, &[&agents, &starts], |row| {
            let index = index(row);
            let series = TrafficSeries { agent: hours[index].0.clone(), interface: row.get(1), direction: row.get(2) };
            let summary = TrafficSummary {
                bytes: row.get(3),
                packets: row.get(4),
                errors: row.get(5),
                drops: row.get(6),
                measured_s: row.get(7),
                unmeasured_s: row.get(8),
                min_bps: row.get(9),
                max_bps: row.get(10),
                histogram: row.get(12),
                ..TrafficSummary::default()
            };
            each(index, series, StoredWindow { summary, had_histogram: row.get(11) });
        })
    }

    fn hours_of_days(
        &mut self,
        days: &[SummaryKey],
        each: &mut dyn FnMut(usize, TrafficSummary),
    ) -> Result<(), StoreError> {
        let sql = format!(
            "SELECT k.number, {SUMMARY} FROM {KEYS}
             CROSS JOIN LATERAL (SELECT {SUMMARY}, h.starts_at AS hour FROM histograms h
                                 WHERE h.agent = k.agent AND h.interface = k.interface AND h.direction = k.direction
                                   AND h.span = 'hour' AND h.starts_at >= k.starts_at AND h.starts_at < k.starts_at + interval '24 hours'
                                 OFFSET 0) AS h
             ORDER BY k.number, h.hour"
        );
        let keys = KeyColumns::of(days.iter());
        self.each(&sql, &keys.parameters(), |row| each(index(row), summary(row, 1)))
    }

    fn stored(&mut self, keys: &[SummaryKey]) -> Result<BTreeMap<SummaryKey, StoredSummary>, StoreError> {
        let sql = format!(
            "SELECT k.number, {SUMMARY}, version FROM {KEYS}
             CROSS JOIN LATERAL (SELECT {SUMMARY}, version FROM histograms h
                                 WHERE h.agent = k.agent AND h.interface = k.interface AND h.direction = k.direction
                                   AND h.span = k.span AND h.starts_at = k.starts_at OFFSET 0) AS h"
        );
        let mut stored = BTreeMap::new();
        let columns = KeyColumns::of(keys.iter());
        self.each(&sql, &columns.parameters(), |row| {
            let version = row.get(1 + SUMMARY_COLUMNS);
            stored.insert(keys[index(row)].clone(), StoredSummary { summary: summary(row, 1), version });
        })?;
        Ok(stored)
    }

    fn put(&mut self, rows: &[(SummaryKey, StoredSummary)]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let replaced = SUMMARY.split(", ").chain(["version"]).map(|name| format!("{name} = excluded.{name}"));
        let arrays = (6..).take(SUMMARY_COLUMNS).map(|number| match number {
            20 => "$20::bytea[]".to_owned(),
            number => format!("${number}::bigint[]"),
        });
        let sql = format!(
            "INSERT INTO histograms (agent, interface, direction, span, starts_at, {SUMMARY}, version)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], {}, $21::bigint[])
             ON CONFLICT (agent, interface, direction, span, starts_at) DO UPDATE SET {}, updated_at = now()",
            arrays.collect::<Vec<_>>().join(", "),
            replaced.collect::<Vec<_>>().join(", ")
        );
        let keys = KeyColumns::of(rows.iter().map(|(key, _)| key));
        let number = |of: fn(&TrafficSummary) -> i64| column(rows, |(_, row)| of(&row.summary));
        let maybe = |of: fn(&TrafficSummary) -> Option<i64>| column(rows, |(_, row)| of(&row.summary));
        let always = [number(|s| s.windows), number(|s| s.late_windows), number(|s| s.bytes)];
        let counted = [maybe(|s| s.packets), maybe(|s| s.errors), maybe(|s| s.drops)];
        let seconds = [number(|s| s.measured_s), number(|s| s.unmeasured_s)];
        let rates = [
            maybe(|s| s.min_bps),
            maybe(|s| s.mean_bps),
            maybe(|s| s.max_bps),
            maybe(|s| s.p50_bps),
            maybe(|s| s.p95_bps),
            maybe(|s| s.p99_bps),
        ];
        let histograms = column(rows, |(_, row)| row.summary.histogram.as_deref());
        let versions = column(rows, |(_, row)| row.version);
        let mut parameters = keys.parameters();
        parameters.extend(always.iter().map(|column| column as &(dyn ToSql + Sync)));
        parameters.extend(counted.iter().map(|column| column as &(dyn ToSql + Sync)));
        parameters.extend(seconds.iter().map(|column| column as &(dyn ToSql + Sync)));
        parameters.extend(rates.iter().map(|column| column as &(dyn ToSql + Sync)));
        parameters.extend([&histograms as &(dyn ToSql + Sync), &versions]);
        self.0.execute(&sql, &parameters)?;
        Ok(())
    }

    fn put_unpublished(&mut self, hours: &[&SummaryKey]) -> Result<(), StoreError> {
        let keys = KeyColumns::of(hours.iter().copied());
        let sql = format!(
            "INSERT INTO unpublished_hours (agent, interface, direction, starts_at)
             SELECT agent, interface, direction, starts_at FROM {KEYS} ON CONFLICT DO NOTHING"
        );
        self.0.execute(&sql, &keys.parameters())?;
        Ok(())
    }

    fn delete_notes(&mut self, notes: &[HourNote]) -> Result<(), StoreError> {
        let delete = "DELETE FROM touched_hours t USING unnest($1::text[], $2::timestamptz[], $3::bigint[]) AS n (agent, starts_at, id)
                      WHERE t.agent = n.agent AND t.starts_at = n.starts_at AND t.id = n.id";
        let parameters: [&(dyn ToSql + Sync); 3] = [
            &column(notes, |(_, (agent, _))| agent.as_str()),
            &column(notes, |(_, (_, starts_at))| *starts_at),
            &column(notes, |(id, _)| *id),
        ];
        self.0.execute(delete, &parameters)?;
        Ok(())
    }

    fn commit(self) -> Result<(), StoreError> {
        Ok(self.0.commit()?)
    }
}

struct KeyColumns<'k> {
    agents: Vec<&'k str>,
    interfaces: Vec<&'k str>,
    directions: Vec<&'k str>,
    spans: Vec<&'static str>,
    starts: Vec<DateTime<Utc>>,
}

impl<'k> KeyColumns<'k> {
    fn of(keys: impl Iterator<Item = &'k SummaryKey> + Clone) -> Self {
        Self {
            agents: keys.clone().map(|key| key.series.agent.as_str()).collect(),
            interfaces: keys.clone().map(|key| key.series.interface.as_str()).collect(),
            directions: keys.clone().map(|key| key.series.direction.as_str()).collect(),
            spans: keys.clone().map(|key| key.span.as_str()).collect(),
            starts: keys.map(|key| key.starts_at).collect(),
        }
    }

    fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![&self.agents, &self.interfaces, &self.directions, &self.spans, &self.starts]
    }
}

fn series(row: &Row, at: usize) -> TrafficSeries {
    TrafficSeries { agent: row.get(at), interface: row.get(at + 1), direction: row.get(at + 2) }
}

fn summary(row: &Row, at: usize) -> TrafficSummary {
    TrafficSummary {
        windows: row.get(at),
        late_windows: row.get(at + 1),
        bytes: row.get(at + 2),
        packets: row.get(at + 3),
        errors: row.get(at + 4),
        drops: row.get(at + 5),
        measured_s: row.get(at + 6),
        unmeasured_s: row.get(at + 7),
        min_bps: row.get(at + 8),
        mean_bps: row.get(at + 9),
        max_bps: row.get(at + 10),
        p50_bps: row.get(at + 11),
        p95_bps: row.get(at + 12),
        p99_bps: row.get(at + 13),
        histogram: row.get(at + 14),
    }
}
