//! One side's connection to its broker, decided: when it is opened, when the broker hears of us, and how it ends. A pure
//! machine that the machines of both sides are built on; [`Wire`](super::Wire) is the shell that has the stream.
//!
//! ```text
//!      Connect            Opened(Ok)
//! away ───────▶ opening ────────────▶ up ── broke, silent, misbehaved ──▶ away (a wait, longer each time that nothing worked)
//! ```
//!
//! Whoever drives a side keeps three rules: its actions are done in their order; what a connection says, and what the
//! queue answers to a question, is a fact only until the next [`Action::Connect`]; and a connection that could not be
//! written to is gone, so that what else was to be sent over it goes nowhere.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use penstock_policy::text::sentence;
use penstock_proto::backoff::Backoff;

use crate::bridge::connection::ConnectionError;
use crate::bridge::packet::{self, Welcome};
use crate::bridge::report::Notice;

/// How often a broker hears of us at least.
pub const KEEP_ALIVE_S: u16 = 30;

/// Now, by the clock that never goes back and by the time of day.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For waits.
    pub instant: Instant,
    /// For what is written down and for what expires: milliseconds since 1970.
    pub ms: u64,
}

/// How a connection is left in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goodbye {
    /// The reason in DISCONNECT.
    pub reason: u8,
    /// The broker shall forget the session.
    pub forget: bool,
}

/// What happened. `O` is what only this side hears.
#[derive(Debug)]
pub enum Fact<'a, O> {
    /// The attempt at a connection came to this.
    Opened {
        /// What the broker said.
        outcome: Result<Welcome, ConnectionError>,
        /// For the wait after it.
        random: u64,
    },
    /// The broker sent this.
    Packet(packet::Incoming<'a>),
    /// One [`Action::Send`] was done: its bytes are in the connection.
    Written,
    /// The connection is no more.
    Broke(ConnectionError),
    /// The queue's task is gone.
    QueueClosed,
    /// The bridge stops.
    Stopping {
        /// It is revoked: the broker shall forget it.
        forget: bool,
    },
    /// Nothing, but it is later.
    TimePassed,
    /// What only this side hears.
    Own(O),
}

/// What is to be done. `A` is what only this side does.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<A> {
    /// A connection is to be opened.
    Connect {
        /// With a new session.
        clean_start: bool,
    },
    /// These bytes go to the broker.
    Send(Vec<u8>),
    /// The connection ends, with a goodbye or without.
    Close(Option<Goodbye>),
    /// Something for health and trail.
    Report(Notice),
    /// What only this side does.
    Own(A),
}

/// What it is time for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Another attempt.
    Connect,
    /// The broker is to hear of us.
    Ping,
    /// It has been silent for so long that it is gone.
    Silent(Duration),
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Away {
        until: Instant,
    },
    Opening {
        since: Instant,
    },
    Up {
        since: Instant,
        /// For the wait after it.
        random: u64,
        keep_alive: Duration,
        heard: Instant,
        beat: Instant,
    },
    Over,
}

/// The connection of one side.
#[derive(Debug)]
pub struct Line<A> {
    stage: Stage,
    backoff: Backoff,
    actions: VecDeque<Action<A>>,
}

impl<A> Line<A> {
    /// Without a connection, and time for one. `backoff` says how long is waited between two.
    pub fn new(now: Instant, backoff: Backoff) -> Self {
        Self {
            stage: Stage::Away { until: now },
            backoff,
            actions: VecDeque::new(),
        }
    }

    /// What is to be done next.
    pub fn action(&mut self) -> Option<Action<A>> {
        self.actions.pop_front()
    }

    /// When it is time for something again.
    pub fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Away { until } => Some(until),
            Stage::Up { beat, .. } => Some(beat),
            Stage::Opening { .. } | Stage::Over => None,
        }
    }

    /// Whether it is time for something; once for each time.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        match &mut self.stage {
            Stage::Away { until } if *until <= now => {
                self.stage = Stage::Opening { since: now };
                Some(Due::Connect)
            }
            Stage::Up {
                beat,
                keep_alive,
                heard,
                ..
            } if *beat <= now => {
                *beat = now + *keep_alive / 2;
                let silence = now.saturating_duration_since(*heard);
                let gone = silence > *keep_alive + *keep_alive / 2;
                Some(if gone { Due::Silent(silence) } else { Due::Ping })
            }
            _ => None,
        }
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Up { .. })
    }

    /// Whether a connection is being opened.
    pub fn is_opening(&self) -> bool {
        matches!(self.stage, Stage::Opening { .. })
    }

    /// Whether there shall be none any more.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// The connection stands; `random` is for the wait after it.
    pub fn opened(&mut self, now: Instant, welcome: &Welcome, random: u64) {
        let Stage::Opening { since } = self.stage else {
            return;
        };
        let seconds = match welcome.keep_alive_s {
            Some(0) | None => KEEP_ALIVE_S,
            Some(seconds) => seconds.min(KEEP_ALIVE_S),
        };
        let keep_alive = Duration::from_secs(u64::from(seconds));
        self.stage = Stage::Up {
            since,
            random,
            keep_alive,
            heard: now,
            beat: now + keep_alive / 2,
        };
    }

    /// It could not be opened.
    pub fn refused(&mut self, now: Instant, error: &ConnectionError, random: u64) {
        if let Stage::Opening { since } = self.stage {
            self.away(now, since, error, random);
        }
    }

    /// Something came from the broker, or nobody listened to it.
    pub fn heard(&mut self, now: Instant) {
        if let Stage::Up { heard, .. } = &mut self.stage {
            *heard = now;
        }
    }

    /// The connection did what it is there for: however soon it ends, the wait after it is the first.
    pub fn worked(&mut self) {
        self.backoff.worked();
    }

    /// The connection ends for this reason, which decides whether the broker hears a goodbye.
    pub fn end(&mut self, now: Instant, error: &ConnectionError) {
        let Stage::Up { since, random, .. } = self.stage else {
            return;
        };
        let reason = match error {
            ConnectionError::Misbehaved(_) | ConnectionError::Packet(_) => Some(packet::REASON_PROTOCOL),
            ConnectionError::NotTaken(_) | ConnectionError::NotRecorded => Some(packet::REASON_NORMAL),
            _ => None,
        };
        let goodbye = reason.map(|reason| Goodbye {
            reason,
            forget: false,
        });
        self.actions.push_back(Action::Close(goodbye));
        self.away(now, since, error, random);
    }

    /// There shall be no connection any more; if there is one it is left in order.
    pub fn stop(&mut self, forget: bool) {
        let goodbye = self.is_up().then_some(Goodbye {
            reason: packet::REASON_NORMAL,
            forget,
        });
        self.abandon(goodbye);
    }

    /// There shall be no connection any more, and nothing can be said about it to the broker.
    pub fn abort(&mut self) {
        self.abandon(None);
    }

    fn abandon(&mut self, goodbye: Option<Goodbye>) {
        if !self.is_over() {
            self.actions.push_back(Action::Close(goodbye));
            self.stage = Stage::Over;
        }
    }

    fn away(&mut self, now: Instant, since: Instant, error: &ConnectionError, random: u64) {
        self.report(Notice::Down(sentence(error)));
        let wait = self.backoff.ended(now.saturating_duration_since(since), random);
        self.stage = Stage::Away { until: now + wait };
    }

    /// What `write` appends goes to the broker; with what was to go anyway, if nothing is to be done between them.
    pub fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(Action::Send(bytes)) = self.actions.back_mut() {
            return write(bytes);
        }
        let mut bytes = Vec::new();
        write(&mut bytes);
        if !bytes.is_empty() {
            self.actions.push_back(Action::Send(bytes));
        }
    }

    /// Whether something is still to go to the broker.
    pub fn is_sending(&self) -> bool {
        let send = |action: &Action<A>| matches!(action, Action::Send(_));
        self.actions.iter().any(send)
    }

    /// Something for health and trail.
    pub fn report(&mut self, notice: Notice) {
        self.actions.push_back(Action::Report(notice));
    }

    /// A connection is to be opened.
    pub fn connect(&mut self, clean_start: bool) {
        self.actions.push_back(Action::Connect { clean_start });
    }

    /// What only this side does.
    pub fn own(&mut self, action: A) {
        self.actions.push_back(Action::Own(action));
    }
}
