//! Frames other than IP that come, go, are more or are fewer.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Effect, Subject};
use crate::ids::{ConduitId, FlowName};
use crate::model::{Conduit, Enforcer, FrameFlow, Plant};
use crate::words::and;

type AllFrames<'a> = BTreeMap<(&'a ConduitId, &'a FlowName), (&'a Conduit, &'a FrameFlow)>;

pub(super) fn changes(old: Option<&Plant>, new: &Plant, changes: &mut Vec<Change>) {
    let (before, after) = (old.map(all).unwrap_or_default(), all(new));
    let names: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
    for name in names {
        let (effect, details) = match (before.get(&name), after.get(&name)) {
            (None, Some((conduit, flow))) => (Effect::Added, vec![whole(conduit, flow)]),
            (Some((conduit, flow)), None) => (Effect::Removed, vec![whole(conduit, flow)]),
            (Some((_, before)), Some((_, after))) if before != after => compare(before, after),
            _ => continue,
        };
        let (conduit, flow) = (name.0.clone(), name.1.clone());
        changes.push(Change {
            subject: Subject::Frames { conduit, flow },
            effect,
            details,
        });
    }
}

fn all(plant: &Plant) -> AllFrames<'_> {
    let of_conduit = |(id, conduit)| {
        let conduit: &Conduit = conduit;
        let frames = conduit.frames.iter();
        frames.map(move |(name, flow)| ((id, name), (conduit, flow)))
    };
    plant.conduits.iter().flat_map(of_conduit).collect()
}

/// Frames that come or go, in one phrase.
fn whole(conduit: &Conduit, flow: &FrameFlow) -> String {
    let by = match &conduit.enforced_by {
        Enforcer::Gateways => format!("at {}", and(conduit.via.iter())),
        Enforcer::Other(by) => format!("enforced by {by} and by no gateway"),
        Enforcer::Nobody => "enforced by nobody yet".to_owned(),
    };
    format!("{flow}, {by}")
}

/// What differs, and whether it lets more or less through.
fn compare(before: &FrameFlow, after: &FrameFlow) -> (Effect, Vec<String>) {
    let same_way = before.from == after.from && before.to == after.to;
    let leads = |outer: &FrameFlow, inner: &FrameFlow| match (outer.both, inner.both) {
        (true, _) => same_way || (outer.from == inner.to && outer.to == inner.from),
        (false, true) => false,
        (false, false) => same_way,
    };
    let covers =
        |outer: &FrameFlow, inner: &FrameFlow| leads(outer, inner) && outer.frames.cover(&inner.frames);
    let (wider, narrower) = (!covers(before, after), !covers(after, before));
    let mut details = Vec::new();
    let says = |flow: &FrameFlow| FrameFlow {
        title: None,
        ..flow.clone()
    };
    if says(before) != says(after) {
        details.push(format!("{after} (was {before})"));
    }
    if before.title != after.title {
        let title = |flow: &FrameFlow| flow.title.clone().unwrap_or_else(|| "none".to_owned());
        details.push(format!("title: {} (was {})", title(after), title(before)));
    }
    (Effect::of(wider, narrower), details)
}
