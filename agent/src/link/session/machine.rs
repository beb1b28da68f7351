//! One session with a coordinator as a pure machine: messages and time go in; messages, [`Action`]s and the next deadline come out.
//!
//! ```text
//! opening (Hello is out) ─ Welcome ─▶ talking ─ silence, nonsense, no acknowledgement ─▶ SessionFault: the session is over
//! ```
//!
//! Invariants: at most one audit read, one resumption and one report are in hand; what waits to go out is one policy state, one
//! health report and the blocks of one read; of offers, of orders, and of what is asked of a trial that nobody has taken yet only the
//! newest is kept, an offer takes the place of an order that came before it, and of a flood of offers or orders few are looked at. Blocks go out
//! behind everything else, so a long trail holds up neither state nor health.
//!
//! Not here: the connection, tasks and timers (`link/session.rs`, the shell), and which blocks are sent next ([`Upload`]).

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use penstock_proto::backoff::jitter;
use penstock_proto::v1::coordinator_message::Message as Inbound;
use penstock_proto::v1::gateway_message::Message as Outbound;
use penstock_proto::v1::{
    AuditAck, AuditBlock, ConfirmTrial, HealthReport, Hello, Order, PolicyOffer, PolicyState, RevertTrial,
    TrustBundles, Twin, Welcome, WithdrawnList,
};
use prost::bytes::Bytes;

use super::OUTBOUND_MAX;
use crate::allowance::Allowance;
use crate::audit::{Position, record};
use crate::link::upload::Upload;

/// How long the coordinator has for its Welcome.
pub const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a message may wait for room on the way out.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an audit block may wait for its acknowledgement.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// The bounds of the report interval that a coordinator may ask for.
const REPORT_INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// How often the session looks after itself.
const LOOK: Duration = Duration::from_secs(1);
/// Blocks read at once: as many as find room on the way out beside something else.
const READ_BLOCKS_MAX: usize = OUTBOUND_MAX - 1;

/// Orders, and what is asked of trials, that are obeyed one after another; further ones overtake each other ...
const ORDERS_AT_ONCE: u32 = 8;
/// ... until there is one more.
const ORDERS_EACH: Duration = Duration::from_secs(10);
/// The same for offers: releases are rarer, and a test or a laboratory may make some in a row.
const OFFERS_AT_ONCE: u32 = 16;
/// See [`OFFERS_AT_ONCE`].
const OFFERS_EACH: Duration = Duration::from_secs(5);
/// The same for lists of withdrawn keys, of which each builds upon the one before: one that is overtaken is a gap.
const LISTS_AT_ONCE: u32 = 64;
/// See [`LISTS_AT_ONCE`].
const LISTS_EACH: Duration = Duration::from_secs(1);

/// Why the machine ends the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionFault {
    /// No Welcome, or something else first.
    #[error("the coordinator did not say Welcome within {} s", WELCOME_TIMEOUT.as_secs())]
    NoWelcome,
    /// A message that means nothing.
    #[error("the coordinator sent {0}")]
    Protocol(&'static str),
    /// It does not take what is sent.
    #[error("the coordinator is not accepting messages")]
    Stuck,
    /// It does not acknowledge audit.
    #[error("the coordinator has not acknowledged audit for {} s", ACK_TIMEOUT.as_secs())]
    NoAck,
}

/// What is to be done for the session.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A coordinator said Welcome.
    Connected {
        /// Its name.
        coordinator: String,
        /// The time of day by its clock, milliseconds since 1970.
        time_ms: u64,
        /// To be kept, and then said to be [held](SessionMachine::holds); empty: none.
        ticket: Bytes,
        /// This gateway's key has two users.
        twin: Option<Twin>,
        /// It may lack something of this gateway's list of withdrawn keys, which is to be given to it.
        asks_withdrawn: bool,
        /// The same of trust bundles.
        asks_trust: bool,
    },
    /// Hand this offer to the reconciler, with the order in it.
    Offer(PolicyOffer),
    /// Hand this order to the reconciler.
    Order(Order),
    /// Take this list of withdrawn keys.
    Withdrawn(WithdrawnList),
    /// Take these trust bundles.
    Trust(TrustBundles),
    /// Have the reconciler do this; answered by [`SessionMachine::obeyed`].
    Obey(Asked),
    /// Ask the trail where the upload goes on after this; answered by [`SessionMachine::resumed`].
    Resume(AuditAck),
    /// Read blocks of the trail; answered by [`SessionMachine::read`].
    Read {
        /// The first one.
        from: Position,
        /// How many at most.
        count_max: usize,
        /// Bytes of bodies at most, but for the first block.
        bytes_max: usize,
    },
    /// Report to the trail that everything before this is durable at the coordinator.
    Acknowledge(Position),
    /// Make a health report; answered by [`SessionMachine::reported`].
    Report,
}

/// What a coordinator asks of a trial.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// Its release stays.
    Confirm(ConfirmTrial),
    /// Its release goes.
    Revert(RevertTrial),
}

/// Something that is asked for, answered, and asked for again at the next look if there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Due,
    InHand,
    /// Nothing came of it: not before the next look.
    Resting,
}

/// What is known only once the coordinator said Welcome.
#[derive(Debug)]
struct Talk {
    since: Instant,
    interval: Duration,
    /// What the coordinator held of the trail when the session began.
    held: AuditAck,
    upload: Option<Upload>,
    resume: Request,
    read: Request,
    report: Request,
    report_at: Instant,
    look_at: Instant,
    ack_due: Instant,
    connected: Option<Action>,
    offer: Option<PolicyOffer>,
    order: Option<Order>,
    asked: Option<Asked>,
    /// What was asked of a trial is being done.
    obeys: bool,
    orders: Allowance,
    offers: Allowance,
    withdrawn: Option<WithdrawnList>,
    trust: Option<TrustBundles>,
    lists: Allowance,
    acknowledged: Option<Position>,
}

/// The session.
#[derive(Debug)]
pub struct SessionMachine {
    welcome_due: Instant,
    talk: Option<Talk>,
    hello: Option<Hello>,
    /// That the ticket is on the disk, and what else the welcome asked for.
    answers: VecDeque<Outbound>,
    policy: Option<PolicyState>,
    health: Option<HealthReport>,
    blocks: VecDeque<AuditBlock>,
    /// When the oldest of these has waited too long for room.
    stuck_at: Option<Instant>,
    /// Where the trail ends.
    next: Position,
    /// The kinds of faults at the last look.
    codes: Option<BTreeSet<String>>,
}

impl SessionMachine {
    /// Begins a session with this Hello, of a gateway whose trail ends before `next`.
    pub fn new(hello: Hello, next: Position, now: Instant) -> Self {
        Self {
            welcome_due: now + WELCOME_TIMEOUT,
            talk: None,
            hello: Some(hello),
            answers: VecDeque::new(),
            policy: None,
            health: None,
            blocks: VecDeque::new(),
            stuck_at: Some(now + SEND_TIMEOUT),
            next,
            codes: None,
        }
    }

    /// How long the coordinator has been talked to.
    pub fn lived(&self, now: Instant) -> Duration {
        self.talk
            .as_ref()
            .map_or(Duration::ZERO, |talk| now.saturating_duration_since(talk.since))
    }

    /// When [`Self::wake`] is due, if nothing happens before.
    pub fn deadline(&self) -> Instant {
        let own = match &self.talk {
            None => self.welcome_due,
            Some(talk) => {
                let report = (talk.report == Request::Due).then_some(talk.report_at);
                let order = talk.has_ordered().then_some(talk.orders.next);
                let offer = talk.offer.is_some().then_some(talk.offers.next);
                let waits = talk.withdrawn.is_some() || talk.trust.is_some();
                let list = waits.then_some(talk.lists.next);
                let own = [Some(talk.look_at), report, order, offer, list];
                own.into_iter().flatten().min().unwrap_or(talk.look_at)
            }
        };
        self.stuck_at.map_or(own, |stuck| stuck.min(own))
    }

    /// Time has passed; `codes` are the kinds of faults that there are now.
    ///
    /// # Errors
    /// The coordinator was silent for too long.
    pub fn wake(&mut self, now: Instant, codes: BTreeSet<String>) -> Result<(), SessionFault> {
        if self.stuck_at.is_some_and(|at| now >= at) {
            return Err(SessionFault::Stuck);
        }
        let Some(talk) = &mut self.talk else {
            return match now >= self.welcome_due {
                true => Err(SessionFault::NoWelcome),
                false => Ok(()),
            };
        };
        // A gateway that no longer does all of its part says so at once.
        if self
            .codes
            .replace(codes.clone())
            .is_some_and(|before| before != codes)
        {
            talk.report_at = now;
        }
        if now < talk.look_at {
            return Ok(());
        }
        talk.look_at = now + LOOK;
        for request in [&mut talk.resume, &mut talk.read] {
            if *request == Request::Resting {
                *request = Request::Due;
            }
        }
        if talk.upload.as_ref().is_some_and(Upload::is_waiting) && now >= talk.ack_due {
            return Err(SessionFault::NoAck);
        }
        Ok(())
    }

    /// A message came.
    ///
    /// # Errors
    /// It is not what a coordinator sends at this point.
    pub fn received(&mut self, message: Option<Inbound>, now: Instant) -> Result<(), SessionFault> {
        let Some(talk) = &mut self.talk else {
            let Some(Inbound::Welcome(welcome)) = message else {
                return Err(SessionFault::NoWelcome);
            };
            self.talk = Some(Talk::begin(welcome, now));
            return Ok(());
        };
        match message {
            Some(Inbound::Offer(offer)) => (talk.offer, talk.order) = (Some(offer), None),
            Some(Inbound::Order(order)) => talk.order = Some(order),
            Some(Inbound::Withdrawn(list)) => talk.withdrawn = Some(list),
            Some(Inbound::Trust(bundles)) => talk.trust = Some(bundles),
            Some(Inbound::Confirm(confirm)) => talk.asked = Some(Asked::Confirm(confirm)),
            Some(Inbound::Revert(revert)) => talk.asked = Some(Asked::Revert(revert)),
            Some(Inbound::AuditAck(ack)) => talk.acknowledged_by(&ack, now),
            Some(Inbound::Welcome(_)) => return Err(SessionFault::Protocol("a second Welcome")),
            None => return Err(SessionFault::Protocol("a message that this agent does not know")),
        }
        Ok(())
    }

    /// The policy's state changed; what waits of it is overtaken.
    pub fn policy_changed(&mut self, state: PolicyState, now: Instant) {
        self.policy = Some(state);
        self.expect_room(now);
    }

    /// The trail now ends before `next`.
    pub fn trail_reaches(&mut self, next: Position) {
        if let Some(talk) = self.talk.as_mut().filter(|_| next != self.next)
            && talk.read == Request::Resting
        {
            talk.read = Request::Due;
        }
        self.next = next;
    }

    /// The answer to [`Action::Resume`]. `None`: the spool is out of order for now, which does not keep offers and health from
    /// passing.
    pub fn resumed(&mut self, from: Option<Position>) {
        if let Some(talk) = &mut self.talk {
            talk.upload = from.map(Upload::new);
            talk.resume = Request::Resting;
        }
    }

    /// The answer to [`Action::Read`]. `None`: the spool is out of order for now.
    pub fn read(&mut self, blocks: Option<Vec<AuditBlock>>, now: Instant) {
        let Some(talk) = &mut self.talk else { return };
        self.blocks.extend(blocks.unwrap_or_default());
        talk.read = match self.blocks.is_empty() {
            true => Request::Resting,
            false => Request::Due,
        };
        self.expect_room(now);
    }

    /// The ticket of the welcome is on the disk.
    pub fn holds(&mut self, ticket: Bytes, now: Instant) {
        self.gives(Outbound::TicketHeld(ticket), now);
    }

    /// What the welcome asked for.
    pub fn gives(&mut self, message: Outbound, now: Instant) {
        self.answers.push_back(message);
        self.expect_room(now);
    }

    /// What [`Action::Obey`] asked for was done, or refused.
    pub fn obeyed(&mut self) {
        if let Some(talk) = &mut self.talk {
            talk.obeys = false;
        }
    }

    /// The answer to [`Action::Report`]; `random` is any number.
    pub fn reported(&mut self, report: HealthReport, now: Instant, random: u64) {
        let Some(talk) = &mut self.talk else { return };
        talk.report = Request::Due;
        talk.report_at = now + talk.interval - talk.interval / 10 + jitter(talk.interval / 5, random);
        self.health = Some(report);
        self.expect_room(now);
    }

    /// What is to be done now; to be asked until there is nothing.
    pub fn action(&mut self, now: Instant) -> Option<Action> {
        let talk = self.talk.as_mut()?;
        if let Some(connected) = talk.connected.take() {
            return Some(connected);
        }
        if talk.trust.is_some() && talk.lists.take(now) {
            return talk.trust.take().map(Action::Trust);
        }
        if talk.withdrawn.is_some() && talk.lists.take(now) {
            return talk.withdrawn.take().map(Action::Withdrawn);
        }
        if talk.offer.is_some() && talk.offers.take(now) {
            return talk.offer.take().map(Action::Offer);
        }
        if talk.has_ordered() && talk.orders.take(now) {
            // One that came behind an offer is obeyed behind it.
            if let Some(order) = talk.order.take_if(|_| talk.offer.is_none()) {
                return Some(Action::Order(order));
            }
            if let Some(asked) = talk.asked.take() {
                talk.obeys = true;
                return Some(Action::Obey(asked));
            }
        }
        if let Some(to) = talk.acknowledged.take() {
            return Some(Action::Acknowledge(to));
        }
        if talk.report == Request::Due && talk.report_at <= now {
            talk.report = Request::InHand;
            return Some(Action::Report);
        }
        let Some(upload) = &talk.upload else {
            if talk.resume != Request::Due {
                return None;
            }
            talk.resume = Request::InHand;
            return Some(Action::Resume(talk.held.clone()));
        };
        if talk.read != Request::Due || !self.blocks.is_empty() || !upload.is_behind(self.next) {
            return None;
        }
        let (from, count, bytes_max) = upload.wants()?;
        talk.read = Request::InHand;
        Some(Action::Read {
            from,
            count_max: count.min(READ_BLOCKS_MAX),
            bytes_max,
        })
    }

    /// Whether a message waits to go out.
    pub fn has_outgoing(&self) -> bool {
        let talks = self.talk.is_some();
        let small = !self.answers.is_empty() || self.policy.is_some();
        let waits = small || self.health.is_some() || !self.blocks.is_empty();
        self.hello.is_some() || (talks && waits)
    }

    /// The message that goes out now that there is room for one.
    pub fn outgoing(&mut self, now: Instant) -> Option<Outbound> {
        let message = self.first_outgoing(now);
        self.stuck_at = None;
        self.expect_room(now);
        message
    }

    fn first_outgoing(&mut self, now: Instant) -> Option<Outbound> {
        if let Some(hello) = self.hello.take() {
            return Some(Outbound::Hello(hello));
        }
        let talk = self.talk.as_mut()?;
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        if let Some(state) = self.policy.take() {
            return Some(Outbound::Policy(state));
        }
        if let Some(report) = self.health.take() {
            return Some(Outbound::Health(report));
        }
        let (block, upload) = (self.blocks.pop_front()?, talk.upload.as_mut()?);
        if !upload.is_waiting() {
            talk.ack_due = now + ACK_TIMEOUT;
        }
        upload.sent(&block);
        Some(Outbound::Audit(block))
    }

    fn expect_room(&mut self, now: Instant) {
        if self.has_outgoing() {
            self.stuck_at.get_or_insert(now + SEND_TIMEOUT);
        }
    }
}

impl Talk {
    fn begin(welcome: Welcome, now: Instant) -> Self {
        Self {
            since: now,
            interval: Duration::from_millis(u64::from(welcome.health_interval_ms))
                .clamp(REPORT_INTERVAL.0, REPORT_INTERVAL.1),
            held: welcome.audit.unwrap_or_default(),
            upload: None,
            resume: Request::Due,
            read: Request::Due,
            report: Request::Due,
            report_at: now,
            look_at: now,
            ack_due: now + ACK_TIMEOUT,
            connected: Some(Action::Connected {
                coordinator: record::bounded(&welcome.coordinator),
                time_ms: welcome.time_ms,
                ticket: welcome.ticket,
                twin: welcome.twin,
                asks_withdrawn: welcome.asks_withdrawn,
                asks_trust: welcome.asks_trust,
            }),
            offer: None,
            order: None,
            asked: None,
            obeys: false,
            orders: Allowance::full((ORDERS_AT_ONCE, ORDERS_EACH), now),
            offers: Allowance::full((OFFERS_AT_ONCE, OFFERS_EACH), now),
            withdrawn: None,
            trust: None,
            lists: Allowance::full((LISTS_AT_ONCE, LISTS_EACH), now),
            acknowledged: None,
        }
    }

    /// Whether there is something to obey.
    fn has_ordered(&self) -> bool {
        let has_order = self.order.is_some() && self.offer.is_none();
        has_order || (self.asked.is_some() && !self.obeys)
    }

    fn acknowledged_by(&mut self, ack: &AuditAck, now: Instant) {
        // Also one that says nothing new: the coordinator has no room for the trail, and lives.
        self.ack_due = now + ACK_TIMEOUT;
        if let Some(to) = self.upload.as_mut().and_then(|upload| upload.acknowledged(ack)) {
            self.acknowledged = Some(to);
        }
    }
}

#[cfg(test)]
mod tests;
