//! Pages of the runbook followed to the letter: a gateway is enrolled; a gateway was stolen, a laptop was lost, a person left.

use std::path::{Path, PathBuf};

use penstock_coordinator::app;
use penstock_coordinator::operators::Role;
use penstock_policy::ids::OperatorId;
use penstock_proto::refusal::Reason;
use penstock_proto::token::Token;
use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::create_token_request::Subject as TokenFor;
use penstock_proto::v1::gateway_message::Message as Up;
use prost::bytes::Bytes;

use crate::bounds::until;
use crate::identities::{ends, enrolled, kept_out};
use crate::person::{Person, program};
use crate::twins::{greeted_as, holds};
use crate::world::{PATIENCE, World, document, file_key, refused};

/// The commands of a page, as they stand there.
pub fn page(title: &str) -> Vec<String> {
    let runbook = include_str!("../../../deploy/runbook.md");
    let (_, after) = runbook.split_once(&format!("# {title}\n")).unwrap();
    let (page, _) = after.split_once("\n## ").unwrap();
    let page = page.split("\n### ").next().unwrap();
    let mut commands = Vec::new();
    let mut is_command = false;
    for line in page.lines().map(|line| line.trim().trim_start_matches("1. ")) {
        match line {
            "```sh" => is_command = true,
            "```" => is_command = false,
            command if is_command => commands.push(command.to_owned()),
            _ => {}
        }
    }
    commands
}

/// An administrator's shell, in a folder with the plant's document, and that of an approver with their own copy.
pub struct Shell {
    pub person: Person,
    second: Person,
    commands: std::vec::IntoIter<String>,
}

/// Somebody with their own copy of the document.
async fn at_work(world: &World, name: &'static str, role: v1::Role, plant_text: &str) -> Person {
    let person = Person::new(world, name, name, role).await;
    let plant = person.home.join("my-plant");
    std::fs::create_dir(&plant).unwrap();
    std::fs::write(plant.join("plant.yaml"), plant_text).unwrap();
    person
}

/// What a command says that somebody types.
async fn typed(home: PathBuf, command: String) -> String {
    let folder = program().parent().unwrap().to_owned();
    let path = std::env::var("PATH").unwrap();
    let output = tokio::process::Command::new("sh")
        .args(["-c", &command])
        .current_dir(&home)
        .env("XDG_CONFIG_HOME", &home)
        .env("PATH", format!("{}:{path}", folder.display()))
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}{complained}");
    said
}

impl Shell {
    pub async fn new(world: &World, title: &str) -> Self {
        Self::on(world, title, &document(2, 99).replace("gw-a", "gw-works-a")).await
    }

    /// The same with this plant.
    pub async fn on(world: &World, title: &str, plant_text: &str) -> Self {
        Self {
            person: at_work(world, "ada", v1::Role::Admin, plant_text).await,
            second: at_work(world, "bob", v1::Role::Approver, plant_text).await,
            commands: page(title).into_iter(),
        }
    }

    /// Where the commands are typed.
    pub fn home(&self) -> std::path::PathBuf {
        self.person.home.clone()
    }

    fn next(&mut self, beginning: &str) -> String {
        let command = self.commands.next().expect("the page goes on");
        assert!(command.starts_with(beginning), "{command}");
        command
    }

    /// Types the page's next command, which begins so; what it says.
    pub async fn types(&mut self, beginning: &str) -> String {
        let command = self.next(beginning);
        typed(self.person.home.clone(), command).await
    }

    /// The page's next command, which begins so and is typed on another machine.
    pub fn types_elsewhere(&mut self, beginning: &str) -> String {
        self.next(beginning)
    }

    /// Types the next command, which waits for the approver; they look, compare with their own document and confirm.
    pub async fn types_and_the_second_confirms(&mut self, beginning: &str) -> String {
        let asked = self.next(beginning);
        assert!(asked.ends_with(" --wait"), "{asked}");
        let waiting = tokio::spawn(typed(self.person.home.clone(), asked));
        let second = self.second.home.clone();
        let look = self.next("penstock requests");
        let id = until(async || {
            let shown = typed(second.clone(), look.clone()).await;
            let line = shown
                .lines()
                .find(|line| line.contains("waits, ends"))?
                .to_owned();
            line.split_whitespace().next().map(str::to_owned)
        });
        let id = id.await;
        let confirm = self.next("penstock requests confirm 3f9a1c2d");
        // Nobody is at a terminal here.
        let confirm = format!("{} --yes", confirm.replace("3f9a1c2d", &id));
        let said = typed(second, confirm).await;
        assert!(said.contains("● confirmed"), "{said}");
        waiting.await.unwrap()
    }

    pub fn token(&self, file: &str) -> Token {
        let text = std::fs::read_to_string(Path::new(&self.person.home).join(file)).unwrap();
        text.trim().parse().unwrap()
    }

    pub fn ends_here(mut self) {
        assert_eq!(
            self.commands.next(),
            None,
            "the page says more than is followed here"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_page_enrol_a_gateway_gets_a_token_that_a_second_person_has_seen() {
    let world = World::start().await;
    let mut shell = Shell::new(&world, "Enrol a gateway").await;
    // Without the second person nothing is written, and an approver with another document does not confirm it.
    let alone = "penstock gateways token gw-works-a my-plant --out gw-works-a.token; test $? = 1 && test ! -e gw-works-a.token";
    let said = typed(shell.person.home.clone(), alone.to_owned()).await;
    assert!(
        said.contains("the gateway would believe:") && said.contains("nothing was written yet"),
        "{said}"
    );
    let id = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("request "))
        .unwrap()
        .trim();
    let theirs = shell.second.home.join("my-plant/plant.yaml");
    let text = std::fs::read_to_string(&theirs).unwrap();
    std::fs::write(&theirs, text.replace("threshold: 2", "threshold: 1")).unwrap();
    let plant = shell.second.home.join("my-plant");
    let confirm = ["requests", "confirm", id, plant.to_str().unwrap(), "--yes"];
    assert_eq!(shell.second.fails(&confirm).await, "other-approvers");
    std::fs::write(&theirs, text).unwrap();
    // Whoever asked confirms it with no login of theirs.
    assert_eq!(
        shell.person.fails(&["requests", "confirm", id, "--yes"]).await,
        "SAME_PERSON"
    );
    let said = shell
        .types_and_the_second_confirms("penstock gateways token ")
        .await;
    assert!(said.contains("token for gateway/gw-works-a written to"), "{said}");
    let token = shell.token("gw-works-a.token");
    // Who edits the file on the way is found out, as is an agent that does not say whom it would believe.
    let mut edited = token.approvers.clone().unwrap();
    edited.threshold = 1;
    let (key, secret) = (file_key(), &token.secret.0);
    let thief = world
        .enrol_believing("gw-works-a", secret, &key, edited.digest())
        .await;
    let why = refused(thief, Reason::ApproversMismatch);
    assert!(why.contains("its file was changed"), "{why}");
    let believes = token.approvers.unwrap().digest();
    world
        .enrol_believing("gw-works-a", secret, &key, believes)
        .await
        .unwrap();
    let trail = world.trail("coordinator/c1").await;
    let said = |action: &str, by: &str| {
        trail.iter().any(|record| {
            matches!(&record.event.as_ref().unwrap().kind, Some(Kind::Operator(event)) if event.allowed
                && event.action == action && event.operator == by && event.target.starts_with("gateway/gw-works-a")
                && event.message.contains(id))
        })
    };
    assert!(said("request", "ada") && said("confirm-request", "bob") && said("create-token", "ada"));
    for command in shell.commands.by_ref() {
        // What follows is typed on the gateway.
        assert!(command.starts_with("# "), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_page_a_gateway_was_stolen_keeps_the_thief_out_and_gets_a_replacement_in() {
    let world = World::start().await;
    let mut shell = Shell::new(&world, "A gateway was stolen").await;
    let stolen = enrolled(&world, "gw-works-a").await;
    let mut session = world.session("gw-works-a", v1::PolicyState::default()).await;
    let said = shell.types("penstock gateways revoke ").await;
    assert!(said.contains("gateway/gw-works-a is revoked"), "{said}");
    ends(&mut session).await;
    let why = kept_out(&world, stolen.clone()).await.unwrap();
    refused(Err::<(), _>(why), Reason::IdentityWithdrawn);
    shell.types("penstock audit search --source ").await;
    let said = shell.types("penstock audit search gateway/").await;
    assert!(said.contains("gateway/gw-works-a was enrolled"), "{said}");
    assert!(said.contains("gateway/gw-works-a was refused"), "{said}");

    shell
        .types_and_the_second_confirms("penstock gateways token ")
        .await;
    let token = shell.token("gw-works-a.token");
    // The stolen machine does not come back by the new token.
    let old_key = world.key("gateway/gw-works-a");
    let believes = token.approvers.as_ref().unwrap().digest();
    let again = world
        .enrol_believing("gw-works-a", &token.secret.0, &old_key, believes)
        .await;
    refused(again, Reason::KeyWithdrawn);
    let key = file_key();
    let new = world.enrol_believing("gw-works-a", &token.secret.0, &key, believes);
    let new = new.await.unwrap();
    assert!(kept_out(&world, new.clone()).await.is_none());
    assert!(kept_out(&world, stolen).await.is_some());

    let said = shell.types("penstock gateways retire ").await;
    assert!(said.contains("gateway/gw-works-a is retired"), "{said}");
    assert!(kept_out(&world, new).await.is_some());
    shell.ends_here();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_page_a_gateways_key_has_two_users_sees_who_resumes_the_one_and_ends_both() {
    let world = World::start().await;
    let mut shell = Shell::new(&world, "A gateway's key has two users").await;
    enrolled(&world, "gw-works-a").await;
    let greeted = async |ticket: &Bytes| greeted_as(&world, "gw-works-a", Some(ticket.clone())).await;
    let mut tickets = vec![Bytes::new()];
    for number in 1..=2 {
        let session = greeted(&tickets[tickets.len() - 1]).await;
        let ticket = session.welcome.ticket.clone();
        session.send(Up::TicketHeld(ticket.clone())).await;
        holds(&world, "gw-works-a", number).await;
        tickets.push(ticket);
    }
    assert!(greeted(&tickets[1]).await.welcome.twin.is_some());
    let said = shell.types("penstock audit search gateway/").await;
    assert!(said.contains("gateway/gw-works-a has two users"), "{said}");
    assert!(said.contains("127.0.0.1"), "{said}");

    let said = shell.types("penstock gateways resume ").await;
    assert!(said.contains("gateway/gw-works-a is active"), "{said}");
    let session = greeted(&tickets[1]).await;
    assert_eq!(session.welcome.twin, None);
    session.send(Up::TicketHeld(session.welcome.ticket.clone())).await;
    holds(&world, "gw-works-a", 3).await;
    assert!(greeted(&tickets[2]).await.welcome.twin.is_some(), "the other");

    let said = shell.types("penstock gateways revoke ").await;
    assert!(said.contains("gateway/gw-works-a is revoked"), "{said}");
    let why = kept_out(&world, world.certificate("gateway/gw-works-a")).await;
    refused(Err::<(), _>(why.unwrap()), Reason::IdentityWithdrawn);
    shell.ends_here();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_page_a_laptop_was_lost_keeps_it_out_and_its_owner_works_on() {
    let world = World::start().await;
    let mut shell = Shell::new(&world, "A laptop was lost").await;
    let mut lost = world.operator("k.ito", v1::Role::Engineer).await;
    let watch = v1::WatchHealthRequest {
        once: false,
        beats: false,
    };
    let mut health = lost.watch_health(watch).await.unwrap().into_inner();
    let said = shell.types("penstock operators revoke ").await;
    assert!(said.contains("operator/k.ito is revoked"), "{said}");
    let over = async { while let Ok(Some(_)) = health.message().await {} };
    tokio::time::timeout(PATIENCE, over).await.expect("it was cut");
    refused(
        lost.who_am_i(v1::WhoAmIRequest {}).await,
        Reason::IdentityWithdrawn,
    );
    let said = shell.types("penstock audit search k.ito ").await;
    assert!(said.contains("laptop lost on the train (INC-8)"), "{said}");
    let said = shell.types("penstock audit search operator/k.ito ").await;
    assert!(said.contains("operator/k.ito signed in from 127.0.0.1"), "{said}");
    assert!(
        said.contains("operator/k.ito was refused from 127.0.0.1"),
        "{said}"
    );

    shell.types("penstock operators add ").await;
    let token = shell.token("k.ito.token");
    let new = world.enrol("k.ito", &token.secret.0).await.unwrap();
    let mut new = world.control(Some(new)).await.unwrap();
    new.who_am_i(v1::WhoAmIRequest {}).await.unwrap();

    shell.types("penstock operators suspend ").await;
    refused(
        new.who_am_i(v1::WhoAmIRequest {}).await,
        Reason::IdentitySuspended,
    );
    shell.types("penstock operators resume ").await;
    new.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    refused(
        lost.who_am_i(v1::WhoAmIRequest {}).await,
        Reason::IdentityWithdrawn,
    );
    shell.ends_here();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_administrator_whose_laptop_was_lost_comes_back_by_a_token_of_the_coordinators_machine() {
    let mut world = World::start().await;
    let lost = world.certificate("operator/admin");
    world.running.take().unwrap().stop().await;
    let name = OperatorId::new("admin").unwrap();
    let (token, _) = app::operator_token(&world.config, &name, Role::Admin, 3600)
        .await
        .unwrap();
    world.start_again().await;
    world.enrol("admin", &token.secret.0).await.unwrap();
    let mut thief = world.control(Some(lost)).await.unwrap();
    refused(
        thief.who_am_i(v1::WhoAmIRequest {}).await,
        Reason::IdentityWithdrawn,
    );
    let new = world.certificate("operator/admin");
    let mut owner = world.control(Some(new)).await.unwrap();
    owner.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_page_a_person_left_leaves_them_no_way_in() {
    let world = World::start().await;
    let mut shell = Shell::new(&world, "A person left").await;
    let mut left = world.operator("k.ito", v1::Role::Admin).await;
    let waits = world
        .token(TokenFor::Operator("k.ito".to_owned()), v1::Role::Admin)
        .await;
    let said = shell.types("penstock operators remove ").await;
    assert!(said.contains("operator/k.ito is retired"), "{said}");
    refused(
        left.who_am_i(v1::WhoAmIRequest {}).await,
        Reason::IdentityWithdrawn,
    );
    refused(world.enrol("k.ito", &waits).await, Reason::TokenUnknown);
    let listed = world.admin().list_operators(v1::ListOperatorsRequest {}).await;
    let listed = listed.unwrap().into_inner().operators;
    assert!(
        listed.iter().all(|operator| operator.name != "k.ito"),
        "{listed:?}"
    );
    shell.ends_here();
}
