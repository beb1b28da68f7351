//! What is recorded beside the traffic: grants of remote access, compensating controls, risk.
//!
//! What has expired is a warning and not an error: a plant that was good yesterday must load today.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use jiff::tz::TimeZone;

use super::{Context, each, resolve, resolves, text, texts};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::document::grammar;
use crate::document::read::Field;
use crate::ids::{ControlId, GrantId};
use crate::model::{CompensatingControl, RemoteAccess, Risk};

/// The longest grant of remote access that still counts as time-boxed.
const GRANT_DAYS_MAX: i64 = 30;

pub(super) fn remote_access(
    context: &Context<'_>,
    faults: &mut Faults,
) -> Option<BTreeMap<GrantId, RemoteAccess>> {
    if matches!(context.document.remote_access, Field::Faulty) {
        return None;
    }
    each(context.document.remote_access.value(), |name, grant| {
        let conduit = resolve(
            &grant.conduit,
            context.document.conduits.value(),
            "conduit",
            faults,
        );
        let approved_by = approver(&grant.approved_by, context, faults);
        if let (Some(from), Some(until)) = (grant.from.get(), grant.until.get()) {
            let length = until.value.at.duration_since(from.value.at);
            // In milliseconds, as gateways count: what is shorter opens nothing, and a plan with it would be refused.
            if until.value.ms() <= from.value.ms() {
                faults.add(
                    Fault::new(
                        Code::EndsBeforeItBegins,
                        until.place,
                        match length > SignedDuration::ZERO {
                            true => format!("the grant `{name}` ends in the millisecond in which it begins"),
                            false => format!("the grant `{name}` ends before it begins"),
                        },
                    )
                    .label("ends here")
                    .related(from.place, "begins here"),
                );
            } else if length > SignedDuration::from_hours(GRANT_DAYS_MAX * 24) {
                let message = format!("the grant `{name}` lasts longer than {GRANT_DAYS_MAX} days");
                faults.add(
                    Fault::new(Code::GrantTooLong, until.place, message)
                        .label("a long time from now")
                        .help("make it shorter, and renew it when it is needed again"),
                );
            }
            // The last day is counted in UTC, so a grant is called expired only when it is so everywhere.
            if until.value.at.to_zoned(TimeZone::UTC).date() < context.today {
                faults.add(
                    Fault::new(
                        Code::Expired,
                        until.place,
                        format!("the grant `{name}` has expired"),
                    )
                    .label("in the past")
                    .help("remove it, or have a new one approved"),
                );
            }
        }
        Some(RemoteAccess {
            person: text(&grant.person)?,
            conduit: conduit?,
            reason: text(&grant.reason)?,
            from: grant.from.value()?.text.clone(),
            until: grant.until.value()?.text.clone(),
            from_ms: grant.from.value()?.ms(),
            until_ms: grant.until.value()?.ms(),
            approved_by: approved_by?,
        })
    })
}

pub(super) fn approver(
    field: &Field<crate::ids::ApproverId>,
    context: &Context<'_>,
    faults: &mut Faults,
) -> Option<crate::ids::ApproverId> {
    let people = context
        .document
        .approvers
        .value()
        .and_then(|approvers| approvers.people.value());
    // Without a readable list of people nobody can be told to be missing from it.
    let people = people?;
    resolve(field, Some(people), "approver", faults)
}

pub(super) fn compensating_controls(
    context: &Context<'_>,
    faults: &mut Faults,
) -> Option<BTreeMap<ControlId, CompensatingControl>> {
    let document = context.document;
    if matches!(document.compensating_controls, Field::Faulty) {
        return None;
    }
    let table = document.compensating_controls.value();
    for (name, named, control) in table.into_iter().flat_map(|table| table.readable()) {
        if control.zone.is_absent() && control.asset.is_absent() && control.conduit.is_absent() {
            faults.add(
                Fault::new(
                    Code::NoSubject,
                    named.key_place,
                    format!("the compensating control `{name}` does not say what it stands for"),
                )
                .help("add `zone`, `asset` or `conduit`"),
            );
        }
    }
    each(table, |name, control| {
        let zone = resolve(&control.zone, document.zones.value(), "zone", faults);
        let asset = resolve(&control.asset, document.assets.value(), "asset", faults);
        let conduit = resolve(&control.conduit, document.conduits.value(), "conduit", faults);
        in_the_zone(control, context, faults);
        let approved_by = approver(&control.approved_by, context, faults);
        if let Some(expires) = control.expires.get()
            && expires.value.0 < context.today
        {
            faults.add(
                Fault::new(
                    Code::Expired,
                    expires.place,
                    format!("the compensating control `{name}` has expired"),
                )
                .label("in the past")
                .help("have it approved again with a new date, or meet the requirement"),
            );
        }
        Some(CompensatingControl {
            zone,
            asset,
            conduit,
            requirement: control.requirement.value()?.0.clone(),
            reason: text(&control.reason)?,
            measure: text(&control.measure)?,
            approved_by: approved_by?,
            expires: control.expires.value()?.0.to_string(),
            expired: control.expires.value()?.0 < context.today,
        })
    })
}

fn in_the_zone(control: &grammar::CompensatingControl, context: &Context<'_>, faults: &mut Faults) {
    let (Some(asset), Some(zone)) = (control.asset.get(), control.zone.value()) else {
        return;
    };
    let record = context
        .document
        .assets
        .value()
        .and_then(|table| table.get(&asset.value));
    let Some(lies_in) = record.and_then(|record| record.zone.value()) else {
        return;
    };
    if lies_in != zone {
        faults.add(
            Fault::new(
                Code::SubjectsDisagree,
                asset.place,
                format!("the asset `{}` is not in the zone `{zone}`", asset.value),
            )
            .label(format!("in the zone `{lies_in}`"))
            .help("correct one of the two, or name only the asset"),
        );
    }
}

pub(super) fn risk(context: &Context<'_>, faults: &mut Faults) -> Option<Vec<Risk>> {
    let document = context.document;
    if matches!(document.risk, Field::Faulty) {
        return None;
    }
    let mut made = Vec::new();
    for at in document.risk.value().into_iter().flat_map(|list| &list.0) {
        let risk = &at.value;
        if risk.zone.is_absent() && risk.conduit.is_absent() {
            faults.add(
                Fault::new(
                    Code::NoSubject,
                    at.place,
                    "the risk does not say what it concerns",
                )
                .help("add `zone` or `conduit`"),
            );
        }
        if let Some(zone) = risk.zone.get() {
            resolves(zone, document.zones.value(), "zone", faults);
        }
        if let Some(conduit) = risk.conduit.get() {
            resolves(conduit, document.conduits.value(), "conduit", faults);
        }
        let numbers = risk.likelihood.value().zip(risk.impact.value());
        if let (Some((likelihood, impact)), Some(residual)) = (numbers, risk.residual.get())
            && residual.value.0 > likelihood.0 * impact.0
        {
            let message = format!(
                "the residual risk {} is higher than the risk, {} × {}",
                residual.value.0, likelihood.0, impact.0
            );
            faults.add(
                Fault::new(Code::ResidualAboveRisk, residual.place, message)
                    .label(format!("at most {}", likelihood.0 * impact.0)),
            );
        }
        let small = |number: u32| u8::try_from(number).ok();
        if let (Some(threat), Some((likelihood, impact))) = (text(&risk.threat), numbers)
            && let (Some(likelihood), Some(impact)) = (small(likelihood.0), small(impact.0))
        {
            made.push(Risk {
                threat,
                zone: risk.zone.value().cloned(),
                conduit: risk.conduit.value().cloned(),
                likelihood,
                impact,
                residual: risk.residual.value().and_then(|residual| small(residual.0)),
                countermeasures: texts(&risk.countermeasures),
            });
        }
    }
    Some(made)
}
