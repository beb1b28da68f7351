//! How a rollout begins: by a person, by itself after the approval, or not at all where every release goes to all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_policy::ids::{Digest, GatewayId};
use penstock_policy::plan::{Capability, Plan};
use penstock_policy::rollout::{RolloutPlan, default_plan, joined, problems};
use penstock_proto::refusal::{Reason, Refusal};

use super::desk::Desk;
use super::live::{Live, is_end};
use super::stored::{Baseline, Because, StoredRollout, Who};
use super::{AfterApproval, Shared, is_emergency};
use crate::clock;
use crate::releases::CurrentRelease;
use crate::rollout::{Command, Now, Rollout, Setup, Stage, SteerError};
use crate::store::{Change, OwnEvent};

/// With what percentages of the default plan are drawn: anybody can draw them again from the statement.
pub(super) fn seed(statement: Digest) -> u64 {
    let first: [u8; 8] = statement.0.first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first)
}

/// Whether a gateway may have a tunnel by what it said. One that did not say hello since this coordinator started said nothing.
fn may_tunnel(capabilities: &[String]) -> bool {
    let is_heard = !capabilities.is_empty();
    !is_heard
        || capabilities
            .iter()
            .any(|capability| capability == Capability::TUNNEL)
}

/// Why a rollout cannot take over.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error(transparent)]
    Earlier(#[from] SteerError),
    #[error("trials of several earlier releases are not over; wait until they are confirmed or reverted")]
    Full,
}

/// Everything that a rollout begins with.
pub(super) struct Beginning {
    pub(super) release: Arc<CurrentRelease>,
    pub(super) fleet: Arc<penstock_policy::rollout::Fleet>,
    pub(super) plan: RolloutPlan,
}

impl Shared {
    /// Reads the release's gateways, and judges the plan for them.
    ///
    /// # Errors
    /// The release is not the newest that is approved, or the plan has errors, each of which is named.
    pub(super) async fn prepare(
        &self,
        release: Arc<CurrentRelease>,
        plan: Option<RolloutPlan>,
    ) -> Result<Beginning, Refusal> {
        let fleet = self.releases.fleet_of(&release.recorded).await?;
        let fleet = fleet.joining(&self.joined(&release).await?);
        let plan = plan.unwrap_or_else(|| default_plan(&fleet, seed(release.recorded.digest)));
        let errors: Vec<_> = problems(&plan, &fleet)
            .into_iter()
            .filter(|problem| problem.is_error)
            .collect();
        if errors.is_empty() {
            return Ok(Beginning {
                release,
                fleet: Arc::new(fleet),
                plan,
            });
        }
        let mut refusal = Refusal::new(
            Reason::BadRequest,
            format!(
                "the rollout plan has {} errors; correct them, or start without a plan for the default one",
                errors.len()
            ),
        );
        for problem in errors.into_iter().take(PROBLEMS_MAX) {
            refusal = refusal.field(format!("plan.{}", problem.at), problem.words);
        }
        Err(refusal)
    }

    /// The gateways that have to activate a release together, since the tunnel between them is another by what they hold now.
    async fn joined(&self, release: &CurrentRelease) -> Result<BTreeSet<(GatewayId, GatewayId)>, Refusal> {
        let mut held_by = Vec::new();
        // A gateway that may have no tunnel is at the end of none, and the plans of all others need not be read.
        self.fleet.inspect(|gateway, facts| {
            if may_tunnel(&facts.capabilities) && release.mark(gateway).is_some() {
                held_by.push((gateway.clone(), facts.effective));
            }
        });
        let (mut held, mut released) = (BTreeMap::new(), BTreeMap::new());
        for (gateway, mark) in held_by {
            let plan = release.release.plan(&gateway);
            if let Some(plan) = plan.and_then(|plan| Plan::from_bytes(plan.plan).ok()) {
                released.insert(gateway.clone(), plan);
            }
            // What is not known here any more is taken for a plan without tunnels.
            if let Some(mark) = mark
                && let Some(plan) = self.releases.stored_plan(mark.plan).await?
            {
                held.insert(gateway, plan);
            }
        }
        Ok(joined(&held, &released))
    }

    /// Begins a rollout: it and what it takes over are stored in one change, with its event.
    ///
    /// # Errors
    /// Another one is in its way, or the store does not take it; nothing changed.
    pub(super) async fn begin(
        &self,
        desk: &mut Desk,
        beginning: Beginning,
        who: &Who,
        event: OwnEvent,
    ) -> Result<(), Refusal> {
        // What was decided before stands first.
        self.settle_doubt(desk).await?;
        desk.hear(&self.fleet);
        desk.step(clock::now_ms(), false);
        self.save(desk, None).await?;
        let Beginning { release, fleet, plan } = beginning;
        let (revision, statement) = (release.revision(), release.recorded.digest);
        let now_ms = clock::now_ms();
        let now = desk.now(now_ms);
        let before: Vec<Live> = desk.lives.iter().map(Live::try_on).collect();
        let begun = self.begin_here(desk, (release, fleet, plan, statement), who, now);
        if let Err(error) = begun {
            desk.lives = before;
            return Err(Refusal::new(
                Reason::Conflict,
                format!("the rollout of {revision} cannot take over: {error}"),
            ));
        }
        self.write_or_restore(desk, Change::noted(event), before).await?;
        self.publish(desk);
        if let Err(error) = self.forget(desk).await {
            tracing::warn!(error = %crate::chain(&error), "rollouts that are over are not removed; they are with the next start");
        }
        Ok(())
    }

    fn begin_here(
        &self,
        desk: &mut Desk,
        (release, fleet, plan, statement): (
            Arc<CurrentRelease>,
            Arc<penstock_policy::rollout::Fleet>,
            RolloutPlan,
            Digest,
        ),
        who: &Who,
        now: Now,
    ) -> Result<(), Obstacle> {
        let revision = release.revision();
        let mut in_earlier_trial = desk.in_earlier_trial();
        in_earlier_trial.extend(desk.make_room().ok_or(Obstacle::Full)?);
        let mut crossed = Vec::new();
        for (at, live) in desk.lives.iter_mut().enumerate() {
            if !is_end(live.machine.stage()) {
                let actions = live.machine.steer(now, Command::Supersede { by: revision })?;
                crossed.push((at, live.take(actions, "", now.wall_ms)));
            }
        }
        for (at, crossed) in crossed {
            desk.pass_on(at, &crossed);
        }
        let emergency = is_emergency(&release.recorded.statement);
        let setup = Setup {
            revision,
            plan,
            fleet,
            in_earlier_trial,
        };
        let mut machine = Rollout::new(setup, now);
        // What it changes was shown to those who signed it.
        machine.steer(now, Command::Simulated)?;
        machine.steer(now, Command::Approved { emergency })?;
        let record = machine.record();
        let stored = StoredRollout {
            number: desk.next,
            statement,
            started_by: who.by.clone(),
            because: Because::of(who),
            started_ms: now.wall_ms,
            ended_ms: None,
            ended_as: None,
            events: Vec::new(),
            omitted: 0,
            rollout: record,
        };
        let mut live = Live::new(machine, release, stored);
        live.say_because(
            who,
            "started",
            format!("the rollout of {revision} is started"),
            now.wall_ms,
        );
        let actions = live.machine.steer(now, Command::Start)?;
        live.take(actions, "", now.wall_ms);
        live.pending.all = true;
        desk.next += 1;
        desk.add(live, &self.fleet);
        Ok(())
    }

    /// Starts the rollout of the newest release by the default plan, if it has none.
    pub(super) async fn start_by_itself(&self, desk: &mut Desk) {
        let Some(current) = self.releases.now() else {
            return;
        };
        let revision = current.revision();
        let has_one = desk.lives.iter().any(|live| live.machine.revision() >= revision);
        // What is on its way back is first brought back.
        let is_held_up = desk
            .lives
            .iter()
            .any(|live| live.machine.stage() == Stage::RollingBack);
        if has_one || is_held_up || desk.declined == Some(revision) {
            return;
        }
        let who = Who {
            by: String::new(),
            reason: "rollouts.after_approval is default-plan".to_owned(),
            ticket: String::new(),
        };
        let started = match self.prepare(current.clone(), None).await {
            Ok(beginning) => {
                let target = format!("rollout of {revision} {}", current.recorded.digest);
                let event = self.journal.own_event("start-rollout", &target, &who.reason);
                self.begin(desk, beginning, &who, event).await
            }
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = started {
            tracing::error!(%refusal, %revision, "the rollout of the release that was approved does not start by itself; start it with `penstock rollout start`");
            // Not again and again, unless something is in the way that goes.
            if !matches!(refusal.reason, Reason::Conflict | Reason::StoreBusy) {
                desk.declined = Some(revision);
            }
        }
    }

    /// Every release goes to all at once, unless the line is stopped.
    pub(super) async fn at_once(&self, desk: &mut Desk, is_new: bool) -> Result<(), Refusal> {
        let current = self.releases.now();
        let release = current.as_ref().filter(|_| !desk.freeze.frozen);
        desk.publish_at_once(&self.fleet, release, is_new);
        self.show_in_force(desk);
        self.changes.send_modify(|changes| *changes += 1);
        match &current {
            // So that after a change of the configuration whoever comes late gets it, too.
            Some(current) if desk.baseline != Baseline::AtOnce(current.revision()) => {
                self.set_baseline(desk, Baseline::AtOnce(current.revision()))
                    .await
            }
            _ => Ok(()),
        }
    }

    /// Whether rollouts can be started here.
    ///
    /// # Errors
    /// Every release goes to all gateways at once.
    pub(super) fn carries(&self) -> Result<(), Refusal> {
        if self.after_approval != AfterApproval::AtOnce {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::NotProposed,
            "this coordinator carries each approved release to all gateways at once, on no trial; set `rollouts.after_approval` to \
             `wait` in its configuration, restart it, and start the rollout then",
        ))
    }
}

/// Errors of a plan that are named at most.
const PROBLEMS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_was_not_heard_of_may_have_a_tunnel_and_one_whose_agent_knows_none_has_none() {
        let may = |said: &[&str]| may_tunnel(&said.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert!(may(&[]) && may(&["trials", Capability::TUNNEL]) && !may(&["trials"]));
    }
}
