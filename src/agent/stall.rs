//! A tick that stands still is said while it lasts: afterwards may be never.

use std::time::Duration;

use log::error;

use crate::units::lasting;
use crate::watchdog::{Heart, Stuck};

/// A step of a tick takes no longer than this.
const STEP_MAX: Duration = Duration::from_secs(10);
/// How often it is looked at: each look wakes the processor.
const LOOK: Duration = Duration::from_secs(5);

/// Watches the ticks, as long as there are any.
pub(super) fn watch(heart: &Heart) -> std::io::Result<()> {
    heart.watch(LOOK, STEP_MAX, |Stuck { doing, time }| {
        error!("the tick stands still: {doing} for {}; nothing is measured meanwhile", lasting(time));
    })
}
