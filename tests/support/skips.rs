//! Tests that are not run here, and say why.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

/// File in which skipped tests are noted.
const SKIPS: &str = "HIGHWATER_TEST_SKIPS";

pub(crate) fn skip(test: &str, why: &str) {
    let line = format!("SKIPPED {test}: {why}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os(SKIPS) {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("skips can be noted");
    }
}

/// Returns address and directory of a server of all tests, by the environment: `HIGHWATER_TEST_` and `name`. Without it the test is
/// skipped.
pub(crate) fn server_or_skip(test: &str, name: &str, needs: &str) -> Option<(String, PathBuf)> {
    let variable = format!("HIGHWATER_TEST_{name}");
    let found = std::env::var(&variable).ok().zip(std::env::var_os(format!("{variable}_DIR")));
    if found.is_none() {
        skip(test, needs);
    }
    found.map(|(address, directory)| (address, directory.into()))
}
