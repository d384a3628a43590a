//! A process that is stuck ends: in a call that no time-out bounds, since a server stands still or a connection swallows. Being
//! ended is harmless, which is the promise, and whoever starts it again connects anew.

use std::time::Duration;

use signal_hook::low_level;

use crate::exit::Status;
use crate::failpoints;
use crate::units::lasting;
use crate::watchdog::{Heart, Stuck};

/// How long one step of a round may take: a statement of PostgreSQL's ends after two minutes at the latest.
const STEP_MAX: Duration = Duration::from_secs(5 * 60);
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Watches the loop, as long as there is one.
pub(super) fn watch(heart: &Heart) -> std::io::Result<()> {
    heart.watch(LOOK, failpoints::duration("step-max-s", STEP_MAX), end)
}

/// At once: to end in order may get stuck as well.
fn end(Stuck { doing, time }: Stuck) {
    log::error!("stuck for {}, {doing}: ending, to be restarted", lasting(time));
    low_level::exit(Status::Failed as i32);
}
