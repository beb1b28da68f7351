//! Approvers: enough of them, each with a key of their own.

use std::collections::BTreeMap;

use super::{Context, each, text};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::read::Field;
use crate::ids::ApproverId;
use crate::model::{Approver, ApproverSet, PublicKey};

pub(super) fn approvers(context: &Context<'_>, faults: &mut Faults) -> Option<ApproverSet> {
    let approvers = context.document.approvers.value()?;
    let people = approvers.people.value()?;
    if let Some(threshold) = approvers.threshold.get()
        && usize::try_from(threshold.value.0).is_ok_and(|threshold| threshold > people.0.len())
    {
        let message = format!(
            "a release needs {} signatures, but there are {} approvers",
            threshold.value.0,
            people.0.len()
        );
        faults.add(
            Fault::new(Code::ThresholdUnreachable, threshold.place, message)
                .label("never reached")
                .help("name more people, or lower `threshold`"),
        );
    }
    if let Some(threshold) = approvers
        .threshold
        .get()
        .filter(|threshold| threshold.value.0 == 1)
    {
        let names: Vec<String> = people.0.keys().take(4).map(|name| format!("`{name}`")).collect();
        let message = match people.0.len() {
            1 => format!(
                "the key of {} alone decides what the gateways enforce",
                names.join("")
            ),
            _ => format!(
                "each of the approvers ({}) alone decides what the gateways enforce",
                names.join(", ")
            ),
        };
        faults.add(
            Fault::new(Code::OneSignature, threshold.place, message)
                .label("one signature is enough")
                .help("name at least two approvers, and write `threshold: 2`"),
        );
    }
    if let (Some(more), Some(threshold)) = (approvers.emergency_threshold.get(), approvers.threshold.get()) {
        let (number, people) = (u64::from(more.value.0), people.0.len() as u64);
        let fault = |message: String, label: &'static str, help: &'static str| {
            Fault::new(Code::EmergencyThreshold, more.place, message)
                .label(label)
                .related(threshold.place, "what any other release needs")
                .help(help)
        };
        if number > people {
            faults.add(fault(
                format!("an emergency needs {number} signatures, but there are {people} approvers"),
                "never reached",
                "name more people, or leave the key out: then there are no emergencies",
            ));
        } else if number <= u64::from(threshold.value.0) && number < people {
            faults.add(fault(
                format!(
                    "an emergency needs {number} of {people} signatures, and any other release {}",
                    threshold.value.0
                ),
                "not more than otherwise",
                "write a higher number: nobody watches what an emergency does before it is everywhere",
            ));
        }
    }
    own_keys(
        people.readable().map(|(name, _, person)| (name, &person.key)),
        faults,
    );
    let made = each(Some(people), |_, person| {
        Some(Approver {
            key: *person.key.value()?,
            role: text(&person.role),
        })
    })?;
    Some(ApproverSet {
        threshold: u8::try_from(approvers.threshold.value()?.0).ok()?,
        emergency_threshold: match approvers.emergency_threshold.value() {
            Some(more) => Some(u8::try_from(more.0).ok()?),
            None => None,
        },
        people: made,
    })
}

/// Each of these people has a key of their own.
pub(super) fn own_keys<'a>(
    people: impl Iterator<Item = (&'a ApproverId, &'a Field<PublicKey>)>,
    faults: &mut Faults,
) {
    let mut keys: BTreeMap<&[u8; 32], (Place, &ApproverId)> = BTreeMap::new();
    for (name, key) in people {
        let Some(key) = key.get() else { continue };
        match keys.get(key.value.point()) {
            None => {
                keys.insert(key.value.point(), (key.place, name));
            }
            Some((first, other)) => faults.add(
                Fault::new(
                    Code::SharedKey,
                    key.place,
                    format!("`{name}` has the same key as `{other}`"),
                )
                .label("the same key")
                .related(*first, format!("the key of `{other}`"))
                .help("each person makes a key of their own: `penstock key new`"),
            ),
        }
    }
}
