mod table;

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::common::Common;
use crate::agent::journal::{JournalError, Snapshot, is_held};
use crate::agent::status::{NoAnswer, StatusReport, ask, socket_path};
use crate::cli::output::{self, OutputFormat, Rows, Value};
use crate::process::clock::{Clock as _, SystemClock};
use crate::process::exit::{Failure, Status as Exit, chain};
use crate::process::host::machine_id;
use crate::process::systemd::Directories;

pub(super) const HELP: &str = "\
Queries the running agent on agent.sock in $RUNTIME_DIRECTORY, in the state
directory or in /run/highwater. If none is running, it reads a copy of the
journal and changes nothing: what waits for Kafka, and which breaches are open.

  pending       events in the journal that Kafka has not acknowledged
  last flush    when the journal was last empty: Kafka had acknowledged all
  acknowledged  the last offset that Kafka acknowledged, for each partition
                written to since the start
  errors        number of errors since the start, and the last one
  problem       what is wrong now, and for how long

Then each watched link, the busiest first:

  state         up or down, as reported by the kernel
  speed         nominal speed; ? if the traffic has exceeded it
  rx, tx        bits per second in the last reading; - if it was not evaluated
  limit         the lowest on the link; `waits` if it is a percentage of an
                unknown speed
  unjudged      readings on which no limit was evaluated, by reason:
                learning  how often the driver updates its counters is not
                          known yet
                waiting   the counters did not change, and the next change may
                          cover this time too
                reset     a counter fell, or changed for the first time since
                jump      more bytes than a link, or that many packets, can
                          carry
                suspect   above the speed, and not confirmed by the packets:
                          held back twice at most
                gap       the host slept, or the agent did not run in time
                unread    the counters of this link could not be read
                The last five are logged too, at most once a minute for each
                link; the first two are normal for some drivers.

JSON is one object, as the agent sends it (without this program:
`socat - UNIX-CONNECT:/run/highwater/agent.sock`); CSV is one row with the same
columns. Times are UTC; what is unknown is null.

Both directories belong to the service's user, so run it as root:
`sudo highwater-agent status`.

Exit code: 0 if the agent runs without problems; 1 if it does not run, or has a
problem; 69 if it could not be reached: no permission, or no answer.

Examples:
  highwater-agent status
  highwater-agent status -c /etc/highwater/wan2.toml
  highwater-agent status --format json | jq '.pending, .last_offsets'
  highwater-agent status --format json |
    jq -r '.breaches[] | [.interface, .limit_name, .peak_bps] | @tsv'
  watch -n 5 highwater-agent status";

#[derive(Args, Debug)]
pub(super) struct StatusCommand {
    #[command(flatten)]
    common: Common,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: OutputFormat,
}

/// Directory of a service's socket, other than the caller's `$RUNTIME_DIRECTORY`, if any. Under systemd /var/run is /run, which
/// OpenWrt does not have.
const SERVICE_RUNTIME: &str = "/var/run/highwater";
/// Longest time between an agent's lock and its socket, at the start or at the end.
const BETWEEN_MAX: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

const COLUMNS: &[&str] = &[
    "state",
    "healthy",
    "asked_at",
    "agent",
    "version",
    "pid",
    "started_at",
    "state_dir",
    "kept_on",
    "epoch",
    "next_seq",
    "pending",
    "pending_bytes",
    "oldest_at",
    "source",
    "limits",
    "interval_ms",
    "last_tick_at",
    "ticks",
    "skipped_ticks",
    "topic",
    "brokers",
    "last_flush_at",
    "flushing_since",
    "next_flush_at",
    "delivered",
    "rejected",
    "lost",
    "lost_evicted",
    "lost_expired",
    "lost_rejected",
    "lost_damaged",
    "retries",
    "last_offsets",
    "errors",
    "last_error_at",
    "last_error",
    "troubles",
    "open_breaches",
    "breaches",
    "watched_links",
    "links",
];

impl StatusCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.common.start_log();
        let state_dir = self.common.state_dir().map_err(Failure::config)?;
        let found = find(&state_dir, Directories::from_environment().runtime.as_deref())?;
        output::finished(print(&found, self.format))?;
        verdict(&found)
    }
}

fn verdict(report: &StatusReport) -> Result<(), Failure> {
    match (report.running(), report.troubles.len()) {
        (true, 0) => Ok(()),
        (true, 1) => Err(Failure::failed("the agent runs, and has a problem")),
        (true, troubles) => Err(Failure::failed(format!("the agent runs, and has {troubles} problems"))),
        (false, _) => Err(Failure::failed(format!(
            "no agent runs on {}; start it: systemctl start highwater-agent, or highwater-agent run",
            report.state_dir.display()
        ))),
    }
}

fn find(state_dir: &Path, runtime: Option<&Path>) -> Result<StatusReport, Failure> {
    let clock = SystemClock::default();
    let until = clock.monotonic() + BETWEEN_MAX;
    loop {
        let denied = match answer(state_dir, runtime)? {
            Ok(report) => return Ok(report),
            Err(denied) => denied,
        };
        if !is_held(state_dir).map_err(|error| unreadable(error, state_dir))? {
            let report = left(state_dir, &clock)?;
            // An agent that started meanwhile was changing the files.
            if !is_held(state_dir).map_err(|error| unreadable(error, state_dir))? {
                return Ok(report);
            }
        }
        if let Some(socket) = denied {
            return Err(permission(&socket));
        }
        if clock.monotonic() >= until {
            return Err(unavailable(format!(
                "an agent runs on {} (it holds agent.lock), but does not answer on agent.sock; see its log",
                state_dir.display()
            )));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Asks at each path where the agent may listen; otherwise returns the socket that this user may not connect to, if any.
fn answer(state_dir: &Path, runtime: Option<&Path>) -> Result<Result<StatusReport, Option<PathBuf>>, Failure> {
    let mut denied = None;
    for runtime in [runtime, None, Some(Path::new(SERVICE_RUNTIME))] {
        let socket = socket_path(runtime, state_dir);
        match ask(&socket) {
            Ok(report) if same(&report.state_dir, state_dir) => return Ok(Ok(report)),
            Ok(_) | Err(NoAnswer::NotRunning) => {}
            Err(NoAnswer::Denied) => denied = Some(socket),
            Err(error @ (NoAnswer::Silent | NoAnswer::Garbled(_))) => {
                return Err(unavailable(format!(
                    "{}: {error}; it may be stuck, waiting for its disk: see its log (journalctl -u highwater-agent)",
                    socket.display()
                )));
            }
        }
    }
    Ok(Err(denied))
}

fn left(state_dir: &Path, clock: &SystemClock) -> Result<StatusReport, Failure> {
    let snapshot = match Snapshot::read(state_dir, &machine_id()) {
        Ok(Some(snapshot)) => snapshot,
        Ok(None) => {
            let message = format!("no agent runs on {}, and none has left a journal there", state_dir.display());
            return Err(Failure::failed(message));
        }
        Err(error @ JournalError::Damaged(_)) => {
            let place = state_dir.display();
            let next = "the next start sets it aside, and saves what can be read";
            return Err(Failure::failed(format!("no agent runs on {place}, and its {}; {next}", chain(&error))));
        }
        Err(error @ JournalError::Newer { .. }) => {
            return Err(Failure::failed(format!("no agent runs on {}: {error}", state_dir.display())));
        }
        Err(error) => return Err(unreadable(error, state_dir)),
    };
    let last = snapshot.open_breaches.last().map(|event| event.stamp.agent.to_string());
    let breaches = snapshot.open_breaches.into_iter();
    let report = StatusReport {
        asked_at: clock.wall(),
        agent: last,
        state_dir: state_dir.to_owned(),
        pending: snapshot.pending.events,
        pending_bytes: snapshot.pending.bytes,
        oldest_at: snapshot.pending.oldest,
        ..StatusReport::default()
    };
    Ok(report.with_breaches(breaches.filter_map(|event| Some((event.body.breach()?.clone(), event.stamp)))))
}

/// Returns true if two paths lead to the same directory: a unit with a dynamic user has two names for its own.
fn same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(a) == real(b)
}

fn unreadable(error: JournalError, state_dir: &Path) -> Failure {
    match &error {
        JournalError::Io { path, source } if source.kind() == ErrorKind::PermissionDenied => permission(path),
        JournalError::Io { path, source } if source.kind() == ErrorKind::NotFound && path == state_dir => {
            Failure::failed(format!(
                "there is no state directory {}: no agent has run with this configuration; -c FILE or HIGHWATER_STATE_DIR names \
                 another",
                state_dir.display()
            ))
        }
        _ => Failure::failed(error),
    }
}

fn permission(path: &Path) -> Failure {
    unavailable(format!(
        "{}: permission denied; ask as root, or as the agent's user: sudo highwater-agent status",
        path.display()
    ))
}

fn unavailable(message: String) -> Failure {
    Failure::new(Exit::Unavailable, message)
}

fn print(report: &StatusReport, format: OutputFormat) -> std::io::Result<()> {
    let mut out = output::stdout(format);
    match format {
        OutputFormat::Table => table::print(report, &mut out),
        OutputFormat::Json => out.write_all(&report.to_json()).and_then(|()| out.flush()),
        OutputFormat::Csv => {
            let object = serde_json::to_value(report)?;
            let mut rows = Rows::new(format, COLUMNS, out);
            rows.push(COLUMNS.iter().map(|column| match &object[column] {
                serde_json::Value::Null => Value::Null,
                serde_json::Value::String(text) => text.as_str().into(),
                other => other.clone().into(),
            }))?;
            rows.end()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_report_has_its_column_in_its_place() {
        let line = String::from_utf8(StatusReport::default().to_json()).unwrap();
        let places: Vec<usize> = COLUMNS.iter().map(|column| line.find(&format!("\"{column}\":")).unwrap()).collect();
        assert!(places.is_sorted());
        assert_eq!(serde_json::to_value(StatusReport::default()).unwrap().as_object().unwrap().len(), COLUMNS.len());
    }
}
