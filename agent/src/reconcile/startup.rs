//! What the store says at start, and says again once it could be read: which policy was in force, and what of it is unusable.
//!
//! A record that cannot be read may be whole. So it is a fault and an event, nothing takes its place, and it is looked for
//! again: a gateway whose disk failed for a while puts its policy in force when the disk works again, not at the next restart.

use penstock_policy::ids::Digest;
use penstock_policy::release::Trust;
use penstock_policy::text::sentence;
use penstock_proto::event::AgentStep;
use penstock_proto::v1::Fault;

use super::{Reconciler, Workplace};
use crate::audit::record;
use crate::kernel::Kernel;
use crate::policy_store::{self, RecordFault, StoredPolicies, StoredPolicy};
use crate::store::{Records, StoreError};

/// What health and the trail call it.
const CODE: AgentStep = AgentStep::StoredPolicyUnusable;

impl<K: Kernel, W: Workplace> Reconciler<K, W> {
    /// Puts the stored policy in force. Call it before anything that waits for the network.
    pub async fn start(&mut self) {
        let load =
            |store: &mut dyn Records| (policy_store::load(store), policy_store::overrides::load(store));
        let (held, overrides) = self.workplace.on_records(load).await.unwrap_or_default();
        // What lasts is in the kernel with the policy, not after it.
        self.take_up_overrides(overrides);
        self.take_up(held, "loaded from the store at start").await;
        self.keep_overrides().await;
        self.keep_shadow(false).await;
        self.publish();
    }

    /// Takes up what could not be read before and can be now.
    pub(super) async fn take_up_what_is_readable_again(&mut self) {
        let unread: Vec<_> = self.unusable.iter().filter(|fault| fault.unread).collect();
        if unread.is_empty() && self.journal_is_known {
            return;
        }
        let records: Vec<_> = unread.iter().map(|fault| fault.record).collect();
        let look = move |store: &mut dyn Records| {
            // The store's own look, which gets rarer, has tried to read them.
            let changed = records.is_empty() || records.iter().any(|record| store.unread(record).is_none());
            changed.then(|| policy_store::load(store))
        };
        if let Some(Some(held)) = self.workplace.on_records(look).await {
            self.take_up(held, "the store can be read again").await;
        }
    }

    async fn take_up(&mut self, held: StoredPolicies, why: &str) {
        for fault in &held.faults {
            if !self.unusable.contains(fault) {
                tracing::warn!(code = CODE.word(), "{}", fault.message);
                self.audit.note(record::agent(CODE, &fault.message));
            }
        }
        self.unusable.clone_from(&held.faults);
        let adopts = self.adopts_journal(&held);
        // What decides which release may be taken is then perhaps in what cannot be read.
        self.floor_unknown = held.trust.is_none() && self.unusable.iter().any(|fault| fault.unread);
        if let Some(trust) = held.trust.clone() {
            let same = self
                .trust
                .as_ref()
                .is_none_or(|own| own.plant == trust.plant && own.gateway == trust.gateway);
            // A trust of another plant or gateway is left over from before a new enrolment: no part of it holds.
            if !same {
                return;
            }
            if self.trust.as_ref().is_none_or(|own| own.floor <= trust.floor) {
                self.trust = Some(trust);
            }
        }
        let newer = |held: &StoredPolicy| {
            let own = self.desired.as_ref().map(|own| own.mark.revision);
            own < Some(held.mark.revision)
        };
        let is_reverted = |desired: &StoredPolicy| self.journal.is_reverted(desired.statement);
        if let Some(desired) = held
            .desired()
            .filter(|desired| newer(desired) && !is_reverted(desired))
            .cloned()
        {
            self.desired = Some(desired);
        }
        let (in_force, mark_is_older) = (held.effective, held.mark_is_older);
        if self.fallback.is_none() {
            (self.fallback, self.mark_is_older) = (in_force, mark_is_older);
        }
        if adopts {
            self.take_up_trial().await;
        }
        self.bring_about(why).await;
    }

    /// Notes on the disk what is in force and what is believed from now on.
    pub(super) async fn note_effective(&mut self, statement: Digest, believed: Trust) {
        self.unnoted = Some((statement, believed));
        if let Some(error) = self.note_what_is_due().await {
            tracing::warn!(error = %sentence(&error), "the store does not know yet which policy is in force");
        }
    }

    /// Notes what could not be noted when it took effect; what cannot be noted now either is tried again at the next look.
    pub(super) async fn note_what_is_due(&mut self) -> Option<StoreError> {
        let (statement, believed) = self.unnoted.clone()?;
        let note = move |store: &mut dyn Records| policy_store::set_effective(store, statement, &believed);
        match self.workplace.on_records(note).await? {
            Ok(written) => {
                (self.unnoted, self.mark_is_older) = (None, false);
                self.usable_again(&written);
                None
            }
            Err(error) => Some(error),
        }
    }

    /// These records were written.
    pub(super) fn usable_again(&mut self, written: &[&'static str]) {
        self.unusable.retain(|fault| !written.contains(&fault.record));
    }

    /// What of the store cannot be used, for health.
    pub(super) fn unusable_faults(&self) -> impl Iterator<Item = Fault> {
        self.unusable.iter().map(|RecordFault { message, .. }| Fault {
            code: CODE.word().to_owned(),
            message: record::bounded(message),
            ..Fault::default()
        })
    }
}
