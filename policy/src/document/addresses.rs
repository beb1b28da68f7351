//! Networks and addresses, in the one spelling that cannot be misread.
//!
//! A network has no bit set beyond its prefix, an address no prefix; leading zeros (octal for some software) and IPv4 in
//! the clothes of IPv6 are refused.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::node::{Kind, Node, excerpt};
use super::read::{At, OneOrMany, Term, scalar};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::terms::Mac;

fn not_a_network(node: &Node, text: &str, expected: &str, faults: &mut Faults) {
    faults.add(
        Fault::new(
            Code::NotANetwork,
            node.place,
            format!("`{}` is not {expected}", excerpt(text)),
        )
        .label(format!("expected: {expected}")),
    );
}

impl Term for IpAddr {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        const EXPECTED: &str = "an address such as 10.20.4.7 or fd00::7";
        let text = scalar(node, EXPECTED, faults)?;
        let address = text.parse().ok().and_then(unmapped);
        if address.is_none() {
            not_a_network(node, text, EXPECTED, faults);
        }
        address
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+$" })
    }
}

/// An IPv4 address in IPv6 clothes (`::ffff:10.0.0.1`) would match no packet in either family.
fn unmapped(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => None,
        address => Some(address),
    }
}

/// A network: an address with its prefix, and no bit set beyond it.
impl Term for IpNet {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        const EXPECTED: &str = "a network such as 10.20.4.0/24 or fd00:20:4::/64";
        let text = scalar(node, EXPECTED, faults)?;
        let Some(net) = text
            .parse::<Self>()
            .ok()
            .filter(|net| unmapped(net.addr()).is_some())
        else {
            not_a_network(node, text, EXPECTED, faults);
            return None;
        };
        if net.trunc() == net {
            return Some(net);
        }
        let host = net.addr();
        faults.add(
            Fault::new(
                Code::HostBits,
                node.place,
                format!("`{net}` has bits set beyond its prefix"),
            )
            .label("network or address?")
            .help(format!(
                "write {} for the whole network, {host}/{} for this address alone",
                net.trunc(),
                net.max_prefix_len()
            )),
        );
        None
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$" })
    }
}

/// The networks of a zone: as listed, or the Internet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ZoneNetworks {
    /// These.
    Listed(Vec<At<IpNet>>),
    /// All public addresses that no other zone has.
    Internet(Place),
}

/// The word for all public addresses.
const INTERNET: &str = "internet";

impl Term for ZoneNetworks {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        if matches!(&node.kind, Kind::Scalar { text, .. } if text == INTERNET) {
            return Some(Self::Internet(node.place));
        }
        OneOrMany::read(node, faults).map(|OneOrMany(listed)| Self::Listed(listed))
    }

    fn schema() -> Value {
        json!({ "anyOf": [OneOrMany::<IpNet>::schema(), { "const": INTERNET }] })
    }
}

/// What is not the Internet, of all IPv4 addresses (RFC 6890): private, shared, link-local, reserved, multicast.
const NOT_PUBLIC: [&str; 14] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];
/// Global unicast addresses of IPv6 (RFC 4291), without those of documentation (RFC 3849).
const PUBLIC_V6: (&str, [&str; 1]) = ("2000::/3", ["2001:db8::/32"]);

/// All public addresses, in as few networks as possible.
pub(crate) fn internet() -> Vec<IpNet> {
    let nets = |texts: &[&str]| -> Vec<IpNet> { texts.iter().filter_map(|text| text.parse().ok()).collect() };
    let v4 = nets(&["0.0.0.0/0"])
        .into_iter()
        .flat_map(|all| without(all, &nets(&NOT_PUBLIC)));
    let (all, holes) = PUBLIC_V6;
    let v6 = nets(&[all])
        .into_iter()
        .flat_map(|all| without(all, &nets(&holes)));
    v4.chain(v6).collect()
}

/// `net` without the `holes`, which lie within it, in as few networks as possible.
pub(crate) fn without(net: IpNet, holes: &[IpNet]) -> Vec<IpNet> {
    if holes.is_empty() {
        return vec![net];
    }
    if holes.contains(&net) {
        return Vec::new();
    }
    let Ok(halves) = net.subnets(net.prefix_len() + 1) else {
        return Vec::new();
    };
    halves
        .flat_map(|half| {
            let within: Vec<IpNet> = holes
                .iter()
                .filter(|hole| half.contains(*hole))
                .copied()
                .collect();
            without(half, &within)
        })
        .collect()
}

/// An address, or several in a row: `10.20.4.10-10.20.4.19`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses(pub(crate) Vec<IpAddr>);

/// The longest row of addresses.
const ROW_MAX: usize = 256;

impl Term for Addresses {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(
            node,
            "an address, or a row of them such as 10.20.4.10-10.20.4.19",
            faults,
        )?;
        let Some((first, last)) = text.split_once('-') else {
            return IpAddr::read(node, faults).map(|address| Self(vec![address]));
        };
        let ends = [first, last].map(|end| end.trim().parse::<IpAddr>().ok().and_then(unmapped));
        let row = match ends {
            [Some(IpAddr::V4(first)), Some(IpAddr::V4(last))] => {
                row(u32::from(first).into(), u32::from(last).into(), |n| {
                    u32::try_from(n).ok().map(|n| IpAddr::V4(n.into()))
                })
            }
            [Some(IpAddr::V6(first)), Some(IpAddr::V6(last))] => {
                row(first.into(), last.into(), |n| Some(IpAddr::V6(n.into())))
            }
            _ => None,
        };
        if row.is_none() {
            faults.add(
                Fault::new(
                    Code::NotANetwork,
                    node.place,
                    format!("`{}` is not a row of addresses", excerpt(text)),
                )
                .label("expected: such as 10.20.4.10-10.20.4.19")
                .help(format!(
                    "both ends are of one family, the first one lower than the last, with at most {ROW_MAX} addresses in all"
                )),
            );
        }
        row.map(Self)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+( *- *[0-9a-fA-F.:]+)?$" })
    }
}

fn row(first: u128, last: u128, address: impl Fn(u128) -> Option<IpAddr>) -> Option<Vec<IpAddr>> {
    let count = last.checked_sub(first)?.checked_add(1)?;
    if count < 2 || count > ROW_MAX as u128 {
        return None;
    }
    (first..=last).map(address).collect()
}

/// An interface's own address with its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InterfaceAddress(pub(crate) IpNet);

impl Term for InterfaceAddress {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        const EXPECTED: &str = "an address with its prefix, such as 10.20.4.1/24";
        let text = scalar(node, EXPECTED, faults)?;
        let net = text
            .parse::<IpNet>()
            .ok()
            .filter(|net| unmapped(net.addr()).is_some());
        if net.is_none() {
            not_a_network(node, text, EXPECTED, faults);
        }
        net.map(Self)
    }

    fn schema() -> Value {
        IpNet::schema()
    }
}

/// Who may reach a gateway: an address, or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) IpNet);

impl Term for Peer {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "an address or a network", faults)?;
        if text.contains('/') {
            IpNet::read(node, faults).map(Self)
        } else {
            IpAddr::read(node, faults).map(|address| Self(IpNet::from(address)))
        }
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$" })
    }
}

/// A MAC address, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HardwareAddress(pub(crate) String);

impl Term for HardwareAddress {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "a MAC address", faults)?;
        if let Ok(mac) = text.parse::<Mac>() {
            return Some(Self(mac.to_string()));
        }
        faults.add(
            Fault::new(
                Code::NotAHardwareAddress,
                node.place,
                format!("`{}` is not a MAC address", excerpt(text)),
            )
            .label("expected: such as 00:1d:9c:00:47:07"),
        );
        None
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$" })
    }
}
