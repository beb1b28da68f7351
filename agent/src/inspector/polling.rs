//! When a thread stays awake for what comes next on a connection.
//!
//! To sleep and be woken by a packet costs an interrupt, and tens of microseconds where the processor was halted: as
//! much as a quick server, or a client that reads one block after another, takes for its whole turn. So a thread looks
//! for that turn without sleeping, for [`WINDOW`] at most, if the same side took its last one within that time. This is
//! what hypervisors do before they halt a processor (KVM's `halt_poll_ns`).
//!
//! It bounds itself. A side that takes longer, as controllers and serial gateways do, is never awaited so, and one that
//! becomes slow, or ends a burst, costs one window. Where the sides do not take turns ([`TURNS_MIN`]) there is a stream: what
//! comes is better taken in larger pieces, and nothing is awaited. A thread stays awake for one connection at a time,
//! the one that it heard last; all others, and every other program that has work, come first.
//!
//! Where other programs want the processor all the time, to let them come first costs whole slices of it, milliseconds each;
//! who sleeps instead is woken ahead of them. So a thread whose processor is not given back within [`WINDOW`] sleeps as
//! others do, and tries again seldom ([`Contention`]).

use std::cell::Cell;
use std::pin::pin;
use std::task::Context;
use std::time::Duration;

use penstock_inspect::connection::Sender;

/// The longest that is waited without sleeping.
const WINDOW: Duration = Duration::from_micros(100);
/// The sides must have taken so many turns, one after the other, before any is awaited.
const TURNS_MIN: u8 = 8;

/// How long a thread sleeps as others do after its processor was wanted by another program, at first and at most.
const REST_MIN: Duration = Duration::from_millis(100);
const REST_MAX: Duration = Duration::from_secs(10);

/// How quickly the sides of a connection take their turns. Times are of the monotonic clock.
#[derive(Debug)]
pub(super) struct Pace {
    /// When anything was last heard.
    heard: Duration,
    /// Whose turn it is.
    next: Sender,
    /// Turns since a side last spoke twice.
    turns: u8,
    /// Whether the client's last turn was quick, and the server's.
    client_is_quick: bool,
    server_is_quick: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            heard: Duration::ZERO,
            next: Sender::Client,
            turns: 0,
            client_is_quick: false,
            server_is_quick: false,
        }
    }
}

impl Pace {
    /// A side sent something: next is the other one's turn.
    pub(super) fn heard(&mut self, side: Sender, now: Duration) {
        self.turns = match side == self.next {
            true => self.turns.saturating_add(1),
            false => 0,
        };
        let is_quick = self.is_within_window(now);
        match side {
            Sender::Client => self.client_is_quick = is_quick,
            Sender::Server => self.server_is_quick = is_quick,
        }
        (self.next, self.heard) = (side.other(), now);
    }

    /// Whether the next turn is worth staying awake for, in a thread that `last` heard anything then.
    pub(super) fn is_awaited(&self, last: Duration, now: impl FnOnce() -> Duration) -> bool {
        let is_quick = match self.next {
            Sender::Client => self.client_is_quick,
            Sender::Server => self.server_is_quick,
        };
        is_quick && self.turns >= TURNS_MIN && self.heard == last && self.is_within_window(now())
    }

    fn is_within_window(&self, now: Duration) -> bool {
        now.saturating_sub(self.heard) < WINDOW
    }
}

/// Whether other programs want the processor of a thread. Times are of the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contention {
    /// Until when the thread does not stay awake, ...
    until: Duration,
    /// ... and how long it will not the next time.
    rest: Duration,
}

impl Default for Contention {
    fn default() -> Self {
        Self {
            until: Duration::ZERO,
            rest: REST_MIN,
        }
    }
}

impl Contention {
    /// The thread offered its processor to others, and had it back then.
    fn offered(&mut self, at: Duration, back: Duration) {
        if back.saturating_sub(at) >= WINDOW {
            self.until = back.saturating_add(self.rest);
            self.rest = self.rest.saturating_mul(2).min(REST_MAX);
        } else if at >= self.until.saturating_add(self.rest) {
            self.rest = REST_MIN;
        }
    }

    fn is_over(&self, now: Duration) -> bool {
        now >= self.until
    }
}

/// Has the task polled again as soon as the thread has looked for packets, without sleeping. Whatever else wants the
/// processor comes first: it may be what the turn is waiting for.
pub(super) fn stay_awake(cx: &mut Context<'_>, contention: &Cell<Contention>, now: impl Fn() -> Duration) {
    let at = now();
    let mut known = contention.get();
    if !known.is_over(at) {
        return;
    }
    std::thread::yield_now();
    known.offered(at, now());
    contention.set(known);
    // What it leaves behind when it is first polled is all that is wanted of it.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

#[cfg(test)]
mod tests;
