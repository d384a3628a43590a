//! `--log-totals`: bytes over limit by link and limit, since the start and in all, on a thread: no batch waits for the log.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::consumer::report::totals::{self, Sums};
use crate::consumer::store::{Reader, TotalKey};
use crate::units::ByteCount;

pub(super) struct TotalsLog {
    sender: Option<Sender<Sums>>,
    ended: Receiver<()>,
}

const END_MAX: Duration = Duration::from_secs(2);

impl TotalsLog {
    pub(super) fn start(reader: Box<dyn Reader + Send>) -> std::io::Result<Self> {
        let (sender, changes) = channel::<Sums>();
        let (end, ended) = channel();
        std::thread::Builder::new().name("totals".into()).spawn(move || {
            let mut totals = Totals::new(reader);
            while let Ok(mut added) = changes.recv() {
                // Changes that came while the database was asked are one line.
                changes.try_iter().for_each(|more| add(&mut added, &more));
                totals.lines(&added).iter().for_each(|line| log::info!("{line}"));
            }
            drop(end);
        })?;
        Ok(Self { sender: Some(sender), ended })
    }

    pub(super) fn log(&self, added: &Sums) {
        if let Some(changes) = &self.sender {
            let _ = changes.send(added.clone());
        }
    }
}

impl Drop for TotalsLog {
    fn drop(&mut self) {
        self.sender = None;
        if self.ended.recv_timeout(END_MAX) == Err(RecvTimeoutError::Timeout) {
            log::warn!("totals: the database does not answer; the last ones are not logged");
        }
    }
}

fn add(sums: &mut Sums, more: &Sums) {
    for (key, bytes) in more {
        let sum = sums.entry(key.clone()).or_default();
        *sum = sum.saturating_add(*bytes);
    }
}

struct Totals {
    since_start: Sums,
    reader: Box<dyn Reader + Send>,
}

impl Totals {
    fn new(reader: Box<dyn Reader + Send>) -> Self {
        Self { since_start: Sums::new(), reader }
    }

    fn lines(&mut self, added: &Sums) -> Vec<String> {
        add(&mut self.since_start, added);
        let keys: Vec<&TotalKey> = added.iter().filter(|(_, bytes)| **bytes > 0).map(|(key, _)| key).collect();
        let stored = match totals::sums(&mut *self.reader, &keys) {
            Ok(stored) => stored,
            Err(why) => {
                log::warn!("totals: {why}");
                return Vec::new();
            }
        };
        let line = |key: &&TotalKey| {
            let shown = |sums: &Sums| ByteCount::from_bytes(sums.get(*key).copied().unwrap_or(0));
            let TotalKey { agent, interface, direction, limit_name } = key;
            let (since_start, in_all) = (shown(&self.since_start), shown(&stored));
            format!(
                "total {agent} {interface} {direction}: {since_start} over limit {limit_name} since the start, {in_all} in all"
            )
        };
        keys.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::cli::output::Value;
    use crate::consumer::store::{Query, StoreError};

    struct Rows(Vec<Vec<Value>>);

    impl Reader for Rows {
        fn read(&mut self, _: &Query, each: &mut dyn FnMut(Vec<Value>) -> ControlFlow<()>) -> Result<(), StoreError> {
            let _ = self.0.iter().cloned().try_for_each(each);
            Ok(())
        }
    }

    fn key(interface: &str) -> TotalKey {
        TotalKey { agent: "gw".into(), interface: interface.into(), direction: "rx", limit_name: "wan-down".into() }
    }

    fn totals(high: i64, low: i64) -> Totals {
        let texts = ["gw", "eth0", "rx", "wan-down"].map(Value::from);
        Totals::new(Box::new(Rows(vec![texts.into_iter().chain([high.into(), low.into()]).collect()])))
    }

    #[test]
    fn a_change_is_one_line_with_direction_limit_and_one_unit_and_what_has_not_changed_is_none() {
        let mut totals = totals(0, 5_072);
        let line = "total gw eth0 rx: 2.0 KiB over limit wan-down since the start, 5.0 KiB in all";
        assert_eq!(totals.lines(&Sums::from([(key("eth0"), 2_072), (key("eth1"), 0)])), [line]);
        assert_eq!(totals.lines(&Sums::from([(key("eth0"), 0)])), [""; 0]);
        assert_eq!(totals.lines(&Sums::new()), [""; 0]);
    }

    #[test]
    fn what_changed_meanwhile_is_one_change() {
        let mut sums = Sums::from([(key("eth0"), u64::MAX - 1)]);
        add(&mut sums, &Sums::from([(key("eth0"), 2), (key("eth1"), 3)]));
        assert_eq!(sums, Sums::from([(key("eth0"), u64::MAX), (key("eth1"), 3)]));
    }

    #[test]
    fn sums_stop_where_a_number_ends() {
        let line = |mut totals: Totals| totals.lines(&Sums::from([(key("eth0"), 1)])).remove(0);
        assert!(line(totals(3, 0)).contains("12.0 GiB in all"));
        assert!(line(totals(i64::MAX, i64::MAX)).contains("16777216.0 TiB in all"));
    }
}
