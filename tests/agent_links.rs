//! Real links on the real kernel: a veth pair into a namespace, traffic through it, and what the agent reports.

use std::time::Duration;

use crate::support::agent::{Agent, command, until};
use crate::support::netns::{inside, ip, ip_can};
use crate::support::services::Kafka;
use crate::support::skips::skip;
use crate::support::veth::Veth;

fn config(kafka: &Kafka, topic: &str, pattern: &str) -> String {
    format!(
        "[interfaces]\ninclude = []\n\
         [[limit]]\nname = 'wan'\ninterface = '{pattern}'\ndirection = 'tx'\nraise_at = '1 Mbit/s'\nupdate_every = '1s'\n\
         [flush]\ninterval = '0s'\n[kafka]\nbrokers = '{}'\ntopic = '{topic}'\n",
        kafka.address
    )
}

#[test]
fn a_breach_carries_what_the_link_carried() {
    let test = "agent_links::a_breach_carries_what_the_link_carried";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let Some(veth) = Veth::or_skip(test) else { return };
    let topic = kafka.topic("veth", 1);
    let mut agent = Agent::new(&config(&kafka, &topic, &veth.name));
    let running = agent.start(&[]);
    running.until("reading by netlink");
    // Two readings first: the first movement of a new counter has no rate.
    veth.send(Duration::from_secs(2), 50_000);
    let sent_bytes = veth.send(Duration::from_secs(10), 16_000_000);
    running.until("bandwidth back under the limit on");
    let cleared = until("the end of the breach", || {
        kafka.events(&topic).into_iter().find(|event| event["kind"] == "breach_cleared")
    });
    assert_eq!((cleared["interface"].as_str(), cleared["direction"].as_str()), (Some(&*veth.name), Some("tx")));
    let number = |field: &str| cleared[field].as_u64().unwrap() as f64;
    let carried_bytes = number("mean_bps") * number("measured_ms") / 8_000.0;
    let off = (carried_bytes - sent_bytes as f64).abs() / sent_bytes as f64;
    assert!(off < 0.02, "{carried_bytes} bytes in events, {sent_bytes} on the link: {:.2} % off", off * 100.0);
}

/// Half a second of traffic after two and a half of silence: averaged over the silence it would stay below the limit.
#[test]
fn each_burst_after_silence_is_raised() {
    let test = "agent_links::each_burst_after_silence_is_raised";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let Some(veth) = Veth::or_skip(test) else { return };
    let topic = kafka.topic("bursts", 1);
    let config = config(&kafka, &topic, &veth.name).replace("raise_at = '1 Mbit/s'", "raise_at = '15 Mbit/s'");
    let mut agent = Agent::new(&config);
    let running = agent.start(&[]);
    running.until("reading by netlink");
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(2_550));
        // 80 Mbit/s: whatever the phase, one second holds 20 Mbit of it at least.
        veth.send(Duration::from_millis(500), 80_000_000);
    }
    let breaches = until("a breach for each burst", || {
        let events = kafka.events(&topic);
        let cleared: Vec<_> = events.into_iter().filter(|event| event["kind"] == "breach_cleared").collect();
        (cleared.len() >= 5).then_some(cleared)
    });
    for breach in breaches {
        let (peak, mean) = (breach["peak_bps"].as_u64().unwrap(), breach["mean_bps"].as_u64().unwrap());
        assert!(peak >= 20_000_000 && mean >= 13_500_000, "{breach}");
    }
}

#[test]
fn links_are_added_renamed_and_removed_while_it_runs() {
    let test = "agent_links::links_are_added_renamed_and_removed_while_it_runs";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let topic = kafka.topic("links", 1);
    let prefix = format!("hw{:08x}", fastrand::u32(..));
    if !ip_can(&format!("link add {prefix}a type veth peer name {prefix}p")) {
        return skip(test, "needs veth links");
    }
    ip(&format!("link del {prefix}a"));
    let config = config(&kafka, &topic, &format!("{prefix}*"));
    let mut agent = Agent::new(&config);
    let running = agent.start(&[]);
    running.until("no link matches interface");
    ip(&format!("link add {prefix}a type veth peer name {prefix}p"));
    running.until(&format!("link {prefix}a added"));
    ip(&format!("link set {prefix}a name {prefix}b"));
    running.until(&format!("link {prefix}b renamed, was {prefix}a"));
    ip(&format!("link set {prefix}b up"));
    ip(&format!("link set {prefix}p up"));
    running.until(&format!("link {prefix}b up"));
    ip(&format!("link del {prefix}b"));
    running.until(&format!("link {prefix}b removed"));
    let kinds = until("the events of all that", || {
        let events = kafka.events(&topic);
        let of_link =
            events.iter().filter(|event| event["interface"].as_str().is_some_and(|name| !name.ends_with('p')));
        let kinds: Vec<String> = of_link
            .map(|event| ["kind", "reason", "detail"].map(|name| event[name].as_str().unwrap_or("-")).join(" "))
            .collect();
        (kinds.len() >= 4).then_some(kinds)
    });
    let expected = [
        "link_added added -".to_owned(),
        format!("link_changed renamed was {prefix}a"),
        "link_changed up -".to_owned(),
        "link_removed removed -".to_owned(),
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn patterns_that_do_nothing_are_warned_of_once() {
    let test = "agent_links::patterns_that_do_nothing_are_warned_of_once";
    let Some(kafka) = Kafka::or_skip(test) else { return };
    let topic = kafka.topic("patterns", 1);
    let patterns = "[interfaces]\ninclude = ['lo', 'hw-none*']\nexclude = ['lo']\n\
                    [[link]]\ninterface = 'hw-nothing'\nspeed = '1 Mbit/s'\n\
                    [[limit]]\nname = 'home'\ninterface = 'l?'\nraise_at = '1 Gbit/s'\n";
    let text = format!("{patterns}[kafka]\nbrokers = '{}'\ntopic = '{topic}'\n", kafka.address);
    let mut agent = Agent::new(&text);
    let log = agent.run(&["--for", "3s"]);
    for warning in [
        "[interfaces] include = \"hw-none*\" matches no link yet",
        "exclude removes all that the limit on \"l?\" names (lo)",
        "[[link]] interface = \"hw-nothing\" matches no link yet",
    ] {
        assert_eq!(log.matches(warning).count(), 1, "{warning}\n{log}");
    }
}

#[test]
fn a_bridge_and_its_port_in_one_sum_are_warned_of_at_start_at_a_reload_and_by_check() {
    let test = "agent_links::a_bridge_and_its_port_in_one_sum_are_warned_of_at_start_at_a_reload_and_by_check";
    inside(test, || {
        if !ip_can("link add hwbr0 type bridge") || !ip_can("link add hwp0 type veth peer name hwp1") {
            return skip(test, "needs bridges and veth links");
        }
        ip("link set hwp0 master hwbr0");
        let warning = "bytes of hwbr0 twice, because hwp0 is a port of its bridge";
        let config = |include: &str| {
            let limit = "[[limit]]\nscope = 'host'\nraise_at = '1 Gbit/s'\n";
            format!("{limit}[interfaces]\ninclude = [{include}]\n[kafka]\nbrokers = '127.0.0.1:9'\n")
        };
        let mut agent = Agent::new(&config("'hwbr0', 'hwp0'"));
        let check = |agent: &Agent| {
            let output = command().args(["check", "--offline", "--config"]).arg(agent.config()).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8_lossy(&output.stdout).matches(warning).count()
        };
        assert_eq!(check(&agent), 1);
        let running = agent.start(&[]);
        running.until(warning);
        running.signal("HUP");
        until("it is warned of again", || (running.log().matches(warning).count() == 2).then_some(()));
        running.signal("TERM");
        let log = running.log_at_end();
        assert_eq!(log.matches(warning).count(), 2, "{log}");
        agent.configure(&config("'hwbr0'"));
        assert_eq!(check(&agent), 0);
    });
}
