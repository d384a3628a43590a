//! Stored rates, drawn in the terminal.

use std::error::Error;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use highwater::consumer::plot::{Distribution, HistogramPlot, LimitLine, Page, RatePlot, RateSeries};
use highwater::consumer::report::rates::{self, RateFilter, RatePoint, RateStep};
use highwater::consumer::report::{LinkFilter, breaches, histogram};
use highwater::consumer::store::StoreUrl;
use highwater::process::clock::{Clock as _, SystemClock};
use jiff::tz::TimeZone;

use super::link::Link;

const HISTOGRAM: Page = Page { columns: 78, rows: 14 };
const RATES: Page = Page { columns: 78, rows: 20 };

/// The rates of the demo's link and direction since it began.
pub(crate) struct Pictures<'a> {
    pub(crate) database: &'a Path,
    pub(crate) link: &'a Link,
    pub(crate) since: DateTime<Utc>,
}

impl Pictures<'_> {
    fn links(&self) -> LinkFilter {
        LinkFilter {
            interfaces: vec![self.link.name.clone()],
            directions: vec![self.link.direction.to_owned()],
            // From the window that the demo began in, to the present one: up to a whole hour, windows are read, and not the hours
            // that are made of them a while later.
            since: Some(self.since - TimeDelta::seconds(10)),
            until: Some(SystemClock::default().wall() + TimeDelta::seconds(10)),
            ..LinkFilter::default()
        }
    }

    /// Draws how many seconds had which rate, so far; nothing before as many as a window has are stored.
    pub(crate) fn histogram(&self) -> Result<Option<String>, Box<dyn Error>> {
        let histogram = histogram::read(&mut *StoreUrl::sqlite(self.database).reader(), &self.links())??;
        if histogram.measured_s < 10 {
            return Ok(None);
        }
        let (interface, direction) = (self.link.name.clone(), self.link.direction.to_owned());
        let series = [Distribution { agent: "this host".to_owned(), interface, direction, histogram }];
        let span = "so far".to_owned();
        let plot = HistogramPlot { series: &series, span, log_rates: false, log_counts: false, hidden: 0 };
        Ok(Some(plot.text(HISTOGRAM)))
    }

    /// Draws the rate over time.
    pub(crate) fn rate(&self) -> Result<Option<String>, Box<dyn Error>> {
        let mut reader = StoreUrl::sqlite(self.database).reader();
        let (links, mut points) = (self.links(), Vec::new());
        let filter = RateFilter { links: links.clone(), step: RateStep::Window, last: None };
        rates::read(&mut *reader, &filter, |row| {
            points.push(RatePoint::from(row));
            Ok(())
        })??;
        let Some(first) = points.first().map(|point| point.started_at) else { return Ok(None) };
        let last = points.last().map_or_else(|| SystemClock::default().wall(), |point| point.ended_at);
        let series = [RateSeries {
            agent: "this host".to_owned(),
            interface: self.link.name.clone(),
            direction: self.link.direction.to_owned(),
            points,
            limits: vec![LimitLine { bps: self.link.limit.bps(), name: "demo".to_owned() }],
            breaches: breaches::spans(&mut *reader, &links)??,
        }];
        let (zone, step) = (TimeZone::system(), "10 s".to_owned());
        let plot = RatePlot { series: &series, from: first, to: last, zone, log: false, step, hidden: 0 };
        Ok(Some(plot.text(RATES)))
    }
}
