//! Calls that are done to their end: whoever hangs up amid a call does not stop it between what it does and what the trail says
//! of it.
//!
//! A peer has a bounded number of calls under way, over all its connections and also of those that it hung up on. An operator who
//! asks for more is refused. Of anybody else one more costs the oldest: a thief who holds a gateway's key, or a stranger at the address
//! of a site that enrols, keeps nobody out with calls that are never finished. What such a call does is one change with its event,
//! so that it is there as a whole or not at all. No call is under way for longer than [`CALL_TIMEOUT`]. What is sent as a stream
//! behind an answer is not part of its call; it ends with the caller's certificate (`until`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use penstock_proto::peer::Subject;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::crowd::{Crowd, CrowdPlace, source_of};
use penstock_proto::tls::server::PeerInfo;
use tonic::Status;

use super::bodies::{Bodies, HeldBody};
use super::until::Until;

/// How long a call may take before its answer begins: longer than the largest document takes to compile, also behind others.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(600);
/// Calls of one operator: as many as a few connections may have under way; what their requests hold is bounded by `bodies`. The same of all callers without a certificate at one
/// address: a site that enrols.
const EACH_MAX: usize = 256;
/// Calls of one gateway, which renews its certificate beside a session that begins. Each may hold a message of 4 MiB.
const GATEWAY_MAX: usize = 16;
/// Calls of all callers without a certificate: nothing but addresses says how many those are.
const STRANGERS_MAX: usize = 1024;
/// A stranger's only call is not lost to another stranger's before.
const STRANGERS_GRACE: Duration = Duration::from_secs(10);

/// Calls under way, by whose they are.
#[derive(Debug, Clone)]
pub struct Calls {
    operators: Arc<Crowd<String>>,
    gateways: Arc<Crowd<String>>,
    strangers: Arc<Crowd<String>>,
    bodies: Arc<Bodies>,
}

impl Default for Calls {
    /// None yet. How many peers with a certificate there may be is for the authority to say.
    fn default() -> Self {
        Self {
            operators: Crowd::new(usize::MAX, usize::MAX, Duration::MAX),
            gateways: Crowd::new(usize::MAX, GATEWAY_MAX, Duration::MAX),
            strangers: Crowd::new(STRANGERS_MAX, EACH_MAX, STRANGERS_GRACE),
            bodies: Arc::default(),
        }
    }
}

impl Calls {
    /// A place for a call of this peer; `None`: there is none.
    fn enter(&self, peer: Option<&PeerInfo>) -> Option<CrowdPlace<String>> {
        let identity = peer.and_then(PeerInfo::identity);
        let whose = match (identity, peer) {
            (Some(identity), _) => identity.to_string(),
            (None, Some(stranger)) => source_of(stranger.address.ip()).to_string(),
            (None, None) => String::new(),
        };
        let calls = match identity.map(|identity| &identity.subject) {
            // Theirs are refused instead: what was refused to an operator is in the trail, whatever they do next.
            Some(Subject::Operator(_)) if self.operators.held(&whose) >= EACH_MAX => return None,
            Some(Subject::Operator(_)) => &self.operators,
            Some(_) => &self.gateways,
            None => &self.strangers,
        };
        calls.enter(whose, Instant::now())
    }
}

impl Calls {
    /// What holds the request of an operator's call. Others' are small, or are read as they come.
    fn body_of(&self, peer: Option<&PeerInfo>) -> Option<HeldBody> {
        let identity = peer?.identity()?;
        let is_operator = matches!(identity.subject, Subject::Operator(_));
        is_operator.then(|| self.bodies.begin(&identity.to_string()))
    }
}

/// Does a call to its end, whether or not somebody waits for it.
pub async fn to_the_end(State(calls): State<Calls>, request: Request, next: Next) -> Response {
    let Some(mut place) = calls.enter(request.extensions().get()) else {
        return too_many();
    };
    let held = calls.body_of(request.extensions().get());
    let until = Until::of(request.extensions().get());
    let request = match &held {
        Some(held) => request.map(|body| held.count(body)),
        None => request,
    };
    let call = tokio::spawn(async move {
        // What came is held until the call is done.
        let _held = held;
        tokio::select! {
            response = next.run(request) => until.ends(response),
            () = std::future::poll_fn(|cx| place.poll_lost(cx)) => too_many(),
            () = tokio::time::sleep(CALL_TIMEOUT) => {
                Status::deadline_exceeded("the call took too long").into_http()
            }
        }
    });
    call.await.unwrap_or_else(|_| {
        Status::internal("internal error in the coordinator: a call ended without an answer").into_http()
    })
}

fn too_many() -> Response {
    let words = "the limit of calls of one peer at a time is reached; wait for their answers";
    let refusal = Refusal::new(Reason::TooManyActions, words).retry_after(Duration::from_secs(1));
    Status::from(refusal).into_http()
}
