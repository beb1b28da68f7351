//! What the trail adds up to: counts over time, and what was refused, as one answer each.

use penstock_proto::v1;
use tonic::{Request, Response, Status};

use super::control::ControlService;
use super::gate::Action;
use crate::query::{self, Counting, Grouping};

impl ControlService {
    /// How many events a search finds, over time.
    pub(super) async fn counted(
        &self,
        request: Request<v1::CountAuditRequest>,
    ) -> Result<Response<v1::AuditCounts>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::CountAudit)
            .await?;
        let _search = self.searches.begin(&caller.operator)?;
        let counting: Counting = Self::checked(request.into_inner())?;
        let counts = query::counts(&self.store, &self.releases, &counting).await?;
        Ok(Response::new(counts))
    }

    /// What was refused, grouped.
    pub(super) async fn denied(
        &self,
        request: Request<v1::ListDenialsRequest>,
    ) -> Result<Response<v1::Denials>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::ListDenials)
            .await?;
        let _search = self.searches.begin(&caller.operator)?;
        let grouping: Grouping = Self::checked(request.into_inner())?;
        let denials = query::denials(&self.store, &self.releases, &grouping).await?;
        Ok(Response::new(denials))
    }
}
