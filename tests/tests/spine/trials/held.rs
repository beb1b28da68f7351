//! A release waits for the process and for a window, with the real agent: by the plan that is in force.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use penstock_lab::wait_until;
use penstock_proto::v1::HoldReason;
use penstock_proto::v1::policy_standing::State;

use super::plant::{self, Flows, Plant, at_plant};
use super::{PATIENCE, wait_for_confirmable};

/// A controller with one coil.
struct Controller {
    is_on: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

impl Controller {
    fn start(plant: &Plant<'_>) -> Self {
        let listener = plant
            .controller
            .enter(|| TcpListener::bind(plant::ASKED).unwrap())
            .unwrap();
        let (is_on, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (shows, counts) = (is_on.clone(), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 12];
                if stream.read_exact(&mut request).is_err() {
                    continue;
                }
                counts.fetch_add(1, Ordering::SeqCst);
                let [first, second, ..] = request;
                assert_eq!(request[2..], [0, 0, 0, 6, 255, 1, 0, 5, 0, 1], "one coil is read");
                let coil = u8::from(shows.load(Ordering::SeqCst));
                let _ = stream.write_all(&[first, second, 0, 0, 0, 4, 255, 1, 1, coil]);
            }
        });
        Self { is_on, asked }
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    fn says(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::SeqCst);
    }
}

fn wait_for_hold(plant: &Plant<'_>, reason: HoldReason) {
    wait_until(&format!("a release that is held: {reason:?}"), PATIENCE, || {
        let state = plant.standing().and_then(|standing| standing.state);
        matches!(state, Some(State::Held(held)) if held.reason() == reason)
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", plant.standing(), plant.log()));
}

/// A day of the week that is neither today nor tomorrow, anywhere.
fn another_day() -> u8 {
    let days = jiff::Timestamp::now().as_second() / 86_400;
    // The first of 1970 was a Thursday.
    u8::try_from((days + 3 + 3) % 7).unwrap()
}

#[test]
fn a_release_waits_for_the_process_and_the_window_of_the_plan_in_force_and_nobody_is_asked_but_then() {
    at_plant(
        "trials::held::a_release_waits_for_the_process_and_the_window_of_the_plan_in_force_and_nobody_is_asked_but_then",
        |plant| {
            let controller = Controller::start(plant);
            let _agent = plant.start_agent();
            let asks = Flows {
                sometimes: false,
                asks: true,
                ..Flows::ALL
            };
            // Where nothing is in force, what comes says what it waits for.
            let one = plant.release(&asks, 1, None, None);
            wait_for_hold(plant, HoldReason::Interlock);
            assert_eq!(plant.effective(), None);
            controller.says(true);
            plant.wait_for_effective(1);
            controller.says(false);
            // This one asks nobody, and is held by what is in force.
            let later = Flows {
                weekday: Some(another_day()),
                ..Flows::ALL
            };
            let two = plant.release(&later, 2, Some(one), Some(600));
            wait_for_hold(plant, HoldReason::Interlock);
            std::thread::sleep(Duration::from_secs(3));
            assert_eq!(plant.effective(), Some(1), "{:?}", plant.standing());
            assert!(!plant.passes(plant::SOMETIMES, false), "r1 is in force");
            controller.says(true);
            wait_for_confirmable(plant, 2);
            plant.confirm(two);
            wait_until("the floor", PATIENCE, || plant.trusted() == Some(2)).unwrap();
            // Nothing waits: nobody is asked, however long.
            std::thread::sleep(Duration::from_secs(4));
            let asked = controller.asked();
            plant.release(&Flows::ALL, 3, Some(two), Some(600));
            wait_for_hold(plant, HoldReason::Window);
            std::thread::sleep(Duration::from_secs(3));
            assert_eq!(plant.effective(), Some(2), "{:?}", plant.standing());
            assert_eq!(controller.asked(), asked);
            let said = plant.interlock_events();
            let turns: Vec<bool> = said
                .iter()
                .map(|words| words.starts_with("safe to change"))
                .collect();
            assert_eq!(turns, [false, true, false, true], "{said:?}");
            assert!(
                said[0].contains("coil 5 is off at plc (10.20.4.7:1502)"),
                "{said:?}"
            );
        },
    );
}

#[test]
fn out_of_reach_a_gateway_begins_no_trial_and_asks_nobody_and_connected_again_it_begins_as_it_is_ordered() {
    at_plant(
        "trials::held::out_of_reach_a_gateway_begins_no_trial_and_asks_nobody_and_connected_again_it_begins_as_it_is_ordered",
        |plant| {
            let controller = Controller::start(plant);
            let mut agent = plant.start_agent();
            let asks = Flows {
                sometimes: false,
                asks: true,
                ..Flows::ALL
            };
            controller.says(true);
            let one = plant.release(&asks, 1, None, None);
            plant.wait_for_effective(1);
            controller.says(false);
            plant.release(&Flows::ALL, 2, Some(one), Some(600));
            wait_for_hold(plant, HoldReason::Interlock);
            // The order stays on the disk; nobody is there to give it again, or to confirm a trial.
            agent.kill();
            plant.keep_new_connections_out(true);
            let asked = controller.asked();
            controller.says(true);
            let _agent = plant.start_agent();
            let no_session = "there is no session with the coordinator";
            wait_until("what holds it", PATIENCE, || plant.log().contains(no_session))
                .unwrap_or_else(|error| panic!("{error}: {}", plant.log()));
            std::thread::sleep(Duration::from_secs(3));
            assert!(!plant.passes(plant::SOMETIMES, false), "r1 is in force");
            assert_eq!(controller.asked(), asked);
            plant.keep_new_connections_out(false);
            wait_for_confirmable(plant, 2);
        },
    );
}
