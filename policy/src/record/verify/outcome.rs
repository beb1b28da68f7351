//! What came of a change, and whether what the record says of it fits together.

use std::collections::BTreeSet;

use super::super::content::ChangeRecord;
use super::words::{counted, short, some_of};
use super::{Claims, Grade};
use crate::release::Statement;

/// What gateways hold, how well the zones are, and the new baseline.
pub(super) fn outcome(record: &ChangeRecord, statement: &Statement, claims: &mut Claims) {
    let digest = record.authorisation.release.digest();
    let revision = statement.revision.0;
    let gateways = &record.verification.gateways;
    let mut other = Vec::new();
    let mut holds = 0_usize;
    for gateway in gateways {
        let effective = gateway.effective.as_ref();
        let has_it = effective
            .is_some_and(|held| held.plan_digest == gateway.plan_digest && held.revision == revision);
        holds += usize::from(has_it);
        if !has_it {
            other.push(gateway.name.as_str());
        }
        let is_false = effective.is_some_and(|held| {
            let is_named =
                held.revision == revision && held.statement_digest.is_none_or(|stated| stated == digest);
            is_named && held.plan_digest != gateway.plan_digest
        });
        if is_false {
            claims.add(
                Grade::Contradicted,
                "effective",
                format!(
                    "{} reports r{revision} with a plan that is not the release's",
                    gateway.name
                ),
            );
        }
        let is_confirmed = gateway.state.starts_with("confirmed");
        // A later release may have come since.
        if is_confirmed && !has_it && effective.is_none_or(|held| held.revision <= revision) {
            claims.add(
                Grade::Contradicted,
                "effective",
                format!(
                    "{} is said to have confirmed r{revision}, and does not report it",
                    gateway.name
                ),
            );
        }
    }
    claims.add(
        Grade::Word,
        "effective",
        format!(
            "{holds} of {} gateways report that their kernel holds the approved plan: on the word of each gateway, as the coordinator passes it on",
            gateways.len()
        ),
    );
    if !other.is_empty() {
        claims.add(
            Grade::Word,
            "effective-not",
            format!("not so: {}", some_of(&other)),
        );
    }
    let unwell: BTreeSet<&str> = record
        .verification
        .zones
        .iter()
        .filter(|zone| !matches!(zone.state.as_str(), "enforcing" | "observing"))
        .map(|zone| zone.zone.as_str())
        .collect();
    let unwell: Vec<&str> = unwell.into_iter().collect();
    claims.add(
        Grade::Word,
        "health",
        match unwell.as_slice() {
            [] => format!(
                "all of its {} were well at the end, as the coordinator judged",
                zones_of(record)
            ),
            names => format!(
                "of its {}, these were not well at the end: {}",
                zones_of(record),
                some_of(names)
            ),
        },
    );
    let is_complete = record.implementation.stage.starts_with("completed");
    match record.new_baseline {
        Some(new) if new == digest && is_complete => claims.add(
            Grade::Word,
            "new-baseline",
            format!("the new baseline is r{revision} ({})", short(&digest)),
        ),
        None if !is_complete => claims.add(
            Grade::Word,
            "new-baseline",
            format!(
                "there is no new baseline: the rollout was {} when the record was made",
                record.implementation.stage
            ),
        ),
        _ => claims.add(
            Grade::Contradicted,
            "new-baseline",
            format!(
                "the new baseline is not what the rollout led to: it was {}",
                record.implementation.stage
            ),
        ),
    }
}

fn zones_of(record: &ChangeRecord) -> String {
    counted(record.verification.zones.len(), "zone")
}
