//! The thread that owns the producer. Whatever goes wrong, it has one answer: give this producer up, wait, make a new one, and
//! send all that is not acknowledged again, in order, from the oldest.
//!
//! ```text
//!             ┌───────────── back-off over, or told to hurry ─────────────┐
//!             ▼                                                           │
//!   start ► Sending ── fatal error, failed delivery, no progress ──► Waiting   1 → 60 s
//!             │  ├──── topic, authorization, authentication, TLS ──► Waiting   5 → 300 s, alarm
//!             │  └──── batch too large, event never taken ─────────► Sending   smaller batches, one by one
//!             └─────── nobody sends any more, or all is given up ──► ended
//! ```
//!
//! Nothing overtakes what is sent again: the producer counts what it sends, Kafka takes nothing that skips a number, and after a
//! refusal librdkafka counts no further (`enable.gapless.guarantee`). But of a producer that has written nothing yet Kafka takes
//! any number: so the first message goes alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::Duration;

use log::{info, warn};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::Settings;
use super::encoding::Encoder;
use super::end::{Backoff, End, TearDowns};
use super::orders::{Order, Outgoing, Receipt, Report};
use super::producer::{BATCH_MAX, Delivery, Producer, Refusal};
use crate::agent::control::Waker;
use crate::agent::numbered::Numbered;
use crate::clock::{Clock as _, SystemClock};
use crate::failpoints;
use crate::kafka::{self, Trouble};
use crate::units::lasting;
use crate::{registry, wire};

pub(super) struct Worker {
    settings: Settings,
    encoder: Encoder,
    /// Of no more bytes is a batch, but for one of a single event.
    batch_max: Arc<AtomicUsize>,
    orders: Receiver<Order>,
    reports: Sender<Report>,
    waker: Waker,
    clock: SystemClock,
    /// Not acknowledged, numbered in the order of sending.
    unacked: Numbered<Outgoing>,
    /// The JSON that was written last, where the journal has none.
    written: Vec<u8>,
    /// One event at a time, since one among them is refused.
    alone: bool,
    trouble: Trouble,
    backoff: Backoff,
    torn_down: TearDowns,
}

/// How far a producer is fed.
struct Feed {
    /// The number from which on it has been given nothing.
    next: usize,
    /// It has written something, from which Kafka counts.
    proven: bool,
}

/// How long one pause between looks at Kafka's answers lasts while a broker is awaited.
const POLL_AWAY: Duration = Duration::from_millis(250);
/// The same where the next event waits for it.
const POLL_ALONE: Duration = Duration::from_millis(2);
/// A producer is helped to its first message so often, for so long.
const INTRODUCTIONS: u32 = 10;
const INTRODUCTION: Duration = Duration::from_millis(100);
/// So often, at such an interval, a producer with a fatal error is asked what became of its messages.
const LAST_WORDS: u32 = 10;
const LAST_WORD: Duration = Duration::from_millis(10);
/// After so long without a delivery a broker is awaited.
const AWAY_AFTER: Duration = Duration::from_secs(5);
/// After so long without a delivery a new producer is tried.
const STUCK_AFTER: Duration = Duration::from_secs(600);
/// A topic that takes no batch of so many bytes gets its events one by one.
const BATCH_MIN: usize = 1_000;
/// How often it is seen, while waiting, whether somebody mended a file.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Worker {
    pub(super) fn new(
        settings: Settings,
        encoder: Encoder,
        batch_max: Arc<AtomicUsize>,
        orders: Receiver<Order>,
        reports: Sender<Report>,
        waker: Waker,
    ) -> Self {
        Self {
            settings,
            encoder,
            batch_max,
            orders,
            reports,
            waker,
            clock: SystemClock::default(),
            unacked: Numbered::from(0),
            written: Vec::new(),
            alone: false,
            trouble: Trouble::default(),
            backoff: Backoff::default(),
            torn_down: TearDowns::default(),
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let files = self.settings.connection.files();
            let end = match self.producer() {
                Ok(producer) => {
                    let end = self.serve(&producer);
                    if matches!(end, End::Closed) {
                        return; // on this thread, for which nobody waits
                    }
                    self.torn_down.add(producer);
                    end
                }
                Err(end) => end,
            };
            let (first, longest, why) = match end {
                End::Closed => return,
                End::Smaller(bytes, code) => {
                    let topic = &self.settings.topic;
                    info!("{topic} refuses a batch by {code}: sending no more than {bytes} bytes at once from now on");
                    self.batch_max.store(bytes, Ordering::Relaxed);
                    continue;
                }
                End::Apart(code) => {
                    info!("{} refuses an event by {code}: sending one by one", self.settings.topic);
                    self.alone = true;
                    continue;
                }
                End::Retry(why) => (1, 60, why),
                End::Hold(why) => (5, 300, why),
            };
            let pause = self.backoff.next(first, longest);
            self.say(&format!(
                "cannot publish: {why}; the events {}, next attempt in {}",
                self.settings.undelivered,
                lasting(pause)
            ));
            self.report_trouble(format!("cannot publish: {why}"), true);
            if !self.wait(pause, files) {
                return;
            }
        }
    }

    /// A producer, and an encoder that is ready for it.
    fn producer(&self) -> Result<Producer, End> {
        self.encoder.prepare().map_err(|refusal| match refusal {
            registry::Refusal::Away(why) => End::Retry(why),
            registry::Refusal::Misconfigured(why) | registry::Refusal::Unknown(why) => End::Hold(why),
        })?;
        let batch_max = self.batch_max.load(Ordering::Relaxed);
        Producer::new(&self.settings.connection, self.settings.window, batch_max, self.alone).map_err(End::Hold)
    }

    /// Sends until something is wrong, or nobody sends any more.
    fn serve(&mut self, producer: &Producer) -> End {
        let mut feed = Feed { next: 0, proven: false };
        let mut introductions = INTRODUCTIONS;
        let mut last_words = LAST_WORDS;
        let mut moved = self.clock.monotonic();
        loop {
            if !self.take_orders() {
                return End::Closed;
            }
            if let Err(end) = self.feed(producer, &mut feed) {
                return end;
            }
            let still = self.clock.monotonic().saturating_sub(moved);
            let deliveries = producer.deliveries();
            let goes_on = !deliveries.is_empty();
            if let Some(end) = self.settle(deliveries, &mut feed) {
                self.settle_rest(producer, &mut feed);
                return end;
            }
            if goes_on {
                // There may be more, but what they made room for goes first.
                moved = self.clock.monotonic();
                continue;
            }
            if last_words > 0 && producer.fatal().is_some() {
                // The reports tell more than the error does, and come after it.
                last_words -= 1;
                std::thread::sleep(LAST_WORD);
                continue;
            }
            if let Some(end) = self.listen(producer) {
                return end;
            }
            if self.unacked.is_empty() {
                moved = self.clock.monotonic();
            } else if still > STUCK_AFTER {
                return End::Retry(format!("nothing was delivered for {}", lasting(STUCK_AFTER)));
            } else {
                let pause = match still {
                    _ if still >= AWAY_AFTER => POLL_AWAY,
                    _ if !feed.proven && introductions > 0 => {
                        introductions -= 1;
                        producer.introduce(&self.settings.topic, INTRODUCTION);
                        POLL_ALONE
                    }
                    _ if self.alone => POLL_ALONE,
                    _ => self.settings.window.poll,
                };
                match self.orders.recv_timeout(pause) {
                    Ok(order) => self.take(order),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return End::Closed,
                }
            }
        }
    }

    /// Takes what there is, and waits for it where nothing is under way. False when nobody sends any more.
    fn take_orders(&mut self) -> bool {
        loop {
            let order = if self.unacked.is_empty() {
                self.orders.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.orders.try_recv()
            };
            match order {
                Ok(order) => self.take(order),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn take(&mut self, order: Order) {
        let Order::Send(outgoing) = order else { return };
        for outgoing in outgoing {
            self.unacked.push(outgoing);
        }
    }

    /// Gives the producer what it has room for, in order: after what it does not take comes nothing.
    fn feed(&mut self, producer: &Producer, feed: &mut Feed) -> Result<(), End> {
        let oldest = self.unacked.first();
        let mut refused = None;
        for (serial, outgoing) in self.unacked.since(feed.next) {
            if serial != oldest && (self.alone || !feed.proven) {
                break;
            }
            let json = outgoing.json.as_deref().unwrap_or_else(|| {
                self.written.clear();
                wire::write_json(&outgoing.event, &mut self.written);
                &self.written
            });
            let message = self.encoder.message(&outgoing.event, json);
            failpoints::pass("send-before");
            match producer.send(&self.settings.topic, serial, &message) {
                Ok(()) => failpoints::pass("send-after"),
                // What was fatal is told by what was sent before.
                Err(Refusal::Full | Refusal::Never(Code::Fatal)) => break,
                Err(Refusal::Never(code)) => {
                    refused = Some((serial, code));
                    break;
                }
            }
            feed.next = serial + 1;
        }
        refused.and_then(|(serial, code)| self.failed(serial, code, true)).map_or(Ok(()), Err)
    }

    /// Reports what was delivered; the first failure decides what becomes of the producer.
    fn settle(&mut self, deliveries: Vec<(usize, Delivery)>, feed: &mut Feed) -> Option<End> {
        let mut end = None;
        let mut receipts = Vec::with_capacity(deliveries.len());
        let alone = self.alone || !feed.proven;
        for (serial, delivery) in deliveries {
            match delivery {
                Ok((partition, offset)) => {
                    feed.proven = true;
                    if let Some(outgoing) = self.unacked.take(serial) {
                        receipts.push(Receipt { serial, bytes: outgoing.bytes(), partition, offset });
                    }
                }
                // Taken back after a fatal error, which is asked for next.
                Err(Code::PurgeQueue | Code::PurgeInflight) => {}
                Err(code) => end = end.or(self.failed(serial, code, alone)),
            }
        }
        if !receipts.is_empty() {
            failpoints::pass("report-before");
            let _ = self.reports.send(Report::Delivered(receipts));
            self.backoff = Backoff::default();
            if self.trouble.over() {
                info!("publishing again");
            }
            self.waker.wake();
        }
        end
    }

    /// What else was delivered is not sent again by the next producer.
    fn settle_rest(&mut self, producer: &Producer, feed: &mut Feed) {
        loop {
            let deliveries = producer.deliveries();
            if deliveries.is_empty() {
                return;
            }
            // The first failure has decided.
            let _ = self.settle(deliveries, feed);
        }
    }

    /// What a failure means. All messages of a batch fail by one code; a message that went `alone` failed by itself.
    fn failed(&mut self, serial: usize, code: Code, alone: bool) -> Option<End> {
        match code {
            Code::MessageSizeTooLarge if !alone => {
                let smaller = self.batch_max.load(Ordering::Relaxed) / 8;
                Some(if smaller < BATCH_MIN { End::Apart(code) } else { End::Smaller(smaller, code) })
            }
            Code::InvalidDifferentRecord => Some(End::Apart(code)),
            Code::MessageSizeTooLarge | Code::InvalidMessage | Code::InvalidMessageSize | Code::InvalidRecord => {
                if alone && let Some(outgoing) = self.unacked.take(serial) {
                    let bytes = outgoing.bytes();
                    let _ = self.reports.send(Report::Rejected { serial, bytes, reason: code.to_string() });
                    self.waker.wake();
                    // It was this event, not the batches that it came in.
                    self.batch_max.store(BATCH_MAX, Ordering::Relaxed);
                }
                (!self.alone).then_some(End::Apart(code))
            }
            code => Some(End::of(code, &self.settings.topic)),
        }
    }

    /// What the client as a whole has to say.
    fn listen(&self, producer: &Producer) -> Option<End> {
        if let Some(fatal) = producer.fatal() {
            return Some(End::Retry(fatal));
        }
        for (code, reason) in producer.errors() {
            if let Some(refusal) = kafka::refusal(code, &reason) {
                return Some(End::Hold(refusal));
            }
            match code {
                Code::Fatal => return Some(End::Retry(reason)),
                // Said by the line before it, for one broker.
                Code::AllBrokersDown => {}
                _ => {
                    if self.say(&format!("broker away, the events {}: {reason}", self.settings.undelivered)) {
                        self.report_trouble(format!("broker away: {}", kafka::without_timing(&reason)), false);
                    }
                }
            }
        }
        None
    }

    /// Waits, and takes what comes meanwhile; no longer than until a certificate or secret is another than it was. False when
    /// nobody sends any more.
    fn wait(&mut self, pause: Duration, files: u64) -> bool {
        let until = self.clock.monotonic() + pause;
        loop {
            let left = until.saturating_sub(self.clock.monotonic());
            match self.orders.recv_timeout(left.min(LOOK_EVERY)) {
                Ok(Order::TryNow) => return true,
                Err(RecvTimeoutError::Timeout) if left <= LOOK_EVERY || self.settings.connection.files() != files => {
                    return true;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(order) => self.take(order),
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Whether it was time to say it.
    fn say(&self, message: &str) -> bool {
        let line = self.trouble.seen(message, self.clock.monotonic());
        line.inspect(|line| warn!("{line}")).is_some()
    }

    fn report_trouble(&self, what: String, gave_up: bool) {
        // A loop that has ended asks no more.
        let _ = self.reports.send(Report::Trouble { what, gave_up });
        self.waker.wake();
    }
}
