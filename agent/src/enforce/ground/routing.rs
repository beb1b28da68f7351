//! The routes of packets that go to the inspector: for a packet with its mark, every address is this machine's own.
//!
//! One routing rule and one route per family. Whether they are in effect is asked of the kernel as a route lookup of a
//! marked packet, so that a rule of another program that comes first is noticed as well. They are set before a plan that
//! needs them is loaded, put back when somebody takes them away (some network managers do so at their own start), and
//! stay when the agent ends: no packet has the mark then.
//!
//! Not here: who sets the mark (`render`).

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use penstock_policy::plan::{Plan, Rule};
use rustix::io::Errno;

use super::sysctl;
use crate::enforce::EnforceError;
use crate::enforce::nft::netlink::{ACK, ERROR, Hearer, NetlinkSocket, ROUTE, attributes, message, messages};
use crate::intercept::{
    INSPECTOR4, INSPECTOR6, MARK_INTERCEPTED, MARK_INTERCEPTED_BITS, ROUTING_PRIORITY, ROUTING_TABLE,
};

// linux/rtnetlink.h, linux/fib_rules.h.
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const ROUTE_DESTINATION: u16 = 1;
const ROUTE_SOURCE: u16 = 2;
const ROUTE_ENTRY: u16 = 3;
const ROUTE_LINK: u16 = 4;
const ROUTE_IN_TABLE: u16 = 15;
const ROUTE_MARK: u16 = 16;
const RULE_PRIORITY: u16 = 6;
const RULE_MARK: u16 = 10;
const RULE_TABLE: u16 = 15;
const RULE_MARK_BITS: u16 = 16;
const TO_TABLE: u8 = 1;
const OF_ADMINISTRATOR: u8 = 4;
const ON_THIS_HOST: u8 = 254;
const LOCAL: u8 = 2;
/// Groups of changes: routing rules and routes, of IPv4 and IPv6.
const GROUPS: u32 = 0x80 | 0x40 | 0x4_0000 | 0x400;
/// Bytes of a route message's header behind the part that all messages have.
const HEADER_REST: usize = 8;

const RECEIVE_BYTES: usize = 1 << 20;
pub(in crate::enforce) const BUFFER_BYTES: usize = 32 * 1024;
/// How long one answer may take.
pub(in crate::enforce) const PATIENCE: Duration = Duration::from_secs(5);

/// The families, by an address that has no route without the mark.
const FAMILIES: [IpAddr; 2] = [IpAddr::V4(INSPECTOR4), IpAddr::V6(INSPECTOR6)];

/// Why marked packets would not reach the inspector.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// The kernel refused, or could not be asked.
    #[error("cannot {verb} for inspected packets ({family})")]
    Refused {
        /// What was asked.
        verb: &'static str,
        /// IPv4 or IPv6.
        family: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The rule is there and without effect.
    #[error(
        "inspected packets ({0}) would not reach the inspector: a routing rule of another program comes before the one \
         of priority {ROUTING_PRIORITY} (`ip rule` shows them)"
    )]
    Overruled(&'static str),
}

/// Whether `plan` has anything for the inspector.
pub(in crate::enforce) fn is_needed(plan: &Plan) -> bool {
    plan.rules.iter().any(Rule::is_carried)
}

/// Sets the routes.
pub(in crate::enforce) async fn set() -> Result<(), EnforceError> {
    blocking(|| FAMILIES.into_iter().try_for_each(put)).await
}

/// The families whose marked packets do not come to this machine, in words.
pub(in crate::enforce) async fn missing() -> Result<Vec<&'static str>, EnforceError> {
    blocking(|| {
        let mut missing = Vec::new();
        for address in FAMILIES {
            if !is_local(address)? {
                missing.push(family(address));
            }
        }
        Ok(missing)
    })
    .await
}

/// Opens the socket that hears of changed routes.
pub(in crate::enforce) fn subscribe() -> io::Result<Hearer> {
    NetlinkSocket::open(ROUTE, GROUPS, RECEIVE_BYTES)?.hear()
}

/// Whether a datagram tells of a change that may have taken our routes away.
pub(in crate::enforce) fn concerns_us(datagram: &[u8]) -> bool {
    messages(datagram).any(|message| match message.kind {
        NEW_RULE | DELETE_RULE => true,
        DELETE_ROUTE => attributes(message.payload.get(HEADER_REST..).unwrap_or_default())
            .any(|(kind, value)| kind == ROUTE_IN_TABLE && value == ROUTING_TABLE.to_ne_bytes()),
        _ => false,
    })
}

/// Sets rule and route of one family, unless they are in effect.
fn put(address: IpAddr) -> Result<(), RoutingError> {
    if is_local(address)? {
        return Ok(());
    }
    let failed = |verb| {
        move |source| RoutingError::Refused {
            verb,
            family: family(address),
            source,
        }
    };
    set_one(&rule(address, NEW_RULE, ACK | CREATE | EXCLUSIVE)).map_err(failed("set the routing rule"))?;
    let route = route(address, NEW_ROUTE, ACK | CREATE | EXCLUSIVE)
        .ok_or_else(|| failed("find the interface `lo`")(io::ErrorKind::NotFound.into()))?;
    set_one(&route).map_err(failed("set the route"))?;
    if is_local(address)? {
        Ok(())
    } else {
        Err(RoutingError::Overruled(family(address)))
    }
}

/// Whether the kernel takes a marked packet to `address` for one of its own. A family that it does not know has none
/// that could go astray.
fn is_local(address: IpAddr) -> Result<bool, RoutingError> {
    match look_up(address, MARK_INTERCEPTED) {
        Ok(way) => Ok(way == RouteTarget::Here),
        Err(error) if is_unknown_family(&error) => Ok(true),
        // Unreachable, prohibited, blackhole: the answer of a lookup that ended elsewhere.
        Err(error) if error.raw_os_error().is_some() => Ok(false),
        Err(source) => Err(RoutingError::Refused {
            verb: "ask for the route",
            family: family(address),
            source,
        }),
    }
}

/// Takes rule and route of these families away again, by the names that [`missing`] has for them.
pub(in crate::enforce) async fn remove(families: Vec<String>) -> Result<(), EnforceError> {
    blocking(move || {
        let meant = |address: &IpAddr| families.iter().any(|named| named == family(*address));
        FAMILIES.into_iter().filter(meant).try_for_each(|address| {
            let failed = |source| RoutingError::Refused {
                verb: "remove the route",
                family: family(address),
                source,
            };
            remove_one(&rule(address, DELETE_RULE, ACK)).map_err(failed)?;
            match route(address, DELETE_ROUTE, ACK) {
                Some(route) => remove_one(&route).map_err(failed),
                None => Ok(()),
            }
        })
    })
    .await
}

/// The request that sets or removes the rule of a family.
fn rule(address: IpAddr, kind: u16, flags: u16) -> Vec<u8> {
    message(
        kind,
        flags,
        &[family_number(address), 0, 0, 0, 0, 0, 0, TO_TABLE, 0, 0, 0, 0],
        &[
            (RULE_PRIORITY, &ROUTING_PRIORITY.to_ne_bytes()),
            (RULE_MARK, &MARK_INTERCEPTED.to_ne_bytes()),
            (RULE_MARK_BITS, &MARK_INTERCEPTED_BITS.to_ne_bytes()),
            (RULE_TABLE, &ROUTING_TABLE.to_ne_bytes()),
        ],
    )
}

/// The same of its route; `None`: there is no `lo`.
fn route(address: IpAddr, kind: u16, flags: u16) -> Option<Vec<u8>> {
    let loopback = sysctl::interface_number("lo")?;
    let head = [
        family_number(address),
        0,
        0,
        0,
        0,
        OF_ADMINISTRATOR,
        ON_THIS_HOST,
        LOCAL,
        0,
        0,
        0,
        0,
    ];
    let (link, table) = (loopback.to_ne_bytes(), ROUTING_TABLE.to_ne_bytes());
    Some(message(
        kind,
        flags,
        &head,
        &[(ROUTE_LINK, &link), (ROUTE_IN_TABLE, &table)],
    ))
}

/// What is not there need not be removed.
fn remove_one(request: &[u8]) -> io::Result<()> {
    match ask(request) {
        Err(error) if is_unknown_family(&error) => Ok(()),
        Err(error)
            if [Errno::NOENT, Errno::SRCH]
                .iter()
                .any(|absent| error.raw_os_error() == Some(absent.raw_os_error())) =>
        {
            Ok(())
        }
        other => other.map(drop),
    }
}

fn set_one(request: &[u8]) -> io::Result<()> {
    match ask(request) {
        Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => Ok(()),
        other => other.map(drop),
    }
}

/// Sends one request, and gives what its answer holds behind the common header; an acknowledgement holds nothing.
pub(in crate::enforce) fn ask(request: &[u8]) -> io::Result<Vec<u8>> {
    let socket = NetlinkSocket::open(ROUTE, 0, RECEIVE_BYTES)?;
    socket.limit_wait(PATIENCE)?;
    socket.send(request)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let answer = socket.receive(&mut buffer)?;
    let first = messages(answer)
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the kernel gave no answer"))?;
    match first.error_number() {
        _ if first.kind != ERROR => Ok(first.payload.to_vec()),
        0 => Ok(Vec::new()),
        number => Err(io::Error::from_raw_os_error(number)),
    }
}

/// Where a packet to `address` with this mark goes.
pub(in crate::enforce) fn look_up(address: IpAddr, mark: u32) -> io::Result<RouteTarget> {
    way(address, None, &[(ROUTE_MARK, &mark.to_ne_bytes())])
}

/// Where a packet goes that came in by the interface of this number.
pub(in crate::enforce) fn forwarded(from: IpAddr, to: IpAddr, entry: u32) -> io::Result<RouteTarget> {
    way(to, Some(from), &[(ROUTE_ENTRY, &entry.to_ne_bytes())])
}

fn way(to: IpAddr, from: Option<IpAddr>, asked: &[(u16, &[u8])]) -> io::Result<RouteTarget> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (destination, source) = (octets(to), from.map(octets));
    // At most 128.
    let bits = (destination.len() * 8) as u8;
    let source_bits = if source.is_some() { bits } else { 0 };
    let mut attributes_of = vec![(ROUTE_DESTINATION, destination.as_slice())];
    attributes_of.extend(source.iter().map(|source| (ROUTE_SOURCE, source.as_slice())));
    attributes_of.extend(asked);
    let answer = ask(&message(
        GET_ROUTE,
        0,
        &[family_number(to), bits, source_bits, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &attributes_of,
    ))?;
    if answer.get(3) == Some(&LOCAL) {
        return Ok(RouteTarget::Here);
    }
    let link = attributes(answer.get(HEADER_REST..).unwrap_or_default())
        .find(|(kind, _)| *kind == ROUTE_LINK)
        .and_then(|(_, value)| value.first_chunk().copied());
    Ok(RouteTarget::Link(link.map_or(0, u32::from_ne_bytes)))
}

/// The end of a route lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::enforce) enum RouteTarget {
    /// This machine.
    Here,
    /// Out of the interface with this number.
    Link(u32),
}

fn is_unknown_family(error: &io::Error) -> bool {
    [Errno::AFNOSUPPORT, Errno::OPNOTSUPP]
        .iter()
        .any(|unknown| error.raw_os_error() == Some(unknown.raw_os_error()))
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// `AF_INET`, `AF_INET6`.
pub(in crate::enforce) fn family_number(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RoutingError> + Send + 'static,
) -> Result<T, EnforceError> {
    Ok(tokio::task::spawn_blocking(work)
        .await
        .map_err(EnforceError::Interrupted)??)
}
