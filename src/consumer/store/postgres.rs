//! PostgreSQL.

mod address;
mod apply;
mod copy;
mod days;
mod fault;
mod reader;
mod refused;
mod revive;
mod session;
mod tables;
mod tls;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use postgres::Row as SqlRow;

use self::apply::{Care, Stop, attempt};
use self::days::KnownDays;
use self::fault::{Class, class};
use self::session::Session;
use super::{Applied, Fault, Retention, Retired, Returning, Revived, Store, rows};
use crate::consumer::batch::{Batch, Mark};
use crate::consumer::place::Place;

pub(super) use self::address::Address;
pub(super) use self::reader::PostgresReader;

/// A store in PostgreSQL. It connects, and brings the schema up to date, when it is first needed and after each fault.
pub(super) struct Postgres {
    address: Address,
    application: String,
    session: Option<Session>,
    days: KnownDays,
}

/// How often a batch is tried at once: as others move `next`, as a day is missing, as a row is refused.
const TRIES_MAX: u32 = 5;

/// A row of `kafka_offsets` that is held longer than this is taken from its holder.
const HELD_MAX: &str = "10 seconds";

const PLACE: &str = "next, generation, cluster, last_offset, last_time, last_digest, anchor_offset, anchor_time, \
                     anchor_digest, partition";

impl Postgres {
    pub(super) fn new(address: Address, instance: &str) -> Self {
        let application = format!("highwater-consumer/{instance}");
        Self { address, application, session: None, days: KnownDays::default() }
    }

    /// Runs `work` in a session. Whatever fails ends the session: its state is not worth guessing.
    fn with<T>(&mut self, work: impl FnOnce(&mut Session, &mut KnownDays) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut session = match self.session.take() {
            Some(session) if !session.client.is_closed() => session,
            _ => {
                self.days.forget();
                Session::open(&self.address, &self.application)?
            }
        };
        let result = work(&mut session, &mut self.days);
        if matches!(result, Ok(_) | Err(Fault::Moved(_))) {
            self.session = Some(session);
        }
        result
    }
}

impl Store for Postgres {
    fn places(&mut self, topic: &str) -> Result<BTreeMap<i32, Place>, Fault> {
        self.with(|session, _| {
            let rows =
                session.client.query(&format!("SELECT {PLACE} FROM kafka_offsets WHERE topic = $1"), &[&topic])?;
            Ok(rows.iter().map(|row| (row.get(9), place(row))).collect())
        })
    }

    fn found(&mut self, topic: &str, partition: i32, place: &Place) -> Result<Place, Fault> {
        self.with(|session, _| {
            session.client.execute(
                "INSERT INTO kafka_offsets (topic, partition, next, generation, cluster) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT DO NOTHING",
                &[&topic, &partition, &place.next, &place.generation, &place.cluster],
            )?;
            let row = session.client.query_one(
                &format!("SELECT {PLACE} FROM kafka_offsets WHERE topic = $1 AND partition = $2"),
                &[&topic, &partition],
            )?;
            Ok(self::place(&row))
        })
    }

    fn replace(
        &mut self,
        topic: &str,
        partition: i32,
        old: &Place,
        new: &Place,
        gap: Option<(i64, i64)>,
    ) -> Result<(), Fault> {
        self.with(|session, _| {
            let mut transaction = session.client.transaction()?;
            let part = |mark: Option<Mark>, part: fn(Mark) -> i64| mark.map(part);
            let replaced = transaction.execute(
                "UPDATE kafka_offsets
                 SET next = $3, generation = $4, cluster = $5, last_offset = $6, last_time = $7, last_digest = $8,
                     anchor_offset = $9, anchor_time = $10, anchor_digest = $11, updated_at = now()
                 WHERE topic = $1 AND partition = $2 AND next = $12 AND generation = $13",
                &[
                    &topic,
                    &partition,
                    &new.next,
                    &new.generation,
                    &new.cluster,
                    &part(new.last, |mark| mark.offset),
                    &part(new.last, |mark| mark.timestamp_ms),
                    &part(new.last, |mark| mark.digest),
                    &part(new.anchor, |mark| mark.offset),
                    &part(new.anchor, |mark| mark.timestamp_ms),
                    &part(new.anchor, |mark| mark.digest),
                    &old.next,
                    &old.generation,
                ],
            )?;
            if replaced == 0 {
                transaction.rollback()?;
                return Err(Fault::Moved(format!("{topic}[{partition}]: another consumer was here")));
            }
            if let Some((first, last)) = gap {
                transaction.execute(&session.sql.gaps, &[&topic, &partition, &new.generation, &first, &last])?;
            }
            Ok(transaction.commit()?)
        })
    }

    fn apply(&mut self, batch: &Batch, _now: DateTime<Utc>) -> Result<Applied, Fault> {
        self.with(|session, days| {
            let mut floors: BTreeMap<i32, i64> = batch.slices.iter().map(|(p, slice)| (*p, slice.from)).collect();
            let mut care = Care::Straight;
            for _ in 0..TRIES_MAX {
                let (mut rows, letters) = rows::split(batch, &floors);
                days.make(&mut session.client, &rows)?;
                match attempt(session, batch, &floors, &mut rows, letters, care) {
                    Ok(applied) => return Ok(applied),
                    Err(Stop::Floors(standing)) => floors = standing,
                    Err(Stop::Held) => return Err(end_holders(session, batch)?),
                    Err(Stop::Fault(fault)) => return Err(fault),
                    Err(Stop::Sql(error)) => match class(&error) {
                        Class::NoDay => days.forget(),
                        Class::Refused if care == Care::Straight => care = Care::Swift,
                        Class::Refused if care == Care::Swift => care = Care::Picky,
                        _ => return Err(error.into()),
                    },
                }
            }
            Err(Fault::Away(format!("PostgreSQL: a batch did not get through in {TRIES_MAX} tries")))
        })
    }

    fn revive(&mut self, topic: &str, letters: &[Returning], _now: DateTime<Utc>) -> Result<Revived, Fault> {
        let rows = rows::returning(letters);
        self.with(|session, days| {
            for _ in 0..TRIES_MAX {
                days.make(&mut session.client, &rows)?;
                match revive::attempt(session, topic, letters, &rows) {
                    Err(Stop::Sql(error)) if class(&error) == Class::NoDay => days.forget(),
                    Ok(revived) => return Ok(revived),
                    Err(stop) => return Err(stop.into()),
                }
            }
            Err(Fault::Away(format!("PostgreSQL: letters did not get through in {TRIES_MAX} tries")))
        })
    }

    fn retire(&mut self, retention: &Retention, now: DateTime<Utc>) -> Result<Retired, Fault> {
        self.with(|session, known| {
            let (days, busy) = days::retire(&mut session.client, retention.events, now)?;
            if !days.is_empty() {
                known.forget();
            }
            let keep_s = retention.dead_letters.as_secs_f64();
            let dead_letters = session.client.execute(
                "DELETE FROM dead_letters WHERE stored_at < $1::timestamptz - make_interval(secs => $2)",
                &[&now, &keep_s],
            )?;
            let keep_s = retention.events.as_secs_f64();
            session.client.execute(
                "DELETE FROM breach_state b
                 WHERE observed_at < $1::timestamptz - make_interval(secs => $2) AND NOT EXISTS (
                     SELECT FROM events e
                     WHERE e.observed_at < $1::timestamptz - make_interval(secs => $2)
                       AND (e.agent, e.epoch, e.seq, e.observed_at) = (b.agent, b.epoch, b.seq, b.observed_at))",
                &[&now, &keep_s],
            )?;
            Ok(Retired { events: 0, days, dead_letters, busy })
        })
    }
}

fn place(row: &SqlRow) -> Place {
    let mark = |first: usize| {
        let offset: Option<i64> = row.get(first);
        let (time, digest): (Option<i64>, Option<i64>) = (row.get(first + 1), row.get(first + 2));
        Some(Mark { offset: offset?, timestamp_ms: time?, digest: digest? })
    };
    Place { next: row.get(0), generation: row.get(1), cluster: row.get(2), last: mark(3), anchor: mark(6) }
}

/// Guard 1 waited in vain: a session of our role holds the row, perhaps a consumer that was stopped in the middle of a COPY,
/// which no time-out of PostgreSQL's ends. The partition is ours now, so its transaction must go. It is found by the row's
/// `xmax`: nobody is "blocking" us any more now that the wait is over.
fn end_holders(session: &mut Session, batch: &Batch) -> Result<Fault, Fault> {
    let partitions: Vec<i32> = batch.slices.keys().copied().collect();
    let ended = session.client.query(
        &format!(
            "SELECT a.pid, a.application_name, pg_terminate_backend(a.pid)
             FROM kafka_offsets o
             JOIN pg_locks l ON l.locktype = 'transactionid' AND l.transactionid = o.xmax AND l.granted
             JOIN pg_stat_activity a ON a.pid = l.pid
             WHERE o.topic = $1 AND o.partition = ANY($2) AND a.usename = current_user AND a.pid <> pg_backend_pid()
               AND a.xact_start < now() - interval '{HELD_MAX}'"
        ),
        &[&batch.topic, &partitions],
    )?;
    for row in &ended {
        let (pid, application): (i32, &str) = (row.get(0), row.get(1));
        log::warn!("PostgreSQL: ended session {pid} ({application}), which held our partition for over {HELD_MAX}");
    }
    Ok(Fault::Away(format!("PostgreSQL: another session held our partition; {} ended", ended.len())))
}
