//! Two netlink sockets: one that asks, and one that is told. Neither waits long, and neither believes a stranger.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, sendto, socket_with};

use super::super::CounterError;
use super::messages::{Body, Messages};

/// Where the kernel sends from, and where it is asked.
const KERNEL_PORT: u32 = 0;
/// `RTMGRP_LINK` of uapi/linux/rtnetlink.h: changes of links.
const GROUP_LINK: u32 = 1;
/// How long an answer may take. The kernel answers while it is asked; only what stands in its place can be late.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// A dump's datagrams have at most 32 KiB (netlink(7)'s kernel, af_netlink.c); a single message may be longer.
const BUFFER_BYTES: usize = 32 << 10;
const BUFFER_BYTES_MAX: usize = 1 << 20;
/// More datagrams than any answer has: a million links, 100 to a datagram.
const DATAGRAMS_MAX: usize = 10_000;
/// Datagrams in a row that may be passed over: interrupted calls, strangers.
const PASSED_OVER_MAX: usize = 100;

/// The memory that datagrams are received in; it grows to the longest that comes.
#[derive(Debug)]
pub(super) struct Buffer(Vec<u8>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; BUFFER_BYTES])
    }
}

/// Why no datagram was received.
enum Missed {
    /// It was longer than the buffer, which has grown for the next.
    CutOff,
    Failed(Errno),
}

impl Buffer {
    #[cfg(test)]
    pub(super) fn of(bytes: usize) -> Self {
        Self(vec![0; bytes])
    }

    /// Receives one datagram of the kernel's.
    #[inline]
    fn receive(&mut self, socket: &OwnedFd, flags: RecvFlags) -> Result<&[u8], Missed> {
        for _ in 0..PASSED_OVER_MAX {
            let (_, length, sender) = match recvfrom(socket, self.0.as_mut_slice(), flags | RecvFlags::TRUNC) {
                Err(Errno::INTR) => continue,
                received => received.map_err(Missed::Failed)?,
            };
            let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
            if sender.is_none_or(|sender| sender.pid() != KERNEL_PORT) {
                continue;
            }
            if length > self.0.len() {
                if length > BUFFER_BYTES_MAX {
                    return Err(Missed::Failed(Errno::MSGSIZE));
                }
                self.0.resize(length.next_power_of_two(), 0);
                return Err(Missed::CutOff);
            }
            return Ok(&self.0[..length]);
        }
        Err(Missed::Failed(Errno::AGAIN))
    }
}

/// The socket that asks.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// `None` where the last answer was not received to its end: the next must not be taken for it.
    socket: Option<OwnedFd>,
    seq: u32,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was answered.
    Whole,
    /// It was answered, and what was dumped changed meanwhile: some may be missing, some may be there twice.
    Interrupted,
    /// The answer was longer than the buffer, which has grown.
    CutOff,
}

/// When an answer is at its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// At the message that says so.
    Done,
    /// After one message for each of so many requests.
    Replies(u32),
}

impl Requests {
    /// Asks for a dump; `take` gets what it says.
    pub(super) fn dump<const N: usize>(
        &mut self,
        buffer: &mut Buffer,
        request: impl FnOnce(u32) -> [u8; N],
        take: impl FnMut(Body<'_>),
    ) -> Result<Answer, CounterError> {
        let request = request(self.seq.wrapping_add(1));
        self.exchange(buffer, &request, Until::Done, take)
    }

    /// Sends several requests at once, each answered by one message; `set_seq` numbers them from what it is given.
    pub(super) fn each(
        &mut self,
        buffer: &mut Buffer,
        requests: &mut [u8],
        count: u32,
        set_seq: impl FnOnce(&mut [u8], u32),
        take: impl FnMut(Body<'_>),
    ) -> Result<Answer, CounterError> {
        set_seq(requests, self.seq.wrapping_add(1));
        self.exchange(buffer, requests, Until::Replies(count), take)
    }

    fn exchange(
        &mut self,
        buffer: &mut Buffer,
        request: &[u8],
        until: Until,
        take: impl FnMut(Body<'_>),
    ) -> Result<Answer, CounterError> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open(0, SocketFlags::empty())?,
        };
        let first = self.seq.wrapping_add(1);
        self.seq = self.seq.wrapping_add(if let Until::Replies(count) = until { count } else { 1 });
        let seqs = self.seq.wrapping_sub(first);
        sendto(&socket, request, SendFlags::empty(), &SocketAddrNetlink::new(KERNEL_PORT, 0))
            .map_err(|e| CounterError::system("asking the kernel by netlink", e))?;
        let answer = receive_answer(&socket, buffer, |seq| seq.wrapping_sub(first) <= seqs, until, take)?;
        if answer != Answer::CutOff {
            self.socket = Some(socket);
        }
        Ok(answer)
    }
}

fn receive_answer(
    socket: &OwnedFd,
    buffer: &mut Buffer,
    ours: impl Fn(u32) -> bool,
    until: Until,
    mut take: impl FnMut(Body<'_>),
) -> Result<Answer, CounterError> {
    let mut answer = Answer::Whole;
    let mut left = if let Until::Replies(count) = until { count } else { 1 };
    for _ in 0..DATAGRAMS_MAX {
        if left == 0 {
            return Ok(answer);
        }
        let datagram = match buffer.receive(socket, RecvFlags::empty()) {
            Ok(datagram) => datagram,
            Err(Missed::CutOff) => return Ok(Answer::CutOff),
            Err(Missed::Failed(errno)) => return Err(CounterError::system("waiting for the kernel's answer", errno)),
        };
        for message in Messages::new(datagram) {
            let message = message.map_err(|_| CounterError::Malformed("a wrong length"))?;
            if !ours(message.seq) {
                continue;
            }
            if message.interrupted {
                answer = Answer::Interrupted;
            }
            match (message.body, until) {
                (Body::Done, _) => left = 0,
                // A link that went away since it was last heard of.
                (Body::Error(errno), Until::Replies(_)) if errno == Errno::NODEV.raw_os_error() => left -= 1,
                (Body::Error(errno), _) => {
                    let error = io::Error::from_raw_os_error(errno);
                    return Err(CounterError::system("the kernel refuses to answer by netlink", error));
                }
                (body, Until::Done) => take(body),
                (body, Until::Replies(_)) => {
                    left = left.saturating_sub(1);
                    take(body);
                }
            }
        }
    }
    Err(CounterError::Malformed("an answer without end"))
}

/// The socket that is told.
#[derive(Debug)]
pub(super) struct Events {
    socket: OwnedFd,
}

/// What was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Something, and there may be more.
    Something,
    /// Nothing more for now.
    Nothing,
    /// Something was lost.
    Lost,
}

impl Events {
    /// From now on the kernel tells of links.
    pub(super) fn open() -> Result<Self, CounterError> {
        Ok(Self { socket: open(GROUP_LINK, SocketFlags::NONBLOCK)? })
    }

    /// Hands over one datagram's messages, without waiting.
    pub(super) fn next(&self, buffer: &mut Buffer, mut take: impl FnMut(Body<'_>)) -> Result<Told, CounterError> {
        let datagram = match buffer.receive(&self.socket, RecvFlags::empty()) {
            Ok(datagram) => datagram,
            Err(Missed::Failed(Errno::AGAIN)) => return Ok(Told::Nothing),
            Err(Missed::CutOff | Missed::Failed(Errno::NOBUFS)) => return Ok(Told::Lost),
            Err(Missed::Failed(errno)) => return Err(CounterError::system("listening for changes of links", errno)),
        };
        for message in Messages::new(datagram) {
            match message {
                Ok(message) => take(message.body),
                Err(_) => return Ok(Told::Lost),
            }
        }
        Ok(Told::Something)
    }
}

/// The protocol `None` is `NETLINK_ROUTE`.
fn open(groups: u32, flags: SocketFlags) -> Result<OwnedFd, CounterError> {
    let opened = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC | flags, None);
    opened
        .and_then(|socket| {
            set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WITHIN))?;
            bind(&socket, &SocketAddrNetlink::new(0, groups))?;
            Ok(socket)
        })
        .map_err(|e| CounterError::system("opening a netlink socket", e))
}
