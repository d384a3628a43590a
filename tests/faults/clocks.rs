//! The wall clock jumps while the agent works.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use chrono::TimeDelta;

use crate::support::agent;
use crate::support::faketime;
use crate::support::pipeline::Pipeline;
use crate::support::rounds::{Fault, rounds};
use crate::support::services::kafka_and_postgres;
use crate::support::skips::skip;

/// Traffic of a known rate: `syn0` receives between 6 and 98 Mbit/s all the time, and never 500.
fn steady(brokers: &str, topic: &str) -> String {
    let limit = |name: &str, interface: &str, raise_at: &str| {
        format!(
            "[[limit]]\nname = '{name}'\ninterface = '{interface}'\ndirection = 'rx'\nraise_at = '{raise_at}'\n\
             update_every = '100ms'\n"
        )
    };
    format!(
        "agent = 'gw'\ninterval = '100ms'\nsource = 'synthetic'\n{}{}\
         [flush]\ninterval = '100ms'\n[kafka]\nbrokers = '{brokers}'\ntopic = '{topic}'\n",
        limit("always", "syn0", "2 Mbit/s"),
        limit("never", "syn*", "500 Mbit/s")
    )
}

/// Asserts that the only breach was raised once and never cleared, and lasts as long as the monotonic clock says, from each of its
/// events to the next.
fn assert_breach_matches_clock(pipeline: &Pipeline) {
    let database = &pipeline.database;
    assert_eq!(database.ask("SELECT count(*) FROM events WHERE limit_name = 'never'"), "(0)");
    let sql = "SELECT kind, count(*) FROM events WHERE kind IN ('breach_raised', 'breach_cleared') GROUP BY kind";
    assert_eq!(database.ask(sql), "(breach_raised,1)");
    let sql = "SELECT count(*) FROM (SELECT duration_ms - lag(duration_ms) OVER by_seq AS lasted,
                                            monotonic_ms - lag(monotonic_ms) OVER by_seq AS passed
                                     FROM events WHERE limit_name = 'always' WINDOW by_seq AS (ORDER BY seq)) AS steps
               WHERE lasted < 0 OR abs(lasted - passed) > 60000";
    assert_eq!(database.ask(sql), "(0)", "steps that are a minute longer or shorter than the time that passed");
}

#[test]
fn clock_jumps() {
    let test = "faults::clocks::clock_jumps";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let Some(library) = faketime::library() else { return skip(test, "needs faketime") };
    let fault = Fault { name: "clock-jumps", short: 5, long: 100, fresh_every: 10 };
    let make = || {
        let mut pipeline = Pipeline::new(fault.name, &kafka, &postgres);
        pipeline.agent.configure(&steady(pipeline.brokers(), &pipeline.topic));
        let consuming = pipeline.start_consumer();
        (pipeline, consuming, tempfile::tempdir().expect("a temporary directory"))
    };
    rounds(&fault, make, |(pipeline, _consuming, directory), rng| {
        let offset = directory.path().join("offset");
        fs::write(&offset, "+0").expect("it can be written");
        let mut command = agent::command();
        command
            .env("LD_PRELOAD", &library)
            .env("FAKETIME_TIMESTAMP_FILE", &offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let running = pipeline.agent.start_as(command, &[]);
        running.until("reading by");
        let mut jumps = Vec::new();
        for _ in 0..rng.u8(1..4) {
            sleep(Duration::from_millis(rng.u64(200..800)));
            let (hour, year) = (TimeDelta::hours(1), TimeDelta::days(365));
            let jump = [hour, -hour, year, -year][rng.usize(..4)];
            // In one step: a reader could see half of a file that is being written.
            let next = directory.path().join("next");
            fs::write(&next, format!("{:+}", jump.num_seconds())).expect("it can be written");
            fs::rename(&next, &offset).expect("it can be renamed");
            jumps.push(jump);
            // The first may have been stamped before the jump; the second was not.
            let told = || running.log().matches("[breach ").count();
            let before = told();
            agent::until("two events after the jump", || (told() >= before + 2).then_some(()));
        }
        sleep(Duration::from_millis(rng.u64(200..800)));
        pipeline.end_agent(running);
        pipeline.drain_agent();
        let outcome = pipeline.wait_and_compare();
        assert_eq!(outcome.declared, 0, "a jump makes nothing old, and nothing lost");
        assert_breach_matches_clock(pipeline);
        for jump in jumps {
            let sql = format!(
                "SELECT count(*) > 0 FROM events WHERE abs(extract(epoch FROM observed_at - now()) - {}) < 600",
                jump.num_seconds()
            );
            assert_eq!(pipeline.database.ask(&sql), "(t)", "rows of the time that the clock showed");
        }
        outcome
    });
}
