//! Hours and days in SQLite. The file's lock is taken only where there is something to derive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, Error, ErrorCode, OptionalExtension as _, Row, TransactionBehavior, params};

use super::transaction::time;
use super::{open_existing, text};
use crate::consumer::store::histograms::{
    self, AgentHour, DeriveCursor, DeriveTransaction, HourNote, PUBLISHED_AT_ONCE, SUMMARY, SUMMARY_COLUMNS,
    StoredSummary, StoredWindow, SummaryKey, TrafficSeries, TrafficSummary,
};
use crate::consumer::store::retention::Retained;
use crate::consumer::store::{Derived, HistogramStore, HourKey, MergedHour, StoreError, StoreOptions};

pub(in crate::consumer::store) struct SqliteHistograms {
    path: PathBuf,
    options: StoreOptions,
    connection: Option<Connection>,
    cursor: DeriveCursor,
}

const BUSY: std::time::Duration = std::time::Duration::from_secs(5);

const ONE: &str = "agent = ?1 AND interface = ?2 AND direction = ?3 AND span = ?4";

impl SqliteHistograms {
    pub(in crate::consumer::store) fn new(path: &Path, options: &StoreOptions) -> Self {
        Self { path: path.to_owned(), options: options.clone(), connection: None, cursor: DeriveCursor::default() }
    }

    /// Runs `work` on the file; returns the default before the store has created its tables.
    fn with<T: Default>(
        &mut self,
        work: impl FnOnce(&mut Self, &mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let connection = match self.connection.take() {
            Some(connection) => Some(connection),
            None => open_existing(&self.path, BUSY)?,
        };
        let Some(mut connection) = connection else { return Ok(T::default()) };
        let result = work(self, &mut connection);
        if result.is_ok() {
            self.connection = Some(connection);
        }
        result
    }
}

impl HistogramStore for SqliteHistograms {
    fn derive(&mut self, now: DateTime<Utc>) -> Result<Derived, StoreError> {
        self.with(|this, connection| {
            let is_touched = connection.prepare("SELECT 1 FROM touched_hours LIMIT 1")?.exists([])?;
            if !is_touched {
                return Ok(Derived::default());
            }
            let inner = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                    return Ok(Derived::default());
                }
                begun => begun?,
            };
            let kept_from = Retained::Histograms.before(&this.options.retention, now);
            let transaction = SqliteDerivation { inner, now: text(now) };
            histograms::derive(transaction, &mut this.cursor, (now, kept_from), this.options.publishes)
        })
    }

    fn unpublished(&mut self, after: Option<&HourKey>) -> Result<Vec<MergedHour>, StoreError> {
        let sql = format!(
            "SELECT agent, interface, direction, starts_at, {SUMMARY}, version
             FROM unpublished_hours u JOIN histograms h USING (agent, interface, direction, starts_at)
             WHERE h.span = 'hour' AND (agent, interface, direction, starts_at) > (?1, ?2, ?3, ?4)
             ORDER BY agent, interface, direction, starts_at LIMIT {PUBLISHED_AT_ONCE}"
        );
        self.with(|_, connection| {
            let part = |part: fn(&TrafficSeries) -> &str| after.map_or("", |key| part(&key.series));
            let parameters = params![
                part(|series| &series.agent),
                part(|series| &series.interface),
                part(|series| &series.direction),
                after.map(|key| text(key.starts_at)).unwrap_or_default(),
            ];
            let mut statement = connection.prepare(&sql)?;
            let hours = statement.query_map(parameters, |row| {
                let series = TrafficSeries { agent: row.get(0)?, interface: row.get(1)?, direction: row.get(2)? };
                let starts_at = time(&row.get::<_, String>(3)?).unwrap_or_default();
                Ok(MergedHour {
                    key: HourKey { series, starts_at },
                    summary: summary(row, 4)?,
                    version: row.get(4 + SUMMARY_COLUMNS)?,
                })
            })?;
            Ok(hours.collect::<Result<_, _>>()?)
        })
    }

    fn acknowledge(&mut self, published: &[(HourKey, i64)], _now: DateTime<Utc>) -> Result<(), StoreError> {
        self.with(|_, connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                let mut note = transaction.prepare(&format!(
                    "UPDATE histograms SET published_version = ?6 WHERE {ONE} AND starts_at = ?5 AND version = ?6"
                ))?;
                let mut delete = transaction.prepare(
                    "DELETE FROM unpublished_hours WHERE agent = ?1 AND interface = ?2 AND direction = ?3 AND starts_at = ?4",
                )?;
                let mut again = transaction.prepare("INSERT OR IGNORE INTO unpublished_hours VALUES (?1, ?2, ?3, ?4)")?;
                for (HourKey { series, starts_at }, version) in published {
                    let TrafficSeries { agent, interface, direction } = series;
                    let starts_at = text(*starts_at);
                    let is_same =
                        note.execute(params![agent, interface, direction, "hour", starts_at, version])? > 0;
                    let next = if is_same { &mut delete } else { &mut again };
                    next.execute(params![agent, interface, direction, starts_at])?;
                }
            }
            Ok(transaction.commit()?)
        })
    }
}

struct SqliteDerivation<'s> {
    inner: rusqlite::Transaction<'s>,
    now: String,
}

impl DeriveTransaction for SqliteDerivation<'_> {
    fn notes(&mut self, after: Option<&AgentHour>, limit: usize) -> Result<Vec<HourNote>, StoreError> {
        let mut statement = self.inner.prepare(
            "SELECT id, agent, starts_at FROM touched_hours WHERE (agent, starts_at) > (?1, ?2)
             ORDER BY agent, starts_at, id LIMIT ?3",
        )?;
        let agent = after.map_or("", |(agent, _)| agent);
        let starts_at = after.map(|(_, starts_at)| text(*starts_at)).unwrap_or_default();
        let notes = statement.query_map(params![agent, starts_at, limit as i64], |row| {
            Ok((row.get(0)?, (row.get(1)?, time(&row.get::<_, String>(2)?).unwrap_or_default())))
        })?;
        Ok(notes.collect::<Result<_, _>>()?)
    }

    fn windows(
        &mut self,
        hours: &[AgentHour],
        each: &mut dyn FnMut(usize, TrafficSeries, StoredWindow),
    ) -> Result<(), StoreError> {
        let mut statement = self.inner.prepare(
            "SELECT r.interface, r.direction, r.bytes, r.packets, r.errors, r.drops, r.measured_s, r.unmeasured_s, r.min_bps,
                    r.max_bps, r.has_histogram, h.histogram
             FROM rates r LEFT JOIN window_histograms h USING (agent, observed_at, epoch, seq, interface, direction)
             WHERE r.agent = ?1 AND r.observed_at > ?2 AND r.observed_at <= ?4 AND r.started_at >= ?2 AND r.started_at < ?3
             ORDER BY r.interface, r.direction, r.observed_at, r.epoch, r.seq",
        )?;
        for (index, (agent, starts_at)) in hours.iter().enumerate() {
            let [hour, two] = [1, 2].map(|hours| text(*starts_at + TimeDelta::hours(hours)));
            let mut rows = statement.query(params![agent, text(*starts_at), hour, two])?;
            while let Some(row) = rows.next()? {
                let series = TrafficSeries { agent: agent.clone(), interface: row.get(0)?, direction: row.get(1)? };
                let summary = TrafficSummary {
                    bytes: row.get(2)?,
                    packets: row.get(3)?,
                    errors: row.get(4)?,
                    drops: row.get(5)?,
                    measured_s: row.get(6)?,
                    unmeasured_s: row.get(7)?,
                    min_bps: row.get(8)?,
                    max_bps: row.get(9)?,
                    histogram: row.get(11)?,
                    ..TrafficSummary::default()
                };
                each(index, series, StoredWindow { summary, had_histogram: row.get(10)? });
            }
        }
        Ok(())
    }

    fn hours_of_days(
        &mut self,
        days: &[SummaryKey],
        each: &mut dyn FnMut(usize, TrafficSummary),
    ) -> Result<(), StoreError> {
        let mut statement = self.inner.prepare(&format!(
            "SELECT {SUMMARY} FROM histograms WHERE {ONE} AND starts_at >= ?5 AND starts_at < ?6 ORDER BY starts_at"
        ))?;
        for (index, SummaryKey { series, starts_at, .. }) in days.iter().enumerate() {
            let (from, to) = (text(*starts_at), text(*starts_at + TimeDelta::days(1)));
            let mut rows =
                statement.query(params![series.agent, series.interface, series.direction, "hour", from, to])?;
            while let Some(row) = rows.next()? {
                each(index, summary(row, 0)?);
            }
        }
        Ok(())
    }

    fn stored(&mut self, keys: &[SummaryKey]) -> Result<BTreeMap<SummaryKey, StoredSummary>, StoreError> {
        let mut statement =
            self.inner.prepare(&format!("SELECT {SUMMARY}, version FROM histograms WHERE {ONE} AND starts_at = ?5"))?;
        let mut stored = BTreeMap::new();
        for key in keys {
            let SummaryKey { series: TrafficSeries { agent, interface, direction }, span, starts_at } = key;
            let found = statement
                .query_row(params![agent, interface, direction, span.as_str(), text(*starts_at)], |row| {
                    Ok(StoredSummary { summary: summary(row, 0)?, version: row.get(SUMMARY_COLUMNS)? })
                });
            stored.extend(found.optional()?.map(|found| (key.clone(), found)));
        }
        Ok(stored)
    }

    fn put(&mut self, rows: &[(SummaryKey, StoredSummary)]) -> Result<(), StoreError> {
        let replaced = SUMMARY.split(", ").chain(["version", "updated_at"]);
        let replaced: Vec<String> = replaced.map(|name| format!("{name} = excluded.{name}")).collect();
        let mut put = self.inner.prepare(&format!(
            "INSERT INTO histograms (agent, interface, direction, span, starts_at, {SUMMARY}, version, updated_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (agent, interface, direction, span, starts_at) DO UPDATE SET {}",
            replaced.join(", ")
        ))?;
        for (SummaryKey { series, span, starts_at }, StoredSummary { summary, version }) in rows {
            put.execute(params![
                series.agent,
                series.interface,
                series.direction,
                span.as_str(),
                text(*starts_at),
                summary.windows,
                summary.late_windows,
                summary.bytes,
                summary.packets,
                summary.errors,
                summary.drops,
                summary.measured_s,
                summary.unmeasured_s,
                summary.min_bps,
                summary.mean_bps,
                summary.max_bps,
                summary.p50_bps,
                summary.p95_bps,
                summary.p99_bps,
                summary.histogram,
                version,
                self.now
            ])?;
        }
        Ok(())
    }

    fn put_unpublished(&mut self, hours: &[&SummaryKey]) -> Result<(), StoreError> {
        let mut put = self.inner.prepare("INSERT OR IGNORE INTO unpublished_hours VALUES (?1, ?2, ?3, ?4)")?;
        for SummaryKey { series, starts_at, .. } in hours {
            put.execute(params![series.agent, series.interface, series.direction, text(*starts_at)])?;
        }
        Ok(())
    }

    fn delete_notes(&mut self, notes: &[HourNote]) -> Result<(), StoreError> {
        let mut delete = self.inner.prepare("DELETE FROM touched_hours WHERE id = ?1")?;
        notes.iter().try_for_each(|(id, _)| delete.execute([id]).map(drop))?;
        Ok(())
    }

    fn commit(self) -> Result<(), StoreError> {
        Ok(self.inner.commit()?)
    }
}

fn summary(row: &Row<'_>, at: usize) -> Result<TrafficSummary, Error> {
    Ok(TrafficSummary {
        windows: row.get(at)?,
        late_windows: row.get(at + 1)?,
        bytes: row.get(at + 2)?,
        packets: row.get(at + 3)?,
        errors: row.get(at + 4)?,
        drops: row.get(at + 5)?,
        measured_s: row.get(at + 6)?,
        unmeasured_s: row.get(at + 7)?,
        min_bps: row.get(at + 8)?,
        mean_bps: row.get(at + 9)?,
        max_bps: row.get(at + 10)?,
        p50_bps: row.get(at + 11)?,
        p95_bps: row.get(at + 12)?,
        p99_bps: row.get(at + 13)?,
        histogram: row.get(at + 14)?,
    })
}
