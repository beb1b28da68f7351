//! The shell with real machines over a store that fails, fails late, or is left by a coordinator that is killed: whatever happens, no
//! gateway gets what the store does not have, and once all is well the rollout is completed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Mutex as Lock;

use penstock_policy::diagnostics::SourceFile;
use penstock_policy::ids::{ApproverId, CoordinatorId, Digest, GatewayId, OperatorId, PlantId, Revision};
use penstock_policy::release::signing::ApproverKey;
use penstock_policy::release::{DocumentFile, Draft, build, document_digest};
use penstock_policy::rollout::{Converge, FORMAT, GateLimits, RolloutPlan, Selector, Span, Wave};
use penstock_proto::convert::PolicyMark;
use penstock_proto::v1;
use penstock_proto::v1::policy_standing::State;
use proptest::prelude::*;

use super::stored::{PREFIX, StoredRollout};
use super::*;
use crate::releases::nothing;
use crate::rollout::{Command, Mark};
use crate::sessions::{BegunSession, News, Word};
use crate::store::FaultCause;
use crate::store::memory::{InMemory, Mood};

/// Gateways of the plant; the first two are a pair.
const GATEWAYS: usize = 5;

fn key() -> ApproverKey {
    ApproverKey::from_seed(&[7; 32])
}

fn document(title: &str) -> String {
    let public = String::from(key().public());
    let mut text = format!(
        "plant: riverside\napprovers:\n  threshold: 1\n  people:\n    bob: {{ key: \"{public}\" }}\nsites:\n  works: {{ title: {title}, timezone: UTC }}\ngateways:\n"
    );
    for n in 1..=GATEWAYS {
        let partner = match n {
            1 => "    redundant_with: gw-2\n",
            2 => "    redundant_with: gw-1\n",
            _ => "",
        };
        text.push_str(&format!(
            "  gw-{n}:\n    site: works\n    mode: routed\n{partner}    interfaces:\n      eth1: {{ zone: operations, address: 10.20.1.{n}/24 }}\n      \
             eth2: {{ zone: control, address: 10.30.1.{n}/24 }}\n"
        ));
    }
    text.push_str(
        "zones:\n  operations: { title: Operations, kind: operations, networks: [10.20.1.0/24] }\n  control: { title: Control, kind: \
         control, networks: [10.30.1.0/24] }\nassets:\n  hmi: { zone: operations, address: 10.20.1.200 }\n",
    );
    text
}

fn plan() -> RolloutPlan {
    let wave = |name: &str, gateways: Selector| Wave {
        name: name.to_owned(),
        gateways,
        per_cell: 10,
        soak: Span::seconds(0),
    };
    RolloutPlan {
        format: FORMAT.to_owned(),
        seed: 1,
        start_ms: None,
        shadow: Span::seconds(0),
        trial: Span::seconds(3600),
        silence: Span::seconds(3600),
        patience: Span::seconds(7200),
        gate: GateLimits { soft_rate: 0.02 },
        converge: Converge { at_once: 5 },
        waves: vec![
            wave("first", Selector::List(vec!["gw-3".parse().unwrap()])),
            wave("rest", Selector::All),
        ],
    }
}

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
enum Happens {
    /// The shell makes a pass.
    Pass,
    /// A gateway does what it was given, and reports.
    Acts(usize),
    /// It reports what it did not do yet, or again.
    Reports(usize),
    Connects(usize),
    Leaves(usize),
    /// It goes on by the order that it has.
    Alone(usize),
    Store(Mood),
    /// The coordinator is killed and started again.
    Killed,
    Freezes(bool),
    Steers(bool),
}

fn happenings() -> impl Strategy<Value = Happens> {
    let which = 0..GATEWAYS;
    prop_oneof![
        30 => Just(Happens::Pass),
        30 => which.clone().prop_map(Happens::Acts),
        5 => which.clone().prop_map(Happens::Reports),
        8 => which.clone().prop_map(Happens::Connects),
        4 => which.clone().prop_map(Happens::Leaves),
        4 => which.prop_map(Happens::Alone),
        4 => Just(Happens::Store(Mood::Works)),
        4 => Just(Happens::Store(Mood::Fails(FaultCause::Full))),
        4 => Just(Happens::Store(Mood::FailsLate(FaultCause::Disk))),
        3 => Just(Happens::Killed),
        2 => any::<bool>().prop_map(Happens::Freezes),
        2 => any::<bool>().prop_map(Happens::Steers),
    ]
}

#[derive(Default)]
struct Gateway {
    effective: Option<PolicyMark>,
    staged: Option<PolicyMark>,
    on_trial: bool,
    order: u64,
    /// What it may go on to without a session, as one that is islanded does, or an agent of old.
    kept: Option<PolicyMark>,
    words: u64,
    session: Option<BegunSession>,
    confirmed: u32,
}

struct World {
    kept: InMemory,
    mood: Arc<Lock<Mood>>,
    rollouts: Rollouts,
    gateways: Vec<Gateway>,
    wanted: Digest,
}

fn name(at: usize) -> GatewayId {
    format!("gw-{}", at + 1).parse().unwrap()
}

async fn open(kept: &InMemory, mood: &Arc<Lock<Mood>>) -> Result<Rollouts, Refusal> {
    let store = kept.moody(mood.clone());
    let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
    let releases = Releases::open(store.clone(), PlantId::new("riverside").unwrap()).await?;
    Rollouts::open(store, journal, releases, Arc::default(), AfterApproval::Wait).await
}

/// Proposes and approves a release.
async fn approve(rollouts: &Rollouts, revision: u64) -> Digest {
    let text = document(&format!("W{revision}"));
    let source = SourceFile {
        name: "plant.yaml".to_owned(),
        text: text.clone(),
    };
    let plant = penstock_policy::load(&[source], jiff::civil::date(2026, 1, 1))
        .plant
        .unwrap();
    let releases = &rollouts.shared.releases;
    let (name, content) = ("plant.yaml", text.as_bytes());
    let draft = Draft {
        emergency: false,
        withdrawn: None,
        trust: None,
        trails: None,
        revision: Revision(revision),
        parent: releases.now().map(|current| current.recorded.digest),
        replaces: Vec::new(),
        document_digest: document_digest(&[DocumentFile { name, content }]),
        author: OperatorId::new("anna").unwrap(),
        ticket: None,
        reason: "test".to_owned(),
        created_ms: 1,
    };
    let statement = build(&plant, draft).unwrap().statement.to_bytes();
    let documents = vec![v1::DocumentFile {
        name: "plant.yaml".to_owned(),
        content: text.into_bytes().into(),
    }];
    let journal = &rollouts.shared.journal;
    let deed = journal.deed("anna", "engineer", "propose-release");
    let author = OperatorId::new("anna").unwrap();
    releases
        .propose(&author, &statement, documents, nothing, deed, 1)
        .await
        .unwrap();
    let signature = key().sign(ApproverId::new("bob").unwrap(), &statement).unwrap();
    let request = v1::ApproveReleaseRequest {
        revision,
        statement_digest: Digest::of(&statement).0.to_vec().into(),
        signature: Some((&signature).into()),
        brought: false,
    };
    let deed = journal.deed("bob", "approver", "approve-release");
    releases
        .approve(&OperatorId::new("bob").unwrap(), &request, deed, 2)
        .await
        .unwrap();
    Digest::of(&statement)
}

fn who() -> Who {
    Who {
        by: "anna".to_owned(),
        reason: "test".to_owned(),
        ticket: String::new(),
    }
}

impl World {
    async fn new() -> Self {
        let (kept, mood) = (InMemory::default(), Arc::<Lock<Mood>>::default());
        let rollouts = open(&kept, &mood).await.unwrap();
        let wanted = approve(&rollouts, 1).await;
        let start = Start {
            revision: Revision(1),
            statement: wanted,
            plan: Some(plan()),
            who: who(),
        };
        let event = rollouts.shared.journal.own_event("start-rollout", "", "");
        rollouts.start(start, event).await.unwrap();
        Self {
            kept,
            mood,
            rollouts,
            gateways: (0..GATEWAYS).map(|_| Gateway::default()).collect(),
            wanted,
        }
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    async fn pass(&self) -> Result<(), Refusal> {
        let shared = &self.rollouts.shared;
        let mut desk = shared.desk.lock().await;
        shared.pass(&mut desk, false).await
    }

    fn policy(gateway: &Gateway) -> v1::PolicyState {
        let about = gateway.staged.map(v1::RevisionDigest::from).unwrap_or_default();
        let trial = v1::OnTrial {
            confirmable: true,
            ..v1::OnTrial::default()
        };
        v1::PolicyState {
            effective: gateway.effective.map(Into::into),
            staged: gateway.staged.map(Into::into),
            standing: Some(v1::PolicyStanding {
                order: gateway.order,
                revision: about.revision,
                statement_digest: about.statement_digest,
                state: gateway.on_trial.then_some(State::Trial(trial)),
            }),
            ..v1::PolicyState::default()
        }
    }

    fn connect(&mut self, at: usize) {
        let gateway = &mut self.gateways[at];
        (gateway.order, gateway.words) = (0, 0);
        let hello = v1::Hello {
            capabilities: vec!["trials".to_owned()],
            policy: Some(Self::policy(gateway)),
            ..v1::Hello::default()
        };
        gateway.session = Some(self.rollouts.shared.fleet.begin(&name(at), 1, Box::new(hello), 1));
    }

    fn report(&self, at: usize) {
        let gateway = &self.gateways[at];
        if let Some(session) = &gateway.session {
            let news = News::Policy(Box::new(Self::policy(gateway)));
            self.rollouts
                .shared
                .fleet
                .learn(&name(at), session.number, &news, 1);
        }
    }

    /// What the store has, whatever its mood.
    async fn stored(&self) -> Vec<StoredRollout> {
        let store = self.kept.moody(Arc::default());
        let all = store.list_json::<StoredRollout>(PREFIX).await.unwrap();
        all.into_iter().map(|(_, stored, _)| stored).collect()
    }

    /// A gateway does what it was given.
    async fn acts(&mut self, at: usize) {
        let stored = self.stored().await;
        let mark = stored[0].rollout.mark(u32::try_from(at).unwrap()).unwrap();
        let gateway = &mut self.gateways[at];
        let Some(session) = &mut gateway.session else {
            return;
        };
        let directive = session.directives.borrow_and_update().clone();
        if let Some((wanted, _)) = directive.target {
            let order = wanted.order.unwrap();
            gateway.staged = Some(wanted.mark);
            assert!(order.number >= gateway.order, "orders rise");
            gateway.order = order.number;
            if order.upto == v1::Upto::Active {
                let opened = mark.may_be_unconfirmed() || mark.is_confirmed();
                assert!(opened, "it may activate, which the store does not have: {mark:?}");
            }
            gateway.kept = (order.upto == v1::Upto::Active).then_some(wanted.mark);
            // Not at once, if its window is closed.
            if order.number % 3 > 0 {
                self.goes_on(at);
            }
        }
        let gateway = &mut self.gateways[at];
        if let Some((number, word)) = directive.word.filter(|(number, _)| *number > gateway.words) {
            gateway.words = number;
            assert_eq!(word, Word::Confirm(self.wanted));
            if std::mem::take(&mut gateway.on_trial) {
                gateway.confirmed += 1;
            }
        }
        self.report(at);
    }

    fn goes_on(&mut self, at: usize) {
        let gateway = &mut self.gateways[at];
        if gateway.kept.is_some() && gateway.effective != gateway.kept {
            (gateway.effective, gateway.on_trial) = (gateway.kept, true);
        }
        // Of a pair, one at a time.
        assert!(!(self.gateways[0].on_trial && self.gateways[1].on_trial));
    }

    async fn killed(&mut self) {
        for gateway in &mut self.gateways {
            gateway.session = None;
        }
        self.set(Mood::Works);
        self.rollouts = open(&self.kept, &self.mood).await.unwrap();
    }

    async fn happens(&mut self, happens: Happens) {
        match happens {
            Happens::Pass => drop(self.pass().await),
            Happens::Acts(at) => self.acts(at).await,
            Happens::Reports(at) => self.report(at),
            Happens::Connects(at) => self.connect(at),
            Happens::Leaves(at) => {
                if let Some(session) = self.gateways[at].session.take() {
                    self.rollouts.shared.fleet.end(&name(at), session.number);
                }
            }
            Happens::Alone(at) => {
                self.goes_on(at);
                self.report(at);
            }
            Happens::Store(mood) => self.set(mood),
            Happens::Killed => self.killed().await,
            Happens::Freezes(frozen) => {
                let event = self.rollouts.shared.journal.own_event("freeze-rollouts", "", "");
                let _ = self.rollouts.freeze(Freeze { frozen, who: who() }, event).await;
            }
            Happens::Steers(pauses) => {
                let why = "wait".to_owned();
                let (command, what) = match pauses {
                    true => (Command::Pause { why }, "paused"),
                    false => (Command::Resume, "resumed"),
                };
                let before = self.stored().await;
                let event = self.rollouts.shared.journal.own_event("stop-rollout", "", "");
                let steer = Steer {
                    revision: Revision(1),
                    command,
                    what,
                    who: who(),
                };
                let fails = matches!(*self.mood.lock().unwrap(), Mood::Fails(_));
                if self.rollouts.steer(steer, event).await.is_ok() {
                    assert!(!fails, "it is done, which the store does not have");
                    assert_ne!(self.stored().await, before);
                }
            }
        }
    }

    /// All is well from now on.
    async fn settles(&mut self) {
        self.set(Mood::Works);
        let _ = self.pass().await;
        self.happens(Happens::Freezes(false)).await;
        self.happens(Happens::Steers(false)).await;
        for at in 0..GATEWAYS {
            self.connect(at);
        }
        for _ in 0..60 {
            let _ = self.pass().await;
            for at in 0..GATEWAYS {
                self.acts(at).await;
                self.happens(Happens::Alone(at)).await;
            }
        }
        let stored = self.stored().await;
        let shown = self.rollouts.show(Revision(1), true).await.unwrap();
        assert_eq!(stored[0].rollout.stage().word(), "completed", "{shown:?}");
        let last = |what| stored[0].events.iter().rposition(|event| event.what == what);
        assert!(
            last("confirmed") < last("completed"),
            "the cause stands first: {shown:?}"
        );
        for gateway in &self.gateways {
            assert_eq!((gateway.confirmed, gateway.on_trial), (1, false), "once");
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]
    #[test]
    fn nothing_comes_of_a_step_that_the_store_does_not_have_and_all_is_carried_once_faults_stop(
        schedule in prop::collection::vec(happenings(), 1..150),
    ) {
        runtime().block_on(async {
            let mut world = World::new().await;
            for happens in schedule {
                world.happens(happens).await;
            }
            world.settles().await;
        });
    }
}

#[test]
fn a_step_that_the_store_wrote_and_called_a_failure_is_taken_up_from_there() {
    runtime().block_on(async {
        let mut world = World::new().await;
        for at in 0..GATEWAYS {
            world.connect(at);
        }
        world.set(Mood::FailsLate(FaultCause::Disk));
        let _ = world.pass().await;
        for at in 0..GATEWAYS {
            world.acts(at).await;
        }
        let failed = world.pass().await.unwrap_err();
        assert_eq!(
            failed.reason,
            penstock_proto::refusal::Reason::StoreUnavailable,
            "{failed}"
        );
        // The store has that the first is opened; nobody was given anything by what may not be there.
        assert_eq!(world.stored().await[0].rollout.counts()[&Mark::Opened], 1);
        for gateway in &mut world.gateways {
            let session = gateway.session.as_mut().unwrap();
            let target = session.directives.borrow().target.clone();
            assert!(target.is_some_and(|(wanted, _)| !wanted.is_active()));
        }
        world.settles().await;
    });
}

#[test]
fn a_release_that_was_approved_and_not_started_is_no_baseline_after_a_restart() {
    runtime().block_on(async {
        let (kept, mood) = (InMemory::default(), Arc::<Lock<Mood>>::default());
        let rollouts = open(&kept, &mood).await.unwrap();
        approve(&rollouts, 1).await;
        drop(rollouts);
        let rollouts = open(&kept, &mood).await.unwrap();
        let desk = rollouts.shared.desk.lock().await;
        assert!(desk.lives.is_empty());
        assert_eq!(desk.releases(), BTreeSet::new());
    });
}

#[test]
fn events_of_a_long_rollout_are_kept_from_both_ends_and_the_others_counted() {
    runtime().block_on(async {
        let world = World::new().await;
        let mut desk = world.rollouts.shared.desk.lock().await;
        let live = &mut desk.lives[0];
        for n in 0..1000_u32 {
            live.say("", "test", n.to_string(), 1);
        }
        assert!(live.log.events.len() <= 200 && live.log.omitted > 790);
        assert_eq!(live.log.events[0].what, "started");
        assert_eq!(live.log.events.last().unwrap().message, "999");
        assert!(live.unsaid.len() <= 2000);
        assert_eq!(live.machine.mark(0), Some(Mark::Waiting));
    });
}
