//! Batches of gateways over gRPC.

use penstock_policy::batch::SignedBatch;
use penstock_policy::ids::{ApproverId, Digest};
use penstock_policy::release::Signature;
use penstock_proto::convert;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;
use tonic::{Request, Response, Status};

use super::answers::carried;
use super::control::ControlService;
use super::gate::Action;
use crate::clock;
use crate::enrolment::{BatchGround, BatchTokens, submit_batch};
use crate::journal::Deed;

/// The batch, and the digest of the approvers that stand in its tokens.
fn signed(message: v1::SubmitBatchRequest) -> Result<(SignedBatch, Digest), Refusal> {
    let believed = convert::digest("approvers_digest", &message.approvers_digest).map_err(|error| {
        Refusal::new(Reason::BadRequest, error.to_string()).field("approvers_digest", error.to_string())
    })?;
    let bad = |what: String| {
        Refusal::new(Reason::BadRequest, format!("signatures: {what}")).field("signatures", what)
    };
    let signatures = message.signatures.into_iter().map(|wire| {
        let approver = ApproverId::new(wire.approver).map_err(|error| bad(error.to_string()))?;
        Signature::new(approver, &wire.algorithm, &wire.signature).map_err(|error| bad(error.to_string()))
    });
    let batch = SignedBatch {
        signatures: signatures.collect::<Result<_, _>>()?,
        payload: message.batch.to_vec(),
    };
    Ok((batch, believed))
}

impl ControlService {
    pub(super) async fn submit(
        &self,
        request: Request<v1::SubmitBatchRequest>,
    ) -> Result<Response<v1::SubmitBatchResponse>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::SubmitBatch)
            .await?;
        let answer = self.answers.begin(&caller.operator, request.extensions())?;
        let outcome = match signed(request.into_inner()) {
            Ok((signed, believed)) => {
                let deeds = (
                    self.gate.deed(&caller),
                    self.gate.deed_of(&caller, Action::CreateToken),
                );
                self.tokens_of(&signed, believed, deeds).await
            }
            Err(refusal) => Err(refusal),
        };
        let made = self.gate.judged(&caller, "", outcome).await?;
        let tokens = made.secrets.into_iter().map(|(gateway, secret)| v1::BatchToken {
            gateway: gateway.to_string(),
            secret: secret.0.to_vec().into(),
        });
        Ok(carried(
            v1::SubmitBatchResponse {
                tokens: tokens.collect(),
                expires_ms: made.expires_ms,
                root_digest: self.authority.root_digest().0.to_vec().into(),
            },
            answer,
        ))
    }

    async fn tokens_of(
        &self,
        signed: &SignedBatch,
        believed: Digest,
        deeds: (Deed<'_>, Deed<'_>),
    ) -> Result<BatchTokens, Refusal> {
        let current = self.releases.now().ok_or_else(|| {
            Refusal::new(
                Reason::NotFound,
                "no release is in force yet, so that there is nobody whose signatures count: approve one first",
            )
        })?;
        let approvers = &current.recorded.statement.approvers;
        if approvers.digest() != believed {
            let what = "is not of the approvers of the release in force, whom the gateways are to believe: submit with the document of that release";
            return Err(
                Refusal::new(Reason::BadRequest, format!("approvers_digest {what}"))
                    .field("approvers_digest", what),
            );
        }
        let ground = BatchGround {
            approvers,
            plant: &current.recorded.statement.plant,
            is_planned: &|gateway| current.detail.plans.contains_key(gateway),
        };
        let at = (&self.store, &self.subjects);
        submit_batch(at, signed, ground, deeds, clock::now_ms()).await
    }
}
