//! All integration tests, in one program.

mod support;

mod counters;
