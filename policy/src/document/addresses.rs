//! Networks and addresses, in the one spelling that cannot be misread.
//!
//! A network has no bit set beyond its prefix, an address no prefix; leading zeros (octal for some software) and IPv4 in
//! the clothes of IPv6 are refused.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::node::{Node, excerpt};
use super::read::{Term, scalar};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
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
