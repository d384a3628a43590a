//! The link that the demo watches: one of its own where it may make one, or else the loopback, with a limit above what is there
//! already.

use std::error::Error;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use highwater::agent::counters::filter::InterfaceFilter;
use highwater::agent::counters::{self, CounterSource, Reading, SourceChoice};
use highwater::agent::detector::rate::bit_rate;
use highwater::process::clock::SystemClock;
use highwater::units::BitRate;

/// Bytes that a loopback packet carries with room to spare.
const PAYLOAD_BYTES: usize = 32_000;
const LIMIT: BitRate = BitRate::from_bps(40_000_000);
/// Time for which the loopback is watched before its limit is set.
const LOOK: u64 = 3;

pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) direction: &'static str,
    /// The limit that is going to be breached, and the traffic that does it.
    pub(crate) limit: BitRate,
    pub(crate) burst: BitRate,
    /// Which link it is, and why, in lines that fit a terminal.
    pub(crate) words: Vec<String>,
    peer: Option<Peer>,
}

/// A veth pair whose other end is in a namespace, until it is dropped.
struct Peer {
    name: String,
    address: String,
}

impl Link {
    pub(crate) fn open() -> Result<Self, Box<dyn Error>> {
        if let Some(peer) = Peer::make() {
            let (name, burst) = (peer.name.clone(), BitRate::from_bps(LIMIT.bps() * 5 / 2));
            let words = vec![format!("It sends over a link of its own, {name}, to a network namespace.")];
            return Ok(Self { name, direction: "tx", limit: LIMIT, burst, words, peer: Some(peer) });
        }
        let mut meter = Meter::open("lo", "rx")?;
        let mut seen = 0;
        for _ in 0..=LOOK {
            seen = meter.rate()?.map_or(seen, |rate| rate.bps().max(seen));
            std::thread::sleep(Duration::from_secs(1));
        }
        let limit = BitRate::from_bps(LIMIT.bps().max(seen.saturating_mul(2).next_multiple_of(10_000_000)));
        let burst = BitRate::from_bps(limit.bps().saturating_mul(5) / 2);
        let words = vec![
            "It sends over lo, since it may not make a link of its own: run it as root.".to_owned(),
            format!("Up to {} went over lo before that, so the limit is {limit}.", BitRate::from_bps(seen)),
        ];
        Ok(Self { name: "lo".to_owned(), direction: "rx", limit, burst, words, peer: None })
    }

    pub(crate) fn meter(&self) -> Result<Meter, Box<dyn Error>> {
        Meter::open(&self.name, self.direction)
    }

    /// Sends real packets from a fifth to three fifths of `length`.
    pub(crate) fn send(&self, length: Duration, quiet: &AtomicBool) -> std::io::Result<()> {
        let sink = UdpSocket::bind("127.0.0.1:0")?;
        sink.set_nonblocking(true)?;
        let source = UdpSocket::bind("0.0.0.0:0")?;
        match &self.peer {
            Some(peer) => source.connect(&peer.address)?,
            None => source.connect(sink.local_addr()?)?,
        }
        let pause = Duration::from_secs_f64(PAYLOAD_BYTES as f64 * 8.0 / self.burst.bps() as f64);
        let (started, mut due, end) = (Instant::now(), length / 5, length * 3 / 5);
        let mut received = vec![0; PAYLOAD_BYTES];
        while due < end && !quiet.load(Ordering::Relaxed) {
            std::thread::sleep(due.saturating_sub(started.elapsed()).min(Duration::from_millis(200)));
            if started.elapsed() >= due {
                // There is no listener at the other end of a pair: the answer to a packet is an error of the next one.
                let _ = source.send(&[0; PAYLOAD_BYTES]);
                while sink.recv(&mut received).is_ok() {}
                due += pause;
            }
        }
        Ok(())
    }
}

impl Peer {
    /// Makes the pair, or returns `None` without the right to, or without `ip`.
    fn make() -> Option<Self> {
        let id = std::process::id();
        // From the range for benchmarks (RFC 2544).
        let (name, net) = (format!("hwdemo{:x}", id & 0xffff), format!("198.18.{}", id % 254));
        let peer = Self { name: name.clone(), address: format!("{net}.2:9") };
        let made = [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name peer netns {name}"),
            format!("addr add {net}.1/24 dev {name}"),
            format!("link set {name} up"),
            format!("-n {name} addr add {net}.2/24 dev peer"),
            format!("-n {name} link set peer up"),
        ];
        // Dropped, it takes back what was made of it.
        made.iter().all(|arguments| ip(arguments)).then_some(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        ip(&format!("link del {}", self.name));
        ip(&format!("netns del {}", self.name));
    }
}

fn ip(arguments: &str) -> bool {
    let mut ip = Command::new("ip");
    let ip = ip.args(arguments.split(' ')).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    ip.status().is_ok_and(|status| status.success())
}

/// The link's own rate, read beside the agent, for the picture.
pub(crate) struct Meter {
    source: Box<dyn CounterSource>,
    clock: SystemClock,
    reading: Reading,
    direction: &'static str,
    before: Option<(Duration, u64)>,
}

impl Meter {
    fn open(name: &str, direction: &'static str) -> Result<Self, Box<dyn Error>> {
        let selection = InterfaceFilter::new(&[name.to_owned()], &[], &[]);
        let source = counters::open(SourceChoice::Auto, Path::new("/"), selection)?;
        Ok(Self { source, clock: SystemClock::default(), reading: Reading::default(), direction, before: None })
    }

    pub(crate) fn rate(&mut self) -> Result<Option<BitRate>, Box<dyn Error>> {
        self.source.read(&self.clock, &mut self.reading)?;
        let Some(counters) = self.reading.counters.first() else { return Ok(None) };
        let bytes = if self.direction == "rx" { counters.rx_bytes } else { counters.tx_bytes };
        let now = (self.reading.at, bytes);
        let before = self.before.replace(now);
        Ok(before.map(|before| bit_rate(now.1.saturating_sub(before.1), now.0.saturating_sub(before.0))))
    }
}
