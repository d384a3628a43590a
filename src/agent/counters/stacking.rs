//! Links whose counters include another link's bytes, so that a sum counts each byte once: the link beneath a VLAN or a PPPoE
//! session, and the bond or team of a port. A bridge counts only what the host itself sends and receives; its ports count more.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) lower: Option<u32>,
    pub(super) aggregate: Option<u32>,
    pub(super) bridge: Option<u32>,
}

/// Returns the links that count the bytes of `ifindex` too. Of a veth pair, each beneath the other, only the lower ifindex is a holder.
pub(super) fn holders<I: IntoIterator<Item = u32>>(ifindex: u32, attached: impl Fn(u32) -> I) -> Vec<u32> {
    let mut holders = reachable(ifindex, &attached);
    if let Ok(at) = holders.binary_search(&ifindex) {
        holders.remove(at);
        holders.retain(|other| *other < ifindex || reachable(*other, &attached).binary_search(&ifindex).is_err());
    }
    holders
}

pub(super) fn reachable<I: IntoIterator<Item = u32>>(from: u32, attached: impl Fn(u32) -> I) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::new();
    let mut unvisited = vec![from];
    while let Some(link) = unvisited.pop() {
        for next in attached(link) {
            if let Err(at) = found.binary_search(&next) {
                found.insert(at, next);
                unvisited.push(next);
            }
        }
    }
    found
}

/// Parses `/proc/net/pppoe` (pppoe_seq_show in drivers/net/ppp/pppoe.c), with lines like `00000001 52:54:00:12:34:56     eth0`.
pub(super) fn pppoe_devices(text: &str) -> Vec<String> {
    text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_found_through_whatever_stands_between() {
        // 7 is a VLAN on 5, a port of the bond 9; 3 is a VLAN in 7; 1 and 2 are a veth pair, and 4 a macvlan on 2.
        let attached = |link| match link {
            7 => vec![5],
            5 => vec![9],
            3 => vec![7],
            1 | 4 => vec![2],
            2 => vec![1],
            _ => vec![],
        };
        for (link, expected) in
            [(9, &[][..]), (5, &[9]), (7, &[5, 9]), (3, &[5, 7, 9]), (1, &[]), (2, &[1]), (4, &[1, 2])]
        {
            assert_eq!(holders(link, attached), expected, "{link}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_ring_vanishes(edges in proptest::collection::vec((1u32..8, 1u32..8), 0..20)) {
            let attached = |link| edges.iter().filter(move |(from, _)| *from == link).map(|(_, to)| *to);
            for link in 1..8 {
                let held = holders(link, attached);
                assert!(!held.contains(&link));
                let roots = |link: &u32| holders(*link, attached).is_empty();
                assert!(held.is_empty() || held.iter().any(roots), "{link}: {held:?} of {edges:?}");
            }
        }
    }

    #[test]
    fn reads_the_sessions_of_pppoe() {
        let text = "Id       Address              Device\n00000001 52:54:00:12:34:56     eth0\n0000A002 52:54:00:12:34:57  wan.7\n";
        assert_eq!(pppoe_devices(text), ["eth0", "wan.7"]);
        assert_eq!(pppoe_devices(""), [""; 0]);
        assert_eq!(pppoe_devices("Id       Address              Device\n"), [""; 0]);
        assert_eq!(pppoe_devices("Id\n\n1\ngarbage in here\n"), ["here"]);
    }
}
