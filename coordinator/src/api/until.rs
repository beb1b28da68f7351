//! Answers to operators end with the certificate that opened their connection: what is watched for days does not outlive it.
//!
//! The answer ends in order, with the reason; the connection goes a little later (`proto/tls/server`). A gateway's session ends by its own
//! machine, which has more to say (`sessions/session`).

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::Response;
use http_body::Frame;
use penstock_proto::peer::Subject;
use penstock_proto::tls::server::PeerInfo;
use tokio::time::Sleep;
use tonic::Status;

use super::answers::trailers;
use super::gate;

/// When the answers to a peer end; `None`: they are not ended here.
pub(super) struct Until(Option<(Pin<Box<Sleep>>, Status)>);

impl Until {
    /// Of the peer of a request.
    pub(super) fn of(peer: Option<&PeerInfo>) -> Self {
        let end = peer.and_then(|peer| {
            let identity = peer.identity()?;
            matches!(identity.subject, Subject::Operator(_)).then_some(())?;
            let sleep = Box::pin(tokio::time::sleep_until(peer.ends?));
            Some((sleep, gate::ended(peer).into()))
        });
        Self(end)
    }

    /// The answer, which ends then.
    pub(super) fn ends(self, response: Response) -> Response {
        match self.0 {
            Some((end, why)) => response.map(|body| {
                Body::new(Ending {
                    body: Some(body),
                    end,
                    why,
                })
            }),
            None => response,
        }
    }
}

/// What goes out until then.
struct Ending {
    /// `None`: it is over.
    body: Option<Body>,
    end: Pin<Box<Sleep>>,
    why: Status,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        // What is ready goes first: an answer that is complete has its own end.
        let next = Pin::new(body).poll_frame(cx);
        if next.is_pending() && this.end.as_mut().poll(cx).is_ready() {
            this.body = None;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&this.why)))));
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;
    use std::time::Duration;

    use http_body_util::BodyExt as _;
    use penstock_proto::refusal::{Reason, Refusal};
    use tokio_stream::StreamExt as _;

    use super::*;

    fn ending(body: Body, after: Duration) -> Body {
        let why = Refusal::new(Reason::CertificateEnded, "ended").into();
        let end = Box::pin(tokio::time::sleep(after));
        Until(Some((end, why))).ends(Response::new(body)).into_body()
    }

    #[tokio::test]
    async fn what_is_watched_ends_with_the_certificate_and_says_why() {
        let first = tokio_stream::once(Ok::<_, Infallible>(Bytes::from_static(b"seen")));
        let watched = ending(
            Body::from_stream(first.chain(tokio_stream::pending())),
            Duration::from_millis(50),
        );
        let all = watched.collect().await.unwrap();
        assert_eq!(all.trailers().unwrap().get("grpc-status").unwrap(), "16");
        assert_eq!(all.to_bytes(), "seen");
    }

    #[tokio::test]
    async fn an_answer_that_is_complete_has_its_own_end() {
        let all = ending(Body::from("all of it"), Duration::ZERO)
            .collect()
            .await
            .unwrap();
        assert!(all.trailers().is_none());
        assert_eq!(all.to_bytes(), "all of it");
    }
}
