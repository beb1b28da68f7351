//! The inspector's sign of life, by which the kernel's rules tell one that works from one that only has a socket.
//!
//! A stopped or hung process keeps its listener, and the kernel goes on answering for it. So the rules hand what opens a
//! connection to the inspector only while the set `alive` has its element, which ends by itself after [`ALIVE_S`]. What
//! renews it is a datagram with the mark [`MARK_BEAT`] that the inspector's own threads send each second to this machine; the
//! rule that hears it drops it. No transaction of the packet filter is needed: it would be a change of the rules for everybody
//! who watches them, and would wait behind large ones.
//!
//! One thread that stands still is enough for no beat: connections that are handed to it would hang.
//!
//! Not here: what the rules do with it (`render`).

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use crate::intercept::{ALIVE_S, MARK_BEAT};
use crate::observed::Condition;
use socket2::{Domain, Protocol, Socket, Type};

/// The code of an inspector that stands still.
pub(crate) const STALLED: &str = "inspector-stalled";
/// How long health shows that it stood still.
const SHOWN: Duration = Duration::from_secs(3600);
/// What becomes of connections meanwhile.
const MEANWHILE: &str =
    "new connections on flows with `on_agent_loss: pass` passed unread meanwhile, and others were refused";

/// A thread that was not heard of for so long holds up the beat.
const SLOW: Duration = Duration::from_secs(5);
/// Where beats are sent: nobody is there, and none arrives where the rules are.
const TO: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9);

/// The pulse of the inspector's threads.
#[derive(Debug)]
pub struct Pulse {
    /// `None` where no rules listen.
    socket: Option<Socket>,
    /// When each thread last ticked, milliseconds of the monotonic clock; 0 before the first time.
    ticks: Vec<AtomicU64>,
    /// How often a thread stood still for longer than [`ALIVE_S`], ...
    stalls: AtomicU64,
    /// ... how long the last time, milliseconds, ...
    last_ms: AtomicU64,
    /// ... until when, milliseconds of the monotonic clock, ...
    until_ms: AtomicU64,
    /// ... and the longest of the stalls that were not told yet.
    untold_ms: AtomicU64,
    /// Why the last beat could not be sent, as the system numbers it; 0 if it was.
    unsent: AtomicI32,
}

impl Pulse {
    /// That of so many threads, in the network namespace of the calling thread. `heard` says whether rules listen.
    ///
    /// # Errors
    /// `heard` is set and the kernel gives no netlink socket for its packet filter.
    pub fn new(threads: usize, heard: bool) -> io::Result<Self> {
        Ok(Self {
            socket: heard.then(open).transpose()?,
            ticks: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            stalls: AtomicU64::new(0),
            last_ms: AtomicU64::new(0),
            until_ms: AtomicU64::new(0),
            untold_ms: AtomicU64::new(0),
            unsent: AtomicI32::new(0),
        })
    }

    /// A thread works, at this moment. Beats if all others do too.
    pub fn tick(&self, thread: usize, now: Duration) {
        let now_ms = millis(now);
        let before = self
            .ticks
            .get(thread)
            .map_or(0, |tick| tick.swap(now_ms, Ordering::Relaxed));
        let still = now_ms.saturating_sub(before);
        if before > 0 && still > u64::from(ALIVE_S) * 1000 {
            self.stalls.fetch_add(1, Ordering::Relaxed);
            self.last_ms.store(still, Ordering::Relaxed);
            self.until_ms.store(now_ms, Ordering::Relaxed);
            self.untold_ms.fetch_max(still, Ordering::Relaxed);
            tracing::warn!(
                thread,
                seconds = still / 1000,
                "the inspector stood still: {MEANWHILE}"
            );
        }
        if self.all_work(now_ms)
            && let Some(socket) = &self.socket
        {
            self.sent(socket.send_to(&[], &SocketAddr::from(TO).into()));
        }
    }

    /// What sending a beat came to. The rule that hears it drops it, which is an error here.
    fn sent(&self, outcome: io::Result<usize>) {
        let error = outcome
            .err()
            .filter(|error| error.kind() != io::ErrorKind::PermissionDenied);
        let number = error.and_then(|error| error.raw_os_error()).unwrap_or(0);
        self.unsent.store(number, Ordering::Relaxed);
    }

    /// Whether no thread stands still. One that has not begun yet does not count: the first one to tick begins.
    fn all_work(&self, now_ms: u64) -> bool {
        self.ticks.iter().all(|tick| {
            let at = tick.load(Ordering::Relaxed);
            at == 0 || now_ms.saturating_sub(at) <= millis(SLOW)
        })
    }

    /// That a thread stands still, for so long that the kernel no longer takes the inspector for alive.
    pub(crate) fn stands_still(&self, now: Duration) -> Option<Condition> {
        let now_ms = millis(now);
        let still = self
            .ticks
            .iter()
            .map(|tick| tick.load(Ordering::Relaxed))
            .filter(|at| *at > 0);
        let longest = still.map(|at| now_ms.saturating_sub(at)).max()?;
        (longest > u64::from(ALIVE_S) * 1000).then(|| {
            let message = "the inspector stands still: new connections on flows with `on_agent_loss: pass` pass unread, and \
                           others are refused"
                .to_owned();
            Condition::of_gateway(STALLED, message, true)
        })
    }

    /// That a thread stood still, and for how long; once for what came together.
    pub(crate) fn stood_still(&self) -> Option<(Condition, Duration)> {
        let still = Duration::from_millis(self.untold_ms.swap(0, Ordering::Relaxed));
        (still > Duration::ZERO).then(|| {
            let message = format!(
                "the inspector stood still for {} s (a stopped process, or a machine without processor time): {MEANWHILE}",
                still.as_secs()
            );
            (Condition::of_gateway(STALLED, message, true), still)
        })
    }

    /// What a person should know of it.
    pub fn fault(&self, now: Duration) -> Option<String> {
        let unsent = match self.unsent.load(Ordering::Relaxed) {
            0 => None,
            number => Some(format!(
                "the kernel cannot hear the inspector, so new connections are treated as without an agent (is the interface lo \
                 up?): {}",
                io::Error::from_raw_os_error(number)
            )),
        };
        let stalls = self.stalls.load(Ordering::Relaxed);
        let since_ms = millis(now).saturating_sub(self.until_ms.load(Ordering::Relaxed));
        let stood = (stalls > 0 && since_ms <= millis(SHOWN)).then(|| {
            format!(
                "the inspector stood still {stalls} times since the agent started, the last time for {} s (a stopped process, or a \
                 machine without processor time): {MEANWHILE}",
                self.last_ms.load(Ordering::Relaxed) / 1000
            )
        });
        let faults: Vec<String> = unsent.into_iter().chain(stood).collect();
        (!faults.is_empty()).then(|| faults.join("; "))
    }
}

fn open() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_mark(MARK_BEAT)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_that_cannot_be_sent_is_a_fault_until_one_is_and_one_that_a_rule_drops_is_none() {
        let pulse = Pulse::new(1, false).unwrap();
        pulse.sent(Err(io::Error::from_raw_os_error(1)));
        assert_eq!(pulse.fault(Duration::ZERO), None, "dropped, so heard");
        pulse.sent(Err(io::Error::from_raw_os_error(101)));
        let fault = pulse.fault(Duration::ZERO).unwrap();
        assert!(
            fault.contains("cannot hear the inspector") && fault.contains("unreachable"),
            "{fault}"
        );
        pulse.sent(Err(io::Error::from_raw_os_error(1)));
        assert_eq!(pulse.fault(Duration::ZERO), None);
    }

    #[test]
    fn one_thread_that_stands_still_is_enough_for_no_beat_and_is_told_when_it_goes_on() {
        let pulse = Pulse::new(2, false).unwrap();
        let at = Duration::from_secs;
        pulse.tick(0, at(100));
        assert!(pulse.all_work(millis(at(100))), "the other has not begun");
        pulse.tick(1, at(100));
        pulse.tick(0, at(106));
        assert!(!pulse.all_work(millis(at(106))));
        assert_eq!(pulse.fault(Duration::ZERO), None);
        assert_eq!(pulse.stands_still(at(115)), None);
        assert!(pulse.stands_still(at(116)).is_some(), "in health while it is so");
        assert_eq!(pulse.stood_still(), None);
        pulse.tick(1, at(131));
        pulse.tick(0, at(131));
        assert!(pulse.all_work(millis(at(131))));
        assert_eq!(pulse.stands_still(at(131)), None);
        let (condition, still) = pulse.stood_still().unwrap();
        assert_eq!(still, at(31), "the longest of both");
        assert!(condition.message.contains("31 s"), "{}", condition.message);
        assert_eq!(pulse.stood_still(), None, "told once");
        assert_eq!(pulse.fault(at(131 + 3601)), None, "and shown for an hour");
        let fault = pulse.fault(at(131)).unwrap();
        assert!(
            fault.contains("stood still 2 times") && fault.contains("25 s"),
            "{fault}"
        );
    }
}
