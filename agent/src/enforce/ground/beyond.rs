//! The routes of what lies beyond tunnels: in a table of our own, asked ahead of the machine's others, out of the tunnels' devices.
//!
//! They end with their device, and a device ends with the agent. What goes by the machine's other routes then leaves by an interface where it does not
//! belong, and the rules refuse it. The routing rule stays; without routes it leads nowhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rustix::io::Errno;

use super::{routing, sysctl};
use crate::enforce::nft::netlink::{ACK, message};

// linux/rtnetlink.h, linux/fib_rules.h.
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const NEW_RULE: u16 = 32;
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const ROUTE_DESTINATION: u16 = 1;
const ROUTE_LINK: u16 = 4;
const ROUTE_IN_TABLE: u16 = 15;
const RULE_PRIORITY: u16 = 6;
const RULE_TABLE: u16 = 15;
const TO_TABLE: u8 = 1;
const OF_ADMINISTRATOR: u8 = 4;
const UNICAST: u8 = 1;
const ON_LINK: u8 = 253;
/// Where devices of our own are made.
pub(crate) const DEVICES: &str = "/dev/net/tun";
/// The table of what lies beyond tunnels (`pt` in ASCII).
const TABLE: u32 = 0x7074;
/// Behind the rule of inspected packets, ahead of all that are usual.
const PRIORITY: u32 = crate::intercept::ROUTING_PRIORITY + 1;

/// Whether this machine lets the agent make devices for tunnels.
pub(in crate::enforce) fn can_make_devices() -> bool {
    let device = std::fs::OpenOptions::new().read(true).write(true).open(DEVICES);
    device.is_ok()
}

/// Leads packets for these networks into a device. Done again, it changes nothing.
pub(crate) fn lead(device: &str, networks: &[IpNet]) -> io::Result<()> {
    let link = number(device)?;
    for family in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
        if networks
            .iter()
            .any(|network| network.addr().is_ipv4() == family.is_ipv4())
        {
            refused_or_there(&rule(family))?;
        }
    }
    networks.iter().try_for_each(|network| {
        routing::ask(&route(network, link, NEW_ROUTE, ACK | CREATE | REPLACE)).map(drop)
    })
}

/// Leads packets for these networks there no longer.
pub(crate) fn lead_no_more(device: &str, networks: &[IpNet]) -> io::Result<()> {
    let link = number(device)?;
    networks.iter().try_for_each(
        |network| match routing::ask(&route(network, link, DELETE_ROUTE, ACK)) {
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(()),
            other => other.map(drop),
        },
    )
}

fn number(device: &str) -> io::Result<u32> {
    sysctl::interface_number(device).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn refused_or_there(request: &[u8]) -> io::Result<()> {
    match routing::ask(request) {
        Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => Ok(()),
        other => other.map(drop),
    }
}

fn rule(family: IpAddr) -> Vec<u8> {
    message(
        NEW_RULE,
        ACK | CREATE | EXCLUSIVE,
        &[
            routing::family_number(family),
            0,
            0,
            0,
            0,
            0,
            0,
            TO_TABLE,
            0,
            0,
            0,
            0,
        ],
        &[
            (RULE_PRIORITY, &PRIORITY.to_ne_bytes()),
            (RULE_TABLE, &TABLE.to_ne_bytes()),
        ],
    )
}

fn route(network: &IpNet, link: u32, kind: u16, flags: u16) -> Vec<u8> {
    let address = network.network();
    let destination = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let scope = if address.is_ipv4() { ON_LINK } else { 0 };
    let head = [
        routing::family_number(address),
        network.prefix_len(),
        0,
        0,
        0,
        OF_ADMINISTRATOR,
        scope,
        UNICAST,
        0,
        0,
        0,
        0,
    ];
    message(
        kind,
        flags,
        &head,
        &[
            (ROUTE_DESTINATION, &destination),
            (ROUTE_LINK, &link.to_ne_bytes()),
            (ROUTE_IN_TABLE, &TABLE.to_ne_bytes()),
        ],
    )
}
