//! Netlink messages: what is asked, and what the answers say. Pure: bytes in, values out, and no bytes that panic.
//!
//! Formats are those of netlink(7) and rtnetlink(7), in the machine's byte order; the numbers are those of the kernel's headers,
//! named here once.

/// uapi/linux/netlink.h: types of control messages.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
/// uapi/linux/netlink.h: flags.
const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_DUMP_INTR: u16 = 0x010;
const NLM_F_DUMP: u16 = 0x300;
/// uapi/linux/netlink.h: the two highest bits of an attribute's type are flags.
const NLA_TYPE_MASK: u16 = 0x3fff;
/// uapi/linux/rtnetlink.h: types of messages.
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWSTATS: u16 = 92;
const RTM_GETSTATS: u16 = 94;
/// uapi/linux/rtnetlink.h: leave the statistics out of a link's message; a kernel that does not know the bit passes it over.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
/// uapi/linux/if_link.h: attributes of a link.
const IFLA_IFNAME: u16 = 3;
const IFLA_WIRELESS: u16 = 11;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
/// uapi/linux/if_link.h: attributes within `IFLA_LINKINFO`.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
/// uapi/linux/if_link.h: the attribute that holds a `struct rtnl_link_stats64`, and its bit in the filter.
const IFLA_STATS_LINK_64: u16 = 1;
const IFLA_STATS_LINK_64_FILTER: u32 = 1 << (IFLA_STATS_LINK_64 - 1);
/// uapi/linux/if_link.h: where `rx_bytes` and `tx_bytes` stand in `struct rtnl_link_stats64`.
const STATS64_RX_BYTES: usize = 16;
const STATS64_TX_BYTES: usize = 24;
/// uapi/linux/if.h: `ifi_flags`.
const IFF_UP: u32 = 1 << 0;
const IFF_LOOPBACK: u32 = 1 << 3;
const IFF_RUNNING: u32 = 1 << 6;

/// `struct nlmsghdr`, `struct ifinfomsg`, `struct if_stats_msg` and `struct rtattr`: their lengths.
const HEADER_BYTES: usize = 16;
const IFINFOMSG_BYTES: usize = 16;
const IF_STATS_MSG_BYTES: usize = 12;
const RTATTR_BYTES: usize = 4;

/// The request for all links, without their statistics and virtual functions.
const GET_LINKS_BYTES: usize = HEADER_BYTES + IFINFOMSG_BYTES + RTATTR_BYTES + 4;
/// The request for statistics.
const GET_STATS_BYTES: usize = HEADER_BYTES + IF_STATS_MSG_BYTES;

/// One message of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// Copied from the request that it answers.
    pub(super) seq: u32,
    /// What was dumped changed meanwhile.
    pub(super) interrupted: bool,
    pub(super) body: Body<'a>,
}

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// The dump is at its end.
    Done,
    /// The request failed, or the dump did, by this errno; 0 is an acknowledgement.
    Error(i32),
    /// There is, or is now, such a link.
    NewLink(Link<'a>),
    /// There is no such link any more.
    DelLink(u32),
    /// Bytes received and sent by a link.
    Stats { ifindex: u32, rx_bytes: u64, tx_bytes: u64 },
    /// Nothing that matters here.
    Other,
}

/// A link, as `RTM_NEWLINK` tells it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Link<'a> {
    pub(super) ifindex: u32,
    pub(super) name: &'a [u8],
    /// Empty where the kernel names none.
    pub(super) kind: &'a [u8],
    /// Empty where it has no master, or one of no kind.
    pub(super) slave_kind: &'a [u8],
    pub(super) up: bool,
    pub(super) loopback: bool,
}

/// A message or attribute whose length cannot be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The messages of a datagram. It ends at the first that is malformed.
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
    type Item = Result<Message<'a>, Malformed>;

    #[inline]
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

#[inline]
fn message<'a>(rest: &mut &'a [u8]) -> Option<Message<'a>> {
    let length = u32_at(rest, 0)? as usize;
    let (kind, flags, seq) = (u16_at(rest, 4)?, u16_at(rest, 6)?, u32_at(rest, 8)?);
    let payload = rest.get(HEADER_BYTES..length)?;
    *rest = rest.get(aligned(length)..).unwrap_or_default();
    let body = match kind {
        RTM_NEWSTATS => stats(payload)?,
        RTM_NEWLINK => link(payload)?.map_or(Body::Other, Body::NewLink),
        RTM_DELLINK => link(payload)?.map_or(Body::Other, |link| Body::DelLink(link.ifindex)),
        NLMSG_DONE => match i32_at(payload, 0) {
            Some(status) if status < 0 => Body::Error(status.saturating_neg()),
            _ => Body::Done,
        },
        NLMSG_ERROR => Body::Error(i32_at(payload, 0)?.saturating_neg()),
        NLMSG_OVERRUN => return None,
        _ => Body::Other,
    };
    Some(Message { seq, interrupted: flags & NLM_F_DUMP_INTR != 0, body })
}

/// `Some(None)` is a message about a link that does not tell its state: a bridge's about its port (which, deleted, is still a
/// link), or a wireless event.
#[inline(never)]
fn link(payload: &[u8]) -> Option<Option<Link<'_>>> {
    let (family, ifindex, flags) = (*payload.first()?, u32_at(payload, 4)?, u32_at(payload, 8)?);
    let mut link = Link {
        ifindex,
        up: flags & IFF_UP != 0 && flags & IFF_RUNNING != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        ..Link::default()
    };
    let mut rest = payload.get(IFINFOMSG_BYTES..)?;
    let mut partial = family != 0 || ifindex == 0;
    while let Some((kind, value)) = attribute(&mut rest)? {
        match kind {
            IFLA_IFNAME => link.name = text(value),
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
    Some((!partial).then_some(link))
}

#[inline]
fn stats<'a>(payload: &[u8]) -> Option<Body<'a>> {
    let ifindex = u32_at(payload, 4)?;
    let mut rest = payload.get(IF_STATS_MSG_BYTES..)?;
    while let Some((kind, value)) = attribute(&mut rest)? {
        if kind == IFLA_STATS_LINK_64 {
            let (rx_bytes, tx_bytes) = (u64_at(value, STATS64_RX_BYTES)?, u64_at(value, STATS64_TX_BYTES)?);
            return Some(Body::Stats { ifindex, rx_bytes, tx_bytes });
        }
    }
    Some(Body::Other)
}

/// The next attribute; `Some(None)` at the end, `None` if its length cannot be right.
#[inline]
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

/// Up to the NUL that ends it.
fn text(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Asks for all links.
pub(super) fn get_links(seq: u32) -> [u8; GET_LINKS_BYTES] {
    let mut request = [0; GET_LINKS_BYTES];
    header(&mut request, RTM_GETLINK, NLM_F_DUMP, seq);
    let mask = HEADER_BYTES + IFINFOMSG_BYTES;
    request[mask..mask + 2].copy_from_slice(&8u16.to_ne_bytes());
    request[mask + 2..mask + 4].copy_from_slice(&IFLA_EXT_MASK.to_ne_bytes());
    request[mask + 4..].copy_from_slice(&RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    request
}

/// Asks for the statistics of one link, or of all.
pub(super) fn get_stats(seq: u32, ifindex: Option<u32>) -> [u8; GET_STATS_BYTES] {
    let mut request = [0; GET_STATS_BYTES];
    header(&mut request, RTM_GETSTATS, if ifindex.is_some() { 0 } else { NLM_F_DUMP }, seq);
    request[HEADER_BYTES + 4..HEADER_BYTES + 8].copy_from_slice(&ifindex.unwrap_or(0).to_ne_bytes());
    request[HEADER_BYTES + 8..].copy_from_slice(&IFLA_STATS_LINK_64_FILTER.to_ne_bytes());
    request
}

/// Asks for the statistics of each of these links; the requests are numbered by [`set_seqs`].
pub(super) fn get_stats_of_each(ifindexes: impl Iterator<Item = u32>) -> Vec<u8> {
    ifindexes.flat_map(|ifindex| get_stats(0, Some(ifindex))).collect()
}

/// Numbers the requests of [`get_stats_of_each`].
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

/// Messages and attributes begin at multiples of 4.
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
