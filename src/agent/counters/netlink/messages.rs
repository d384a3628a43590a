//! Requests and parsed answers, in the formats of netlink(7) and rtnetlink(7) and the machine's byte order; no bytes panic. The
//! constants are those of uapi/linux/netlink.h, rtnetlink.h, if_link.h and if.h. Functions that read statistics are
//! `inline(always)`, which saves 30 of 60 ns per link and reading.

use crate::agent::counters::{IFF_UP, Packets};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_DUMP_INTR: u16 = 0x010;
const NLM_F_DUMP: u16 = 0x300;
const NLA_TYPE_MASK: u16 = 0x3fff;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWSTATS: u16 = 92;
const RTM_GETSTATS: u16 = 94;
// Leaves the statistics out of a link's message; a kernel that does not know the bit ignores it.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_WIRELESS: u16 = 11;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_PROP_LIST: u16 = 52;
// Attribute within `IFLA_PROP_LIST`.
const IFLA_ALT_IFNAME: u16 = 53;
// Attributes within `IFLA_LINKINFO`.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
// Attribute with a `struct rtnl_link_stats64`, and its bit in the filter.
const IFLA_STATS_LINK_64: u16 = 1;
const IFLA_STATS_LINK_64_FILTER: u32 = 1 << (IFLA_STATS_LINK_64 - 1);
const STATS64_RX_PACKETS: usize = 0;
const STATS64_TX_PACKETS: usize = 8;
const STATS64_RX_BYTES: usize = 16;
const STATS64_TX_BYTES: usize = 24;
const STATS64_RX_ERRORS: usize = 32;
const STATS64_TX_ERRORS: usize = 40;
const STATS64_RX_DROPPED: usize = 48;
const STATS64_TX_DROPPED: usize = 56;
const IFF_LOOPBACK: u32 = 1 << 3;
const IFF_RUNNING: u32 = 1 << 6;

// Lengths of `struct nlmsghdr`, `struct ifinfomsg`, `struct if_stats_msg` and `struct rtattr`.
const HEADER_BYTES: usize = 16;
const IFINFOMSG_BYTES: usize = 16;
const IF_STATS_MSG_BYTES: usize = 12;
const RTATTR_BYTES: usize = 4;

const GET_LINKS_BYTES: usize = HEADER_BYTES + IFINFOMSG_BYTES + RTATTR_BYTES + 4;
const GET_STATS_BYTES: usize = HEADER_BYTES + IF_STATS_MSG_BYTES;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct NetlinkMessage<'a> {
    pub(super) seq: u32,
    pub(super) interrupted: bool,
    pub(super) body: NetlinkBody<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum NetlinkBody<'a> {
    Done,
    /// Carries the errno; 0 is an acknowledgement.
    Error(i32),
    NewLink(LinkMessage<'a>),
    DelLink(u32),
    Stats(Stats),
    Other,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    pub(super) ifindex: u32,
    pub(super) rx_packets: u64,
    pub(super) tx_packets: u64,
    pub(super) rx_bytes: u64,
    pub(super) tx_bytes: u64,
    pub(super) errors: Packets,
    pub(super) drops: Packets,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LinkMessage<'a> {
    pub(super) ifindex: u32,
    pub(super) name: &'a [u8],
    pub(super) properties: &'a [u8],
    pub(super) kind: &'a [u8],
    /// Empty without a master, or for one without a kind.
    pub(super) slave_kind: &'a [u8],
    pub(super) master: Option<u32>,
    /// Link beneath, or peer; not one in another namespace, nor the link itself.
    pub(super) lower: Option<u32>,
    pub(super) up: bool,
    pub(super) loopback: bool,
}

impl<'a> LinkMessage<'a> {
    pub(super) fn altnames(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.properties;
        let properties = std::iter::from_fn(move || attribute(&mut rest).flatten());
        properties.filter(|(kind, _)| *kind == IFLA_ALT_IFNAME).map(|(_, value)| text(value))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Debug)]
pub(super) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(super) fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<NetlinkMessage<'a>, Malformed>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = message(&mut self.rest);
        if message.is_none() {
            self.rest = &[];
        }
        Some(message.ok_or(Malformed))
    }
}

#[inline(always)]
fn message<'a>(rest: &mut &'a [u8]) -> Option<NetlinkMessage<'a>> {
    let length = u32_at(rest, 0)? as usize;
    let (kind, flags, seq) = (u16_at(rest, 4)?, u16_at(rest, 6)?, u32_at(rest, 8)?);
    let payload = rest.get(HEADER_BYTES..length)?;
    *rest = rest.get(aligned(length)..).unwrap_or_default();
    let body = match kind {
        RTM_NEWSTATS => stats(payload)?,
        RTM_NEWLINK => link(payload)?.map_or(NetlinkBody::Other, NetlinkBody::NewLink),
        RTM_DELLINK => link(payload)?.map_or(NetlinkBody::Other, |link| NetlinkBody::DelLink(link.ifindex)),
        NLMSG_DONE => match i32_at(payload, 0) {
            Some(status) if status < 0 => NetlinkBody::Error(status.saturating_neg()),
            _ => NetlinkBody::Done,
        },
        NLMSG_ERROR => NetlinkBody::Error(i32_at(payload, 0)?.saturating_neg()),
        NLMSG_OVERRUN => return None,
        _ => NetlinkBody::Other,
    };
    Some(NetlinkMessage { seq, interrupted: flags & NLM_F_DUMP_INTR != 0, body })
}

/// Returns `None` if malformed, `Some(None)` if not about the link's state: a bridge's about its port, or a wireless event.
#[inline(never)]
fn link(payload: &[u8]) -> Option<Option<LinkMessage<'_>>> {
    let (family, ifindex, flags) = (*payload.first()?, u32_at(payload, 4)?, u32_at(payload, 8)?);
    let mut link = LinkMessage {
        ifindex,
        up: flags & IFF_UP != 0 && flags & IFF_RUNNING != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        ..LinkMessage::default()
    };
    let mut rest = payload.get(IFINFOMSG_BYTES..)?;
    let mut partial = family != 0 || ifindex == 0;
    let mut elsewhere = false;
    while let Some((kind, value)) = attribute(&mut rest)? {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_LINK => link.lower = u32_at(value, 0).filter(|lower| *lower != 0 && *lower != ifindex),
            IFLA_LINK_NETNSID => elsewhere = true,
            IFLA_MASTER => link.master = u32_at(value, 0).filter(|master| *master != 0),
            IFLA_PROP_LIST => {
                let mut rest = value;
                while attribute(&mut rest)?.is_some() {}
                link.properties = value;
            }
            IFLA_WIRELESS => partial = true,
            IFLA_LINKINFO => {
                let mut rest = value;
                while let Some((kind, value)) = attribute(&mut rest)? {
                    match kind {
                        IFLA_INFO_KIND => link.kind = text(value),
                        IFLA_INFO_SLAVE_KIND => link.slave_kind = text(value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if elsewhere {
        link.lower = None;
    }
    Some((!partial).then_some(link))
}

#[inline(always)]
fn stats<'a>(payload: &[u8]) -> Option<NetlinkBody<'a>> {
    let ifindex = u32_at(payload, 4)?;
    let mut rest = payload.get(IF_STATS_MSG_BYTES..)?;
    while let Some((kind, value)) = attribute(&mut rest)? {
        if kind == IFLA_STATS_LINK_64 {
            return Some(NetlinkBody::Stats(Stats {
                ifindex,
                rx_packets: u64_at(value, STATS64_RX_PACKETS)?,
                tx_packets: u64_at(value, STATS64_TX_PACKETS)?,
                rx_bytes: u64_at(value, STATS64_RX_BYTES)?,
                tx_bytes: u64_at(value, STATS64_TX_BYTES)?,
                errors: Packets { rx: u64_at(value, STATS64_RX_ERRORS)?, tx: u64_at(value, STATS64_TX_ERRORS)? },
                drops: Packets { rx: u64_at(value, STATS64_RX_DROPPED)?, tx: u64_at(value, STATS64_TX_DROPPED)? },
            }));
        }
    }
    None
}

/// Returns `Some(None)` at the end, and `None` if an attribute's length is impossible.
#[inline(always)]
fn attribute<'a>(rest: &mut &'a [u8]) -> Option<Option<(u16, &'a [u8])>> {
    if rest.is_empty() {
        return Some(None);
    }
    let length = usize::from(u16_at(rest, 0)?);
    let kind = u16_at(rest, 2)? & NLA_TYPE_MASK;
    let value = rest.get(RTATTR_BYTES..length)?;
    *rest = rest.get(aligned(length)..).unwrap_or_default();
    Some(Some((kind, value)))
}

fn text(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or_default()
}

pub(super) fn get_links(seq: u32) -> [u8; GET_LINKS_BYTES] {
    let mut request = [0; GET_LINKS_BYTES];
    header(&mut request, RTM_GETLINK, NLM_F_DUMP, seq);
    let mask = HEADER_BYTES + IFINFOMSG_BYTES;
    request[mask..mask + 2].copy_from_slice(&8u16.to_ne_bytes());
    request[mask + 2..mask + 4].copy_from_slice(&IFLA_EXT_MASK.to_ne_bytes());
    request[mask + 4..].copy_from_slice(&RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    request
}

pub(super) fn get_stats(seq: u32, ifindex: Option<u32>) -> [u8; GET_STATS_BYTES] {
    let mut request = [0; GET_STATS_BYTES];
    header(&mut request, RTM_GETSTATS, if ifindex.is_some() { 0 } else { NLM_F_DUMP }, seq);
    request[HEADER_BYTES + 4..HEADER_BYTES + 8].copy_from_slice(&ifindex.unwrap_or(0).to_ne_bytes());
    request[HEADER_BYTES + 8..].copy_from_slice(&IFLA_STATS_LINK_64_FILTER.to_ne_bytes());
    request
}

pub(super) fn get_stats_of_each(ifindexes: impl Iterator<Item = u32>) -> Vec<u8> {
    ifindexes.flat_map(|ifindex| get_stats(0, Some(ifindex))).collect()
}

pub(super) fn set_seqs(requests: &mut [u8], first: u32) {
    for (nth, request) in (0u32..).zip(requests.chunks_exact_mut(GET_STATS_BYTES)) {
        request[8..12].copy_from_slice(&first.wrapping_add(nth).to_ne_bytes());
    }
}

fn header(request: &mut [u8], kind: u16, flags: u16, seq: u32) {
    let length = request.len() as u32;
    request[0..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    request[8..12].copy_from_slice(&seq.to_ne_bytes());
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..at + 4)?.try_into().ok().map(i32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = (RTATTR_BYTES + value.len()) as u16;
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn message_of(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend_from_slice(payload);
        header(&mut bytes, kind, flags, 7);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn ifinfomsg(family: u8, ifindex: u32, flags: u32) -> Vec<u8> {
        let mut bytes = vec![family, 0, 0, 0];
        bytes.extend([ifindex.to_ne_bytes(), flags.to_ne_bytes(), [0; 4]].concat());
        bytes
    }

    fn link_of(kind: u16, family: u8, more: &[Vec<u8>]) -> Vec<u8> {
        let mut payload = ifinfomsg(family, 5, IFF_UP | IFF_RUNNING);
        payload.extend(attribute_of(IFLA_IFNAME, b"eth0\0"));
        payload.extend(attribute_of(4, &1500u32.to_ne_bytes()));
        payload.extend(more.concat());
        message_of(kind, 0, &payload)
    }

    fn eth0() -> LinkMessage<'static> {
        LinkMessage { ifindex: 5, name: b"eth0", up: true, ..LinkMessage::default() }
    }

    fn stats_of(ifindex: u32, rx_bytes: u64, tx_bytes: u64, flags: u16) -> Vec<u8> {
        let mut values = [0u64; 25];
        values[..8].copy_from_slice(&[11, 12, rx_bytes, tx_bytes, 13, 14, 15, 16]);
        let mut payload = vec![0; 4];
        payload.extend([ifindex.to_ne_bytes(), IFLA_STATS_LINK_64_FILTER.to_ne_bytes()].concat());
        // The kernel pads with an empty attribute where 64-bit values must be aligned.
        payload.extend(attribute_of(0, &[]));
        payload.extend(attribute_of(IFLA_STATS_LINK_64, &values.map(u64::to_ne_bytes).concat()));
        message_of(RTM_NEWSTATS, flags, &payload)
    }

    fn bodies(datagram: &[u8]) -> Vec<Result<NetlinkBody<'_>, Malformed>> {
        Messages::new(datagram).map(|message| message.map(|message| message.body)).collect()
    }

    #[test]
    fn reads_statistics() {
        let mut datagram = stats_of(3, 1 << 40, 7, 0);
        datagram.extend(stats_of(4, 0, u64::MAX, NLM_F_DUMP_INTR));
        datagram.extend(message_of(NLMSG_DONE, 0, &0i32.to_ne_bytes()));
        let messages: Vec<_> = Messages::new(&datagram).collect::<Result<_, _>>().unwrap();
        let stats = |ifindex, rx_bytes, tx_bytes| Stats {
            ifindex,
            rx_packets: 11,
            tx_packets: 12,
            rx_bytes,
            tx_bytes,
            errors: Packets { rx: 13, tx: 14 },
            drops: Packets { rx: 15, tx: 16 },
        };
        assert_eq!(messages[0].body, NetlinkBody::Stats(stats(3, 1 << 40, 7)));
        assert_eq!(messages[1].body, NetlinkBody::Stats(stats(4, 0, u64::MAX)));
        assert_eq!(messages[2].body, NetlinkBody::Done);
        assert_eq!(
            messages.iter().map(|m| (m.seq, m.interrupted)).collect::<Vec<_>>(),
            [(7, false), (7, true), (7, false)]
        );
    }

    #[test]
    fn reads_links() {
        let info = [attribute_of(IFLA_INFO_KIND, b"vlan\0"), attribute_of(IFLA_INFO_SLAVE_KIND, b"bond\0")].concat();
        // Some kernel versions set the nested flag.
        let more = [attribute_of(IFLA_LINKINFO | 0x8000, &info)];
        let link = LinkMessage { kind: b"vlan", slave_kind: b"bond", ..eth0() };
        assert_eq!(bodies(&link_of(RTM_NEWLINK, 0, &more)), [Ok(NetlinkBody::NewLink(link))]);
        assert_eq!(bodies(&link_of(RTM_DELLINK, 0, &[])), [Ok(NetlinkBody::DelLink(5))]);
        let mut loopback = ifinfomsg(0, 1, IFF_UP | IFF_LOOPBACK);
        loopback.extend(attribute_of(IFLA_IFNAME, b"lo"));
        let link = LinkMessage { ifindex: 1, name: b"lo", loopback: true, ..LinkMessage::default() };
        assert_eq!(bodies(&message_of(RTM_NEWLINK, 0, &loopback)), [Ok(NetlinkBody::NewLink(link))]);
    }

    #[test]
    fn reads_what_a_link_stands_on_and_its_altnames() {
        let number = |kind, value: u32| attribute_of(kind, &value.to_ne_bytes());
        let names = [
            attribute_of(IFLA_ALT_IFNAME, b"enp3s0\0"),
            attribute_of(IFLA_ALT_IFNAME, b"a-name-of-more-than-15-bytes\0"),
        ];
        for (more, link) in [
            (vec![number(IFLA_LINK, 9)], LinkMessage { lower: Some(9), ..eth0() }),
            (vec![number(IFLA_LINK, 9), number(IFLA_LINK_NETNSID, 0)], eth0()),
            (vec![number(IFLA_LINK_NETNSID, 0), number(IFLA_LINK, 9)], eth0()),
            (vec![number(IFLA_LINK, 5)], eth0()),
            (vec![number(IFLA_LINK, 0)], eth0()),
            (vec![number(IFLA_MASTER, 7)], LinkMessage { master: Some(7), ..eth0() }),
            (vec![number(IFLA_MASTER, 0)], eth0()),
        ] {
            assert_eq!(bodies(&link_of(RTM_NEWLINK, 0, &more)), [Ok(NetlinkBody::NewLink(link))]);
        }
        let altnames = |properties: &[u8]| {
            let datagram = link_of(RTM_NEWLINK, 0, &[attribute_of(IFLA_PROP_LIST | 0x8000, properties)]);
            match &bodies(&datagram)[..] {
                [Ok(NetlinkBody::NewLink(link))] => Some(link.altnames().map(<[u8]>::to_vec).collect::<Vec<_>>()),
                _ => None,
            }
        };
        let expected: [&[u8]; 2] = [b"enp3s0", b"a-name-of-more-than-15-bytes"];
        assert_eq!(altnames(&names.concat()).unwrap(), expected);
        assert_eq!(altnames(&[]).unwrap(), [[0; 0]; 0]);
        assert_eq!(altnames(&[0, 0, 0, 0]), None, "a length that cannot be right");
    }

    #[test]
    fn a_port_that_leaves_its_bridge_is_still_a_link() {
        const AF_BRIDGE: u8 = 7;
        assert_eq!(bodies(&link_of(RTM_DELLINK, AF_BRIDGE, &[])), [Ok(NetlinkBody::Other)]);
        assert_eq!(bodies(&link_of(RTM_NEWLINK, AF_BRIDGE, &[])), [Ok(NetlinkBody::Other)]);
    }

    #[test]
    fn a_wireless_event_tells_no_state() {
        let event = attribute_of(IFLA_WIRELESS, &[0; 8]);
        assert_eq!(bodies(&link_of(RTM_NEWLINK, 0, &[event])), [Ok(NetlinkBody::Other)]);
    }

    #[test]
    fn reads_refusals() {
        let refusal = |errno: i32| [(-errno).to_ne_bytes().to_vec(), vec![0; HEADER_BYTES]].concat();
        assert_eq!(bodies(&message_of(NLMSG_ERROR, 0, &refusal(95))), [Ok(NetlinkBody::Error(95))]);
        assert_eq!(bodies(&message_of(NLMSG_ERROR, 0, &i32::MIN.to_ne_bytes())), [Ok(NetlinkBody::Error(i32::MAX))]);
        assert_eq!(bodies(&message_of(NLMSG_DONE, 0, &(-4i32).to_ne_bytes())), [Ok(NetlinkBody::Error(4))]);
        assert_eq!(bodies(&message_of(NLMSG_OVERRUN, 0, &[])), [Err(Malformed)]);
    }

    #[test]
    fn a_wrong_length_ends_the_datagram() {
        let good = stats_of(3, 1, 2, 0);
        for length in [0u32, 15, 1_000, u32::MAX] {
            let mut datagram = good.clone();
            datagram.extend(&good);
            let second = good.len();
            datagram[second..second + 4].copy_from_slice(&length.to_ne_bytes());
            let bodies = bodies(&datagram);
            assert_eq!(bodies.len(), 2, "{length}");
            assert!(bodies[0].is_ok() && bodies[1].is_err(), "{length}");
        }
        // An attribute of length 0 must not be read for ever.
        let mut datagram = link_of(RTM_NEWLINK, 0, &[]);
        let name = HEADER_BYTES + IFINFOMSG_BYTES;
        datagram[name..name + 2].copy_from_slice(&0u16.to_ne_bytes());
        assert_eq!(bodies(&datagram), [Err(Malformed)]);
    }

    #[test]
    fn requests_have_their_length_and_number() {
        assert_eq!(u32_at(&get_links(9), 0), Some(40));
        assert_eq!((u32_at(&get_stats(9, None), 0), u32_at(&get_stats(9, None), 8)), (Some(28), Some(9)));
        let mut each = get_stats_of_each([3, 5].into_iter());
        set_seqs(&mut each, u32::MAX);
        assert_eq!((u32_at(&each, 8), u32_at(&each, 20)), (Some(u32::MAX), Some(3)));
        assert_eq!((u32_at(&each, 28 + 8), u32_at(&each, 28 + 20)), (Some(0), Some(5)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_and_all_end(datagram in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            let count = Messages::new(&datagram).count();
            assert!(count <= datagram.len() / HEADER_BYTES + 1);
        }

        #[test]
        fn no_blow_panics_and_all_is_within_the_datagram(
            datagram in crate::testing::damaged(proptest::strategy::Just({
                let info = attribute_of(IFLA_INFO_KIND, b"veth\0");
                let mut datagram = link_of(RTM_NEWLINK, 0, &[attribute_of(IFLA_LINKINFO, &info)]);
                datagram.extend(stats_of(3, 1, 2, 0));
                datagram.extend(link_of(RTM_DELLINK, 0, &[]));
                datagram.extend(message_of(NLMSG_ERROR, 0, &[255; 20]));
                datagram.extend(message_of(NLMSG_DONE, 0, &[0; 4]));
                datagram
            }))
        ) {
            let within = datagram.as_ptr_range();
            let mut count = 0;
            for message in Messages::new(&datagram) {
                count += 1;
                if let Ok(NetlinkMessage { body: NetlinkBody::NewLink(link), .. }) = message {
                    for text in [link.name, link.kind, link.slave_kind].into_iter().filter(|text| !text.is_empty()) {
                        assert!(within.start <= text.as_ptr() && text.as_ptr_range().end <= within.end);
                    }
                }
            }
            assert!(count <= datagram.len() / HEADER_BYTES + 1);
        }

        #[test]
        fn no_damage_panics(at in 0usize..400, byte in proptest::num::u8::ANY, cut in 0usize..500) {
            let info = attribute_of(IFLA_INFO_KIND, b"veth\0");
            let mut datagram = link_of(RTM_NEWLINK, 0, &[attribute_of(IFLA_LINKINFO, &info)]);
            datagram.extend(stats_of(3, 1, 2, 0));
            datagram.extend(message_of(NLMSG_ERROR, 0, &[255; 20]));
            let at = at % datagram.len();
            datagram[at] = byte;
            datagram.truncate(cut);
            assert!(Messages::new(&datagram).count() <= datagram.len() / HEADER_BYTES + 1);
        }
    }
}
