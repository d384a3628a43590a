//! A link for tests: a veth pair, one end on the host and one in a namespace, and traffic of known size through it.

use std::net::UdpSocket;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::netns::{Namespace, ip, ip_can};
use super::process::under;
use super::skips::skip;

/// Bytes that a UDP/IPv4 packet adds to its payload on the link: Ethernet 14, IPv4 20, UDP 8.
pub(crate) const OVERHEAD_BYTES: u64 = 42;
const PAYLOAD_BYTES: usize = 1_000;
/// Payload of packets that are larger than the least MTU of IPv6, below which the kernel changes more than a link's MTU.
const LARGE_BYTES: usize = 1_300;
const MTU_MIN: u32 = 1_280;
const MTU: u32 = 1_500;

pub(crate) struct Veth {
    /// Name of the host's end; 11 bytes, so that there is room for another letter.
    pub(crate) name: String,
    /// Addresses of both ends.
    pub(crate) host: String,
    peer: String,
    namespace: Namespace,
}

const HOST_MAC: &str = "02:00:00:00:00:01";
const PEER_MAC: &str = "02:00:00:00:00:02";

impl Veth {
    /// Makes a pair with addresses, up; without the right to make one the test is skipped.
    pub(crate) fn or_skip(test: &str) -> Option<Self> {
        let Some(namespace) = Namespace::new() else {
            skip(test, "needs network namespaces");
            return None;
        };
        let name = format!("hw{:08x}", fastrand::u32(..));
        // From the range for benchmarks (RFC 2544), a network for each, so that tests can run side by side.
        static NETWORK: LazyLock<AtomicU8> = LazyLock::new(|| AtomicU8::new(fastrand::u8(..)));
        let net = format!("198.18.{}", NETWORK.fetch_add(1, Ordering::Relaxed));
        let inside = &namespace.name;
        let pair = format!("{name} address {HOST_MAC} type veth peer name peer address {PEER_MAC} netns {inside}");
        if !ip_can(&format!("link add {pair}")) {
            skip(test, "needs veth links");
            return None;
        }
        // No IPv6 and no ARP: what the kernel sends by itself is no traffic of the test's.
        for (by, link, own, other, mac) in
            [("", name.as_str(), 1, 2, PEER_MAC), (&format!("-n {inside} "), "peer", 2, 1, HOST_MAC)]
        {
            ip(&format!("{by}link set {link} addrgenmode none"));
            ip(&format!("{by}addr add {net}.{own}/24 dev {link}"));
            ip(&format!("{by}link set {link} up"));
            ip(&format!("{by}neigh replace {net}.{other} lladdr {mac} dev {link} nud permanent"));
        }
        Some(Self { name, host: format!("{net}.1"), peer: format!("{net}.2:9"), namespace })
    }

    /// Sends large packets to the other end, and returns their bytes on the link.
    pub(crate) fn send_large(&self, count: u32) -> u64 {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        for _ in 0..count {
            socket.send_to(&[0; LARGE_BYTES], &self.peer).expect("it is sent");
        }
        u64::from(count) * (LARGE_BYTES as u64 + OVERHEAD_BYTES)
    }

    /// Sends large packets from the other end to the host's, and returns their bytes on the link.
    pub(crate) fn receive_large(&self, count: u32) -> u64 {
        let packet = format!("head -c {LARGE_BYTES} /dev/zero > /dev/udp/{}/9", self.host);
        let script = format!("for ((n = 0; n < {count}; n++)); do {packet}; done");
        let mut bash = Command::new("ip");
        bash.args(["netns", "exec", &self.namespace.name, "bash", "-c", &script]);
        assert!(bash.status().expect("ip ran before").success());
        u64::from(count) * (LARGE_BYTES as u64 + OVERHEAD_BYTES)
    }

    /// Makes each end drop large packets, or take them. Both ends count what is dropped, the one that sends as well.
    pub(crate) fn drop_large(&self, host: bool, peer: bool) {
        let mtu = |drops: bool| if drops { MTU_MIN } else { MTU };
        ip(&format!("link set {} mtu {}", self.name, mtu(host)));
        ip(&format!("-n {} link set peer mtu {}", self.namespace.name, mtu(peer)));
    }

    /// Returns `command` as the other end is to run it.
    #[allow(dead_code, reason = "the benches use it")]
    pub(crate) fn at_peer(&self, command: &Command) -> Command {
        under(&["ip", "netns", "exec", &self.namespace.name], command)
    }

    /// Makes each packet of TCP one of the link: else the kernel hands many on as one, with one header.
    #[allow(dead_code, reason = "the benches use it")]
    pub(crate) fn segment_packets(&self) {
        ip(&format!("link set {} gso_max_segs 1", self.name));
        ip(&format!("-n {} link set peer gso_max_segs 1", self.namespace.name));
    }

    /// Returns a counter of the host's end, of `/sys/class/net/NAME/statistics`.
    pub(crate) fn statistic(&self, counter: &str) -> u64 {
        let path = format!("/sys/class/net/{}/statistics/{counter}", self.name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        text.trim().parse().expect("a number")
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
