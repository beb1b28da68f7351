//! Releases on trial with the real agent in the real kernel: what cuts the process or the management comes back by itself, and what
//! is good stays. The coordinator signs and orders what a test wants.

#[path = "../../../agent/tests/link/world.rs"]
pub(super) mod fake;
mod held;
mod plant;
pub(super) mod traffic;

use std::time::{Duration, Instant};

use penstock_lab::wait_until;
use penstock_proto::v1::policy_standing::State;
use penstock_proto::v1::{OnTrial, Reverted};

use self::plant::{Flows, Plant, at_plant};
use self::traffic::{Datagrams, Polling};
use super::world::PATIENCE;

/// How long is polled before a change, so that the rhythm of what is polled is known: the kernel's counters are looked at each second, and a
/// rhythm takes ten beats.
const LEARNING: Duration = Duration::from_secs(20);

fn on_trial(plant: &Plant<'_>) -> Option<OnTrial> {
    match plant.standing()?.state? {
        State::Trial(trial) => Some(trial),
        _ => None,
    }
}

fn reverted(plant: &Plant<'_>) -> Option<Reverted> {
    match plant.standing()?.state? {
        State::Reverted(reverted) => Some(reverted),
        _ => None,
    }
}

/// Waits until release `revision` is on trial and the coordinator may confirm it.
fn wait_for_confirmable(plant: &Plant<'_>, revision: u64) {
    wait_until("a trial that may be confirmed", PATIENCE, || {
        plant.effective() == Some(revision) && on_trial(plant).is_some_and(|trial| trial.confirmable)
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", plant.standing(), plant.log()));
}

/// Waits until `revision` is in force again; gives why.
fn wait_for_revert(plant: &Plant<'_>, revision: u64) -> Reverted {
    wait_until("the policy before", PATIENCE, || {
        plant.effective() == Some(revision) && reverted(plant).is_some()
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", plant.standing(), plant.log()));
    reverted(plant).unwrap()
}

#[test]
fn a_release_that_cuts_a_must_flow_comes_back_by_itself_and_no_packet_of_another_flow_is_lost() {
    at_plant(
        "trials::a_release_that_cuts_a_must_flow_comes_back_by_itself_and_no_packet_of_another_flow_is_lost",
        |plant| {
            let _agent = plant.start_agent();
            let one = plant.release(&Flows::ALL, 1, None, None);
            plant.wait_for_effective(1);
            let polled = Polling::start(plant, plant::POLLED);
            let beside = Datagrams::start(plant);
            std::thread::sleep(LEARNING);
            assert_eq!(polled.missed(), 0, "{}", plant.log());
            // Longer than this test waits: only what is lost brings it back.
            let cuts = Flows {
                polled: false,
                ..Flows::ALL
            };
            plant.release(&cuts, 2, Some(one), Some(600));
            let why = wait_for_revert(plant, 1);
            assert_eq!(why.code, "must-flow", "{why:?}");
            assert!(why.message.contains("supply/polled") && !why.ordered, "{why:?}");
            polled.wait_for_answers(20);
            let (sent, arrived) = beside.stop();
            assert!(sent > 1000 && sent == arrived, "{sent} sent, {arrived} arrived");
            // It was gone for as long as its rhythm allows, and the looks.
            let longest = polled.stop();
            assert!(longest < Duration::from_secs(15), "{longest:?}");
            let steps = plant.steps();
            assert!(
                steps.iter().any(|step| step.starts_with("reverted r2")),
                "{steps:?}"
            );
            // It is refused from now on, whatever is ordered.
            plant.offer_again(Some(600));
            wait_until("the refusal", PATIENCE, || {
                plant.refused().as_deref() == Some("reverted")
            })
            .unwrap();
        },
    );
}

#[test]
fn a_release_that_only_calls_a_must_flow_otherwise_is_confirmed_over_its_own_rules_and_stays() {
    at_plant(
        "trials::a_release_that_only_calls_a_must_flow_otherwise_is_confirmed_over_its_own_rules_and_stays",
        |plant| {
            let agent = plant.start_agent();
            let one = plant.release(&Flows::ALL, 1, None, None);
            plant.wait_for_effective(1);
            let polled = Polling::start(plant, plant::POLLED);
            let beside = Datagrams::start(plant);
            std::thread::sleep(LEARNING);
            let other = Flows {
                polled_is: "asked",
                must: false,
                ..Flows::ALL
            };
            let two = plant.release(&other, 2, Some(one), Some(600));
            wait_for_confirmable(plant, 2);
            assert_eq!((plant.sessions(), plant.trusted()), (2, Some(1)));
            // Longer than a flow that is cut is waited for.
            std::thread::sleep(Duration::from_secs(8));
            assert!(on_trial(plant).is_some(), "{:?}", plant.standing());
            plant.confirm(two);
            wait_until("the floor", PATIENCE, || plant.trusted() == Some(2)).unwrap();
            drop(agent);
            let _agent = plant.start_agent_again();
            assert_eq!((plant.effective(), plant.trusted()), (Some(2), Some(2)));
            let (sent, arrived) = beside.stop();
            assert!(sent > 1000 && sent == arrived, "{sent} sent, {arrived} arrived");
            assert_eq!(polled.missed(), 0);
        },
    );
}

#[test]
fn a_release_after_which_the_agent_cannot_connect_again_comes_back_by_itself() {
    at_plant(
        "trials::a_release_after_which_the_agent_cannot_connect_again_comes_back_by_itself",
        |plant| {
            let _agent = plant.start_agent();
            let one = plant.release(
                &Flows {
                    sometimes: false,
                    ..Flows::ALL
                },
                1,
                None,
                None,
            );
            plant.wait_for_effective(1);
            // The rules let what the gateway opens itself be answered, whatever a release says. What a connection may meet that is opened
            // after the swap is in its way: the session that stands goes on.
            plant.keep_new_connections_out(true);
            let (began, sessions) = (Instant::now(), plant.sessions());
            plant.release(&Flows::ALL, 2, Some(one), Some(20));
            assert!(plant.passes_soon(plant::SOMETIMES, true), "r2 is in force");
            assert!(plant.passes_soon(plant::SOMETIMES, false), "r1 is in force again");
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "before the time of the trial is over"
            );
            assert_eq!(plant.sessions(), sessions);
            plant.keep_new_connections_out(false);
            let why = wait_for_revert(plant, 1);
            assert_eq!(why.code, "management", "{why:?}");
        },
    );
}

#[test]
fn an_agent_that_is_killed_amid_a_trial_goes_on_with_it_or_ends_it_and_another_boot_ends_it() {
    at_plant(
        "trials::an_agent_that_is_killed_amid_a_trial_goes_on_with_it_or_ends_it_and_another_boot_ends_it",
        |plant| {
            let mut agent = plant.start_agent();
            let without = Flows {
                sometimes: false,
                ..Flows::ALL
            };
            let one = plant.release(&without, 1, None, None);
            plant.wait_for_effective(1);
            let two = plant.release(&Flows::ALL, 2, Some(one), Some(600));
            wait_for_confirmable(plant, 2);
            // In time it goes on, with what is left.
            let left = on_trial(plant).unwrap().left_ms;
            agent.kill();
            assert!(plant.passes(plant::SOMETIMES, true), "the kernel has its rules");
            agent = plant.start_agent_again();
            wait_for_confirmable(plant, 2);
            assert!(on_trial(plant).unwrap().left_ms < left);
            plant.confirm(two);
            wait_until("the floor", PATIENCE, || plant.trusted() == Some(2)).unwrap();
            // Too late it goes back.
            plant.release(&without, 3, Some(two), Some(10));
            wait_for_confirmable(plant, 3);
            let ends = Instant::now() + Duration::from_secs(10);
            agent.kill();
            std::thread::sleep(ends.saturating_duration_since(Instant::now()));
            agent = plant.start_agent_again();
            assert_eq!(wait_for_revert(plant, 2).code, "not-confirmed");
            assert!(plant.passes(plant::SOMETIMES, true), "r2 is in force");
            // So it does in another boot of the machine.
            plant.release(&without, 4, Some(two), Some(600));
            wait_for_confirmable(plant, 4);
            agent.kill();
            plant.boot_again();
            let _agent = plant.start_agent_again();
            assert_eq!(wait_for_revert(plant, 2).code, "reboot");
            assert!(plant.passes(plant::SOMETIMES, true), "r2 is in force");
        },
    );
}
