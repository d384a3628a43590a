//! Rates and samples of a running agent, on a real Kafka: what they hold, and what a missing topic, a crash and a restart cost.

use std::collections::BTreeSet;
use std::time::Duration;

use highwater::event::{Body, Event, LinkRates, RateWindow, Sample};
use highwater::histogram::RateHistogram;
use highwater::wire::{Decoder, FORMATS, Format, NoRegistry};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use crate::support::agent::{Agent, Running, until};
use crate::support::services::Kafka;

fn config(kafka: &Kafka, format: Format, [events, rates, samples]: [&str; 3], more: &str) -> String {
    format!(
        "agent = 'gw'\nsource = 'synthetic'\n[flush]\ninterval = '1s'\n[kafka]\nbrokers = '{}'\ntopic = '{events}'\n\
         format = '{format}'\n[topics]\nrates = '{rates}'\nsamples = '{samples}'\n[rates]\nwindow = '10s'\n\
         max_delay = '1s'\n{more}",
        kafka.address
    )
}

/// Reads a topic of one partition from its beginning to its present end.
fn read(kafka: &Kafka, topic: &str) -> Vec<(Vec<u8>, Event)> {
    let end = kafka.end(topic);
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &kafka.address).set("group.id", "none").create().unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&partitions).unwrap();
    let (mut decoder, mut events) = (Decoder::new(NoRegistry), Vec::new());
    let mut next = 0;
    while next < end {
        let Some(message) = consumer.poll(Duration::from_secs(60)) else { panic!("{topic} has less than {end}") };
        let message = message.unwrap();
        next = message.offset() + 1;
        let decoded = decoder.decode(message.payload().unwrap(), || None).unwrap();
        events.push((message.key().unwrap().to_vec(), decoded.event));
    }
    events
}

fn windows(events: &[(Vec<u8>, Event)]) -> Vec<&RateWindow> {
    let window = |event: &'_ (Vec<u8>, Event)| match &event.1.body {
        Body::Rates(_) => true,
        body => panic!("{body:?} among rates"),
    };
    let rates = events.iter().filter(|event| window(event));
    rates.filter_map(|(_, event)| if let Body::Rates(window) = &event.body { Some(window) } else { None }).collect()
}

/// Asserts that rates count from 1 without holes, once each, and returns how many there are.
fn counts_whole(events: &[(Vec<u8>, Event)]) -> usize {
    let epochs: BTreeSet<_> = events.iter().map(|(_, event)| event.id.epoch).collect();
    let seqs: BTreeSet<u64> = events.iter().map(|(_, event)| event.id.seq).collect();
    assert!(epochs.len() <= 1, "{epochs:?}");
    assert_eq!(seqs, (1..=seqs.len() as u64).collect());
    seqs.len()
}

fn until_rates(kafka: &Kafka, topic: &str, count: i64) {
    until(&format!("{count} windows in {topic}"), || (kafka.end(topic) >= count).then_some(()));
}

#[test]
fn rates_are_the_sums_of_the_samples_in_every_format() {
    let test = "rates::rates_are_the_sums_of_the_samples_in_every_format";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let runs: Vec<([String; 3], Agent, Running)> = FORMATS
        .into_iter()
        .map(|format| {
            let topics = ["events", "rates", "samples"].map(|name| kafka.topic(name, 1));
            let names = topics.each_ref().map(String::as_str);
            let limit = "[samples]\nenabled = true\n[[limit]]\nname = 'sum'\ninterface = 'syn0'\ndirection = 'total'\n\
                         raise_at = '1 kbit/s'\n";
            let mut agent = Agent::new(&config(&kafka, format, names, limit));
            let running = agent.start(&[]);
            (topics, agent, running)
        })
        .collect();
    for ([_, rates, _], ..) in &runs {
        until_rates(&kafka, rates, 3);
    }
    for ([events, rates, samples], _agent, running) in runs {
        running.signal("TERM");
        running.log_at_end();
        let (rates, samples) = (read(&kafka, &rates), read(&kafka, &samples));
        assert!(rates.iter().chain(&samples).all(|(key, _)| key == b"gw"));
        counts_whole(&rates);
        counts_whole(&samples);
        let events = read(&kafka, &events);
        assert!(events.iter().all(|(_, event)| !matches!(event.body, Body::Rates(_) | Body::Sample(_))));
        for window in windows(&rates) {
            assert_eq!((window.started_at.timestamp() % 10, window.duration_ms), (0, 10_000));
            for link in &window.links {
                check(link, &samples);
            }
            assert!(window.links.iter().any(|link| link.over.iter().any(|over| over.limit_name == "sum")));
        }
    }
}

/// Asserts that a record sums up samples that follow one another.
fn check(link: &LinkRates, samples: &[(Vec<u8>, Event)]) {
    assert_eq!(link.measured_s + link.unmeasured_s, 10);
    let of_link = samples.iter().filter_map(|(_, event)| match &event.body {
        Body::Sample(sample) if sample.interface == link.interface.as_str() && sample.reason.is_none() => Some(sample),
        _ => None,
    });
    let bytes = |sample: &Sample| {
        let (rx, tx) = (sample.rx_bytes.unwrap(), sample.tx_bytes.unwrap());
        match link.direction.as_str() {
            "rx" => rx,
            "tx" => tx,
            _ => rx + tx,
        }
    };
    let bytes: Vec<u64> = of_link.map(bytes).collect();
    let sums = bytes.windows((link.measured_s as usize).max(1)).map(|run| run.iter().sum::<u64>());
    assert!(link.measured_s == 0 || sums.into_iter().any(|sum| sum == link.bytes), "{link:?} of {bytes:?}");
    let histogram = link.histogram.as_ref().map(|bytes| RateHistogram::decode(bytes).unwrap().seconds());
    assert_eq!(histogram.unwrap_or_default(), u64::from(link.measured_s));
}

#[test]
fn a_rates_topic_that_is_missing_holds_up_no_event_and_loses_nothing() {
    let test = "rates::a_rates_topic_that_is_missing_holds_up_no_event_and_loses_nothing";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let events = kafka.topic("events", 1);
    let rates = format!("missing-{events}");
    let mut agent = Agent::new(&config(&kafka, Format::Json, [&events, &rates, "none"], ""));
    let running = agent.start(&[]);
    running.until(&kafka.missing(&rates));
    until("the start arrives", || (kafka.end(&events) >= 1).then_some(()));
    running.signal("TERM");
    let log = running.log_at_end();
    assert!(log.contains("stopped after"), "{log}");
    let kinds: Vec<String> =
        kafka.events(&events).iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds.last().map(String::as_str), Some("agent_stopped"), "{kinds:?}");
    let waiting = agent.pending();
    assert!(waiting > 0);
    kafka.create(&rates, 1);
    let running = agent.start(&[]);
    until_rates(&kafka, &rates, waiting as i64);
    running.signal("TERM");
    running.log_at_end();
    assert!(counts_whole(&read(&kafka, &rates)) as u64 >= waiting);
    counts_whole(&read(&kafka, &events));
}

#[test]
fn windows_go_on_after_a_restart_and_a_crash() {
    let test = "rates::windows_go_on_after_a_restart_and_a_crash";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let (events, rates) = (kafka.topic("events", 1), kafka.topic("rates", 1));
    let mut agent = Agent::new(&config(&kafka, Format::Json, [&events, &rates, "none"], ""));
    for run in 1..=4 {
        let running = agent.start(&[]);
        until_rates(&kafka, &rates, run);
        if run == 3 {
            running.kill();
        } else {
            running.signal("TERM");
            running.log_at_end();
        }
    }
    let read = read(&kafka, &rates);
    counts_whole(&read);
    let distinct: BTreeSet<u64> = read.iter().map(|(_, event)| event.id.seq).collect();
    let begun: BTreeSet<_> = windows(&read).iter().map(|window| window.started_at).collect();
    assert_eq!(begun.len(), distinct.len(), "one message for each window");
    for link in windows(&read).iter().flat_map(|window| &window.links) {
        assert_eq!(link.measured_s + link.unmeasured_s, 10, "{link:?}");
    }
}
