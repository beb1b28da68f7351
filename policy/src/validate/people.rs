//! Approvers: enough of them, each with a key of their own.

use std::collections::BTreeMap;

use super::{Context, each, text};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
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
    let mut keys: BTreeMap<PublicKey, (Place, &ApproverId)> = BTreeMap::new();
    for (name, _, person) in people.readable() {
        let Some(key) = person.key.get() else { continue };
        match keys.get(&key.value) {
            None => {
                keys.insert(key.value, (key.place, name));
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
    let made = each(Some(people), |_, person| {
        Some(Approver {
            key: *person.key.value()?,
            role: text(&person.role),
        })
    })?;
    Some(ApproverSet {
        threshold: u8::try_from(approvers.threshold.value()?.0).ok()?,
        people: made,
    })
}
