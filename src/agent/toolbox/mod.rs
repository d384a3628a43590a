//! Tools beside the agent: what `simulate`, `replay` and `topics` do behind their flags.

mod fleet_journal;
pub mod replay;
pub mod sender;
pub mod simulate;
pub mod sinks;
pub mod topics;

pub use self::fleet_journal::FleetJournal;
