//! A first policy that is reverted: what stood before it stands again, to the last route, and what passed before passes.
//!
//! The reconciler, its store and the enforcer are the real ones; only the clock is the test's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use penstock_agent::audit::Audit;
use penstock_agent::enforce::nft::run::Nft;
use penstock_agent::enforce::{Base, EnforceSettings, Enforcer};
use penstock_agent::inspector::SeatLimits;
use penstock_agent::policy_store::journal::Order;
use penstock_agent::reconcile::{Occasion, PolicyView, Reconciler, SharedStore, StandingState};
use penstock_agent::store::Store;
use penstock_agent::timepiece::{Time, Timepiece};
use penstock_lab as lab;
use penstock_policy::ids::{ApproverId, Digest, OperatorId, Revision};
use penstock_policy::merkle::leaf_hash;
use penstock_policy::model::{Approver, ApproverSet};
use penstock_policy::plan::{Capability, Plan};
use penstock_policy::release::signing::ApproverKey;
use penstock_policy::release::{STATEMENT_FORMAT, Statement, Trust, leaf_bytes};
use penstock_policy::terms::{GatewayMode, OnAgentLoss};
use penstock_proto::v1::{PolicyOffer, Signature, SignedRelease};
use penstock_tests::at_once;
use tokio::sync::{mpsc, watch};

use super::inspected::{Echo, connect, inspected, plant, refuses};
use super::world::{MODES, World, settings};

/// One that the plan permits, with operations, and one that nothing permits; in both families.
const SERVERS: [&str; 4] = [
    "10.2.0.9:502",
    "[fd00:2::9]:502",
    "10.2.0.9:8080",
    "[fd00:2::9]:8080",
];

fn key() -> ApproverKey {
    ApproverKey::from_seed(&[1; 32])
}

fn approvers() -> ApproverSet {
    let anna = Approver {
        key: key().public(),
        role: None,
    };
    ApproverSet {
        threshold: 1,
        emergency_threshold: None,
        people: BTreeMap::from([(ApproverId::new("anna").unwrap(), anna)]),
    }
}

fn offer(plan: &Plan) -> Arc<PolicyOffer> {
    let plan_bytes = plan.to_bytes();
    let leaf = leaf_bytes(&plan.gateway, Revision(1), Digest::of(&plan_bytes));
    let statement = Statement {
        format: STATEMENT_FORMAT.to_owned(),
        plant: plan.plant.clone(),
        revision: Revision(1),
        parent: None,
        replaces: Vec::new(),
        document_digest: Digest::of(b"document"),
        plans_root: Digest(leaf_hash(&leaf)),
        gateways: 1,
        approvers: approvers(),
        author: OperatorId::new("carla").unwrap(),
        ticket: None,
        reason: "test".to_owned(),
        created_ms: 1,
        emergency: false,
        withdrawn: None,
        trust: None,
        trails: None,
    }
    .to_bytes();
    let anna = ApproverId::new("anna").unwrap();
    let signature = Signature {
        approver: anna.to_string(),
        signature: key().sign(anna, &statement).unwrap().bytes().to_vec().into(),
        ..Default::default()
    };
    Arc::new(PolicyOffer {
        release: Some(SignedRelease {
            statement: statement.into(),
            signatures: vec![signature],
        }),
        plan: plan_bytes.into(),
        ..PolicyOffer::default()
    })
}

/// The agent's deciding and doing parts, over what outlives them.
struct Deciding {
    reconciler: Reconciler<Enforcer, SharedStore>,
    view: watch::Receiver<PolicyView>,
    _observed: mpsc::Receiver<penstock_agent::observed::Observation>,
}

impl Deciding {
    async fn start(folder: &Path, plan: &Plan, time: &Arc<Mutex<Time>>) -> Self {
        let settings = EnforceSettings {
            base_path: Some(folder.join("base.json")),
            note_path: Some(folder.join("note.json")),
            account_path: Some(folder.join("logged")),
            inspect: Some(SeatLimits::default()),
            ..settings()
        };
        let (sender, observed) = mpsc::channel(4096);
        let enforcer = Enforcer::start(settings, sender).unwrap();
        let store = Arc::new(Mutex::new(Store::open(&folder.join("state"))));
        let first_trust = Trust {
            plant: plan.plant.clone(),
            gateway: plan.gateway.clone(),
            approvers: approvers(),
            floor: Revision(0),
            current: None,
        };
        let audit = Audit::without_spool().0;
        let (reconciler, view) = Reconciler::new(Arc::new(enforcer), store, audit, Some(first_trust));
        let mut reconciler = reconciler.with_timepiece(Timepiece::Told(Arc::clone(time)));
        reconciler.start().await;
        Self {
            reconciler,
            view,
            _observed: observed,
        }
    }

    fn standing(&self) -> StandingState {
        self.view.borrow().standing.state.clone()
    }
}

/// Everything of the gateway that an agent may change, in words.
fn ground(world: &World, folder: &Path) -> Vec<String> {
    let gateway = &world.gateway;
    let mut found = vec![
        gateway.run("nft", &["list", "ruleset"]).unwrap(),
        gateway.ip(&["rule"]).unwrap(),
        gateway.ip(&["-6", "rule"]).unwrap(),
        gateway
            .ip(&["route", "show", "table", "all", "type", "local"])
            .unwrap(),
        gateway
            .ip(&["-6", "route", "show", "table", "all", "type", "local"])
            .unwrap(),
        format!("{:?}", Base::read(&folder.join("base.json")).unwrap()),
        format!("{}", folder.join("note.json").exists()),
    ];
    if world.mode == GatewayMode::Bridged {
        let shown = gateway.run("ip", &["-d", "link", "show", "br0"]).unwrap();
        let words: Vec<&str> = shown.split_whitespace().collect();
        for option in ["fdb_max_learned", "no_linklocal_learn"] {
            let value = words.windows(2).find(|pair| pair[0] == option);
            found.push(format!("{value:?}"));
        }
        for parameter in ["iptables", "ip6tables"] {
            let path = format!("/proc/sys/net/bridge/bridge-nf-call-{parameter}");
            found.push(gateway.run("cat", &[&path]).unwrap());
        }
    }
    found
}

fn planned(mode: GatewayMode) -> Plan {
    let mut plan = inspected(mode, OnAgentLoss::Block);
    plan.requires = ["kernel", "inspect:modbus-tcp"].map(Capability::of).into();
    if mode == GatewayMode::Bridged {
        plan.requires.insert(Capability::of(Capability::KERNEL_BRIDGE));
    }
    plan
}

fn on_trial() -> Order {
    Order {
        trial_ms: Some(60_000),
        ..Order::default()
    }
}

/// Runs `test` at a routed gateway and at a bridged one, with servers that echo.
fn at_plants(name: &str, test: impl AsyncFn(&World, &Path) + Sync) {
    lab::sandbox::test(name, |lab| {
        let worlds = MODES.map(|mode| plant(lab, mode));
        at_once(&worlds, |world| {
            let _echo = SERVERS.map(|address| Echo::start(&world.sides["lan2"].namespace, address));
            if world.mode == GatewayMode::Bridged {
                for parameter in ["iptables", "ip6tables"] {
                    let parameter = format!("net.bridge.bridge-nf-call-{parameter}");
                    world.gateway.sysctl(&parameter, "0").unwrap();
                }
            }
            let folder = tempfile::tempdir().unwrap();
            world.at_gateway(async || test(world, folder.path()).await);
        });
    })
    .unwrap();
}

#[test]
fn a_first_policy_that_nobody_confirms_leaves_nothing_of_itself_and_what_passed_before_passes_again() {
    at_plants(
        "withdrawn::a_first_policy_that_nobody_confirms_leaves_nothing_of_itself_and_what_passed_before_passes_again",
        async |world, folder| {
            let client = &world.sides["lan1"].namespace;
            let passes = || {
                for address in SERVERS {
                    connect(client, address).unwrap_or_else(|e| panic!("{:?} {address}: {e}", world.mode));
                }
            };
            passes();
            let before = ground(world, folder);
            let plan = planned(world.mode);
            let time = Arc::new(Mutex::new(Timepiece::Kernel.now()));
            // The second time, another agent has to bring it back.
            for is_restarted in [false, true] {
                let folder = folder.join(format!("{is_restarted}"));
                std::fs::create_dir_all(folder.join("state")).unwrap();
                let mut agent = Deciding::start(&folder, &plan, &time).await;
                agent
                    .reconciler
                    .step(Occasion::Offer(offer(&plan), on_trial()))
                    .await;
                let standing = agent.standing();
                assert!(
                    matches!(standing, StandingState::Trial { .. }),
                    "{:?}",
                    agent.view.borrow()
                );
                let amid = ground(world, &folder);
                assert_ne!(amid[0], before[0]);
                assert_ne!((&amid[1], &amid[2]), (&before[1], &before[2]));
                assert!(refuses(client, SERVERS[2]) && refuses(client, SERVERS[3]));
                time.lock().unwrap().boot += Duration::from_secs(61);
                if is_restarted {
                    drop(agent);
                    agent = Deciding::start(&folder, &plan, &time).await;
                } else {
                    agent.reconciler.step(Occasion::Due).await;
                }
                let standing = agent.standing();
                assert!(matches!(standing, StandingState::Reverted(_)), "{standing:?}");
                assert_eq!(agent.view.borrow().faults, []);
                assert_eq!(ground(world, &folder), before, "{:?}", world.mode);
                passes();
            }
        },
    );
}

#[test]
fn a_first_policy_that_is_reverted_over_base_rules_leaves_base_rules() {
    at_plants(
        "withdrawn::a_first_policy_that_is_reverted_over_base_rules_leaves_base_rules",
        async |world, folder| {
            let client = &world.sides["lan1"].namespace;
            let base = Base {
                mode: world.mode,
                interfaces: ["lan1".to_owned(), "lan2".to_owned()].into(),
                input: None,
            };
            base.write(&folder.join("base.json")).unwrap();
            base.load(&Nft::new("nft".into())).await.unwrap();
            let before = ground(world, folder);
            assert!(refuses(client, SERVERS[0]));
            let plan = planned(world.mode);
            let time = Arc::new(Mutex::new(Timepiece::Kernel.now()));
            std::fs::create_dir_all(folder.join("state")).unwrap();
            let mut agent = Deciding::start(folder, &plan, &time).await;
            agent
                .reconciler
                .step(Occasion::Offer(offer(&plan), on_trial()))
                .await;
            assert_ne!(ground(world, folder)[0], before[0]);
            time.lock().unwrap().boot += Duration::from_secs(61);
            agent.reconciler.step(Occasion::Due).await;
            assert_eq!(ground(world, folder), before, "{:?}", world.mode);
            assert!(refuses(client, SERVERS[0]) && refuses(client, SERVERS[2]));
        },
    );
}
