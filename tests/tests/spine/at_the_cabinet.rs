//! The person in front of the cabinet, by `penstock-agent` as they would call it: status, hold, release-hold, confirm, revert, clear,
//! and who may not.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use penstock_agent::policy_store;
use penstock_agent::policy_store::journal::{Order, Upto};
use penstock_agent::store::Store;
use penstock_lab::{Daemon, Lab, wait_until};
use serde_json::Value;

use super::world::{PATIENCE, SOMETIMES, World, test};

const ANNA: [&str; 2] = ["--by", "anna"];
/// The group `users` of each Debian.
const USERS: u32 = 100;
/// A user without rights here: in no group.
const NOBODY: (u32, &str) = (65534, "");
const BY_ANNA: &str = "root (said to be anna) at the gateway";

impl World {
    /// A command that has to work; what it says.
    fn done(&self, command: &str, more: &[&str]) -> String {
        let (code, said) = self.at_the_cabinet(&[&[command][..], &ANNA, more].concat());
        assert_eq!(code, Some(0), "{command} {more:?}: {said}");
        said
    }

    /// A command that has to be refused; what it says.
    fn refused(&self, words: &[&str]) -> String {
        let (code, said) = self.at_the_cabinet(words);
        assert_eq!(code, Some(1), "{words:?}: {said}");
        said
    }

    fn status(&self) -> Value {
        let (code, said) = self.at_the_cabinet(&["status", "--json"]);
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str(&said).unwrap()
    }

    fn status_text(&self) -> String {
        self.at_the_cabinet(&["status"]).1
    }

    fn wait_for_status(&self, what: &str, mut is_so: impl FnMut(&Value) -> bool) {
        wait_until(what, PATIENCE, || is_so(&self.status()))
            .unwrap_or_else(|error| panic!("{error}: {}", self.status()));
    }

    /// Holds the gateway, and has the release wait there.
    fn hold_back(&self, with_flow: bool) -> u64 {
        let said = self.done("hold", &["--reason", "pump 3 is open (T-9)"]);
        assert!(said.starts_with("this gateway is held"), "{said}");
        let revision = self.release(with_flow);
        self.wait_for_status("the release that waits", |status| {
            status["change"]["held"]["revision"] == revision && status["change"]["held"]["by"] == "person"
        });
        revision
    }

    /// The same, and has it wait for a trial, as a rollout would order; the coordinator is gone then.
    fn hold_back_for_trial(
        &self,
        (lab, coordinator): (&Lab, &mut Daemon),
        agent: &mut Daemon,
        (with_flow, seconds): (bool, u64),
    ) -> u64 {
        let revision = self.hold_back(with_flow);
        coordinator.kill();
        agent.terminate(PATIENCE).unwrap();
        put_on_trial(&lab.directory().join("state"), seconds);
        *agent = self.start_agent();
        self.wait_for_status("the agent, still held", |status| {
            status["in_kernel"]["revision"].is_u64() && status["change"]["held"]["revision"] == revision
        });
        revision
    }
}

/// From the next agent on, nobody may be there to confirm a trial.
fn island(lab: &Lab) {
    let config = lab.directory().join("agent.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}[link]\nislanded = true\n")).unwrap();
}

/// The release that waits in this state goes on trial for so long.
fn put_on_trial(state: &Path, seconds: u64) {
    let mut store = Store::open(state);
    let staged = policy_store::load(&mut store).staged.expect("a staged release");
    let order = Order {
        upto: Upto::Active,
        trial_ms: Some(seconds * 1000),
        why: "wave 1".to_owned(),
        ..Order::default()
    };
    policy_store::reorder(&mut store, staged.statement, &order).unwrap();
}

#[test]
fn a_person_at_the_cabinet_holds_confirms_and_reverts_and_reads_what_the_kernel_does() {
    test(
        "at_the_cabinet::a_person_at_the_cabinet_holds_confirms_and_reverts_and_reads_what_the_kernel_does",
        |lab| {
            let (world, mut coordinator) = World::new(lab, &lab.directory().join("state"));
            let mut agent = world.start_agent();
            let one = world.release(true);
            world.wait_for_effective(one);

            // A hold keeps an approved release staged; without it, it goes.
            let two = world.hold_back(false);
            assert!(world.passes(SOMETIMES, true), "r{one} stays in force");
            let text = world.status_text();
            assert!(text.contains(&format!("in force     r{one}, ")), "{text}");
            assert!(text.contains(&format!("staged       r{two}, ")), "{text}");
            assert!(
                text.contains(&format!("{BY_ANNA} holds this gateway since")),
                "{text}"
            );
            let said = world.done("release-hold", &[]);
            assert_eq!(said.trim(), format!("the hold is released: r{two} is in force"));
            assert!(!world.passes(SOMETIMES, false), "r{two} is what the kernel holds");
            assert!(
                world
                    .refused(&["release-hold", "--by", "anna"])
                    .contains("no such hold")
            );

            // Without a session, no trial begins but where the site gets by without its coordinator.
            let three = world.hold_back_for_trial((lab, &mut coordinator), &mut agent, (true, 600));
            let said = world.done("release-hold", &[]);
            assert!(
                said.contains("there is no session with the coordinator"),
                "{said}"
            );
            let status = world.status();
            assert_eq!(status["change"]["held"]["by"], "no-session", "{status}");
            assert!(!world.passes(SOMETIMES, false), "r{two} stays in force");
            world.done("hold", &["--reason", "pump 3 is open (T-9)"]);
            agent.terminate(PATIENCE).unwrap();
            island(lab);
            agent = world.start_agent();
            world.wait_for_status("the agent, still held", |status| {
                status["in_kernel"]["revision"] == two && status["change"]["held"]["by"] == "person"
            });

            // On trial, and taken back by a person.
            let said = world.done("release-hold", &[]);
            let on_trial = format!("the hold is released: r{three} is on trial: ");
            assert!(said.starts_with(&on_trial), "{said}");
            assert!(world.passes(SOMETIMES, true), "the kernel holds r{three}");
            let status = world.status();
            let change = &status["change"];
            assert_eq!(change["trial"]["revision"], three, "{status}");
            assert_eq!(change["trial"]["before"], two, "{status}");
            assert_eq!(status["in_kernel"]["revision"], three, "{status}");
            assert_eq!(status["effective"]["revision"], two, "{status}");
            let text = world.status_text();
            assert!(text.contains(&format!("confirmed    r{two}, ")), "{text}");
            assert!(text.contains(&format!("on trial     r{three}: ")), "{text}");
            let other = (three + 1).to_string();
            let said = world.refused(&["confirm", "--by", "anna", "--revision", &other]);
            assert!(said.contains(&format!("r{three} is")), "{said}");
            let said = world.refused(&["confirm", "--by", "anna"]);
            assert!(said.contains("one confirms what one saw"), "{said}");
            let number = three.to_string();
            let said = world.refused(&["confirm", "--revision", &number]);
            assert!(said.contains("not a person"), "{said}");
            let said = world.done("revert", &["--reason", "pump 3 is loud"]);
            let reverted = format!("r{three} is reverted: r{two} is in force again");
            assert!(said.starts_with(&reverted), "{said}");
            assert!(!world.passes(SOMETIMES, false), "the kernel holds r{two} again");

            // That outlives the agent, and is said without one. What it left in the kernel is noted a second later.
            world.wait_for_status("the note of what was left", |status| {
                status["kernel"]["state"] == "as-left"
            });
            agent.kill();
            let text = world.status_text();
            assert!(text.contains(&format!("in force     r{two}, ")), "{text}");
            assert!(
                text.contains("pump 3 is loud") && text.contains("clear --revision"),
                "{text}"
            );
            assert!(!text.contains("\nstaged"), "{text}");
            let said = world.refused(&["clear", "--by", "anna", "--revision", &number]);
            assert!(said.contains("no agent answers"), "{said}");
            agent = world.start_agent();
            coordinator = world.start_coordinator();
            world.wait_for_status("the release is refused", |status| {
                status["change"]["refused"]["code"] == "reverted"
            });
            let said = world.done("clear", &["--revision", &number]);
            assert!(said.contains("it comes again when"), "{said}");
            // In the session that stands, and where no rollout orders it.
            world.wait_for_effective(three);

            // On trial, and confirmed by a person: it outlives the agent and the trial's time.
            let four = world.hold_back_for_trial((lab, &mut coordinator), &mut agent, (false, 600));
            world.done("release-hold", &[]);
            let confirm = ["confirm", "--by", "anna"];
            let (code, said) = world.typed_at_the_cabinet(&confirm, &number);
            assert!(
                code == Some(0) && said.contains("nothing was done"),
                "{code:?}: {said}"
            );
            let (code, said) = world.typed_at_the_cabinet(&confirm, &four.to_string());
            assert!(said.contains(&format!("r{four} is on trial: ")), "{said}");
            let confirmed = format!("r{four} is confirmed: it stays in force");
            assert!(code == Some(0) && said.contains(&confirmed), "{code:?}: {said}");
            agent.kill();
            agent = world.start_agent();
            world.wait_for_status("the confirmed release", |status| {
                status["in_kernel"]["revision"] == four && status["change"]["trial"].is_null()
            });
            assert!(!world.passes(SOMETIMES, false));
            let said = world.refused(&["revert", "--by", "anna"]);
            assert!(said.contains("no release is on trial here"), "{said}");

            // All of it is in the trail, with who and why.
            coordinator = world.start_coordinator();
            world.wait_for_effective(four);
            let trail = |step: &str, words: &str| {
                let is_it = |record: &Value| {
                    let message = record["event"]["message"].as_str().unwrap_or_default();
                    record["event"]["step"] == step && message.contains(BY_ANNA) && message.contains(words)
                };
                world.trail().iter().any(is_it)
            };
            for (step, words) in [
                ("hold", "pump 3 is open (T-9)"),
                ("hold-released", ""),
                ("reverted", "pump 3 is loud"),
                ("cleared", &format!("r{three} by")),
                ("confirmed", "by root"),
            ] {
                wait_until(step, PATIENCE, || trail(step, words))
                    .unwrap_or_else(|error| panic!("{error}: {:#?}", world.trail()));
            }
            drop((coordinator, agent));
        },
    );
}

#[test]
fn where_nobody_may_be_there_a_release_on_trial_confirms_itself_at_its_end() {
    test(
        "at_the_cabinet::where_nobody_may_be_there_a_release_on_trial_confirms_itself_at_its_end",
        |lab| {
            let (world, mut coordinator) = World::new(lab, &lab.directory().join("state"));
            island(lab);
            let mut agent = world.start_agent();
            world.wait_for_effective(world.release(true));
            let two = world.hold_back_for_trial((lab, &mut coordinator), &mut agent, (false, 10));
            let said = world.done("release-hold", &[]);
            assert!(said.contains("must-flows still flow at its end"), "{said}");
            world.wait_for_status("the end of the trial", |status| {
                status["change"]["trial"].is_null()
            });
            let status = world.status();
            assert_eq!(status["effective"]["revision"], two, "{status}");
            assert_eq!(
                status["change"]["reverted"].as_array().unwrap().len(),
                0,
                "{status}"
            );
            assert!(!world.passes(SOMETIMES, false), "the kernel holds r{two}");
            drop(agent);
        },
    );
}

#[test]
fn a_user_without_rights_can_neither_ask_nor_steer_though_the_socket_stood_open() {
    test(
        "at_the_cabinet::a_user_without_rights_can_neither_ask_nor_steer_though_the_socket_stood_open",
        |lab| {
            let state = lab.directory().join("state");
            let (world, _coordinator) = World::new(lab, &state);
            let mut agent = world.start_agent();
            world.wait_for_effective(world.release(true));
            let socket = state.join("local.sock");
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&socket), mode(&state)), (0o600, 0o700));
            let hold = ["hold", "--by", "mallory", "--reason", "x"];
            let Some((code, said)) = world.at_the_cabinet_as(NOBODY, &hold) else {
                // The sandbox of an ordinary user has no other user: what the modes say is all that can be shown.
                return;
            };
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains("this user may not steer the gateway"), "{said}");
            // Whoever opens it by mistake opens nothing.
            for (path, mode) in [(&state, 0o755), (&socket, 0o666)] {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            }
            for _ in 0..50 {
                let (code, said) = world.at_the_cabinet_as(NOBODY, &hold).unwrap();
                assert_eq!(code, Some(1), "{said}");
                assert!(said.contains("only root, the agent's own user"), "{said}");
            }
            let status = world.status();
            assert!(status["change"]["hold"].is_null(), "{status}");
            world.done("hold", &["--reason", "x"]);
            assert!(world.status()["change"]["hold"]["by"] == BY_ANNA);

            // A group may, by a folder that it may enter; what it may not read, the agent says.
            agent.terminate(PATIENCE).unwrap();
            std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
            let shared = lab.directory().join("shared");
            std::fs::create_dir(&shared).unwrap();
            std::os::unix::fs::chown(&shared, None, Some(USERS)).unwrap();
            std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o2750)).unwrap();
            let config = lab.directory().join("agent.toml");
            let text = std::fs::read_to_string(&config).unwrap();
            let socket = shared.join("agent.sock");
            let local = format!("[local]\nsocket = \"{}\"\ngroup = \"users\"\n", socket.display());
            std::fs::write(&config, format!("{text}{local}")).unwrap();
            agent = world.start_agent();
            world.wait_for_status("the agent at the other socket", |status| {
                status["in_kernel"]["revision"].is_u64()
            });
            assert_eq!(mode(&socket), 0o660);
            let member = (NOBODY.0, "100");
            let as_member = |words: &[&str]| world.at_the_cabinet_as(member, words).unwrap();
            let (code, said) = as_member(&["release-hold"]);
            assert_eq!(code, Some(0), "{said}");
            assert!(said.starts_with("the hold is released"), "{said}");
            let (code, said) = as_member(&["status"]);
            assert!(
                code == Some(0) && said.contains("last policy  r1, 2 flows"),
                "{said}"
            );
            let (code, said) = world.at_the_cabinet_as(NOBODY, &hold).unwrap();
            assert!(code == Some(1) && said.contains("may not steer"), "{said}");
            drop(agent);
        },
    );
}
