//! An event is on the disk before it is sent. `kill -9` cannot show that, since the kernel lives on; the order of the system calls
//! does.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::agent::{Agent, command};
use crate::support::pipeline::busy_config;
use crate::support::process::under;
use crate::support::services::Kafka;
use crate::support::skips::skip;

/// System calls on the journal and on Kafka's sockets, by strace.
#[derive(Debug, Default)]
struct Order {
    /// In the write-ahead log's file, but perhaps only in the page cache.
    written: BTreeSet<u64>,
    synced: BTreeSet<u64>,
    sent: BTreeSet<u64>,
    /// Handed to a socket before they were on the disk.
    early: BTreeSet<u64>,
    /// Threads within an fsync of the write-ahead log.
    syncing: BTreeMap<String, BTreeSet<u64>>,
}

impl Order {
    /// Reads a line of strace: `PID call(FD<PATH>, "bytes", …) = result`, or one half of a call that others interrupted.
    fn see(&mut self, line: &str) {
        let Some((pid, call)) = line.split_once(' ') else { return };
        let call = call.trim_start();
        let of_wal = call.contains("journal.db-wal>");
        if call.starts_with("<... fsync resumed>") {
            let begun = self.syncing.remove(pid).unwrap_or_default();
            self.synced.extend(begun.into_iter().filter(|_| call.ends_with("= 0")));
        } else if call.starts_with("fsync(") && of_wal {
            if call.ends_with("<unfinished ...>") {
                self.syncing.insert(pid.to_owned(), self.written.clone());
            } else if call.ends_with("= 0") {
                self.synced.append(&mut self.written.clone());
            }
        } else if call.starts_with("pwrite64(") && of_wal {
            self.written.extend(seqs(call));
        } else if call.starts_with("sendmsg(") || call.starts_with("sendto(") || call.starts_with("write") {
            let seqs = seqs(call).filter(|_| call.contains("<TCP"));
            for seq in seqs {
                self.sent.insert(seq);
                if !self.synced.contains(&seq) {
                    self.early.insert(seq);
                }
            }
        }
    }
}

/// Returns the numbers of the events whose JSON is in the call, as strace quotes it.
fn seqs(call: &str) -> impl Iterator<Item = u64> {
    call.split("\\\"seq\\\":").skip(1).filter_map(|rest| rest.split_once(',')?.0.parse().ok())
}

#[test]
fn an_event_is_on_the_disk_before_it_is_sent() {
    let test = "faults::order::an_event_is_on_the_disk_before_it_is_sent";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("strace");
    let calls = "trace=pwrite64,fsync,sendmsg,sendto,write,writev";
    // The agent stays our child (-D); descriptors with their paths and addresses (-yy); all of each text (-s).
    let name = file.display().to_string();
    let strace = ["strace", "-D", "-f", "-yy", "-s", "1000000", "-e", calls, "-e", "signal=none", "-o", &name];
    let works = under(&["strace", "-o", "/dev/null"], &std::process::Command::new("true")).output();
    if !works.is_ok_and(|output| output.status.success()) {
        return skip(test, "needs strace, and leave to use it");
    }
    let topic = kafka.topic("order", 1);
    let plain = "[kafka.properties]\n'compression.type' = 'none'\n"; // else a socket's bytes are not to be read
    let mut agent = Agent::new(&format!("{}{plain}", busy_config(&kafka.address, &topic)));
    let running = agent.start_as(under(&strace, &command()), &["--for", "3s"]);
    let log = running.log_at_end();
    let (_, accepted) = agent.accepted();

    let text = String::from_utf8_lossy(&std::fs::read(&file).expect("strace wrote")).into_owned();
    let mut order = Order::default();
    text.lines().for_each(|line| order.see(line));
    // If the lines were not understood, no event would be early.
    assert_eq!(order.sent, (1..=accepted).collect(), "all that was accepted was seen on its way: {log}");
    assert!(order.early.is_empty(), "sent before they were on the disk: {:?}", order.early);
}

#[test]
fn what_is_sent_too_early_is_seen() {
    let event = |seq: u64| format!("{{\\\"epoch\\\":\\\"00ff\\\",\\\"seq\\\":{seq},\\\"kind\\\":\\\"loss\\\"}}");
    let write = |seq| format!("7 pwrite64(5</s/journal.db-wal>, \"\\0{}\\1\", 4096, 56) = 4096", event(seq));
    let send =
        |seq| format!("8 sendmsg(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, {{msg_iov=[{{\"{}\"}}]}}) = 600", event(seq));
    let sync = "7 fsync(5</s/journal.db-wal>) = 0".to_owned();
    let early = |lines: &[String]| {
        let mut order = Order::default();
        lines.iter().for_each(|line| order.see(line));
        (order.sent.into_iter().collect::<Vec<_>>(), order.early.into_iter().collect::<Vec<_>>())
    };
    assert_eq!(early(&[write(1), sync.clone(), send(1)]), (vec![1], vec![]));
    assert_eq!(early(&[write(1), send(1), sync.clone()]), (vec![1], vec![1]));
    assert_eq!(early(&[send(1), write(1), sync.clone()]), (vec![1], vec![1]));
    assert_eq!(early(&[write(1), sync.clone(), write(2), send(1), send(2)]), (vec![1, 2], vec![2]));
    assert_eq!(early(&[write(1), "7 fsync(4</s/journal.db>) = 0".to_owned(), send(1)]), (vec![1], vec![1]));
    // Other calls came between its halves; a failed one leaves nothing on the disk.
    let begun = "7 fsync(5</s/journal.db-wal> <unfinished ...>".to_owned();
    assert_eq!(early(&[write(1), begun.clone(), send(1)]), (vec![1], vec![1]));
    assert_eq!(early(&[write(1), begun.clone(), "7 <... fsync resumed>) = 0".to_owned(), send(1)]), (vec![1], vec![]));
    let failed = "7 <... fsync resumed>) = -1 EIO (Input/output error)".to_owned();
    assert_eq!(early(&[write(1), begun, failed, send(1)]), (vec![1], vec![1]));
}
