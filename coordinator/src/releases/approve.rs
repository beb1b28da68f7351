//! Approving: a signature over the recorded bytes, by one of the approvers in force, who is not the author.
//!
//! The signature is made on the approver's own machine, and names the statement by its digest. Somebody else may bring it
//! from a machine that has no network, if they say so. The verdict on the whole is the same function that gateways use;
//! here it only decides when the release is offered.

use penstock_policy::ids::{ApproverId, GatewayId, OperatorId, Revision};
use penstock_policy::model::ApproverSet;
use penstock_policy::release::{Misfit, OfferRefused, Signable, Signature, Trust, verify_release};
use penstock_proto::convert;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;

use super::ending::bad;
use super::{RecordedRelease, Releases, history, targets};
use crate::journal::Deed;
use crate::store::Change;

impl Releases {
    /// Adds a signature; the release becomes current with it when there are enough.
    pub(crate) async fn approve(
        &self,
        caller: &OperatorId,
        request: &v1::ApproveReleaseRequest,
        deed: Deed<'_>,
        now_ms: u64,
    ) -> Result<RecordedRelease, Refusal> {
        let revision = Revision(request.revision);
        let digest = convert::digest("statement_digest", &request.statement_digest)
            .map_err(|error| bad("statement_digest", &error))?;
        let wire = request
            .signature
            .as_ref()
            .ok_or_else(|| bad("signature", &"is missing"))?;
        let approver =
            ApproverId::new(wire.approver.as_str()).map_err(|error| bad("signature.approver", &error))?;
        let signature = Signature::new(approver.clone(), &wire.algorithm, &wire.signature)
            .map_err(|error| bad("signature.signature", &error))?;
        // Two proposals that wait side by side are decided one after the other.
        let _deciding = self.deciding.lock().await;
        // What became current and was not taken up then decides first: else a second release would follow the same one.
        self.refresh().await?;
        let recorded = self
            .change(revision, digest, |recorded| {
                self.judge(caller, request.brought, recorded, &signature)?;
                recorded
                    .record
                    .signatures
                    .insert(approver.clone(), signature.to_text());
                let suffices = self.suffices(recorded)?;
                let event = deed.event(&targets::approved(request, suffices), "");
                let change = Change::noted(event);
                if !suffices {
                    return Ok(change);
                }
                recorded.record.approved_ms = Some(now_ms);
                Ok(history::add(change, revision, &recorded.record)?)
            })
            .await?;
        if recorded.record.approved_ms.is_some() {
            if let Err(refusal) = self.refresh().await {
                // It is done, and in the trail; `follow` takes it up.
                tracing::error!(%refusal, "cannot take up the release that was approved; it is tried again");
            }
            self.sweep_soon();
        }
        Ok(recorded)
    }

    /// The approvers whose signatures count now.
    pub fn approvers_in_force(&self, recorded: &RecordedRelease) -> ApproverSet {
        match self.now() {
            Some(current) => current.recorded.statement.approvers.clone(),
            None => recorded.statement.approvers.clone(),
        }
    }

    fn judge(
        &self,
        caller: &OperatorId,
        brought: bool,
        recorded: &RecordedRelease,
        signature: &Signature,
    ) -> Result<(), Refusal> {
        let revision = recorded.statement.revision;
        self.waits(recorded)?;
        let signer = &signature.approver;
        if !brought && signer.as_str() != caller.as_str() {
            return Err(Refusal::new(
                Reason::NotAnApprover,
                format!("the signature is {signer}'s, but {caller} sends it as their own"),
            ));
        }
        let approvers = self.approvers_in_force(recorded);
        let Some(own) = approvers.people.get(signer) else {
            return Err(Refusal::new(
                Reason::NotAnApprover,
                format!("{signer} is not one of the approvers in force"),
            ));
        };
        let author = recorded.statement.author.as_str();
        let author_key = approvers
            .people
            .iter()
            .find(|(name, _)| name.as_str() == author)
            .map(|(_, person)| person.key.point());
        if signer.as_str() == author || author_key == Some(own.key.point()) {
            return Err(Refusal::new(
                Reason::SelfApproval,
                format!("{author} proposed {revision} and cannot approve it; another approver has to"),
            ));
        }
        let signed = Signable::release(recorded.record.statement.as_bytes());
        let why = match signature.check(&signed, &own.key) {
            Ok(()) => return Ok(()),
            Err(Misfit::Forged) => {
                format!(
                    "the signature does not fit {revision} and the key that the plant document gives {signer}"
                )
            }
            Err(misfit) => format!("the signature of {signer} over {revision} {misfit}"),
        };
        Err(Refusal::new(Reason::BadSignature, why))
    }

    /// Whether the signatures are enough, by the gateways' own verifier.
    fn suffices(&self, recorded: &RecordedRelease) -> Result<bool, Refusal> {
        let current = self.now();
        let trust = Trust {
            plant: self.plant.clone(),
            // The verifier of a whole release does not look at the gateway's name.
            gateway: GatewayId::new("coordinator")
                .map_err(|error| Refusal::new(Reason::Internal, error.to_string()))?,
            approvers: self.approvers_in_force(recorded),
            floor: current.as_ref().map_or(Revision(0), |current| current.revision()),
            current: current.as_ref().map(|current| current.recorded.digest),
        };
        match verify_release(
            &trust,
            recorded.record.statement.as_bytes(),
            &recorded.signatures(),
        ) {
            Ok(_) => Ok(true),
            Err(OfferRefused::UnderSigned { .. } | OfferRefused::Unsigned { .. }) => Ok(false),
            Err(other) => Err(Refusal::new(Reason::BadSignature, crate::chain(&other))),
        }
    }
}
