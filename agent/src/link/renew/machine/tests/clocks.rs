//! The gateway's clock jumps, the gateway is dark for months, and it comes back by itself: the renewal machine and what is known of the time
//! are the real ones; the link and a coordinator whose clock is right are as short as can be.

use penstock_proto::tls::times;

use super::*;
use crate::known_time::{Known, TimeSource};
use crate::timepiece::Time;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
/// When the plant's authority began.
const BEGAN_MS: u64 = 1_796_000_000_000;
const LIFE_MS: u64 = 90 * DAY_MS;
const GRACE_MS: u64 = 400 * DAY_MS;
/// Until when the coordinator's own certificate is good, at least.
const COORDINATOR_MS: u64 = 20 * DAY_MS;
/// Between two attempts of the link, at most.
const ATTEMPT: Duration = Duration::from_secs(30);
/// After this long beside a coordinator a gateway has its session.
const BACK_MS: u64 = 5 * MINUTE_MS;

/// Where the gateway's clock stands.
#[derive(Debug, Clone, Copy)]
enum Clock {
    /// It begins in 1970, and was started so long ago.
    Begun,
    Behind(u64),
    Ahead(u64),
}

/// Dark for so many days, then beside a coordinator for so many minutes; by these clocks, the second from the middle on.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    dark_days: u64,
    minutes: u64,
    clocks: [Clock; 2],
}

fn clock() -> impl Strategy<Value = Clock> {
    prop_oneof![
        Just(Clock::Begun),
        Just(Clock::Behind(0)),
        (0..1000 * DAY_MS).prop_map(Clock::Behind),
        (0..COORDINATOR_MS).prop_map(Clock::Ahead),
    ]
}

fn stretch() -> impl Strategy<Value = Stretch> {
    (0..300u64, 20..200u64, clock(), clock()).prop_map(|(dark_days, minutes, first, then)| Stretch {
        dark_days,
        minutes,
        clocks: [first, then],
    })
}

struct Gateway {
    machine: RenewalMachine,
    known: Known,
    /// The clock of the boot.
    now: Instant,
    began: Instant,
    boot: u32,
    right_ms: u64,
    clock: Clock,
    /// In the order in which they were issued.
    held: Vec<(u64, u64)>,
    /// Until when the session stands, by the certificate that opened it.
    session_ms: Option<u64>,
    attempt_at: Instant,
    asked: u64,
}

impl Gateway {
    fn time(&self) -> Time {
        let boot = self.now - self.began;
        Time {
            wall_ms: match self.clock {
                Clock::Begun => boot.as_millis() as u64,
                Clock::Behind(by) => self.right_ms - by,
                Clock::Ahead(by) => self.right_ms + by,
            },
            synchronised: false,
            boot,
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            now: self.now,
            time_ms: self.known.now_ms(self.time()),
            random: self.right_ms,
        }
    }

    /// The certificates in the order in which they are shown.
    fn shown(&self) -> Vec<(u64, u64)> {
        let order = times::order(&self.held, self.moment().time_ms);
        order.into_iter().map(|index| self.held[index]).collect()
    }

    fn facts(&self) -> CertificateFacts {
        CertificateFacts {
            validity_ms: self.shown().first().copied(),
            newest_until_ms: self.held.last().unwrap().1,
            missing: ServerNames::default(),
        }
    }

    /// Whether the coordinator's certificate passes here, and ours there.
    fn handshake(&self, (from, until): (u64, u64)) -> bool {
        let here = self.moment().time_ms;
        here >= BEGAN_MS
            && self.time().wall_ms <= self.right_ms + COORDINATOR_MS
            && from <= self.right_ms
            && self.right_ms <= until + GRACE_MS
    }

    fn attempt(&mut self) {
        self.attempt_at = self.now + ATTEMPT;
        let mut ended_ms = None;
        for span in self.shown() {
            if ended_ms.is_some_and(|ended| span.1 <= ended) || !self.handshake(span) {
                continue;
            }
            if self.right_ms <= span.1 {
                self.session_ms = Some(span.1);
                let time = self.time();
                assert!(
                    self.known
                        .heard(self.right_ms, span, (&self.boot.to_string(), time))
                );
                return;
            }
            ended_ms = Some(span.1);
        }
        if ended_ms.is_some() {
            self.machine.ended();
        }
    }

    fn look(&mut self) {
        if !self.machine.look(&self.facts(), self.moment()) {
            return;
        }
        self.asked += 1;
        if self.shown().into_iter().any(|span| self.handshake(span)) {
            self.held
                .push((self.right_ms - 5 * MINUTE_MS, self.right_ms + LIFE_MS));
            self.machine.renewed(&self.facts(), self.moment());
            // A new identity: the link looks at it at once.
            (self.session_ms, self.attempt_at) = (None, self.now);
        } else {
            self.machine.failed("no coordinator", self.moment());
        }
    }

    /// Time passes beside a coordinator.
    fn live(&mut self, minutes: u64) {
        let until = self.right_ms + minutes * MINUTE_MS;
        while self.right_ms < until {
            if self.session_ms.is_some_and(|end| end < self.right_ms) {
                (self.session_ms, self.attempt_at) = (None, self.now);
            }
            if self.session_ms.is_none() && self.attempt_at <= self.now {
                self.attempt();
            }
            if self.machine.deadline() <= self.now {
                self.look();
            }
            let next = self.machine.deadline().max(self.now + Duration::from_millis(1));
            let next = next.min(self.now + ATTEMPT);
            self.right_ms += (next - self.now).as_millis() as u64;
            self.now = next;
        }
    }

    fn restart(&mut self, after_ms: u64) {
        self.right_ms += after_ms;
        (self.began, self.boot, self.session_ms, self.attempt_at) = (self.now, self.boot + 1, None, self.now);
        self.machine = RenewalMachine::new(self.moment());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]
    #[test]
    fn however_long_a_gateway_is_dark_and_however_its_clock_jumps_it_has_a_session_soon_after_there_is_a_coordinator(
        stretches in prop::collection::vec(stretch(), 1..6),
    ) {
        let now = Instant::now();
        let mut known = Known::default();
        known.believe(BEGAN_MS, TimeSource::Authority);
        let right_ms = BEGAN_MS + 1_001 * DAY_MS;
        let at = Moment { now, time_ms: right_ms, random: 3 };
        let mut gateway = Gateway {
            machine: RenewalMachine::new(at),
            known,
            now,
            began: now,
            boot: 0,
            right_ms,
            clock: Clock::Behind(0),
            held: vec![(right_ms - 5 * MINUTE_MS, right_ms + LIFE_MS)],
            session_ms: None,
            attempt_at: now,
            asked: 0,
        };
        for stretch in stretches {
            gateway.clock = stretch.clocks[0];
            gateway.restart(stretch.dark_days * DAY_MS);
            gateway.asked = 0;
            gateway.live(BACK_MS / MINUTE_MS);
            prop_assert!(gateway.session_ms.is_some(), "dark for {} days, by {:?}: {:?}", stretch.dark_days, gateway.clock, gateway.held);
            gateway.live(stretch.minutes / 2);
            gateway.clock = stretch.clocks[1];
            gateway.live(stretch.minutes / 2 + 1);
            prop_assert!(gateway.session_ms.is_some(), "by {:?}: {:?}", gateway.clock, gateway.held);
            // And it does not wear the coordinator out.
            prop_assert!(gateway.asked <= 3 + stretch.minutes / 30, "{} times in {} min", gateway.asked, stretch.minutes);
        }
    }
}
