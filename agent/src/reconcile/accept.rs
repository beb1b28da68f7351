//! What becomes of an offer: judged, checked, stored, or refused with a stable code.
//!
//! An offer that was judged good and then failed for this machine's own reasons (the disk is full, `nft` is missing)
//! waits and is tried again at each look; so does one that comes while another is on trial, until that is over. Only an offer that was judged good itself takes its place: whoever can send
//! garbage cannot make the gateway forget what its approvers signed.

use std::sync::Arc;

use penstock_policy::ids::Digest;
use penstock_policy::release::OfferRefused;
use penstock_policy::text::sentence;
use penstock_proto::v1::{PolicyOffer, Refusal};

use super::{Reconciler, Workplace};
use crate::audit::record;
use crate::identity::IdentityFolder;
use crate::kernel::Kernel;
use crate::offer;
use crate::policy_store::journal::Order;
use crate::policy_store::{self, StoredPolicy};

/// Whether the trail has the judgement of an offer already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reporting {
    NotYet,
    Before,
}

impl<K: Kernel, W: Workplace> Reconciler<K, W> {
    /// Judges an offer and, if it may be obeyed, obeys it as far as the order goes.
    pub async fn consider(&mut self, (offered, order): (Arc<PolicyOffer>, Order)) {
        let statement = offered
            .release
            .as_ref()
            .map(|release| Digest::of(&release.statement));
        let is_held = |policy: &Option<StoredPolicy>| {
            policy.as_ref().is_some_and(|policy| {
                Some(policy.statement) == statement && policy.mark.plan == Digest::of(&offered.plan)
            })
        };
        self.ordered = (order.number, statement);
        self.reorder_waiting(statement, &order);
        if is_held(&self.desired) {
            // What waits may be newer than what is held: it is not withdrawn by this.
            if self.waiting.is_none() {
                self.refused = None;
            }
            self.reorder(order).await;
            self.bring_about("offered again").await;
            return;
        }
        let known = self
            .refused
            .as_ref()
            .is_some_and(|(last, _)| *last == fingerprint(&offered));
        if !known {
            self.obey_if_valid((offered, order), Reporting::NotYet).await;
        }
    }

    /// Judges the offer that waits again.
    pub(super) async fn try_waiting(&mut self) {
        if self.trial.is_none()
            && let Some(waiting) = self.waiting.take()
        {
            self.obey_if_valid(waiting, Reporting::Before).await;
        }
    }

    async fn obey_if_valid(&mut self, (offered, order): (Arc<PolicyOffer>, Order), told: Reporting) {
        let fingerprint = fingerprint(&offered);
        // What was reverted is in the journal.
        if self.floor_unknown || !self.journal_is_known {
            let message = "what this gateway believes cannot be read from its disk, so that it is not known which release may follow";
            self.refuse(fingerprint, &offered, "not-stored", message);
            // What its number is nobody can tell yet: the last one waits, which an honest coordinator sent after all others.
            self.waiting = Some((offered, order));
            return;
        }
        if self.trust.is_none() {
            // Perhaps it was enrolled while the agent ran.
            self.trust = self
                .workplace
                .on_records(|store| IdentityFolder::enrolment(store).ok())
                .await
                .flatten()
                .map(|enrolment| enrolment.first_trust());
        }
        let Some(trust) = self.trust.clone() else {
            self.refuse(
                fingerprint,
                &offered,
                "not-enrolled",
                "this gateway is not enrolled",
            );
            return;
        };
        let capabilities = self.kernel.capabilities();
        let judged = {
            let offered = offered.clone();
            let trust = trust.clone();
            self.workplace
                .compute(move || offer::judge(&trust, &capabilities, &offered))
                .await
        };
        let verified = match judged {
            Some(Ok(verified)) => verified,
            Some(Err(why)) => {
                let message = sentence(&why);
                self.refuse(fingerprint, &offered, why.code(), &message);
                return;
            }
            None => {
                let message = "the offer could not be judged: internal error in the agent";
                self.refuse(fingerprint, &offered, "agent-fault", message);
                return;
            }
        };
        let revision = verified.release.statement.revision;
        // What is staged was signed later than what has a lower number, though the floor has not moved yet.
        if let Some(desired) = self.desired.as_ref().map(|desired| desired.mark.revision)
            && revision < desired
        {
            let why = OfferRefused::Older {
                revision,
                floor: desired,
            };
            self.refuse(fingerprint, &offered, why.code(), &why.to_string());
            return;
        }
        if self.journal.is_reverted(verified.release.digest) {
            let message =
                "this release was reverted here; it stays refused until a person at the gateway clears it";
            self.refuse(fingerprint, &offered, "reverted", message);
            return;
        }
        let signers: Vec<_> = verified.release.signers.iter().map(ToString::to_string).collect();
        if told == Reporting::NotYet {
            let kind = if verified.release.statement.emergency {
                "an emergency, "
            } else {
                ""
            };
            let by = format!("{kind}signed by {}", signers.join(", "));
            let statement = verified.release.statement.clone();
            let verified = record::policy("verified", revision.0, verified.plan_digest.0, &by);
            self.audit.note(verified);
            // Before anything of it is obeyed: what it names ends keys, also of those who brought it.
            let learner = self.learner.clone();
            learner.learn(&statement, &offered).await;
        }
        // Both slots are needed until it is known which policy stays: also where nobody knows whether the kernel holds the newer one.
        let names = self.journal.names().filter(|named| !self.is_noted(*named));
        let is_needed = names.is_some() && self.desired.as_ref().map(|desired| desired.statement) == names;
        if self.trial.is_some() || (is_needed && self.fallback.is_some()) {
            self.wait(offered, order);
            return;
        }
        let plan = Arc::new(verified.plan);
        if let Err(error) = self.kernel.check(plan.clone()).await {
            self.refuse(fingerprint, &offered, error.code, &error.message);
            self.wait(offered, order);
            return;
        }
        let policy = StoredPolicy {
            trust: verified.release.next,
            mark: penstock_proto::convert::PolicyMark {
                revision,
                plan: verified.plan_digest,
                statement: Some(verified.release.digest),
            },
            statement: verified.release.digest,
            plan,
            order: order.clone(),
            emergency: verified.release.statement.emergency,
            made_ms: verified.release.statement.created_ms,
        };
        self.note_what_is_due().await;
        let stored = {
            let kept = self.effective.as_ref().map(|effective| effective.statement);
            // What was reverted and is still to leave the kernel is not what is kept.
            let in_force = kept
                .filter(|statement| !self.journal.is_reverted(*statement))
                .or_else(|| Some(self.fallback.as_ref()?.statement));
            let (trust, order) = (policy.trust.clone(), order.clone());
            let offered = offered.clone();
            self.workplace
                .on_records(move |store| policy_store::stage(store, in_force, (&trust, &order), &offered))
                .await
        };
        match stored {
            Some(Ok(slot)) => self.usable_again(&[slot]),
            Some(Err(error)) => {
                let message = sentence(&error);
                self.refuse(fingerprint, &offered, "not-stored", &message);
                self.wait(offered, order);
                return;
            }
            None => {
                self.refuse(fingerprint, &offered, "not-stored", "internal error in the store");
                self.wait(offered, order);
                return;
            }
        }
        self.audit
            .note(record::policy("staged", revision.0, policy.mark.plan.0, ""));
        self.waiting
            .take_if(|(waiting, _)| offer::claimed_revision(waiting) <= revision.0);
        if self.waiting.is_none() {
            self.refused = None;
        }
        // What was begun before it, and is perhaps in the kernel, is what there is to go back to, as for the next agent.
        let begun = self.desired.replace(policy);
        if self.fallback.is_none() {
            self.fallback = begun.filter(|begun| self.journal.names() == Some(begun.statement));
            self.mark_is_older = self.fallback.is_some();
        }
        self.publish();
        self.bring_about("").await;
    }

    /// Keeps an offer that was judged good for the next look. The higher revision waits, of equal ones the later.
    fn wait(&mut self, offered: Arc<PolicyOffer>, order: Order) {
        let newer = |(waiting, _): &(Arc<PolicyOffer>, Order)| {
            offer::claimed_revision(waiting) > offer::claimed_revision(&offered)
        };
        if !self.waiting.as_ref().is_some_and(newer) {
            self.waiting = Some((offered, order));
        }
    }

    fn refuse(&mut self, fingerprint: Digest, offered: &PolicyOffer, code: &str, message: &str) {
        let revision = offer::claimed_revision(offered);
        let again = |(last, why): &(Digest, Refusal)| *last == fingerprint && why.code == code;
        if self.refused.as_ref().is_some_and(again) {
            return;
        }
        tracing::warn!(revision, code, "offer refused: {message}");
        self.audit.note(record::refused(revision, code, message));
        let refusal = Refusal {
            revision,
            code: code.to_owned(),
            message: record::bounded(message),
            statement_digest: offered
                .release
                .as_ref()
                .map(|release| Digest::of(&release.statement).0.to_vec().into())
                .unwrap_or_default(),
        };
        self.refused = Some((fingerprint, refusal));
    }
}

/// What makes two offers the same, before anything of them is believed.
fn fingerprint(offered: &PolicyOffer) -> Digest {
    use prost::Message as _;
    Digest::of(&offered.encode_to_vec())
}
