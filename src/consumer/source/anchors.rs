//! Known records of a partition, read again by a short-lived client, to see that its topic is still the same.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;

use super::{Source, list};
use crate::consumer::batch::Fingerprint;
use crate::consumer::checkpoint::{AnchorRecord, Checkpoint};
use crate::kafka::Reports;
use crate::process::clock::{Clock as _, SystemClock};

pub(in crate::consumer) type AnchorRecords = BTreeMap<i32, Vec<AnchorRecord>>;

const AGAIN_MAX: Duration = Duration::from_secs(8);

impl Source {
    /// Reads the last stored record of each partition again, or an older one if that is gone. Leaves out partitions in which a
    /// record cannot be read.
    pub(in crate::consumer) fn read_again(
        &self,
        topic: usize,
        known: &BTreeMap<i32, Checkpoint>,
    ) -> Result<Receiver<AnchorRecords>, String> {
        let client = self.standalone_client(&[("fetch.message.max.bytes", "16384")])?;
        let wanted: BTreeMap<i32, Vec<i64>> = known
            .iter()
            .map(|(partition, checkpoint)| (*partition, checkpoint.known().map(|print| print.offset).collect()))
            .collect();
        let (sender, receiver) = mpsc::channel();
        let topic = self.name(topic).to_owned();
        let read = move || {
            let _ = sender.send(read_known(&client, &topic, &wanted));
        };
        std::thread::Builder::new().name("anchors".into()).spawn(read).map_err(|e| e.to_string())?;
        Ok(receiver)
    }
}

fn read_known(client: &BaseConsumer<Reports>, topic: &str, wanted: &BTreeMap<i32, Vec<i64>>) -> AnchorRecords {
    let until = SystemClock::default().monotonic() + AGAIN_MAX;
    let mut found: AnchorRecords = wanted.keys().map(|partition| (*partition, Vec::new())).collect();
    for turn in 0.. {
        let is_open = |records: &[AnchorRecord]| records.iter().all(|now| *now == AnchorRecord::Gone);
        let open = found.iter().filter(|(_, records)| is_open(records));
        let offsets: BTreeMap<i32, i64> =
            open.filter_map(|(partition, _)| Some((*partition, *wanted[partition].get(turn)?))).collect();
        if offsets.is_empty() {
            break;
        }
        let is_assigned = list(topic, &offsets).is_ok_and(|offsets| client.assign(&offsets).is_ok());
        let read = if is_assigned { read_each(client, &offsets, until) } else { BTreeMap::new() };
        for partition in offsets.into_keys() {
            match read.get(&partition) {
                Some(record) => found.entry(partition).or_default().push(*record),
                None => drop(found.remove(&partition)),
            }
        }
    }
    found
}

fn read_each(
    client: &BaseConsumer<Reports>,
    offsets: &BTreeMap<i32, i64>,
    until: Duration,
) -> BTreeMap<i32, AnchorRecord> {
    let clock = SystemClock::default();
    let mut found = BTreeMap::new();
    while found.len() < offsets.len() && clock.monotonic() < until {
        match client.poll(Duration::from_millis(100)) {
            Some(Ok(message)) if offsets.get(&message.partition()) == Some(&message.offset()) => {
                let timestamp_ms = message.timestamp().to_millis();
                let print = Fingerprint::new(message.offset(), timestamp_ms, message.key(), message.payload());
                found.entry(message.partition()).or_insert(AnchorRecord::Record(print));
            }
            Some(Ok(message)) => {
                found.entry(message.partition()).or_insert(AnchorRecord::Gone);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                found.entry(partition).or_insert(AnchorRecord::Gone);
            }
            Some(Err(_)) | None => {}
        }
    }
    found
}
