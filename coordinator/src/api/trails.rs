//! What people ask of the trails: records as they are stored or come, what they add up to, and what proves them.

use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::control::ControlService;
use super::gate::Action;
use crate::query::{self, Counting, Filter, Grouping};

/// Records that may wait for a slow reader.
const RECORDS_MAX: usize = 64;
/// The same, of blocks with their proofs.
const PIECES_MAX: usize = 8;

type Answer<T> = Response<ReceiverStream<Result<T, Status>>>;

impl ControlService {
    /// What is stored and asked for.
    pub(super) async fn searched(
        &self,
        request: Request<v1::SearchAuditRequest>,
    ) -> Result<Answer<v1::AuditRecord>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::SearchAudit)
            .await?;
        let search = self.searches.begin(&caller.operator)?;
        let filter: Filter = Self::checked(request.into_inner())?;
        let (out, records) = mpsc::channel(RECORDS_MAX);
        let (store, releases) = (self.store.clone(), self.releases.clone());
        tokio::spawn(async move {
            let _search = search;
            if let Err(error) = query::search(&store, &releases, &filter, &out).await {
                // Nobody listening is no fault.
                let _ = out.send(Err(error.into())).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(records)))
    }

    /// What becomes durable from now on.
    pub(super) async fn followed(
        &self,
        request: Request<v1::TailAuditRequest>,
    ) -> Result<Answer<v1::AuditRecord>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::TailAudit)
            .await?;
        let search = self.searches.begin(&caller.operator)?;
        let filter: Filter = Self::checked(request.into_inner().filter.unwrap_or_default())?;
        let (out, records) = mpsc::channel(RECORDS_MAX);
        let (store, stopping) = (self.store.clone(), self.stopping.clone());
        let releases = self.releases.clone();
        tokio::spawn(async move {
            let _search = search;
            let end = tokio::select! {
                end = query::tail(&store, &releases, &filter, &out) => end.map_err(Refusal::from),
                () = stopping.cancelled() => {
                    Err(Refusal::new(Reason::Stopping, "the coordinator is stopping"))
                }
            };
            if let Err(refusal) = end {
                // Nobody listening is no fault.
                let _ = out.try_send(Err(refusal.into()));
            }
        });
        Ok(Response::new(ReceiverStream::new(records)))
    }

    /// Whole blocks with what proves them.
    pub(super) async fn proved(
        &self,
        request: Request<v1::GetEvidenceRequest>,
    ) -> Result<Answer<v1::EvidencePiece>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::GetEvidence)
            .await?;
        let search = self.searches.begin(&caller.operator)?;
        let asked = request.into_inner();
        let (out, pieces) = mpsc::channel(PIECES_MAX);
        let evidence = self.evidence.clone();
        tokio::spawn(async move {
            let _search = search;
            if let Err(status) = evidence.give(&asked, &out).await {
                // Nobody listening is no fault.
                let _ = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(pieces)))
    }

    /// How far the tree over all trails goes, and that it begins with earlier ones.
    pub(super) async fn tree_proved(
        &self,
        request: Request<v1::ProveTrailsRequest>,
    ) -> Result<Response<v1::TrailsProof>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::ProveTrails)
            .await?;
        let _search = self.searches.begin(&caller.operator)?;
        let proof = self.evidence.prove(&request.into_inner()).await?;
        Ok(Response::new(proof))
    }

    /// One event with what proves it.
    pub(super) async fn event_proved(
        &self,
        request: Request<v1::ProveEventRequest>,
    ) -> Result<Response<v1::EventEvidence>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::ProveEvent)
            .await?;
        let _search = self.searches.begin(&caller.operator)?;
        let proved = self.evidence.prove_event(request.get_ref()).await?;
        Ok(Response::new(proved))
    }

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
