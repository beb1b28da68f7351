//! Answers that are large or last long, and readers that do not read: what the coordinator holds for them is bounded for all
//! together, shared between those who ask, and bounded in time.
//!
//! Whoever asks for such an answer gets a place first ([`Crowd`]): when all are taken, whoever holds the most loses
//! the oldest. A place is held until the last byte has gone out, not only until the call is done: a reader whose window is
//! closed keeps it. One that takes nothing for [`READER_TIMEOUT`], or that loses its place, loses its connection, since
//! nothing else frees what waits for it. What goes out is made once for all who get it, or only as it is taken ([`Frames`]).
//!
//! A gateway's session is such an answer, too. An operator who asks for more than their part is refused; of a gateway it is the
//! newest session that counts, so that a new one takes the place of its oldest.

use std::fmt::Display;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::frame::Framed;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::crowd::{Crowd, CrowdPlace};
use penstock_proto::tls::server::{ConnectionCutter, PeerInfo};
use tokio::sync::oneshot;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Extensions, Status};

/// How long a reader may take nothing.
const READER_TIMEOUT: Duration = Duration::from_secs(300);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// A place is not lost among equals before.
const GRACE: Duration = Duration::from_secs(30);

/// Large answers at once, of all operators and of one.
pub const ANSWERS_MAX: (usize, usize) = (16, 12);
/// Watchers of health at once, of all operators and of one.
pub const WATCHES_MAX: (usize, usize) = (64, 8);
/// Sessions of one gateway at once: the one that stands, and what broken lines leave behind.
pub const SESSIONS_EACH_MAX: usize = 4;

/// Places for answers of one kind, shared by `K`.
#[derive(Debug, Clone)]
pub struct Answers<K> {
    what: &'static str,
    places_max: usize,
    /// Who holds as many gets no more; `None`: loses the oldest.
    each_max: Option<usize>,
    crowd: Arc<Crowd<K>>,
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

impl<K> Answers<K>
where
    K: Eq + Hash + Clone + Display + Send + Sync + 'static,
{
    /// `places_max` for all together and `each_max` for one who asks; `what` they are, in a refusal.
    pub fn new(what: &'static str, places_max: usize, each_max: usize) -> Self {
        Self {
            what,
            places_max,
            each_max: Some(each_max),
            // One of its own places is not taken from an operator: the connection would go with all the others.
            crowd: Crowd::new(places_max, places_max, GRACE),
        }
    }

    /// The same, where who holds [`SESSIONS_EACH_MAX`] loses the oldest of them to a new one. Nobody loses their only place.
    pub fn of_sessions(places_max: usize) -> Self {
        Self {
            what: "sessions",
            places_max,
            each_max: None,
            crowd: Crowd::new(places_max, SESSIONS_EACH_MAX, Duration::MAX),
        }
    }

    /// A place for an answer to `who`, over the connection of this request.
    pub(crate) fn begin(&self, who: &K, extensions: &Extensions) -> Result<Answer, Refusal> {
        let line = extensions.get::<PeerInfo>().map(|peer| peer.line.clone());
        let full = |most: usize, whose: &str| {
            let words = format!(
                "the limit of {most} {} {whose} at a time is reached; read or end one of them first",
                self.what
            );
            Refusal::new(Reason::TooManyAnswers, words).retry_after(GRACE)
        };
        if let Some(each_max) = self.each_max.filter(|most| self.crowd.held(who) >= *most) {
            return Err(full(each_max, &format!("of {who}")));
        }
        let place = self.crowd.enter(who.clone(), Instant::now());
        let place = place.ok_or_else(|| full(self.places_max, "of all together"))?;
        let (answer, ended) = Answer::new();
        let watched = Arc::downgrade(&answer.0);
        let stalls = move || {
            watched
                .upgrade()
                .is_some_and(|answer| answer.stalls(Instant::now()))
        };
        tokio::spawn(keep(place, ended, stalls, line, who.to_string()));
        Ok(answer)
    }
}

impl Answer {
    /// With what says that it is over.
    fn new() -> (Self, oneshot::Receiver<()>) {
        let (over, ended) = oneshot::channel();
        let reading = Reading {
            pieces: 0,
            since: Instant::now(),
        };
        let under_way = UnderWay {
            reading: Mutex::new(reading),
            _over: over,
        };
        (Self(Arc::new(under_way)), ended)
    }
}

/// Holds the place until the answer is over; ends the connection of a reader that does not read, or that lost its place.
async fn keep<K: Eq + Hash>(
    mut place: CrowdPlace<K>,
    mut ended: oneshot::Receiver<()>,
    stalls: impl Fn() -> bool,
    line: Option<ConnectionCutter>,
    who: String,
) {
    let mut look = tokio::time::interval(LOOK);
    let why = loop {
        tokio::select! {
            _ = &mut ended => return,
            () = std::future::poll_fn(|cx| place.poll_lost(cx)) => {
                break "a new one took the place of what it did not read to the end";
            }
            _ = look.tick() => if stalls() {
                break "it read nothing of an answer for minutes";
            }
        }
    };
    tracing::warn!(peer = who, why, "a connection is ended");
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

type FramedStream = Pin<Box<dyn Stream<Item = Framed> + Send>>;

/// What goes out instead of what the service's own stream says: messages that are made already, or piece by piece.
#[derive(Clone)]
pub struct Frames(Arc<Mutex<Option<FramedStream>>>);

impl Frames {
    /// These.
    pub fn new(frames: impl Stream<Item = Framed> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::pin(frames)))))
    }

    fn into_body(self) -> Body {
        let frames = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let frames = frames.unwrap_or_else(|| Box::pin(tokio_stream::empty()));
        let end = tokio_stream::once(Err(Status::ok("")));
        // Nothing is sent behind the first end.
        let all = frames.chain(end).map(|framed| match framed {
            Ok(bytes) => Frame::data(bytes),
            Err(status) => Frame::trailers(trailers(&status)),
        });
        Body::new(StreamBody::new(all.map(Ok::<_, std::convert::Infallible>)))
    }
}

pub(super) fn trailers(status: &Status) -> axum::http::HeaderMap {
    let mut trailers = axum::http::HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Words that cannot be sent; what it is can.
        let code = axum::http::HeaderValue::from(status.code() as i32);
        trailers.insert(Status::GRPC_STATUS, code);
    }
    trailers
}

/// A service's own stream where [`Frames`] go out instead.
pub type Nothing<T> = tokio_stream::Empty<Result<T, Status>>;

/// Frames with their place, for what a service's own stream would say.
pub fn framed<T>(frames: Frames, answer: Answer) -> tonic::Response<Nothing<T>> {
    let mut response = carried(tokio_stream::empty(), answer);
    response.extensions_mut().insert(frames);
    response
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

    #[test]
    fn an_answer_is_over_with_its_last_piece_and_one_that_nobody_takes_stalls() {
        let (answer, mut ended) = Answer::new();
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
        let published = crate::health_watch::PublishedHealth::new(health.clone());
        assert_eq!(published.frame().as_ptr(), published.frame().as_ptr());
        let mut response = Response::new(Body::from("what the service says"));
        let frames = tokio_stream::iter([published.frame(), published.frame()].map(Ok));
        response.extensions_mut().insert(Frames::new(frames));
        response.extensions_mut().insert(Answer::new().0);
        let body = carry(response).await.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap().get("grpc-status").unwrap(), "0");
        let bytes = body.to_bytes();
        let (one, other) = bytes.split_at(bytes.len() / 2);
        assert_eq!(one, other);
        assert_eq!(
            <v1::PlantHealth as prost::Message>::decode(one.get(5..).unwrap()).unwrap(),
            health
        );
    }
}
