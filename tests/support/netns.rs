//! Network namespaces: links of a test's own, on the real kernel.
//!
//! Entering a namespace needs a call that safe Rust does not have: the test runs itself again by `ip netns exec`, and there runs
//! its body.

use std::process::{Command, Output};

use super::skips::skip;

/// Name of the namespace, in the process within it.
const INSIDE: &str = "HIGHWATER_TEST_NETNS";

/// Runs `body` in a new network namespace, whose only link is a loopback that is down. `test` is the calling test's full name, as
/// in `counters::links_come_and_go`. Without namespaces the test is skipped.
pub(crate) fn inside(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let Some(namespace) = Namespace::new() else { return skip(test, "needs network namespaces") };
    let program = std::env::current_exe().expect("the test knows its own path");
    let output = Command::new("ip")
        .args(["netns", "exec", &namespace.name])
        .arg(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, &namespace.name)
        .output()
        .expect("ip ran before");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // A wrong name runs no test, and succeeds.
    assert!(output.status.success() && out.contains("1 passed"), "{test}, in a namespace:\n{out}\n{err}");
}

/// Runs `ip` with these arguments, separated by spaces.
pub(crate) fn ip(arguments: &str) {
    let output = run(arguments).expect("ip can be run");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns whether the kernel supports this `ip` command.
pub(crate) fn ip_can(arguments: &str) -> bool {
    run(arguments).is_ok_and(|output| output.status.success())
}

/// A namespace, until it is dropped.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    /// `None` where that is not permitted.
    pub(crate) fn new() -> Option<Self> {
        let name = format!("hwt-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let made = ip_can(&format!("netns add {name}")).then_some(Self { name })?;
        ip_can(&format!("netns exec {} true", made.name)).then_some(made)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(&format!("netns del {}", self.name));
    }
}

fn run(arguments: &str) -> std::io::Result<Output> {
    Command::new("ip").args(arguments.split_whitespace()).output()
}
