//! Who may do what, said alike everywhere: the gate's table, the wire contract, the documents, and what the coordinator does.

use std::collections::{BTreeMap, BTreeSet};

use penstock_coordinator::api::gate::Action;
use penstock_coordinator::operators::Role;
use penstock_proto::refusal::Reason;
use penstock_proto::v1;
use penstock_proto::v1::create_token_request::Subject;

use crate::world::{World, file_key, refused};

fn roles(action: Action) -> BTreeSet<Role> {
    [Some(action.needs()), action.also()]
        .into_iter()
        .flatten()
        .collect()
}

/// The roles that a sentence names.
fn named(sentence: &str) -> BTreeSet<Role> {
    let words: BTreeSet<&str> = sentence.split(|c: char| !c.is_ascii_alphabetic()).collect();
    Role::ALL
        .into_iter()
        .filter(|role| words.contains(role.as_str()))
        .collect()
}

#[test]
fn the_document_of_roles_lists_each_action_with_those_who_may() {
    let text = include_str!("../../../docs/roles.md");
    let (_, table) = text.split_once("| action | who | command |").unwrap();
    let mut listed = BTreeMap::new();
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        // What stands behind is a condition.
        let who = cells[1]
            .split([',', ';'])
            .next()
            .unwrap()
            .replace("everybody", "viewer");
        let before = listed.insert(cells[0].trim_matches('`').to_owned(), named(&who));
        assert_eq!(before, None, "{line}");
    }
    let expected: BTreeMap<String, BTreeSet<Role>> = Action::ALL
        .into_iter()
        .map(|action| (action.as_str().to_owned(), roles(action)))
        .collect();
    assert_eq!(listed, expected);
}

#[test]
fn the_comment_of_each_method_names_the_roles_that_the_gate_asks_for() {
    let contract = include_str!("../../../proto/proto/penstock/v1/control.proto");
    let (_, service) = contract.split_once("service Control {").unwrap();
    let (service, _) = service.split_once("\n}").unwrap();
    let (mut comment, mut said) = (String::new(), BTreeMap::new());
    for line in service.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("// ") {
            comment = format!("{comment} {words}");
        } else if let Some(method) = line.strip_prefix("rpc ") {
            let method = method.split('(').next().unwrap();
            // The first sentence says who; the others, what.
            let who = comment.split(". ").next().unwrap();
            said.insert(method.to_owned(), named(who));
            comment.clear();
        }
    }
    let mut expected: BTreeMap<String, BTreeSet<Role>> = BTreeMap::new();
    for action in Action::ALL {
        let method = match action {
            Action::SuspendIdentity
            | Action::ResumeIdentity
            | Action::RevokeIdentity
            | Action::RetireIdentity => "ChangeStanding".to_owned(),
            Action::StopRollout | Action::ResumeRollout => "SteerRollout".to_owned(),
            Action::ThawRollouts => "FreezeRollouts".to_owned(),
            Action::ConfirmRequest | Action::RejectRequest => "DecideRequest".to_owned(),
            Action::AcknowledgeAlarm | Action::ShelveAlarm => "ChangeAlarm".to_owned(),
            other => format!("{other:?}"),
        };
        expected.entry(method).or_default().extend(roles(action));
    }
    assert_eq!(said, expected);
}

#[tokio::test]
async fn one_key_is_one_operators_whatever_tokens_somebody_has() {
    let world = World::start().await;
    let key = file_key();
    let token = async |name: &str, role| world.token(Subject::Operator(name.to_owned()), role).await;
    let first = token("anna", v1::Role::Engineer).await;
    let second = token("anna-2", v1::Role::Approver).await;
    world.enrol_key("anna", &first, &key).await.unwrap();
    let why = refused(world.enrol_key("anna-2", &second, &key).await, Reason::KeyTaken);
    assert!(why.contains("operator/anna's"), "{why}");
    // Nor one that somebody had before, or that was withdrawn.
    let again = token("anna", v1::Role::Engineer).await;
    world.enrol_key("anna", &again, &file_key()).await.unwrap();
    refused(world.enrol_key("anna-2", &second, &key).await, Reason::KeyTaken);
    // The token is not used up, and serves a key of its own.
    world.enrol("anna-2", &second).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_names_that_enrol_with_one_key_at_once_one_gets_it() {
    let world = std::sync::Arc::new(World::start().await);
    for round in 0..10 {
        let key = file_key();
        let names = [format!("one-{round}"), format!("other-{round}")];
        let mut joining = Vec::new();
        for name in names {
            let secret = world
                .token(Subject::Operator(name.clone()), v1::Role::Viewer)
                .await;
            joining.push((name, secret));
        }
        let tasks: Vec<_> = joining
            .into_iter()
            .map(|(name, secret)| {
                let (world, key) = (world.clone(), key.clone());
                tokio::spawn(async move { world.enrol_key(&name, &secret, &key).await.is_ok() })
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            won += usize::from(task.await.unwrap());
        }
        assert_eq!(won, 1);
    }
}
