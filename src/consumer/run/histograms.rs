//! Hours and days, derived and published on a thread with a session of its own: storing never waits for it. The database keeps
//! notes until they are derived, and hours until Kafka has them: after a crash, this or another member goes on from there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::RoundError;
use crate::config::TopicRole;
use crate::consumer::config::Settings;
use crate::consumer::hour_publisher::HourPublisher;
use crate::consumer::store::{HistogramStore, HourKey, StoreError};
use crate::process::backoff::Backoff;
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::failpoints;
use crate::process::log_throttle::LogThrottle;

const PAUSE: Duration = Duration::from_secs(1);
const BUDGET: Duration = Duration::from_secs(5);
const FINISH_MAX: Duration = Duration::from_secs(15);
const STOP_POLL: Duration = Duration::from_millis(100);

const RUNNING: u8 = 0;
const FINISHING: u8 = 1;
const STOPPED: u8 = 2;

pub(super) struct HistogramThread {
    mode: Arc<AtomicU8>,
    /// True if all hours were made in the end.
    ended: Receiver<bool>,
}

impl HistogramThread {
    pub(super) fn start(settings: &Settings, instance: String) -> std::io::Result<Option<Self>> {
        if settings.topic_of(TopicRole::Rates).is_none() {
            return Ok(None);
        }
        let mode = Arc::new(AtomicU8::new(RUNNING));
        let (end, ended) = channel();
        let mut work = HistogramWork {
            store: settings.store.histograms(&settings.store_options(instance)),
            publisher: settings
                .topic_of(TopicRole::Histograms)
                .map(|topic| HourPublisher::new(&settings.connection, topic)),
            every: settings.publish_every,
            mode: Arc::clone(&mode),
            clock: SystemClock::default(),
            last: None,
            unconfirmed: Vec::new(),
            publish_at: Duration::ZERO,
            throttle: LogThrottle::default(),
            backoff: Backoff::default(),
        };
        std::thread::Builder::new().name("histograms".into()).spawn(move || {
            let _ = end.send(work.rounds());
        })?;
        Ok(Some(Self { mode, ended }))
    }

    pub(super) fn finish(&self) {
        self.mode.store(FINISHING, Ordering::Relaxed);
        if !self.ended.recv_timeout(FINISH_MAX).unwrap_or(false) {
            log::warn!("histograms: not all hours are made yet; the next run goes on");
        }
    }
}

impl Drop for HistogramThread {
    fn drop(&mut self) {
        self.mode.store(STOPPED, Ordering::Relaxed);
    }
}

struct HistogramWork {
    store: Box<dyn HistogramStore + Send>,
    publisher: Option<HourPublisher>,
    every: Duration,
    mode: Arc<AtomicU8>,
    clock: SystemClock,
    /// Hour that was published last, while not all were.
    last: Option<HourKey>,
    /// Versions that Kafka has acknowledged, and that the database may not have recorded yet.
    unconfirmed: Vec<(HourKey, i64)>,
    publish_at: Duration,
    throttle: LogThrottle,
    backoff: Backoff,
}

impl HistogramWork {
    /// Returns whether all hours are made.
    fn rounds(&mut self) -> bool {
        loop {
            let is_finishing = self.mode.load(Ordering::Relaxed) == FINISHING;
            let pause = match self.round(is_finishing) {
                Ok(true) => Duration::ZERO,
                Ok(false) if is_finishing => return true,
                Ok(false) => PAUSE,
                Err(error) => {
                    self.log(&error, is_finishing);
                    if is_finishing {
                        return false;
                    }
                    self.backoff.pause()
                }
            };
            if !self.sleep(pause) {
                return false;
            }
        }
    }

    fn log(&self, failure: &RoundError, is_finishing: bool) {
        if let RoundError::Store(error @ StoreError::Pooled(_)) = failure {
            // The store's thread reports it as an ERROR.
            log::debug!("histograms: {error}");
        } else if let Some(line) = self.throttle.admit(&failure.to_string(), self.clock.monotonic()) {
            log::warn!("histograms: {line}; nothing is lost{}", if is_finishing { "" } else { "; retrying" });
        }
    }

    fn round(&mut self, is_finishing: bool) -> Result<bool, RoundError> {
        let has_more = self.derive()?;
        let more_to_publish = self.publish(is_finishing && !has_more)?;
        if !has_more && !more_to_publish {
            self.backoff.reset();
            if self.throttle.clear() {
                log::info!("histograms: up to date again");
            }
        }
        Ok(has_more || more_to_publish)
    }

    fn derive(&mut self) -> Result<bool, StoreError> {
        let until = self.clock.monotonic() + BUDGET;
        loop {
            let derived = self.store.derive(self.clock.wall())?;
            if derived.hours > 0 {
                log::debug!("histograms: {} hours changed", derived.hours);
            }
            if !derived.has_more || self.is_stopping() || self.clock.monotonic() >= until {
                return Ok(derived.has_more);
            }
        }
    }

    /// Publishes each hour at most once in an interval, and returns whether some are left.
    fn publish(&mut self, at_once: bool) -> Result<bool, RoundError> {
        let Some(publisher) = &mut self.publisher else { return Ok(false) };
        let now = self.clock.monotonic();
        if self.last.is_none() && now < self.publish_at && !at_once {
            return Ok(false);
        }
        let until = now + BUDGET;
        while self.mode.load(Ordering::Relaxed) != STOPPED {
            if !self.unconfirmed.is_empty() {
                self.store.acknowledge(&self.unconfirmed, self.clock.wall())?;
                self.unconfirmed.clear();
            }
            let hours = self.store.unpublished(self.last.as_ref())?;
            let Some(last) = hours.last().map(|hour| hour.key.clone()) else {
                if self.last.take().is_some() {
                    // Counted from the end of a pass, or an hour that was its last could be the next one's first.
                    self.publish_at = self.clock.monotonic() + self.every;
                }
                return Ok(false);
            };
            let (done, result) = publisher.publish(&hours);
            self.unconfirmed = done;
            if let Err(error) = result {
                self.last = None;
                // The interval is between two publications, and this was none.
                self.publish_at = Duration::ZERO;
                let acknowledged = self.store.acknowledge(&self.unconfirmed, self.clock.wall());
                if acknowledged.is_ok() {
                    self.unconfirmed.clear();
                }
                return Err(error.into());
            }
            failpoints::hit("hours-published");
            self.last = Some(last);
            if self.clock.monotonic() >= until {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_stopping(&self) -> bool {
        self.mode.load(Ordering::Relaxed) == STOPPED
    }

    fn sleep(&self, pause: Duration) -> bool {
        let until = self.clock.monotonic() + pause;
        loop {
            let left = until.saturating_sub(self.clock.monotonic());
            if self.is_stopping() {
                return false;
            }
            if left.is_zero() || self.mode.load(Ordering::Relaxed) == FINISHING {
                return true;
            }
            std::thread::sleep(left.min(STOP_POLL));
        }
    }
}
