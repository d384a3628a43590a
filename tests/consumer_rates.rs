//! Rates in the database: windows, the hours and days that are made of them, and the agents. One body of tests for both databases, and
//! the consumer as a program between a real Kafka and PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, DurationRound as _, SecondsFormat, TimeDelta, Utc};
use highwater::consumer::batch::{Batch, Record};
use highwater::consumer::checkpoint::Checkpoint;
use highwater::consumer::store::{
    Applied, HistogramStore, HourKey, Maintained, Retention, RetriedRecord, RetryOutcome, Store, StoreOptions,
    TrafficSeries,
};
use highwater::message::histogram::{Bin, RateHistogram};
use highwater::message::{Body, Direction, Event, Lifecycle, LinkRates};
use highwater::wire;

use crate::support::consumer::Consumer;
use crate::support::events::{
    HUGE_HISTOGRAM, event, link_rates, loss, noon, produce, produce_raw, rates, rates_since, started, updated,
};
use crate::support::postgres::Postgres;
use crate::support::services::kafka_and_postgres;
use crate::support::stores::{StoreDatabase, insert_checkpoint, store_options, topic_id};

/// A store under test, and what derives beside it.
struct RatesFixture {
    store: Box<dyn Store + Send>,
    histograms: Box<dyn HistogramStore + Send>,
    database: StoreDatabase,
    next: i64,
    now: DateTime<Utc>,
}

/// Columns of an hour or a day, with its counts in place of the bytes: libraries may write one histogram in several ways.
type Summary = (String, Vec<Bin>);

impl RatesFixture {
    fn sqlite() -> Self {
        Self::from_start(StoreDatabase::sqlite())
    }

    fn postgres(postgres: &Postgres) -> Self {
        Self::from_start(StoreDatabase::postgres(postgres, "rates"))
    }

    fn from_start(database: StoreDatabase) -> Self {
        let url = database.url();
        let mut store = url.open(&store_options("test"));
        insert_checkpoint(&mut *store, &topic_id("rates"), 0, &Checkpoint::default(), None).unwrap();
        let histograms = url.histograms(&store_options("test"));
        // Two hours after the first windows began.
        Self { store, histograms, database, next: 0, now: noon() + TimeDelta::hours(2) }
    }

    /// Returns another fixture of the same kind.
    fn empty(&self) -> Self {
        match &self.database {
            StoreDatabase::Sqlite(_) => Self::sqlite(),
            StoreDatabase::Postgres(_) => Self::postgres(&Postgres::or_skip("consumer_rates").expect("it is there")),
        }
    }

    fn store(&mut self, payloads: &[Vec<u8>]) -> Applied {
        let mut batch = Batch::new(&topic_id("rates"));
        for payload in payloads {
            batch.push(0, Record::new(self.next, Some(7), None, Some(payload)), || (0, self.next));
            self.next += 1;
        }
        self.store.apply(&batch, self.now).unwrap()
    }

    fn store_events<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) -> Applied {
        self.store(&events.into_iter().map(wire::to_json).collect::<Vec<_>>())
    }

    fn derive(&mut self) {
        while self.histograms.derive(self.now).unwrap().has_more {}
    }

    fn retire(&self, retention: Retention) -> Maintained {
        self.database
            .url()
            .maintenance(&store_options("retention"))
            .run(&retention, Some(self.now), Duration::from_secs(60))
            .unwrap()
    }

    fn ask(&self, sql: &str) -> String {
        self.database.ask(sql)
    }

    fn rows(&self, sql: &str) -> Vec<String> {
        self.database.rows(sql)
    }

    fn run(&self, sql: &str) {
        self.database.run(sql);
    }

    /// Returns hours or days by agent, link, direction and beginning.
    fn summaries(&self, span: &str) -> BTreeMap<String, Summary> {
        summaries(&self.rows(&format!("{SUMMARIES} WHERE span = '{span}'")))
    }
}

const SUMMARIES: &str = "SELECT agent, interface, direction, substr(CAST(starts_at AS text), 1, 13), windows, late_windows, bytes, packets, \
                         measured_s, unmeasured_s, min_bps, mean_bps, max_bps, p50_bps, p95_bps, p99_bps, histogram FROM histograms";

fn summaries(rows: &[String]) -> BTreeMap<String, Summary> {
    let summary = |row: &String| {
        let columns: Vec<&str> = row.split(',').collect();
        let (key, (numbers, histogram)) = (columns[..4].join(" ").replace('T', " "), (&columns[4..16], columns[16]));
        let bytes: Vec<u8> =
            (0..histogram.len()).step_by(2).map(|at| u8::from_str_radix(&histogram[at..at + 2], 16).unwrap()).collect();
        let bins = if bytes.is_empty() { Vec::new() } else { RateHistogram::decode(&bytes).unwrap().bins().collect() };
        (key, (numbers.join(","), bins))
    };
    rows.iter().map(summary).collect()
}

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::$name(&mut super::RatesFixture::sqlite()); })*
        }
        mod postgres {
            $(#[test] fn $name() {
                let test = concat!("consumer_rates::postgres::", stringify!($name));
                let Some(postgres) = crate::support::postgres::Postgres::or_skip(test) else { return };
                super::$name(&mut super::RatesFixture::postgres(&postgres));
            })*
        }
    };
}

on_both!(
    a_message_is_a_row_for_each_link_and_direction,
    copies_are_no_rows_and_leave_no_notes,
    notes_of_an_hour_go_together_however_many_wait,
    hours_and_days_are_the_same_whatever_came_when_and_how_often,
    a_late_window_is_stored_as_numbers_and_counted,
    a_window_ahead_of_its_time_is_kept_out_of_the_hours,
    a_message_that_cannot_be_a_row_is_a_dead_letter_whole,
    an_hour_is_handed_out_until_kafka_has_it_as_it_is,
    an_agent_is_running_stopped_or_silent_and_its_breaches_are_unknown,
    what_is_missing_of_an_agent_is_in_its_row,
    the_state_of_an_agents_clock_is_its_last_word_on_it,
    an_agent_is_heard_of_by_the_clock_that_hears,
    windows_go_before_the_hours_that_were_made_of_them,
    windows_that_come_again_take_nothing_from_their_hours,
    no_question_about_agents_reads_their_messages,
);

fn rx(interface: &str, bps: &[u64]) -> LinkRates {
    link_rates(interface, Direction::Rx, bps)
}

/// A message of two links and directions, whose rates follow from its agent and number.
fn window(agent: &str, seq: u64) -> Event {
    window_since(noon(), agent, seq)
}

/// Returns when the first window of a consumer that runs by the clock began.
fn yesterday() -> DateTime<Utc> {
    (Utc::now() - TimeDelta::days(1)).duration_trunc(TimeDelta::days(1)).unwrap()
}

fn window_since(first: DateTime<Utc>, agent: &str, seq: u64) -> Event {
    let start = agent.bytes().map(u64::from).sum::<u64>() + seq;
    let bps: Vec<u64> = (0..300).map(|second| (start * 7_919 + second * 104_729) % 50_000_000).collect();
    let links = ["eth0", "wlan0"].into_iter().flat_map(|interface| {
        [Direction::Rx, Direction::Tx]
            .map(|direction| link_rates(interface, direction, &bps[..150 + seq as usize % 150]))
    });
    rates_since(first, agent, seq, links.collect())
}

fn a_message_is_a_row_for_each_link_and_direction(fixture: &mut RatesFixture) {
    let silent = link_rates("eth1", Direction::Tx, &[]);
    assert_eq!(fixture.store_events([&rates("gw", 1, vec![rx("eth0", &[8_000_000, 16_000_000]), silent])]).inserted, 1);
    assert_eq!(
        fixture.ask(
            "SELECT agent, seq, interface, direction, window_ms, bytes, packets, errors, drops, measured_s, min_bps, mean_bps, max_bps, \
             speed_bps, kafka_topic, kafka_offset, CASE WHEN has_histogram THEN 1 ELSE 0 END FROM rates"
        ),
        "gw,1,eth0,rx,300000,3000000,2,0,,2,8000000,12000000,16000000,1000000000,rates,0,1 \
         gw,1,eth1,tx,300000,0,0,0,,0,,,,1000000000,rates,0,0"
    );
    assert_eq!(fixture.ask("SELECT seq, interface FROM window_histograms"), "1,eth0");
    assert_eq!(fixture.ask("SELECT counted, first_seq, last_seq FROM agent_sequences"), "rates,1,1");
    assert!(fixture.ask("SELECT over FROM rates WHERE interface = 'eth0'").contains("wan-down"));
    fixture.derive();
    let hours = fixture.summaries("hour");
    let keys: Vec<&str> = hours.keys().map(String::as_str).collect();
    assert_eq!(keys, ["gw eth0 rx 2026-11-20 12", "gw eth1 tx 2026-11-20 12"]);
    assert!(hours[keys[0]].0.starts_with("1,0,3000000,2,2,0,8000000,12000000,16000000,"), "{hours:?}");
    assert_eq!(hours[keys[0]].1.iter().map(|bin| bin.count).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(hours[keys[1]], ("1,0,0,0,0,0,,,,,,".to_owned(), Vec::new()));
    assert_eq!(fixture.ask("SELECT count(*) FROM touched_hours"), "0");
}

fn notes_of_an_hour_go_together_however_many_wait(fixture: &mut RatesFixture) {
    fixture.store_events([&window("m", 1)]);
    // More than a transaction reads, of agents without windows.
    fixture.run(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
         INSERT INTO touched_hours (agent, starts_at) SELECT 'gw-' || (i % 900), '2026-11-20T12:00:00.000000Z' FROM n",
    );
    fixture.store_events([&window("m", 2)]);
    while fixture.histograms.derive(fixture.now).unwrap().hours == 0 {}
    assert_eq!(
        fixture.ask("SELECT count(*) FROM touched_hours WHERE agent = 'm'"),
        "0",
        "both notes went with the hour"
    );
    // An hour before the place where the derivation goes on is found too.
    fixture.store_events([&window("a", 1)]);
    fixture.derive();
    assert_eq!(fixture.ask("SELECT count(*) FROM touched_hours"), "0");
    let windows =
        "SELECT agent, windows FROM histograms WHERE span = 'hour' AND interface = 'eth0' AND direction = 'rx'";
    assert_eq!(fixture.ask(windows), "a,1 m,2");
}

fn copies_are_no_rows_and_leave_no_notes(fixture: &mut RatesFixture) {
    let messages: Vec<Event> = (1..=20).map(|seq| window("gw", seq)).collect();
    assert_eq!(fixture.store_events(&messages).inserted, 20);
    fixture.derive();
    let before = fixture.ask("SELECT span, starts_at, version FROM histograms");
    assert_eq!(fixture.store_events(&messages).inserted, 0);
    assert_eq!(fixture.ask("SELECT count(*), count(DISTINCT seq) FROM rates"), "80,20");
    assert_eq!(fixture.ask("SELECT count(*) FROM touched_hours"), "0");
    fixture.derive();
    assert_eq!(fixture.ask("SELECT span, starts_at, version FROM histograms"), before);
}

/// Compares with a merge of what the messages say, and with a day that was stored and derived in one go.
fn hours_and_days_are_the_same_whatever_came_when_and_how_often(fixture: &mut RatesFixture) {
    let agents = ["gw-1", "gw-2", "gw-3"];
    let messages: Vec<Event> = agents.iter().flat_map(|agent| (1..=30).map(|seq| window(agent, seq))).collect();
    let mut sent: Vec<&Event> =
        messages.iter().chain(messages.iter().step_by(3)).chain(messages.iter().rev().step_by(5)).collect();
    fastrand::shuffle(&mut sent);
    for (round, some) in sent.chunks(17).enumerate() {
        fixture.store_events(some.iter().copied());
        if round % 2 == 0 {
            fixture.derive();
        }
    }
    fixture.derive();
    let (hours, days) = (fixture.summaries("hour"), fixture.summaries("day"));
    assert_eq!((hours.len(), days.len()), (3 * 4 * 3, 3 * 4));
    for (key, bins) in expected(&messages) {
        assert_eq!(hours[&key].1, bins, "{key}");
    }
    let mut once = fixture.empty();
    once.store_events(&messages);
    once.derive();
    assert_eq!(once.summaries("hour"), hours);
    assert_eq!(once.summaries("day"), days);
}

/// Returns the counts of each hour: each message counts once.
fn expected(messages: &[Event]) -> BTreeMap<String, Vec<Bin>> {
    let mut merged: BTreeMap<String, RateHistogram> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for event in messages {
        let Body::Rates(window) = &event.body else { continue };
        if !seen.insert((event.stamp.agent.clone(), event.id)) {
            continue;
        }
        for link in &window.links {
            let key = format!(
                "{} {} {} {}",
                event.stamp.agent,
                link.interface,
                link.direction,
                window.started_at.format("%F %H")
            );
            let histogram = RateHistogram::decode(link.histogram.as_deref().unwrap()).unwrap();
            merged.entry(key).or_default().merge(&histogram);
        }
    }
    merged.into_iter().map(|(key, histogram)| (key, histogram.bins().collect())).collect()
}

fn a_late_window_is_stored_as_numbers_and_counted(fixture: &mut RatesFixture) {
    fixture.store_events([&rates("gw", 1, vec![rx("eth0", &[8_000_000; 10])])]);
    fixture.derive();
    let before = fixture.summaries("hour").into_values().next().unwrap();
    fixture.now += TimeDelta::days(40);
    let applied = fixture.store_events([&rates("gw", 2, vec![rx("eth0", &[80_000_000; 10])])]);
    assert_eq!((applied.inserted, applied.without_histograms), (1, 1));
    assert_eq!(fixture.ask("SELECT seq, CASE WHEN has_histogram THEN 1 ELSE 0 END FROM rates"), "1,1 2,0");
    assert_eq!(fixture.ask("SELECT seq FROM window_histograms"), "1");
    // Retention has taken the histogram of the first window meanwhile.
    fixture.run("DELETE FROM window_histograms");
    fixture.derive();
    let (numbers, bins) = fixture.summaries("hour").into_values().next().unwrap();
    assert!(numbers.starts_with("2,1,110000000,20,20,0,8000000,44000000,80000000,"), "{numbers}");
    assert_eq!(bins, before.1);
    assert!(fixture.summaries("day").into_values().next().unwrap().0.starts_with("2,1,110000000,"));
}

fn a_window_ahead_of_its_time_is_kept_out_of_the_hours(fixture: &mut RatesFixture) {
    fixture.now = noon() - TimeDelta::days(3);
    let applied = fixture.store_events([&rates("gw", 1, vec![rx("eth0", &[1_000_000])])]);
    assert_eq!((applied.inserted, applied.without_histograms, applied.rejected.len()), (1, 1, 0));
    assert_eq!(fixture.ask("SELECT count(*) FROM rates"), "1");
    assert_eq!(fixture.ask("SELECT count(*) FROM touched_hours"), "0");
    // A few minutes ahead are nothing.
    fixture.now = noon();
    fixture.store_events([&rates("gw", 2, vec![rx("eth0", &[1_000_000])])]);
    assert_eq!(fixture.ask("SELECT count(*) FROM touched_hours"), "1");
}

fn a_message_that_cannot_be_a_row_is_a_dead_letter_whole(fixture: &mut RatesFixture) {
    let with = |seq, change: fn(&mut LinkRates)| {
        let mut link = rx("eth1", &[1_000_000; 3]);
        change(&mut link);
        wire::to_json(&rates("gw", seq, vec![rx("eth0", &[1_000_000]), link]))
    };
    let damaged = with(2, |link| link.histogram.as_mut().unwrap()[12] ^= 0x55);
    let cut = with(3, |link| link.histogram.as_mut().unwrap().truncate(20));
    let twice = with(4, |link| link.interface = "eth0".into());
    let huge = with(7, |link| link.histogram = Some(HUGE_HISTOGRAM.to_vec()));
    let mut long = rates("gw", 5, vec![rx("eth0", &[1_000_000]), rx("eth1", &[1_000_000])]);
    if let Body::Rates(window) = &mut long.body {
        window.duration_ms *= 100;
        window.started_at = long.stamp.observed_at - TimeDelta::milliseconds(window.duration_ms as i64);
    }
    // By the database itself, the second of two links.
    fixture.run(match fixture.database {
        StoreDatabase::Sqlite(_) => {
            "CREATE TRIGGER no BEFORE INSERT ON rates WHEN NEW.interface = 'eth9' BEGIN SELECT RAISE(ABORT, 'no'); END"
        }
        StoreDatabase::Postgres(_) => "ALTER TABLE rates ADD CONSTRAINT no CHECK (interface <> 'eth9')",
    });
    let refused = with(8, |link| link.interface = "eth9".into());
    let payloads = [with(1, |_| ()), damaged, cut, twice, wire::to_json(&long), with(6, |_| ()), huge, refused];
    let applied = fixture.store(&payloads);
    assert_eq!((applied.inserted, applied.rejected.len()), (2, 6), "{:?}", applied.rejected);
    assert_eq!(fixture.ask("SELECT seq, count(*) FROM rates GROUP BY seq"), "1,2 6,2");
    assert_eq!(fixture.ask("SELECT kafka_offset FROM dead_letters"), "1 2 3 4 6 7");
    let long = fixture.ask("SELECT error FROM dead_letters WHERE kafka_offset = 4");
    assert!(long.contains("`duration_ms`: 30000000 is not one of 1 to 3600000"), "{long}");
    let huge = fixture.ask("SELECT error FROM dead_letters WHERE kafka_offset = 6");
    assert!(huge.contains("claims 1 values and 9223372036854775807 seconds"), "{huge}");
    assert_eq!(fixture.ask("SELECT count(*) FROM window_histograms"), "4");
    // None of them can be stored later either; one that could be is.
    let retried = |offset: usize, payload: &[u8]| RetriedRecord {
        partition: 0,
        generation: 0,
        record: Record::new(offset as i64, Some(7), None, Some(payload)),
    };
    let records = [retried(1, &payloads[1]), retried(4, &payloads[4]), retried(7, &payloads[7])];
    let summary = fixture.store.retry(&topic_id("rates"), &records, fixture.now).unwrap();
    assert!(summary.outcomes.iter().all(|outcome| matches!(outcome, RetryOutcome::Stays(_))), "{summary:?}");
    let summary = fixture.store.retry(&topic_id("rates"), &[retried(2, &with(3, |_| ()))], fixture.now).unwrap();
    assert_eq!((summary.outcomes, summary.inserted), (vec![RetryOutcome::Stored], 1));
    assert_eq!(fixture.ask("SELECT seq, count(*) FROM rates GROUP BY seq"), "1,2 3,2 6,2");
}

fn an_hour_is_handed_out_until_kafka_has_it_as_it_is(fixture: &mut RatesFixture) {
    fixture.store_events([&rates("gw", 1, vec![rx("eth0", &[1_000_000; 5]), rx("eth1", &[1_000_000; 5])])]);
    fixture.derive();
    let published = |fixture: &mut RatesFixture| {
        let hours = fixture.histograms.unpublished(None).unwrap();
        hours.iter().map(|hour| (hour.key.clone(), hour.version)).collect::<Vec<_>>()
    };
    let first = published(fixture);
    assert_eq!(first.len(), 2);
    assert_eq!(fixture.histograms.unpublished(Some(&first[0].0)).unwrap().len(), 1, "from the one after it");
    fixture.histograms.acknowledge(&first[..1], fixture.now).unwrap();
    assert_eq!(published(fixture), first[1..]);
    fixture.histograms.acknowledge(&first, fixture.now).unwrap();
    assert_eq!(published(fixture), []);
    assert_eq!(fixture.ask("SELECT count(*) FROM histograms WHERE published_version = version"), "2");
    // The clock was set back, and the version rises all the same.
    fixture.now -= TimeDelta::hours(1);
    fixture.store_events([&rates("gw", 2, vec![rx("eth0", &[2_000_000; 5])])]);
    fixture.derive();
    let second = published(fixture);
    assert!(second.len() == 1 && second[0].0 == first[0].0 && second[0].1 > first[0].1, "{second:?}");
    fixture.histograms.acknowledge(&second, fixture.now).unwrap();
    assert_eq!(published(fixture), []);
    // A consumer that was stopped wakes, and Kafka gets the older one after the newer: the newer is to follow.
    fixture.histograms.acknowledge(&first[..1], fixture.now).unwrap();
    assert_eq!(published(fixture), second);
    let series = TrafficSeries { agent: "gone".into(), interface: "eth0".into(), direction: "rx".into() };
    fixture.histograms.acknowledge(&[(HourKey { series, starts_at: noon() }, 1)], fixture.now).unwrap();
    assert_eq!(published(fixture), second, "retention has taken that one");
}

fn stopped() -> Body {
    Body::AgentStopped(Lifecycle { version: "2".into(), reason: None, detail: None })
}

fn an_agent_is_running_stopped_or_silent_and_its_breaches_are_unknown(fixture: &mut RatesFixture) {
    let agents = |fixture: &RatesFixture| fixture.ask("SELECT agent, version, state FROM agents");
    let breaches = |fixture: &RatesFixture| fixture.ask("SELECT agent, state FROM breaches");
    fixture.now = Utc::now();
    fixture.store_events([&event("gw", 1, started()), &updated("gw", 2), &updated("other", 1)]);
    assert_eq!(
        (agents(fixture), breaches(fixture)),
        ("gw,1,running other,,running".into(), "gw,open other,open".into())
    );
    fixture.store_events([&event("gw", 3, stopped())]);
    assert_eq!(
        (agents(fixture), breaches(fixture)),
        ("gw,2,stopped other,,running".into(), "gw,unknown other,open".into())
    );
    assert_eq!(fixture.ask("SELECT agent FROM open_breaches"), "other");
    // A start that was sent before is no start after it, and a window of before says nothing.
    fixture.store_events([&rates("gw", 1, Vec::new())]);
    let mut before = rates("gw", 2, vec![rx("eth0", &[1])]);
    before.stamp.observed_at = noon() + TimeDelta::seconds(2);
    if let Body::Rates(window) = &mut before.body {
        window.started_at = noon() + TimeDelta::seconds(1);
        window.duration_ms = 1_000;
    }
    let mut other = fixture.empty();
    other.store_events([&event("gw", 3, stopped()), &event("gw", 1, started()), &before]);
    assert_eq!(agents(&other), "gw,2,stopped");
    assert!(other.ask("SELECT last_started_at FROM agents").starts_with("2026-11-20"));
    // A window of later says that it runs, although its start never came.
    assert_eq!(
        (agents(fixture), breaches(fixture)),
        ("gw,1,running other,,running".into(), "gw,open other,open".into())
    );
    // Silent for longer than an hour.
    fixture.run("UPDATE agent_sequences SET last_stored_at = '2020-01-01T00:00:00.000000Z' WHERE agent = 'other'");
    assert_eq!(
        (agents(fixture), breaches(fixture)),
        ("gw,1,running other,,silent".into(), "gw,open other,unknown".into())
    );
    assert_eq!(fixture.ask("SELECT agent FROM open_breaches"), "gw");
    // The views follow the `silent_after` that the consumer was started with.
    let far = Duration::from_secs(400_000 * 3_600);
    // Others, such as `dead-letters retry`, leave it.
    for options in [StoreOptions { silent_after: Some(far), ..store_options("again") }, store_options("retry")] {
        fixture.database.url().open(&options).checkpoints(&topic_id("rates")).unwrap();
        assert_eq!(
            (agents(fixture), breaches(fixture)),
            ("gw,1,running other,,running".into(), "gw,open other,open".into())
        );
    }
}

/// Kafka may keep windows for longer than the database, and bring them again.
fn windows_that_come_again_take_nothing_from_their_hours(fixture: &mut RatesFixture) {
    let windows = [rates("gw", 1, vec![rx("eth0", &[8_000_000; 10])])];
    fixture.store_events(&windows);
    fixture.derive();
    let summaries = |fixture: &RatesFixture| (fixture.summaries("hour"), fixture.summaries("day"));
    let before = summaries(fixture);
    fixture.run("DELETE FROM rates");
    fixture.now = noon() + TimeDelta::days(30);
    let days = |days: u64| Duration::from_secs(days * 86_400);
    fixture.retire(Retention { rates: days(20), ..Retention::default() });
    assert_eq!(fixture.ask("SELECT count(*) FROM window_histograms"), "0");
    fixture.now = noon() + TimeDelta::days(40);
    let applied = fixture.store_events(&windows);
    assert_eq!((applied.inserted, applied.rejected), (1, vec![]));
    fixture.derive();
    assert_eq!(summaries(fixture), before);
}

fn what_is_missing_of_an_agent_is_in_its_row(fixture: &mut RatesFixture) {
    fixture.now = Utc::now();
    fixture.store_events([&event("gw", 10, loss(3, 7)), &event("gw", 1, started()), &event("ok", 1, started())]);
    assert_eq!(fixture.ask("SELECT agent, missing_events FROM agents"), "gw,5 ok,0");
    // Undeclared gaps show five minutes later.
    fixture.run("UPDATE agent_sequences SET first_stored_at = '2026-01-01T00:00:00.000000Z'");
    fixture.run("UPDATE losses SET stored_at = '2026-01-01T00:00:00.000000Z'");
    assert_eq!(fixture.ask("SELECT agent, missing_events FROM agents"), "gw,8 ok,0");
    assert_eq!(fixture.ask("SELECT epoch FROM agents WHERE agent = 'gw'"), "0000000000005f0c");
}

fn the_state_of_an_agents_clock_is_its_last_word_on_it(fixture: &mut RatesFixture) {
    fixture.now = Utc::now();
    let synced = |fixture: &RatesFixture| {
        fixture.ask(
            "SELECT CASE WHEN clock_synced THEN 'yes' WHEN NOT clock_synced THEN 'no' ELSE 'unknown' END FROM agents",
        )
    };
    let mut seq = 0;
    for (clock_synced, said) in [
        (None, "unknown"),
        (Some(true), "yes"),
        (Some(false), "no"),
        (None, "unknown"),
        (Some(false), "no"),
        (Some(true), "yes"),
    ] {
        seq += 1;
        let mut heartbeat = event("gw", seq, started());
        heartbeat.stamp.observed_at = noon() + TimeDelta::minutes(seq as i64);
        heartbeat.stamp.clock_synced = clock_synced;
        if let Body::AgentStarted(lifecycle) = heartbeat.body {
            heartbeat.body = Body::Heartbeat(lifecycle);
        }
        fixture.store_events([&heartbeat]);
        assert_eq!(synced(fixture), said, "{seq}");
    }
    // A window of rates says it too, and one of before says nothing new.
    let mut window = rates("gw", 3, vec![rx("eth0", &[1])]);
    window.stamp.clock_synced = Some(false);
    fixture.store_events([&window]);
    assert_eq!(synced(fixture), "no");
    let mut before = event("gw", seq + 1, started());
    before.stamp.clock_synced = Some(true);
    fixture.store_events([&before]);
    assert_eq!(synced(fixture), "no");
}

/// Agents whose clocks are years behind or ahead are heard of when their messages are stored, and silent when none are.
fn an_agent_is_heard_of_by_the_clock_that_hears(fixture: &mut RatesFixture) {
    fixture.now = Utc::now();
    let at = |agent: &str, seq: u64, years: i64| {
        let mut updated = updated(agent, seq);
        updated.stamp.observed_at += TimeDelta::days(365 * years);
        updated
    };
    fixture.store_events([&at("ahead", 1, 20), &at("behind", 1, -6)]);
    let states = "SELECT agent, state FROM agents";
    assert_eq!(fixture.ask(states), "ahead,running behind,running");
    assert_eq!(fixture.ask("SELECT agent, state FROM breaches"), "ahead,open behind,open");
    fixture.run("UPDATE agent_sequences SET last_stored_at = '2026-01-01T00:00:00.000000Z'");
    assert_eq!(fixture.ask(states), "ahead,silent behind,silent");
    assert_eq!(fixture.ask("SELECT agent, state FROM breaches"), "ahead,unknown behind,unknown");
}

fn windows_go_before_the_hours_that_were_made_of_them(fixture: &mut RatesFixture) {
    let hour = Utc::now().duration_trunc(TimeDelta::hours(1)).unwrap() - TimeDelta::hours(2);
    fixture.now = hour + TimeDelta::hours(2);
    fixture.store_events([&rates_since(hour, "gw", 1, vec![rx("eth0", &[8_000_000; 10])])]);
    fixture.derive();
    let hours = fixture.summaries("hour");
    assert_eq!(hours.len(), 1);
    fixture.now = hour + TimeDelta::days(46);
    fixture.retire(Retention::default());
    assert_eq!(fixture.ask("SELECT count(*) FROM window_histograms"), "0");
    assert_eq!(fixture.ask("SELECT count(*) FROM rates"), "1");
    // Rates go once both the window and the row are so old.
    fixture.now = Utc::now() + TimeDelta::days(110);
    fixture.retire(Retention::default());
    assert_eq!(fixture.ask("SELECT count(*) FROM rates"), "0");
    assert_eq!(fixture.summaries("hour"), hours);
    // A note of an hour whose windows are gone changes nothing.
    let starts_at = hour.to_rfc3339_opts(SecondsFormat::Micros, true);
    fixture.run(&format!("INSERT INTO touched_hours (agent, starts_at) VALUES ('gw', '{starts_at}')"));
    fixture.derive();
    assert_eq!((fixture.summaries("hour"), fixture.ask("SELECT count(*) FROM touched_hours")), (hours, "0".into()));
    fixture.now = Utc::now() + TimeDelta::days(410);
    fixture.retire(Retention::default());
    assert_eq!(fixture.ask("SELECT count(*) FROM histograms"), "0");
    assert_eq!(fixture.ask("SELECT count(*) FROM unpublished_hours"), "0");
}

fn no_question_about_agents_reads_their_messages(fixture: &mut RatesFixture) {
    fixture.store_events([&event("gw", 1, started()), &window("gw", 1)]);
    let explain = match &fixture.database {
        StoreDatabase::Sqlite(_) => "EXPLAIN QUERY PLAN",
        StoreDatabase::Postgres(_) => "EXPLAIN (COSTS OFF)",
    };
    for sql in ["SELECT * FROM agents", "SELECT * FROM agents WHERE agent = 'gw'"] {
        let plan = fixture.rows(&format!("{explain} {sql}")).join("\n");
        assert!(plan.contains("agent_sequences"), "{plan}");
        for table in
            ["on events", "on rates", "SCAN events", "SCAN rates", "index_events", "index_rates", "observed_at"]
        {
            assert!(!plan.contains(table), "{sql} reads {table}: {plan}");
        }
    }
}

/// Three members of a group that are killed and come back, and messages that come twice, out of order, and a month late.
#[test]
fn three_consumers_come_and_go_and_each_window_is_counted_once() {
    let Some((kafka, postgres)) =
        kafka_and_postgres("consumer_rates::three_consumers_come_and_go_and_each_window_is_counted_once")
    else {
        return;
    };
    let (events, topic, published) = (kafka.topic("quiet", 1), kafka.topic("rates", 4), kafka.topic("hours", 2));
    let database = postgres.database("rates");
    let agents: Vec<String> = (0..12).map(|agent| format!("gw-{agent}")).collect();
    let yesterday = (Utc::now() - TimeDelta::days(1)).duration_trunc(TimeDelta::days(1)).unwrap();
    let messages: Vec<Event> = agents
        .iter()
        .enumerate()
        .flat_map(|(number, agent)| {
            // Two agents were away for a month.
            let first = yesterday - TimeDelta::days(if number < 2 { 30 } else { 0 });
            (1..=40).map(move |seq| window_since(first, agent, seq))
        })
        .collect();
    let mut sent: Vec<&Event> = messages.iter().chain(messages.iter().step_by(3)).collect();
    fastrand::shuffle(&mut sent);
    let mut consumers: Vec<Consumer> = (0..3).map(|_| Consumer::new(&kafka.address, &events, &database.url)).collect();
    for consumer in &consumers {
        consumer.append(&format!("[topics]\nrates = '{topic}'\nhistograms = '{published}'\n"));
        consumer.append("[histograms]\ninterval = '1s'\n");
    }
    let mut running: Vec<_> = consumers.iter_mut().map(|consumer| consumer.start(&[])).collect();
    for (round, some) in sent.chunks(sent.len().div_ceil(6)).enumerate() {
        produce(&kafka.address, &topic, some.iter().copied());
        let at = round % 3;
        running.remove(at).kill();
        running.insert(at, consumers[at].start(&[]));
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..1_500)));
    }
    let count = sent.len();
    database.until("SELECT sum(next_offset) FROM kafka_offsets", &format!("({count})"));
    database.until("SELECT count(*) FROM touched_hours", "(0)");
    database.until("SELECT count(*) FROM unpublished_hours", "(0)");
    assert_eq!(database.ask("SELECT count(*), count(DISTINCT (agent, seq)) FROM rates"), "(1920,480)");
    let fixture = RatesFixture::from_start(StoreDatabase::Postgres(database));
    let hours = fixture.summaries("hour");
    let expected = expected(&messages);
    assert_eq!(hours.len(), expected.len());
    for (key, bins) in &expected {
        assert_eq!(&hours[key].1, bins, "{key}");
    }
    let mut once = fixture.empty();
    once.now = Utc::now();
    once.store_events(&messages);
    once.derive();
    assert_eq!(once.summaries("hour"), hours);
    assert_eq!(once.summaries("day"), fixture.summaries("day"));
    // The last message of each hour is what the database has, and no version is below one before it.
    let mut last: BTreeMap<String, (i64, u64)> = BTreeMap::new();
    for line in kafka.read(&published, "%k\t%s\n") {
        let (key, payload) = line.split_once('\t').unwrap();
        let message: serde_json::Value = serde_json::from_str(payload).unwrap();
        let seconds = message["bins"].as_array().unwrap().iter().map(|bin| bin[2].as_u64().unwrap()).sum();
        let version = message["version"].as_i64().unwrap();
        let before = last.insert(key.to_owned(), (version, seconds));
        assert!(before.is_none_or(|(before, _)| before <= version), "{key}: {before:?}, then {version}");
    }
    let told: BTreeMap<String, u64> = last
        .into_iter()
        .map(|(key, (_, seconds))| {
            let key = key.replace(['/', 'T'], " ");
            (key.trim_end_matches(":00:00Z").to_owned(), seconds)
        })
        .collect();
    let counts: BTreeMap<String, u64> =
        expected.into_iter().map(|(key, bins)| (key, bins.iter().map(|bin| bin.count).sum())).collect();
    assert_eq!(told, counts);
}

/// A consumer reads the agents' events, another their rates, each in an order of its own, while hours are made: all of them write
/// the agents' rows, or what is of the agents.
#[test]
fn consumers_of_events_and_of_rates_never_wait_for_each_other_in_a_circle() {
    let test = "consumer_rates::consumers_of_events_and_of_rates_never_wait_for_each_other_in_a_circle";
    let Some(postgres) = Postgres::or_skip(test) else { return };
    let mut fixture = RatesFixture::postgres(&postgres);
    let (agents, rounds, now) = (500, 8, fixture.now);
    insert_checkpoint(&mut *fixture.store, &topic_id("events"), 0, &Checkpoint::default(), None).unwrap();
    let url = fixture.database.url();
    let apply = |topic: &str, message: fn(&str, u64) -> Event| {
        let mut store = url.open(&store_options(topic));
        for round in 0..rounds {
            let mut order: Vec<u64> = (0..agents).collect();
            fastrand::shuffle(&mut order);
            let mut batch = Batch::new(&topic_id(topic));
            let from = (round * agents) as i64;
            for (offset, agent) in (from..).zip(order) {
                let payload = wire::to_json(&message(&format!("gw-{agent}"), round + 1));
                batch.push(0, Record::new(offset, None, None, Some(&payload)), || (0, from));
            }
            let applied = store.apply(&batch, now).expect("nobody is in its way");
            assert_eq!(applied.rejected, vec![]);
        }
    };
    let heard = |agent: &str, seq| {
        let mut event = event(agent, seq, started());
        event.stamp.observed_at = noon() + TimeDelta::seconds(seq as i64);
        event
    };
    std::thread::scope(|scope| {
        let both = [scope.spawn(|| apply("events", heard)), scope.spawn(|| apply("rates", window))];
        while !both.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            fixture.histograms.derive(now).expect("nobody is in its way");
        }
    });
    fixture.derive();
    let all = agents * rounds;
    assert_eq!(fixture.ask("SELECT count(*) FROM events"), all.to_string());
    assert_eq!(fixture.ask("SELECT count(*), count(DISTINCT (agent, seq)) FROM rates"), format!("{},{all}", all * 4));
    assert_eq!(fixture.ask("SELECT count(*), count(DISTINCT observed_at) FROM agent_state"), format!("{agents},1"));
    assert_eq!(fixture.ask("SELECT count(*) FROM missing_events"), "0");
    // Counted when a session ends.
    drop((fixture.store, fixture.histograms));
    let waits = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(fixture.database.ask(waits), "0");
}

#[test]
fn a_topic_of_rates_that_is_missing_holds_nothing_up() {
    let Some((kafka, postgres)) =
        kafka_and_postgres("consumer_rates::a_topic_of_rates_that_is_missing_holds_nothing_up")
    else {
        return;
    };
    let (topic, database) = (kafka.topic("events", 1), postgres.database("rates"));
    let missing = format!("{topic}-rates");
    let mut consumer = Consumer::new(&kafka.address, &topic, &database.url);
    consumer.append(&format!("[topics]\nrates = '{missing}'\n"));
    produce(&kafka.address, &topic, &[updated("gw", 1)]);
    let (_, log) = consumer.run_until_end();
    assert_eq!(database.ask("SELECT count(*) FROM events"), "(1)", "{log}");
    assert!(log.lines().last().is_some_and(|line| line.contains(&format!("{topic}: stored 1 event"))), "{log}");
    let running = consumer.start(&[]);
    running.until(&kafka.missing(&missing));
    produce(&kafka.address, &topic, &[updated("gw", 2)]);
    database.until("SELECT count(*) FROM events", "(2)");
    running.kill();
}

/// An hour that changes again within the interval waits for its end, and is published as it is then.
#[test]
fn an_hour_is_published_at_most_once_in_an_interval() {
    let Some((kafka, postgres)) =
        kafka_and_postgres("consumer_rates::an_hour_is_published_at_most_once_in_an_interval")
    else {
        return;
    };
    let (events, topic, published) = (kafka.topic("quiet", 1), kafka.topic("rates", 1), kafka.topic("hours", 1));
    let database = postgres.database("rates");
    let mut consumer = Consumer::new(&kafka.address, &events, &database.url);
    consumer.append(&format!("[topics]\nrates = '{topic}'\nhistograms = '{published}'\n"));
    consumer.append("[histograms]\ninterval = '1h'\n");
    let running = consumer.start(&[]);
    // A second one is derived after the pass that followed the one before it.
    let first = yesterday();
    for seq in 1..=3 {
        produce(&kafka.address, &topic, &[window_since(first, "gw", seq)]);
        database.until("SELECT min(windows) FROM histograms WHERE span = 'hour'", &format!("({seq})"));
        if seq == 1 {
            database.until("SELECT count(published_version) FROM histograms", "(4)");
        }
    }
    assert_eq!(kafka.end_offset(&published), 4);
    assert_eq!(database.ask("SELECT count(*) FROM unpublished_hours"), "(4)");
    running.kill();
    // The end of a run is no reason to wait.
    consumer.run_until_end();
    assert_eq!(
        (kafka.end_offset(&published), database.ask("SELECT count(*) FROM unpublished_hours")),
        (8, "(0)".into())
    );
}

/// Without the topic of histograms, and with messages that are none.
#[test]
fn what_cannot_be_published_waits_and_is_named() {
    let Some((kafka, postgres)) = kafka_and_postgres("consumer_rates::what_cannot_be_published_waits_and_is_named")
    else {
        return;
    };
    let (events, topic, database) = (kafka.topic("quiet", 1), kafka.topic("rates", 1), postgres.database("rates"));
    let published = format!("{topic}-hours");
    let mut consumer = Consumer::new(&kafka.address, &events, &database.url);
    consumer.append(&format!("[topics]\nrates = '{topic}'\nhistograms = '{published}'\n"));
    let first = yesterday();
    produce(&kafka.address, &topic, &[window_since(first, "gw", 1)]);
    produce_raw(&kafka.address, &topic, [("gw".to_owned(), b"{}".to_vec())], None);
    let running = consumer.start(&[]);
    running.until(&kafka.missing_histograms(&published));
    database.until("SELECT count(*) FROM unpublished_hours", "(4)");
    // Storing and deriving go on.
    produce(&kafka.address, &topic, &[window_since(first, "gw", 2)]);
    database.until("SELECT sum(windows) FROM histograms WHERE span = 'hour'", "(8)");
    assert_eq!(database.ask("SELECT count(*) FROM touched_hours"), "(0)");
    assert_eq!(database.ask("SELECT count(*) FROM dead_letters"), "(1)");
    // An hour that was refused is tried again before the interval is over: meanwhile nothing is up to date.
    std::thread::sleep(Duration::from_secs(3));
    assert!(!running.log().contains("up to date again"), "{}", running.log());
    kafka.create(&published, 1);
    running.until("histograms: up to date again");
    assert_eq!(database.ask("SELECT count(*) FROM unpublished_hours"), "(0)");
    running.kill();
}
