use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;

use super::common::{Common, standalone_of, unavailable};
use crate::cli::output::{self, OutputFormat, Rows};
use crate::consumer::batch::TopicId;
use crate::consumer::config::Settings;
use crate::consumer::report::offsets::{self, StoredOffset};
use crate::consumer::store::Reader;
use crate::kafka::offsets::PartitionsError;
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::Failure;
use crate::process::log_throttle::LogThrottle;
use crate::units::{counted, lasting};

pub(super) const HELP: &str = "\
For each partition of each topic that is stored: its end (the last stable
offset), the offset that the group has committed to Kafka, and the next offset
to be stored, from the database. The database decides where the consumer
resumes; Kafka's committed offset follows it and is only a hint. `lag` is the
number of offsets between the end and the next one to be stored, which includes
transaction markers.

Exit code: 0; with --wait 0 once everything that was in Kafka at the call is
stored, 1 after --timeout; 69 if Kafka or the store could not be reached.

Examples:
  highwater-consumer lag
  highwater-consumer lag --wait --timeout 5m && pg_dump highwater
  highwater-consumer lag --format json | jq -s 'map(.lag) | add'";

#[derive(Args, Debug)]
pub(super) struct Lag {
    #[command(flatten)]
    common: Common,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: OutputFormat,
    /// Wait until everything that is in Kafka now is stored
    #[arg(long)]
    wait: bool,
    /// Maximum time to wait
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = crate::cli::time, requires = "wait")]
    timeout: Duration,
}

const COLUMNS: &[&str] = &[
    "kafka_topic",
    "kafka_partition",
    "begin_offset",
    "end_offset",
    "committed_offset",
    "next_offset",
    "lag",
    "updated_at",
];
const ASK_EVERY: Duration = Duration::from_millis(200);

type LagRows = BTreeMap<(TopicId, i32), LagRow>;

#[derive(Clone, Debug)]
struct LagRow {
    begin: i64,
    end: i64,
    committed: Option<i64>,
    stored: Option<StoredOffset>,
}

impl Lag {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = self.common.prepare()?;
        let mut reader = settings.store.reader();
        let mut rows = LagRows::new();
        for topic in settings.membership().topics {
            match read_lag(&settings, &topic, &mut *reader)? {
                Some(of_topic) => rows.extend(of_topic),
                None => self.common.note(&format!("there is no topic {topic}: no agent sends rates")),
            }
        }
        let before = rows.clone();
        let all_stored = !self.wait || self.wait_for(&mut rows, &before, &mut *reader)?;
        output::finished(print(&rows, self.format))?;
        for ((topic, partition), row) in still_beyond(&rows, &before) {
            let end = row.end;
            self.common.note(&format!(
                "{topic}[{partition}] ends at {end}, before what is stored: was it recreated? A running consumer checks that"
            ));
        }
        if all_stored {
            return Ok(());
        }
        let waited = lasting(self.timeout);
        let missing: i64 = rows.values().map(LagRow::lag).sum();
        Err(Failure::failed(format!(
            "not stored after {waited}: {}; is a consumer running?",
            counted(missing, "offset")
        )))
    }

    fn wait_for(&self, rows: &mut LagRows, before: &LagRows, reader: &mut dyn Reader) -> Result<bool, Failure> {
        let clock = SystemClock::default();
        let (until, throttle) = (clock.monotonic() + self.timeout, LogThrottle::default());
        loop {
            if rows.iter().all(|(at, row)| row.is_done(&before[at])) {
                return Ok(true);
            }
            let now = clock.monotonic();
            if now >= until {
                return Ok(false);
            }
            std::thread::sleep(ASK_EVERY.min(until - now));
            match offsets::read(reader) {
                Ok(mut stored) => rows.iter_mut().for_each(|(at, row)| row.stored = stored.remove(at)),
                Err(fault) if clock.monotonic() >= until => return Err(unavailable(fault)),
                Err(fault) => {
                    if let Some(line) = throttle.admit(&fault.to_string(), clock.monotonic()) {
                        log::warn!("{line}; retrying");
                    }
                }
            }
        }
    }
}

impl LagRow {
    fn lag(&self) -> i64 {
        let from = self.stored.as_ref().map_or(self.begin, |stored| stored.next.max(self.begin));
        (self.end - from).max(0)
    }

    /// Returns true if the stored offsets are from an earlier topic of this name: the store was asked before Kafka.
    fn is_beyond(&self) -> bool {
        self.stored.as_ref().is_some_and(|stored| stored.next > self.end)
    }

    fn is_done(&self, before: &Self) -> bool {
        let Some(stored) = &self.stored else { return before.begin == before.end };
        let renewed = before.stored.as_ref().is_some_and(|old| stored.generation > old.generation);
        stored.next >= before.end && (renewed || !before.is_beyond())
    }
}

/// Returns the rows that were beyond the end `before` and still are. What the wait stored may be beyond that end too.
fn still_beyond<'a>(rows: &'a LagRows, before: &'a LagRows) -> impl Iterator<Item = (&'a (TopicId, i32), &'a LagRow)> {
    rows.iter().filter(|(at, row)| row.is_beyond() && before[*at].is_beyond())
}

/// Reads a topic's stored offsets before Kafka's, lest one is beyond the end. Returns `None` if the topic is missing, and may be.
fn read_lag(settings: &Settings, topic: &str, reader: &mut dyn Reader) -> Result<Option<LagRows>, Failure> {
    let mut stored = offsets::read(reader).map_err(unavailable)?;
    let standalone = standalone_of(settings, topic)?;
    let kafka = |error: String| unavailable(format!("Kafka at {}: {error}", settings.connection.brokers()));
    let partitions = match standalone.partitions() {
        Err(PartitionsError::UnknownTopic(_)) if settings.may_be_missing(topic) => return Ok(None),
        partitions => partitions.map_err(|error| kafka(error.into()))?,
    };
    let id = TopicId { cluster: standalone.cluster(), name: topic.to_owned() };
    let committed = standalone.committed(&partitions).map_err(kafka)?;
    let mut rows = LagRows::new();
    for partition in partitions {
        let (begin, end) = standalone.watermarks(partition).map_err(kafka)?;
        let at = (id.clone(), partition);
        let stored = stored.remove(&at);
        rows.insert(at, LagRow { begin, end, committed: committed.get(&partition).copied(), stored });
    }
    Ok(Some(rows))
}

fn print(rows: &LagRows, format: OutputFormat) -> std::io::Result<()> {
    let mut printed = Rows::new(format, COLUMNS, output::stdout(format));
    for ((topic, partition), row) in rows {
        let stored = row.stored.as_ref();
        printed.push([
            topic.name.as_str().into(),
            (*partition).into(),
            row.begin.into(),
            row.end.into(),
            row.committed.into(),
            stored.map(|stored| stored.next).into(),
            row.lag().into(),
            stored.and_then(|stored| stored.updated_at).into(),
        ])?;
    }
    printed.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(begin: i64, end: i64, stored: Option<(i64, i32)>) -> LagRow {
        let stored = stored.map(|(next, generation)| StoredOffset { next, generation, updated_at: None });
        LagRow { begin, end, committed: None, stored }
    }

    #[test]
    fn what_is_not_stored_lags() {
        assert_eq!(row(0, 10, Some((7, 0))).lag(), 3);
        assert_eq!(row(5, 10, None).lag(), 5);
        // Kafka dropped the next offsets: there is no more to store.
        assert_eq!(row(5, 10, Some((2, 0))).lag(), 5);
        assert_eq!(row(0, 10, Some((12, 0))).lag(), 0);
    }

    #[test]
    fn done_is_what_was_there_at_the_call_and_in_this_topic() {
        let done = |before: &LagRow, stored| row(before.begin, before.end, stored).is_done(before);
        let before = row(0, 10, Some((7, 0)));
        assert!(!done(&before, Some((9, 0))) && done(&before, Some((10, 0))) && done(&before, Some((12, 0))));
        assert!(done(&row(4, 4, None), None) && !done(&row(0, 4, None), None));
        // Recreated and shorter: done once the consumer has found that out.
        let beyond = row(0, 10, Some((30, 0)));
        assert!(!done(&beyond, Some((30, 0))) && !done(&beyond, Some((3, 1))) && done(&beyond, Some((10, 1))));
    }

    #[test]
    fn what_was_stored_during_the_wait_is_no_sign_of_a_recreated_topic() {
        let rows = |stored: [i64; 2]| -> LagRows {
            let id = TopicId { cluster: String::new(), name: "t".to_owned() };
            (0..).zip(stored).map(|(partition, next)| ((id.clone(), partition), row(0, 10, Some((next, 0))))).collect()
        };
        // Partition 0 ended before what was stored at the call; to partition 1 a message came since.
        let (before, now) = (rows([30, 9]), rows([30, 11]));
        let partitions: Vec<i32> = still_beyond(&now, &before).map(|((_, partition), _)| *partition).collect();
        assert_eq!(partitions, [0]);
    }
}
