//! Requests of operators as they come in: how many bytes of them the coordinator holds, for one operator and for all together.
//!
//! A request may be as large as a plant document, an operator may have many calls under way, and a call holds its request until it is
//! done. So their sum is bounded. Whoever sends more is refused; nobody waits for room, since two who each wait for the other's would
//! wait for ever. What is small is not counted: an approval or a search is never refused because somebody else sends documents.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use penstock_proto::channel::OPERATOR_REQUEST_BYTES_MAX;
use penstock_proto::refusal::{Reason, Refusal};
use tonic::Status;

/// Of each call so many bytes are not counted: calls themselves are.
const FREE_BYTES: usize = 64 << 10;
/// Bytes of one operator's requests at a time: two of the largest.
const EACH_BYTES_MAX: usize = 2 * OPERATOR_REQUEST_BYTES_MAX;
/// Bytes of all operators' requests at a time.
const ALL_BYTES_MAX: usize = 8 * OPERATOR_REQUEST_BYTES_MAX;
/// When it is worth another attempt.
const AGAIN: Duration = Duration::from_secs(5);

/// What is held of operators' requests.
#[derive(Debug, Default)]
pub(super) struct Bodies(Mutex<HeldBytes>);

#[derive(Debug, Default)]
struct HeldBytes {
    all: usize,
    each: HashMap<String, usize>,
}

/// What one call holds of it, until its last copy is gone.
#[derive(Debug, Clone)]
pub(super) struct HeldBody(Arc<CountedCall>);

#[derive(Debug)]
struct CountedCall {
    bodies: Arc<Bodies>,
    whose: String,
    came: Mutex<usize>,
}

impl Bodies {
    /// A call of this operator begins.
    pub(super) fn begin(self: &Arc<Self>, whose: &str) -> HeldBody {
        HeldBody(Arc::new(CountedCall {
            bodies: Arc::clone(self),
            whose: whose.to_owned(),
            came: Mutex::new(0),
        }))
    }

    fn change(&self, whose: &str, change: impl FnOnce(&mut usize, &mut usize) -> bool) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let HeldBytes { all, each } = &mut *held;
        let own = each.entry(whose.to_owned()).or_default();
        let done = change(all, own);
        if *own == 0 {
            each.remove(whose);
        }
        done
    }
}

impl HeldBody {
    /// So many bytes came.
    fn take(&self, bytes: usize) -> Result<(), Refusal> {
        let call = &*self.0;
        let mut came = call.came.lock().unwrap_or_else(PoisonError::into_inner);
        let before = came.saturating_sub(FREE_BYTES);
        let counted = came.saturating_add(bytes).saturating_sub(FREE_BYTES) - before;
        let has_room = call.bodies.change(&call.whose, |all, own| {
            let has_room =
                counted == 0 || *own + counted <= EACH_BYTES_MAX && *all + counted <= ALL_BYTES_MAX;
            if has_room {
                *own += counted;
                *all += counted;
            }
            has_room
        });
        if !has_room {
            let words = format!(
                "the coordinator holds at most {} MiB of one operator's requests at a time, and {} MiB of all; wait for the answers",
                EACH_BYTES_MAX >> 20,
                ALL_BYTES_MAX >> 20
            );
            return Err(Refusal::new(Reason::TooManyActions, words).retry_after(AGAIN));
        }
        *came = came.saturating_add(bytes);
        Ok(())
    }

    /// The request's body, counted as it comes.
    pub(super) fn count(&self, body: Body) -> Body {
        Body::new(CountedBody {
            body,
            held: self.clone(),
        })
    }
}

impl Drop for CountedCall {
    fn drop(&mut self) {
        let came = *self.came.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = came.saturating_sub(FREE_BYTES);
        self.bodies.change(&self.whose, |all, own| {
            *own = own.saturating_sub(counted);
            *all = all.saturating_sub(counted);
            true
        });
    }
}

struct CountedBody {
    body: Body,
    held: HeldBody,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        Poll::Ready(Some(match self.held.take(bytes) {
            Ok(()) => Ok(frame),
            Err(refusal) => Err(Status::from(refusal).into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use super::*;

    fn held(bodies: &Bodies) -> (usize, usize) {
        let held = bodies.0.lock().unwrap();
        (held.all, held.each.len())
    }

    /// One operator could have 256 requests of 16 MiB in memory at once.
    #[test]
    fn the_requests_of_one_operator_and_of_all_are_held_up_to_a_sum_and_small_ones_always() {
        let bodies = Arc::new(Bodies::default());
        let begun = |whose: &str| {
            let call = bodies.begin(whose);
            (call.take(OPERATOR_REQUEST_BYTES_MAX).is_ok(), call)
        };
        let of_anna: Vec<_> = (0..5).map(|_| begun("anna")).collect();
        let taken: Vec<bool> = of_anna.iter().map(|(taken, _)| *taken).collect();
        assert_eq!(taken, [true, true, false, false, false]);
        let small = bodies.begin("anna");
        small.take(FREE_BYTES).unwrap();
        // Four like her, and there is no more room for anybody's documents, but for each approval.
        let others: Vec<_> = ["bob", "carol", "dora"]
            .map(|name| [begun(name), begun(name)])
            .into();
        assert!(others.iter().flatten().all(|(taken, _)| *taken));
        assert!(!begun("erin").0);
        bodies.begin("erin").take(FREE_BYTES).unwrap();
        drop((of_anna, others, small));
        assert_eq!(held(&bodies), (0, 0));
        assert!(begun("erin").0);
    }

    proptest! {
        #[test]
        fn whatever_comes_and_ends_in_whatever_order_what_is_counted_is_what_is_held(
            steps in prop::collection::vec((0..4_usize, 0..3_usize, 0..20_000_000_usize), 0..60),
        ) {
            let bodies = Arc::new(Bodies::default());
            let mut calls: Vec<(HeldBody, usize)> = Vec::new();
            for (whose, what, bytes) in steps {
                match what {
                    0 => calls.push((bodies.begin(&whose.to_string()), 0)),
                    1 if !calls.is_empty() => drop(calls.remove(bytes % calls.len())),
                    _ => {
                        if let Some((call, came)) = calls.last_mut()
                            && call.take(bytes).is_ok()
                        {
                            *came += bytes;
                        }
                    }
                }
                let sum: usize = calls.iter().map(|(_, came)| came.saturating_sub(FREE_BYTES)).sum();
                prop_assert_eq!(held(&bodies).0, sum);
                prop_assert!(sum <= ALL_BYTES_MAX);
            }
            drop(calls);
            prop_assert_eq!(held(&bodies), (0, 0));
        }
    }

    #[tokio::test]
    async fn a_request_that_is_too_much_ends_with_the_refusal_as_its_error() {
        let bodies = Arc::new(Bodies::default());
        let first = bodies.begin("anna");
        first.take(EACH_BYTES_MAX + FREE_BYTES).unwrap();
        let call = bodies.begin("anna");
        let whole = vec![7; FREE_BYTES + 1];
        let error = call.count(Body::from(whole.clone())).collect().await.unwrap_err();
        let status = Status::from_error(error.into());
        assert_eq!(status.code(), Reason::TooManyActions.code());
        assert!(status.message().contains("one operator"), "{status}");
        drop(first);
        let read = call.count(Body::from(whole.clone())).collect().await.unwrap();
        assert_eq!(read.to_bytes(), whole);
    }
}
