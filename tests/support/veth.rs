//! A link for tests: a veth pair, one end on the host and one in a namespace, and traffic of known size through it.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::netns::{Namespace, ip, ip_can, skip};

/// Bytes that a UDP/IPv4 packet adds to its payload on the link: Ethernet 14, IPv4 20, UDP 8.
pub(crate) const OVERHEAD_BYTES: u64 = 42;
const PAYLOAD_BYTES: usize = 1_000;

pub(crate) struct Veth {
    /// Name of the host's end; 11 bytes, so that there is room for another letter.
    pub(crate) name: String,
    /// Address of the other end.
    peer: String,
    _namespace: Namespace,
}

impl Veth {
    /// Makes a pair with addresses, up; without the right to make one the test is skipped.
    pub(crate) fn or_skip(test: &str) -> Option<Self> {
        let Some(namespace) = Namespace::new() else {
            skip(test, "needs network namespaces");
            return None;
        };
        let name = format!("hw{:08x}", fastrand::u32(..));
        // From the range for benchmarks (RFC 2544), a network for each, so that tests can run side by side.
        let net = format!("198.18.{}", fastrand::u8(..));
        if !ip_can(&format!("link add {name} type veth peer name peer netns {}", namespace.name)) {
            skip(test, "needs veth links");
            return None;
        }
        ip(&format!("addr add {net}.1/24 dev {name}"));
        ip(&format!("link set {name} up"));
        ip(&format!("-n {} addr add {net}.2/24 dev peer", namespace.name));
        ip(&format!("-n {} link set peer up", namespace.name));
        Some(Self { name, peer: format!("{net}.2:9"), _namespace: namespace })
    }

    /// Sends for `duration` at about this rate, and returns the bytes that went over the link.
    pub(crate) fn send(&self, duration: Duration, bps: u64) -> u64 {
        send(&self.peer, duration, bps)
    }
}

/// Sends UDP to an address for `duration` at about this rate, and returns the bytes that went over an Ethernet link.
pub(crate) fn send(address: &str, duration: Duration, bps: u64) -> u64 {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect(address).expect("it is an address");
    let packet_bytes = PAYLOAD_BYTES as u64 + OVERHEAD_BYTES;
    let pause = Duration::from_secs_f64(packet_bytes as f64 * 8.0 / bps as f64);
    let started = Instant::now();
    let (mut due, mut sent_bytes) = (Duration::ZERO, 0);
    while due < duration {
        if let Some(left) = due.checked_sub(started.elapsed()) {
            std::thread::sleep(left);
        }
        // No socket is bound there: the answer to the last packet is an error of this one, which is not sent.
        if socket.send(&[0; PAYLOAD_BYTES]).is_ok() {
            sent_bytes += packet_bytes;
            due += pause;
        }
    }
    sent_bytes
}
