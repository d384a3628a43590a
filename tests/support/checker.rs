//! Compares events that agents accepted with those in Kafka and in the database, for all fault tests. Accepted is what a journal's
//! own transaction counted; Kafka is read by kcat; the database by plain SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use highwater::message::Event;
use serde_json::Value;

use super::agent::{AGENT, Agent};
use super::postgres::Database;
use super::services;

/// `(agent, epoch, seq)`.
pub(crate) type Identity = (String, String, u64);
/// `(agent, epoch)`.
type Count = (String, String);

/// Identities that were accepted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checker {
    accepted: BTreeMap<Count, BTreeSet<u64>>,
    /// Epochs in memory, while a disk fails: only the agent knows how far they count.
    in_memory: BTreeSet<Count>,
}

/// Identities in Kafka, in the order of partitions and offsets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent(pub(crate) Vec<(i32, Identity)>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    /// Each row's identity, as often as there are rows.
    pub(crate) rows: Vec<Identity>,
    /// Declared losses: `(agent, epoch, first, last)`; a last of `u64::MAX` is open-ended.
    pub(crate) declared: Vec<(String, String, u64, u64)>,
}

/// Result of the comparison. Each list but `declared` is empty if all promises were kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) accepted: u64,
    /// Accepted, and neither a row nor declared.
    pub(crate) lost: Vec<Identity>,
    pub(crate) doubled: Vec<Identity>,
    /// In Kafka after one that was accepted later, or in another partition than those before it.
    pub(crate) out_of_order: Vec<Identity>,
    /// A row that was never accepted.
    pub(crate) invented: Vec<Identity>,
    /// Accepted, no row, and declared to be lost.
    pub(crate) declared: Vec<Identity>,
}

impl Checker {
    /// Accepts the numbers `1..=last` of this epoch.
    pub(crate) fn accept(&mut self, agent: &str, epoch: &str, last: u64) {
        self.accepted.entry((agent.to_owned(), epoch.to_owned())).or_default().extend(1..=last);
    }

    /// Accepts events that the test itself sends.
    pub(crate) fn accept_events<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) {
        for Event { id, stamp, .. } in events {
            let count = (stamp.agent.to_string(), id.epoch.to_string());
            self.accepted.entry(count).or_default().insert(id.seq);
        }
    }

    /// Accepts the journal's events. Only while the agent does not run.
    pub(crate) fn accept_journal(&mut self, agent: &Agent) {
        let (epoch, last) = agent.accepted();
        self.accept(AGENT, &epoch, last);
    }

    /// Accepts all that arrives of an epoch that was in the agent's memory only.
    pub(crate) fn accept_in_memory(&mut self, agent: &str, epoch: &str) {
        self.in_memory.insert((agent.to_owned(), epoch.to_owned()));
    }

    pub(crate) fn counts(&self, epoch: &str) -> bool {
        self.accepted.keys().chain(&self.in_memory).any(|(_, known)| known == epoch)
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.values().map(|seqs| seqs.len() as u64).sum()
    }

    pub(crate) fn judge(&self, sent: &Sent, stored: &Stored) -> Verdict {
        let mut rows: BTreeMap<&Identity, u64> = BTreeMap::new();
        for identity in &stored.rows {
            *rows.entry(identity).or_default() += 1;
        }
        let mut verdict = Verdict { accepted: self.accepted(), ..Verdict::default() };
        // Identities that were never accepted, poison for one, have no order.
        verdict.out_of_order = sent.out_of_order().into_iter().filter(|identity| self.knows(identity)).collect();
        verdict.doubled = rows.iter().filter(|(_, count)| **count > 1).map(|(row, _)| (*row).clone()).collect();
        verdict.invented = rows.keys().filter(|row| !self.knows(row)).map(|row| (*row).clone()).collect();
        for ((agent, epoch), seqs) in &self.accepted {
            for &seq in seqs {
                let identity = (agent.clone(), epoch.clone(), seq);
                if rows.contains_key(&identity) {
                    continue;
                }
                if stored.declares(&identity) { &mut verdict.declared } else { &mut verdict.lost }.push(identity);
            }
        }
        verdict
    }

    fn knows(&self, (agent, epoch, seq): &Identity) -> bool {
        let count = (agent.clone(), epoch.clone());
        self.in_memory.contains(&count) || self.accepted.get(&count).is_some_and(|seqs| seqs.contains(seq))
    }
}

impl Sent {
    /// Reads `topic` by kcat, without messages that are no events (poison).
    pub(crate) fn read(kafka: &str, topic: &str) -> Self {
        let lines = services::read(kafka, topic, "%p %s\n");
        Self(lines.iter().filter_map(|line| parse(line)).collect())
    }

    /// Returns identities that are out of order; of several copies, only the first counts.
    fn out_of_order(&self) -> Vec<Identity> {
        let mut greatest: BTreeMap<Count, (i32, u64)> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut out_of_order = Vec::new();
        for (partition, identity) in &self.0 {
            if !seen.insert(identity) {
                continue;
            }
            let (agent, epoch, seq) = identity;
            let last = greatest.entry((agent.clone(), epoch.clone())).or_insert((*partition, 0));
            if last.0 != *partition || last.1 >= *seq {
                out_of_order.push(identity.clone());
            }
            *last = (last.0, last.1.max(*seq));
        }
        out_of_order
    }
}

fn parse(line: &str) -> Option<(i32, Identity)> {
    let (partition, payload) = line.split_once(' ')?;
    Some((partition.parse().ok()?, identity(payload.as_bytes())?))
}

/// Parses the identity in an event's JSON.
fn identity(payload: &[u8]) -> Option<Identity> {
    let event: Value = serde_json::from_slice(payload).ok()?;
    Some((event["agent"].as_str()?.to_owned(), event["epoch"].as_str()?.to_owned(), event["seq"].as_u64()?))
}

impl Stored {
    /// Reads rows, declared losses, and events that are dead letters.
    pub(crate) fn read(database: &Database) -> Result<Self, postgres::Error> {
        let mut client = postgres::Client::connect(&database.url, postgres::NoTls)?;
        let mut stored = Self::default();
        for row in client.query("SELECT agent, epoch, seq FROM events", &[])? {
            stored.rows.push((row.get(0), row.get(1), row.get::<_, i64>(2).cast_unsigned()));
        }
        for row in client.query("SELECT agent, epoch, first_seq, last_seq FROM losses", &[])? {
            let (first, last) = (row.get::<_, i64>(2).cast_unsigned(), row.get::<_, i64>(3).cast_unsigned());
            stored.declared.push((row.get(0), row.get(1), first, last));
        }
        for row in client.query("SELECT payload FROM dead_letters WHERE payload IS NOT NULL", &[])? {
            if let Some((agent, epoch, seq)) = identity(row.get(0)) {
                stored.declared.push((agent, epoch, seq, seq));
            }
        }
        Ok(stored)
    }

    fn declares(&self, (agent, epoch, seq): &Identity) -> bool {
        self.declared.iter().any(|(a, e, first, last)| a == agent && e == epoch && (first..=last).contains(&seq))
    }
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        [&self.lost, &self.doubled, &self.out_of_order, &self.invented].iter().all(|list| list.is_empty())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} accepted", self.accepted)?;
        let lists = [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("out of order", &self.out_of_order),
            ("invented", &self.invented),
            ("declared", &self.declared),
        ];
        for (name, list) in lists {
            write!(f, ", {} {name}", list.len())?;
            for (agent, epoch, seq) in list.iter().take(5) {
                write!(f, " [{agent} {epoch}-{seq}]")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: &str = "00000000000000aa";

    fn identity(seq: u64) -> Identity {
        ("gw".into(), EPOCH.into(), seq)
    }

    fn sent(seqs: &[u64]) -> Sent {
        Sent(seqs.iter().map(|seq| (0, identity(*seq))).collect())
    }

    fn stored(seqs: &[u64]) -> Stored {
        Stored { rows: seqs.iter().map(|seq| identity(*seq)).collect(), declared: Vec::new() }
    }

    fn checker(last: u64) -> Checker {
        let mut checker = Checker::default();
        checker.accept("gw", EPOCH, last);
        checker
    }

    #[test]
    fn what_is_whole_is_clean() {
        // A copy in Kafka breaks no promise.
        let verdict = checker(3).judge(&sent(&[1, 2, 1, 2, 3]), &stored(&[1, 2, 3]));
        assert_eq!(verdict, Verdict { accepted: 3, ..Verdict::default() });
        assert!(verdict.is_clean());
    }

    #[test]
    fn a_planted_loss_is_found() {
        let verdict = checker(3).judge(&sent(&[1, 2, 3]), &stored(&[1, 3]));
        assert_eq!(verdict, Verdict { accepted: 3, lost: vec![identity(2)], ..Verdict::default() });
        assert!(!verdict.is_clean());
        // The same if nothing at all arrived.
        assert_eq!(checker(2).judge(&sent(&[]), &stored(&[])).lost.len(), 2);
    }

    #[test]
    fn a_planted_double_is_found() {
        let verdict = checker(2).judge(&sent(&[1, 2]), &stored(&[1, 2, 2]));
        assert_eq!(verdict.doubled, [identity(2)]);
        assert!(!verdict.is_clean());
    }

    #[test]
    fn planted_disorder_is_found() {
        let verdict = checker(3).judge(&sent(&[1, 3, 2]), &stored(&[1, 2, 3]));
        assert_eq!(verdict.out_of_order, [identity(2)]);
        assert!(!verdict.is_clean());
        // An agent's events in two partitions have no order.
        let split = Sent(vec![(0, identity(1)), (1, identity(2))]);
        assert_eq!(checker(2).judge(&split, &stored(&[1, 2])).out_of_order, [identity(2)]);
    }

    #[test]
    fn a_planted_invention_is_found() {
        let verdict = checker(2).judge(&sent(&[1, 2, 3]), &stored(&[1, 2, 3]));
        assert_eq!(verdict.invented, [identity(3)]);
        assert!(!verdict.is_clean());
        let mut elsewhere = stored(&[1, 2]);
        elsewhere.rows.push(("gw".into(), "00000000000000bb".into(), 1));
        assert_eq!(checker(2).judge(&sent(&[1, 2]), &elsewhere).invented.len(), 1);
        let mut checker = checker(2);
        checker.accept_in_memory("gw", "00000000000000bb");
        assert!(checker.judge(&sent(&[1, 2]), &elsewhere).is_clean());
    }

    #[test]
    fn what_was_declared_is_not_lost() {
        let mut rows = stored(&[1, 4]);
        rows.declared.push(("gw".into(), EPOCH.into(), 2, 2));
        let verdict = checker(4).judge(&sent(&[1, 4]), &rows);
        assert_eq!((verdict.declared, verdict.lost), (vec![identity(2)], vec![identity(3)]));
        // Another agent's declaration does not count.
        rows.declared.push(("other".into(), EPOCH.into(), 3, 3));
        assert_eq!(checker(4).judge(&sent(&[1, 4]), &rows).lost, [identity(3)]);
    }

    #[test]
    fn what_the_real_parts_hold_is_read() {
        use crate::support::consumer::Consumer;
        use crate::support::events::{event, loss, produce, produce_raw, started, updated};
        use crate::support::services::kafka_and_postgres;

        let test = "support::checker::tests::what_the_real_parts_hold_is_read";
        let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
        let (topic, database) = (kafka.topic("checker", 1), postgres.database("checker"));
        let mut events: Vec<Event> = [1, 3, 2, 6].map(|seq| updated("gw", seq)).into();
        events.push(event("gw", 7, loss(4, 5)));
        produce(&kafka.address, &topic, &events);
        let poison = String::from_utf8(highwater::wire::to_json(&event("gw", 8, started())));
        let poison = poison.expect("JSON is text").replace("\"version\":\"1\"", "\"version\":\"a\\u0000b\"");
        produce_raw(&kafka.address, &topic, [("gw".to_owned(), poison.into_bytes())], None);
        Consumer::new(&kafka.address, &topic, &database.url).run_until_end();

        let epoch = events[0].id.epoch.to_string();
        let mut checker = Checker::default();
        checker.accept("gw", &epoch, 9);
        let stored = Stored::read(&database).expect("PostgreSQL answers");
        let verdict = checker.judge(&Sent::read(&kafka.address, &topic), &stored);
        let seqs = |list: &[Identity]| list.iter().map(|identity| identity.2).collect::<Vec<_>>();
        assert_eq!(seqs(&verdict.lost), [9], "{verdict}");
        assert_eq!(seqs(&verdict.out_of_order), [2], "{verdict}");
        assert_eq!(seqs(&verdict.declared), [4, 5, 8], "{verdict}");
        assert_eq!((verdict.doubled.len(), verdict.invented.len()), (0, 0), "{verdict}");
    }
}
