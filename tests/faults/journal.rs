//! The journal overflows, or its file is damaged.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::Duration;

use crate::support::consumer::Postgres;
use crate::support::rounds::{Fault, recovered, rounds};
use crate::support::services::Kafka;
use crate::support::world::{World, busy};

/// More events than a small journal holds for long: some 1,000 a second.
fn flood(brokers: &str, topic: &str) -> String {
    let mut config = busy(brokers, topic) + "[journal]\nmax_size = '1MiB'\n";
    for number in 0..12 {
        let severity = if number % 2 == 0 { "warning" } else { "critical" };
        let _ = write!(
            config,
            "[[limit]]\nname = 'flood-{number}'\ninterface = 'syn*'\nraise_at = '2 Mbit/s'\nupdate_every = '100ms'\n\
             severity = '{severity}'\n"
        );
    }
    config
}

/// The broker is away for longer than the journal has room.
#[test]
fn journal_full() {
    let test = "faults::journal::journal_full";
    let (Some(kafka), Some(postgres)) = (Kafka::or_skip(test), Postgres::or_skip(test)) else { return };
    let fault = Fault { name: "journal-full", short: 1, long: 20, fresh_every: 10 };
    let make = || {
        let mut world = World::new(fault.name, &kafka, &postgres);
        let consuming = world.start_consumer();
        (world, consuming)
    };
    rounds(&fault, make, |(world, _consuming), rng| {
        let (brokers, topic) = (world.brokers().to_owned(), world.topic.clone());
        world.agent.configure(&flood("127.0.0.1:9", &topic));
        let running = world.start_agent();
        let journal = world.agent.state_dir().join("journal.db");
        // Of 1 MiB the log may take 256 KiB: a file that is larger than the rest had to evict.
        recovered("the journal is full", || journal.metadata().is_ok_and(|file| file.len() > 768 << 10));
        sleep(Duration::from_millis(rng.u64(2_000..6_000)));
        if rng.bool() {
            // It meets the broker while it is full, and goes on filling.
            world.agent.configure(&flood(&brokers, &topic));
            running.signal("HUP");
            sleep(Duration::from_millis(rng.u64(0..2_000)));
        }
        world.end_agent(running);
        world.agent.configure(&flood(&brokers, &topic));
        world.drain_agent();
        let outcome = world.settle();
        assert!(outcome.declared > 0, "it was never full");
        outcome
    });
}
