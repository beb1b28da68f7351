//! What grants of remote access change: when the conduits that they name are open.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{FieldAccount, differing_fields};
use super::{Change, Effect, Subject};
use crate::compile::grants;
use crate::ids::ConduitId;
use crate::model::{Conduit, Plant, RemoteAccess};
use crate::plan::Grant;

/// When each conduit of a plant is open.
pub(super) struct Times<'a> {
    plant: Option<&'a Plant>,
    /// When grants open it: spans of milliseconds, sorted and apart from one another.
    spans: BTreeMap<&'a ConduitId, Vec<(u64, u64)>>,
}

impl<'a> Times<'a> {
    pub(super) fn of(plant: Option<&'a Plant>) -> Self {
        Self {
            plant,
            spans: plant
                .map(grants)
                .unwrap_or_default()
                .into_iter()
                .map(|(conduit, grants)| (conduit, spans(&grants)))
                .collect(),
        }
    }

    /// Whether a conduit is open at all times. One that is not there is open at none.
    fn always(&self, conduit: &ConduitId) -> bool {
        let there = self
            .plant
            .is_some_and(|plant| plant.conduits.contains_key(conduit));
        there && !self.spans.contains_key(conduit)
    }

    /// Whether a conduit is open during the whole of a span, milliseconds.
    fn holds(&self, conduit: &ConduitId, (from, until): (u64, u64)) -> bool {
        let spans = self.spans.get(conduit).map_or(&[][..], Vec::as_slice);
        let begun = spans.partition_point(|(begin, _)| *begin <= from);
        let end = begun
            .checked_sub(1)
            .and_then(|last| spans.get(last))
            .map(|(_, end)| *end);
        from >= until || end.is_some_and(|end| until <= end) || self.always(conduit)
    }

    /// Whether it is open whenever it was by `others`.
    fn covers(&self, others: &Self, conduit: &ConduitId) -> bool {
        let mut spans = others.spans.get(conduit).into_iter().flatten();
        let held = if others.always(conduit) {
            self.always(conduit)
        } else {
            true
        };
        held && spans.all(|span| self.holds(conduit, *span))
    }
}

/// The times of grants, which are in the order of their beginnings.
fn spans(grants: &[Grant]) -> Vec<(u64, u64)> {
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for Grant {
        from_ms, until_ms, ..
    } in grants
    {
        match spans.last_mut() {
            Some((_, end)) if from_ms <= end => *end = (*end).max(*until_ms),
            _ => spans.push((*from_ms, *until_ms)),
        }
    }
    spans
}

/// What becomes of a conduit that says of itself whether only grants open it.
pub(super) fn conduit(
    id: &ConduitId,
    (old, new): (&Conduit, &Conduit),
    [before, after]: [&Times<'_>; 2],
) -> FieldAccount {
    let (effect, details) = match (before.always(id), after.always(id)) {
        _ if old.only_by_grant == new.only_by_grant => (None, Vec::new()),
        (true, false) => (Some(Effect::Narrowed), vec![closes(id)]),
        (false, true) => (Some(Effect::Widened), vec![opens(id)]),
        _ => return FieldAccount::nothing(),
    };
    FieldAccount {
        effect,
        details,
        fields: vec!["only_by_grant"],
    }
}

fn closes(id: &ConduitId) -> String {
    format!("conduit {id}, which stood open, is open only during grants of remote access from now on")
}

fn opens(id: &ConduitId) -> String {
    format!("conduit {id} stands open at all times from now on, with or without a grant of remote access")
}

/// The grants that come, go or change.
pub(super) fn changes(old: Option<&Plant>, new: &Plant, changes: &mut Vec<Change>) {
    let (before, after) = (Times::of(old), Times::of(Some(new)));
    let none = BTreeMap::new();
    let held = old.map_or(&none, |old| &old.remote_access);
    // A conduit with many grants is compared once, not once for each of them.
    let mut compared: BTreeMap<&ConduitId, (bool, bool)> = BTreeMap::new();
    let names: BTreeSet<_> = held.keys().chain(new.remote_access.keys()).collect();
    for name in names {
        let (was, is) = (held.get(name), new.remote_access.get(name));
        let mut details = match (was, is) {
            (None, Some(access)) => vec![whole(access)],
            (Some(access), None) => vec![format!("is gone: {}", whole(access))],
            (Some(one), Some(other)) => differing_fields(one, other).into_values().collect(),
            (None, None) => continue,
        };
        if details.is_empty() {
            continue;
        }
        let conduits: BTreeSet<&ConduitId> = [was, is]
            .into_iter()
            .flatten()
            .map(|access| &access.conduit)
            .collect();
        let (mut wider, mut narrower) = (false, false);
        for conduit in conduits {
            match (before.always(conduit), after.always(conduit)) {
                (true, false) => details.push(closes(conduit)),
                (false, true) if old.is_some_and(|old| old.conduits.contains_key(conduit)) => {
                    details.push(opens(conduit))
                }
                _ => {}
            }
            let (is_wider, is_narrower) = compared
                .entry(conduit)
                .or_insert_with(|| (!before.covers(&after, conduit), !after.covers(&before, conduit)));
            wider |= *is_wider;
            narrower |= *is_narrower;
        }
        let effect = match (was, is, Effect::of(wider, narrower)) {
            (None, _, Effect::Widened) => Effect::Added,
            (_, None, Effect::Narrowed) => Effect::Removed,
            _ if old.is_none() => Effect::Added,
            (.., effect) => effect,
        };
        changes.push(Change {
            subject: Subject::RemoteAccess(name.clone()),
            effect,
            details,
        });
    }
}

fn whole(access: &RemoteAccess) -> String {
    let RemoteAccess {
        person,
        conduit,
        reason,
        from,
        until,
        approved_by,
        ..
    } = access;
    format!(
        "opens conduit {conduit} for {person} from {from} until {until} ({reason}; approved by {approved_by})"
    )
}
