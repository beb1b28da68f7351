//! How many connections the inspector carries, and how many bytes it holds for them: bounded in all, shared, and counted
//! by what holds the seat.
//!
//! - *Seats.* While there is room, anybody gets one. An eighth is kept for flows that must flow ([`MUST_FLOW_PART`]). When all
//!   are taken, whoever holds the most by client and flow makes room for one that holds at least two fewer; of theirs the
//!   oldest connection goes on which nothing complete was asked, else the oldest. Connections of must-flows on which something was asked
//!   are never ended for a seat. Among equals only what nothing complete was asked on for [`IDLE_MAX`] makes room.
//! - *Bytes.* What a connection holds beyond what each has ([`CONNECTION_BYTES`]) is counted when it changes by
//!   [`HELD_STEP`]. Beyond [`SeatLimits::held_bytes_max`] the connection that holds the most is ended, of the client that holds the
//!   most.
//! - *Unread.* Where there is no seat and the policy lets a flow go on without the inspector, its connection is carried
//!   unread, on as many seats of their own again; but not where its client's own share is what is full. What is only observed
//!   is carried unread too, also when it loses its seat, on as many seats that it shares with no other: it ends for want of
//!   room only when these are taken as well. It holds little enough to need no count of bytes ([`UNREAD_READ_BYTES`]).
//!
//! The seats also know the ports that a client uses, which the inspector must not use in its name; and they tell health
//! what was ended for want of them (`shortage`).

mod shortage;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use penstock_policy::ids::FlowId;
use tokio::sync::oneshot;

use self::shortage::{SeatFate, Shortage};
use super::lookup::SeatClaim;
use super::session::ConnectionEnd;

/// Of the seats, one in so many is kept for flows that must flow.
const MUST_FLOW_PART: usize = 8;
/// A connection on which nothing complete was asked for so long makes room for any other.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// What is held is counted anew when it changed by so much, bytes.
const HELD_STEP: usize = 1024;
/// What a connection may take at most beside what is counted: its state, its sockets' places, [`HELD_STEP`], requests in
/// flight, bytes.
pub(super) const CONNECTION_BYTES: usize = 8 * 1024;
/// Of a connection on a seat of those that are only observed, one read takes so much at most: what a peer does not take of it is
/// within [`CONNECTION_BYTES`].
pub(super) const UNREAD_READ_BYTES: usize = 2 * 1024;

/// Bounds on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeatLimits {
    /// At once.
    pub connections_max: usize,
    /// At once of one client address.
    pub connections_per_client_max: usize,
    /// What all of them may hold of packets that are not whole, or that a peer does not take, bytes.
    pub held_bytes_max: usize,
}

impl Default for SeatLimits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_per_client_max: 2048,
            held_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// Why there is no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    /// The gateway's limit.
    #[error("the limit of {0} inspected connections is reached (inspect.connections_max in agent.toml)")]
    All(usize),
    /// The client's.
    #[error(
        "this client has reached its limit of {0} connections (inspect.connections_per_client_max in agent.toml)"
    )]
    Client(usize),
}

/// Which seats a connection may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Class {
    /// Those that are kept, too.
    MustFlow,
    /// All but those.
    Ordinary,
    /// The seats of those that are carried unread, because their flow goes on without an inspector.
    Unread,
    /// The seats of those that are carried unread, because they are only observed.
    Observed,
}

impl Class {
    fn is_inspected(self) -> bool {
        matches!(self, Self::MustFlow | Self::Ordinary)
    }
}

/// By whom seats are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Holder {
    pub(super) client: IpAddr,
    pub(super) flow: Option<FlowId>,
    pub(super) class: Class,
}

/// All seats.
#[derive(Debug)]
pub(super) struct Seats {
    limits: SeatLimits,
    taken: Mutex<SeatTable>,
}

#[derive(Debug, Default)]
struct SeatTable {
    next: u64,
    /// Of each holder, oldest first.
    by_holder: HashMap<Holder, BTreeMap<u64, TakenSeat>>,
    by_class: [usize; 4],
    clients: HashMap<IpAddr, Client>,
    bytes: usize,
    shortage: Shortage,
}

#[derive(Debug, Default)]
struct Client {
    /// The source ports of its connections.
    ports: Vec<u16>,
    /// How many of them are inspected.
    inspected: usize,
}

#[derive(Debug)]
struct TakenSeat {
    since: Duration,
    /// Something complete was asked on it.
    worked: bool,
    bytes: usize,
    end: oneshot::Sender<ConnectionEnd>,
}

/// One connection's seat; free again when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    holder: Holder,
    port: u16,
    number: u64,
    worked: bool,
    bytes: usize,
    end: Option<oneshot::Receiver<ConnectionEnd>>,
}

impl Seats {
    /// None taken.
    pub(super) fn new(limits: SeatLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            taken: Mutex::default(),
        })
    }

    fn taken_mut(&self) -> MutexGuard<'_, SeatTable> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for one more connection of `holder`, from `port`.
    fn take(self: &Arc<Self>, holder: Holder, port: u16, now: Duration) -> Result<Seat, Full> {
        let mut taken = self.taken_mut();
        let of_client = taken
            .clients
            .get(&holder.client)
            .map_or(0, |client| client.inspected);
        if holder.class.is_inspected() && of_client >= self.limits.connections_per_client_max {
            let own = |held: &Holder| held.client == holder.client && held.class.is_inspected();
            if !taken.end_idle(own, now) {
                return Err(Full::Client(of_client));
            }
        }
        if taken.is_full(holder.class, self.limits.connections_max) && !taken.make_room(&holder, now) {
            return Err(Full::All(self.limits.connections_max));
        }
        let number = taken.next;
        taken.next = taken.next.wrapping_add(1);
        let (end_in, end) = oneshot::channel();
        let held = TakenSeat {
            since: now,
            worked: false,
            bytes: 0,
            end: end_in,
        };
        taken.by_holder.entry(holder).or_default().insert(number, held);
        taken.count(holder.class, 1);
        let client = taken.clients.entry(holder.client).or_default();
        client.ports.push(port);
        client.inspected += usize::from(holder.class.is_inspected());
        Ok(Seat {
            seats: Arc::clone(self),
            holder,
            port,
            number,
            worked: false,
            bytes: 0,
            end: Some(end),
        })
    }

    /// A seat for one more connection of a client; where there is none, and the policy lets it go on without the inspector, one to
    /// be carried on unread, and why.
    pub(super) fn take_or_pass(
        self: &Arc<Self>,
        client: SocketAddr,
        claim: SeatClaim,
        now: Duration,
    ) -> Result<(Seat, Option<Full>), Full> {
        let as_class = |class| Holder {
            client: client.ip(),
            flow: claim.flow,
            class,
        };
        let holder = as_class(match claim.must_flow {
            true => Class::MustFlow,
            false => Class::Ordinary,
        });
        let full = match self.take(holder, client.port(), now) {
            Ok(seat) => return Ok((seat, None)),
            Err(full) => full,
        };
        // Nobody gets past the inspector by taking all seats of this flow, or all of a client's: that is its own doing.
        let passes = claim.pass && matches!(full, Full::All(_)) && self.held_by(&holder) == 0;
        let unread = match claim.observed {
            true => Some(Class::Observed),
            false => passes.then_some(Class::Unread),
        };
        let seat = unread.and_then(|class| self.take(as_class(class), client.port(), now).ok());
        let fate = seat.as_ref().map_or(SeatFate::Reset, |_| SeatFate::Unread);
        self.taken_mut().note(&holder, fate, now);
        seat.map(|seat| (seat, Some(full))).ok_or(full)
    }

    /// How many connections `holder` has on seats.
    fn held_by(&self, holder: &Holder) -> usize {
        self.taken_mut().by_holder.get(holder).map_or(0, BTreeMap::len)
    }

    /// Whether a client has a connection from this address and port.
    pub(super) fn is_used(&self, client: SocketAddr) -> bool {
        let taken = self.taken_mut();
        let found = taken.clients.get(&client.ip());
        found.is_some_and(|found| found.ports.contains(&client.port()))
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken_mut().by_class.iter().sum()
    }

    /// What was ended for want of seats or bytes of late.
    pub(super) fn shortage(&self, now: Duration) -> Option<Shortage> {
        self.taken_mut().shortage.lately(now)
    }
}

impl SeatTable {
    fn count(&mut self, class: Class, by: isize) {
        if let Some(count) = self.by_class.get_mut(class as usize) {
            *count = count.saturating_add_signed(by);
        }
    }

    fn is_full(&self, class: Class, most: usize) -> bool {
        let [must_flow, ordinary, unread, observed] = self.by_class;
        match class {
            Class::MustFlow => must_flow + ordinary >= most,
            Class::Ordinary => must_flow + ordinary >= most || ordinary >= most - most / MUST_FLOW_PART,
            Class::Unread => unread >= most,
            Class::Observed => observed >= most,
        }
    }

    fn note(&mut self, holder: &Holder, fate: SeatFate, now: Duration) {
        let largest = self.by_holder.iter().max_by_key(|(_, held)| held.len());
        let most = largest.map(|(most, held)| (*most, held.len()));
        self.shortage.note(holder, fate, most, now);
    }

    /// Ends the connection whose seat `holder` may have, if there is one.
    fn make_room(&mut self, holder: &Holder, now: Duration) -> bool {
        let [_, ordinary, ..] = self.by_class;
        // What must flow goes before what need not.
        let (class, at_any_rate) = match holder.class {
            Class::MustFlow if ordinary > 0 => (Class::Ordinary, true),
            class => (class, false),
        };
        let own = self.by_holder.get(holder).map_or(0, BTreeMap::len);
        let most = self
            .by_holder
            .iter()
            .filter(|(other, _)| other.class == class)
            .max_by_key(|(_, held)| held.len());
        if let Some((most, held)) = most
            && (at_any_rate || held.len() >= own + 2)
        {
            let idle = held.iter().find(|(_, held)| !held.worked);
            let victim = match class {
                Class::MustFlow => idle,
                Class::Ordinary | Class::Unread | Class::Observed => idle.or_else(|| held.first_key_value()),
            };
            if let Some((number, _)) = victim {
                let (most, number) = (*most, *number);
                return self.end(&most, number, ConnectionEnd::Crowded, now);
            }
        }
        self.end_idle(|other| other.class == class, now)
    }

    /// Ends the connection of any such holder on which nothing complete was asked for the longest, if it is long.
    fn end_idle(&mut self, of: impl Fn(&Holder) -> bool, now: Duration) -> bool {
        let idle = self.by_holder.iter().filter(|(holder, _)| of(holder));
        let oldest = idle
            .filter_map(|(holder, held)| {
                let (number, held) = held.iter().find(|(_, held)| !held.worked)?;
                (now.saturating_sub(held.since) >= IDLE_MAX).then_some((held.since, *holder, *number))
            })
            .min_by_key(|(since, ..)| *since);
        match oldest {
            Some((_, holder, number)) => self.end(&holder, number, ConnectionEnd::Crowded, now),
            None => false,
        }
    }

    /// Ends a connection; its seat is free, and what it holds is no longer counted.
    fn end(&mut self, holder: &Holder, number: u64, end: ConnectionEnd, now: Duration) -> bool {
        self.note(holder, SeatFate::of(end), now);
        let Some(held) = self.leave(holder, number) else {
            return false;
        };
        // Whoever listens no more is ending already.
        let _ = held.end.send(end);
        true
    }

    fn leave(&mut self, holder: &Holder, number: u64) -> Option<TakenSeat> {
        let of_holder = self.by_holder.get_mut(holder)?;
        let held = of_holder.remove(&number)?;
        if of_holder.is_empty() {
            self.by_holder.remove(holder);
        }
        self.count(holder.class, -1);
        self.bytes = self.bytes.saturating_sub(held.bytes);
        if holder.class.is_inspected()
            && let Some(client) = self.clients.get_mut(&holder.client)
        {
            client.inspected = client.inspected.saturating_sub(1);
        }
        Some(held)
    }

    /// Ends connections until no more is held than may be.
    fn unload(&mut self, bytes_max: usize, now: Duration) {
        while self.bytes > bytes_max {
            let mut by_client: HashMap<IpAddr, usize> = HashMap::new();
            for (holder, held) in &self.by_holder {
                *by_client.entry(holder.client).or_default() +=
                    held.values().map(|held| held.bytes).sum::<usize>();
            }
            let client = by_client.into_iter().max_by_key(|(_, bytes)| *bytes);
            let Some((client, _)) = client else { return };
            let of_client = self
                .by_holder
                .iter()
                .filter(|(holder, _)| holder.client == client);
            let heaviest = of_client
                .flat_map(|(holder, held)| held.iter().map(|(number, held)| (held.bytes, *holder, *number)))
                .max_by_key(|(bytes, ..)| *bytes);
            let Some((_, holder, number)) = heaviest else {
                return;
            };
            if !self.end(&holder, number, ConnectionEnd::Heavy, now) {
                return;
            }
        }
    }
}

impl Seat {
    /// Whether its connection is carried unread.
    pub(super) fn is_unread(&self) -> bool {
        !self.holder.class.is_inspected()
    }

    /// Whether it is one of those that are only for what is observed.
    pub(super) fn is_observed(&self) -> bool {
        self.holder.class == Class::Observed
    }

    /// A seat to carry its connection on unread, which is only observed, if there is one.
    pub(super) fn observed(&self, now: Duration) -> Option<Self> {
        if self.is_observed() {
            return None;
        }
        let holder = Holder {
            class: Class::Observed,
            ..self.holder
        };
        let mut seat = self.seats.take(holder, self.port, now).ok()?;
        if self.worked {
            seat.works();
        }
        Some(seat)
    }

    /// The same for one that was just lost, which then is none that was ended.
    pub(super) fn observed_instead(&self, end: ConnectionEnd, now: Duration) -> Option<Self> {
        let seat = self.observed(now)?;
        let mut taken = self.seats.taken_mut();
        taken.shortage.spared(SeatFate::of(end));
        taken.note(&self.holder, SeatFate::Unread, now);
        drop(taken);
        Some(seat)
    }

    /// Something complete was asked on its connection.
    pub(super) fn works(&mut self) {
        if std::mem::replace(&mut self.worked, true) {
            return;
        }
        self.update(|held| held.worked = true);
    }

    /// Its connection holds so many bytes now.
    pub(super) fn holds(&mut self, bytes: usize) {
        if self.is_observed() || bytes.abs_diff(self.bytes) < HELD_STEP {
            return;
        }
        self.bytes = bytes;
        let mut taken = self.seats.taken_mut();
        let of_holder = taken.by_holder.get_mut(&self.holder);
        let Some(held) = of_holder.and_then(|held| held.get_mut(&self.number)) else {
            return;
        };
        let before = std::mem::replace(&mut held.bytes, bytes);
        taken.bytes = taken.bytes.saturating_sub(before).saturating_add(bytes);
        if taken.bytes > self.seats.limits.held_bytes_max {
            taken.unload(self.seats.limits.held_bytes_max, super::now());
        }
    }

    fn update(&self, change: impl FnOnce(&mut TakenSeat)) {
        let mut taken = self.seats.taken_mut();
        let of_holder = taken.by_holder.get_mut(&self.holder);
        if let Some(held) = of_holder.and_then(|held| held.get_mut(&self.number)) {
            change(held);
        }
    }

    /// Ready once, when the seat or what its connection holds is wanted by others.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        let Some(end) = &mut self.end else {
            return Poll::Pending;
        };
        let Poll::Ready(lost) = Pin::new(end).poll(cx) else {
            return Poll::Pending;
        };
        self.end = None;
        lost.map_or(Poll::Pending, Poll::Ready)
    }

    /// Waits until it is lost.
    pub(super) async fn lost(&mut self) -> ConnectionEnd {
        std::future::poll_fn(|cx| self.poll_lost(cx)).await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken_mut();
        // Nothing is left of one that was lost but its port.
        drop(taken.leave(&self.holder, self.number));
        if let Some(client) = taken.clients.get_mut(&self.holder.client) {
            if let Some(place) = client.ports.iter().position(|port| *port == self.port) {
                client.ports.swap_remove(place);
            }
            if client.ports.is_empty() {
                taken.clients.remove(&self.holder.client);
            }
        }
    }
}

#[cfg(test)]
mod tests;
