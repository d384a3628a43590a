//! Real servers that `tests/run` started, and clients of others to ask them.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tempfile::TempDir;

use super::postgres::Postgres;
use super::process::{script, signal};
use super::proxy::Proxy;
use super::skips::server_or_skip;

/// Several brokers, each of which holds every message: one of three may be gone.
pub(crate) struct Cluster {
    /// Address of all of them, for clients.
    pub(crate) kafka: Kafka,
    brokers: Vec<Kafka>,
    /// Dropped after the brokers.
    _directory: TempDir,
}

impl Cluster {
    pub(crate) fn of_three(test: &str) -> Option<Self> {
        Kafka::or_skip(test)?;
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let home = temporary.path();
        let brokers =
            (1..=3).map(|node| Kafka { address: String::new(), directory: home.join(node.to_string()), own: true });
        let brokers: Vec<Kafka> = brokers.collect();
        let output = script("kafka").arg("cluster").arg(home).arg("3").output().expect("tests/support/kafka runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let address = String::from_utf8(output.stdout).expect("addresses are text").trim().to_owned();
        let kafka = Kafka { address, directory: home.join("1"), own: false };
        Some(Self { kafka, brokers, _directory: temporary })
    }

    /// Returns the broker that leads a topic's only partition, as soon as all replicas are in sync.
    pub(crate) fn leader(&self, topic: &str) -> &Kafka {
        self.leader_of((topic, 0), self.brokers.len())
    }

    /// Returns the broker that leads a partition, as soon as this number of replicas is in sync.
    pub(crate) fn leader_of(&self, (topic, partition): (&str, usize), replicas: usize) -> &Kafka {
        let mut config = ClientConfig::new();
        let client: BaseConsumer = config.set("bootstrap.servers", &self.kafka.address).create().expect("a client");
        let leader = super::agent::until("all brokers are in sync", || {
            let metadata = client.fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
            let partition = metadata.topics().first()?.partitions().get(partition)?;
            (partition.isr().len() == replicas).then(|| partition.leader())
        });
        &self.brokers[leader as usize - 1]
    }
}

/// Returns the running servers; without both of them the test is skipped.
pub(crate) fn kafka_and_postgres(test: &str) -> Option<(Kafka, Postgres)> {
    Some((Kafka::or_skip(test)?, Postgres::or_skip(test)?))
}

/// Returns the running Kafka, and a PostgreSQL of the test's own.
pub(crate) fn kafka_and_own_postgres(test: &str) -> Option<(Kafka, Postgres)> {
    Some((Kafka::or_skip(test)?, Postgres::start_own(test)?))
}

pub(crate) struct Kafka {
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    directory: PathBuf,
    own: bool,
}

impl Kafka {
    /// Returns the running Kafka; without one the test is skipped.
    pub(crate) fn or_skip(test: &str) -> Option<Self> {
        let (address, directory) = server_or_skip(test, "KAFKA", "needs Kafka")?;
        Some(Self { address, directory, own: false })
    }

    /// Starts one that this test may stop and kill, in a directory of its own.
    pub(crate) fn start_own(test: &str) -> Option<(Self, TempDir)> {
        Self::or_skip(test)?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut own = Self { address: String::new(), directory: directory.path().join("kafka"), own: true };
        own.address = own.start();
        Some((own, directory))
    }

    /// Starts one with the listeners, properties and users that `prepare` writes into its directory.
    pub(crate) fn secured(test: &str, prepare: impl FnOnce(&Path)) -> Option<(Self, TempDir)> {
        Self::or_skip(test)?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut own = Self { address: String::new(), directory: directory.path().join("kafka"), own: true };
        std::fs::create_dir(&own.directory).expect("it is empty");
        prepare(&own.directory);
        own.address = own.start();
        Some((own, directory))
    }

    /// Returns the address of a listener of [`Kafka::secured`].
    pub(crate) fn listener(&self, name: &str) -> String {
        let address = std::fs::read_to_string(self.directory.join(format!("address.{name}")));
        address.expect("it has this listener").trim().to_owned()
    }

    /// Starts one that its clients reach through `proxy` alone; `address` bypasses it.
    pub(crate) fn start_behind(test: &str, proxy: &Proxy) -> Option<(Self, TempDir)> {
        Self::or_skip(test)?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut own = Self { address: String::new(), directory: directory.path().join("kafka"), own: true };
        own.address = own.start_with(&[&proxy.port().to_string()]);
        proxy.set_upstream(&own.listener_behind());
        Some((own, directory))
    }

    /// Returns the listener of [`Kafka::behind`] itself, which names the proxy to its clients.
    pub(crate) fn listener_behind(&self) -> String {
        std::fs::read_to_string(self.directory.join("behind")).expect("it has an address").trim().to_owned()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(self.directory.join("pid")).expect("it runs");
        signal(pid, name);
    }

    /// Starts it (again), at the same address.
    pub(crate) fn start(&self) -> String {
        self.start_with(&[])
    }

    fn start_with(&self, arguments: &[&str]) -> String {
        let mut script = script("kafka");
        let output =
            script.arg("start").arg(&self.directory).args(arguments).output().expect("tests/support/kafka runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("an address is text").trim().to_owned()
    }

    pub(crate) fn stop(&self) {
        assert!(script("kafka").arg("stop").arg(&self.directory).status().expect("it runs").success());
    }

    pub(crate) fn kill(&self) {
        assert!(script("kafka").arg("kill").arg(&self.directory).status().expect("it runs").success());
    }

    /// Makes a new topic of `partitions`, of this name and a random suffix.
    pub(crate) fn topic(&self, name: &str, partitions: u32) -> String {
        let topic = format!("{name}-{:08x}", fastrand::u32(..));
        let status =
            script("kafka").args(["topic"]).arg(&self.directory).args([&topic, &partitions.to_string()]).output();
        let output = status.expect("tests/support/kafka runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        topic
    }

    /// Returns the error for a missing topic.
    pub(crate) fn missing(&self, topic: &str) -> String {
        format!("there is no topic {topic}: `highwater-agent topics -b {} -t {topic}` creates it", self.address)
    }

    /// Returns the error for a missing topic of histograms.
    pub(crate) fn missing_histograms(&self, topic: &str) -> String {
        let command = format!("HIGHWATER_TOPICS__HISTOGRAMS={topic} highwater-agent topics");
        self.missing(topic).replace("highwater-agent topics", &command)
    }

    /// Deletes a topic and makes it again, as an operator would by mistake.
    pub(crate) fn recreate(&self, topic: &str, partitions: u32) {
        self.topics_tool(&["--delete", "--topic", topic]);
        // The name is free after a moment.
        super::agent::until("the topic is recreated", || {
            let topics = self.topics_tool(&["--list"]);
            (!topics.lines().any(|line| line == topic)).then_some(())
        });
        self.create(topic, partitions);
    }

    /// Makes a topic of this very name.
    pub(crate) fn create(&self, topic: &str, partitions: u32) {
        self.topics_tool(&["--create", "--topic", topic, "--partitions", &partitions.to_string()]);
    }

    /// Drops the records before `offset`, as retention does.
    pub(crate) fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("offsets.json");
        let text = format!(
            "{{\"partitions\":[{{\"topic\":\"{topic}\",\"partition\":{partition},\"offset\":{offset}}}],\"version\":1}}"
        );
        std::fs::write(&file, text).expect("it can be written");
        let file = file.display().to_string();
        let class = "org.apache.kafka.tools.DeleteRecordsCommand";
        self.tool(&[class, "--bootstrap-server", &self.address, "--offset-json-file", &file]);
    }

    /// Changes a byte of the batch that begins at `offset`, as a failing disk would.
    pub(crate) fn damage(&self, topic: &str, partition: i32, offset: i64) {
        let path = self.directory.join(format!("data/{topic}-{partition}/00000000000000000000.log"));
        let log = std::fs::read(&path).expect("the segment is there");
        let mut begin = 0;
        let end = loop {
            let header = &log[begin..begin + 12];
            let length = i32::from_be_bytes(header[8..].try_into().expect("4 bytes"));
            let end = begin + 12 + usize::try_from(length).expect("a batch has a length");
            if i64::from_be_bytes(header[..8].try_into().expect("8 bytes")) == offset {
                break end;
            }
            begin = end;
        };
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("it can be written");
        file.write_all_at(&[!log[end - 1]], end as u64 - 1).expect("it can be written");
    }

    /// Creates a topic of which each partition is on one broker.
    pub(crate) fn create_unreplicated(&self, name: &str, partitions: u32) -> String {
        let topic = format!("{name}-{:08x}", fastrand::u32(..));
        let partitions = partitions.to_string();
        self.topics_tool(&["--create", "--topic", &topic, "--partitions", &partitions, "--replication-factor", "1"]);
        topic
    }

    /// Adds partitions, up to this number.
    pub(crate) fn add_partitions(&self, topic: &str, partitions: u32) {
        self.topics_tool(&["--alter", "--topic", topic, "--partitions", &partitions.to_string()]);
    }

    /// Changes the offsets that a group committed for `topic`. The group must have no member; the last one may just have left.
    pub(crate) fn change_group(&self, group: &str, topic: &str, how: &[&str]) {
        let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
        let whom = [class, "--bootstrap-server", &self.address, "--group", group, "--topic", topic];
        let said = self.tool(&[&whom, how].concat());
        assert!(!said.contains("Error"), "{said}");
    }

    /// Compacts the topic at once: it keeps only the last message of each key.
    pub(crate) fn compact(&self, topic: &str) {
        let class = "kafka.admin.ConfigCommand";
        let compact = "cleanup.policy=compact,segment.ms=100,min.cleanable.dirty.ratio=0.001,min.compaction.lag.ms=0";
        let alter = ["--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", compact];
        self.tool(&[&[class, "--bootstrap-server", &self.address], &alter[..]].concat());
    }

    /// Returns the end offset of a topic's only partition, for `read_committed`.
    pub(crate) fn end_offset(&self, topic: &str) -> i64 {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address).set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        consumer.fetch_watermarks(topic, 0, Duration::from_secs(60)).expect("Kafka answers").1
    }

    /// Sets one of a topic's settings, as in `max.message.bytes=2000`.
    pub(crate) fn alter(&self, topic: &str, setting: &str) {
        let class = "kafka.admin.ConfigCommand";
        let what = ["--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", setting];
        self.tool(&[&[class, "--bootstrap-server", &self.address], &what[..]].concat());
    }

    /// Returns how many producers of a topic's only partition its broker remembers (KIP-664).
    pub(crate) fn producers(&self, topic: &str) -> usize {
        let class = "org.apache.kafka.tools.TransactionsCommand";
        let what = ["describe-producers", "--topic", topic, "--partition", "0"];
        let table = self.tool(&[&[class, "--bootstrap-server", &self.address], &what[..]].concat());
        table.lines().skip(1).filter(|line| !line.trim().is_empty()).count()
    }

    fn topics_tool(&self, how: &[&str]) -> String {
        let class = "org.apache.kafka.tools.TopicCommand";
        self.tool(&[&[class, "--bootstrap-server", &self.address], how].concat())
    }

    /// Runs one of Kafka's own tools, and returns its output.
    pub(crate) fn tool(&self, arguments: &[&str]) -> String {
        let output = script("kafka").arg("tool").args(arguments).output().expect("tests/support/kafka runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Reads all of a topic by kcat: one line a message, in this `format` (kcat(1)).
    pub(crate) fn read(&self, topic: &str, format: &str) -> Vec<String> {
        read(&self.address, topic, format)
    }

    /// Returns the payload at `offset` of the first partition.
    pub(crate) fn payload(&self, topic: &str, offset: i64) -> Vec<u8> {
        let offset = offset.to_string();
        let arguments = ["-C", "-q", "-c", "1", "-p", "0", "-o", &offset, "-b", &self.address, "-t", topic, "-f", "%s"];
        kcat(&arguments)
    }

    /// Returns the first bytes of the payload at `offset` of the first partition, in hex.
    pub(crate) fn first_bytes(&self, topic: &str, offset: i64) -> String {
        self.payload(topic, offset).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the events of a topic, as JSON.
    pub(crate) fn events(&self, topic: &str) -> Vec<serde_json::Value> {
        self.read(topic, "%s\n").iter().map(|line| serde_json::from_str(line).expect("an event is JSON")).collect()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if self.own {
            let _ = script("kafka").arg("kill").arg(&self.directory).status();
        }
    }
}

/// Reads all of a topic of the Kafka at `address` by kcat; see [`Kafka::read`].
pub(crate) fn read(address: &str, topic: &str, format: &str) -> Vec<String> {
    let out = kcat(&["-C", "-q", "-e", "-o", "beginning", "-b", address, "-t", topic, "-f", format]);
    String::from_utf8_lossy(&out).lines().map(str::to_owned).collect()
}

/// Runs kcat, and returns its output.
fn kcat(arguments: &[&str]) -> Vec<u8> {
    let run = || Command::new("kcat").args(arguments).output().expect("kcat runs");
    let mut output = run();
    // The wait ends at the first moment without a connection, as on a host that is busy.
    for _ in 0..3 {
        if !output.status.success() {
            output = run();
        }
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
