//! The socket on which an agent reports its state: one JSON object to each client, without a request. The loop never waits: an
//! answer fits into the kernel's buffer of a connection, and is written at once or not at all.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use log::warn;

use super::StatusReport;

const CLIENTS_AT_ONCE: usize = 16;
const RETRY: Duration = Duration::from_secs(30);
const ANSWER_MAX: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug)]
pub struct StatusSocket {
    path: PathBuf,
    listener: Option<UnixListener>,
    accept_paused: bool,
    retry_at: Duration,
}

#[derive(Debug)]
pub struct Client(UnixStream);

#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("nothing listens")]
    NotRunning,
    #[error("permission denied")]
    Denied,
    #[error("no answer")]
    Silent,
    #[error("this is not an agent's answer: {0}")]
    Garbled(String),
}

/// Returns the path in `$RUNTIME_DIRECTORY` (systemd's `RuntimeDirectory=`), or else in the state directory.
pub fn socket_path(runtime: Option<&Path>, state_dir: &Path) -> PathBuf {
    runtime.unwrap_or(state_dir).join("agent.sock")
}

impl StatusSocket {
    pub fn open(path: PathBuf, now: Duration) -> Self {
        let listener = listen(&path)
            .inspect_err(|error| warn!("`highwater-agent status` will get no answer: {}: {error}", path.display()))
            .ok();
        Self { path, listener, accept_paused: false, retry_at: now + RETRY }
    }

    /// Accepts clients again, and retries a socket that could not be made; to be called each tick.
    pub fn upkeep(&mut self, now: Duration) {
        self.accept_paused = false;
        if self.listener.is_none() && now >= self.retry_at {
            self.retry_at = now + RETRY;
            self.listener = listen(&self.path).ok();
        }
    }

    pub fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().filter(|_| !self.accept_paused).map(UnixListener::as_fd)
    }

    pub fn clients(&mut self) -> Vec<Client> {
        let mut clients = Vec::new();
        let Some(listener) = self.listener.as_ref().filter(|_| !self.accept_paused) else { return clients };
        while clients.len() < CLIENTS_AT_ONCE {
            match listener.accept() {
                Ok((client, _)) => clients.push(Client(client)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Without a free file descriptor, polling the socket would wake the loop again and again.
                Err(_) => {
                    self.accept_paused = true;
                    break;
                }
            }
        }
        clients
    }
}

impl Client {
    /// Writes the answer, unless the client has gone or its buffer is too small.
    pub fn answer(mut self, answer: &[u8]) {
        let _ = self.0.set_nonblocking(true).and_then(|()| self.0.write_all(answer));
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        if self.listener.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Creates a socket for its owner only, renamed into place, so that it replaces that of a killed agent.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(ErrorKind::AddrInUse, "another agent answers there"));
    }
    let part = path.with_extension("new");
    match fs::remove_file(&part) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&part)?;
    fs::set_permissions(&part, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    fs::rename(&part, path)?;
    Ok(listener)
}

pub fn ask(path: &Path) -> Result<StatusReport, NoAnswer> {
    ask_within(path, ANSWER_MAX)
}

fn ask_within(path: &Path, longest: Duration) -> Result<StatusReport, NoAnswer> {
    let (sender, answer) = channel();
    let path = path.to_owned();
    // A thread can be abandoned: connecting to an agent that accepts no connection blocks forever.
    std::thread::spawn(move || sender.send(read(&path)));
    let text = answer.recv_timeout(longest).map_err(|_| NoAnswer::Silent)?;
    match text {
        // The agent has just ended.
        Ok(text) if text.is_empty() => Err(NoAnswer::NotRunning),
        Ok(text) => serde_json::from_slice(&text).map_err(|error| NoAnswer::Garbled(error.to_string())),
        Err(error) => Err(match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => NoAnswer::NotRunning,
            ErrorKind::PermissionDenied => NoAnswer::Denied,
            _ => NoAnswer::Garbled(error.to_string()),
        }),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    UnixStream::connect(path)?.take(ANSWER_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn answer() -> Vec<u8> {
        StatusReport { pid: Some(7), ..StatusReport::default() }.to_json()
    }

    fn asked(socket: &mut StatusSocket) -> StatusReport {
        let path = socket.path.clone();
        let asking = std::thread::spawn(move || ask(&path));
        while !asking.is_finished() {
            socket.clients().into_iter().for_each(|client| client.answer(&answer()));
            std::thread::yield_now();
        }
        asking.join().unwrap().unwrap()
    }

    #[test]
    fn a_stale_socket_is_replaced_and_the_own_one_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = socket_path(None, directory.path());
        drop(UnixListener::bind(&path).unwrap());
        assert!(matches!(ask(&path), Err(NoAnswer::NotRunning)), "whoever bound it is gone");
        let mut socket = StatusSocket::open(path.clone(), NOW);
        assert_eq!(asked(&mut socket).pid, Some(7));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "and nothing beside it");
        drop(socket);
        assert!(!path.exists());
        assert!(matches!(ask(&path), Err(NoAnswer::NotRunning)));
    }

    #[test]
    fn one_that_answers_already_keeps_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = socket_path(None, directory.path());
        let mut first = StatusSocket::open(path.clone(), NOW);
        let second = StatusSocket::open(path, NOW);
        assert!(second.listener().is_none());
        drop(second);
        assert_eq!(asked(&mut first).pid, Some(7));
    }

    #[test]
    fn a_socket_that_could_not_be_made_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("state");
        let mut socket = StatusSocket::open(socket_path(None, &missing), NOW);
        assert!(socket.listener().is_none());
        fs::create_dir(&missing).unwrap();
        socket.upkeep(NOW + RETRY / 2);
        assert!(socket.listener().is_none());
        socket.upkeep(NOW + RETRY);
        assert_eq!(asked(&mut socket).pid, Some(7));
    }

    #[test]
    fn who_connects_and_never_reads_is_not_waited_for_and_many_are_taken_in_turns() {
        let directory = tempfile::tempdir().unwrap();
        let path = socket_path(None, directory.path());
        let mut socket = StatusSocket::open(path.clone(), NOW);
        assert!(socket.clients().is_empty(), "nobody is there");
        let waiting: Vec<UnixStream> = (0..2 * CLIENTS_AT_ONCE).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let first = socket.clients();
        assert_eq!(first.len(), CLIENTS_AT_ONCE);
        let more_than_the_kernel_keeps = vec![b' '; 8 << 20];
        first.into_iter().for_each(|client| client.answer(&more_than_the_kernel_keeps));
        let rest = socket.clients();
        assert_eq!(rest.len(), CLIENTS_AT_ONCE);
        rest.into_iter().for_each(|client| client.answer(&answer()));
        let mut text = String::new();
        waiting.last().unwrap().read_to_string(&mut text).unwrap();
        assert!(text.contains("\"pid\":7"), "{text}");
    }

    #[test]
    fn an_agent_that_stands_still_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = socket_path(None, directory.path());
        let socket = StatusSocket::open(path.clone(), NOW);
        assert!(matches!(ask_within(&path, Duration::from_millis(20)), Err(NoAnswer::Silent)));
        drop(socket);
    }

    #[test]
    fn what_is_no_answer_is_said_to_be_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = socket_path(None, directory.path());
        let listener = UnixListener::bind(&path).unwrap();
        let other = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"220 mail.example ESMTP\r\n"));
        assert!(matches!(ask(&path), Err(NoAnswer::Garbled(_))));
        other.join().unwrap().unwrap();
    }
}
