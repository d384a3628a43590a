//! Plans of SQLite; those of PostgreSQL are looked at by the integration tests, on large tables.

use chrono::TimeZone as _;

use super::percentile::{Percent, PercentileFilter};
use super::rates::{RateFilter, RateStep};
use super::*;
use crate::consumer::batch::TopicId;
use crate::consumer::store::{StoreOptions, StoreUrl};

struct PlanReader {
    reader: Box<dyn Reader + Send>,
    plans: Vec<String>,
}

impl Reader for PlanReader {
    fn read(&mut self, query: &Query, each: &mut dyn FnMut(Vec<Value>) -> ControlFlow<()>) -> Result<(), StoreError> {
        for row in self.reader.ask(&query.explained())? {
            self.plans.push(format!("{:?}", row.last()));
        }
        self.reader.read(query, each)
    }
}

fn at(month: u32, day: u32, hour: u32) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, month, day, hour, 20, 0).unwrap()
}

fn link_for_a_month() -> LinkFilter {
    LinkFilter {
        agents: vec!["gw-042".to_owned()],
        interfaces: vec!["eth0".to_owned()],
        directions: vec!["rx".to_owned()],
        since: Some(at(10, 1, 4)),
        until: Some(at(11, 1, 7)),
    }
}

#[test]
fn sqlite_reads_no_whole_table_of_rates() {
    let directory = tempfile::tempdir().unwrap();
    let url = StoreUrl::sqlite(&directory.path().join("h.db"));
    url.open(&StoreOptions::default()).checkpoints(&TopicId { cluster: String::new(), name: "t".into() }).unwrap();
    let mut reader = PlanReader { reader: url.reader(), plans: Vec::new() };
    let fleet = LinkFilter { since: Some(at(10, 1, 4)), until: Some(at(10, 2, 7)), ..LinkFilter::default() };
    for links in [link_for_a_month(), fleet] {
        for step in [RateStep::Window, RateStep::Hour, RateStep::Day] {
            let filter = RateFilter { links: links.clone(), step, last: None };
            rates::read(&mut reader, &filter, |_| Ok(())).unwrap().unwrap();
        }
        histogram::read(&mut reader, &links).unwrap().unwrap();
    }
    let LinkFilter { agents, interfaces, directions, since, until } = link_for_a_month();
    let percent = Percent::parse("95").unwrap();
    let (since, until) = (since.unwrap(), until.unwrap());
    // There are no rates, which it says after it has asked for them.
    percentile::read(&mut reader, &PercentileFilter { agents, interfaces, directions, percent, since, until })
        .unwrap_err();
    assert!(reader.plans.len() > 12, "{:#?}", reader.plans);
    for plan in &reader.plans {
        let whole = ["SCAN rates", "SCAN window_histograms", "SCAN histograms", "AUTOMATIC"];
        assert!(!whole.iter().any(|words| plan.contains(words)), "{:#?}", reader.plans);
    }
}
