//! An agent, a topic, a consumer and a database, with a checker of what was accepted: most faults are injected into this.

use std::time::Duration;

use fastrand::Rng;
use highwater::message::Event;

use super::agent::{self, Agent};
use super::checker::{Checker, Sent, Stored, Verdict};
use super::consumer::{self, Consumer};
use super::events::{produce, updates_of_agents};
use super::postgres::{Database, Postgres};
use super::rounds::{Outcome, recovered};
use super::services::Kafka;

pub(crate) struct Pipeline {
    pub(crate) topic: String,
    pub(crate) database: Database,
    pub(crate) agent: Agent,
    pub(crate) consumer: Consumer,
    pub(crate) checker: Checker,
    /// Kafka's address, behind any proxy.
    kafka: String,
    before: Verdict,
    /// Number up to which the made-up agents count.
    last_seq: u64,
}

/// Returns an agent's configuration without the state directory: synthetic traffic on four links, limits that are crossed all the
/// time, and no waiting.
pub(crate) fn busy_config(brokers: &str, topic: &str) -> String {
    format!(
        "agent = 'gw'\ninterval = '100ms'\nsource = 'synthetic'\n\
         [[limit]]\nname = 'low'\ninterface = 'syn*'\nraise_at = '2 Mbit/s'\nupdate_every = '100ms'\n\
         [flush]\ninterval = '100ms'\n[kafka]\nbrokers = '{brokers}'\ntopic = '{topic}'\n"
    )
}

impl Pipeline {
    /// Makes a pipeline with a topic and a database of its own on these servers.
    pub(crate) fn new(name: &str, kafka: &Kafka, postgres: &Postgres) -> Self {
        Self::with_topic(kafka.topic(name, 1), name, kafka, postgres)
    }

    pub(crate) fn with_topic(topic: String, name: &str, kafka: &Kafka, postgres: &Postgres) -> Self {
        let database = postgres.database(&name.replace('-', "_"));
        Self {
            agent: Agent::new(&busy_config(&kafka.address, &topic)),
            consumer: Consumer::new(&kafka.address, &topic, &database.url),
            checker: Checker::default(),
            kafka: kafka.address.clone(),
            before: Verdict::default(),
            last_seq: 0,
            topic,
            database,
        }
    }

    /// Lets the programs reach Kafka at `brokers`.
    pub(crate) fn behind(self, brokers: &str) -> Self {
        let agent = Agent::new(&busy_config(brokers, &self.topic));
        let consumer = Consumer::new(brokers, &self.topic, &self.database.url);
        Self { agent, consumer, ..self }
    }

    /// Lets the consumer reach the database at `url`.
    pub(crate) fn stored_at(self, url: &str) -> Self {
        let consumer = Consumer::new(&self.kafka, &self.topic, url);
        Self { consumer, ..self }
    }

    /// Names the consumer (`group.instance.id`): it takes its partitions over at once, without waiting for a session to end.
    pub(crate) fn named(self) -> Self {
        self.consumer.set("[kafka]", "instance = 'one'");
        self
    }

    /// Makes and accepts the next `count` events of each of `agents` made-up agents.
    pub(crate) fn events(&mut self, agents: u64, count: u64) -> Vec<Event> {
        let numbers = self.last_seq + 1..=self.last_seq + count;
        self.last_seq += count;
        let events = updates_of_agents(agents, numbers);
        self.checker.accept_events(&events);
        events
    }

    pub(crate) fn send_events(&mut self, agents: u64, count: u64) {
        let events = self.events(agents, count);
        produce(&self.kafka, &self.topic, &events);
    }

    pub(crate) fn brokers(&self) -> &str {
        &self.kafka
    }

    /// Starts the agent, and waits until it watches.
    pub(crate) fn start_agent(&mut self) -> agent::Running {
        let running = self.agent.start(&[]);
        running.until("reading by");
        running
    }

    pub(crate) fn start_consumer(&mut self) -> consumer::Running {
        self.consumer.start(&[])
    }

    /// Ends the agent, and accepts its journal's events. Those that could not be sent stay in the journal.
    pub(crate) fn end_agent(&mut self, running: agent::Running) {
        running.signal("TERM");
        running.log_at_end();
        self.checker.accept_journal(&self.agent);
    }

    /// Runs the agent until its journal is empty, and accepts its events.
    pub(crate) fn drain_agent(&mut self) {
        loop {
            let log = self.agent.run(&["--for", "100ms"]);
            self.checker.accept_journal(&self.agent);
            if self.agent.pending() == 0 {
                return;
            }
            eprintln!("not all was delivered yet: {log}");
        }
    }

    /// Waits until an event that was observed from now on is stored, and returns how long that took. An agent's events are in
    /// order: all before it were delivered too.
    pub(crate) fn wait_for_events(&self) -> Duration {
        let now = chrono::Utc::now();
        let sql = format!("SELECT count(*) > 0 FROM events WHERE observed_at > '{}'", now.to_rfc3339());
        recovered("events flow again", || {
            let client = postgres::Client::connect(&self.database.url, postgres::NoTls);
            client.and_then(|mut client| client.query_one(&sql, &[])).is_ok_and(|row| row.get(0))
        })
    }

    /// Runs both programs, lets `fail` break something while they work, and `mend` it; waits until events flow again by themselves,
    /// and compares.
    pub(crate) fn run_through_fault(
        &mut self,
        rng: &mut Rng,
        fail: impl FnOnce(&mut Rng),
        mend: impl FnOnce(),
    ) -> Outcome {
        self.run_through_logged_fault(rng, |rng, _| fail(rng), mend).0
    }

    /// Does the same for a fault of which the consumer's log tells: `fail` gets the consumer, which is returned too, still running.
    pub(crate) fn run_through_logged_fault(
        &mut self,
        rng: &mut Rng,
        fail: impl FnOnce(&mut Rng, &consumer::Running),
        mend: impl FnOnce(),
    ) -> (Outcome, consumer::Running) {
        let consuming = self.start_consumer();
        let running = self.start_agent();
        self.wait_for_events();
        std::thread::sleep(Duration::from_millis(rng.u64(0..500)));
        fail(rng, &consuming);
        mend();
        let recovery = self.wait_for_events();
        self.end_agent(running);
        self.drain_agent();
        let outcome = self.wait_and_compare();
        (Outcome { recovery: recovery + outcome.recovery, ..outcome }, consuming)
    }

    /// Waits until the database has events of this many epochs that were not accepted; returns those in the order of their offsets.
    pub(crate) fn unknown_epochs(&self, count: usize) -> Vec<String> {
        let mut epochs = Vec::new();
        recovered(&format!("{count} epochs that nobody knows"), || {
            let Ok(mut client) = postgres::Client::connect(&self.database.url, postgres::NoTls) else { return false };
            let sql = "SELECT epoch FROM events GROUP BY epoch ORDER BY min(observed_at)";
            let Ok(rows) = client.query(sql, &[]) else { return false };
            epochs = rows.iter().map(|row| row.get(0)).filter(|epoch: &String| !self.checker.counts(epoch)).collect();
            epochs.len() >= count
        });
        epochs
    }

    /// Waits until all that was accepted is stored or declared, and compares; a consumer has to run meanwhile.
    pub(crate) fn wait_and_compare(&mut self) -> Outcome {
        let checker = &self.checker;
        let nothing = Sent::default();
        let mut stored = Stored::default();
        let took = recovered(&format!("{} of {}", self.database.url, self.topic), || {
            // A database that is just starting does not answer.
            let Ok(read) = Stored::read(&self.database) else { return false };
            stored = read;
            checker.judge(&nothing, &stored).lost.is_empty()
        });
        let sent = Sent::read(&self.kafka, &self.topic);
        let verdict = checker.judge(&sent, &stored);
        if !verdict.is_clean() {
            eprintln!("{verdict}");
        }
        let outcome = Outcome::of(&verdict, &self.before, took);
        self.before = verdict;
        outcome
    }
}
