use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A host with one link `eth0`, read at whatever times.
struct Host {
    windows: RateWindows,
    wall: DateTime<Utc>,
    boottime: Duration,
    out: Vec<RateWindow>,
    limits: Vec<(&'static str, Direction, Option<BitRate>)>,
    counters: Counters,
}

fn wall(text: &str) -> DateTime<Utc> {
    format!("2026-11-29T{text}Z").parse().unwrap()
}

impl Host {
    fn at(time: &str) -> Self {
        let (limits, out) = Default::default();
        let (wall, boottime) = (wall(time), Duration::from_secs(1_000));
        let counted = Some(Packets::default());
        let counters = Counters { packets: counted, errors: counted, drops: counted, ..Counters::default() };
        Self { windows: RateWindows::new(MINUTE), wall, boottime, out, limits, counters }
    }

    fn pass(&mut self, time: Duration) {
        self.wall += delta(time);
        self.boottime += time;
    }

    fn tick(&mut self, readings: &[(&str, Verdict)]) {
        self.windows.begin(self.wall, self.boottime, &mut self.out);
        for (interface, verdict) in readings {
            let reading = LinkReading {
                interface,
                verdict: *verdict,
                counters: Some(self.counters),
                speed: Speed::both(Some(BitRate::from_bps(1_000_000_000))),
                limits: self.limits.iter().copied(),
            };
            self.windows.read(reading);
        }
        self.windows.end(&mut self.out);
    }

    fn measure(&mut self, time: Duration, rx_bytes: u64) {
        self.pass(time);
        *self.packets() += 1;
        self.tick(&[("eth0", measured(time, rx_bytes))]);
    }

    fn packets(&mut self) -> &mut u64 {
        &mut self.counters.packets.as_mut().unwrap().rx
    }

    /// Measures this many seconds of 1 Mbit/s.
    fn seconds(&mut self, count: u32) {
        (0..count).for_each(|_| self.measure(SECOND, 125_000));
    }

    fn first(&mut self) {
        self.tick(&[("eth0", Verdict::First)]);
    }

    fn rx(&self) -> Vec<&LinkRates> {
        let links = self.out.iter().flat_map(|window| &window.links);
        links.filter(|link| link.direction == Direction::Rx).collect()
    }

    /// Seconds measured and not, and bytes received, of each window.
    fn sums(&self) -> Vec<(u32, u32, u64)> {
        self.rx().into_iter().map(|rx| (rx.measured_s, rx.unmeasured_s, rx.bytes)).collect()
    }
}

fn measured(elapsed: Duration, rx_bytes: u64) -> Verdict {
    Verdict::Measured(Traffic { rx_bytes, tx_bytes: rx_bytes / 2, elapsed })
}

#[test]
fn windows_are_those_of_the_wall_clock_and_hold_every_second_once() {
    let mut host = Host::at("12:00:40.700");
    host.first();
    host.seconds(150);
    let begun: Vec<_> = host.out.iter().map(|window| window.started_at).collect();
    assert_eq!(begun, [wall("12:00:00"), wall("12:01:00"), wall("12:02:00")]);
    assert_eq!(host.sums(), [(19, 41, 19 * 125_000), (60, 0, 60 * 125_000), (60, 0, 60 * 125_000)]);
    let rx = host.rx()[1];
    assert_eq!([rx.min_bps, rx.mean_bps, rx.max_bps, rx.p50_bps, rx.p95_bps, rx.p99_bps], [Some(1_000_000); 6]);
    assert_eq!((rx.packets, rx.errors, rx.speed_bps), (Some(60), Some(0), Some(1_000_000_000)));
    assert_eq!(RateHistogram::decode(rx.histogram.as_ref().unwrap()).unwrap().seconds(), 60);
    assert_eq!(host.out[1].links.len(), 2, "no total, which no limit judges");
    assert_eq!(host.out[1].links[1].bytes, 60 * 62_500);
}

#[test]
fn a_second_at_the_edge_of_a_window_is_in_that_which_has_most_of_it() {
    let mut host = Host::at("12:00:40.300");
    host.first();
    host.seconds(80);
    assert_eq!(host.sums(), [(20, 40, 20 * 125_000), (60, 0, 60 * 125_000)]);
}

#[test]
fn a_burst_of_one_second_is_the_highest_rate_and_is_over_its_limit() {
    let mut host = Host::at("12:00:00");
    host.limits = vec![
        ("down", Direction::Rx, Some(BitRate::from_bps(80_000_000))),
        ("sum", Direction::Total, Some(BitRate::from_bps(1_400_000))),
        ("waits", Direction::Tx, None),
    ];
    host.first();
    host.seconds(30);
    host.measure(SECOND, 112_500_000);
    host.seconds(30);
    let [rx, tx, total] = &host.out[0].links[..] else { panic!("{:?}", host.out) };
    assert_eq!((rx.max_bps, rx.min_bps, rx.p50_bps), (Some(900_000_000), Some(1_000_000), Some(1_003_000)));
    let over = |name: &str, limit_bps, over_s| vec![OverLimit { limit_name: name.into(), limit_bps, over_s }];
    assert_eq!((&rx.over, &tx.over), (&over("down", 80_000_000, 1), &vec![]));
    assert_eq!((total.max_bps, &total.over), (Some(1_350_000_000), &over("sum", 1_400_000, 60)));
    assert_eq!(total.bytes, rx.bytes + tx.bytes);
}

#[test]
fn readings_more_often_than_a_second_are_summed_and_rarer_ones_are_so_many_seconds() {
    let mut host = Host::at("12:00:00");
    host.first();
    // 100 ms of 9 Mbit/s in each second are a rate of 0.9 Mbit/s.
    for tick in 0..610 {
        host.measure(Duration::from_millis(100), if tick % 10 == 0 { 112_500 } else { 0 });
    }
    assert_eq!(host.sums(), [(60, 0, 60 * 112_500)]);
    assert_eq!(host.rx()[0].max_bps, Some(900_000));

    let mut host = Host::at("12:00:00");
    host.first();
    (0..8).for_each(|_| host.measure(Duration::from_secs(10), 1_250_000));
    assert_eq!(host.sums(), [(60, 0, 7_500_000)]);
    assert_eq!(host.rx()[0].p50_bps, Some(1_000_000));
}

#[test]
fn readings_that_are_early_do_not_make_more_seconds_than_passed() {
    let mut host = Host::at("12:00:00");
    host.first();
    (0..20).for_each(|_| host.measure(Duration::from_millis(950), 118_750));
    host.windows.finish(&mut host.out);
    assert_eq!(host.sums(), [(19, 41, 20 * 118_750)]);
}

#[test]
fn a_limit_on_both_ways_together_is_enough_for_a_total() {
    let mut host = Host::at("12:00:00");
    host.limits = vec![("sum", Direction::Total, Some(BitRate::from_bps(1_400_000)))];
    host.first();
    host.seconds(61);
    let [_, _, total] = &host.out[0].links[..] else { panic!("{:?}", host.out) };
    assert_eq!((total.measured_s, total.bytes, total.packets), (60, 60 * 187_500, Some(60)));
}

#[test]
fn gaps_resets_and_links_that_come_and_go_are_not_measured() {
    let mut host = Host::at("12:00:00");
    host.first();
    host.seconds(10);
    host.pass(Duration::from_secs(5));
    host.tick(&[("eth0", Verdict::Gap(Traffic { rx_bytes: 1, tx_bytes: 1, elapsed: Duration::from_secs(5) }))]);
    host.seconds(10);
    host.pass(SECOND);
    host.tick(&[("eth0", Verdict::Reset), ("ppp0", Verdict::First)]);
    host.pass(SECOND);
    host.tick(&[("eth0", measured(SECOND, 125_000)), ("ppp0", measured(SECOND, 125_000))]);
    host.seconds(33);
    assert_eq!(host.sums(), [(54, 6, 54 * 125_000), (1, 59, 125_000)]);
    assert_eq!(host.rx()[1].interface, "ppp0");
    host.seconds(60);
    assert_eq!(host.sums().len(), 3, "ppp0 is gone");
    let mut idle = Host::at("12:00:00");
    (0..61).for_each(|_| {
        idle.first();
        idle.pass(SECOND);
    });
    let rx = idle.rx()[0];
    assert_eq!((rx.measured_s, rx.min_bps, rx.p99_bps, &rx.histogram, rx.packets), (0, None, None, &None, None));
}

/// Returns packets, errors and drops of each message's item for a direction.
fn counted(host: &Host, direction: Direction) -> Vec<PacketCounts<u64>> {
    let links = host.out.iter().flat_map(|window| &window.links).filter(|link| link.direction == direction);
    links.map(|link| [link.packets, link.errors, link.drops]).collect()
}

#[test]
fn packets_errors_and_drops_are_differences_of_counters() {
    let mut host = Host::at("12:00:00");
    host.limits = vec![("sum", Direction::Total, Some(BitRate::from_bps(1)))];
    // Whatever was counted before the first reading is no part of a window.
    host.counters.errors = Some(Packets { rx: 7_000, tx: 500 });
    host.counters.drops = None;
    host.first();
    for second in 1..=121 {
        if second % 10 == 0 {
            host.counters.errors = host.counters.errors.map(|Packets { rx, tx }| Packets { rx: rx + 2, tx: tx + 1 });
        }
        host.seconds(1);
    }
    let [rx, tx] = [[Some(60), Some(12), None], [Some(0), Some(6), None]];
    assert_eq!((counted(&host, Direction::Rx), counted(&host, Direction::Tx)), (vec![rx, rx], vec![tx, tx]));
    assert_eq!(counted(&host, Direction::Total), [[Some(60), Some(18), None]; 2]);
    // An error in a second that was not measured is not counted.
    host.pass(SECOND);
    host.counters.errors = Some(Packets { rx: 9_000, tx: 600 });
    host.tick(&[("eth0", Verdict::Jump)]);
    host.seconds(58);
    assert_eq!(counted(&host, Direction::Rx)[2], [Some(59), Some(0), None]);
}

/// Each link has its own counters, and one has the name that another had.
#[test]
fn packets_of_a_link_do_not_go_on_under_the_name_of_another() {
    let mut host = Host::at("12:00:00");
    host.first();
    host.seconds(30);
    host.counters.ifindex = 7;
    *host.packets() += 1_000_000;
    host.seconds(91);
    let packets: Vec<_> = counted(&host, Direction::Rx).iter().map(|[packets, ..]| *packets).collect();
    assert_eq!(packets, [None, Some(60)]);
}

#[test]
fn a_counter_that_falls_is_not_known_for_that_window() {
    let mut host = Host::at("12:00:00");
    host.counters.errors = Some(Packets { rx: 900, tx: 900 });
    host.counters.drops = Some(Packets { rx: 5, tx: 5 });
    host.first();
    host.seconds(58);
    // A failed read of one counter, at the end of a window; its return is not a window's errors.
    host.counters.errors = Some(Packets::default());
    host.seconds(2);
    host.counters.errors = Some(Packets { rx: 900, tx: 900 });
    host.seconds(1);
    host.counters.drops = Some(Packets { rx: 8, tx: 5 });
    host.seconds(60);
    // A reset: the counter goes on from zero, and the first movement is not believed.
    host.counters.errors = Some(Packets::default());
    host.seconds(120);
    host.counters.errors = Some(Packets { rx: 1, tx: 0 });
    host.seconds(60);
    host.counters.errors = Some(Packets { rx: 3, tx: 0 });
    host.seconds(60);
    let rx: Vec<_> = counted(&host, Direction::Rx).into_iter().map(|[packets, ..]| packets).collect();
    assert_eq!(rx, [Some(60); 6]);
    let errors_drops: Vec<_> =
        counted(&host, Direction::Rx).into_iter().map(|[_, errors, drops]| (errors, drops)).collect();
    let (unknown, none) = ((None, Some(0)), (Some(0), Some(0)));
    assert_eq!(errors_drops, [unknown, (None, Some(3)), unknown, none, unknown, (Some(2), Some(0))]);
}

#[test]
fn counters_of_32_bits_go_on_over_their_wrap() {
    let top = (1 << 32) - 10;
    let at = |rx| Some(Packets { rx, tx: top });
    for (bits, before, after, packets) in [
        (CounterBits::B32, top, 20, Some(30)),
        (CounterBits::B64, top, 20, None),
        // Far from its end, and beyond it, a counter does not wrap.
        (CounterBits::B32, 1 << 31, 20, None),
        (CounterBits::B32, top, 1 << 31, None),
        (CounterBits::B32, 1 << 40, 20, None),
    ] {
        let mut host = Host::at("12:00:00");
        host.counters = Counters { packets: at(before), errors: at(before), drops: at(before), bits, ..host.counters };
        host.first();
        host.pass(SECOND);
        host.counters = Counters { packets: at(after), errors: at(after), drops: at(after), ..host.counters };
        host.tick(&[("eth0", measured(SECOND, 125_000))]);
        host.windows.finish(&mut host.out);
        assert_eq!(counted(&host, Direction::Rx), [[packets; 3]], "{bits:?} {before} {after}");
    }
}

#[test]
fn a_link_that_was_last_read_as_a_window_ended_is_not_in_the_next() {
    let mut host = Host::at("12:00:00");
    host.tick(&[("ppp0", Verdict::First), ("eth0", Verdict::First)]);
    for _ in 0..60 {
        host.pass(SECOND);
        host.tick(&[("ppp0", measured(SECOND, 125_000)), ("eth0", measured(SECOND, 125_000))]);
    }
    host.seconds(60);
    let links: Vec<_> = host.rx().iter().map(|rx| (rx.interface.as_str(), rx.measured_s)).collect();
    assert_eq!(links, [("ppp0", 60), ("eth0", 60), ("eth0", 60)]);
}

#[test]
fn a_window_waits_for_drivers_that_are_late_but_not_for_ever() {
    let mut host = Host::at("12:00:00");
    host.tick(&[("eth0", Verdict::First), ("slow0", Verdict::First)]);
    let tick = |host: &mut Host, second: u64| {
        host.pass(SECOND);
        let slow = if second.is_multiple_of(7) { measured(Duration::from_secs(7), 7_000) } else { Verdict::Waiting };
        host.tick(&[("eth0", measured(SECOND, 125_000)), ("slow0", slow)]);
    };
    (1..=62).for_each(|second| tick(&mut host, second));
    assert!(host.out.is_empty(), "slow0 has shown 56 s");
    tick(&mut host, 63);
    assert_eq!(host.sums(), [(60, 0, 7_500_000), (60, 0, 60_000)]);

    let mut host = Host::at("12:00:00");
    host.first();
    host.seconds(55);
    (0..16).for_each(|_| {
        host.pass(SECOND);
        host.tick(&[("eth0", Verdict::Waiting)]);
    });
    assert_eq!(host.sums(), [(55, 5, 55 * 125_000)]);
    host.measure(Duration::ZERO, 0);
    host.tick(&[("eth0", measured(Duration::from_secs(16), 16_000))]);
    host.seconds(49);
    assert_eq!(host.sums()[1], (60, 0, 49 * 125_000 + 11_000), "what came before the window is left out");
}

#[test]
fn a_clock_that_is_stepped_ends_the_window_and_seconds_stay_seconds() {
    let mut host = Host::at("12:00:00");
    host.first();
    host.seconds(20);
    host.wall += TimeDelta::hours(1);
    host.seconds(30);
    assert_eq!((host.sums(), host.out[0].started_at), (vec![(20, 40, 20 * 125_000)], wall("12:00:00")));
    host.wall -= TimeDelta::minutes(30);
    host.seconds(40);
    let begun: Vec<_> = host.out[1..].iter().map(|window| window.started_at).collect();
    assert_eq!(begun, [wall("13:00:00"), wall("12:30:00")]);
    host.windows.finish(&mut host.out);
    let all: u32 = host.sums().iter().map(|(measured, ..)| measured).sum();
    assert_eq!(all, 90);
    // A clock that is slewed back over a window's begin does not begin it twice.
    let mut host = Host::at("12:00:00");
    host.first();
    host.seconds(60);
    host.wall -= TimeDelta::milliseconds(1_300);
    host.seconds(60);
    host.windows.finish(&mut host.out);
    assert_eq!(host.sums(), [(60, 0, 7_500_000), (60, 0, 7_500_000)]);
}

#[test]
fn a_host_that_slept_goes_on_in_the_window_of_its_clock() {
    let mut host = Host::at("01:00:00");
    host.first();
    host.seconds(20);
    host.pass(Duration::from_secs(8 * 3_600 + 7));
    host.tick(&[("eth0", Verdict::Gap(Traffic { rx_bytes: 125_000, tx_bytes: 0, elapsed: SECOND }))]);
    host.seconds(120);
    let begun: Vec<_> = host.out.iter().map(|window| window.started_at).collect();
    assert_eq!(begun, [wall("01:00:00"), wall("09:00:00"), wall("09:01:00")]);
    assert_eq!(host.sums(), [(20, 40, 20 * 125_000), (33, 27, 33 * 125_000), (60, 0, 60 * 125_000)]);
}

#[test]
fn a_restart_continues_the_open_window() {
    let mut host = Host::at("12:00:00");
    host.limits = vec![("down", Direction::Rx, Some(BitRate::from_bps(1)))];
    host.first();
    host.seconds(19);
    host.counters.errors = Some(Packets { rx: 3, tx: 0 });
    host.seconds(1);
    let open = host.windows.open().unwrap();
    let mut again = Host { limits: host.limits.clone(), ..Host::at("12:00:25") };
    let (wall_now, boottime) = (again.wall, again.boottime);
    again.windows.resume(open.clone(), wall_now, boottime, &mut again.out);
    again.first();
    again.seconds(36);
    let rx = again.rx();
    assert_eq!(again.sums(), [(55, 5, 55 * 125_000)]);
    assert_eq!((rx[0].over[0].over_s, rx[0].p50_bps), (55, Some(1_000_000)));
    assert_eq!((rx[0].packets, rx[0].errors, rx[0].drops), (Some(55), Some(3), Some(0)));
    assert_eq!(RateHistogram::decode(rx[0].histogram.as_ref().unwrap()).unwrap().seconds(), 55);

    let mut later = Host::at("12:07:00");
    let (wall_now, boottime) = (later.wall, later.boottime);
    later.windows.resume(open.clone(), wall_now, boottime, &mut later.out);
    assert_eq!(later.out, [open]);
}

#[test]
fn a_window_of_another_length_is_not_continued() {
    let mut host = Host::at("12:00:00");
    host.first();
    host.seconds(20);
    let open = host.windows.open().unwrap();
    let mut later = Host::at("12:00:25");
    later.windows = RateWindows::new(5 * MINUTE);
    let (wall_now, boottime) = (later.wall, later.boottime);
    later.windows.resume(open.clone(), wall_now, boottime, &mut later.out);
    assert_eq!(later.out, [open]);
    assert_eq!(later.windows.open(), None);
}

#[test]
fn another_length_ends_the_open_window_and_the_same_one_does_not() {
    let mut host = Host::at("12:00:00");
    host.first();
    host.seconds(20);
    host.windows.reconfigure(MINUTE, &mut host.out);
    assert!(host.out.is_empty());
    host.windows.reconfigure(5 * MINUTE, &mut host.out);
    assert_eq!(host.sums(), [(20, 40, 20 * 125_000)]);
    // The first second began before its window.
    host.seconds(280);
    assert_eq!((host.out[1].duration_ms, host.sums()[1]), (300_000, (279, 21, 279 * 125_000)));
}

#[test]
fn a_window_that_waits_can_be_ended_without_the_one_that_is_open() {
    let mut host = Host::at("12:00:00");
    host.first();
    host.seconds(58);
    for _ in 0..4 {
        host.pass(SECOND);
        host.tick(&[("eth0", Verdict::Waiting)]);
    }
    host.windows.close_ended(&mut host.out);
    assert_eq!(host.sums(), [(58, 2, 58 * 125_000)]);
    assert_eq!(host.windows.open().unwrap().started_at, wall("12:01:00"));
}

#[test]
fn limits_keep_their_seconds_in_whatever_order_they_come() {
    let limit = |name, direction| (name, direction, Some(BitRate::from_bps(1)));
    let mut host = Host::at("12:00:00");
    host.limits = vec![limit("wan", Direction::Rx), limit("wan", Direction::Tx), limit("old", Direction::Rx)];
    host.first();
    host.seconds(20);
    host.limits = vec![limit("new", Direction::Rx), limit("wan", Direction::Tx), limit("wan", Direction::Rx)];
    host.seconds(41);
    let over =
        |link: &LinkRates| link.over.iter().map(|over| (over.limit_name.to_string(), over.over_s)).collect::<Vec<_>>();
    let [rx, tx] = &host.out[0].links[..] else { panic!("{:?}", host.out) };
    assert_eq!(over(rx), [("new".to_owned(), 40), ("wan".to_owned(), 60)]);
    assert_eq!(over(tx), [("wan".to_owned(), 60)]);
}

#[test]
fn packets_that_were_not_counted_all_the_time_are_unknown() {
    // In one second of the window, and within one second.
    for (uncounted, time) in [(5, SECOND), (50, SECOND / 10)] {
        let mut host = Host::at("12:00:00");
        host.first();
        for nth in 0..100 {
            host.pass(time);
            host.counters.packets = (nth != uncounted).then_some(Packets { rx: nth, tx: 0 });
            host.tick(&[("eth0", measured(time, 10))]);
        }
        host.windows.finish(&mut host.out);
        assert_eq!(host.rx()[0].packets, None);
    }
}

#[test]
fn a_host_of_many_links_is_divided_into_messages() {
    let mut host = Host::at("12:00:00");
    let names: Vec<String> = (0..501).map(|at| format!("veth{at}")).collect();
    for second in 0..61_u64 {
        let verdict = |at: usize| measured(SECOND, second * 1_000_000 * at as u64);
        let readings: Vec<_> = names.iter().enumerate().map(|(at, name)| (name.as_str(), verdict(at))).collect();
        host.pass(SECOND);
        host.tick(&readings);
    }
    assert!(host.out.len() > 1);
    assert_eq!(host.out.iter().map(|window| window.links.len()).sum::<usize>(), 1_002);
    for window in host.out {
        let stamp = crate::message::Stamp {
            agent: "a".into(),
            observed_at: window.started_at,
            boot_id: String::new(),
            monotonic_ms: 0,
            clock_synced: None,
        };
        let id = crate::message::EventId { epoch: crate::message::Epoch(1), seq: 1 };
        let event = crate::message::Event { id, stamp, body: crate::message::Body::Rates(window) };
        assert!(crate::wire::to_json(&event).len() < 256_000);
    }
}

/// Bytes that windows take between two ticks.
fn memory(windows: &RateWindows) -> usize {
    let of_link = |link: &LinkWindow| {
        let histograms = link.sums.iter().filter_map(|sums| sums.histogram.as_ref());
        histograms.map(RateHistogram::memory_bytes).sum::<usize>() + link.limits.capacity() * size_of::<LimitSeconds>()
    };
    assert!(windows.closing.is_none(), "each link was read");
    windows.links.capacity() * size_of::<LinkWindow>() + windows.links.iter().map(of_link).sum::<usize>()
}

/// What docs/configuration.md and the module's documentation state, whatever links carry and however long.
#[test]
fn the_memory_of_501_links_is_bounded() {
    let names: Vec<String> = (0..501).map(|at| format!("veth{at}")).collect();
    let total = [("sum", Direction::Total, Some(BitRate::from_bps(1)))];
    for (bytes, limits, most) in [
        (0, &[][..], 500_000),
        (125_000_000, &[], 8_000_000),
        (u64::MAX / 2, &[], 15_000_000),
        (u64::MAX / 2, &total, 22_000_000),
    ] {
        let mut host = Host::at("12:00:00");
        host.limits = limits.to_vec();
        let mut highest = 0;
        let mut carry = |host: &mut Host, bytes: u64, seconds: u32| {
            let traffic = Traffic { rx_bytes: bytes, tx_bytes: bytes, elapsed: SECOND };
            let readings: Vec<_> = names.iter().map(|name| (name.as_str(), Verdict::Measured(traffic))).collect();
            for _ in 0..seconds {
                host.pass(SECOND);
                host.tick(&readings);
                highest = highest.max(memory(&host.windows));
            }
        };
        // Any rate up to the highest, in more than one window.
        (0..64).for_each(|shift| carry(&mut host, bytes >> shift, 1));
        carry(&mut host, bytes, 90);
        carry(&mut host, 0, 121);
        let idle = memory(&host.windows);
        assert!(highest <= most && highest > most / 2, "{bytes}: {highest}");
        assert!(idle < 500_000 + names.len() * 64, "{bytes}: idle for two windows: {idle}");
    }
}

#[test]
fn a_message_is_filled_before_another_begins() {
    let link = |histogram: usize, name: usize, limits: usize| LinkRates {
        interface: "i".repeat(name).into(),
        direction: Direction::Rx,
        bytes: 0,
        packets: None,
        errors: None,
        drops: None,
        measured_s: 0,
        unmeasured_s: 60,
        min_bps: None,
        mean_bps: None,
        max_bps: None,
        p50_bps: None,
        p95_bps: None,
        p99_bps: None,
        speed_bps: None,
        over: vec![OverLimit { limit_name: "l".repeat(26).into(), limit_bps: 0, over_s: 0 }; limits],
        histogram: Some(vec![0; histogram]),
    };
    let divided = |link: LinkRates, count: usize| -> Vec<usize> {
        let (started_at, duration_ms, version) = (wall("12:00:00"), 60_000, String::new());
        let window = RateWindow { started_at, duration_ms, version, links: vec![link; count] };
        split(window).iter().map(|message| message.links.len()).collect()
    };
    assert_eq!(divided(link(30_000, 4, 0), 13), [6, 6, 1]);
    assert_eq!(divided(link(0, 94, 10), 201), [100, 100, 1]);
    assert_eq!(divided(link(200_000, 4, 0), 2), [1, 1], "one that is too large is alone");
    assert_eq!(divided(link(0, 4, 0), 0), [0], "a host without links says so");
}

proptest! {
    /// Windows have no more bytes than were measured, and no more seconds than their length.
    #[test]
    fn no_window_has_more_than_was_measured(
        begin in 0..60_000_u64,
        readings in proptest::collection::vec((50..4_000_u64, 0..1_000_000_u64, 0..20_u8), 1..400),
    ) {
        let mut host = Host::at("12:00:00");
        host.pass(Duration::from_millis(begin));
        host.first();
        let mut bytes = 0;
        for (ms, rx, kind) in readings {
            let time = Duration::from_millis(ms);
            if kind == 0 {
                host.pass(time);
                host.tick(&[("eth0", Verdict::Jump)]);
            } else {
                bytes += rx;
                host.measure(time, rx);
            }
        }
        host.windows.finish(&mut host.out);
        for (measured, unmeasured, _) in host.sums() {
            prop_assert_eq!(measured + unmeasured, 60);
        }
        let counted: u64 = host.sums().iter().map(|(_, _, bytes)| bytes).sum();
        prop_assert!(counted <= bytes, "{} of {}", counted, bytes);
        for rx in host.rx() {
            let histogram = rx.histogram.as_ref().map(|bytes| RateHistogram::decode(bytes).unwrap().seconds());
            prop_assert_eq!(histogram.unwrap_or_default(), u64::from(rx.measured_s));
        }
    }
}
