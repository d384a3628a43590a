//! Logs a tick that is stuck while it is still stuck; it may never return.

use std::time::Duration;

use log::error;

use crate::units::lasting;
use crate::watchdog::{Heart, Stuck};

/// Longest time that a step of a tick may take.
const STEP_MAX: Duration = Duration::from_secs(10);
/// Interval of checks: each one wakes the processor.
const LOOK: Duration = Duration::from_secs(5);

/// Starts a thread that watches the ticks.
pub(super) fn watch(heart: &Heart) -> std::io::Result<()> {
    heart.watch(LOOK, STEP_MAX, |Stuck { doing, time }| {
        error!("the tick stands still: {doing} for {}; nothing is measured meanwhile", lasting(time));
    })
}
