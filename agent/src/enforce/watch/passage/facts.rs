//! What the machine is like now, read from the kernel: links, addresses, forwarding, ways. Only reads, and sends nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use super::scope::{Crossing, Expectations};
use crate::enforce::ground::{routing, sysctl};
use crate::enforce::nft::netlink::{
    DONE, DUMP, ERROR, NetlinkSocket, ROUTE, attributes, message, messages, text,
};
use crate::intercept::ROUTING_PRIORITY;

// linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h.
const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;
const GET_RULE: u16 = 34;
const RULE_PRIORITY: u16 = 6;
/// What a routing rule may look at beside addresses and interfaces: `FRA_FWMARK`, `FRA_TUN_ID`, `FRA_UID_RANGE`, `FRA_IP_PROTO`,
/// ports, `FRA_DSCP`.
const SELECTORS: [u16; 7] = [10, 12, 20, 22, 23, 24, 26];
const LINK_NAME: u16 = 3;
const LINK_MASTER: u16 = 10;
const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_FLAGS: u16 = 8;
/// `IFA_F_TEMPORARY`: one that its machine gives up by itself.
const TEMPORARY: u32 = 1;
/// `IFF_UP`, `IFF_LOWER_UP`.
const UP: u32 = 1;
const LOWER_UP: u32 = 1 << 16;
/// Bytes of a link message's header behind the part that all messages have.
const HEADER_REST: usize = 12;
/// The same of a routing rule's.
const RULE_HEADER_REST: usize = 8;
const BUFFER_BYTES: usize = 32 * 1024;
/// Addresses that are remembered of one interface.
const ADDRESSES_MAX: usize = 64;

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InterfaceFacts {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) carrier: bool,
    /// The bridge that it is a port of; 0: none.
    pub(super) master: u32,
}

/// Why a packet would not cross.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoWay {
    /// The kernel refuses to forward it, with this error.
    Refused(i32),
    /// It would leave by another interface.
    Astray(String),
}

/// What the machine is like.
#[derive(Debug, Default, Clone)]
pub(super) struct MachineFacts {
    /// The plan's interfaces by name; `None`: not there.
    pub(super) links: BTreeMap<String, Option<InterfaceFacts>>,
    /// What an interface that was there is called now.
    pub(super) renamed: BTreeMap<String, String>,
    /// Bridges of the plan's ports, by number.
    pub(super) bridges: BTreeMap<u32, InterfaceFacts>,
    /// The addresses of the plan's interfaces.
    pub(super) addresses: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Whether packets of IPv4 and IPv6 are forwarded at all.
    pub(super) forwards: [bool; 2],
    /// Interfaces by which IPv4 packets come in that are not forwarded.
    pub(super) held_back: BTreeSet<String>,
}

/// Reads all but the ways. `known` are the numbers that interfaces had before.
pub(super) fn read(scope: &Expectations, known: &BTreeMap<String, u32>) -> io::Result<MachineFacts> {
    let mut facts = MachineFacts::default();
    let names = || scope.sides.iter().map(|side| &side.name);
    for name in names() {
        // An interface is found by its other names, too, which the packet filter does not know.
        let link = link(&by_name(name)).ok().filter(|link| link.name == **name);
        if link.is_none() {
            let number = known.get(name).copied();
            let now = number.and_then(|number| link_of(number).ok());
            facts.renamed.extend(now.map(|link| (name.clone(), link.name)));
        }
        if let Some(bridge) = link
            .as_ref()
            .map(|link| link.master)
            .filter(|master| *master != 0)
            && !facts.bridges.contains_key(&bridge)
        {
            facts
                .bridges
                .extend(link_of(bridge).ok().map(|link| (bridge, link)));
        }
        facts.links.insert(name.clone(), link);
    }
    if !scope.bridged {
        facts.addresses = addresses(&facts.links)?;
        facts.forwards =
            ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"].map(|one| !sysctl::is_off(one));
        let held_back = |name: &&String| sysctl::is_off(&format!("net/ipv4/conf/{name}/forwarding"));
        facts.held_back = names().filter(held_back).cloned().collect();
    }
    Ok(facts)
}

/// Whether no routing rule but ours looks at more than addresses and interfaces.
pub(super) fn routes_are_plain() -> bool {
    let mut plain = true;
    let ours = ROUTING_PRIORITY.to_ne_bytes();
    for family in [2, 10] {
        let rules = message(GET_RULE, DUMP, &[family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]);
        let looked = dump(&rules, |payload| {
            let attributes = || attributes(payload.get(RULE_HEADER_REST..).unwrap_or_default());
            let own = attributes().any(|(kind, value)| kind == RULE_PRIORITY && value == ours);
            plain &= own || !attributes().any(|(kind, _)| SELECTORS.contains(&kind));
        });
        if let Err(error) = looked {
            tracing::debug!(%error, family, "routing rules cannot be read: a family that the kernel does not know has none");
        }
    }
    plain
}

/// Whether a packet of this crossing would get there, and why not; `None`: one of its interfaces is not there, or it would end
/// here.
pub(super) fn leads(crossing: &Crossing, facts: &MachineFacts) -> Option<Result<(), NoWay>> {
    let number = |name: &str| {
        let link = facts.links.get(name)?.as_ref()?;
        Some(link.index)
    };
    let (entry, exit) = (number(&crossing.from.0)?, number(&crossing.to.0)?);
    match routing::forwarded(crossing.from.1, crossing.to.1, entry) {
        Ok(routing::RouteTarget::Link(link)) if link == exit => Some(Ok(())),
        // The gateway's own address is no host of a side.
        Ok(routing::RouteTarget::Here) => None,
        Ok(routing::RouteTarget::Link(link)) => {
            let name = link_of(link).map_or_else(|_| format!("interface {link}"), |link| link.name);
            Some(Err(NoWay::Astray(name)))
        }
        Err(error) => error.raw_os_error().map(|number| Err(NoWay::Refused(number))),
    }
}

fn by_name(name: &str) -> Vec<u8> {
    let name = [name.as_bytes(), &[0]].concat();
    message(GET_LINK, 0, &[0; 16], &[(LINK_NAME, &name)])
}

fn link_of(index: u32) -> io::Result<InterfaceFacts> {
    let mut header = [0; 16];
    if let Some(place) = header.get_mut(4..8) {
        place.copy_from_slice(&index.to_ne_bytes());
    }
    link(&message(GET_LINK, 0, &header, &[]))
}

fn link(request: &[u8]) -> io::Result<InterfaceFacts> {
    let answer = routing::ask(request)?;
    let number = |at: usize| {
        answer
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .map_or(0, |b| u32::from_ne_bytes(*b))
    };
    let flags = number(4);
    let mut link = InterfaceFacts {
        index: number(0),
        name: String::new(),
        up: flags & UP != 0,
        carrier: flags & LOWER_UP != 0,
        master: 0,
    };
    for (kind, value) in attributes(answer.get(HEADER_REST..).unwrap_or_default()) {
        match kind {
            LINK_NAME => link.name = text(value),
            LINK_MASTER => link.master = value.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b)),
            _ => {}
        }
    }
    Ok(link)
}

/// The lasting addresses of these interfaces, but for link-local ones.
fn addresses(
    links: &BTreeMap<String, Option<InterfaceFacts>>,
) -> io::Result<BTreeMap<String, BTreeSet<IpAddr>>> {
    let names: BTreeMap<u32, &String> = links
        .iter()
        .filter_map(|(name, link)| Some((link.as_ref()?.index, name)))
        .collect();
    let mut found: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    dump(&message(GET_ADDRESS, DUMP, &[0; 8], &[]), |payload| {
        let index = payload.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b));
        let Some(name) = names.get(&index) else { return };
        let (mut address, mut flags) = (None, 0);
        for (kind, value) in attributes(payload.get(4..).unwrap_or_default()) {
            match kind {
                // The far end of a point-to-point link, unless there is an address of this end.
                ADDRESS if address.is_none() => address = address_of(value),
                ADDRESS_LOCAL => address = address_of(value),
                ADDRESS_FLAGS => flags = value.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b)),
                _ => {}
            }
        }
        let lasting = address.filter(|address| flags & TEMPORARY == 0 && !is_link_local(*address));
        let known = found.entry((*name).clone()).or_default();
        if known.len() < ADDRESSES_MAX {
            known.extend(lasting);
        }
    })?;
    Ok(found)
}

/// Asks for all of a kind, and hands each message on behind the part of its header that all have.
fn dump(request: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let socket = NetlinkSocket::open(ROUTE, 0, 1 << 20)?;
    socket.limit_wait(routing::PATIENCE)?;
    socket.send(request)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        for message in messages(socket.receive(&mut buffer)?) {
            match message.kind {
                DONE => return Ok(()),
                ERROR => return Err(io::Error::from_raw_os_error(message.error_number())),
                _ => each(message.payload),
            }
        }
    }
}

fn address_of(value: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(value)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from))
        .ok()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
