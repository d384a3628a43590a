//! A consumer that reads its configuration again on SIGHUP.

use std::fs;

use crate::support::consumer::Consumer;
use crate::support::events::{produce, sample, updated};
use crate::support::postgres::ROWS_AND_EVENTS;
use crate::support::services::kafka_and_postgres;

#[test]
fn another_configuration_is_taken_over_and_a_wrong_one_changes_nothing() {
    let test = "consumer_reload::another_configuration_is_taken_over_and_a_wrong_one_changes_nothing";
    let Some((kafka, postgres)) = kafka_and_postgres(test) else { return };
    let (first, second) = (kafka.topic("before", 2), kafka.topic("after", 2));
    let database = postgres.database("reload");
    let send = |topic: &str, agent: &str, seqs: std::ops::Range<u64>| {
        let events: Vec<_> = seqs.map(|seq| updated(agent, seq)).collect();
        produce(&kafka.address, topic, &events);
    };
    let mut consumer = Consumer::new(&kafka.address, &first, &database.url);
    let mut running = consumer.start(&[]);
    send(&first, "gw-1", 1..101);
    database.until(ROWS_AND_EVENTS, "(100,100)");

    // A wrong file, and one with a property that librdkafka rejects: both are reported, and storing goes on.
    let right = fs::read_to_string(consumer.config()).unwrap();
    fs::write(consumer.config(), format!("{right}\nnonsense = 1\n")).unwrap();
    running.signal("HUP");
    running.until("the previous configuration stays in effect: ");
    fs::write(consumer.config(), right.replace("'session.timeout.ms' = 6000", "'session.timeout.ms' = -6000")).unwrap();
    running.signal("HUP");
    running.until("session.timeout.ms");
    send(&first, "gw-1", 101..201);
    database.until(ROWS_AND_EVENTS, "(200,200)");

    fs::write(consumer.config(), right.replacen(&format!("topic = '{first}'"), &format!("topic = '{second}'"), 1))
        .unwrap();
    running.signal("HUP");
    running.until(&format!("storing {second} from"));
    send(&second, "gw-2", 1..51);
    send(&first, "gw-1", 201..211);
    database.until(ROWS_AND_EVENTS, "(250,250)");
    assert_eq!(database.ask("SELECT max(seq) FROM events WHERE agent = 'gw-1'"), "(200)");

    // And back: it goes on from where the database is.
    fs::write(consumer.config(), right).unwrap();
    running.signal("HUP");
    database.until(ROWS_AND_EVENTS, "(260,260)");

    // Another topic is read too.
    let samples = kafka.topic("samples", 1);
    consumer.append(&format!("[topics]\nsamples = '{samples}'\n"));
    running.signal("HUP");
    running.until(&format!("storing {samples} from"));
    produce(&kafka.address, &samples, &[sample("gw-1", 1)]);
    send(&first, "gw-1", 211..221);
    database.until(ROWS_AND_EVENTS, "(270,270)");
    database.until("SELECT count(*) FROM samples", "(1)");
    running.signal("TERM");
    assert!(running.wait().success(), "{}", running.log());
    assert_eq!(running.log().matches("stopping on signal").count(), 1, "{}", running.log());
}
