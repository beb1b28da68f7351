//! Calls that are done to their end: whoever hangs up amid a call does not stop it between what it does and what the trail says
//! of it.
//!
//! A peer has a bounded number of calls under way, over all its connections and also of those that it hung up on; more are
//! refused. What is sent as a stream behind an answer is not part of its call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::crowd::{Crowd, source_of};
use penstock_proto::tls::server::PeerInfo;
use tonic::Status;

/// Calls of one peer: as many as a few of its connections may have under way. Of callers without a certificate, those of one
/// address: a site that enrols.
const EACH_MAX: usize = 256;

/// Calls under way, by whose they are.
#[derive(Debug, Clone)]
pub struct Calls(Arc<Crowd<String>>);

impl Default for Calls {
    /// None yet. How many peers there may be is for connections to say.
    fn default() -> Self {
        Self(Crowd::new(usize::MAX, EACH_MAX, Duration::MAX))
    }
}

/// Does a call to its end, whether or not somebody waits for it.
pub async fn to_the_end(State(Calls(calls)): State<Calls>, request: Request, next: Next) -> Response {
    let whose = match request.extensions().get::<PeerInfo>() {
        Some(PeerInfo {
            identity: Some(peer), ..
        }) => peer.to_string(),
        Some(stranger) => source_of(stranger.address.ip()).to_string(),
        None => String::new(),
    };
    let place = (calls.held(&whose) < EACH_MAX)
        .then(|| calls.enter(whose, Instant::now()))
        .flatten();
    let Some(place) = place else {
        let words =
            format!("the limit of {EACH_MAX} calls of one peer at a time is reached; wait for their answers");
        let refusal = Refusal::new(Reason::TooManyActions, words).retry_after(Duration::from_secs(1));
        return Status::from(refusal).into_http();
    };
    let call = tokio::spawn(async move {
        let response = next.run(request).await;
        drop(place);
        response
    });
    call.await.unwrap_or_else(|_| {
        Status::internal("internal error in the coordinator: a call ended without an answer").into_http()
    })
}
