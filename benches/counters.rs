//! The cost of one reading of all counters, by each source, beside the least that the kernel can do.
//!
//! Made for `cargo bench --bench counters`; another program prints the same table by [`table`]. Links are veth pairs in a network
//! namespace of its own, so it needs root and `ip`.

use std::fs::File;
use std::hint::black_box;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use highwater::agent::counters::filter::InterfaceFilter;
use highwater::agent::counters::{Reading, SourceChoice, open};
use highwater::process::clock::{Clock as _, SystemClock};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with};

/// Variable of the process that measures, within a namespace.
const INSIDE: &str = "HIGHWATER_BENCH_COUNTERS";
/// Links a namespace has in all.
const SIZES: [usize; 2] = [4, 501];
/// Medians are of so many rounds, each of so many readings in a row.
const ROUNDS: usize = 11;

#[allow(dead_code, reason = "the program may be another one that uses this file as a module")]
fn main() {
    answer();
    match table() {
        Ok(table) => print!("{table}"),
        Err(why) => println!("counters: skipped: {why}"),
    }
}

/// In a process that [`table`] started, measures and ends; elsewhere does nothing. To be called first in `main`.
pub(crate) fn answer() {
    if std::env::var_os(INSIDE).is_some() {
        for (what, us) in measure() {
            println!("{what}\t{us}");
        }
        std::process::exit(0);
    }
}

/// Microseconds of one reading, as a table in Markdown.
///
/// # Errors
/// Says why nothing could be measured.
pub(crate) fn table() -> Result<String, String> {
    let columns = SIZES.iter().map(|links| in_namespace(*links)).collect::<Result<Vec<_>, _>>()?;
    let mut table =
        format!("| µs a reading, median of {ROUNDS} | {} links | {} links |\n|---|---|---|\n", SIZES[0], SIZES[1]);
    for ((what, few), (_, many)) in columns[0].iter().zip(&columns[1]) {
        table += &format!("| {what} | {few:.1} | {many:.1} |\n");
    }
    Ok(table)
}

/// Runs this program again in a namespace of so many links.
fn in_namespace(links: usize) -> Result<Vec<(String, f64)>, String> {
    let (namespace, other) = (format!("hwb-{}-{links}", std::process::id()), format!("hwb-{}-x", std::process::id()));
    let measured = prepare(&namespace, &other, links).and_then(|()| {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace]).arg(program).env(INSIDE, "1");
        let output = command.output().map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = |line: &str| Some((line.split_once('\t')?.0.to_owned(), line.split_once('\t')?.1.parse().ok()?));
        Ok(text.lines().filter_map(line).collect())
    });
    for namespace in [&namespace, &other] {
        let _ = ip(&format!("netns del {namespace}"));
    }
    measured
}

/// A loopback and pairs; where one is too many, its other end is put into another namespace.
fn prepare(namespace: &str, other: &str, links: usize) -> Result<(), String> {
    ip(&format!("netns add {namespace}"))?;
    ip(&format!("netns add {other}"))?;
    ip(&format!("-n {namespace} link set lo up"))?;
    for pair in 0..links / 2 {
        let far = if (links - 1) % 2 == 1 && pair == 0 { format!(" netns {other}") } else { String::new() };
        ip(&format!("-n {namespace} link add v{pair}a type veth peer name v{pair}b{far}"))?;
    }
    Ok(())
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().map_err(|e| format!("ip: {e}"))?;
    let error = || format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    output.status.success().then_some(()).ok_or_else(error)
}

fn measure() -> Vec<(&'static str, f64)> {
    vec![
        ("bare `RTM_GETSTATS` exchange", bare()),
        ("netlink, all watched", source(SourceChoice::Netlink, &["lo", "v*"])),
        ("netlink, 2 watched", source(SourceChoice::Netlink, &["lo", "v1a"])),
        ("netlink, none watched", source(SourceChoice::Netlink, &["eth*"])),
        ("sysinfo, all watched", source(SourceChoice::Sysinfo, &["lo", "v*"])),
        ("sysinfo's `Networks::refresh` alone", refresh()),
        ("`/proc/net/dev`, kept open", proc_kept()),
        ("`/proc/net/dev`, opened each time", proc_opened()),
    ]
}

/// The median, in microseconds, of one of many calls.
fn median_us(mut call: impl FnMut()) -> f64 {
    let clock = SystemClock::default();
    let mut round = |calls: u32| {
        let start = clock.monotonic();
        (0..calls).for_each(|_| call());
        (clock.monotonic() - start).as_secs_f64()
    };
    // A round of about 20 ms.
    let calls = (0.04 / round(2)).clamp(1.0, 5_000.0) as u32;
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round(calls) * 1e6 / f64::from(calls)).collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn source(choice: SourceChoice, include: &[&str]) -> f64 {
    let include: Vec<_> = include.iter().map(|&pattern| pattern.to_owned()).collect();
    let mut source = open(choice, Path::new("/"), InterfaceFilter::new(&include, &[], &[])).expect("the source opens");
    let (clock, mut reading) = (SystemClock::default(), Reading::default());
    median_us(|| source.read(&clock, &mut reading).expect("it reads"))
}

fn refresh() -> f64 {
    let mut networks = sysinfo::Networks::new().expect("sysinfo knows this system");
    median_us(|| networks.refresh(true))
}

/// A request and its answer, received and not looked at but for its end.
fn bare() -> f64 {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).expect("a socket");
    bind(&socket, &SocketAddrNetlink::new(0, 0)).expect("an address");
    // nlmsghdr: length, RTM_GETSTATS, NLM_F_REQUEST | NLM_F_DUMP, seq, pid; if_stats_msg: family, ifindex, IFLA_STATS_LINK_64.
    let mut request = Vec::new();
    request.extend(28u32.to_ne_bytes());
    request.extend([94u16, 0x301].map(u16::to_ne_bytes).concat());
    request.extend([1u32, 0, 0, 0, 1].map(u32::to_ne_bytes).concat());
    let mut buffer = vec![0; 32 << 10];
    let done = |datagram: &[u8]| {
        // NLMSG_DONE, 20 bytes at the end of the last datagram.
        let at = datagram.len() - 20;
        datagram[at + 4..at + 6] == 3u16.to_ne_bytes() && datagram[at..at + 4] == 20u32.to_ne_bytes()
    };
    median_us(|| {
        sendto(&socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).expect("sent");
        loop {
            let (length, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty()).expect("an answer");
            if done(black_box(&buffer[..length])) {
                break;
            }
        }
    })
}

fn proc_kept() -> f64 {
    let file = File::open("/proc/thread-self/net/dev").expect("procfs");
    let mut buffer = vec![0; 256 << 10];
    median_us(|| {
        let mut at = 0;
        while let Ok(read @ 1..) = file.read_at(&mut buffer[at..], at as u64) {
            at += read;
        }
        black_box(&buffer[..at]);
    })
}

fn proc_opened() -> f64 {
    let mut buffer = Vec::new();
    median_us(|| {
        buffer.clear();
        File::open("/proc/thread-self/net/dev").and_then(|mut file| file.read_to_end(&mut buffer)).expect("procfs");
        black_box(&buffer);
    })
}
