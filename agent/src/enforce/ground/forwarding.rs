//! The forwarding table of a bridged gateway's bridge: it is bounded, and learns nothing from frames that no rule sees.
//!
//! What the rules refuse in prerouting is not learned, but for frames to link-local groups (LLDP and the like), which never
//! come there; and a side that observes may learn any number of MAC addresses. So the bridge itself is told not to learn from
//! the former, and to keep at most [`LEARNED_MAX`] where its owner set no bound. A kernel that can do neither goes on, and
//! that is a finding.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use penstock_policy::plan::Plan;
use penstock_policy::terms::GatewayMode;
use serde::{Deserialize, Serialize};

use super::{routing, sysctl};
use crate::enforce::EnforceError;
use crate::enforce::ground::needs::bridge_of;
use crate::enforce::nft::netlink::{ACK, attribute, attributes, message};
use crate::enforce::shape::structure::Finding;

/// MAC addresses that a bridge learns at most.
const LEARNED_MAX: u32 = 8192;

// linux/rtnetlink.h, linux/if_link.h, linux/if_bridge.h.
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const BRIDGE_OPTIONS: u16 = 46;
const BRIDGE_LEARNED_MAX: u16 = 49;
/// `BR_BOOLOPT_NO_LL_LEARN`, as a bit.
const NOT_FROM_GROUPS: u32 = 1;
/// `NLA_F_NESTED`: the value is made of attributes.
const NESTED: u16 = 0x8000;
/// Bytes of a link message's header behind the part that all messages have.
const HEADER_REST: usize = 12;

/// Bounds the tables of the bridges of `plan`'s ports; gives what a person should know.
pub(in crate::enforce) async fn bound(plan: Arc<Plan>) -> Result<Vec<Finding>, EnforceError> {
    if plan.mode != GatewayMode::Bridged {
        return Ok(Vec::new());
    }
    let work = move || {
        let ports = plan.interfaces.iter();
        let bridges: BTreeSet<u32> = ports.filter_map(|port| bridge_of(&port.name)).collect();
        bridges.into_iter().filter_map(unbounded).collect()
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(EnforceError::Interrupted)
}

/// How the table of one bridge was before it was bounded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::enforce) struct BridgeTable {
    /// The bridge.
    name: String,
    /// It learned from frames to link-local groups.
    from_groups: bool,
    /// It learned any number of MAC addresses.
    unbounded: bool,
}

/// How the tables of the bridges of `plan`'s ports are.
pub(in crate::enforce) async fn tables(plan: Arc<Plan>) -> Result<Vec<BridgeTable>, EnforceError> {
    if plan.mode != GatewayMode::Bridged {
        return Ok(Vec::new());
    }
    let work = move || {
        let ports = plan.interfaces.iter();
        let bridges: BTreeSet<u32> = ports.filter_map(|port| bridge_of(&port.name)).collect();
        let tables = bridges.into_iter().filter_map(|bridge| {
            Some(BridgeTable {
                name: sysctl::interface_name(bridge)?,
                from_groups: !learns_not_from_groups(bridge).ok()?,
                unbounded: learned_max(bridge).ok()? == Some(0),
            })
        });
        tables.collect()
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(EnforceError::Interrupted)
}

/// Leaves these tables as they were. A bridge that is gone has none.
pub(in crate::enforce) async fn restore(tables: Vec<BridgeTable>) -> Result<(), EnforceError> {
    let work = move || {
        for table in tables {
            let Some(bridge) = sysctl::interface_number(&table.name) else {
                continue;
            };
            let off = [0, NOT_FROM_GROUPS].map(u32::to_ne_bytes).concat();
            let groups = table.from_groups.then(|| set(bridge, BRIDGE_OPTIONS, &off));
            let bound = table
                .unbounded
                .then(|| set(bridge, BRIDGE_LEARNED_MAX, &0_u32.to_ne_bytes()));
            for error in [groups, bound].into_iter().flatten().filter_map(Result::err) {
                // It is bounded still, which keeps nothing from passing.
                tracing::warn!(%error, bridge = table.name, "the bridge's table stays bounded");
            }
        }
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(EnforceError::Interrupted)
}

/// What of one bridge could not be set.
fn unbounded(bridge: u32) -> Option<Finding> {
    let mut lacking = Vec::new();
    let options = [NOT_FROM_GROUPS, NOT_FROM_GROUPS].map(u32::to_ne_bytes).concat();
    if set(bridge, BRIDGE_OPTIONS, &options).is_err() {
        lacking.push("learns MAC addresses from frames to link-local groups, which no rule sees");
    }
    match learned_max(bridge) {
        Ok(Some(1..)) => {}
        Ok(Some(0)) if set(bridge, BRIDGE_LEARNED_MAX, &LEARNED_MAX.to_ne_bytes()).is_ok() => {}
        // Before Linux 6.8 there is no bound.
        Ok(_) | Err(_) => {
            lacking.push("learns any number of MAC addresses (the kernel has a bound since 6.8)")
        }
    }
    (!lacking.is_empty()).then(|| Finding {
        code: "bridge-learns",
        message: format!(
            "the bridge of the guarded ports {}: a flood of MAC addresses can fill this machine's memory or lead frames \
             astray from a side that only observes",
            lacking.join(", and ")
        ),
    })
}

fn header(bridge: u32) -> [u8; 16] {
    let mut header = [0; 16];
    if let Some(index) = header.get_mut(4..8) {
        index.copy_from_slice(&bridge.to_ne_bytes());
    }
    header
}

fn set(bridge: u32, option: u16, value: &[u8]) -> io::Result<()> {
    let data = attribute(option, value);
    let info = [
        attribute(INFO_KIND, b"bridge\0"),
        attribute(INFO_DATA | NESTED, &data),
    ]
    .concat();
    let request = message(NEW_LINK, ACK, &header(bridge), &[(LINK_INFO | NESTED, &info)]);
    routing::ask(&request).map(drop)
}

/// The bound that the bridge has; none if its kernel knows of none.
fn learned_max(bridge: u32) -> io::Result<Option<u32>> {
    let bound = option(bridge, BRIDGE_LEARNED_MAX)?;
    Ok(bound.and_then(|bytes| Some(u32::from_ne_bytes(*bytes.first_chunk()?))))
}

/// Whether it does not learn from frames to link-local groups.
fn learns_not_from_groups(bridge: u32) -> io::Result<bool> {
    // What is on, and which of it is known.
    let options = option(bridge, BRIDGE_OPTIONS)?;
    let on = options.and_then(|bytes| Some(u32::from_ne_bytes(*bytes.first_chunk()?)));
    Ok(on.is_some_and(|on| on & NOT_FROM_GROUPS != 0))
}

fn option(bridge: u32, wanted: u16) -> io::Result<Option<Vec<u8>>> {
    let answer = routing::ask(&message(GET_LINK, 0, &header(bridge), &[]))?;
    let nested = |bytes: &[u8], wanted: u16| {
        attributes(bytes)
            .find(|(kind, _)| kind & !NESTED == wanted)
            .map(|(_, value)| value.to_vec())
    };
    let rest = answer.get(HEADER_REST..).unwrap_or_default();
    let data = nested(rest, LINK_INFO).and_then(|info| nested(&info, INFO_DATA));
    Ok(data.and_then(|data| nested(&data, wanted)))
}
