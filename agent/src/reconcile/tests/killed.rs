//! An agent that is killed between each two steps of a change, in each state of the machine.
//!
//! The list of states below makes the cases: a state of [`StandingState`] that is not in it does not compile, and one in which no agent was
//! killed fails. A case says how a gateway gets into its state and on; it is run once for each seam that it passes, with an agent that
//! dies there, and a next one that takes up what the disk has, in the same boot or in another.

use super::machine::{Alive, Stays, releases, revision_of};
use super::overrides::{begin, code, request, signed};
use super::trials::on_trial;
use super::*;
use crate::policy_store::journal::Upto;
use crate::reconcile::overrides::OverrideAsk;
use crate::reconcile::trial::Confirmer;

/// What happens to a gateway, one after the other.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// A release is offered, or ordered, so far: revision, how far, whether on trial.
    Offer(usize, Upto, bool),
    Order(usize, Upto),
    /// Somebody confirms it.
    Confirm(usize),
    /// Somebody takes it back.
    Revert(usize),
    /// The process does not say that it is safe, or does.
    Runs(bool),
    /// Nobody is there who could confirm, or somebody is.
    Away(bool),
    /// So many seconds pass.
    Pass(u64),
    Hold,
    Release,
    Clear(usize),
    /// Two people override what is enforced for a minute, or a code does.
    People,
    Code,
    /// All overrides end.
    End,
}
use Act::{
    Away, Clear, Code, Confirm, End as Ended, Hold as Held, Offer, Order as Ordered, Pass, People, Release,
    Revert, Runs,
};
use Upto::{Active, Shadow, Staged};

macro_rules! states {
    ($($name:ident: $pattern:pat, in: [$($acts:expr),+ $(,)?];)+) => {
        const STATES: &[(&str, &[&[Act]])] = &[$((stringify!($name), &[$(&$acts),+])),+];

        /// No state is left out: this does not compile otherwise.
        fn name_of(state: &StandingState) -> &'static str {
            match state {
                $($pattern => stringify!($name),)+
            }
        }
    };
}

states! {
    Settled: StandingState::Settled, in: [
        [Offer(1, Active, false), Offer(2, Active, false), Pass(10), Offer(3, Active, false)],
        [Offer(1, Active, false), People, Pass(70), Code, Pass(5), Code, Ended, Code],
    ];
    Staged: StandingState::Staged, in: [
        [Offer(1, Active, false), Offer(2, Staged, true), Ordered(2, Active), Confirm(2)],
        [Offer(1, Active, false), Offer(2, Active, true), Confirm(2), Offer(3, Staged, false), Pass(5), Ordered(3, Active)],
    ];
    Shadow: StandingState::Shadow(_), in: [
        [Offer(1, Active, false), Offer(2, Shadow, true), Pass(10), Ordered(2, Staged), Ordered(2, Shadow), Ordered(2, Active), Confirm(2)],
    ];
    Held: StandingState::Held(_), in: [
        [Offer(1, Active, false), Runs(true), Offer(2, Active, true), Pass(3), Runs(false), Pass(2), Confirm(2)],
        [Offer(1, Active, false), Held, Offer(2, Active, true), Pass(10), Release, Confirm(2)],
        [Offer(1, Active, false), Away(true), Offer(2, Active, true), Pass(10), Away(false), Pass(10), Confirm(2)],
    ];
    Trial: StandingState::Trial { .. }, in: [
        [Offer(1, Active, false), Offer(2, Active, true), Pass(5), Confirm(2), Offer(3, Active, true), Confirm(3)],
        [Offer(1, Active, true), Pass(5), Confirm(1)],
        [Offer(1, Active, false), People, Offer(2, Active, true), Pass(5), Confirm(2), Pass(70)],
    ];
    Reverted: StandingState::Reverted(_), in: [
        [Offer(1, Active, false), Offer(2, Active, true), Pass(61), Offer(2, Active, true)],
        [Offer(1, Active, false), Code, Offer(2, Active, true), Pass(61), Offer(2, Active, true)],
        [Offer(1, Active, false), Offer(2, Active, true), Revert(2), Offer(3, Active, true), Confirm(3)],
        [Offer(1, Active, true), Pass(61), Offer(1, Active, true)],
        [Offer(1, Active, true), Revert(1), Clear(1), Offer(1, Active, true), Confirm(1)],
    ];
}

/// Where a gateway is in the end.
#[derive(Debug, PartialEq, Eq)]
struct End {
    holds: Option<u64>,
    believed: u64,
    state: &'static str,
    reverted: Vec<u64>,
}

struct Run {
    stays: Stays,
    agent: Alive,
    /// The states in which an agent died.
    died_in: BTreeSet<&'static str>,
    seams: u64,
    /// It dies once, and the machine then with it.
    reboots: bool,
    /// What was recorded of overrides.
    trail: Vec<String>,
    /// Requests so far.
    requests: u8,
}

impl Run {
    /// Whether the agent lives on.
    fn act(&mut self, act: Act) -> bool {
        let statement = |revision: usize| releases()[revision - 1].1;
        let by = || "anna".to_owned();
        let command = |command| Occasion::Command(command, None);
        let order = |upto, tries: bool| Order {
            upto,
            trial_ms: tries.then_some(60_000),
            ..on_trial()
        };
        let occasion = match act {
            Offer(revision, upto, tries) => {
                Occasion::Offer(releases()[revision - 1].0.clone(), order(upto, tries))
            }
            Ordered(revision, upto) => Occasion::Order(statement(revision), order(upto, revision == 2)),
            Confirm(revision) => command(Command::Confirm {
                statement: statement(revision),
                by: Confirmer::Person(by()),
            }),
            Revert(revision) => command(Command::Revert {
                statement: statement(revision),
                by: by(),
                ordered: false,
            }),
            Runs(is_running) => {
                self.stays.says.lock().unwrap().is_running = is_running;
                Occasion::Tick
            }
            Away(needs_session) => {
                self.stays.says.lock().unwrap().needs_session = needs_session;
                Occasion::Tick
            }
            Pass(seconds) => return self.pass(Duration::from_secs(seconds)),
            Held => command(Command::Hold {
                by: by(),
                why: "pumps".to_owned(),
            }),
            Release => command(Command::ReleaseHold { by: by() }),
            Clear(revision) => command(Command::Clear {
                statement: statement(revision),
                by: by(),
            }),
            People => return self.overrides(None),
            Code => return self.overrides(Some(code())),
            Ended => Occasion::Override(
                OverrideAsk::End {
                    number: None,
                    by: by(),
                },
                None,
            ),
        };
        self.agent.step(occasion)
    }

    /// Whether the agent lives on. Where nothing may be overridden, or the code was used, nothing is.
    fn overrides(&mut self, code: Option<penstock_policy::overrides::Code>) -> bool {
        self.requests += 1;
        let Some(made) = self.agent.ask(request(self.requests, 60)) else {
            return false;
        };
        let Ok(form) = made else { return true };
        let people: &[_] = if code.is_some() {
            &[]
        } else {
            &[("bert", 11), ("dora", 12)]
        };
        let is_spent = self.stays.overrides().spent.len() == 1;
        let by_code = code.is_some();
        let Some(begun) = self.agent.ask(begin(signed(&form, people), code)) else {
            return false;
        };
        // What the disk calls used opens nothing.
        assert!(!(by_code && is_spent) || begun.is_err());
        true
    }

    /// What its agent recorded.
    fn hear(&mut self) {
        let recorded = self.agent.recorded();
        self.trail
            .extend(recorded.into_iter().filter(|step| step.starts_with("override-")));
    }

    /// The numbers of overrides of which the trail has this step.
    fn numbers(&self, step: &str) -> BTreeSet<&str> {
        let of_step = self.trail.iter().filter_map(|words| words.strip_prefix(step));
        of_step
            .filter_map(|words| words.split_whitespace().next())
            .collect()
    }

    /// Lets time pass, looks when it is time to, and ticks.
    fn pass(&mut self, span: Duration) -> bool {
        let until = self.stays.now().boot + span;
        while self.stays.now().boot < until {
            let left = until - self.stays.now().boot;
            let due = self.agent.due().filter(|due| *due <= left);
            pass(&self.stays.time, due.unwrap_or(left));
            let occasion = if due.is_some() {
                Occasion::Due
            } else {
                Occasion::Tick
            };
            if !self.agent.step(occasion) {
                return false;
            }
        }
        true
    }

    /// All acts, with an agent that dies after so many seams; `None`: it passes fewer.
    fn of(acts: &[Act], dies_after: Option<u64>, reboots: bool) -> Option<(Self, End)> {
        let stays = Stays::new();
        let (agent, starts) = Alive::start(&stays, dies_after);
        let mut run = Self {
            stays,
            agent,
            died_in: BTreeSet::new(),
            seams: 0,
            reboots,
            trail: Vec::new(),
            requests: 0,
        };
        let mut has_died = !starts && run.next_agent();
        for act in acts {
            if !run.act(*act) {
                assert!(!has_died, "{act:?}: it dies once");
                has_died = run.next_agent();
                // Whoever asked asks again.
                assert!(run.act(*act), "{act:?}");
            }
            run.check(*act);
        }
        let rest = Pass(130);
        if !run.act(rest) {
            assert!(!has_died, "it dies once");
            has_died = run.next_agent();
            assert!(run.act(rest));
        }
        run.check(rest);
        run.hear();
        // Each that began has ended, in the kernel, on the disk and in the trail.
        assert!(!run.stays.table.lock().unwrap().overridden);
        assert!(run.stays.overrides().lasting.is_empty());
        assert_eq!(
            run.numbers("override-began "),
            run.numbers("override-ended "),
            "{:?}",
            run.trail
        );
        let by_code: BTreeSet<_> = run
            .trail
            .iter()
            .filter(|words| words.starts_with("override-began") && words.contains("the sealed code"))
            .filter_map(|words| words.split_whitespace().nth(1))
            .collect();
        assert!(by_code.len() <= 1, "{:?}", run.trail);
        let reverted = run.stays.journal().reverted;
        let end = End {
            holds: run.stays.holds(),
            believed: run.agent.believed(),
            state: name_of(&run.agent.standing()),
            reverted: reverted.iter().map(|one| one.revision.0).collect(),
        };
        (has_died || dies_after.is_none()).then_some((run, end))
    }

    /// The agent died: another one comes, in the same boot or in the next.
    fn next_agent(&mut self) -> bool {
        self.hear();
        self.died_in.insert(name_of(&self.agent.standing()));
        self.seams += 1;
        let before = (self.agent.believed(), self.stays.journal());
        if self.reboots {
            self.stays.reboot();
        }
        let (agent, starts) = Alive::start(&self.stays, None);
        self.agent = agent;
        assert!(starts, "it dies once");
        let after = self.stays.journal();
        // What the disk knew of what was reverted, and what was believed, stays.
        assert!(self.agent.believed() >= before.0);
        let is_known = |one| after.reverted.contains(one) || after.applying.is_some();
        assert!(before.1.reverted.iter().all(is_known));
        // With no coordinator, a policy of the disk is in force at once, or there is none.
        let has_policy = self.agent.believed() > 0;
        assert!(!has_policy || self.stays.holds().is_some());
        true
    }

    /// The kernel never held what the disk did not have, and believed never is what was only tried.
    fn check(&self, act: Act) {
        let table = self.stays.table.lock().unwrap();
        for change in &table.changes {
            let names = change.journal.names().map(revision_of);
            let before = change
                .journal
                .trial
                .as_ref()
                .and_then(|trial| trial.previous.as_ref());
            let allowed = [
                names,
                change.marked.map(revision_of),
                before.map(|previous| revision_of(previous.statement)),
            ];
            // Overridden is only what the disk has, and what is not over there.
            let lasts = change.overrides.lasting.iter().any(|one| one.ended.is_none());
            assert!(lasts || !change.overridden, "{act:?}: {change:?}");
            let is_bare = change.holds == 0 && change.journal.ground.is_some();
            assert!(
                is_bare || allowed.contains(&Some(change.holds)),
                "{act:?}: {change:?}"
            );
        }
        // After each step the kernel holds what lasts, and nothing else is overridden.
        let mut lasting = self.stays.overrides().lasting.into_iter();
        assert_eq!(
            table.overridden,
            lasting.any(|one| one.ended.is_none()),
            "{act:?}"
        );
        let journal = self.stays.journal();
        if let Some(named) = journal.names().filter(|_| journal.trial.is_some()) {
            let believed = self.agent.believed();
            assert!(believed < revision_of(named), "{act:?}: r{believed}, {journal:?}");
        }
    }
}

#[test]
fn an_agent_that_is_killed_between_any_two_steps_in_any_state_is_taken_up_where_it_was() {
    let mut died_in = BTreeSet::new();
    let mut kills = 0;
    for (state, cases) in STATES {
        for acts in *cases {
            let (_, expected) = Run::of(acts, None, false).unwrap();
            for reboots in [false, true] {
                let mut seams = 0;
                while let Some((run, end)) = Run::of(acts, Some(seams), reboots) {
                    let rebooted = end.reverted.iter().any(|one| !expected.reverted.contains(one));
                    // A machine that was started again amid a trial has the policy before, and says so.
                    let allowed = reboots && rebooted && end.holds.unwrap_or(0) == end.believed;
                    assert!(
                        end == expected || allowed,
                        "{state}, killed after {seams} seams of {acts:?}: {end:?} instead of {expected:?}"
                    );
                    died_in.extend(run.died_in);
                    kills += run.seams;
                    seams += 1;
                }
                assert!(seams > 10, "{state}: {acts:?} passes {seams} seams");
            }
        }
    }
    for (state, _) in STATES {
        assert!(
            died_in.contains(state),
            "no agent was killed in {state}; in {died_in:?}"
        );
    }
    println!("{kills} kills");
}
