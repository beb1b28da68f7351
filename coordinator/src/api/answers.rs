//! Answers that are large, and readers that do not read: what the coordinator holds for them is bounded for all together,
//! shared between operators, and bounded in time.
//!
//! Whoever asks for such an answer gets a place first ([`Crowd`]): when all are taken, the operator who holds the most loses
//! the oldest. A place is held until the last byte has gone out, not only until the call is done: a reader whose window is
//! closed keeps it. One that takes nothing for [`READER_TIMEOUT`], or that loses its place, loses its connection, since
//! nothing else frees what waits for it. What all watchers of something get is made once, and shared ([`Frames`]).

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use penstock_policy::ids::OperatorId;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::crowd::{Crowd, CrowdPlace};
use penstock_proto::tls::server::{ConnectionCutter, PeerInfo};
use prost::Message;
use tokio::sync::oneshot;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Extensions;

/// How long a reader may take nothing.
const READER_TIMEOUT: Duration = Duration::from_secs(300);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// A place is not lost among equals before.
const GRACE: Duration = Duration::from_secs(30);

/// Large answers at once, of all operators and of one.
pub const ANSWERS_MAX: (usize, usize) = (16, 12);
/// Watchers of health at once, of all operators and of one.
pub const WATCHES_MAX: (usize, usize) = (64, 8);

/// Places for answers of one kind.
#[derive(Debug, Clone)]
pub struct Answers {
    what: &'static str,
    places_max: usize,
    each_max: usize,
    crowd: Arc<Crowd<OperatorId>>,
}

/// An answer under way; over when the last copy is gone, and the last byte that was sent with it.
#[derive(Debug, Clone)]
pub struct Answer(Arc<UnderWay>);

#[derive(Debug)]
struct UnderWay {
    reading: Mutex<Reading>,
    /// Dropped with it.
    _over: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Reading {
    /// Pieces that have not gone out.
    pieces: usize,
    /// When the first of them came, or the last one before them went out.
    since: Instant,
}

impl Answers {
    /// `places_max` for all together and `each_max` for one operator; `what` they are, in a refusal.
    pub fn new(what: &'static str, places_max: usize, each_max: usize) -> Self {
        Self {
            what,
            places_max,
            each_max,
            // One of its own places is not taken from an operator: the connection would go with all the others.
            crowd: Crowd::new(places_max, places_max, GRACE),
        }
    }

    /// A place for an answer to `operator`, over the connection of this request.
    pub(crate) fn begin(&self, operator: &OperatorId, extensions: &Extensions) -> Result<Answer, Refusal> {
        let line = extensions.get::<PeerInfo>().map(|peer| peer.line.clone());
        let full = |most: usize, whose: &str| {
            let words = format!(
                "the limit of {most} {} {whose} at a time is reached; read or end one of them first",
                self.what
            );
            Refusal::new(Reason::TooManyAnswers, words).retry_after(GRACE)
        };
        if self.crowd.held(operator) >= self.each_max {
            return Err(full(self.each_max, &format!("of {operator}")));
        }
        let place = self.crowd.enter(operator.clone(), Instant::now());
        let place = place.ok_or_else(|| full(self.places_max, "of all operators"))?;
        let (over, ended) = oneshot::channel();
        let answer = Answer(Arc::new(UnderWay {
            reading: Mutex::new(Reading {
                pieces: 0,
                since: Instant::now(),
            }),
            _over: over,
        }));
        let watched = Arc::downgrade(&answer.0);
        let stalls = move || {
            watched
                .upgrade()
                .is_some_and(|answer| answer.stalls(Instant::now()))
        };
        tokio::spawn(keep(place, ended, stalls, line, operator.clone()));
        Ok(answer)
    }
}

/// Holds the place until the answer is over; ends the connection of a reader that does not read, or that lost its place.
async fn keep(
    mut place: CrowdPlace<OperatorId>,
    mut ended: oneshot::Receiver<()>,
    stalls: impl Fn() -> bool,
    line: Option<ConnectionCutter>,
    operator: OperatorId,
) {
    let mut look = tokio::time::interval(LOOK);
    let why = loop {
        tokio::select! {
            _ = &mut ended => return,
            () = std::future::poll_fn(|cx| place.poll_lost(cx)) => break "others were waiting, and it held the most places",
            _ = look.tick() => if stalls() {
                break "it read nothing of an answer for minutes";
            }
        }
    };
    tracing::warn!(%operator, why, "an operator's connection is ended");
    if let Some(line) = line {
        line.cut();
    }
}

impl UnderWay {
    fn reading(&self) -> std::sync::MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stalls(&self, now: Instant) -> bool {
        let reading = self.reading();
        reading.pieces > 0 && now.saturating_duration_since(reading.since) >= READER_TIMEOUT
    }
}

/// A piece of an answer until it has gone out.
struct Piece {
    bytes: Bytes,
    answer: Answer,
}

impl Piece {
    fn of(bytes: Bytes, answer: Answer) -> Bytes {
        {
            let mut reading = answer.0.reading();
            if reading.pieces == 0 {
                reading.since = Instant::now();
            }
            reading.pieces += 1;
        }
        Bytes::from_owner(Self { bytes, answer })
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut reading = self.answer.0.reading();
        reading.pieces = reading.pieces.saturating_sub(1);
        reading.since = Instant::now();
    }
}

/// A message as it goes out: made once for all who get it.
pub fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(length.saturating_add(5));
    // Not compressed; the length.
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // There is room, which is the only way in which it fails.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}

type Framed = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// What goes out instead of what the service's own stream says: messages that are made already.
#[derive(Clone)]
pub struct Frames(Arc<Mutex<Option<Framed>>>);

impl Frames {
    /// These.
    pub fn new(frames: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::pin(frames)))))
    }

    fn into_body(self) -> Body {
        let frames = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let frames = frames.unwrap_or_else(|| Box::pin(tokio_stream::empty()));
        let mut trailers = axum::http::HeaderMap::new();
        trailers.insert("grpc-status", axum::http::HeaderValue::from_static("0"));
        let end = tokio_stream::once(Frame::trailers(trailers));
        let all = frames.map(Frame::data).chain(end);
        Body::new(StreamBody::new(all.map(Ok::<_, std::convert::Infallible>)))
    }
}

/// An answer with its place.
pub fn carried<T>(message: T, answer: Answer) -> tonic::Response<T> {
    let mut response = tonic::Response::new(message);
    response.extensions_mut().insert(answer);
    response
}

/// Carries an answer that has a place: its body holds the place with each piece.
pub async fn carry(mut response: Response) -> Response {
    let frames = response.extensions_mut().remove::<Frames>();
    let answer = response.extensions_mut().remove::<Answer>();
    let response = match frames {
        Some(frames) => response.map(|_| frames.into_body()),
        None => response,
    };
    match answer {
        Some(answer) => response.map(|body| {
            Body::new(body.map_frame(move |frame| frame.map_data(|bytes| Piece::of(bytes, answer.clone()))))
        }),
        None => response,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use penstock_proto::v1;

    fn answer() -> (Answer, oneshot::Receiver<()>) {
        let (over, ended) = oneshot::channel();
        let reading = Mutex::new(Reading {
            pieces: 0,
            since: Instant::now(),
        });
        let under_way = UnderWay { reading, _over: over };
        (Answer(Arc::new(under_way)), ended)
    }

    #[test]
    fn an_answer_is_over_with_its_last_piece_and_one_that_nobody_takes_stalls() {
        let (answer, mut ended) = answer();
        let late = Instant::now() + READER_TIMEOUT + Duration::from_secs(1);
        assert!(!answer.0.stalls(late), "nothing waits for a reader");
        let under_way = Arc::downgrade(&answer.0);
        let pieces = [b"a", b"b"].map(|bytes| Piece::of(Bytes::from_static(bytes), answer.clone()));
        drop(answer);
        assert!(
            ended.try_recv() == Err(oneshot::error::TryRecvError::Empty),
            "it is not sent"
        );
        assert!(under_way.upgrade().unwrap().stalls(late));
        let [first, second] = pieces;
        drop(first);
        // It goes on: the time starts again with each piece that is taken.
        assert!(!under_way.upgrade().unwrap().stalls(Instant::now()));
        drop(second);
        assert!(ended.try_recv() == Err(oneshot::error::TryRecvError::Closed));
    }

    #[tokio::test]
    async fn all_who_watch_get_the_same_bytes_and_a_client_reads_them_as_a_message() {
        let health = v1::PlantHealth {
            time_ms: 7,
            ..v1::PlantHealth::default()
        };
        let published = crate::health::watch::PublishedHealth::new(health.clone());
        assert_eq!(published.frame().as_ptr(), published.frame().as_ptr());
        let mut response = Response::new(Body::from("what the service says"));
        let frames = tokio_stream::iter([published.frame(), published.frame()]);
        response.extensions_mut().insert(Frames::new(frames));
        response.extensions_mut().insert(answer().0);
        let body = carry(response).await.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap().get("grpc-status").unwrap(), "0");
        let bytes = body.to_bytes();
        let (one, other) = bytes.split_at(bytes.len() / 2);
        assert_eq!(one, other);
        assert_eq!(v1::PlantHealth::decode(one.get(5..).unwrap()).unwrap(), health);
    }
}
