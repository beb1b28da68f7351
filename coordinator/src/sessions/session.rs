//! The shell of a session: gives its [machine](super::machine) what comes from the gateway, the store and the clock, and does
//! what it says, in one task.
//!
//! What a gateway does not read is hardly held for it: messages are made when they are taken, an offer piece by piece. What it
//! sent and was taken in is judged also when it hangs up, so that whoever is refused leaves an alarm.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_policy::ids::{CoordinatorId, Digest, GatewayId};
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::crowd::Crowd;
use penstock_proto::v1;
use penstock_proto::v1::coordinator_message::Message as Down;
use penstock_proto::withdrawn::{Held, SignedList};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::facts::News;
use super::machine::{Action, Answer, Fact, Machine, Outgoing, Question};
use super::outbound::{Outbound, ToGateway};
use super::wanted::{Directive, Wanted, Word};
use super::{Fleet, SessionLimits};
use crate::ca::Authority;
use crate::clock;
use crate::evidence::{Evidence, ShownHead};
use crate::ingest::Ingest;
use crate::releases::{CurrentRelease, Offer, Releases};
use crate::store::Store;
use crate::subjects::{PublishedList, Subjects};
use crate::tickets::Tickets;

/// Messages to a gateway that may wait for it.
const OUT_MAX: usize = 8;
/// How long a session that is over waits for the store, which is to judge what it took in.
const LEAVING_TIMEOUT: Duration = Duration::from_secs(30);
/// Sessions of one gateway that wait so; more cost the oldest.
const LEAVING_EACH_MAX: usize = 4;

/// The gateway at the other end, by its certificate.
#[derive(Debug, Clone)]
pub struct GatewayPeer {
    /// Its name.
    pub gateway: GatewayId,
    /// SHA-256 of its key.
    pub key: Digest,
    /// Where it comes from.
    pub address: IpAddr,
    /// When its certificate expires, milliseconds since 1970.
    pub certificate_expires_ms: u64,
    /// When that is, by a clock that nobody sets: the session ends then. `None`: never.
    pub ends: Option<tokio::time::Instant>,
}

/// Opens sessions.
#[derive(Debug, Clone)]
pub struct Sessions {
    /// Ourselves.
    pub coordinator: CoordinatorId,
    /// What is known of gateways.
    pub fleet: Arc<Fleet>,
    /// For the names that a certificate is renewed by.
    pub releases: Releases,
    /// Where audit goes.
    pub ingest: Ingest,
    /// For the time at which a gateway was last seen.
    pub store: Store,
    /// For the trust bundles.
    pub authority: Arc<Authority>,
    /// For the list of withdrawn keys.
    pub subjects: Subjects,
    /// By what two users of one key are noticed.
    pub tickets: Tickets,
    /// How sessions behave.
    pub limits: SessionLimits,
    /// The coordinator is stopping.
    pub stopping: CancellationToken,
    /// The head of the trails that gateways see.
    pub(crate) evidence: Evidence,
    /// Sessions that are over and wait for the store, from [`leaving`].
    pub leaving: Arc<Crowd<GatewayId>>,
}

/// Places for sessions that are over and wait for the store: as many as there may be connections.
pub fn leaving(connections_max: usize) -> Arc<Crowd<GatewayId>> {
    Crowd::new(connections_max, LEAVING_EACH_MAX, LEAVING_TIMEOUT)
}

/// In boxes: a queue keeps room for many at once, and almost always holds none.
type Out = mpsc::Sender<Box<ToGateway>>;

/// Something that is awaited; in a box, since a session that is quiet awaits nothing and has no room for it.
type Awaited<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// A head that is new, and what the gateway was shown then.
type HeadNews = Option<(ShownHead, Box<v1::EvidenceHead>)>;

/// One session.
struct Session {
    all: Arc<Sessions>,
    peer: GatewayPeer,
    machine: Machine,
    /// Since the hello. In a box: what is awaited around it keeps room for it more than once.
    standing: Option<Box<Standing>>,
    /// The store's answer, and a head of the trails that is new to the gateway.
    answer: Awaited<(Answer, HeadNews)>,
    /// What the gateway was shown of the trails.
    shown: ShownHead,
    /// A head that waits for a message that it can go with.
    head: Option<Box<v1::EvidenceHead>>,
    /// What the gateway lacks of the list of withdrawn keys, while it is signed; `None`: it cannot be now.
    list: Awaited<Option<Arc<SignedList>>>,
    /// Room in memory for one more block; `None`: there is none.
    admission: Awaited<Option<OwnedSemaphorePermit>>,
    /// Room in memory for the blocks that are here.
    room: Option<OwnedSemaphorePermit>,
}

/// The place of a session among those of its gateway.
struct Standing {
    number: u64,
    replaced: CancellationToken,
    /// What the gateway should have, as it is decided.
    directives: watch::Receiver<Directive>,
    /// Whose keys were withdrawn.
    list: watch::Receiver<Arc<PublishedList>>,
    /// Whether the gateway is asked for its list of withdrawn keys, and for its trust bundles.
    asks: (bool, bool),
    /// As it was read last.
    target: Option<(Wanted, Arc<CurrentRelease>)>,
    /// The number of the last word, and the word until it is passed on.
    word: (u64, Option<Word>),
}

impl Sessions {
    /// Begins a session; what is returned is the stream to the gateway.
    pub fn open(self: &Arc<Self>, peer: GatewayPeer, inbound: Streaming<v1::GatewayMessage>) -> Outbound {
        let (out, stream) = mpsc::channel(OUT_MAX);
        let session = Session::new(self.clone(), peer);
        tokio::spawn(session.run(inbound, out));
        Outbound::of(stream)
    }
}

impl Session {
    fn new(all: Arc<Sessions>, peer: GatewayPeer) -> Self {
        let random = getrandom::u64().unwrap_or(0);
        Self {
            machine: Machine::new(all.limits, random, now()),
            all,
            peer,
            standing: None,
            answer: None,
            shown: ShownHead::default(),
            head: None,
            list: None,
            admission: None,
            room: None,
        }
    }

    async fn run(mut self, mut inbound: Streaming<v1::GatewayMessage>, out: Out) {
        let end = loop {
            let deadline = self.machine.deadline().map(tokio::time::Instant::from_std);
            let wakes = deadline.into_iter().chain(self.peer.ends).min();
            let fact = tokio::select! {
                message = inbound.message(), if self.machine.reads() => self.heard(message),
                Ok(permit) = out.reserve(), if self.machine.has_message() => {
                    if let Some(message) = self.machine.message(now()).and_then(|next| self.write(next)) {
                        permit.send(Box::new(message));
                    }
                    continue;
                }
                list = arrival(&mut self.list) => {
                    self.machine.list_made(list.is_some());
                    // There is room: there was when it was asked for, and nothing was sent meanwhile.
                    if let Some(list) = list {
                        let _ = out.try_send(Box::new(message(Down::Withdrawn(list.as_ref().into()))));
                    }
                    continue;
                }
                (answer, news) = arrival(&mut self.answer) => {
                    if let Some((shown, head)) = news {
                        (self.shown, self.head) = (shown, Some(head));
                    }
                    Fact::Answered(answer)
                }
                room = arrival(&mut self.admission) => self.admitted(room),
                directed = directed(self.standing.as_deref_mut()) => directed,
                () = self.all.stopping.cancelled() => Fact::Stopping,
                () = out.closed() => Fact::Gone,
                () = tokio::time::sleep_until(wakes.unwrap_or_else(tokio::time::Instant::now)), if wakes.is_some() => {
                    self.woken()
                }
            };
            let actions = self.machine.step(now(), fact);
            let end = actions.into_iter().find_map(|action| self.act(action));
            self.give_room_back();
            if let Some(end) = end {
                break end;
            }
        };
        drop(inbound);
        Box::pin(self.end(end, out)).await;
    }

    /// The certificate has ended, or it is time for something within the session.
    fn woken(&self) -> Fact {
        let has_ended = self
            .peer
            .ends
            .is_some_and(|ends| ends <= tokio::time::Instant::now());
        match has_ended {
            true => Fact::CertificateEnded,
            false => Fact::TimePassed,
        }
    }

    fn heard(&self, message: Result<Option<v1::GatewayMessage>, Status>) -> Fact {
        match message {
            Ok(Some(message)) => Fact::Message(Box::new(message)),
            Ok(None) => Fact::Ended(None),
            Err(status) => {
                tracing::debug!(gateway = %self.peer.gateway, %status, "the stream broke");
                Fact::Ended(Some(status.message().to_owned()))
            }
        }
    }

    fn admitted(&mut self, room: Option<OwnedSemaphorePermit>) -> Fact {
        let is_there = room.is_some();
        match (&mut self.room, room) {
            (Some(all), Some(more)) => all.merge(more),
            (all, more) => *all = all.take().or(more),
        }
        Fact::Room(is_there)
    }

    /// Gives the room back of blocks that are not here any more.
    fn give_room_back(&mut self) {
        let taken = self.machine.room_kib();
        if let Some(room) = &mut self.room {
            drop(room.split(room.num_permits().saturating_sub(taken)));
        }
        self.room.take_if(|_| taken == 0);
    }

    /// Does an action; answers with the end, if it is one.
    fn act(&mut self, action: Action) -> Option<Result<(), Refusal>> {
        match action {
            Action::Begin(hello) => self.begin(hello),
            Action::Learn(news) => self.learn(&news),
            Action::Hold(ticket) => self.all.holds(&self.peer, ticket),
            Action::Take(given) => self.all.take(&self.peer, *given, self.asks()),
            Action::Ask(question) => {
                let (all, peer, shown) = (self.all.clone(), self.peer.clone(), self.shown);
                // A head that waits to be sent goes first: the proof of the next one begins with it.
                let waits = self.head.is_some();
                self.answer = Some(Box::pin(async move {
                    let answer = all.answer(&peer, question).await;
                    let news = match waits {
                        true => None,
                        false => all.evidence.news(shown).await,
                    };
                    (answer, news)
                }));
            }
            Action::AskRoom(kib) => {
                let ingest = self.all.ingest.clone();
                self.admission = Some(Box::pin(async move { ingest.room(kib).await }));
            }
            Action::End(end) => return Some(end),
        }
        None
    }

    fn begin(&mut self, hello: Box<v1::Hello>) {
        self.shown = ShownHead::of(&hello);
        if let Some(held) = hello.trust.clone() {
            let (all, gateway) = (self.all.clone(), self.peer.gateway.clone());
            tokio::spawn(async move { all.trusts(&gateway, &held).await });
        }
        let gateway = &self.peer.gateway;
        tracing::info!(%gateway, version = hello.software_version, "gateway connected");
        metrics::gauge!("penstock_gateways_connected").increment(1.0);
        let held = hello.withdrawn.as_ref().map(Held::from);
        let asks_list = held.is_some_and(|held| self.all.subjects.asks(gateway, held));
        let number = self.all.authority.trusted().number;
        let asks_trust = hello.trust.as_ref().is_some_and(|held| held.number > number);
        if let Some(held) = held {
            let (subjects, gateway) = (self.all.subjects.clone(), gateway.clone());
            tokio::spawn(async move { subjects.heard(&gateway, held).await });
        }
        let expires_ms = self.peer.certificate_expires_ms;
        let begun = self.all.fleet.begin(gateway, expires_ms, hello, clock::now_ms());
        let mut list = self.all.subjects.list();
        list.mark_changed();
        self.standing = Some(Box::new(Standing {
            list,
            number: begun.number,
            replaced: begun.replaced,
            directives: begun.directives,
            asks: (asks_list, asks_trust),
            target: None,
            word: (0, None),
        }));
    }

    fn asks(&self) -> (bool, bool) {
        self.standing
            .as_ref()
            .map_or((false, false), |standing| standing.asks)
    }

    fn learn(&self, news: &News) {
        if let Some(standing) = &self.standing {
            let fleet = &self.all.fleet;
            fleet.learn(&self.peer.gateway, standing.number, news, clock::now_ms());
        }
    }

    /// A message as it goes over the wire. `None`: of a target that is another one by now, which follows; or one that is signed first.
    fn write(&mut self, message: Outgoing) -> Option<ToGateway> {
        let message = match message {
            Outgoing::Welcome(held, greeting) => {
                let (ticket, twin) = greeting.to_wire();
                if greeting.is_known {
                    self.learn(&News::Twin(greeting.twin));
                }
                Down::Welcome(v1::Welcome {
                    coordinator: self.all.coordinator.to_string(),
                    time_ms: clock::now_ms(),
                    health_interval_ms: u32::try_from(self.all.limits.health_interval.as_millis())
                        .unwrap_or(u32::MAX),
                    audit: Some(held),
                    ticket,
                    twin,
                    asks_withdrawn: self.asks().0,
                    asks_trust: self.asks().1,
                    trails: self.head.take().map(|head| *head),
                })
            }
            Outgoing::Offer { wanted, verified } => {
                let (target, release) = self.standing.as_ref()?.target.as_ref()?;
                if target.mark != wanted {
                    return None;
                }
                // Recorded first, so that an answer never comes before it.
                self.learn(&News::Offered(wanted));
                metrics::counter!("penstock_offers_total").increment(1);
                let offer = Offer::new(release.clone(), self.peer.gateway.clone(), verified);
                return Some(ToGateway::Offer(offer.with_order(target.to_wire())));
            }
            Outgoing::Trust(held) => {
                let lacking = self.all.authority.bundles_since(&held);
                if lacking.is_empty() {
                    return None;
                }
                Down::Trust(lacking.into())
            }
            Outgoing::Withdrawn(held) => {
                let subjects = self.all.subjects.clone();
                self.list = Some(Box::pin(async move { subjects.lacking(held).await }));
                self.machine.list_awaited();
                return None;
            }
            Outgoing::Order => Down::Order(self.standing.as_ref()?.target.as_ref()?.0.to_wire()?),
            Outgoing::Word(word) => word.to_wire(),
            Outgoing::Acknowledgement(held) => Down::AuditAck(v1::AuditAck {
                trails: self.head.take().map(|head| *head),
                ..held
            }),
        };
        Some(self::message(message))
    }

    async fn end(mut self, end: Result<(), Refusal>, out: Out) {
        // The last place is for why it ends: a gateway that hears no reason takes it for a broken line.
        let last = end
            .as_ref()
            .err()
            .and_then(|_| out.clone().try_reserve_owned().ok());
        // What was stored and is still to be acknowledged, if there is room for it.
        while let Ok(permit) = out.try_reserve()
            && let Some(message) = self.machine.message(now()).and_then(|next| self.write(next))
        {
            permit.send(Box::new(message));
        }
        let gateway = self.peer.gateway.clone();
        match end {
            Ok(()) => tracing::info!(%gateway, "gateway disconnected"),
            Err(refusal) => {
                if refusal.reason == Reason::SlowConsumer {
                    metrics::counter!("penstock_slow_gateways_total").increment(1);
                }
                let what = if self.standing.is_some() {
                    "session ended"
                } else {
                    "session refused"
                };
                tracing::warn!(%gateway, %refusal, "{what}");
                // The gateway may be gone already, or take nothing.
                if let Some(last) = last {
                    last.send(Box::new(ToGateway::End(refusal.into())));
                }
            }
        }
        drop(out);
        let mut stood = false;
        if let Some(standing) = &self.standing {
            metrics::gauge!("penstock_gateways_connected").decrement(1.0);
            stood = self.all.fleet.end(&gateway, standing.number);
        }
        let Some(mut place) = self.all.leaving.enter(gateway, Instant::now()) else {
            return;
        };
        let lost = std::future::poll_fn(|cx| place.poll_lost(cx));
        let last = async {
            self.judge_rest().await;
            if stood {
                self.all.remember(&self.peer).await;
            }
        };
        tokio::select! {
            () = last => {}
            () = lost => {}
            () = tokio::time::sleep(LEAVING_TIMEOUT) => {}
        }
    }

    /// What was taken in is judged although the session is over: who is refused, and hangs up at once, leaves an alarm all the same.
    async fn judge_rest(&mut self) {
        let answer = match &self.answer {
            Some(_) => Some(arrival(&mut self.answer).await.0),
            None => None,
        };
        let has_room = self.admission.is_some() && {
            let room = arrival(&mut self.admission).await;
            matches!(self.admitted(room), Fact::Room(true))
        };
        let blocks = self.machine.unjudged(answer.as_ref(), has_room);
        if !blocks.is_empty() {
            let question = Question::Store { blocks, first: true };
            self.all.answer(&self.peer, question).await;
        }
    }
}

fn message(message: Down) -> ToGateway {
    ToGateway::Message(v1::CoordinatorMessage {
        message: Some(message),
    })
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What is awaited, once it is there; never, where nothing is.
async fn arrival<T>(awaited: &mut Awaited<T>) -> T {
    let Some(future) = awaited else {
        return std::future::pending().await;
    };
    let arrived = future.await;
    *awaited = None;
    arrived
}

/// What comes from within the coordinator to a session that stands; each once.
async fn directed(standing: Option<&mut Standing>) -> Fact {
    let Some(standing) = standing else {
        return std::future::pending().await;
    };
    if let Some(word) = standing.word.1.take() {
        return Fact::Word(word);
    }
    tokio::select! {
        biased;
        () = standing.replaced.cancelled() => Fact::Replaced,
        changed = standing.directives.changed() => {
            // Whoever directs it ends with its place in the fleet: another session has that now.
            if changed.is_err() {
                return Fact::Replaced;
            }
            let directive = standing.directives.borrow_and_update().clone();
            if let Some((number, word)) = directive.word.filter(|(number, _)| *number > standing.word.0) {
                standing.word = (number, Some(word));
            }
            standing.target = directive.target;
            Fact::Target(standing.target.as_ref().map(|(wanted, _)| wanted.clone()))
        }
        Ok(()) = standing.list.changed() => Fact::Withdrawn(standing.list.borrow_and_update().held),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_is_quiet_takes_little_memory() {
        fn size_of_future<A, B, C, F>(_: impl FnOnce(A, B, C) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size_of_future(Session::run);
        assert!(bytes <= 4 * 1024, "{bytes}");
        // A queue keeps room for as many of these as it holds.
        assert!(size_of::<Box<ToGateway>>() <= 8);
    }
}
