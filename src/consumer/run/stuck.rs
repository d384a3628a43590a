//! Ends a process that is stuck: in a call that no time-out bounds, since a server is paused or a connection drops its packets.
//! Ending loses nothing, and the restarted process connects again.

use std::time::Duration;

use signal_hook::low_level;

use crate::exit::Status;
use crate::failpoints;
use crate::units::lasting;
use crate::watchdog::{Heart, Stuck};

/// Longest step of a round; PostgreSQL ends a statement after two minutes at the latest.
const STEP_MAX: Duration = Duration::from_secs(5 * 60);
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn watch(heart: &Heart) -> std::io::Result<()> {
    heart.watch(LOOK, failpoints::duration("step-max-s", STEP_MAX), end)
}

/// Exits at once: an orderly end may get stuck as well.
fn end(Stuck { doing, time }: Stuck) {
    log::error!("stuck for {}, {doing}: ending, to be restarted", lasting(time));
    low_level::exit(Status::Failed as i32);
}
