//! Logs a tick that is stuck while it is still stuck; it may never return.

use std::time::Duration;

use log::error;

use crate::units::lasting;
use crate::watchdog::{Heart, Stuck};

const STEP_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(5);

pub(super) fn watch(heart: &Heart) -> std::io::Result<()> {
    heart.watch(LOOK, STEP_MAX, |Stuck { doing, time }| {
        error!("the tick is stuck: {doing} for {}; nothing is measured meanwhile", lasting(time));
    })
}
