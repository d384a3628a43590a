//! The store's thread: while it works, the next batch is read, and the member stays in its group. A store that never answers is
//! replaced, with its thread and connection; if it commits late all the same, guards 1 and 3 keep records from being stored twice.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::liveness::Liveness;
use crate::consumer::store::{Store, StoreError, StoreOptions, StoreProgress, StoreUrl};
use crate::process::failpoints;
use crate::process::log_throttle::LogThrottle;
use crate::units::lasting;

const ANSWER_MAX: Duration = Duration::from_secs(90);
pub(super) const STOP_MAX: Duration = Duration::from_secs(4);
const MIGRATION_LOG_EVERY: Duration = Duration::from_secs(60);

pub(super) struct StoreThread {
    url: StoreUrl,
    options: StoreOptions,
    worker: Option<StoreWorker>,
    throttle: LogThrottle,
}

struct StoreWorker {
    jobs: Sender<Job>,
    progress: Arc<StoreProgress>,
}

type Job = Box<dyn FnOnce(&mut dyn Store) + Send>;

impl StoreThread {
    pub(super) fn new(url: &StoreUrl, options: StoreOptions) -> Self {
        Self { url: url.clone(), options, worker: None, throttle: LogThrottle::default() }
    }

    /// Runs `work` on the store's thread. `meanwhile` polls Kafka, to stay in the group, and returns the time to its next call.
    pub(super) fn ask<T: Send + 'static>(
        &mut self,
        liveness: &mut Liveness<'_>,
        mut meanwhile: impl FnMut(Duration) -> Duration,
        work: impl FnOnce(&mut dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, progress) = self.submit(work)?;
        let (mut wait, mut pause) = (AnswerDeadline::new(liveness.now(), &progress), Duration::ZERO);
        loop {
            match answer.recv_timeout(pause) {
                Ok(answered) => return answered,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.abandon();
                    return Err(StoreError::Unavailable("the thread of the store has ended; see above".to_owned()));
                }
            }
            // The whole process may have been stopped since the last time.
            let now = liveness.step("waiting for the database");
            if let Some(error) = wait.check(&progress, now, liveness.stopping_for(now)) {
                self.abandon();
                return Err(error);
            }
            liveness.notifier.ping(now);
            pause = meanwhile(now);
        }
    }

    pub(super) fn log(&self, error: &StoreError, now: Duration) {
        let Some(line) = self.throttle.admit(&error.to_string(), now) else { return };
        match error {
            StoreError::Misconfigured(_) | StoreError::Pooled(_) => {
                log::error!("{line}; nothing is lost; retrying at least once a minute");
            }
            StoreError::Unavailable(_) => log::warn!("{line}; nothing is lost; retrying"),
            StoreError::Incompatible(_) => {}
            StoreError::Conflict(_) => log::warn!("{line}; resuming from the stored offset"),
        }
    }

    pub(super) fn recovered(&self) {
        if self.throttle.clear() {
            log::info!("the store is available again: {}", self.url);
        }
    }

    fn submit<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut dyn Store) -> T + Send + 'static,
    ) -> Result<(Receiver<T>, Arc<StoreProgress>), StoreError> {
        let (sender, answer) = channel();
        let job: Job = Box::new(move |store| {
            // The receiver is gone if the store took too long.
            let _ = sender.send(work(store));
        });
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => self.spawn()?,
        };
        let progress = Arc::clone(&worker.progress);
        // A thread that has panicked drops the job and so closes the channel.
        if worker.jobs.send(job).is_ok() {
            self.worker = Some(worker);
        }
        Ok((answer, progress))
    }

    fn spawn(&self) -> Result<StoreWorker, StoreError> {
        let mut store = self.url.open(&self.options);
        let progress = store.progress();
        let (jobs, queue) = channel::<Job>();
        let work = move || queue.into_iter().for_each(|job| job(&mut *store));
        let thread = std::thread::Builder::new().name("store".into()).spawn(work);
        thread
            .map_err(|error| StoreError::Unavailable(format!("no thread could be started for the store: {error}")))?;
        Ok(StoreWorker { jobs, progress })
    }

    fn abandon(&mut self) {
        self.worker = None;
    }
}

pub(super) struct AnswerDeadline {
    since: Duration,
    answers: u64,
    migrating: Option<(Duration, Duration)>,
}

impl AnswerDeadline {
    pub(super) fn new(now: Duration, progress: &StoreProgress) -> Self {
        Self { since: now, answers: progress.answers(), migrating: None }
    }

    /// Returns the error that ends the wait, if any. During a stop, tells the store to stop, and waits at most [`STOP_MAX`].
    pub(super) fn check(
        &mut self,
        progress: &StoreProgress,
        now: Duration,
        stopping_for: Option<Duration>,
    ) -> Option<StoreError> {
        if let Some(time) = stopping_for {
            progress.stop();
            return (time > STOP_MAX).then(|| {
                StoreError::Unavailable(
                    "the store did not finish before the end; what it has not committed is read again".into(),
                )
            });
        }
        if let Some(migration) = progress.migration() {
            self.since = now;
            let (began, logged) = self.migrating.get_or_insert((now, now));
            if now.saturating_sub(*logged) >= failpoints::duration("migration-said-s", MIGRATION_LOG_EVERY) {
                *logged = now;
                log::info!(
                    "the migration {migration} of the database has been running for {}",
                    lasting(now.saturating_sub(*began))
                );
            }
        } else if self.answers != progress.answers() {
            (self.since, self.answers) = (now, progress.answers());
        }
        let longest = failpoints::duration("answer-max-s", ANSWER_MAX);
        (now.saturating_sub(self.since) > longest).then(|| {
            StoreError::Unavailable(format!("the store has not answered for {}; reconnecting", lasting(longest)))
        })
    }
}
