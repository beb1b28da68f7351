//! The pump of one inspected connection: reads what a side sends, has it judged, writes what follows to either side.
//!
//! - Bytes are read into the thread's own buffer and written from there at once; of an observed connection before they
//!   are looked at, by the same system calls as a plain copy makes. Only what a peer does not take is
//!   kept, and then nothing more is read that could add to it ([`Session::may_read`]): a slow peer costs at most one
//!   read's outcome for each direction, and slows the other side down as a direct connection would.
//! - The end of one direction is carried over; a reset, too. A quiet connection is never cut: what tells a dead peer from
//!   a quiet one is TCP keepalive, or unanswered retransmissions; then the other side is reset.
//! - Other rules take hold between two reads ([`Session::apply`]).

mod end;
mod frozen;
mod lives;
mod peer;
mod reading;
mod standing;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use penstock_inspect::connection::{Connection, ConnectionLimits, Memory, Mode, Output, Sender};
use penstock_policy::terms::Tls;
use tokio::time::Sleep;

pub(super) use self::end::ConnectionEnd;
pub(super) use self::lives::Lives;
use self::peer::Peer;
use super::handover::Each;
use super::leg::Leg;
use super::lookup::RuleSet;
use super::polling::Pace;
use super::seats::Seat;
use super::shadow::Beside;
use super::tally::Tally;
use super::tuple::Tuple;
use crate::observed::Subject;

/// One read takes so much at most.
pub(super) const READ_BYTES: usize = 16 * 1024;
/// After an orderly end by the gateway, the peers have this long to take what was sent and to end, too.
const CLOSING_MAX: Duration = Duration::from_secs(2);

/// Said of a connection that loses its seat, and goes on without one.
pub(super) const UNREAD_FROM_HERE: &str = "connection passes unread from here on: others need its seat";
/// Said of an observed stream that was lost.
const READ_AGAIN: &str = "the stream is read again from where a packet seems to begin";

/// What all connections of a thread share: its buffers, ...
#[derive(Debug)]
pub(super) struct Scratch {
    read: Box<[u8]>,
    to_client: Vec<u8>,
    to_server: Vec<u8>,
    /// ... and when any of them was last heard.
    heard: Duration,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            read: vec![0; READ_BYTES].into_boxed_slice(),
            to_client: Vec::new(),
            to_server: Vec::new(),
            heard: Duration::ZERO,
        }
    }
}

/// What becomes of the bytes.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Nearly all are judged.
pub(super) enum Inspection {
    /// They are judged.
    Following(Connection),
    /// No operation is limited.
    Passing,
}

impl Inspection {
    /// What of its client outlives the connection is known to the next one, too.
    pub(super) fn remembering(self, memory: &Arc<Memory>, tuple: &Tuple) -> Self {
        match self {
            Self::Following(connection) => {
                Self::Following(connection.remembering(memory, tuple.server, tuple.client))
            }
            Self::Passing => Self::Passing,
        }
    }
}

/// One inspected connection.
#[derive(Debug)]
pub(super) struct Session {
    /// Whose it is.
    pub tuple: Tuple,
    client_address: SocketAddr,
    client: Peer,
    server: Peer,
    inspection: Inspection,
    /// What the policy said of its TLS, if that ends here, ...
    tls: Option<Arc<Tls>>,
    /// ... and who its peers are.
    lives: Option<Box<Lives>>,
    /// No operation is limited any more: what is judged is not told.
    unlimited: bool,
    tally: Rc<RefCell<Tally>>,
    /// The next plan's judgement of it, if that is asked for.
    beside: Option<Box<Beside>>,
    /// It is being ended in order, as which end, and until when.
    closing: Option<(ConnectionEnd, Pin<Box<Sleep>>)>,
    /// To be ended in order between two packets.
    draining: bool,
    cut: Option<ConnectionEnd>,
    /// A side may have more bytes that no wake-up will announce.
    left: Each<bool>,
    /// Another process goes on with it: here nothing more happens.
    frozen: bool,
    waker: Option<Waker>,
    pace: Pace,
    seat: Seat,
}

impl Session {
    /// A connection whose legs both stand.
    pub(super) fn new(
        (client_address, tuple): (SocketAddr, Tuple),
        (client, server): (Leg, Leg),
        inspection: Inspection,
        tally: Rc<RefCell<Tally>>,
        seat: Seat,
    ) -> Self {
        Self {
            tuple,
            client_address,
            client: Peer::new(client),
            server: Peer::new(server),
            inspection,
            tls: None,
            lives: None,
            unlimited: false,
            tally,
            beside: None,
            closing: None,
            draining: false,
            cut: None,
            left: Each::default(),
            frozen: false,
            waker: None,
            pace: Pace::default(),
            seat,
        }
    }

    /// The client's leg, or both, are inside TLS that ends here, as the policy says, between these.
    pub(super) fn inside(mut self, tls: Option<Arc<Tls>>, lives: Option<Box<Lives>>) -> Self {
        (self.tls, self.lives) = (tls, lives);
        self
    }

    /// How a new connection under these rules is judged.
    pub(super) fn inspection(set: &Arc<RuleSet>, mode: Mode) -> Inspection {
        let Some(rules) = &set.rules else {
            return Inspection::Passing;
        };
        Inspection::Following(Connection::new(
            Arc::clone(rules),
            mode,
            set.on_refusal,
            ConnectionLimits::default(),
        ))
    }

    /// Carries the connection on as far as it goes.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<ConnectionEnd> {
        if self
            .waker
            .as_ref()
            .is_none_or(|waker| !waker.will_wake(cx.waker()))
        {
            self.waker = Some(cx.waker().clone());
        }
        if self.frozen {
            return Poll::Pending;
        }
        if let Poll::Ready(end) = self.seat.poll_lost(cx)
            && !self.goes_on_unread(end)
        {
            self.cut = Some(end);
        }
        loop {
            if let Some(end) = self.cut {
                self.client.leg.reset_on_close();
                self.server.leg.reset_on_close();
                return Poll::Ready(end);
            }
            if self.closing.is_some() {
                return self.poll_closing(cx, scratch);
            }
            match self.step(cx, scratch) {
                Ok(_) if self.is_over() => return Poll::Ready(ConnectionEnd::Finished),
                Ok(_) if self.draining && self.is_between_packets() => self.close_as(ConnectionEnd::Stopped),
                // Others come first, and then it goes on.
                Ok(_) if self.has_left() => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(end) => {
                    self.tell_cut_short();
                    self.cut = Some(end);
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.client.finished && self.server.finished
    }

    /// One round; whether anything moved.
    fn step(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, ConnectionEnd> {
        let mut moved = false;
        for side in [Sender::Client, Sender::Server] {
            let lost = |error| ConnectionEnd::by(side, &error);
            let other = self.peer(side.other());
            let (other_is_over, other_is_finished) = (other.over, other.finished);
            let peer = self.peer(side);
            peer.flush(cx).map_err(lost)?;
            if other_is_over && other_is_finished {
                peer.finish_last(cx).map_err(lost)?;
            } else if other_is_over {
                peer.finish(cx).map_err(lost)?;
            }
        }
        for side in [Sender::Client, Sender::Server] {
            if !self.may_read(side) {
                continue;
            }
            moved |= self.read(side, cx, scratch)?;
            if self.closing.is_some() {
                break;
            }
        }
        let held = self.held_bytes();
        self.seat.holds(held);
        Ok(moved)
    }

    fn peer(&mut self, side: Sender) -> &mut Peer {
        match side {
            Sender::Client => &mut self.client,
            Sender::Server => &mut self.server,
        }
    }

    /// Handles `count` bytes that `side` sent; 0 is its end.
    fn take(
        &mut self,
        side: Sender,
        count: usize,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), ConnectionEnd> {
        let Scratch {
            read,
            to_client,
            to_server,
            heard,
        } = scratch;
        let bytes = read.get(..count).unwrap_or_default();
        to_client.clear();
        to_server.clear();
        if count == 0 {
            self.peer(side).over = true;
        }
        let Self {
            inspection,
            client,
            server,
            tally,
            beside,
            tuple,
            pace,
            unlimited,
            seat,
            ..
        } = self;
        let now = super::now();
        pace.heard(side, now);
        *heard = now;
        let connection = match inspection {
            Inspection::Passing => {
                if count > 0 && side == Sender::Client {
                    seat.works();
                }
                let towards = match side {
                    Sender::Client => server,
                    Sender::Server => client,
                };
                return towards
                    .send(cx, bytes)
                    .map_err(|error| ConnectionEnd::by(side.other(), &error));
            }
            Inspection::Following(connection) => connection,
        };
        let at_once = connection.observes();
        let mut end = Ok(());
        let mut closed: Option<bool> = None;
        // Observing, all that came is the first output: it is on its way before anything of it is read.
        let mut send = |peer: &mut Peer, side: Sender, bytes: &[u8]| {
            if let Err(error) = peer.send(cx, bytes) {
                end = Err(ConnectionEnd::by(side, &error));
            }
        };
        let mut worked = false;
        let mut sink = |output: Output<'_>| match output {
            Output::ToServer(bytes) if at_once => send(server, Sender::Server, bytes),
            Output::ToClient(bytes) if at_once => send(client, Sender::Client, bytes),
            Output::ToServer(bytes) => to_server.extend_from_slice(bytes),
            Output::ToClient(bytes) => to_client.extend_from_slice(bytes),
            Output::Close { reset } => closed = Some(reset),
            told => {
                if let Output::Judged {
                    forwarded: true,
                    verdict,
                    ..
                } = told
                {
                    worked = true;
                    if let Some(beside) = beside {
                        beside.goes_on(verdict);
                    }
                }
                if !*unlimited {
                    tell(&mut tally.borrow_mut(), now, &told);
                }
            }
        };
        if count == 0 {
            connection.end(side, &mut sink);
        } else {
            connection.feed(side, now, bytes, &mut sink);
        }
        if worked {
            seat.works();
        }
        if !at_once {
            send(server, Sender::Server, to_server);
            send(client, Sender::Client, to_client);
        }
        if let Some(beside) = beside {
            let passed = match side {
                _ if at_once => bytes,
                Sender::Client => to_server,
                Sender::Server => to_client,
            };
            let heard = (side, passed, count == 0);
            beside.hear(heard, now, (connection, tuple), &tally.borrow());
        }
        end?;
        match closed {
            None => Ok(()),
            Some(true) => Err(ConnectionEnd::Refused),
            Some(false) => {
                self.close_as(ConnectionEnd::Refused);
                Ok(())
            }
        }
    }

    /// A side is gone: what it sent of a packet is all that there will be of it.
    fn tell_cut_short(&mut self) {
        let Inspection::Following(connection) = &mut self.inspection else {
            return;
        };
        let (now, told) = (super::now(), !self.unlimited);
        for side in [Sender::Client, Sender::Server] {
            connection.end(side, &mut |output| {
                if told {
                    tell(&mut self.tally.borrow_mut(), now, &output);
                }
            });
        }
    }

    /// Ends both sides in order: what was sent is taken first, and what they still send is heard and dropped, since
    /// closing a socket on unheard bytes would be a reset that takes back the last answer.
    fn poll_closing(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<ConnectionEnd> {
        for side in [Sender::Client, Sender::Server] {
            let peer = self.peer(side);
            let done = peer.flush(cx).and_then(|()| peer.finish(cx));
            while done.is_ok() && !peer.over {
                match peer.leg.poll_read(cx, &mut scratch.read) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(count)) => peer.over = count == 0,
                    Poll::Ready(Err(_)) => (peer.over, peer.finished) = (true, true),
                }
            }
            if done.is_err() {
                (peer.over, peer.finished) = (true, true);
            }
        }
        let over = self.is_over() && self.client.over && self.server.over;
        let Some((end, until)) = &mut self.closing else {
            return Poll::Pending;
        };
        let late = until.as_mut().poll(cx).is_ready();
        if over || late {
            Poll::Ready(*end)
        } else {
            Poll::Pending
        }
    }

    fn close_as(&mut self, end: ConnectionEnd) {
        self.closing = Some((end, Box::pin(tokio::time::sleep(CLOSING_MAX))));
    }

    fn is_between_packets(&self) -> bool {
        match &self.inspection {
            Inspection::Passing => true,
            Inspection::Following(connection) => ![Sender::Client, Sender::Server]
                .into_iter()
                .any(|side| connection.within_packet(side)),
        }
    }

    /// Whether its TLS ends here.
    pub(super) fn is_inside_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Ends it in order, between two packets.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.wake();
    }

    /// The client's address and port.
    pub(super) fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    /// Whether what comes next is worth staying awake for.
    pub(super) fn is_awaited(&self, scratch: &Scratch) -> bool {
        self.pace.is_awaited(scratch.heard, super::now)
    }

    /// Ends a half-closed connection whose other half vanished, which no read would tell.
    pub(super) fn look_after(&mut self) {
        for side in [Sender::Client, Sender::Server] {
            let peer = self.peer(side);
            if peer.over
                && let Some(error) = peer.leg.death()
            {
                self.cut = Some(ConnectionEnd::by(side, &error));
                self.wake();
            }
        }
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// Tells what is not bytes.
fn tell(tally: &mut Tally, now: Duration, output: &Output<'_>) {
    match output {
        Output::Judged {
            operation,
            verdict,
            forwarded,
        } => tally.judged(now, operation, *verdict, *forwarded),
        Output::Exception { asked, refusal } => tally.exception(now, asked, refusal),
        Output::Deviation { what, done, .. } => tally.deviates(now, what, *done),
        Output::Resynchronised { .. } => tally.note(now, Subject::Note, READ_AGAIN),
        Output::ToServer(_) | Output::ToClient(_) | Output::Close { .. } | Output::Answered { .. } => {}
    }
}

impl Drop for Session {
    /// What ends by a fault of the inspector's own is cut off in the middle: no orderly end may hide that from the peers.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.client.leg.reset_on_close();
            self.server.leg.reset_on_close();
        }
    }
}
