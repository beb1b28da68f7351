//! `PC017x`: a gateway changes when the document says, and after the question that it names; and the question gets there.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use crate::ids::GatewayId;
use crate::model::{Gateway, Plant};
use crate::plan::{AskedFrom, Capability, Condition, Interlock, Plan, PlanInterface};
use crate::protocol::Operations;
use crate::protocol::modbus_tcp::ModbusOperation;
use crate::rollout::{Fleet, default_plan};
use crate::terms::NumberRange;
use crate::verdict::{Carried, Connection, Decision, Permissions, decide, permitted};

/// Minutes of a day.
const DAY_MINUTES: u32 = 24 * 60;
const RECOMPILE: &str =
    "compile the plans again; if the finding stays, it is a fault in Penstock: please report it";

/// Whether a plan has the windows and the question of its gateway, and requires an agent that keeps to them.
pub(super) fn check(plant: &Plant, plan: &Plan, findings: &mut Findings) {
    let Some(gateway) = plant.gateways.get(&plan.gateway) else {
        return; // Said as PC0112.
    };
    let mut wrong = Vec::new();
    if !same_windows(plant, gateway, plan) {
        wrong.push("the gateway would change at other times than its windows say");
    }
    if !same_question(plant, gateway, plan.interlock.as_ref()) {
        wrong.push("the gateway would ask something else before it changes than `safe_to_change` says");
    }
    for words in wrong {
        findings.error("PC0171", words.to_owned(), RECOMPILE);
    }
    long_enough(plan, findings);
    let limited = plan.windows.is_some() || plan.interlock.is_some();
    let required = plan
        .requires
        .iter()
        .any(|capability| capability.0 == Capability::CHANGE_CONTROL);
    if limited && !required {
        let words =
            "the gateway may not change at any time, but the plan does not require an agent that keeps to it";
        findings.error("PC0117", words.to_owned(), RECOMPILE);
    }
}

fn same_windows(plant: &Plant, gateway: &Gateway, plan: &Plan) -> bool {
    let declared: BTreeSet<(u8, u16, u16)> = gateway
        .windows
        .iter()
        .map(|window| (window.weekday, window.start_minute, window.end_minute))
        .collect();
    let Some(windows) = &plan.windows else {
        return declared.is_empty();
    };
    let planned: BTreeSet<_> = windows
        .weekly
        .iter()
        .map(|window| (window.weekday, window.start_minute, window.end_minute))
        .collect();
    let zone = plant.sites.get(&gateway.site).map(|site| site.timezone.as_str());
    !planned.is_empty() && planned == declared && zone == Some(windows.timezone.as_str())
}

fn same_question(plant: &Plant, gateway: &Gateway, planned: Option<&Interlock>) -> bool {
    let (declared, planned) = match (&gateway.safe_to_change, planned) {
        (None, None) => return true,
        (Some(declared), Some(planned)) => (declared, planned),
        _ => return false,
    };
    let Some(asset) = plant.assets.get(&declared.asset) else {
        return false;
    };
    let leaves_where_it_may = match &planned.from {
        AskedFrom::Address(own) => gateway.interfaces.values().any(|side| {
            let lives_there = side.zone == asset.zone || side.behind.contains(&asset.zone);
            lives_there && side.addresses.iter().any(|address| address.addr() == *own)
        }),
        AskedFrom::Interface(name) => gateway.management.as_ref().is_some_and(|management| {
            let is_peer = management
                .peers
                .iter()
                .any(|peer| peer.contains(&planned.address));
            management.interface == *name && is_peer
        }),
    };
    planned.asset == declared.asset
        && planned.port == declared.port
        && planned.condition == declared.condition
        && asset.addresses.contains(&planned.address)
        && leaves_where_it_may
}

/// Whether a change with its trial fits into any of a gateway's windows: by the plan that a rollout has if nobody writes one.
fn long_enough(plan: &Plan, findings: &mut Findings) {
    /// What the gateway keeps of a window beside the trial.
    const MARGIN_S: u64 = 60;
    let Some(windows) = &plan.windows else {
        return;
    };
    let minute = |weekday: u8, minute: u16| u32::from(weekday) * DAY_MINUTES + u32::from(minute);
    let mut spans: Vec<(u32, u32)> = windows
        .weekly
        .iter()
        .map(|window| {
            (
                minute(window.weekday, window.start_minute),
                minute(window.weekday, window.end_minute),
            )
        })
        .collect();
    spans.sort_unstable();
    // The week after, so that what meets at its end is seen.
    let next: Vec<_> = spans
        .iter()
        .map(|(from, until)| (from + 7 * DAY_MINUTES, until + 7 * DAY_MINUTES))
        .collect();
    let (mut longest, mut open) = (0, None);
    for (from, until) in spans.into_iter().chain(next) {
        let begun = match open {
            Some((begun, ended)) if from <= ended => begun,
            _ => from,
        };
        longest = longest.max(until.saturating_sub(begun));
        open = Some((begun, until));
    }
    let trial = default_plan(&Fleet::default(), 0).trial;
    let needed = (trial.as_seconds() + MARGIN_S).div_ceil(60);
    if u64::from(longest) < needed {
        findings.warning(
            "PC0173",
            format!(
                "the longest change window is {longest} min, and a change whose trial takes {trial} needs {needed} min: with \
                 the default rollout plan the gateway would never change"
            ),
            "make a window longer, or roll out with a shorter `trial`",
        );
    }
}

/// Whether the questions of all gateways pass those that stand between them and who is asked: a conduit has to say so, as of
/// anything else that crosses.
pub(super) fn on_the_way(plans: &BTreeMap<GatewayId, Plan>, findings: &mut Findings) {
    for (id, plan) in plans {
        let Some(interlock) = &plan.interlock else {
            continue;
        };
        let AskedFrom::Address(own) = interlock.from else {
            continue; // Through the way in for people, which lies beside all zones.
        };
        for (between, other) in plans.iter().filter(|(other, _)| *other != id) {
            let side = |address| -> Option<&PlanInterface> {
                other.interfaces.iter().find(|side| side.holds(address))
            };
            let (Some(ingress), Some(egress)) = (side(own), side(interlock.address)) else {
                continue;
            };
            if ingress.name == egress.name || ingress.zone == egress.zone {
                continue;
            }
            let connection = Connection {
                ingress: ingress.name.clone(),
                egress: egress.name.clone(),
                source: own,
                destination: interlock.address,
                transport: Carried::Tcp(interlock.port),
            };
            let stopped = match decide(other, &connection).decision {
                Decision::Deny => Some("no flow permits it there"),
                Decision::Allow if !may_ask(other, &connection, &interlock.condition) => {
                    Some("the operations of its flow do not have it")
                }
                _ => None,
            };
            if let Some(why) = stopped {
                findings.gateway = Some(id.clone());
                findings.error(
                    "PC0172",
                    format!(
                        "the gateway asks {} at {}:{} from {own} before it changes, and the question does not pass \
                         gateway {between}: {why}",
                        interlock.asset, interlock.address, interlock.port
                    ),
                    "make the gateway an asset with that address, and its question a flow of the conduit between; or ask an \
                     asset of a zone that is attached to the gateway itself",
                );
                findings.gateway = None;
            }
        }
    }
}

/// Whether what is permitted on the connection includes the question. Of another protocol's operations nothing is known.
fn may_ask(plan: &Plan, connection: &Connection, condition: &Condition) -> bool {
    let lists = match permitted(plan, connection) {
        Permissions::Anything => return true,
        Permissions::Nothing => return true, // Both ends are of one zone.
        Permissions::InsideTls(_) => return false, // It is asked in the plain.
        Permissions::Only(lists) if lists.iter().any(|(rule, _)| rule.plain_port().is_some()) => {
            return false;
        }
        Permissions::Only(lists) => lists,
    };
    lists.iter().any(|(_, operations)| has(operations, condition))
}

fn has(operations: &Operations, condition: &Condition) -> bool {
    let (Condition::Coil { unit, coil, .. }, Some(list)) = (condition, ModbusOperation::list(operations))
    else {
        return !matches!(condition, Condition::Coil { .. });
    };
    let within = |ranges: &Option<Vec<NumberRange>>, number: u32| {
        ranges.as_ref().is_none_or(|ranges| {
            ranges
                .iter()
                .any(|range| (range.first..=range.last).contains(&number))
        })
    };
    list.iter().any(|operation| {
        let reads = ["read-coils", "read-only", "read-write"].contains(&operation.function.as_str());
        let addresses = operation.read_addresses.as_ref().or(operation.addresses.as_ref());
        reads && within(&operation.units, u32::from(*unit)) && within(&addresses.cloned(), u32::from(*coil))
    })
}
