//! Points at which a test ends or stops the program, and guards that a test removes to show that the suite detects it.
//!
//! Only builds with the cargo feature `failpoints`, never a release, read `FAILPOINTS`, parsed by [`fail`](https://docs.rs/fail):
//! ```text
//! FAILPOINTS='send-before=3*off->return'   killed, as by SIGKILL, at the fourth passing
//! FAILPOINTS='copying=1*return(stop)'      stopped, as by SIGSTOP, until SIGCONT
//! FAILPOINTS='guard-2=return'              runs without that guard
//! ```

use std::time::Duration;

pub fn begin() {
    #[cfg(feature = "failpoints")]
    on::begin();
}

#[inline]
pub fn hit(_point: &str) {
    #[cfg(feature = "failpoints")]
    on::hit(_point);
}

#[inline]
pub fn value(_name: &str) -> Option<String> {
    #[cfg(feature = "failpoints")]
    return on::value(_name);
    #[cfg(not(feature = "failpoints"))]
    None
}

pub fn number(name: &str, usual: u64) -> u64 {
    value(name).and_then(|number| number.parse().ok()).unwrap_or(usual)
}

pub fn duration(name: &str, usual: Duration) -> Duration {
    value(name).and_then(|seconds| seconds.parse().ok()).map_or(usual, Duration::from_secs)
}

#[inline]
pub fn is_disabled(guard: &str) -> bool {
    value(guard).is_some()
}

pub fn unless_disabled(guard: &str, clause: &str, sql: &str) -> String {
    if is_disabled(guard) { sql.replace(clause, "") } else { sql.to_owned() }
}

#[cfg(feature = "failpoints")]
mod on {
    use std::sync::Once;

    use fail::{FailScenario, fail_point};
    use signal_hook::consts::{SIGKILL, SIGSTOP};
    use signal_hook::low_level::raise;

    pub(super) fn begin() {
        static BEGUN: Once = Once::new();
        BEGUN.call_once(|| std::mem::forget(FailScenario::setup()));
    }

    pub(super) fn hit(point: &str) {
        fail_point!(point, |how: Option<String>| {
            let signal = if how.as_deref() == Some("stop") { SIGSTOP } else { SIGKILL };
            raise(signal).expect("a process may signal itself");
        });
    }

    pub(super) fn value(name: &str) -> Option<String> {
        fail_point!(name, |value: Option<String>| Some(value.unwrap_or_default()));
        None
    }
}
