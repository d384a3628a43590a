//! A netlink socket for requests and for changes reported by the kernel, in one queue: a second socket would make a reading a tenth
//! slower. The kernel answers during the call that sends the request. The socket is connected to it, so that no other process can
//! send (netlink_getsockbyportid in af_netlink.c), unless it may change links itself.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send, socket_with,
};

use super::super::CounterError;
use super::messages::{Messages, NetlinkBody};

const KERNEL: SocketAddrNetlink = SocketAddrNetlink::new(0, 0);
const GROUP_LINK: u32 = 1;
/// The kernel is never late, but an emulation of it can be.
const ANSWER_WITHIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
/// Most that the kernel fills of a dump at once (netlink_recvmsg in af_netlink.c); a single message may be longer.
const BUFFER_BYTES: usize = 32 << 10;
const BUFFER_BYTES_MAX: usize = 1 << 20;
/// Datagrams, more than any answer has: a million links, 100 to a datagram.
const DATAGRAMS_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct Buffer(Vec<u8>);

impl Default for Buffer {
    fn default() -> Self {
        Self::of(BUFFER_BYTES)
    }
}

impl Buffer {
    pub(super) fn of(bytes: usize) -> Self {
        Self(vec![0; bytes])
    }
}

#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    seq: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NetlinkReply {
    Whole,
    Interrupted,
    /// Receive queue overflowed, or buffer too small, and now grown. The socket is unusable.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    Done,
    Replies(u32),
    Empty,
}

impl Socket {
    pub(super) fn open() -> Result<Self, CounterError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)
            .and_then(|fd| {
                bind(&fd, &SocketAddrNetlink::new(0, GROUP_LINK))?;
                connect(&fd, &KERNEL)?;
                Ok(Self { fd, seq: 0 })
            })
            .map_err(|e| CounterError::system("opening a netlink socket", e))
    }

    pub(super) fn next_seq(&self) -> u32 {
        self.seq.wrapping_add(1)
    }

    /// Passes the answer and changes reported meanwhile to `take`. The socket is unusable after an error.
    pub(super) fn exchange(
        &mut self,
        buffer: &mut Buffer,
        requests: &[u8],
        until: Until,
        mut take: impl FnMut(NetlinkBody<'_>),
    ) -> Result<NetlinkReply, CounterError> {
        let first = self.next_seq();
        let count = match until {
            Until::Done => 1,
            Until::Replies(count) => count,
            Until::Empty => 0,
        };
        self.seq = self.seq.wrapping_add(count);
        if !requests.is_empty() {
            send(&self.fd, requests, SendFlags::empty())
                .map_err(|e| CounterError::system("sending a netlink request", e))?;
        }
        let mut answer = NetlinkReply::Whole;
        let mut left = count;
        for _ in 0..DATAGRAMS_MAX {
            if left == 0 && until != Until::Empty {
                return Ok(answer);
            }
            let datagram = match self.receive(buffer) {
                Ok(datagram) => datagram,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) if until == Until::Empty => return Ok(answer),
                Err(Errno::AGAIN) => {
                    self.wait()?;
                    continue;
                }
                Err(Errno::NOBUFS) => return Ok(NetlinkReply::Lost),
                Err(errno) => return Err(CounterError::system("waiting for the kernel's answer by netlink", errno)),
            };
            for message in Messages::new(datagram) {
                let message =
                    message.map_err(|_| CounterError::Malformed("the length of a message or attribute is wrong"))?;
                // A change requested by another process has the number of that process's request.
                let ours = message.seq.wrapping_sub(first) < count;
                match message.body {
                    NetlinkBody::NewLink(_) | NetlinkBody::DelLink(_) => take(message.body),
                    NetlinkBody::Other => {}
                    _ if !ours => {}
                    NetlinkBody::Stats(_) => {
                        left = left.saturating_sub(u32::from(until != Until::Done));
                        take(message.body);
                    }
                    NetlinkBody::Done => left = 0,
                    // The link was removed since the last report of it.
                    NetlinkBody::Error(errno) if until != Until::Done && errno == Errno::NODEV.raw_os_error() => {
                        left = left.saturating_sub(1);
                    }
                    NetlinkBody::Error(errno) => {
                        let error = io::Error::from_raw_os_error(errno);
                        return Err(CounterError::system("the kernel refused a netlink request", error));
                    }
                }
                if ours && message.interrupted {
                    answer = NetlinkReply::Interrupted;
                }
            }
        }
        Err(CounterError::Malformed("it does not end"))
    }

    /// Returns one datagram, if there is one. A truncated one makes the buffer grow, and counts as lost.
    fn receive<'a>(&self, buffer: &'a mut Buffer) -> Result<&'a [u8], Errno> {
        let (_, length) = recv(&self.fd, buffer.0.as_mut_slice(), RecvFlags::TRUNC)?;
        if length > buffer.0.len() {
            if length > BUFFER_BYTES_MAX {
                return Err(Errno::MSGSIZE);
            }
            buffer.0.resize(length.next_power_of_two(), 0);
            return Err(Errno::NOBUFS);
        }
        Ok(&buffer.0[..length])
    }

    fn wait(&self) -> Result<(), CounterError> {
        let mut answers = [PollFd::new(&self.fd, PollFlags::IN)];
        match poll(&mut answers, Some(&ANSWER_WITHIN)) {
            Ok(0) => Err(Errno::TIMEDOUT),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
        .map_err(|errno| CounterError::system("waiting for the kernel's answer by netlink", errno))
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{getsockname, sendto};

    use super::*;
    use crate::process::clock::{Clock as _, SystemClock};

    #[test]
    fn a_stranger_is_not_heard() {
        let socket = Socket::open().unwrap();
        let ours = SocketAddrNetlink::try_from(getsockname(&socket.fd).unwrap()).unwrap();
        let stranger = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).unwrap();
        let sent = sendto(&stranger, &[0; 20], SendFlags::empty(), &SocketAddrNetlink::new(ours.pid(), 0));
        // Without privileges the attempt itself may be refused.
        assert!(matches!(sent, Err(Errno::CONNREFUSED | Errno::PERM)), "{sent:?}");
        assert_eq!(socket.receive(&mut Buffer::default()), Err(Errno::AGAIN));
    }

    #[test]
    fn an_answer_that_does_not_come_is_not_waited_for_long() {
        let mut socket = Socket::open().unwrap();
        let clock = SystemClock::default();
        let start = clock.monotonic();
        let error = socket.exchange(&mut Buffer::default(), &[], Until::Done, |_| {}).unwrap_err();
        assert!(crate::process::exit::chain(&error).contains("timed out"), "{error:?}");
        assert!((400..900).contains(&(clock.monotonic() - start).as_millis()));
    }
}
