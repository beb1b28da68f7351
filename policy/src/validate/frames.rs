//! Frames other than IP: every gateway of the conduit is a bridge, and tells by its sides alone which zone a frame is of.

use std::collections::{BTreeMap, BTreeSet};

use super::ways::Ways;
use super::{Between, Context, resolves, text};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::grammar;
use crate::document::read::{At, Field, OneOrMany};
use crate::ids::{ConduitId, FlowName, GatewayId, ZoneId};
use crate::model::{Conduit, FrameFlow};
use crate::plan::frames::{FRAME_ENTRIES_MAX, FRAME_RULES_MAX};
use crate::terms::{Assurance, Frames, GatewayMode, MacPrefix, NumberRange};

/// The frames of one entry.
pub(super) fn frames(
    name: &FlowName,
    written: &grammar::FrameFlow,
    (conduit, between): (&grammar::Conduit, &Between<'_>),
    ways: &Ways<'_>,
    context: &Context<'_>,
    faults: &mut Faults,
) -> Option<FrameFlow> {
    let entry = Entry {
        name: format!("{}/{name}", between.conduit),
        place: written.ethertype.get().map(|at| at.place),
    };
    if let Some(flow) = conduit.flows.value().and_then(|flows| flows.0.get(name)) {
        let message = format!("a flow and frames have the same name, `{}`", entry.name);
        let fault = entry.unfit(message, "named like a flow", "give them another name");
        faults.add(fault.related(flow.key_place, "the flow"));
    }
    can_stand(&entry, conduit, faults);
    let from = direction(&entry, &written.from, between, context, faults);
    if let (Some(zone), Some(other)) = (between.from, between.to) {
        for gateway in between.via {
            at_gateway(&entry, gateway, [zone, other], ways, context, faults);
        }
    }
    let both = match written.both {
        Field::Faulty => return None,
        _ => written.both.value().copied().unwrap_or(false),
    };
    let frames = frames_of(&entry, written, faults)?;
    let (from, to) = from?;
    Some(FrameFlow {
        title: text(&written.title),
        from,
        to,
        both,
        frames,
    })
}

/// No gateway gets more than its plan may hold.
pub(super) fn too_many(
    conduits: &BTreeMap<ConduitId, Conduit>,
    document: &grammar::Document,
    faults: &mut Faults,
) {
    let mut sums: BTreeMap<&GatewayId, (usize, usize)> = BTreeMap::new();
    let mut said = BTreeSet::new();
    for (id, conduit) in conduits {
        let entries = conduit
            .frames
            .values()
            .map(|flow| flow.frames.entries())
            .sum::<usize>();
        for gateway in &conduit.via {
            let (rules, of_lists) = sums.entry(gateway).or_default();
            *rules += conduit.frames.len();
            *of_lists += entries;
            if (*rules > FRAME_RULES_MAX || *of_lists > FRAME_ENTRIES_MAX) && said.insert(gateway) {
                let written = document.conduits.value().and_then(|table| table.0.get(id));
                let message = format!(
                    "with the conduit `{id}`, `{gateway}` has {rules} entries of `frames` with {of_lists} VLANs, MAC addresses and APPIDs: at most \
                     {FRAME_RULES_MAX} with {FRAME_ENTRIES_MAX} are possible"
                );
                let fault = Fault::new(Code::FramesUnfit, written.map(|entry| entry.key_place), message)
                    .label("one too many")
                    .help("write blocks and ranges for lists, or lead some conduits over another gateway");
                faults.add(fault);
            }
        }
    }
}

/// What faults are about.
struct Entry {
    name: String,
    place: Option<Place>,
}

impl Entry {
    fn unfit(&self, message: String, label: &str, help: &str) -> Fault {
        let place = self.place;
        Fault::new(Code::FramesUnfit, place, message)
            .label(label.to_owned())
            .help(help.to_owned())
    }
}

/// The zone that they come from, and the conduit's other one.
fn direction(
    entry: &Entry,
    from: &Field<ZoneId>,
    between: &Between<'_>,
    context: &Context<'_>,
    faults: &mut Faults,
) -> Option<(ZoneId, ZoneId)> {
    let At { value: zone, place } = from.get()?;
    if !resolves(from.get()?, context.document.zones.value(), "zone", faults) {
        return None;
    }
    let (one, other) = (between.from?, between.to?);
    let to = match zone {
        zone if zone == one => other,
        zone if zone == other => one,
        _ => {
            faults.add(
                Fault::new(
                    Code::EndOutsideConduit,
                    *place,
                    format!(
                        "the frames `{}` come from `{zone}`, which the conduit does not join",
                        entry.name
                    ),
                )
                .label("neither of the conduit's zones")
                .help(format!("write `{one}` or `{other}`")),
            );
            return None;
        }
    };
    Some((zone.clone(), to.clone()))
}

/// A conduit that runs in a tunnel, or asks who its ends are, cannot hold frames to it. (`granted` sees to those that do not stand open.)
fn can_stand(entry: &Entry, conduit: &grammar::Conduit, faults: &mut Faults) {
    let is_set = |field: &Field<bool>| field.value() == Some(&true);
    let asked = conduit.minimum_assurance.value();
    let reasons = [
        (
            is_set(&conduit.tunnel),
            "the conduit runs in a tunnel, which carries IP alone",
        ),
        (
            asked.is_some_and(|minimum| *minimum > Assurance::D0),
            "the conduit asks who its ends are, and nothing proves that of a frame",
        ),
    ];
    for (_, why) in reasons.iter().filter(|(holds, _)| *holds) {
        let message = format!("the frames `{}` cannot pass: {why}", entry.name);
        faults.add(entry.unfit(
            message,
            "not in this conduit",
            "put them into a conduit of their own",
        ));
    }
}

/// The gateway is a bridge, and each side that has one of the two zones has no other.
fn at_gateway(
    entry: &Entry,
    id: &GatewayId,
    zones: [&ZoneId; 2],
    ways: &Ways<'_>,
    context: &Context<'_>,
    faults: &mut Faults,
) {
    let gateways = context.document.gateways.value();
    let mode = gateways
        .and_then(|table| table.get(id))
        .and_then(|gateway| gateway.mode.value());
    if mode == Some(&GatewayMode::Routed) {
        faults.add(
            Fault::new(
                Code::FramesNotBridged,
                entry.place,
                format!(
                    "the frames `{}` would have to cross `{id}`, which routes",
                    entry.name
                ),
            )
            .label("a router forwards nothing but IP")
            .help("remove them, or make the gateway `mode: bridged`"),
        );
    }
    for zone in zones {
        if let Some((interface, other)) = ways.shared(id, zone) {
            let message = format!(
                "frames show no address: at `{id}` nobody can tell whether `{}` come from `{zone}` or from `{other}`, which is on the same side, `{interface}`",
                entry.name
            );
            faults.add(entry.unfit(
                message,
                "of two zones on one side",
                "give each of the two zones an interface of its own, or lead the conduit another way",
            ));
        }
    }
}

/// Which frames; all lists in order.
fn frames_of(entry: &Entry, written: &grammar::FrameFlow, faults: &mut Faults) -> Option<Frames> {
    fn list<T, U>(field: &Field<OneOrMany<T>>, each: impl Fn(&T) -> U) -> Option<Option<Vec<U>>> {
        match field {
            Field::Faulty => None,
            Field::Absent => Some(None),
            Field::Given(at) => Some(Some(at.value.0.iter().map(|item| each(&item.value)).collect())),
        }
    }
    let vlans = list(&written.vlan, |vlan| u16::try_from(vlan.0).unwrap_or(u16::MAX))?;
    let mut vlans = vlans.unwrap_or_else(|| vec![0]);
    vlans.sort_unstable();
    let frames = Frames {
        ether_type: *written.ethertype.value()?,
        vlans,
        destinations: list(&written.to_mac, |block| *block)?.map(MacPrefix::merged),
        appids: list(&written.appid, |ids| ids.0)?.map(NumberRange::merged),
    };
    if let Some(fault) = frames.fault() {
        let message = format!("the frames `{}` {fault}", entry.name);
        let help = "`appid` belongs to `goose`, `sampled-values` and `gse-management`; a list has at most 256 entries";
        faults.add(entry.unfit(message, "without effect", help));
        return None;
    }
    Some(frames)
}
