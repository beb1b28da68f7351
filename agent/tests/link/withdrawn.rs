//! Withdrawn keys over real TLS: the list by session, coordinators that no longer count, a new key, and roots that an answer brings.

use std::sync::Arc;

use penstock_agent::identity::IdentityFolder;
use penstock_agent::link::enrol::{KeyChoice, enrol_with};
use penstock_agent::link::renew::renew;
use penstock_agent::link::session::LinkState;
use penstock_policy::release::Anchor;
use penstock_proto::peer::Epoch;
use penstock_proto::refusal::Reason;
use penstock_proto::v1::PolicyOffer;
use penstock_proto::withdrawn::{Held, Withdrawn};
use rcgen::PublicKeyData as _;

use super::world::{self, Authority, plant};
use super::*;

/// The coordinator's list, and what it sends of it.
struct Listed {
    list: Withdrawn,
    sent: Held,
}

impl Listed {
    fn new() -> Self {
        Self {
            list: Withdrawn::default(),
            sent: Withdrawn::default().held(),
        }
    }

    fn withdraw(&mut self, subject: &str, from: u32) {
        self.list.withdraw(&subject.parse().unwrap(), Epoch(from));
    }

    /// What came since the last one.
    fn since(&mut self, authority: &Authority) -> Outbound {
        let list = self.list.since(self.sent, &plant(), 1).unwrap();
        self.sent = self.list.held();
        Outbound::Withdrawn(authority.withdraw(&list))
    }
}

async fn codes(agent: &Running, wanted: &[&str]) {
    let mut faults = agent.views.withdrawn.faults();
    let is_so = |faults: &Vec<penstock_proto::v1::Fault>| {
        let codes: Vec<&str> = faults.iter().map(|fault| fault.code.as_str()).collect();
        codes == wanted
    };
    within(faults.wait_for(is_so)).await.unwrap();
}

async fn holds(agent: &Running, number: u64) {
    within(async {
        while agent.views.withdrawn.held().number != number {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_list_is_taken_in_the_session_and_the_next_hello_says_how_far_it_goes() {
    let (mut coordinator, state) = enrolled().await;
    let agent = Running::start(state.path()).await;
    coordinator.sessions(1).await;
    let mut listed = Listed::new();
    listed.withdraw("device/plc-7", 3);
    coordinator.send(Some(listed.since(&coordinator.authority)));
    holds(&agent, 1).await;
    step_comes(&coordinator, "keys-withdrawn").await;
    // What came since builds upon it, in the same session.
    listed.withdraw("operator/carla", 1);
    coordinator.send(Some(listed.since(&coordinator.authority)));
    holds(&agent, 2).await;
    assert_eq!(coordinator.memory.lock().unwrap().sessions, 1);
    coordinator.restart().await;
    coordinator.sessions(2).await;
    agent.stop().await;
    let held = listed.list.held();
    let nothing = Withdrawn::default().held();
    let said = coordinator.memory.lock().unwrap().held.clone();
    assert_eq!(
        said,
        [(0, nothing.digest.0.to_vec()), (2, held.digest.0.to_vec())]
    );
    // The next agent knows it without a link.
    assert_eq!(
        penstock_agent::withdrawn::peek(state.path()),
        Ok(Some(listed.list))
    );
}

#[tokio::test]
async fn a_bad_list_is_a_fault_and_the_session_goes_on_and_one_with_a_gap_is_asked_for_whole() {
    let (coordinator, state) = enrolled().await;
    let agent = Running::start(state.path()).await;
    coordinator.sessions(1).await;
    let mut listed = Listed::new();
    listed.withdraw("device/plc-7", 3);
    coordinator.send(Some(listed.since(&Authority::new())));
    codes(&agent, &["withdrawn-refused"]).await;
    step_comes(&coordinator, "withdrawn-refused").await;
    coordinator
        .until(|memory| memory.reported.iter().any(|code| code == "withdrawn-refused"))
        .await;
    assert_eq!(coordinator.memory.lock().unwrap().sessions, 1);
    // It builds upon the one that was refused.
    listed.withdraw("device/plc-8", 1);
    coordinator.send(Some(listed.since(&coordinator.authority)));
    coordinator.sessions(2).await;
    assert_eq!(coordinator.memory.lock().unwrap().held.last().unwrap().0, 0);
    listed.sent = Withdrawn::default().held();
    coordinator.send(Some(listed.since(&coordinator.authority)));
    holds(&agent, 2).await;
    codes(&agent, &[]).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_coordinator_whose_key_was_withdrawn_is_left_and_not_met_again_and_the_next_life_of_it_is() {
    let (mut coordinator, state) = enrolled().await;
    coordinator.restart_in_life(1).await;
    let agent = Running::start(state.path()).await;
    coordinator.sessions(1).await;
    let mut listed = Listed::new();
    // Of another one: the session is opened again, and stands.
    listed.withdraw("coordinator/c-2", 5);
    coordinator.send(Some(listed.since(&coordinator.authority)));
    coordinator.sessions(2).await;
    listed.withdraw("coordinator/c-1", 2);
    coordinator.send(Some(listed.since(&coordinator.authority)));
    let mut link = agent.views.link.clone();
    let refused = |state: &LinkState| {
        let problem = state.problem.as_deref().unwrap_or_default();
        problem.contains("the certificate of spiffe://water/coordinator/c-1 was withdrawn")
    };
    within(link.wait_for(refused)).await.unwrap();
    assert_eq!(coordinator.memory.lock().unwrap().sessions, 2);
    // Nor is it met for a renewal, or by whoever enrols this machine again.
    let error = enrol(state.path(), &coordinator.token()).await.unwrap_err();
    assert!(error.to_string().contains("was withdrawn"), "{error}");
    coordinator.restart_in_life(2).await;
    coordinator.sessions(3).await;
    agent.stop().await;
}

/// A release that names a list, signed by these.
fn naming(
    list: &Withdrawn,
    revision: u64,
    parent: Option<Digest>,
    signers: &[(&str, u8)],
) -> (PolicyOffer, Digest) {
    let held = list.held();
    let anchor = Anchor {
        number: held.number,
        digest: held.digest,
    };
    let (approvers, plan) = (world::approvers(), world::plan());
    let (mut offer, digest) =
        world::offer_anchoring(Some(anchor), approvers, &plan, revision, parent, signers);
    offer.withdrawn = list.snapshot().into();
    (offer, digest)
}

#[tokio::test]
async fn a_gateway_that_was_set_back_learns_from_its_approvers_that_its_coordinators_key_was_withdrawn_and_leaves_it()
 {
    let (mut coordinator, state) = enrolled().await;
    coordinator.restart_in_life(1).await;
    let agent = Running::start(state.path()).await;
    coordinator.sessions(1).await;
    let mut listed = Listed::new();
    listed.withdraw("device/plc-7", 3);
    listed.withdraw("coordinator/c-1", 2);
    // One approver alone ends nobody's key.
    let (alone, _) = naming(&listed.list, 1, None, &[("anna", 1)]);
    coordinator.send(Some(Outbound::Offer(alone)));
    step_comes(&coordinator, "refused r1 under-signed").await;
    assert_eq!(agent.views.withdrawn.held().number, 0);
    // Whoever has the withdrawn key keeps the list back, and carries the release: it is no use to them without that.
    let (release, _) = naming(&listed.list, 1, None, BOTH);
    coordinator.send(Some(Outbound::Offer(release)));
    holds(&agent, 2).await;
    agent.effective(1).await;
    let mut link = agent.views.link.clone();
    let refused = |state: &LinkState| {
        let problem = state.problem.as_deref().unwrap_or_default();
        problem.contains("the certificate of spiffe://water/coordinator/c-1 was withdrawn")
    };
    within(link.wait_for(refused)).await.unwrap();
    coordinator.restart_in_life(2).await;
    step_comes(&coordinator, "keys-withdrawn").await;
    agent.stop().await;
    let kept = penstock_agent::withdrawn::peek(state.path()).unwrap().unwrap();
    assert_eq!(kept.held(), listed.list.held());
}

#[tokio::test]
async fn a_list_that_a_release_names_and_nobody_brings_is_a_fault_until_it_comes_and_the_release_is_in_force()
{
    let (coordinator, state) = enrolled().await;
    let agent = Running::start(state.path()).await;
    coordinator.sessions(1).await;
    let mut listed = Listed::new();
    listed.withdraw("device/plc-7", 3);
    let (mut release, digest) = naming(&listed.list, 1, None, BOTH);
    release.withdrawn = Default::default();
    coordinator.send(Some(Outbound::Offer(release)));
    agent.effective(1).await;
    codes(&agent, &["withdrawn-refused"]).await;
    // Other bytes than the approvers signed are not taken for it.
    let (mut release, digest) = naming(&listed.list, 2, Some(digest), BOTH);
    let mut other = Withdrawn::default();
    other.withdraw(&"device/plc-8".parse().unwrap(), Epoch(9));
    release.withdrawn = other.snapshot().into();
    coordinator.send(Some(Outbound::Offer(release)));
    agent.effective(2).await;
    assert_eq!(agent.views.withdrawn.held().number, 0);
    codes(&agent, &["withdrawn-refused"]).await;
    coordinator.send(Some(listed.since(&coordinator.authority)));
    holds(&agent, 1).await;
    codes(&agent, &[]).await;
    // An older one changes nothing.
    listed.withdraw("device/plc-8", 1);
    coordinator.send(Some(listed.since(&coordinator.authority)));
    holds(&agent, 2).await;
    let mut old = Withdrawn::default();
    old.withdraw(&"device/plc-7".parse().unwrap(), Epoch(3));
    let (release, _) = naming(&old, 3, Some(digest), BOTH);
    coordinator.send(Some(Outbound::Offer(release)));
    agent.effective(3).await;
    codes(&agent, &[]).await;
    assert_eq!(agent.views.withdrawn.held().number, 2);
    agent.stop().await;
}

#[tokio::test]
async fn a_refusal_for_who_the_gateway_is_is_a_fault_on_the_machine_until_it_is_welcome_again() {
    let (mut coordinator, state) = enrolled().await;
    coordinator.memory.lock().unwrap().refuse_session = Some(Reason::UnknownGateway);
    let agent = Running::start(state.path()).await;
    codes(&agent, &["coordinator-refuses"]).await;
    let told = agent.views.withdrawn.faults().borrow()[0].message.clone();
    assert!(
        told.contains("gateway gw-1 was removed. Its policy stays in force"),
        "{told}"
    );
    coordinator.memory.lock().unwrap().refuse_session = None;
    coordinator.restart().await;
    codes(&agent, &[]).await;
    step_comes(&coordinator, "coordinator-refuses").await;
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_runs_goes_on_with_a_new_key_by_itself_and_the_same_token_brings_the_same_one() {
    let (coordinator, state) = enrolled().await;
    let agent = Running::start(state.path()).await;
    coordinator.sessions(1).await;
    let public = |state: &std::path::Path| loaded(state).credentials().key().subject_public_key_info();
    let old = public(state.path());
    enrol_with(state.path(), &coordinator.token(), KeyChoice::New)
        .await
        .unwrap();
    let new = public(state.path());
    assert_ne!(old, new);
    coordinator.sessions(2).await;
    agent.stop().await;
    // Without the choice, the key is the one that there is.
    enrol(state.path(), &coordinator.token()).await.unwrap();
    assert_eq!(public(state.path()), new);
    // The answer was lost on the way: the next attempt shows the same key.
    coordinator.memory.lock().unwrap().refuse_token = Some(Reason::TokenUsed);
    enrol_with(state.path(), &coordinator.token(), KeyChoice::New)
        .await
        .unwrap_err();
    let folder = IdentityFolder::new(state.path());
    let next = folder.next_key().unwrap().subject_public_key_info();
    assert_eq!(public(state.path()), new, "the old one is in use until then");
    coordinator.memory.lock().unwrap().refuse_token = None;
    enrol_with(state.path(), &coordinator.token(), KeyChoice::New)
        .await
        .unwrap();
    assert_eq!(public(state.path()), next);
}

#[tokio::test]
async fn a_root_that_an_answer_brings_is_named_and_not_kept_and_no_certificate_of_it_is_taken() {
    let (coordinator, state) = enrolled().await;
    let folder = IdentityFolder::new(state.path());
    let held = folder.held_roots().unwrap();
    coordinator.memory.lock().unwrap().thief = Some(Arc::new(Authority::new()));
    let renewed = renew(&folder, &[], &loaded(state.path())).await.unwrap();
    assert!(renewed.strange_roots.unwrap().contains("they are not kept"));
    assert_eq!(folder.held_roots().unwrap(), held);
    let enrolled = enrol(state.path(), &coordinator.token()).await.unwrap();
    assert!(enrolled.to_string().contains("they are not kept"));
    assert_eq!(folder.held_roots().unwrap(), held);
    coordinator.memory.lock().unwrap().thief_issues = true;
    let chain = std::fs::read(state.path().join("identity/chain.pem")).unwrap();
    let error = renew(&folder, &[], &loaded(state.path())).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no root that this gateway holds issued"),
        "{error}"
    );
    assert_eq!(
        std::fs::read(state.path().join("identity/chain.pem")).unwrap(),
        chain
    );
    // The agent itself asks, since names are missing: health and trail name it.
    let agent = Running::start(state.path()).await;
    coordinator.sessions(1).await;
    let broker = ["10.0.0.5".parse().unwrap()];
    let (release, _) = world::offer_of(&world::ending_tls(&broker), 1, None, BOTH);
    coordinator.send(Some(Outbound::Offer(release)));
    codes(&agent, &["root-refused"]).await;
    step_comes(&coordinator, "root-refused").await;
    agent.stop().await;
    assert_eq!(folder.held_roots().unwrap(), held);
}

/// What the program prints with these arguments, and whether it did what it was asked.
async fn program(arguments: &[&str]) -> (bool, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_penstock-agent"));
    command.args(arguments).env_remove("SUDO_USER");
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_site_without_a_link_somebody_brings_the_list_in_a_file_whether_an_agent_runs_or_not() {
    let (coordinator, state) = enrolled().await;
    let config = state.path().join("agent.toml");
    std::fs::write(&config, format!("[agent]\nstate_folder = {:?}\n", state.path())).unwrap();
    let config = config.to_str().unwrap().to_owned();
    let file = state.path().join("list.json").to_str().unwrap().to_owned();
    let mut listed = Listed::new();
    let bring = |listed: &mut Listed, authority: &Authority| {
        let Outbound::Withdrawn(list) = listed.since(authority) else {
            panic!("it is a list");
        };
        let list = penstock_proto::withdrawn::SignedList::from(list);
        std::fs::write(&file, list.to_json()).unwrap();
    };
    let take = ["withdrawn", "take", &file, "--config", &config, "--by", "anna"];
    let show = ["withdrawn", "show", "--config", &config];
    let (_, said) = program(&show).await;
    assert_eq!(said, "no key was withdrawn, as far as this gateway knows\n");

    listed.withdraw("device/plc-7", 3);
    bring(&mut listed, &Authority::new());
    let (done, said) = program(&take).await;
    assert!(
        !done && said.contains("not signed by the plant's authority"),
        "{said}"
    );
    listed.sent = Withdrawn::default().held();
    bring(&mut listed, &coordinator.authority);
    let (done, said) = program(&take).await;
    assert!(
        done && said == "device/plc-7 (only life 3 and later ones count)\n",
        "{said}"
    );

    let agent = Running::start(state.path()).await;
    coordinator.sessions(1).await;
    holds(&agent, 1).await;
    step_comes(&coordinator, "keys-withdrawn").await;
    // It takes over what is brought while it runs, and says so when it connects again.
    listed.withdraw("gateway/gw-1", 2);
    bring(&mut listed, &coordinator.authority);
    let (done, said) = program(&take).await;
    assert!(done && said.contains("gateway/gw-1 (only life 2"), "{said}");
    codes(&agent, &["identity-withdrawn"]).await;
    let (_, said) = program(&["status", "--config", &config]).await;
    assert!(
        said.contains("penstock-agent enrol --new-key --token FILE"),
        "{said}"
    );
    agent.stop().await;
    let (_, said) = program(&["status", "--config", &config]).await;
    assert!(said.contains("this gateway's key was withdrawn"), "{said}");
    let (_, said) = program(&show).await;
    assert_eq!(
        said,
        "list         number 2\ngateway/gw-1  only life 2 and later ones count\ndevice/plc-7  only life 3 and later ones count\n"
    );
    let told: Vec<String> = {
        let events = coordinator.memory.lock().unwrap().events();
        let agents = events.into_iter().filter_map(|event| match event.kind {
            Some(Kind::Agent(agent)) if agent.step == "keys-withdrawn" => Some(agent.message),
            _ => None,
        });
        agents.collect()
    };
    assert!(
        told[0].contains("(said to be anna) at the gateway while no agent ran: device/plc-7"),
        "{told:?}"
    );
    assert!(
        told[1].contains("(said to be anna) at the gateway: gateway/gw-1"),
        "{told:?}"
    );
}
