use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::liveness::Liveness;
use super::{Consumer, Options, StoredEvent};
use crate::consumer::config::Settings;
use crate::kafka::ClientError;
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::Failure;
use crate::process::systemd::Notifier;

#[derive(Clone, Copy)]
pub struct Reload<'a> {
    /// Asks for a reload while true; cleared when it begins.
    pub requested: &'a AtomicBool,
    pub read: &'a dyn Fn() -> Result<Settings, String>,
}

const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Stores until `stop` is set or, with `until_end`, what was there at the start is stored. Calls `observer` with each stored event.
///
/// # Errors
/// Settings that librdkafka refuses (unreadable files are awaited), another version's tables, a missing topic with `until_end`.
pub fn run(
    settings: &Settings,
    options: Options,
    observer: &mut dyn FnMut(&StoredEvent<'_>),
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let never = AtomicBool::new(false);
    let reload = Reload { requested: &never, read: &|| Err("this run does not reload".to_owned()) };
    run_reloading(settings, options, observer, stop, reload)
}

/// Stores like [`run`], with reloads: each ends the run in order and begins another; settings that cannot be used change nothing.
pub fn run_reloading(
    settings: &Settings,
    options: Options,
    observer: &mut dyn FnMut(&StoredEvent<'_>),
    stop: &AtomicBool,
    reload: Reload<'_>,
) -> Result<(), Failure> {
    let mut settings = settings.clone();
    let mut before: Option<Settings> = None;
    loop {
        let consumer = match (Consumer::new(&settings, options, &mut *observer, stop), before.take()) {
            (Ok(consumer), _) => consumer,
            (Err(failure), Some(before)) => {
                log::error!("the previous configuration stays in effect: {failure}");
                settings = before;
                continue;
            }
            (Err(failure), None) if matches!(failure.cause(), Some(ClientError::File(_))) => {
                match wait_for_files(&failure, settings, stop, reload) {
                    Some(others) => settings = others,
                    None => return Ok(()),
                }
                continue;
            }
            (Err(failure), None) => return Err(failure),
        };
        for topic in settings.membership().topics {
            log::info!("storing {topic} from {} in {}", settings.connection.brokers(), settings.store);
        }
        let Some(others) = rounds(consumer, reload)? else { return Ok(()) };
        log::info!("the configuration was reloaded; reconnecting");
        before = Some(std::mem::replace(&mut settings, others));
    }
}

/// Waits until a certificate or secret has changed. Returns the settings to go on with; `None` after a stop.
fn wait_for_files(failure: &Failure, settings: Settings, stop: &AtomicBool, reload: Reload<'_>) -> Option<Settings> {
    let clock = SystemClock::default();
    let mut notifier = Notifier::ready(Duration::ZERO);
    log::error!("cannot read from Kafka: {failure}; nothing is lost; waiting for the file to change");
    let files = settings.connection.files();
    while settings.connection.files() == files {
        if stop.load(Ordering::Relaxed) {
            log::info!("stopping on signal");
            notifier.stopping();
            return None;
        }
        if reload.requested.swap(false, Ordering::Relaxed) {
            notifier.reloading(clock.monotonic());
            match (reload.read)() {
                Ok(others) => return Some(others),
                Err(error) => log::error!("the previous configuration stays in effect: {error}"),
            }
            notifier.reloaded(Duration::ZERO);
        }
        notifier.ping(clock.monotonic());
        std::thread::sleep(POLL_INTERVAL);
    }
    Some(settings)
}

fn rounds(mut consumer: Consumer<'_>, reload: Reload<'_>) -> Result<Option<Settings>, Failure> {
    let result = loop {
        if consumer.liveness.is_stopping() {
            log::info!("stopping on signal");
            break Ok(None);
        }
        if reload.requested.swap(false, Ordering::Relaxed)
            && let Some(settings) = read_again(&mut consumer.liveness, reload)
        {
            break Ok(Some(settings));
        }
        match consumer.round() {
            Ok(true) => {}
            Ok(false) => break Ok(None),
            Err(failure) => break Err(failure),
        }
    };
    if !matches!(result, Ok(Some(_))) {
        consumer.liveness.notifier.stopping();
    }
    consumer.end();
    result
}

fn read_again(liveness: &mut Liveness<'_>, reload: Reload<'_>) -> Option<Settings> {
    let now = liveness.step("reading the configuration");
    liveness.notifier.reloading(now);
    match (reload.read)() {
        Ok(settings) => Some(settings),
        Err(error) => {
            log::error!("the previous configuration stays in effect: {error}");
            liveness.notifier.reloaded(Duration::ZERO);
            None
        }
    }
}
