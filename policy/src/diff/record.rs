//! Changes of everything but flows: zones, assets, conduits, gateways, approvers, and what is only recorded.
//!
//! Nothing is left out: two records that differ in any field give a change that names the field.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use serde::Serialize;
use serde_json::Value;

use super::gateway::gateway;
use super::granted::{self, Times};
use super::{Change, Effect, Subject, overriders};
use crate::ids::{ConduitId, GatewayId, SiteId, ZoneId};
use crate::model::{Acceptance, Approver, ApproverSet, Conduit, Gateway, Plant, Site, Zone};
use crate::neighbours::{Neighbours, neighbours};
use crate::terms::{Enforcement, OnAgentLoss};
use crate::words::and;

pub(super) fn changes(old: Option<&Plant>, new: &Plant, changes: &mut Vec<Change>) {
    // The records of one kind, before and after.
    macro_rules! each {
        ($records:ident, $subject:path, $effective:expr, $words:expr) => {{
            let none = BTreeMap::new();
            let before = old.map_or(&none, |old| &old.$records);
            records(before, &new.$records, $subject, $effective, $words, changes)
        }};
    }
    let times = [Times::of(old), Times::of(Some(new))];
    let conduit = |name: &ConduitId, old: &Conduit, new: &Conduit| {
        let [before, after] = &times;
        conduit(old, new).and(granted::conduit(name, (old, new), [before, after]))
    };
    each!(
        conduits,
        Subject::Conduit,
        &["from", "to", "via", "enforced_by", "on_agent_loss"],
        conduit
    );
    let (beside_before, beside) = (old.map(neighbours).unwrap_or_default(), neighbours(new));
    let zone = |name: &ZoneId, old: &Zone, new: &Zone| {
        let none = Neighbours::default();
        let [before, after] = [&beside_before, &beside].map(|all| all.get(name).unwrap_or(&none));
        zone((old, before), (new, after))
    };
    each!(zones, Subject::Zone, &["networks", "enforcement"], zone);
    each!(assets, Subject::Asset, &["zone", "addresses", "mac"], unsaid);
    let gateway = |_: &GatewayId, old: &Gateway, new: &Gateway| gateway(old, new);
    each!(
        gateways,
        Subject::Gateway,
        &["mode", "interfaces", "management", "on_drift"],
        gateway
    );
    granted::changes(old, new, changes);
    overriders::changes(old, new, changes);
    each!(compensating_controls, Subject::CompensatingControl, &[], unsaid);
    let site = |name: &SiteId, old: &Site, new_site: &Site| clock(name, (old, new_site), new);
    each!(sites, Subject::Site, &[], site);
    approvers(old.map(|old| &old.approvers), &new.approvers, changes);
    accepted(old, new, changes);
    let Some(old) = old else { return };
    if old.risk != new.risk {
        changes.push(recorded(Subject::Risk, "the assessment is written differently"));
    }
    for (name, before, after) in [
        ("name", Value::from(old.id.as_str()), Value::from(new.id.as_str())),
        ("title", Value::from(&*old.title), Value::from(&*new.title)),
        ("owner", value(&old.owner), value(&new.owner)),
    ] {
        if before != after {
            let mut parts = Vec::new();
            differing(name, [&before, &after], &mut parts);
            changes.push(recorded(Subject::Plant, &parts.join("; ")));
        }
    }
}

/// Findings that are accepted, or no longer: an approver sees by whom, why and until when.
fn accepted(old: Option<&Plant>, new: &Plant, changes: &mut Vec<Change>) {
    let keyed = |plant: Option<&Plant>| -> BTreeMap<String, Acceptance> {
        let all = plant.into_iter().flat_map(|plant| &plant.accepted);
        let name = |one: &Acceptance| {
            let says = one.says.as_ref().map(|words| format!(", which says \"{words}\""));
            let says = says.unwrap_or_default();
            format!("{} at {}{says}", one.code, and(one.names.iter()))
        };
        all.map(|one| (name(one), one.clone())).collect()
    };
    let (before, after) = (keyed(old), keyed(Some(new)));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let words = match (before.get(name), after.get(name)) {
            (old, Some(new)) if old != Some(new) => {
                format!("accepted by {} until {}: {}", new.by, new.expires, new.reason)
            }
            (Some(_), None) => "no longer accepted".to_owned(),
            _ => continue,
        };
        changes.push(recorded(Subject::Accepted(name.clone()), &words));
    }
}

/// Records are plain data, which cannot fail to be JSON.
fn value<T: Serialize>(record: &T) -> Value {
    serde_json::to_value(record).unwrap_or(Value::Null)
}

fn recorded(subject: Subject, words: &str) -> Change {
    Change {
        subject,
        effect: Effect::Recorded,
        details: vec![words.to_owned()],
    }
}

/// What a kind of record says of a difference in its own words: the effect if more is known than "altered", and
/// details; the fields they account for.
pub(super) struct FieldAccount {
    pub(super) effect: Option<Effect>,
    pub(super) details: Vec<String>,
    pub(super) fields: Vec<&'static str>,
}

impl FieldAccount {
    pub(super) fn nothing() -> Self {
        Self {
            effect: None,
            details: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// What both say; of two effects that differ, neither is all.
    fn and(mut self, other: Self) -> Self {
        self.effect = match (self.effect, other.effect) {
            (Some(one), Some(other)) if one != other => Some(Effect::Altered),
            (one, other) => one.or(other),
        };
        self.details.extend(other.details);
        self.fields.extend(other.fields);
        self
    }
}

fn unsaid<K, T>(_: &K, _: &T, _: &T) -> FieldAccount {
    FieldAccount::nothing()
}

fn records<K: Ord + Clone + Display, T: PartialEq + Serialize>(
    before: &BTreeMap<K, T>,
    after: &BTreeMap<K, T>,
    subject: impl Fn(K) -> Subject,
    effective: &[&str],
    words: impl Fn(&K, &T, &T) -> FieldAccount,
    changes: &mut Vec<Change>,
) {
    let names: BTreeSet<&K> = before.keys().chain(after.keys()).collect();
    for name in names {
        let (effect, details) = match (before.get(name), after.get(name)) {
            (None, Some(_)) => (Effect::Added, vec!["is new".to_owned()]),
            (Some(_), None) => (Effect::Removed, vec!["is gone".to_owned()]),
            (Some(old), Some(new)) if old != new => {
                // Flows and frames have changes of their own.
                let mut fields = differing_fields(old, new);
                fields.remove("flows");
                fields.remove("frames");
                if fields.is_empty() {
                    continue;
                }
                compare(words(name, old, new), fields, effective)
            }
            _ => continue,
        };
        changes.push(Change {
            subject: subject(name.clone()),
            effect,
            details,
        });
    }
}

fn compare(
    said: FieldAccount,
    fields: BTreeMap<String, String>,
    effective: &[&str],
) -> (Effect, Vec<String>) {
    let unsaid_effect = fields
        .keys()
        .any(|field| effective.contains(&field.as_str()) && !said.fields.contains(&field.as_str()));
    let mut details = said.details;
    details.extend(
        fields
            .into_iter()
            .filter(|(field, _)| !said.fields.contains(&field.as_str()))
            .map(|(_, words)| words),
    );
    let effect = match said.effect {
        _ if unsaid_effect => Effect::Altered,
        Some(effect) => effect,
        None => Effect::Recorded,
    };
    (effect, details)
}

/// The fields that differ, each with a phrase that shows what it was and what it becomes, down to the part that differs.
pub(super) fn differing_fields<T: Serialize>(old: &T, new: &T) -> BTreeMap<String, String> {
    let fields = |record: &T| match serde_json::to_value(record) {
        Ok(Value::Object(fields)) => fields,
        // Records are structs; anything else compares as one nameless field.
        other => serde_json::Map::from_iter([("record".to_owned(), other.unwrap_or(Value::Null))]),
    };
    let (old, new) = (fields(old), fields(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| {
            let mut parts = Vec::new();
            let values = [&old, &new].map(|fields| fields.get(name).unwrap_or(&Value::Null));
            differing(&name.replace('_', " "), values, &mut parts);
            (name.clone(), parts.join("; "))
        })
        .collect()
}

fn differing(label: &str, [old, new]: [&Value; 2], parts: &mut Vec<String>) {
    if let (Value::Object(before), Value::Object(after)) = (old, new) {
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            let [old, new] = [before, after].map(|fields| fields.get(name).unwrap_or(&Value::Null));
            if old != new {
                differing(&format!("{label} {}", name.replace('_', " ")), [old, new], parts);
            }
        }
        return;
    }
    parts.push(match (shown(old), shown(new)) {
        (Some(before), Some(after)) => format!("{label}: {after} (was {before})"),
        // Certificates, free text and the like.
        _ => format!("another {label}"),
    });
}

/// A value that is short enough to show in a sentence.
fn shown(value: &Value) -> Option<String> {
    const LENGTH_MAX: usize = 200;
    let join = |parts: Option<Vec<String>>| parts.map(|parts| parts.join(", "));
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(value) => yes_or_no(*value).to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => join(items.iter().map(shown).collect())?,
        Value::Object(fields) => join(
            fields
                .iter()
                .map(|(name, value)| Some(format!("{} {}", name.replace('_', " "), shown(value)?)))
                .collect(),
        )?,
    };
    (text.len() <= LENGTH_MAX).then_some(text)
}

/// What another clock of a site changes: when its gateways may be changed.
fn clock(name: &SiteId, (old, new): (&Site, &Site), plant: &Plant) -> FieldAccount {
    let here = plant.gateways.iter().filter(|(_, gateway)| gateway.site == *name);
    let with_windows: Vec<&GatewayId> = here
        .filter_map(|(id, gateway)| (!gateway.windows.is_empty()).then_some(id))
        .collect();
    if old.timezone == new.timezone || with_windows.is_empty() {
        return FieldAccount::nothing();
    }
    FieldAccount {
        effect: Some(Effect::Altered),
        details: vec![format!(
            "timezone: {} (was {}), by which the change windows of {} are read",
            new.timezone,
            old.timezone,
            and(with_windows.into_iter())
        )],
        fields: vec!["timezone"],
    }
}

/// What another mode of a zone changes: just the crossings between it and those beside it that observe, or observed.
fn zone((old, before): (&Zone, &Neighbours), (new, after): (&Zone, &Neighbours)) -> FieldAccount {
    let (effect, details) = match (old.enforcement, new.enforcement) {
        (Enforcement::Observe, Enforcement::Enforce) => {
            let open = before.open_to(old.enforcement);
            let follows = if open.is_empty() {
                "every zone beside it enforced already, so nothing changes between them".to_owned()
            } else {
                let open = and(open.into_iter());
                format!("what no conduit permits between it and {open} is dropped; it passed before")
            };
            (
                Some(Effect::Narrowed),
                vec![format!("enforces from now on: {follows}")],
            )
        }
        (Enforcement::Enforce, Enforcement::Observe) => (
            Some(Effect::Widened),
            vec![format!(
                "only observes from now on: {}",
                match after.open_to(new.enforcement) {
                    open if open.is_empty() => after.undeclared(new.enforcement),
                    open => format!(
                        "what no conduit permits between it and {} passes and is recorded; it was dropped before",
                        and(open.into_iter())
                    ),
                }
            )],
        ),
        _ => (None, Vec::new()),
    };
    FieldAccount {
        effect,
        details,
        fields: vec!["enforcement"],
    }
}

fn conduit(old: &Conduit, new: &Conduit) -> FieldAccount {
    let (effect, mut details) = match (old.on_agent_loss, new.on_agent_loss) {
        (OnAgentLoss::Block, OnAgentLoss::Pass) => (
            Some(Effect::Widened),
            vec!["inspected flows pass uninspected while no agent lives; they stopped before".to_owned()],
        ),
        (OnAgentLoss::Pass, OnAgentLoss::Block) => (
            Some(Effect::Narrowed),
            vec!["inspected flows stop while no agent lives; they passed uninspected before".to_owned()],
        ),
        _ => (None, Vec::new()),
    };
    if old.tunnel != new.tunnel {
        details.push(if new.tunnel {
            format!("goes into a tunnel between {}", and(new.via.iter()))
        } else {
            format!(
                "leaves the tunnel between {}, and runs in the clear",
                and(old.via.iter())
            )
        });
    }
    FieldAccount {
        effect,
        details,
        fields: vec!["on_agent_loss", "tunnel"],
    }
}

fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// What changes about emergencies.
fn emergencies(old: Option<u8>, new: Option<u8>) -> Option<String> {
    match (old, new) {
        (None, Some(new)) => Some(format!(
            "{new} may sign an emergency, which waits for no window and is in force everywhere at once"
        )),
        (Some(old), Some(new)) if old != new => {
            Some(format!("{new} must sign an emergency instead of {old}"))
        }
        (Some(_), None) => Some("there are no emergencies after this release".to_owned()),
        _ => None,
    }
}

fn approvers(old: Option<&ApproverSet>, new: &ApproverSet, changes: &mut Vec<Change>) {
    let mut details = Vec::new();
    let Some(old) = old else {
        changes.push(Change {
            subject: Subject::Approvers,
            effect: Effect::Added,
            details: std::iter::once(format!(
                "{} of {} must sign",
                new.threshold,
                and(new.people.keys())
            ))
            .chain(emergencies(None, new.emergency_threshold))
            .collect(),
        });
        return;
    };
    if old == new {
        return;
    }
    if old.threshold != new.threshold {
        details.push(format!(
            "{} must sign instead of {}",
            new.threshold, old.threshold
        ));
    }
    details.extend(emergencies(old.emergency_threshold, new.emergency_threshold));
    let names: BTreeSet<_> = old.people.keys().chain(new.people.keys()).collect();
    for name in names {
        match (old.people.get(name), new.people.get(name)) {
            (None, Some(_)) => details.push(format!("{name} may approve from the next release on")),
            (Some(_), None) => details.push(format!("{name} may no longer approve after this release")),
            (Some(before), Some(after)) if before.key != after.key => {
                details.push(format!("{name} has another key"));
            }
            (Some(before), Some(after)) if before != after => {
                let role = |approver: &Approver| approver.role.clone().unwrap_or_else(|| "none".to_owned());
                details.push(format!("role of {name}: {} (was {})", role(after), role(before)));
            }
            _ => {}
        }
    }
    changes.push(Change {
        subject: Subject::Approvers,
        effect: Effect::Altered,
        details,
    });
}
