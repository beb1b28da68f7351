//! The stream to a gateway, whose messages are made when they are taken: an offer piece by piece.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use penstock_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::frame::{Framed, frame};
use crate::releases::Offer;

/// What goes to a gateway.
#[expect(clippy::large_enum_variant, reason = "it travels in a box")]
pub(super) enum ToGateway {
    Message(v1::CoordinatorMessage),
    Offer(Offer),
    /// Why its session ends.
    End(Status),
}

/// The stream to a gateway, as bytes that are made when they are taken.
pub struct Outbound {
    messages: ReceiverStream<Box<ToGateway>>,
    /// Pieces of an offer.
    offer: Option<Box<dyn Iterator<Item = Bytes> + Send>>,
}

impl Outbound {
    /// Of what comes here.
    pub(super) fn of(messages: mpsc::Receiver<Box<ToGateway>>) -> Self {
        Self {
            messages: ReceiverStream::new(messages),
            offer: None,
        }
    }
}

impl Stream for Outbound {
    type Item = Framed;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Framed>> {
        loop {
            if let Some(piece) = self.offer.as_mut().and_then(Iterator::next) {
                return Poll::Ready(Some(Ok(piece)));
            }
            self.offer = None;
            let next = ready!(Pin::new(&mut self.messages).poll_next(cx));
            match next.map(|next| *next) {
                Some(ToGateway::Message(message)) => return Poll::Ready(Some(Ok(frame(&message)))),
                Some(ToGateway::Offer(offer)) => match offer.pieces() {
                    Ok(pieces) => self.offer = Some(Box::new(pieces)),
                    Err(refusal) => return Poll::Ready(Some(Err(refusal.into()))),
                },
                Some(ToGateway::End(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
    }
}
