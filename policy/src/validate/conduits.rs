//! Conduits: two different zones, the gateways between them, and the conduit's own record.

use std::collections::{BTreeMap, BTreeSet};

use super::ways::Ways;
use super::{Context, each, elsewhere, flows, frames, plain, resolve, resolves, shared, text};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::grammar;
use crate::document::read::{At, Field};
use crate::ids::{ConduitId, FlowName, GatewayId, ZoneId};
use crate::model::{Conduit, Enforcer, Flow, ZoneKind};
use crate::terms::OnAgentLoss;

pub(super) fn conduits(context: &Context<'_>, faults: &mut Faults) -> Option<BTreeMap<ConduitId, Conduit>> {
    if matches!(context.document.conduits, Field::Faulty) {
        return None;
    }
    let table = context.document.conduits.value();
    let ways = Ways::new(context);
    for (name, named, conduit) in table.into_iter().flat_map(|table| table.readable()) {
        empty(named.key_place, conduit, faults);
        incomplete(name, named.key_place, conduit, faults);
    }
    let conduits = each(table, |name, conduit| {
        conduit_of(name, conduit, &ways, context, faults)
    })?;
    shared::agree_on_tls(&conduits, table, faults);
    Some(conduits)
}

fn conduit_of(
    name: &ConduitId,
    conduit: &grammar::Conduit,
    ways: &Ways<'_>,
    context: &Context<'_>,
    faults: &mut Faults,
) -> Option<Conduit> {
    let zones = context.document.zones.value();
    let from = resolve(&conduit.from, zones, "zone", faults);
    let to = resolve(&conduit.to, zones, "zone", faults);
    let ends = from.clone().zip(to.clone());
    let mut via = BTreeSet::new();
    if let (Some((from, to)), Some(place)) = (&ends, conduit.to.get().map(|at| at.place)) {
        if from == to {
            faults.add(
                Fault::new(
                    Code::SameZone,
                    place,
                    format!("the conduit `{name}` leads from `{from}` to `{to}` itself"),
                )
                .label("the same zone")
                .help("name two different zones"),
            );
        } else {
            via = if conduit.enforced_by.is_absent() {
                way(name, conduit, (from, to), place, ways, context, faults)
            } else {
                elsewhere::check(name, conduit, (from, to), ways, faults)
            };
            for left_out in ways
                .left_out(from, to, &via)
                .into_iter()
                .filter(|_| !via.is_empty())
            {
                let message = format!(
                    "the gateway `{left_out}` stands on the way from `{from}` to `{to}`, but does not let the conduit `{name}` pass"
                );
                faults.add(
                    Fault::new(Code::BrokenWay, place, message)
                        .label(format!("reached through `{left_out}`"))
                        .help(format!("at `{left_out}`, write the zone that it lacks `behind` the interface that leads to it")),
                );
            }
            straight_to_safety(name, (from, to), place, context, faults);
        }
    } else {
        for gateway in conduit.via.value().into_iter().flat_map(|list| &list.0) {
            resolves(gateway, context.document.gateways.value(), "gateway", faults);
        }
    }
    let between = super::Between {
        conduit: name,
        from: from.as_ref(),
        to: to.as_ref(),
        via: &via,
    };
    let flows = each(conduit.flows.value(), |flow_name, flow| {
        flows::flow(flow_name, flow, &between, context, faults)
    });
    let frames = each(conduit.frames.value(), |frames_name, written| {
        frames::frames(frames_name, written, (conduit, &between), ways, context, faults)
    });
    let (flows, frames) = (flows?, frames?);
    agent_loss(
        name,
        conduit,
        [from.as_ref(), to.as_ref()],
        &flows,
        context,
        faults,
    );
    Some(Conduit {
        title: text(&conduit.title).unwrap_or_else(|| name.to_string()),
        from: from?,
        to: to?,
        via,
        enforced_by: conduit
            .enforced_by
            .value()
            .map_or(Enforcer::Gateways, |written| written.0.clone()),
        sl_target: conduit.sl_target.value().copied(),
        on_agent_loss: conduit
            .on_agent_loss
            .value()
            .copied()
            .unwrap_or(OnAgentLoss::Block),
        tunnel: conduit.tunnel.value().copied().unwrap_or(false),
        only_by_grant: conduit.only_by_grant.value() == Some(&true),
        minimum_assurance: conduit.minimum_assurance.value().copied(),
        accountable: text(&conduit.accountable),
        flows,
        frames,
    })
}

/// A conduit that lets nothing pass is a slip.
fn empty(place: Place, conduit: &grammar::Conduit, faults: &mut Faults) {
    if conduit.flows.is_absent() && conduit.frames.is_absent() {
        faults.add(
            Fault::new(Code::MissingKey, place, "a conduit has no `flows`")
                .label("`flows` is missing")
                .help("add `flows`: What may flow, by name; or `frames`, what crosses bridged gateways beside IP"),
        );
    }
}

/// The gateways that the conduit crosses: as written and checked, else all that stand between its zones.
fn way(
    name: &ConduitId,
    conduit: &grammar::Conduit,
    (from, to): (&ZoneId, &ZoneId),
    place: Place,
    ways: &Ways<'_>,
    context: &Context<'_>,
    faults: &mut Faults,
) -> BTreeSet<GatewayId> {
    let Field::Given(At { value: written, .. }) = &conduit.via else {
        let found = ways.all_between(from, to);
        if found.is_empty() && conduit.via.is_absent() {
            faults.add(
                Fault::new(
                    Code::NoGatewayBetween,
                    place,
                    format!("no gateway stands between `{from}` and `{to}`, so nothing could pass the conduit `{name}`"),
                )
                .label("no way to this zone")
                .help("attach both zones to a gateway, each to another interface (`zone`, or `behind` for those further away)"),
            );
        }
        return found;
    };
    let mut via = BTreeSet::new();
    for gateway in &written.0 {
        if !resolves(gateway, context.document.gateways.value(), "gateway", faults) {
            continue;
        }
        let unread = context
            .document
            .gateways
            .value()
            .is_none_or(|table| table.get(&gateway.value).is_none());
        if !unread && !ways.between(&gateway.value, from, to) {
            faults.add(
                Fault::new(
                    Code::NotOnTheWay,
                    gateway.place,
                    format!(
                        "the gateway `{}` does not stand between `{from}` and `{to}`",
                        gateway.value
                    ),
                )
                .label("not on the way")
                .help("attach both zones to it on different interfaces, or leave `via` out and it is found"),
            );
        }
        via.insert(gateway.value.clone());
    }
    via
}

fn kind(zone: &ZoneId, context: &Context<'_>) -> Option<ZoneKind> {
    context.document.zones.value()?.get(zone)?.kind.value().copied()
}

fn straight_to_safety(
    name: &ConduitId,
    (from, to): (&ZoneId, &ZoneId),
    place: Place,
    context: &Context<'_>,
    faults: &mut Faults,
) {
    let kinds = (kind(from, context), kind(to, context));
    let outside = |kind| {
        matches!(
            kind,
            Some(ZoneKind::Enterprise | ZoneKind::External | ZoneKind::RemoteAccess | ZoneKind::Transient)
        )
    };
    let safety = |kind| kind == Some(ZoneKind::Safety);
    if (outside(kinds.0) && safety(kinds.1)) || (safety(kinds.0) && outside(kinds.1)) {
        let message =
            format!("the conduit `{name}` joins `{from}` and `{to}`, one of them outside, one a safety zone");
        faults.add(
            Fault::new(Code::EnterpriseToSafety, place, message)
                .label("straight to safety")
                .help("lead it through a DMZ or the operations zone, or remove it"),
        );
    }
}

fn agent_loss(
    name: &ConduitId,
    conduit: &grammar::Conduit,
    ends: [Option<&ZoneId>; 2],
    flows: &BTreeMap<FlowName, Flow>,
    context: &Context<'_>,
    faults: &mut Faults,
) {
    let Some(At {
        value: OnAgentLoss::Pass,
        place,
    }) = conduit.on_agent_loss.get()
    else {
        return;
    };
    plain::never_without_agent(name, *place, flows.iter(), faults);
    if !flows.values().any(Flow::is_carried) {
        faults.add(
            Fault::new(
                Code::PassWithoutInspection,
                *place,
                format!("no flow of the conduit `{name}` is inspected, so `pass` says nothing"),
            )
            .label("without effect")
            .help("remove the key, or limit a flow to operations"),
        );
    } else if ends
        .into_iter()
        .flatten()
        .any(|zone| kind(zone, context) == Some(ZoneKind::Safety))
    {
        faults.add(
            Fault::new(
                Code::PassIntoSafety,
                *place,
                format!("the conduit `{name}` stays open into a safety zone while no agent lives"),
            )
            .label("passes uninspected")
            .help("write `on_agent_loss: block`"),
        );
    }
}

/// Warns by name of what the conduit's record lacks.
fn incomplete(name: &ConduitId, place: Place, conduit: &grammar::Conduit, faults: &mut Faults) {
    let missing: Vec<&str> = [
        ("`accountable`", conduit.accountable.is_absent()),
        ("`sl_target`", conduit.sl_target.is_absent()),
    ]
    .into_iter()
    .filter_map(|(key, missing)| missing.then_some(key))
    .collect();
    if missing.is_empty() {
        return;
    }
    let keys = missing.join(", ");
    faults.add(
        Fault::new(
            Code::ConduitRecordIncomplete,
            place,
            format!("the record of the conduit `{name}` lacks {keys}"),
        )
        .label("incomplete (IEC 62443-3-2 ZCR 6.4)")
        .help(format!("add {keys}")),
    );
}
