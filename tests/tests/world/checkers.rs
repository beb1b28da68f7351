//! What must be so in every world, judged from what kernels, disks and the coordinator's store hold; what the machines say of
//! themselves is only held against that.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use penstock_agent::audit::Position;
use penstock_agent::policy_store::journal::Journal;
use penstock_agent::reconcile::StandingState;
use penstock_proto::v1::{AuditEvent, audit_event::Kind};

use super::coordinator::Coordinator;
use super::disk::Disk;
use super::gateway::Gateway;
use super::kernel::{KernelChange, Table};
use super::plant;
use super::site;

/// As the agent writes it where an older policy takes the place of a newer one.
const REVERT: &str = "the newer policy could not be put in force";

/// How long what an agent does about a grant takes at most, with all its seams.
const SLOW: Duration = Duration::from_millis(1500);
/// How long after a kernel took no change it has heard of everything again.
const REFUSING: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Watched {
    /// Changes of the kernel that were judged.
    judged: usize,
    /// The revision that the kernel held last.
    held: u64,
    /// The highest one that the kernel refused since the agent started.
    refused: u64,
    /// Reverts that are yet to be recorded.
    unrecorded: Vec<u64>,
    /// What is believed on the disk, as it was last, and its floor.
    trust: Vec<u8>,
    floor: u64,
    /// The highest revision that the disk ever named as in force.
    noted: u64,
    /// The conduit of grants was judged until then, and whether it passed.
    granted: (Duration, bool),
    /// The kernel refused to change last.
    refused_at: Option<Duration>,
    /// The revision that the journal names as about to be in the kernel.
    named: u64,
    /// What happened to it last, for whoever reads of a failure.
    story: VecDeque<String>,
    /// Revisions that the journal has as on trial, or had and did not confirm.
    tried: BTreeSet<u64>,
    /// Those that it has as reverted.
    reverted: BTreeSet<u64>,
}

/// How much of that is kept.
const STORY_MAX: usize = 60;

impl Watched {
    fn tell(&mut self, what: String) {
        if self.story.len() >= STORY_MAX {
            self.story.pop_front();
        }
        self.story.push_back(what);
    }
}

/// One for each world.
#[derive(Debug)]
pub(crate) struct Checkers {
    gateways: Vec<Watched>,
    pub(crate) reverts: u64,
    /// Trials that began, were confirmed, and were reverted.
    pub(crate) trials: (u64, u64, u64),
    /// First policies that went again.
    pub(crate) withdrawn: u64,
    /// How long conduits passed that grants open.
    pub(crate) granted: Duration,
}

impl Checkers {
    pub(crate) fn new() -> Self {
        Self {
            gateways: (0..plant::GATEWAYS).map(|_| Watched::default()).collect(),
            reverts: 0,
            trials: (0, 0, 0),
            withdrawn: 0,
            granted: Duration::ZERO,
        }
    }

    /// What happened last to the gateway that `failure` names.
    pub(crate) fn story(&self, failure: &str) -> String {
        let named = |index: &usize| failure.contains(&format!("gateway {index}"));
        let mut indexes = 0..self.gateways.len();
        let story = indexes.find(named).map(|index| &self.gateways[index].story);
        story
            .into_iter()
            .flatten()
            .map(|what| format!("\n  {what}"))
            .collect()
    }

    /// Never opened: a kernel holds what was signed for it, under its own number. Never back: but by a revert, since the newer
    /// policy failed. What is believed on the disk never sinks.
    pub(crate) fn enforced(
        &mut self,
        index: usize,
        table: &mut Table,
        disk: &Disk,
        (tries, now, in_session_at): (bool, Duration, Duration),
    ) -> Result<(), String> {
        let watched = &mut self.gateways[index];
        let known = watched.reverted.clone();
        if let Some(bytes) = disk.record("trial") {
            let journal: Journal = serde_json::from_slice(bytes).unwrap();
            let named = journal.applying.as_ref().map_or(0, |applying| applying.floor.0);
            // Also one that was named before, and was not any more meanwhile.
            if named > watched.named {
                let was_open = [now, now.saturating_sub(SLOW)]
                    .into_iter()
                    .any(|at| site::may_change(index, at));
                if tries && !was_open {
                    return Err(format!(
                        "window: gateway {index} is about to change to r{named} at {now:?}"
                    ));
                }
            }
            let is_on_trial = journal.trial.is_some();
            if named > watched.named && is_on_trial && in_session_at + SLOW < now {
                return Err(format!(
                    "session: at {now:?} gateway {index} begins a trial of r{named} that nobody can confirm; its last session stood at \
                     {in_session_at:?}"
                ));
            }
            watched.named = named;
            if is_on_trial && watched.tried.insert(named) {
                self.trials.0 += 1;
            }
            let reverted: BTreeSet<_> = journal
                .reverted
                .iter()
                .map(|reverted| reverted.revision.0)
                .collect();
            self.trials.2 += reverted.difference(&watched.reverted).count() as u64;
            watched.reverted.extend(reverted);
            if !is_on_trial && !watched.reverted.contains(&named) && watched.tried.remove(&named) {
                self.trials.1 += 1;
            }
        }
        for change in &table.changes[watched.judged..] {
            watched.tell(match change {
                KernelChange::Holds(_, revision) => format!("{now:?}: the kernel holds r{revision}"),
                KernelChange::HoldsUnknown(_, revision) => format!("{now:?}: unseen, it holds r{revision}"),
                other => format!("{now:?}: {other:?}"),
            });
            match change {
                // What came to its end unseen is judged as all others are; that it is recorded is owed once it is known.
                KernelChange::HoldsUnknown(_, revision) if *revision < watched.held => {}
                KernelChange::Holds(plan, revision) | KernelChange::HoldsUnknown(plan, revision) => {
                    if plant::revision_of(index, plan) != Some(*revision) {
                        return Err(format!(
                            "opened: gateway {index} holds as r{revision} what nobody signed as that"
                        ));
                    }
                    // While the kernel takes no other policy, conduits of this one still open and close.
                    if known.contains(revision) && *revision != watched.held {
                        return Err(format!(
                            "trial: gateway {index} holds r{revision} again, which was reverted"
                        ));
                    }
                    if *revision < watched.floor {
                        return Err(format!(
                            "floor: gateway {index} holds r{revision} and believes r{}",
                            watched.floor
                        ));
                    }
                    if *revision < watched.held && watched.tried.contains(&watched.held) {
                        // The way back from a trial, which the journal has.
                    } else if *revision < watched.held {
                        if watched.refused < watched.held {
                            return Err(format!(
                                "back: gateway {index} held r{} and went back to r{revision}, though nothing newer failed",
                                watched.held
                            ));
                        }
                        watched.unrecorded.push(*revision);
                        self.reverts += 1;
                    }
                    watched.held = *revision;
                }
                KernelChange::Withdrawn => {
                    if watched.floor > 0 || watched.noted > 0 {
                        return Err(format!("trial: gateway {index} has no policy, and believed one"));
                    }
                    watched.held = 0;
                    self.withdrawn += 1;
                }
                KernelChange::Refused(revision) => watched.refused = watched.refused.max(*revision),
                KernelChange::Started => watched.refused = 0,
                KernelChange::Booted => {}
            }
        }
        watched.judged = table.changes.len();
        let named = disk.record("effective").and_then(plant::revision_named);
        watched.noted = watched.noted.max(named.unwrap_or_default());
        let Some(bytes) = disk.record("trust") else {
            return Ok(());
        };
        if bytes == watched.trust {
            return Ok(());
        }
        watched.trust = bytes.to_vec();
        let floor = plant::floor_named(bytes);
        if floor < watched.floor {
            return Err(format!(
                "floor: gateway {index} believed r{} and now r{}",
                watched.floor, floor
            ));
        }
        watched.floor = floor;
        Ok(())
    }

    /// Never open outside a span of the policy in force: the one that the kernel holds, or, until the next one is noted, the one
    /// before, whose ends the kernel may still have. Nor opened by a clock that is known to be wrong. A kernel that takes no change
    /// cannot be told either of a shorter grant.
    pub(crate) fn granted(&mut self, gateway: &Gateway, now: Duration) -> Result<(), String> {
        let (index, watched) = (gateway.index, &mut self.gateways[gateway.index]);
        let kernel = gateway.kernel.lock().unwrap();
        if kernel.refuses(now) {
            watched.refused_at = Some(now);
        }
        let (from, passed) = watched.granted;
        let until = kernel.passes_until().filter(|until| *until > from);
        watched.granted = (now, until.is_some_and(|until| until > now));
        let Some(until) = until else { return Ok(()) };
        if !passed {
            let (since, until, _) = gateway.clock_wrong;
            if since + SLOW <= from && from < until {
                return Err(format!(
                    "granted: gateway {index} opened a conduit at {from:?} by a clock that was wrong since {since:?}"
                ));
            }
        }
        let until = until.min(now);
        self.granted += until - from;
        let disk = gateway.disk.lock().unwrap();
        let noted = disk.record("effective").and_then(plant::revision_named);
        let held = kernel.table.as_ref().map(|(_, revision)| *revision);
        let revisions = [held, noted].into_iter().flatten();
        let is_covered = |at: Duration| {
            let mut spans = revisions.clone().flat_map(plant::spans);
            spans.any(|(begin, end)| begin <= at && at <= end + SLOW)
        };
        let excused = watched
            .refused_at
            .is_some_and(|refused| from <= refused + REFUSING);
        // Spans are longer than what happens between two moments in which an agent lives.
        if excused || (is_covered(from) && is_covered(until)) {
            return Ok(());
        }
        Err(format!(
            "granted: gateway {index} lets a conduit pass from {from:?} until {until:?}, outside the spans of r{held:?}, noted r{noted:?}"
        ))
    }

    /// An event became durable.
    pub(crate) fn recorded(&mut self, index: usize, event: &AuditEvent) {
        match &event.kind {
            Some(Kind::Policy(policy)) => self.gateways[index].tell(format!(
                "recorded: {} r{} {}",
                policy.step, policy.revision, policy.message
            )),
            Some(Kind::Agent(agent)) => {
                self.gateways[index].tell(format!("recorded: {} {}", agent.step, agent.message));
            }
            _ => {}
        }
        if let Some(Kind::Policy(policy)) = &event.kind
            && policy.step == "effective"
            && policy.message == REVERT
        {
            let unrecorded = &mut self.gateways[index].unrecorded;
            unrecorded.retain(|revision| *revision != policy.revision);
        }
    }

    /// A step of the reconciler is over, and what it recorded is durable.
    pub(crate) fn step_done(&self, index: usize) -> Result<(), String> {
        let unrecorded = &self.gateways[index].unrecorded;
        match unrecorded.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "back: gateway {index} went back to {unrecorded:?}, and no event says so"
            )),
        }
    }

    /// What an agent reports as believed, once it knows, is not below what its disk says.
    pub(crate) fn believes(&self, index: usize, trusted: Option<u64>) -> Result<(), String> {
        let floor = self.gateways[index].floor;
        match trusted.is_none_or(|trusted| trusted >= floor) {
            true => Ok(()),
            false => Err(format!(
                "floor: gateway {index} reports {trusted:?}, and its disk says r{floor}"
            )),
        }
    }

    /// An agent whose kernel and disk work has put in force at its start what the disk has, with no coordinator needed.
    pub(crate) fn stands(&self, index: usize, table: &Table) -> Result<(), String> {
        let watched = &self.gateways[index];
        let held = table.table.as_ref().map_or(0, |(_, revision)| *revision);
        match held >= watched.noted {
            true => Ok(()),
            false => Err(format!(
                "stands: gateway {index} noted r{}, and after a start its kernel holds r{held}",
                watched.noted
            )),
        }
    }

    /// The agent died: what it had not recorded yet it cannot.
    pub(crate) fn died(&mut self, index: usize) {
        self.gateways[index].tell("the agent died".to_owned());
        self.gateways[index].unrecorded.clear();
    }

    /// What a gateway gives up, the coordinator has.
    pub(crate) fn acknowledged(
        &self,
        index: usize,
        to: Position,
        coordinator: &Coordinator,
    ) -> Result<(), String> {
        let held = coordinator.trails[index]
            .head
            .map_or((0, 0), |head| (head.epoch, head.next_sequence));
        match (to.epoch, to.sequence) <= held {
            true => Ok(()),
            false => Err(format!(
                "lost: gateway {index} gives up what is before {to:?}, and the coordinator holds up to {held:?}"
            )),
        }
    }

    /// When the faults are over and some time has passed, everything is where it should be.
    pub(crate) fn converged(&self, gateway: &Gateway, coordinator: &Coordinator) -> Result<(), String> {
        let (index, wanted) = (gateway.index, coordinator.current);
        let view = gateway.view().ok_or("converges: no agent")?;
        let held = gateway
            .kernel
            .lock()
            .unwrap()
            .table
            .as_ref()
            .map(|(_, revision)| *revision);
        if held != Some(wanted) {
            return Err(format!(
                "converges: the kernel of gateway {index} holds {held:?} instead of r{wanted}; {:?}, {:?}, {:?}",
                view.state, view.faults, coordinator.facts[index]
            ));
        }
        let Watched { noted, floor, .. } = self.gateways[index];
        if let StandingState::Trial { .. } | StandingState::Held(_) = view.standing.state {
            return Err(format!(
                "converges: gateway {index} stands at {:?}",
                view.standing
            ));
        }
        if (noted, floor) != (wanted, wanted) {
            return Err(format!(
                "converges: the disk of gateway {index} notes r{noted} and believes r{floor} instead of r{wanted}"
            ));
        }
        let revision =
            |mark: &Option<penstock_proto::v1::RevisionDigest>| mark.as_ref().map(|mark| mark.revision);
        let state = &view.state;
        if revision(&state.effective) != Some(wanted)
            || state.staged.is_some()
            || state.refused.is_some()
            || !view.faults.is_empty()
        {
            return Err(format!(
                "converges: gateway {index} shows {state:?}, {:?}",
                view.faults
            ));
        }
        let facts = &coordinator.facts[index];
        let heard = facts.effective.map(|mark| mark.revision.0);
        if heard != Some(wanted) || !gateway.is_connected() || facts.trail_fault.is_some() {
            return Err(format!(
                "converges: what the coordinator knows of gateway {index}: {facts:?}"
            ));
        }
        // Everything that was durable on the gateway, whole, once, in its order.
        let trail = &coordinator.trails[index];
        if !trail.faults.is_empty() {
            return Err(format!("lost: the trail of gateway {index}: {:?}", trail.faults));
        }
        if trail.blocks != gateway.spool.written {
            return Err(format!(
                "lost: of gateway {index} the coordinator has {} blocks, and {} were written",
                trail.blocks.len(),
                gateway.spool.written.len()
            ));
        }
        Ok(())
    }
}
