//! A plant in one process: gateways that do as real ones would, sessions that lose, delay and repeat, a coordinator that
//! crashes before and after it stored a step, people who pause, freeze, halt and resume, a clock that jumps. All of it from one
//! number. What must never be is checked where it would happen.

mod gateways;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use penstock_policy::ids::{GatewayId, Revision};

use penstock_policy::rollout::*;

use super::super::*;

/// Numbers out of a number.
#[derive(Clone)]
pub(super) struct Lots(pub(super) u64);

impl Lots {
    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// Once in `n`.
    pub(super) fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

pub(super) fn member(name: &str, cell: &str, partner: Option<&str>) -> Member {
    Member {
        id: GatewayId::new(name).unwrap(),
        site: "works".to_owned(),
        cell: cell.to_owned(),
        labels: BTreeMap::new(),
        partner: partner.map(|partner| GatewayId::new(partner).unwrap()),
    }
}

pub(super) fn random_fleet(lots: &mut Lots) -> Fleet {
    let count = 1 + lots.below(14);
    let mut members = Vec::new();
    let mut at = 0;
    while at < count {
        let cell = format!("cell-{}", lots.below(4));
        let name = format!("gw-{at}");
        if at + 1 < count && lots.once_in(3) {
            let other = format!("gw-{}", at + 1);
            let other_cell = format!("cell-{}", lots.below(4));
            members.push(member(&name, &cell, Some(&other)));
            members.push(member(&other, &other_cell, Some(&name)));
            at += 2;
            continue;
        }
        let mut member = member(&name, &cell, None);
        if lots.once_in(6) {
            member.labels.insert(LAB_LABEL.to_owned(), "bench".to_owned());
        }
        members.push(member);
        at += 1;
    }
    Fleet::new(members).unwrap()
}

pub(super) fn random_plan(lots: &mut Lots, fleet: &Fleet) -> RolloutPlan {
    let mut plan = default_plan(fleet, lots.draw());
    plan.shadow = Span::seconds(lots.below(3) * 200);
    plan.trial = Span::seconds(120 + lots.below(300));
    plan.silence = Span::seconds(60 + lots.below(200));
    plan.patience = Span::seconds(600 + lots.below(2_000));
    plan.converge.at_once = 1 + u32::try_from(lots.below(3)).unwrap();
    if lots.once_in(2) {
        let wave = |name: &str, gateways| Wave {
            name: name.to_owned(),
            gateways,
            per_cell: 1,
            soak: Span::seconds(100),
        };
        let percent = 1 + u32::try_from(lots.below(60)).unwrap();
        plan.waves = vec![
            wave("part", Selector::Percent(percent)),
            wave("rest", Selector::All),
        ];
    }
    for wave in &mut plan.waves {
        wave.per_cell = 1 + u32::try_from(lots.below(2)).unwrap();
        wave.soak = Span::seconds(lots.below(3) * 150);
    }
    plan
}

/// What a gateway is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    Good,
    /// Activating breaks it.
    Breaks(HardEvent),
    /// It goes back by itself, for a reason that is only counted.
    Fails,
    /// Its window opens at this time of the world.
    HeldUntil(u64),
    HeldForEver,
    Refuses,
    /// It knows no trials.
    Old,
    /// A crash is reported after it was confirmed.
    Crashes,
    NeverThere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    None,
    Staged,
    Shadow { since: u64 },
    Trial { since: u64, sees: bool },
    Confirmed,
    Reverted(RevertReason),
}

#[derive(Debug, Clone, Copy)]
enum Down {
    Target(Target),
    Confirm,
    Revert,
}

#[derive(Debug, Clone)]
struct Gateway {
    nature: Nature,
    policy: Policy,
    is_linked: bool,
    down_since: u64,
    /// The last order: it is kept without a session, but by one that knows no trials.
    order: Option<Target>,
    /// It reported that it judges live traffic by the release.
    has_judged: bool,
    /// The number of the last order of this session.
    number: u64,
    down: VecDeque<Down>,
    up: VecDeque<Fact>,
}

pub(super) struct World {
    pub(super) lots: Lots,
    pub(super) machine: Rollout,
    pub(super) fleet: Arc<Fleet>,
    pub(super) plan: RolloutPlan,
    gateways: Vec<Gateway>,
    /// True time, milliseconds, and what the coordinator's clock shows.
    pub(super) time: u64,
    jump: u64,
    pub(super) frozen: bool,
    /// No more faults.
    pub(super) calm: bool,
    opened: BTreeSet<u32>,
    /// What happened, for comparing two runs.
    pub(super) trace: Vec<String>,
    trial_seconds: u64,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut lots = Lots(seed);
        let fleet = Arc::new(random_fleet(&mut lots));
        let plan = random_plan(&mut lots, &fleet);
        let faulty = 1 + lots.below(3);
        let natures = (0..fleet.len())
            .map(|_| match lots.below(20 * faulty) {
                0 => Nature::Breaks(HardEvent::MustFlowLost),
                1 => Nature::Breaks(HardEvent::Crash),
                2 => Nature::Fails,
                3 | 4 => Nature::HeldUntil(lots.below(6_000_000)),
                5 => Nature::HeldForEver,
                6 => Nature::Refuses,
                7 => Nature::Old,
                8 => Nature::Crashes,
                9 => Nature::NeverThere,
                _ => Nature::Good,
            })
            .collect();
        Self::with(lots, fleet, plan, natures)
    }

    pub(super) fn with(lots: Lots, fleet: Arc<Fleet>, plan: RolloutPlan, natures: Vec<Nature>) -> Self {
        let setup = Setup {
            revision: Revision(7),
            plan: plan.clone(),
            fleet: Arc::clone(&fleet),
            in_earlier_trial: Vec::new(),
        };
        let now = Now {
            wall_ms: 1_000_000_000,
            frozen: false,
        };
        let mut machine = Rollout::new(setup, now);
        for command in [
            Command::Simulated,
            Command::Approved { emergency: false },
            Command::Start,
        ] {
            machine.steer(now, command).unwrap();
        }
        let gateway = |nature| Gateway {
            nature,
            policy: Policy::None,
            is_linked: false,
            down_since: 0,
            order: None,
            has_judged: false,
            number: 0,
            down: VecDeque::new(),
            up: VecDeque::new(),
        };
        let trial_seconds = plan.trial.as_seconds();
        Self {
            lots,
            machine,
            gateways: natures.into_iter().map(gateway).collect(),
            fleet,
            plan,
            time: 0,
            jump: 1_000_000_000,
            frozen: false,
            calm: false,
            opened: BTreeSet::new(),
            trace: Vec::new(),
            trial_seconds,
        }
    }

    fn now(&self) -> Now {
        Now {
            wall_ms: self.time + self.jump,
            frozen: self.frozen,
        }
    }

    fn places(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.gateways.len()).unwrap()
    }

    fn gateway(&mut self, at: u32) -> &mut Gateway {
        &mut self.gateways[at as usize]
    }

    /// Some seconds of everything.
    pub(super) fn tick(&mut self) {
        self.time += 1_000 * (1 + self.lots.below(45));
        if !self.calm {
            self.trouble();
        }
        for at in self.places() {
            self.live(at);
        }
        let mut facts = Vec::new();
        for at in self.places() {
            while let Some(fact) = self.gateways[at as usize].up.front().copied() {
                if self.lots.once_in(4) {
                    break; // The rest comes later.
                }
                self.gateway(at).up.pop_front();
                let is_report = matches!(fact, Fact::Report { .. });
                if is_report && !self.calm && self.lots.once_in(8) {
                    continue;
                }
                facts.push(fact);
                if self.lots.once_in(8) {
                    facts.push(fact);
                }
            }
        }
        self.step(facts);
        for at in self.places() {
            self.obey(at);
        }
    }

    fn trouble(&mut self) {
        for at in self.places() {
            if self.gateways[at as usize].is_linked && self.lots.once_in(40) {
                self.cut(at);
            }
        }
        match self.lots.below(60) {
            0 => self.jump = self.jump.saturating_sub(self.lots.below(7_200_000)),
            1 => self.jump += self.lots.below(90_000_000),
            2 => self.frozen = !self.frozen,
            3 => self.steer(Command::Pause {
                why: "a drill".to_owned(),
            }),
            4 => self.steer(Command::Halt {
                why: "a drill".to_owned(),
            }),
            5..=12 => self.steer(Command::Resume),
            13 => {
                let at = self.lots.below(self.fleet.len() as u64);
                let gateway = self.fleet.members()[usize::try_from(at).unwrap()].id.clone();
                self.steer(Command::Skip { gateway });
            }
            14 if self.lots.once_in(6) => self.steer(Command::Pass),
            15 if self.lots.once_in(12) => self.steer(Command::Revert),
            16 if self.lots.once_in(12) => self.steer(Command::Cancel),
            17 if self.lots.once_in(12) => self.steer(Command::Supersede { by: Revision(8) }),
            18 | 19 => self.crash(),
            _ => {}
        }
    }

    /// The coordinator is killed and started: sessions end, what is not stored is gone.
    fn crash(&mut self) {
        let text = serde_json::to_string(&self.machine.record()).unwrap();
        let record: Record = serde_json::from_str(&text).unwrap();
        self.machine = Rollout::restore(record, Arc::clone(&self.fleet), self.frozen).unwrap();
        let before = self.time;
        for at in self.places() {
            self.cut(at);
            let gateway = self.gateway(at);
            gateway.up.clear();
            gateway.down_since = before;
        }
    }

    fn cut(&mut self, at: u32) {
        let time = self.time;
        let gateway = self.gateway(at);
        if gateway.is_linked {
            gateway.is_linked = false;
            gateway.down_since = time;
            gateway.down.clear();
            gateway.number = 0;
            gateway.order.take_if(|_| gateway.nature == Nature::Old);
            gateway.up.push_back(Fact::Gone { gateway: at });
        }
    }

    fn link(&mut self, at: u32) {
        let standing = self.standing(at);
        let gateway = self.gateway(at);
        gateway.is_linked = true;
        gateway.has_judged |= matches!(standing, Standing::Shadow { .. });
        if let Policy::Trial { sees, .. } = &mut gateway.policy {
            *sees = true;
        }
        gateway.up.push_back(Fact::Hello {
            gateway: at,
            keeps_order: gateway.nature != Nature::Old,
            standing,
        });
    }

    pub(super) fn steer(&mut self, command: Command) {
        let before = self.machine.clone();
        if let Ok(actions) = self.machine.steer(self.now(), command.clone()) {
            self.trace.push(format!("{} {command:?}", self.time));
            self.settle(&before, &[], actions);
        }
    }

    fn step(&mut self, facts: Vec<Fact>) {
        let before = self.machine.clone();
        let actions = self.machine.step(self.now(), facts.iter().copied());
        if !self.calm && self.lots.once_in(150) {
            // Killed before the step was stored: nothing came of it.
            self.machine = before;
            self.crash();
            return;
        }
        if !self.calm && self.lots.once_in(150) {
            // Killed after: it is stored, and its targets may have been read by nobody.
            self.check(&before, &facts);
            self.crash();
            return;
        }
        self.settle(&before, &facts, actions);
    }

    fn settle(&mut self, before: &Rollout, facts: &[Fact], actions: Vec<Action>) {
        self.check(before, facts);
        let hellos = facts.iter().filter_map(|fact| match fact {
            Fact::Hello { gateway, .. } => Some(Action::Retarget(*gateway)),
            _ => None,
        });
        for action in hellos.chain(actions).collect::<Vec<_>>() {
            match action {
                Action::Retarget(at) => self.send_target(at),
                Action::RetargetAll => self.places().for_each(|at| self.send_target(at)),
                Action::Confirm(at) => self.send(at, Down::Confirm),
                Action::Revert(at) => self.send(at, Down::Revert),
                Action::Note(Note::Unexpected(at)) => panic!("gateway {at} was not expected to activate"),
                Action::Note(note) => self.trace.push(format!("{} {note:?}", self.time)),
            }
        }
    }

    fn send_target(&mut self, at: u32) {
        let target = self.machine.target(at).unwrap();
        self.send(at, Down::Target(target));
    }

    fn send(&mut self, at: u32, message: Down) {
        let gateway = self.gateway(at);
        // A session that the coordinator does not know yet reads its target when it opens.
        let is_known = !gateway.up.iter().any(|fact| matches!(fact, Fact::Hello { .. }));
        if gateway.is_linked && is_known {
            gateway.down.push_back(message);
        }
    }

    /// What holds after each step.
    fn check(&mut self, before: &Rollout, facts: &[Fact]) {
        let machine = &self.machine;
        let mut late = 0;
        for at in self.places() {
            let (old, new) = (before.mark(at).unwrap(), machine.mark(at).unwrap());
            let target = machine.target(at).unwrap();
            if new == Mark::Opened {
                self.opened.insert(at);
            }
            let is_newly_open = old != Mark::Opened && new == Mark::Opened;
            if is_newly_open {
                assert!(!machine.is_stopped(), "gateway {at} was opened while stopped");
                self.trace.push(format!("{} {at} opened", self.time));
            }
            if target.upto == Upto::Active && machine.is_stopped() {
                assert!(
                    new == Mark::Trial || new.is_confirmed(),
                    "{at} may activate while stopped: {new:?}"
                );
            }
            let runs = match machine.stage() {
                Stage::Opening { wave, .. } | Stage::Soaking { wave, .. } => Some(wave),
                _ => None,
            };
            late += u32::from(is_newly_open && runs != Some(target.wave));
            if let Some(partner) = self.fleet.partner(at) {
                let other = machine.mark(partner).unwrap();
                let both = new.may_be_unconfirmed() && other.may_be_unconfirmed();
                assert!(
                    !both || !is_newly_open,
                    "{at} was opened beside {partner}, which is {other:?}"
                );
            }
        }
        assert!(
            late <= self.plan.converge.at_once,
            "{late} that were absent were opened at once"
        );
        let hard = facts.iter().any(|fact| {
            matches!(fact, Fact::Report { standing: Standing::Reverted(RevertReason::Hard(_)), gateway, .. }
                if before.mark(*gateway) == Some(Mark::Trial))
        });
        let carries = matches!(
            machine.stage(),
            Stage::Opening { .. } | Stage::Soaking { .. } | Stage::Converging
        );
        assert!(
            !hard || !carries || machine.halted().is_some(),
            "a hard event did not halt"
        );
        if !machine.is_over() {
            assert!(
                !machine.waits(5).is_empty(),
                "it waits in {:?} for nothing that it names",
                machine.stage()
            );
        }
    }

    /// Faults end; people let go on whatever stops.
    pub(super) fn calm_down(&mut self, ticks: usize) {
        self.calm = true;
        self.frozen = false;
        for _ in 0..ticks {
            self.steer(Command::Resume);
            self.tick();
            if self.machine.is_over() {
                break;
            }
        }
    }

    pub(super) fn has(&self, is: impl Fn(Nature) -> bool) -> bool {
        self.gateways.iter().any(|gateway| is(gateway.nature))
    }
}
