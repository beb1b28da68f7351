//! How proposals end that are not approved: rejected by others, or withdrawn by their author.

use penstock_proto::v1;
use tonic::{Request, Response, Status};

use super::control::ControlService;
use super::gate::Action;
use super::views;
use crate::clock;
use crate::releases::{ProposalEndKind, targets};

impl ControlService {
    pub(super) async fn end_release(
        &self,
        action: Action,
        how: ProposalEndKind,
        request: Request<v1::EndReleaseRequest>,
    ) -> Result<Response<v1::Release>, Status> {
        let caller = self.gate.operator(request.extensions(), action).await?;
        let message = request.into_inner();
        let outcome = self
            .releases
            .end(
                how,
                &caller.operator,
                &message,
                self.gate.deed(&caller),
                clock::now_ms(),
            )
            .await;
        let recorded = self
            .gate
            .judged(&caller, &targets::ended(&message), outcome)
            .await?;
        Ok(Response::new(views::release(
            &recorded,
            &self.releases,
            &self.fleet,
        )))
    }
}
