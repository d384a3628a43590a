//! Wakes the loop between its ticks: for signals, the publisher's thread, and programs that embed an agent.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

#[derive(Debug)]
pub struct SignalPipe {
    requests: Requests,
    reader: UnixStream,
    writer: UnixStream,
}

#[derive(Clone, Debug, Default)]
struct Requests {
    stop: Arc<AtomicBool>,
    flush: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

#[derive(Debug)]
pub struct Waker(UnixStream);

#[derive(Debug)]
pub struct StopHandle(Requests, Waker);

impl SignalPipe {
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Self { requests: Requests::default(), reader, writer })
    }

    pub fn listen_to_signals(&self) -> io::Result<()> {
        let Requests { stop, flush, reload } = &self.requests;
        for (signal, request) in [(SIGTERM, stop), (SIGINT, stop), (SIGUSR1, flush), (SIGHUP, reload)] {
            signal_hook::flag::register(signal, Arc::clone(request))?;
            signal_hook::low_level::pipe::register(signal, self.writer.try_clone()?)?;
        }
        Ok(())
    }

    pub fn waker(&self) -> io::Result<Waker> {
        Ok(Waker(self.writer.try_clone()?))
    }

    pub fn stop_handle(&self) -> io::Result<StopHandle> {
        Ok(StopHandle(self.requests.clone(), self.waker()?))
    }

    pub fn sleep(&self, timeout: Duration) {
        self.wait(None, timeout);
    }

    /// Sleeps until woken, or until `listener` is readable: then returns true.
    pub fn wait(&self, listener: Option<BorrowedFd<'_>>, timeout: Duration) -> bool {
        let timeout = Timespec::try_from(timeout).ok();
        let requests = self.reader.as_fd();
        let mut fds = [requests, listener.unwrap_or(requests)].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        // EINTR means a signal, whose byte is in the pipe by now.
        if matches!(poll(&mut fds, timeout.as_ref()), Ok(0)) {
            return false;
        }
        let mut bytes = [0; 256];
        while matches!((&self.reader).read(&mut bytes), Ok(count) if count == bytes.len()) {}
        listener.is_some() && !fds[1].revents().is_empty()
    }

    pub fn stop_requested(&self) -> bool {
        self.requests.stop.load(Ordering::Relaxed)
    }

    pub fn take_flush_request(&self) -> bool {
        self.requests.flush.swap(false, Ordering::Relaxed)
    }

    pub fn take_reload_request(&self) -> bool {
        self.requests.reload.swap(false, Ordering::Relaxed)
    }
}

impl Waker {
    /// Ignores a full pipe: the loop wakes anyway.
    pub fn wake(&self) {
        let _ = (&self.0).write(&[0]);
    }
}

impl StopHandle {
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
        self.1.wake();
    }
}
