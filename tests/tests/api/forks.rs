//! A coordinator that gives two gateways two releases, or keeps one from them: what people see of it at their terminals.

use penstock_policy::release::spoken;
use penstock_proto::v1;
use serde_json::Value;

use crate::person::Person;
use crate::world::{Built, World, built, document, mark, people, release};

/// What a gateway says that holds this release.
fn holding(release: &Built, gateway: &str) -> v1::PolicyState {
    v1::PolicyState {
        effective: Some(mark(release, gateway)),
        trusted: Some(v1::TrustedRelease {
            revision: release.release.statement.revision.0,
            statement_digest: release.digest().0.to_vec().into(),
        }),
        ..v1::PolicyState::default()
    }
}

fn line<'a>(gateways: &'a Value, name: &str) -> &'a Value {
    let mut all = gateways["gateways"].as_array().unwrap().iter();
    all.find(|line| line["name"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_with_two_children_of_one_release_are_seen_by_whoever_lists_proposes_or_signs() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let one = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &one).await;
    let bob = Person::new(&world, "bob", "desk", v1::Role::Approver).await;
    let two = built(&document(2, 101), 2, Some(one.digest()), "anna");
    people
        .engineer
        .propose_release(two.request.clone())
        .await
        .unwrap();
    bob.approves(&two).await;
    people.carol.approve_release(two.approval("carol")).await.unwrap();
    let _a = world.session("gw-a", holding(&two, "gw-a")).await;
    // Both have all their signatures, by approvers who never compared what they signed.
    let other = built(&document(2, 9_999), 2, Some(one.digest()), "anna");
    let _b = world.session("gw-b", holding(&other, "gw-b")).await;

    // To whom knows neither of the two, each contradicts the other.
    let dora = Person::new(&world, "dora", "another desk", v1::Role::Viewer).await;
    let seen = dora.done(&["gateways"]).await;
    assert_eq!(line(&seen, "gw-a")["words"], spoken(&two.digest()));
    assert_eq!(line(&seen, "gw-b")["words"], spoken(&other.digest()));
    for name in ["gw-a", "gw-b"] {
        let why = line(&seen, name)["contradicts"].as_str().unwrap().to_owned();
        assert!(why.contains("holds another r2"), "{why}");
    }
    // Bob signed one of them: his machine knows which gateway holds the other one, and says so before he signs the next.
    let seen = bob.done(&["gateways"]).await;
    assert_eq!(line(&seen, "gw-a")["contradicts"], Value::Null);
    let why = line(&seen, "gw-b")["contradicts"].as_str().unwrap().to_owned();
    assert!(why.contains("than this machine has seen"), "{why}");
    let three = built(&document(2, 102), 3, Some(two.digest()), "anna");
    people
        .engineer
        .propose_release(three.request.clone())
        .await
        .unwrap();
    let shown = bob.approves(&three).await;
    let found = shown["contradictions"].as_array().unwrap();
    assert!(
        matches!(&found[..], [one] if one.as_str().unwrap().starts_with("gw-b holds another r2")),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_from_which_a_release_is_kept_is_seen_by_the_age_and_the_words_of_what_it_enforces() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let one = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &one).await;
    let two = built(&document(2, 101), 2, Some(one.digest()), "anna");
    release(&mut people, &two).await;
    let bob = Person::new(&world, "bob", "desk", v1::Role::Approver).await;
    let _a = world.session("gw-a", holding(&two, "gw-a")).await;
    let _b = world.session("gw-b", holding(&one, "gw-b")).await;
    let seen = bob.done(&["gateways"]).await;
    let (a, b) = (line(&seen, "gw-a"), line(&seen, "gw-b"));
    assert!(a["approved_ms"].as_u64().unwrap() >= b["approved_ms"].as_u64().unwrap());
    assert_eq!(b["words"], spoken(&one.digest()));
    assert_eq!(
        (&a["contradicts"], &b["contradicts"]),
        (&Value::Null, &Value::Null)
    );
    let page = bob.reads(&["gateways"]).await;
    for release in [&one, &two] {
        let words = spoken(&release.digest());
        let shown = page.lines().find(|line| line.contains(&words));
        assert!(
            shown.is_some_and(|shown| shown.contains("in force at 1 gateway, approved 20")),
            "{page}"
        );
    }
    let page = bob.reads(&["release", "show"]).await;
    assert!(page.contains("● current; approved 20"), "{page}");
}
