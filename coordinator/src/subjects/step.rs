//! A record that takes the place of one that was looked at, and what comes of it for list and connections.

use std::sync::Arc;

use penstock_policy::ids::RoleName;
use penstock_proto::peer::{Epoch, Subject};

use super::record::{StandingChange, SubjectRecord};
use crate::store::Expect;

/// When the connections of a subject end, once its record changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// They stay.
    Nothing,
    /// At once.
    Now,
}

/// A record that takes the place of one that was looked at.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(super) subject: Subject,
    pub(super) expect: Expect,
    pub(super) record: SubjectRecord,
    /// The list says that it counts from this life on.
    pub(super) withdraws: Option<Epoch>,
    pub(super) cut: Cut,
}

/// What a key gets a certificate for.
#[derive(Debug)]
pub(crate) struct Life {
    /// Its number.
    pub(crate) epoch: Epoch,
    /// What is recorded of it; `None`: it goes on.
    pub(crate) step: Option<Step>,
    /// The role that its certificates give a device.
    pub(crate) role: Option<RoleName>,
}

/// What was recorded of a subject when a step was begun.
#[derive(Debug)]
pub(super) struct LookedAt<'a> {
    subject: &'a Subject,
    before: Option<Arc<SubjectRecord>>,
    expect: Expect,
    /// No life begins with a lower number.
    floor: Epoch,
}

impl<'a> LookedAt<'a> {
    pub(super) fn new(
        subject: &'a Subject,
        before: Option<Arc<SubjectRecord>>,
        expect: Expect,
        floor: Epoch,
    ) -> Self {
        Self {
            subject,
            before,
            expect,
            floor,
        }
    }

    pub(super) fn record(&self) -> Option<&SubjectRecord> {
        self.before.as_deref()
    }

    /// The life of a key whose record is `next`, after `now`.
    pub(super) fn life(&self, now: Option<&SubjectRecord>, next: Option<SubjectRecord>) -> Life {
        let Some(record) = next else {
            let epoch = now.map(|record| record.epoch).unwrap_or_default();
            let role = now.and_then(|record| record.role.clone());
            return Life {
                epoch,
                step: None,
                role,
            };
        };
        let record = self.raised(now, record);
        let (epoch, role) = (record.epoch, record.role.clone());
        let ends_one = now.is_some_and(|now| now.key.is_some() && now.key != record.key);
        let ends_at_once = match self.subject {
            Subject::Gateway(_) | Subject::Operator(_) => ends_one,
            // It takes its new certificate by hand, and the process must not stop meanwhile: an admin ends its earlier lives.
            Subject::Device(_) => false,
            // A coordinator that was restored from a backup must not find itself among those that are over.
            Subject::Coordinator(_) => false,
        };
        let step = Step {
            subject: self.subject.clone(),
            expect: self.expect,
            record,
            withdraws: ends_at_once.then_some(epoch),
            cut: if ends_at_once { Cut::Now } else { Cut::Nothing },
        };
        let step = Some(step);
        Life { epoch, step, role }
    }

    /// What an admin decided.
    pub(super) fn decided(&self, change: StandingChange, record: SubjectRecord) -> Step {
        let record = self.raised(self.record(), record);
        let ends = match change {
            StandingChange::Suspend | StandingChange::Resume => false,
            StandingChange::Revoke | StandingChange::Retire | StandingChange::RevokeEarlier => true,
        };
        Step {
            subject: self.subject.clone(),
            expect: self.expect,
            withdraws: ends.then_some(record.epoch),
            record,
            cut: match change {
                StandingChange::Resume | StandingChange::RevokeEarlier => Cut::Nothing,
                StandingChange::Suspend | StandingChange::Revoke | StandingChange::Retire => Cut::Now,
            },
        }
    }

    /// The record of a life that begins lies above the floor.
    fn raised(&self, before: Option<&SubjectRecord>, mut record: SubjectRecord) -> SubjectRecord {
        let begins = before.map_or(Epoch::default(), |before| before.epoch) < record.epoch;
        if begins {
            record.epoch = record.epoch.max(self.floor);
        }
        record
    }
}
