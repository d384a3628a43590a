//! Rates and samples of a running agent, on a real Kafka: what they hold, and what a missing topic, a crash and a restart cost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use highwater::message::histogram::RateHistogram;
use highwater::message::{Body, Direction, Event, LinkRates, Loss, RateWindow, Reason, SEQ_MAX, Sample};
use highwater::wire::{Decoder, FORMATS, Format, NoRegistry};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use crate::support::agent::{Agent, Running, command, until};
use crate::support::process::output_of;
use crate::support::services::Kafka;
use crate::support::veth::Veth;

fn config(kafka: &Kafka, format: Format, [events, rates, samples]: [&str; 3], more: &str) -> String {
    format!(
        "agent = 'gw'\nsource = 'synthetic'\n[flush]\ninterval = '1s'\n[kafka]\nbrokers = '{}'\ntopic = '{events}'\n\
         format = '{format}'\nkey = 'interface'\n[topics]\nrates = '{rates}'\nsamples = '{samples}'\n[rates]\nwindow = '10s'\n\
         max_delay = '1s'\n{more}",
        kafka.address
    )
}

fn only_loss(events: &[(Vec<u8>, Event)]) -> &Loss {
    let losses = events.iter().filter_map(|(_, event)| match &event.body {
        Body::Loss(loss) => Some(loss),
        _ => None,
    });
    let [loss] = losses.collect::<Vec<_>>()[..] else { panic!("{events:?}") };
    loss
}

/// Reads a topic of one partition from its beginning to its present end.
fn read(kafka: &Kafka, topic: &str) -> Vec<(Vec<u8>, Event)> {
    let end = kafka.end_offset(topic);
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
    until(&format!("{count} windows in {topic}"), || (kafka.end_offset(topic) >= count).then_some(()));
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
        // Whatever the key of events is: a window and a reading have several interfaces.
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
    let samples: Vec<(u64, u64)> = of_link.map(|sample| (sample.duration_ms.unwrap(), bytes(sample))).collect();
    // A sample after a skipped tick is of two seconds.
    let has_sum = |from: usize| {
        let sums = samples[from..].iter().scan((0, 0), |sums, (ms, bytes)| {
            *sums = (sums.0 + ms, sums.1 + bytes);
            Some(*sums)
        });
        let seconds = |ms: u64| (ms + 500) / 1_000;
        sums.into_iter().any(|(ms, bytes)| seconds(ms) == u64::from(link.measured_s) && bytes == link.bytes)
    };
    assert!(link.measured_s == 0 || (0..samples.len()).any(has_sum), "{link:?} of {samples:?}");
    let histogram = link.histogram.as_ref().map(|bytes| RateHistogram::decode(bytes).unwrap().seconds());
    assert_eq!(histogram.unwrap_or_default(), u64::from(link.measured_s));
}

/// Known traffic over a link, both ways, some of it dropped: the rates of both of the kernel's sources say what its own files say.
#[test]
fn rates_of_a_link_are_what_the_kernel_counted() {
    let test = "rates::rates_of_a_link_are_what_the_kernel_counted";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let Some(veth) = Veth::or_skip(test) else { return };
    let agents = ["netlink", "sysinfo"].map(|source| {
        let (events, rates) = (kafka.topic("events", 1), kafka.topic("rates", 1));
        let config = config(&kafka, Format::Json, [&events, &rates, "none"], "[interfaces]\ninclude = []\n");
        let config = config.replace("'synthetic'", &format!("'{source}'")).replace("[]", &format!("['{}']", veth.name));
        let mut agent = Agent::new(&config);
        let running = agent.start(&[]);
        running.until(&format!("reading by {source}"));
        (source, rates, agent, running)
    });
    // The first movement of a new counter has no rate.
    veth.send(Duration::from_secs(3), 50_000);
    // A machine that is busy for seconds leaves some unmeasured.
    let whole = (0..5).any(|_| {
        let (from, to, counted) = traffic(&veth);
        agents.iter().all(|(source, topic, ..)| {
            let read = until("the windows of this traffic", || {
                let read = read(&kafka, topic);
                let are_there = windows(&read).iter().any(|window| window.started_at >= to);
                are_there.then_some(read)
            });
            let windows: Vec<_> =
                windows(&read).into_iter().filter(|window| (from..to).contains(&window.started_at)).collect();
            let links = |direction| {
                windows.iter().map(move |window| {
                    window.links.iter().find(|link| link.direction == direction).expect("each direction")
                })
            };
            let of = |direction, counters: [&str; 4]| {
                let sum = |value: fn(&LinkRates) -> Option<u64>| links(direction).map(value).sum::<Option<u64>>();
                let sums = [
                    sum(|link| Some(link.bytes)),
                    sum(|link| link.packets),
                    sum(|link| link.errors),
                    sum(|link| link.drops),
                ];
                let mut counted = counters.map(|counter| Some(counted[counter]));
                if *source == "sysinfo" {
                    counted[3] = None;
                }
                (sums, counted)
            };
            if links(Direction::Rx).chain(links(Direction::Tx)).any(|link| link.unmeasured_s > 0) {
                return false;
            }
            let (rx, rx_counted) = of(Direction::Rx, ["rx_bytes", "rx_packets", "rx_errors", "rx_dropped"]);
            let (tx, tx_counted) = of(Direction::Tx, ["tx_bytes", "tx_packets", "tx_errors", "tx_dropped"]);
            assert_eq!((rx, tx), (rx_counted, tx_counted), "{source}: bytes, packets, errors, drops; {windows:?}");
            true
        })
    });
    assert!(whole, "each time, seconds were not measured");
}

/// Sends at the beginning of a window, and returns the beginnings of this one and of the first one after it, and what the kernel
/// counted in between.
fn traffic(veth: &Veth) -> (DateTime<Utc>, DateTime<Utc>, BTreeMap<&'static str, u64>) {
    let window = TimeDelta::seconds(10);
    let begin = || Utc::now().duration_trunc(window).unwrap();
    let from = begin() + window;
    // The reading that ends the window before comes up to a second later.
    while Utc::now() < from + TimeDelta::milliseconds(1_500) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let counters =
        ["rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "tx_bytes", "tx_packets", "tx_errors", "tx_dropped"];
    let before = counters.map(|counter| veth.statistic(counter));
    let sent_bytes = veth.send(Duration::from_secs(4), 2_000_000) + veth.send_large(20);
    let received_bytes = veth.receive_large(40);
    veth.drop_large(false, true);
    veth.send_large(7);
    veth.drop_large(true, false);
    veth.receive_large(11);
    veth.drop_large(false, false);
    std::thread::sleep(Duration::from_millis(1_500));
    let counted: BTreeMap<_, _> =
        counters.into_iter().zip(before).map(|(counter, before)| (counter, veth.statistic(counter) - before)).collect();
    // The bytes sent are known. The other end answers some packets, since no program waits for them.
    assert_eq!((counted["tx_dropped"], counted["rx_dropped"]), (7, 11), "{counted:?}");
    assert!(counted["tx_bytes"] >= sent_bytes && counted["rx_bytes"] >= received_bytes, "{sent_bytes}: {counted:?}");
    (from, begin() + window, counted)
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
    until("the start arrives", || (kafka.end_offset(&events) >= 1).then_some(()));
    let end = Utc::now().duration_trunc(TimeDelta::seconds(10)).unwrap() + TimeDelta::milliseconds(11_500);
    until("a window has ended", || (Utc::now() > end).then_some(()));
    until("it waits", || {
        let (_, out, _) = output_of(command().args(["status", "--format", "json", "-c"]).arg(agent.config()));
        let status: serde_json::Value = serde_json::from_str(&out).ok()?;
        (status["pending"].as_u64() > Some(0)).then_some(())
    });
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

/// Windows wait for an hour, or for events that are sent at once: those of an agent that has such events come, the other's wait.
#[test]
fn windows_go_along_with_events_or_wait() {
    let test = "rates::windows_go_along_with_events_or_wait";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let urgent = "[[limit]]\nname = 'on'\ninterface = 'syn0'\ndirection = 'rx'\nraise_at = '1 kbit/s'\nseverity = 'critical'\n\
                  update_every = '5s'\n";
    let [(waits, mut waiting), (goes, mut going)] = ["", urgent].map(|more| {
        let topics = ["events", "rates"].map(|name| kafka.topic(name, 1));
        let [events, rates] = &topics;
        let text = config(&kafka, Format::Json, [events, rates, "none"], more);
        let text = text.replace("interval = '1s'", "interval = '1h'").replace("max_delay = '1s'", "max_delay = '1h'");
        assert_eq!(text.matches("'1h'").count(), 2);
        (topics, Agent::new(&text))
    });
    let running = [waiting.start(&[]), going.start(&[])];
    until_rates(&kafka, &goes[1], 2);
    assert!(kafka.events(&goes[0]).iter().any(|event| event["kind"] == "breach_updated"));
    let [waiting_log, _] = running.map(|running| {
        running.signal("KILL");
        running.log()
    });
    // A window may have ended before the first flush, of the agent's start.
    assert!(kafka.end_offset(&waits[1]) <= 1, "{waiting_log}");
    // Rates are in the journal: a crash loses none, and at an orderly stop all that waits is sent.
    waiting.run(&["--for", "2s"]);
    assert!(counts_whole(&read(&kafka, &waits[1])) >= 2);
}

#[test]
fn without_rates_a_heartbeat_says_that_the_agent_runs() {
    let test = "rates::without_rates_a_heartbeat_says_that_the_agent_runs";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let [with, without] = ["2s", "0s"].map(|interval| {
        let (events, rates) = (kafka.topic("events", 1), kafka.topic("rates", 1));
        let more = format!("enabled = false\n[heartbeat]\ninterval = '{interval}'\n");
        let mut agent = Agent::new(&config(&kafka, Format::Json, [&events, &rates, "none"], &more));
        (agent.start(&[]), agent, events, rates)
    });
    let heartbeats = |topic: &str| {
        let events = kafka.events(topic);
        events.into_iter().filter(|event| event["kind"] == "heartbeat").collect::<Vec<_>>()
    };
    // Longer than a window.
    let beats = until("six heartbeats", || Some(heartbeats(&with.2)).filter(|beats| beats.len() >= 6));
    assert!(
        beats.iter().all(|beat| beat["version"] == env!("CARGO_PKG_VERSION") && beat["agent"] == "gw"),
        "{beats:?}"
    );
    assert!(heartbeats(&without.2).is_empty());
    for (running, _agent, events, rates) in [with, without] {
        running.signal("TERM");
        running.log_at_end();
        assert_eq!(kafka.end_offset(&rates), 0);
        assert!(kafka.events(&events).iter().any(|event| event["kind"] == "agent_stopped"));
    }
}

#[test]
fn samples_that_did_not_get_out_are_declared_as_a_range() {
    let test = "rates::samples_that_did_not_get_out_are_declared_as_a_range";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let (events, rates) = (kafka.topic("events", 1), kafka.topic("rates", 1));
    let missing = format!("missing-{events}");
    let samples = "[samples]\nenabled = true\n";
    let mut agent = Agent::new(&config(&kafka, Format::Json, [&events, &rates, &missing], samples));
    let running = agent.start(&[]);
    running.until(&kafka.missing(&missing));
    running.signal("TERM");
    running.log_at_end();
    // The declaration is the last event of all, and goes with the next run's.
    agent.configure(&config(&kafka, Format::Json, [&events, &rates, &missing], ""));
    agent.run(&["--for", "2s"]);
    let events = read(&kafka, &events);
    let loss = only_loss(&events);
    // The first reading of each of four links at least, in an epoch that no event has.
    assert!(matches!(loss.ranges[..], [(1, last)] if last >= 4), "{loss:?}");
    assert!(events.iter().all(|(_, event)| event.id.epoch != loss.epoch));
    assert_eq!(agent.pending(), 0);
}

/// A killed agent has left no number of its samples: the next start declares those that Kafka may not have, without an end.
#[test]
fn samples_of_an_agent_that_was_killed_are_declared_without_an_end() {
    let test = "rates::samples_of_an_agent_that_was_killed_are_declared_without_an_end";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let [events, rates, samples] = ["events", "rates", "samples"].map(|name| kafka.topic(name, 1));
    let mut agent =
        Agent::new(&config(&kafka, Format::Json, [&events, &rates, &samples], "[samples]\nenabled = true\n"));
    let running = agent.start(&[]);
    until("Kafka has a sample", || (kafka.end_offset(&samples) > 0).then_some(()));
    // With a window, the journal notes how far Kafka has come; the first of these may end before that is known.
    until_rates(&kafka, &rates, kafka.end_offset(&rates) + 2);
    running.kill();
    let received = read(&kafka, &samples);
    let log = agent.run(&["--for", "3s"]);
    assert!(log.contains("samples that Kafka did not have yet are lost, and declared"), "{log}");
    agent.run(&["--for", "2s"]);
    let events = read(&kafka, &events);
    // There is one for the crash, and none for the orderly ends after it.
    let loss = only_loss(&events);
    assert_eq!((loss.epoch, &loss.reason), (received[0].1.id.epoch, &Reason::Interrupted));
    let last = received.iter().map(|(_, event)| event.id.seq).max().unwrap();
    // A window of rates was registered meanwhile, and with it how far Kafka had come.
    assert!(matches!(loss.ranges[..], [(first, SEQ_MAX)] if (2..=last + 1).contains(&first)), "{last}: {loss:?}");
}

#[test]
fn windows_go_on_after_a_restart_and_a_crash() {
    let test = "rates::windows_go_on_after_a_restart_and_a_crash";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let (events, rates) = (kafka.topic("events", 1), kafka.topic("rates", 1));
    let mut agent = Agent::new(&config(&kafka, Format::Json, [&events, &rates, "none"], ""));
    let (mut kept, mut killed_at) = (Vec::new(), Utc::now());
    for run in 1..=4 {
        let running = agent.start(&[]);
        until_rates(&kafka, &rates, run);
        until("half of the next window has passed", || (Utc::now().timestamp() % 10 == 5).then_some(()));
        if run == 3 {
            killed_at = Utc::now();
            running.kill();
            continue;
        }
        running.signal("TERM");
        running.log_at_end();
        if run < 3 {
            kept.push(open_window(&agent));
        }
    }
    let read = read(&kafka, &rates);
    counts_whole(&read);
    let distinct: BTreeSet<u64> = read.iter().map(|(_, event)| event.id.seq).collect();
    let begun: BTreeSet<_> = windows(&read).iter().map(|window| window.started_at).collect();
    assert_eq!(begun.len(), distinct.len(), "one message for each window");
    let begun_at = |time| windows(&read).into_iter().find(|window| window.started_at == time);
    for kept in kept {
        let sent = begun_at(kept.started_at).expect("an orderly stop loses no window");
        assert!(kept.links.iter().any(|link| link.measured_s > 0), "{kept:?}");
        for link in &kept.links {
            let is_it = |sent: &&LinkRates| (&sent.interface, sent.direction) == (&link.interface, link.direction);
            let sent = sent.links.iter().find(is_it).expect("the link was there");
            assert!(sent.measured_s >= link.measured_s && sent.bytes >= link.bytes, "{sent:?} {link:?}");
        }
    }
    // A crash loses what was measured in its window so far. Had the restart taken longer, there would be no such window at all.
    for link in
        begun_at(killed_at.duration_trunc(TimeDelta::seconds(10)).unwrap()).iter().flat_map(|window| &window.links)
    {
        assert!(link.unmeasured_s > 0, "{link:?}");
    }
}

/// Returns the window that was open when the agent stopped.
fn open_window(agent: &Agent) -> RateWindow {
    let journal = rusqlite::Connection::open(agent.state_dir().join("journal.db")).unwrap();
    let payload: Vec<u8> = journal.query_row("SELECT payload FROM open_window", [], |row| row.get(0)).unwrap();
    let Body::Rates(window) = highwater::wire::from_json(&payload).unwrap().body else { panic!("it holds rates") };
    window
}
