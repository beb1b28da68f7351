//! An agent that is killed amid a change of the kernel's tables: what passes until the next agent, and what that one makes of it.
//!
//! The killed agent's `nft` is [`Stopping`]: it loads so many scripts and no further one. Each step between two transactions is tried, until
//! one more would have let the agent finish.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use penstock_agent::enforce::nft::render;
use penstock_agent::enforce::nft::run::Nft;
use penstock_agent::enforce::{ApplyMethod, Base, DriftState, EnforceSettings};
use penstock_agent::observed::{LossCause, Observation};
use penstock_lab as lab;
use penstock_policy::ids::Revision;
use penstock_policy::plan::Plan;
use penstock_policy::terms::GatewayMode;
use penstock_policy::verdict::Carried;

use super::losses::{Undeclared, loses_nothing_while};
use super::plans::{SIDES, rule, tcp, two_flows};
use super::wire::{Part, Probe};
use super::world::{Agent, MODES, PATIENCE, World, settings};

/// The program `nft`, until it has loaded as many scripts as it may. Then it says so and does nothing more.
pub(super) struct Stopping {
    folder: tempfile::TempDir,
}

impl Stopping {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().display();
        let script = format!(
            "#!/bin/sh
             if [ \"$1\" = -f ]; then
               left=$(cat {here}/left)
               if [ \"$left\" = 0 ]; then
                 echo > {here}/reached
                 exec sleep 3600
               fi
               echo $((left - 1)) > {here}/left
             fi
             exec nft \"$@\"
            "
        );
        let stopping = Self { folder };
        std::fs::write(stopping.program(), script).unwrap();
        std::fs::set_permissions(stopping.program(), PermissionsExt::from_mode(0o755)).unwrap();
        stopping
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("nft")
    }

    fn allow(&self, loads: u32) {
        let _ = std::fs::remove_file(self.folder.path().join("reached"));
        std::fs::write(self.folder.path().join("left"), loads.to_string()).unwrap();
    }

    async fn reached(&self) {
        while !self.folder.path().join("reached").exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// An agent that holds `before` begins to load `plan` and is killed after so many transactions; whether it was done by then.
    pub(super) async fn kill_amid(
        &self,
        settings: EnforceSettings,
        before: Option<&Plan>,
        plan: &Plan,
        loads: u32,
    ) -> bool {
        self.allow(1000);
        let agent = Agent::start_with(EnforceSettings {
            nft: self.program(),
            ..settings
        });
        if let Some(before) = before {
            agent.apply(before, 1).await;
        }
        self.allow(loads);
        let applying = agent.enforcer.apply(Arc::new(plan.clone()), Revision(2));
        let is_done = tokio::select! {
            applied = applying => applied.map(|_| true).unwrap(),
            () = self.reached() => false,
            () = tokio::time::sleep(PATIENCE) => panic!("neither done nor stopped"),
        };
        // Nothing of it runs between the step and this, as nothing would after a kill.
        drop(agent);
        is_done
    }
}

/// What the killed agent was about to load, and over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The first rules that this gateway ever had.
    First,
    /// The first after a boot, over the base rules.
    Boot,
    /// Tables that take the place of another version's.
    Tables,
    /// Rules around the maps that stand.
    Rules,
    /// Flows alone.
    Flows,
}

impl Kind {
    /// The log group, which stands for a version: of the agent that is killed, and of the one after it.
    fn versions(self) -> (u16, u16) {
        match self {
            Self::First | Self::Boot | Self::Rules => (86, 86),
            Self::Tables => (87, 87),
            // The same version would take over what was loaded as its own.
            Self::Flows => (86, 87),
        }
    }

    /// How many transactions it takes, with the seal.
    fn loads(self) -> u32 {
        match self {
            Self::First | Self::Boot | Self::Rules => 2,
            Self::Tables => 7,
            Self::Flows => 0,
        }
    }
}

fn of_version(folder: &Path, log_group: u16) -> EnforceSettings {
    EnforceSettings {
        base_path: Some(folder.join("base.json")),
        note_path: Some(folder.join("left.json")),
        log_group,
        ..settings()
    }
}

/// Both have the flows of [`two_flows`], and each one more.
fn plans(mode: GatewayMode, kind: Kind) -> [Plan; 2] {
    let [mut old, mut new] = [two_flows(mode), two_flows(mode)];
    old.rules.push(rule(9, &["10.1.0.5"], &["10.2.0.9"], tcp(600)));
    new.rules.push(rule(10, &["10.1.0.5"], &["10.2.0.9"], tcp(700)));
    if kind == Kind::Rules {
        new.management.as_mut().unwrap().peers.pop();
    }
    [old, new]
}

/// Which passes now: what both plans permit, the old, the new, neither.
fn passing(world: &World, number: u16, expected: [bool; 4]) -> [bool; 4] {
    [502, 600, 700, 800].map(|port| {
        let probe = Probe {
            source: "10.1.0.5".parse().unwrap(),
            destination: "10.2.0.9".parse().unwrap(),
            transport: Carried::Tcp(port),
            number,
            dscp: 0,
        };
        let expected = expected[usize::from(port / 100 - 5)];
        world.passes("lan1", "lan2", &probe, Part::Opening, expected)
    })
}

/// Brings the kernel and the state folder to what the killed agent finds.
async fn prepare(folder: &Path, kind: Kind, old: &Plan) {
    Nft::new("nft".into()).load(&render::remove()).await.unwrap();
    if kind == Kind::First {
        return;
    }
    let first = Agent::start_with(of_version(folder, 86));
    first.apply(old, 1).await;
    first.enforcer.leave().await.unwrap();
    drop(first);
    if kind == Kind::Boot {
        let note = folder.join("left.json");
        let mut noted: serde_json::Value = serde_json::from_slice(&std::fs::read(&note).unwrap()).unwrap();
        noted["boot"] = "the boot before".into();
        std::fs::write(&note, noted.to_string()).unwrap();
        let nft = Nft::new("nft".into());
        nft.load(&render::remove()).await.unwrap();
        let base = Base::read(&folder.join("base.json")).unwrap().unwrap();
        base.load(&nft).await.unwrap();
    }
}

/// The events of a start, and of drift.
fn told(agent: &mut Agent) -> Vec<Observation> {
    let told = std::iter::from_fn(|| agent.observed.try_recv().ok());
    told.filter(|seen| {
        matches!(
            seen,
            Observation::Start { .. } | Observation::Condition(_) | Observation::Drift { .. }
        )
    })
    .collect()
}

async fn killed_after(world: &World, kind: Kind, loads: u32) -> bool {
    let (mode, number) = (world.mode, 5000 + 10 * u16::try_from(loads).unwrap());
    let what = format!("{mode:?} {kind:?}, killed after {loads} transactions");
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let [old, new] = plans(mode, kind);
    prepare(folder, kind, &old).await;
    let (version, next) = kind.versions();
    let before = matches!(kind, Kind::Rules | Kind::Flows).then_some(&old);
    let stopping = Stopping::new();
    let is_done = stopping
        .kill_amid(of_version(folder, version), before, &new, loads)
        .await;

    let (of_old, of_new) = match kind {
        Kind::First | Kind::Boot => (false, loads > 0),
        Kind::Rules => (loads == 0, loads > 0),
        // The tables beside take over in the second.
        Kind::Tables => (loads < 2, loads >= 2),
        Kind::Flows => (false, true),
    };
    // Where there never was a policy, none is enforced yet.
    if (kind, loads) != (Kind::First, 0) {
        let expected = [of_old || of_new, of_old, of_new, false];
        assert_eq!(passing(world, number, expected), expected, "{what}");
    }

    let mut agent = Agent::start_with(of_version(folder, next));
    agent.apply(&new, 2).await;
    let expected = [true, false, true, false];
    assert_eq!(
        passing(world, number + 1, expected),
        expected,
        "{what}, after a restart"
    );
    assert_eq!(agent.enforcer.stood_open(), None, "{what}");
    let told = told(&mut agent);
    match (kind, &told[..]) {
        (Kind::First, []) => assert!(!is_done, "{what}"),
        (_, [Observation::Start { step, unusual, .. }]) if is_done && kind != Kind::Flows => {
            assert_eq!((*step, *unusual), ("rules-stood", false), "{what}: {told:?}");
        }
        (_, [Observation::Start { step, .. }]) => assert!(
            matches!(*step, "rules-renewed" | "rules-unfinished"),
            "{what}: {told:?}"
        ),
        _ => panic!("{what}: {told:?}"),
    }
    assert_eq!(agent.enforcer.verify().await.unwrap(), DriftState::None, "{what}");
    let tables = world.gateway.run("nft", &["list", "tables"]).unwrap();
    assert!(!tables.contains("penstock_beside"), "{what}: {tables}");
    // What the next agent notes holds again for the one after it.
    agent.enforcer.leave().await.unwrap();
    drop(agent);
    let mut agent = Agent::start_with(of_version(folder, next));
    agent.apply(&new, 2).await;
    let told = self::told(&mut agent);
    assert!(
        matches!(
            told[..],
            [Observation::Start {
                step: "rules-stood",
                unusual: false,
                ..
            }]
        ),
        "{what}: {told:?}"
    );
    is_done
}

#[test]
fn an_agent_that_is_killed_amid_a_change_leaves_one_of_two_plans_and_the_next_agent_finishes_it() {
    lab::sandbox::test(
        "unfinished::an_agent_that_is_killed_amid_a_change_leaves_one_of_two_plans_and_the_next_agent_finishes_it",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &SIDES);
                for kind in [Kind::First, Kind::Boot, Kind::Tables, Kind::Rules, Kind::Flows] {
                    world.at_gateway(async || {
                        let mut loads = 0;
                        while !killed_after(&world, kind, loads).await {
                            loads += 1;
                        }
                        assert_eq!(loads, kind.loads(), "{mode:?} {kind:?}");
                    });
                }
            }
        },
    )
    .unwrap();
}

#[test]
fn not_a_packet_of_a_running_flow_is_lost_while_agents_are_killed_between_transactions() {
    loses_nothing_while(
        "unfinished::not_a_packet_of_a_running_flow_is_lost_while_agents_are_killed_between_transactions",
        Undeclared::Refused,
        async |mode, go| {
            let stopping = Stopping::new();
            let of_version = |log_group| EnforceSettings {
                log_group,
                ..settings()
            };
            for (kind, first) in [(Kind::Tables, 86), (Kind::Rules, 90)] {
                let [old, new] = plans(mode, kind);
                for loads in 0..=kind.loads() {
                    let agent = Agent::start_with(of_version(first));
                    agent.apply(&old, 1).await;
                    drop(agent);
                    let version = if kind == Kind::Tables { 88 } else { first };
                    let before = (kind == Kind::Rules).then_some(&old);
                    go.store(true, Relaxed);
                    stopping.kill_amid(of_version(version), before, &new, loads).await;
                    let agent = Agent::start_with(of_version(version));
                    agent.apply(&new, 2).await;
                    drop(agent);
                }
            }
        },
    );
}

#[test]
fn nothing_passes_unjudged_where_somebody_put_a_rule_into_tables_that_a_killed_agent_had_emptied() {
    lab::sandbox::test(
        "unfinished::nothing_passes_unjudged_where_somebody_put_a_rule_into_tables_that_a_killed_agent_had_emptied",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &SIDES);
                world.at_gateway(async || {
                    let folder = tempfile::tempdir().unwrap();
                    let [old, new] = plans(mode, Kind::Tables);
                    prepare(folder.path(), Kind::Tables, &old).await;
                    let stopping = Stopping::new();
                    let version = || of_version(folder.path(), 87);
                    // The tables beside judge, those under our own name are empty.
                    assert!(!stopping.kill_amid(version(), None, &new, 2).await);
                    let rule = "add rule inet penstock forward counter\n";
                    Nft::new("nft".into()).load(rule).await.unwrap();
                    let expected = [true, false, true, false];
                    let mut loads = 0;
                    while !stopping.kill_amid(version(), None, &new, loads).await {
                        let number = 5000 + 10 * u16::try_from(loads).unwrap();
                        assert_eq!(
                            passing(&world, number, expected),
                            expected,
                            "{mode:?}, after {loads} transactions"
                        );
                        loads += 1;
                    }
                    assert_eq!(passing(&world, 6000, expected), expected, "{mode:?}");
                    let tables = world.gateway.run("nft", &["list", "tables"]).unwrap();
                    assert!(!tables.contains("penstock_beside"), "{mode:?}: {tables}");
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn tables_that_a_killed_agent_had_not_filled_yet_are_taken_away_where_those_before_are_taken_over() {
    lab::sandbox::test(
        "unfinished::tables_that_a_killed_agent_had_not_filled_yet_are_taken_away_where_those_before_are_taken_over",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &SIDES);
                world.at_gateway(async || {
                    let folder = tempfile::tempdir().unwrap();
                    let [old, new] = plans(mode, Kind::Tables);
                    prepare(folder.path(), Kind::Tables, &old).await;
                    // Another version is tried, is killed, and the one before comes back.
                    let tried = of_version(folder.path(), 87);
                    assert!(!Stopping::new().kill_amid(tried, None, &new, 1).await);
                    let agent = Agent::start_with(of_version(folder.path(), 86));
                    assert_eq!(agent.apply(&old, 1).await.change, ApplyMethod::Adopted, "{mode:?}");
                    let tables = world.gateway.run("nft", &["list", "tables"]).unwrap();
                    assert!(!tables.contains("penstock_beside"), "{mode:?}: {tables}");
                    assert_eq!(agent.enforcer.verify().await.unwrap(), DriftState::None);
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn what_the_tables_beside_logged_while_no_agent_ran_is_reported_as_lost() {
    lab::sandbox::test(
        "unfinished::what_the_tables_beside_logged_while_no_agent_ran_is_reported_as_lost",
        |lab| {
            let world = World::new(lab, GatewayMode::Routed, &SIDES);
            world.at_gateway(async || {
                let folder = tempfile::tempdir().unwrap();
                let [old, new] = plans(world.mode, Kind::Tables);
                prepare(folder.path(), Kind::Tables, &old).await;
                let of_version = |log_group| EnforceSettings {
                    account_path: Some(folder.path().join("logged")),
                    ..of_version(folder.path(), log_group)
                };
                assert!(!Stopping::new().kill_amid(of_version(87), None, &new, 3).await);
                // Two are refused, and two connections begin, each with a message.
                passing(&world, 5000, [true, false, true, false]);
                let mut agent = Agent::start_with(of_version(87));
                let seen = agent
                    .observe_until(|seen| matches!(seen, Observation::Lost { .. }))
                    .await;
                let lost = seen.iter().find_map(|seen| match seen {
                    Observation::Lost { packets, cause } => Some((*packets, *cause)),
                    _ => None,
                });
                assert_eq!(lost, Some((4, LossCause::NobodyListened)));
            });
        },
    )
    .unwrap();
}

/// The commands by which, as the runbook says, a person opens a gateway whose agent is stopped.
fn opening_by_hand() -> &'static str {
    let runbook = include_str!("../../../deploy/runbook.md");
    let (_, after) = runbook.split_once("may open the whole gateway by hand:").unwrap();
    let stop_and_open = after.split("```").nth(1).unwrap();
    let mut commands = stop_and_open.lines().filter_map(|line| line.strip_prefix("# "));
    assert_eq!(commands.next(), Some("systemctl stop penstock-agent"));
    commands.next().unwrap()
}

#[test]
fn what_the_runbook_says_opens_a_gateway_by_hand_opens_it_also_where_an_agent_was_killed_amid_a_change() {
    lab::sandbox::test(
        "unfinished::what_the_runbook_says_opens_a_gateway_by_hand_opens_it_also_where_an_agent_was_killed_amid_a_change",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &SIDES);
                world.at_gateway(async || {
                    for loads in [0, 2, 4] {
                        let folder = tempfile::tempdir().unwrap();
                        let [old, new] = plans(mode, Kind::Tables);
                        prepare(folder.path(), Kind::Tables, &old).await;
                        let version = of_version(folder.path(), 87);
                        assert!(!Stopping::new().kill_amid(version, None, &new, loads).await);
                        world.gateway.run("sh", &["-c", opening_by_hand()]).unwrap();
                        let number = 5000 + 10 * u16::try_from(loads).unwrap();
                        assert_eq!(passing(&world, number, [true; 4]), [true; 4], "{mode:?} {loads}");
                    }
                });
            }
        },
    )
    .unwrap();
}
