//! From what is known to what operators see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_policy::ids::{Digest, GatewayId, OperatorId, Revision};
use penstock_proto::convert::PolicyMark;
use penstock_proto::peer::Subject;
use penstock_proto::v1;

use crate::enrolment::UnusedToken;
use crate::operators::{OperatorRecord, Role};
use crate::releases::{CurrentRelease, ProposalEndKind, RecordedRelease, Releases};
use crate::sessions::{Fleet, GatewayFacts, TWO_USERS, unproved};
use crate::subjects::{Standing, SubjectRecord, Subjects};

/// A release with its progress over its gateways.
pub(super) fn release(recorded: &RecordedRelease, releases: &Releases, fleet: &Fleet) -> v1::Release {
    let mut one = all_releases(std::slice::from_ref(recorded), releases, fleet);
    one.pop().unwrap_or_default()
}

/// Releases with their progress over their gateways, for all of which the fleet is looked at once.
pub(super) fn all_releases(
    recorded: &[RecordedRelease],
    releases: &Releases,
    fleet: &Fleet,
) -> Vec<v1::Release> {
    let current = releases.now();
    let mut wire: Vec<_> = recorded
        .iter()
        .map(|recorded| without_progress(recorded, releases, current.as_ref()))
        .collect();
    let by_digest: BTreeMap<Digest, usize> = recorded.iter().map(|one| one.digest).zip(0..).collect();
    let by_revision: BTreeMap<Revision, usize> = recorded
        .iter()
        .map(|one| one.statement.revision)
        .zip(0..)
        .collect();
    let held = current
        .as_ref()
        .and_then(|current| by_digest.get(&current.recorded.digest));
    fleet.inspect(|gateway, facts| {
        // Software that does not report the statement is counted by its plan, which is known for the current release only.
        let plan = current.as_ref().and_then(|current| current.mark(gateway));
        let of = |mark: &Option<PolicyMark>| {
            let mark = mark.as_ref()?;
            match mark.statement {
                Some(statement) => by_digest.get(&statement).copied(),
                None => held.filter(|_| plan.is_some_and(|plan| plan.is(mark))).copied(),
            }
        };
        let refused = facts
            .refused
            .as_ref()
            .and_then(|refused| match refused.statement {
                Some(statement) => by_digest.get(&statement).copied(),
                None => by_revision.get(&refused.revision).copied(),
            });
        let (effective, staged, offered) = (of(&facts.effective), of(&facts.staged), of(&facts.offered));
        let concerned: BTreeSet<usize> = [effective, staged, offered, refused]
            .into_iter()
            .flatten()
            .collect();
        for number in concerned {
            let is = |found: Option<usize>| found == Some(number);
            if let Some(release) = wire.get_mut(number) {
                count(release, is(effective), is(staged), is(offered), is(refused));
            }
        }
    });
    wire
}

fn without_progress(
    recorded: &RecordedRelease,
    releases: &Releases,
    current: Option<&Arc<CurrentRelease>>,
) -> v1::Release {
    let statement = &recorded.statement;
    let record = &recorded.record;
    let revision = statement.revision;
    let digest = |current: &Arc<CurrentRelease>| current.recorded.digest;
    let state = match (&record.ended, record.approved_ms) {
        (Some(ended), _) => match ended.how {
            ProposalEndKind::Rejected => v1::ReleaseState::Rejected,
            ProposalEndKind::Withdrawn => v1::ReleaseState::Withdrawn,
        },
        (None, Some(_)) if current.map(digest) == Some(recorded.digest) => v1::ReleaseState::Current,
        // Gateways are not offered it yet: what it consists of could not be read.
        (None, Some(_)) if current.is_none_or(|current| current.revision() < revision) => {
            v1::ReleaseState::Proposed
        }
        (None, Some(_)) => v1::ReleaseState::Superseded,
        (None, None) if statement.parent == current.map(digest) => v1::ReleaseState::Proposed,
        (None, None) => v1::ReleaseState::Overtaken,
    };
    let threshold = match state {
        v1::ReleaseState::Proposed | v1::ReleaseState::Rejected | v1::ReleaseState::Withdrawn => {
            let approvers = releases.approvers_in_force(recorded);
            // An emergency that ended may be older than the day on which emergencies did.
            approvers
                .needed(statement.emergency)
                .unwrap_or(approvers.threshold)
        }
        // Who had to sign what is history stands in the release before it; the count of signatures is what it took.
        _ => u8::try_from(record.signatures.len()).unwrap_or(u8::MAX),
    };
    let ended = record.ended.as_ref();
    v1::Release {
        revision: revision.0,
        statement_digest: recorded.digest.0.to_vec().into(),
        state: state.into(),
        author: statement.author.to_string(),
        ticket: statement.ticket.clone().unwrap_or_default(),
        reason: statement.reason.clone(),
        approved_by: record.signatures.keys().map(ToString::to_string).collect(),
        threshold: u32::from(threshold),
        created_ms: record.proposed_ms,
        approved_ms: record.approved_ms.unwrap_or(0),
        gateways: u32::try_from(statement.gateways).unwrap_or(u32::MAX),
        parent_digest: statement
            .parent
            .map(|parent| parent.0.to_vec().into())
            .unwrap_or_default(),
        ended_by: ended.map(|ended| ended.by.to_string()).unwrap_or_default(),
        ended_ms: ended.map_or(0, |ended| ended.at_ms),
        ended_reason: ended.map(|ended| ended.reason.clone()).unwrap_or_default(),
        emergency: recorded.is_emergency(),
        ..v1::Release::default()
    }
}

/// Each step includes the ones after it: what is effective was staged and offered.
fn count(release: &mut v1::Release, effective: bool, staged: bool, offered: bool, refused: bool) {
    let staged = effective || staged;
    release.effective += u32::from(effective);
    release.staged += u32::from(staged);
    release.offered += u32::from(staged || refused || offered);
    release.refused += u32::from(refused && !effective);
}

/// Every gateway that the current release or anybody ever named.
pub(super) fn gateways(
    releases: &Releases,
    fleet: &Fleet,
    subjects: &Subjects,
    waiting: BTreeMap<String, UnusedToken>,
) -> Vec<v1::Gateway> {
    let mut waiting: BTreeMap<GatewayId, u64> = waiting
        .into_iter()
        .filter_map(|(name, token)| Some((GatewayId::new(name).ok()?, token.expires_ms)))
        .collect();
    let known = fleet.all();
    let mut names: BTreeSet<GatewayId> = known.iter().map(|(gateway, _)| gateway.clone()).collect();
    if let Some(current) = releases.now() {
        names.extend(current.detail.plans.keys().cloned());
    }
    names.extend(waiting.keys().cloned());
    let mut known: BTreeMap<_, _> = known.into_iter().collect();
    names
        .into_iter()
        .map(|name| v1::Gateway {
            token_expires_ms: waiting.remove(&name).unwrap_or(0),
            identity: state(&Subject::Gateway(name.clone()), subjects).map(|state| v1::SubjectState {
                twin: known
                    .get(&name)
                    .and_then(|facts| facts.twin.as_ref())
                    .map(Into::into),
                ..state
            }),
            ..gateway(&name, known.remove(&name).unwrap_or_default())
        })
        .collect()
}

/// Everybody who is an operator, or will be with a token that waits.
pub(super) fn operators(
    records: Vec<(String, OperatorRecord, u64)>,
    mut waiting: BTreeMap<String, UnusedToken>,
    subjects: &Subjects,
) -> Vec<v1::Operator> {
    let identity = |name: &str| {
        let operator = OperatorId::new(name).ok()?;
        state(&Subject::Operator(operator), subjects)
    };
    let mut operators: Vec<v1::Operator> = records
        .into_iter()
        .map(|(name, record, _)| v1::Operator {
            role: record.role.to_wire().into(),
            enrolled: true,
            token_expires_ms: waiting.remove(&name).map_or(0, |token| token.expires_ms),
            identity: identity(&name),
            name,
        })
        .collect();
    operators.extend(waiting.into_iter().map(|(name, token)| v1::Operator {
        identity: identity(&name),
        name,
        role: token.role.map_or(v1::Role::Unspecified, Role::to_wire).into(),
        enrolled: false,
        token_expires_ms: token.expires_ms,
    }));
    operators.sort_by(|a, b| a.name.cmp(&b.name));
    operators
}

fn state(name: &Subject, subjects: &Subjects) -> Option<v1::SubjectState> {
    let record = subjects.record(name)?;
    Some(subject(name, &record))
}

/// What is recorded of who counts.
pub(super) fn subject(subject: &Subject, record: &SubjectRecord) -> v1::SubjectState {
    let standing = match record.standing {
        Standing::Active => v1::Standing::Active,
        Standing::Suspended => v1::Standing::Suspended,
        Standing::Revoked => v1::Standing::Revoked,
        Standing::Retired => v1::Standing::Retired,
    };
    v1::SubjectState {
        subject: subject.to_string(),
        standing: standing.into(),
        epoch: record.epoch.0,
        key: record.key.map(|key| key.0.to_vec().into()).unwrap_or_default(),
        since_ms: record.since_ms,
        by: record.by.clone(),
        reason: record.reason.clone(),
        device_role: record.role.as_ref().map(ToString::to_string).unwrap_or_default(),
        twin: None,
    }
}

fn gateway(name: &GatewayId, facts: GatewayFacts) -> v1::Gateway {
    v1::Gateway {
        name: name.to_string(),
        enrolled: facts.enrolled_ms > 0 || facts.certificate_expires_ms > 0,
        connected: facts.connected,
        last_seen_ms: facts.last_seen_ms,
        software_version: facts.software_version,
        key_held: facts.key_held,
        offered: facts.offered.map(Into::into),
        policy: Some(v1::PolicyState {
            effective: facts.effective.map(Into::into),
            staged: facts.staged.map(Into::into),
            refused: facts.refused.map(|refused| v1::Refusal {
                revision: refused.revision.0,
                code: refused.code,
                message: refused.message,
                statement_digest: refused
                    .statement
                    .map(|digest| digest.0.to_vec().into())
                    .unwrap_or_default(),
            }),
            trusted: facts.trusted.map(|(revision, digest)| v1::TrustedRelease {
                revision: revision.0,
                statement_digest: digest.0.to_vec().into(),
            }),
            standing: facts.standing,
        }),
        spool: facts.spool,
        faults: facts
            .faults
            .into_iter()
            .chain(facts.trail_fault.map(|message| v1::Fault::new("trail", message)))
            .chain(
                facts
                    .seal_fault
                    .map(|fault| v1::Fault::new("trail", unproved(&fault))),
            )
            .chain(
                facts
                    .twin
                    .as_ref()
                    .map(|twin| v1::Fault::new(TWO_USERS, twin.fault())),
            )
            .collect(),
        capabilities: facts.capabilities,
        certificate_expires_ms: facts.certificate_expires_ms,
        drift: facts.drift,
        token_expires_ms: 0,
        kernel: facts.kernel,
        identity: None,
        time_quality: facts.time_quality,
        tunnels: facts.tunnels,
    }
}
