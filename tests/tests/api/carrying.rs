//! A rollout as people see it, with the real `penstock`: planned, started, watched on a terminal, stopped, and recorded in one file that
//! verifies without the coordinator.

use std::path::Path;
use std::process::{Command, Stdio};

use penstock_coordinator::rollout::run::AfterApproval;
use penstock_proto::v1;
use serde_json::{Value, json};

use crate::person::{Person, program};
use crate::world::{Conduct, Simulated, World, document};

/// An engineer and an approver at desks of their own, at a coordinator that waits, and the two gateways of its plant.
struct Desk {
    world: World,
    anna: Person,
    bob: Person,
    gateways: Vec<Simulated>,
}

async fn desk(conduct: Conduct) -> Desk {
    let world = World::start_with(|config| config.after_approval = AfterApproval::Wait).await;
    let anna = Person::new(&world, "anna", "engineer", v1::Role::Engineer).await;
    let bob = Person::new(&world, "bob", "approver", v1::Role::Approver).await;
    let mut gateways: Vec<_> = ["gw-a", "gw-b"]
        .map(|name| Simulated::new(name, Conduct::Good))
        .into();
    gateways[1].disk.lock().unwrap().conduct = conduct;
    for gateway in &mut gateways {
        gateway.connect(&world);
    }
    Desk {
        world,
        anna,
        bob,
        gateways,
    }
}

impl Desk {
    fn file(&self, name: &str) -> String {
        self.world.dir.path().join(name).to_string_lossy().into_owned()
    }

    /// Proposes a document and has it approved; what bob was answered.
    async fn approved(&self, limit: u32) -> Value {
        let plant = self.file(&format!("plant-{limit}.yaml"));
        // People are not let propose what locks them out.
        let managed = "mode: routed\n    management: { interface: mgmt, peers: [192.0.2.10] }\n";
        let text = document(1, limit).replace("mode: routed\n", managed);
        std::fs::write(&plant, text).unwrap();
        let proposed = self
            .anna
            .done(&[
                "release", "propose", &plant, "--reason", "a range", "--ticket", "CHG-1", "--yes",
            ])
            .await;
        let revision = proposed["release"]["revision"].to_string();
        let digest = proposed["release"]["statement_digest"].as_str().unwrap();
        let digits = &digest.trim_start_matches("sha256:")[..12];
        let key = self.bob.home.join("approver.key").to_string_lossy().into_owned();
        self.bob.done(&self.bob.approve(&key, digits, &revision)).await
    }

    /// The default plan, in which nothing is waited for but gateways.
    async fn plan(&self, revision: &str) -> String {
        let file = self.file("plan.yaml");
        self.anna
            .done(&["rollout", "plan", "--revision", revision, "-o", &file])
            .await;
        let text = std::fs::read_to_string(&file).unwrap();
        let quick = text
            .replace("shadow: 1h", "shadow: 0s")
            .replace("soak: 1h", "soak: 0s");
        assert_ne!(quick, text);
        std::fs::write(&file, quick).unwrap();
        file
    }

    async fn start(&self, revision: &str) -> Value {
        let plan = self.plan(revision).await;
        self.anna
            .done(&[
                "rollout", "start", revision, "--plan", &plan, "--reason", "now", "--yes",
            ])
            .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approved_release_is_carried_by_a_person_and_its_record_verifies_without_the_coordinator() {
    let desk = desk(Conduct::Good).await;
    let answer = desk.approved(100).await;
    assert_eq!(answer["after_approval"], "wait");
    assert!(desk.gateways.iter().all(|gateway| gateway.effective() == 0));
    let plan = desk.plan("1").await;
    let judged = desk
        .anna
        .done(&["rollout", "check", &plan, "--revision", "1"])
        .await;
    assert_eq!((&judged["errors"], &judged["gateways"]), (&json!(0), &json!(2)));
    desk.start("1").await;
    // It ends with the rollout; each line is a change.
    let watched = desk.anna.run(&["rollout", "watch", "1"]).await;
    let said = String::from_utf8(watched.stdout).unwrap();
    assert!(
        watched.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&watched.stderr)
    );
    let lines: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["schema"], &last["stage"]),
        (&json!("penstock.rollout/1"), &json!("completed"))
    );
    assert_eq!(last["counts"], json!({ "confirmed": 2 }));
    let gateways = desk.anna.done(&["gateways"]).await;
    assert!(
        gateways["gateways"]
            .as_array()
            .unwrap()
            .iter()
            .all(|gateway| gateway["effective"] == 1)
    );

    desk.approved(200).await;
    desk.start("2").await;
    let watched = desk.anna.run(&["rollout", "watch", "2"]).await;
    assert!(watched.status.success());
    let (record, key) = (desk.file("r2.record"), desk.file("anna.key"));
    desk.anna.done(&["key", "new", &key, "--no-passphrase"]).await;
    let public = desk.anna.done(&["key", "show", &key]).await["public"]
        .as_str()
        .unwrap()
        .to_owned();
    let written = desk
        .anna
        .done(&["rollout", "record", "2", "--key", &key, "-o", &record])
        .await;
    assert_eq!(written["signed_as"], "anna");
    // Somebody else, elsewhere, with their own copies.
    let (before, after) = (desk.file("plant-100.yaml"), desk.file("plant-200.yaml"));
    let elsewhere = Person {
        home: tempfile::tempdir().unwrap().keep(),
    };
    let whole = [
        "rollout",
        "verify",
        &record,
        "--approvers",
        &before,
        "--documents",
        &after,
        "--maker",
        &public,
    ];
    let verified = elsewhere.done(&whole).await;
    let proved: Vec<&str> = verified["claims"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|claim| claim["grade"] == "proved")
        .map(|claim| claim["code"].as_str().unwrap())
        .collect();
    assert_eq!(
        proved,
        [
            "approved",
            "baseline",
            "reason",
            "plans",
            "documents",
            "waves",
            "signed"
        ],
        "{verified:#}"
    );
    let effective = verified["claims"]
        .as_array()
        .unwrap()
        .iter()
        .find(|claim| claim["code"] == "effective");
    assert!(
        effective.unwrap()["message"]
            .as_str()
            .unwrap()
            .starts_with("2 of 2 gateways report"),
        "{verified:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_on_shift_stops_everything_and_another_lets_it_go_on() {
    let desk = desk(Conduct::Held).await;
    desk.approved(100).await;
    desk.start("1").await;
    let frozen = desk
        .anna
        .done(&[
            "rollout",
            "freeze",
            "--reason",
            "smoke in line 2",
            "--ticket",
            "INC-9",
        ])
        .await;
    assert_eq!(
        (&frozen["frozen"]["by"], &frozen["frozen"]["ticket"]),
        (&json!("anna"), &json!("INC-9"))
    );
    let halted = desk
        .anna
        .done(&["rollout", "halt", "--reason", "smoke in line 2"])
        .await;
    assert!(
        halted["halted"].as_str().unwrap().contains("smoke in line 2"),
        "{halted}"
    );
    let listed = desk.anna.done(&["rollout", "list"]).await;
    assert_eq!(listed["frozen"]["reason"], "smoke in line 2");
    assert_eq!(listed["rollouts"][0]["revision"], 1);
    // What opens more is not for those who only stop, and nobody is asked without a terminal.
    let thaw = ["rollout", "thaw", "--reason", "no fire", "--yes"];
    assert_eq!(desk.anna.fails(&thaw).await, "WRONG_ROLE");
    assert_eq!(
        desk.bob.fails(&["rollout", "thaw", "--reason", "no fire"]).await,
        "usage"
    );
    desk.bob.done(&thaw).await;
    assert_eq!(desk.bob.fails(&thaw).await, "NOT_FROZEN");
    let resume = ["rollout", "resume", "1", "--reason", "no fire", "--yes"];
    assert_eq!(desk.anna.fails(&resume).await, "WRONG_ROLE");
    let resumed = desk.bob.done(&resume).await;
    assert_eq!(resumed["halted"], "");
    let events = resumed["events"].as_array().unwrap();
    for (by, reason) in [("anna", "now"), ("anna", "smoke in line 2"), ("bob", "no fire")] {
        let is_there = events
            .iter()
            .any(|event| event["by"] == by && event["reason"] == reason);
        assert!(is_there, "{by}, {reason}: {resumed:#}");
    }
    // The held one holds up its wave until somebody goes on without it.
    let skip = [
        "rollout",
        "skip",
        "gw-b",
        "--revision",
        "1",
        "--reason",
        "its person is away",
        "--yes",
    ];
    let mut shown = Value::Null;
    for _ in 0..500 {
        shown = desk.bob.done(&["rollout", "show", "1", "--gateways"]).await;
        let held = shown["gateways"]
            .as_array()
            .unwrap()
            .iter()
            .find(|gateway| gateway["name"] == "gw-b");
        if held.is_some_and(|held| held["state"] == "opened" && held["standing"]["state"] == "held") {
            break;
        }
    }
    let held = shown["gateways"]
        .as_array()
        .unwrap()
        .iter()
        .find(|gateway| gateway["name"] == "gw-b");
    assert_eq!(held.unwrap()["standing"]["code"], "person", "{shown:#}");
    desk.bob.done(&skip).await;
    desk.bob.done(&["rollout", "show"]).await;
}

/// Runs a command on a terminal of so many columns; what that shows goes into the file as it comes.
fn on_a_terminal(home: &Path, columns: u32, arguments: &str, file: &Path) {
    let command = format!("stty cols {columns}; {} {arguments}", program().display());
    let output = Command::new("script")
        .args(["-qefc", &command])
        .arg(file)
        .env("XDG_CONFIG_HOME", home)
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    // It ends with 1: the rollout does not complete.
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_terminal_a_watch_is_redrawn_in_place_and_no_line_is_longer_than_the_terminal() {
    let desk = desk(Conduct::LosesMustFlow).await;
    desk.approved(100).await;
    desk.start("1").await;
    let (home, file) = (desk.anna.home.clone(), desk.world.dir.path().join("terminal"));
    let seen = file.clone();
    let watching = tokio::task::spawn_blocking(move || on_a_terminal(&home, 70, "rollout watch 1", &file));
    // It halts by itself when the flow stops; then it is brought back, which ends the watch.
    let shows = |words: &str| std::fs::read_to_string(&seen).is_ok_and(|shown| shown.contains(words));
    let begun = std::time::Instant::now();
    while !shows("halted:") {
        assert!(begun.elapsed() < crate::world::PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    desk.anna
        .done(&["rollout", "revert", "1", "--reason", "a flow stopped", "--yes"])
        .await;
    watching.await.unwrap();
    let shown = std::fs::read_to_string(&seen).unwrap();
    assert!(shown.contains("A\u{1b}[J"), "{shown:?}");
    let views: Vec<&str> = shown.split("\u{1b}[J").collect();
    let last = views.last().unwrap();
    assert!(last.contains("rolled-back") && last.contains("gw-b"), "{last}");
    // Without what `script` itself writes, and what commands the terminal.
    let lines = views.iter().flat_map(|view| view.lines());
    for line in lines.filter(|line| !line.starts_with("Script ")) {
        let mut plain = String::new();
        let mut letters = line.trim_end().chars();
        while let Some(letter) = letters.next() {
            if letter == '\u{1b}' {
                letters.by_ref().find(char::is_ascii_alphabetic);
            } else {
                plain.push(letter);
            }
        }
        assert!(plain.chars().count() <= 70, "{plain}");
    }
}
