//! Faults, injected for real: a few rounds of each in every run of the tests, and many by `tests/run --faults`.

mod broker;
mod clocks;
mod database;
mod disk;
mod groups;
mod journal;
mod kills;
mod order;
mod points;
mod poison;
mod topics;
