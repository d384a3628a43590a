//! Parts that any daemon needs, which know nothing of bandwidth: its log, exit and signals, systemd, the clock and the host.

pub mod backoff;
pub mod checks;
pub mod clock;
pub mod exit;
pub mod failpoints;
pub mod host;
pub mod log_throttle;
pub mod logging;
pub mod problems;
#[cfg(feature = "agent")]
pub mod random;
pub mod signals;
pub mod systemd;
pub mod watchdog;
