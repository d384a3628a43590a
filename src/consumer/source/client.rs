//! Properties of the clients: what is fixed, then what the operator sets, then our defaults.

use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;

use crate::config::Invalid;
use crate::kafka::{ClientError, Connection, Reports, not_created};

/// Without a group, a position that Kafka no longer has becomes the oldest message.
const FIXED_STANDALONE: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "earliest"),
    ("enable.partition.eof", "true"),
    ("check.crcs", "true"),
    ("isolation.level", "read_committed"),
];

/// Properties that no setting may change: exactly-once delivery depends on all but the last, which bounds memory.
pub(super) const FIXED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // Positions are the program's: a reset would rewind, and guard 1 would skip what is new.
    ("auto.offset.reset", "error"),
    ("check.crcs", "true"),
    ("isolation.level", "read_committed"),
    ("group.protocol", "classic"),
    ("queued.max.messages.kbytes", "4096"),
];

const DEFAULTS: &[(&str, &str)] = &[
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "2000"),
    // Longest time that a rebalance waits for a member whose store is at work.
    ("max.poll.interval.ms", "90000"),
    ("topic.metadata.refresh.interval.ms", "30000"),
    ("partition.assignment.strategy", "range"),
    ("queued.min.messages", "1000"),
    // Librdkafka's default is a second of rest once its queue is full, which would be most of the time.
    ("fetch.queue.backoff.ms", "10"),
    // A compressed fetch takes ten to twenty-five times as much memory here. The third value lets the second be so small.
    ("fetch.message.max.bytes", "131072"),
    ("fetch.max.bytes", "131072"),
    ("message.max.bytes", "131072"),
    ("reconnect.backoff.max.ms", "10000"),
];

pub(in crate::consumer) fn check_client(connection: &Connection, group: &str) -> Result<(), Invalid> {
    connection.check::<BaseConsumer>(|connection| client(connection, group, FIXED))
}

/// Creates a client that may read the offsets of `group` but never joins it; `more` properties override the operator's.
pub(super) fn standalone_client(
    connection: &Connection,
    group: &str,
    topics: &[String],
    more: &[(&str, &str)],
) -> Result<BaseConsumer<Reports>, String> {
    let config = client(connection, group, &[FIXED_STANDALONE, more].concat())?;
    let reports = Reports::of_consumer(connection.brokers(), (group, "Describe"), topics);
    config.create_with_context(reports).map_err(|error| not_created(&error))
}

pub(super) fn client(
    connection: &Connection,
    group: &str,
    fixed: &[(&str, &str)],
) -> Result<ClientConfig, ClientError> {
    let mut config = connection.client(fixed, DEFAULTS)?;
    config.set("group.id", group);
    Ok(config)
}
