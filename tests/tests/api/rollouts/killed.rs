//! The real program, killed in each state of a rollout: the next one goes on where it was, and repeats nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use penstock_coordinator::rollout::Stage;
use penstock_policy::ids::Revision;
use penstock_proto::v1::steer_rollout_request::Command;

use super::*;
use crate::world::Program;

/// All stages, one after the other: one that is new has to be put here.
fn after(stage: Stage) -> Option<Stage> {
    let (since, until, wave) = (0, 0, 0);
    Some(match stage {
        Stage::Draft => Stage::Simulated,
        Stage::Simulated => Stage::Approved,
        Stage::Approved => Stage::Scheduled,
        Stage::Scheduled => Stage::Staging { since },
        Stage::Staging { .. } => Stage::Shadowing { until },
        Stage::Shadowing { .. } => Stage::Opening {
            wave,
            since,
            passed: false,
        },
        Stage::Opening { .. } => Stage::Soaking { wave, until },
        Stage::Soaking { .. } => Stage::Converging,
        Stage::Converging => Stage::Completed,
        Stage::Completed => Stage::CompletedWithExceptions,
        Stage::CompletedWithExceptions => Stage::RollingBack,
        Stage::RollingBack => Stage::RolledBack,
        Stage::RolledBack => Stage::Cancelled,
        Stage::Cancelled => Stage::Superseded { by: Revision(1) },
        Stage::Superseded { .. } => return None,
    })
}

/// Stages that no store has: they are over in the change that starts the rollout.
fn is_stored(stage: Stage) -> bool {
    !matches!(stage, Stage::Draft | Stage::Simulated | Stage::Approved)
}

struct Plant {
    world: World,
    people: People,
    fleet: Vec<Simulated>,
    file: PathBuf,
    program: Option<Program>,
    /// The stages in which it was killed.
    killed_at: BTreeSet<String>,
}

impl Plant {
    async fn new() -> Self {
        let (mut world, people) = waiting().await;
        let file = Program::takes_over(&mut world, "127.0.83.3").await;
        let mut plant = Self {
            fleet: (1..=3)
                .map(|n| Simulated::new(&format!("gw-{n}"), Conduct::Good))
                .collect(),
            world,
            people,
            file,
            program: None,
            killed_at: BTreeSet::new(),
        };
        plant.kill().await;
        plant.fleet[0].connect(&plant.world);
        plant.fleet[1].connect(&plant.world);
        plant
    }

    /// The program is killed, if it runs, and started.
    async fn kill(&mut self) {
        if let Some(program) = self.program.take() {
            program.kill();
        }
        let program = Program::start(&self.file);
        program.serves(&self.world).await;
        self.program = Some(program);
        let world = &self.world;
        let client = async |name: &str| {
            let certificate = world.certificate(&format!("operator/{name}"));
            world.control(Some(certificate)).await.unwrap()
        };
        self.people.engineer = client("anna").await;
        self.people.bob = client("bob").await;
    }

    /// Waits for a stage at which it rests, and kills the program there.
    async fn rests_at(&mut self, revision: u64, stage: &str) -> v1::Rollout {
        let before = reaches(&mut self.people, revision, stage).await;
        self.kill().await;
        let now = shown(&mut self.people, revision).await;
        assert_eq!(now.stage, stage, "{now:?}");
        assert_eq!((&now.halted, &now.paused), (&before.halted, &before.paused));
        self.killed_at.insert(stage.to_owned());
        now
    }

    async fn start(&mut self, release: &Built, plan: &RolloutPlan) {
        let request = start(release, Some(plan));
        self.people.engineer.start_rollout(request).await.unwrap();
    }

    /// An approver may do all of it.
    async fn steer(&mut self, revision: u64, command: Command) {
        let request = steer(revision, command);
        self.people.bob.steer_rollout(request).await.unwrap();
    }

    /// Waits until so many gateways are so far.
    async fn counts(&mut self, revision: u64, what: &str, count: u32) {
        let mut last = v1::Rollout::default();
        for _ in 0..1500 {
            last = shown(&mut self.people, revision).await;
            if last.counts.get(what) == Some(&count) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not {count} are {what}: {last:?}");
    }

    fn conducts(&self, conduct: Conduct) {
        self.fleet[0].disk.lock().unwrap().conduct = conduct;
    }
}

/// Nothing in it passes by itself.
fn endless() -> RolloutPlan {
    let mut plan = plan_of_three();
    let hour = Span::seconds(3600);
    (plan.silence, plan.trial, plan.patience) = (hour, hour, Span::seconds(7200));
    plan
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_killed_in_any_state_of_a_rollout_goes_on_in_it() {
    let mut plant = Plant::new().await;
    let one = built(&plant_of("One"), 1, None, "anna");
    approve(&mut plant.people, &one).await;
    let mut later = endless();
    later.start_ms = Some(4_000_000_000_000);
    plant.start(&one, &later).await;
    plant.rests_at(1, "scheduled").await;
    plant.steer(1, Command::Cancel(true)).await;
    plant.rests_at(1, "cancelled").await;

    // One that is absent holds staging, its shadow the wave, and a person the first gateway.
    plant.conducts(Conduct::Held);
    let mut shadowed = endless();
    shadowed.shadow = Span::seconds(3600);
    plant.start(&one, &shadowed).await;
    plant.rests_at(1, "staging").await;
    plant.fleet[2].connect(&plant.world);
    plant.rests_at(1, "shadowing").await;
    plant.steer(1, Command::Cancel(true)).await;
    let mut soaked = endless();
    soaked.waves[0].soak = Span::seconds(3600);
    plant.start(&one, &soaked).await;
    plant.rests_at(1, "opening").await;
    plant.steer(1, Command::Pause(true)).await;
    let paused = plant.rests_at(1, "opening").await;
    assert!(!paused.paused.is_empty(), "{paused:?}");
    plant.steer(1, Command::Resume(true)).await;
    plant.steer(1, Command::Halt(true)).await;
    plant.conducts(Conduct::Waits);
    let halted = plant.rests_at(1, "opening").await;
    assert!(!halted.halted.is_empty() && plant.fleet[0].count("active 1") > 0);
    assert!(
        !plant.fleet[0].is_on_trial(),
        "it is held, and the rollout halted"
    );
    plant.steer(1, Command::Resume(true)).await;
    until(|| plant.fleet[0].is_on_trial()).await;
    plant.rests_at(1, "opening").await;
    plant.conducts(Conduct::Good);
    plant.kill().await;
    plant.rests_at(1, "soaking").await;
    assert_eq!(plant.fleet[0].count("confirm 1"), 1);

    // The next one takes over, and goes on without one that left.
    plant.conducts(Conduct::Held);
    let two = built(&plant_of("Two"), 2, Some(one.digest()), "anna");
    approve(&mut plant.people, &two).await;
    plant.start(&two, &endless()).await;
    plant.rests_at(1, "superseded").await;
    plant.rests_at(2, "opening").await;
    plant.fleet[2].leave();
    plant.conducts(Conduct::Good);
    plant.kill().await;
    plant.counts(2, "confirmed", 2).await;
    plant.steer(2, Command::Pass(true)).await;
    plant.rests_at(2, "converging").await;
    plant.steer(2, Command::Complete(true)).await;
    plant.rests_at(2, "completed-with-exceptions").await;
    plant.fleet[2].connect(&plant.world);
    plant.rests_at(2, "completed").await;
    for gateway in &plant.fleet {
        assert_eq!((gateway.effective(), gateway.count("confirm 2")), (2, 1));
    }

    // One that cannot be reached is on trial while the way back begins.
    plant.conducts(Conduct::Waits);
    let three = built(&plant_of("Three"), 3, Some(two.digest()), "anna");
    approve(&mut plant.people, &three).await;
    plant.start(&three, &endless()).await;
    plant.counts(3, "trial", 1).await;
    plant.fleet[0].leave();
    plant.steer(3, Command::Revert(true)).await;
    plant.rests_at(3, "rolling-back").await;
    plant.fleet[0].connect(&plant.world);
    plant.rests_at(3, "rolled-back").await;
    assert_eq!(
        (plant.fleet[0].count("revert 3"), plant.fleet[0].effective()),
        (1, 2)
    );
    assert!(
        plant.fleet[1..]
            .iter()
            .all(|other| other.effective() == 2 && other.count("active 3") == 0)
    );

    let all = std::iter::successors(Some(Stage::Draft), |stage| after(*stage));
    let stored: BTreeSet<String> = all
        .filter(|stage| is_stored(*stage))
        .map(|stage| stage.word().to_owned())
        .collect();
    assert_eq!(plant.killed_at, stored);
}

fn plant_of(title: &str) -> String {
    super::plant(3, title)
}
