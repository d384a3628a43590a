//! Points where a test ends or stops the program, and guards that a test takes out, to show that the suite finds it.
//!
//! Only programs built with the cargo feature `failpoints` have them, which no release has: `tests/run` builds such programs
//! beside those that it ships. In all others the functions here are empty, and `FAILPOINTS` means nothing.
//!
//! The variable has the grammar of the crate [`fail`](https://docs.rs/fail):
//!
//! ```text
//! FAILPOINTS='send-before=3*off->return'   killed, as by SIGKILL, at the fourth passing
//! FAILPOINTS='copying=1*return(stop)'      stopped, as by SIGSTOP, until SIGCONT
//! FAILPOINTS='guard-2-out=return'          runs without that guard
//! ```

use std::time::Duration;

/// Takes over what the environment says. Before anything else; a second call changes nothing.
pub fn begin() {
    #[cfg(feature = "failpoints")]
    on::begin();
}

/// Here a test may end or stop the program.
#[inline]
pub fn pass(_point: &str) {
    #[cfg(feature = "failpoints")]
    on::pass(_point);
}

/// What a test says under this name instead of what is usual.
#[inline]
pub fn instead(_name: &str) -> Option<String> {
    #[cfg(feature = "failpoints")]
    return on::instead(_name);
    #[cfg(not(feature = "failpoints"))]
    None
}

/// The seconds that a test gives under this name instead of the `usual`.
pub fn duration(name: &str, usual: Duration) -> Duration {
    instead(name).and_then(|seconds| seconds.parse().ok()).map_or(usual, Duration::from_secs)
}

/// Whether a test has taken this guard out.
#[inline]
pub fn is_out(guard: &str) -> bool {
    instead(guard).is_some()
}

/// `sql` without `clause`, where a test has taken this guard out.
pub fn unless_out(guard: &str, clause: &str, sql: &str) -> String {
    if is_out(guard) { sql.replace(clause, "") } else { sql.to_owned() }
}

#[cfg(feature = "failpoints")]
mod on {
    use std::sync::Once;

    use fail::{FailScenario, fail_point};
    use signal_hook::consts::{SIGKILL, SIGSTOP};
    use signal_hook::low_level::raise;

    pub(super) fn begin() {
        static BEGUN: Once = Once::new();
        // It lasts as long as the process.
        BEGUN.call_once(|| std::mem::forget(FailScenario::setup()));
    }

    pub(super) fn pass(point: &str) {
        fail_point!(point, |how: Option<String>| {
            let signal = if how.as_deref() == Some("stop") { SIGSTOP } else { SIGKILL };
            raise(signal).expect("a process may signal itself");
        });
    }

    pub(super) fn instead(name: &str) -> Option<String> {
        fail_point!(name, |value: Option<String>| Some(value.unwrap_or_default()));
        None
    }
}
