//! The agent as a process: planned restarts under a service manager, and its sudden end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use penstock_agent::intercept::ALIVE_S;
use penstock_agent::policy_store;
use penstock_agent::store::Store;
use penstock_lab::{self as lab, Daemon, Lab, wait_until};
use penstock_policy::ids::{Digest, Revision};
use penstock_policy::model::ApproverSet;
use penstock_policy::plan::Plan;
use penstock_policy::release::Trust;
use penstock_policy::terms::{GatewayMode, OnAgentLoss};
use penstock_proto::v1::{PolicyOffer, SignedRelease};
use penstock_tests::at_once;

use super::life;
use super::world::{MODES, PATIENCE, SERVER, World, peer, polling, python};

/// A gateway's state as if it had accepted `plan` before; the configuration of an agent on it.
pub fn prepare(lab: &Lab, world: &World, plan: &Plan) -> PathBuf {
    let folder = lab.directory().join(format!("{:?}", world.mode));
    let state = folder.join("state");
    std::fs::create_dir_all(&state).unwrap();
    let statement = b"accepted before".to_vec();
    let trust = Trust {
        plant: plan.plant.clone(),
        gateway: plan.gateway.clone(),
        approvers: ApproverSet {
            emergency_threshold: None,
            threshold: 1,
            people: std::collections::BTreeMap::new(),
        },
        floor: Revision(1),
        current: Some(Digest::of(&statement)),
    };
    let offer = PolicyOffer {
        release: Some(SignedRelease {
            statement: statement.into(),
            ..SignedRelease::default()
        }),
        plan: plan.to_bytes().into(),
        ..PolicyOffer::default()
    };
    let mut store = Store::open(&state);
    policy_store::stage(
        &mut store,
        None,
        (&trust, &policy_store::journal::Order::default()),
        &offer,
    )
    .unwrap();
    drop(store);
    let config = folder.join("agent.toml");
    let text = format!(
        "[agent]\nstate_folder = \"{}\"\n[audit]\nspool_bytes_max = 8388608\nfree_bytes_min = 1048576\n",
        state.display()
    );
    std::fs::write(&config, text).unwrap();
    config
}

pub fn agent() -> String {
    let tests = std::env::current_exe().unwrap();
    let program = tests
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("penstock-agent");
    assert!(program.is_file(), "{}: cargo build --bins", program.display());
    program.to_string_lossy().into_owned()
}

fn poll(world: &World, name: &str, seconds: &str) -> Daemon {
    let client = world.begin(
        name,
        python(),
        &[&peer("modbus_client.py"), "poll", SERVER, seconds],
    );
    client.wait_for_log("polling", PATIENCE).unwrap();
    client
}

#[test]
fn a_client_that_polls_a_hundred_times_a_second_sees_no_failure_across_planned_restarts() {
    lab::sandbox::test(
        "restart::a_client_that_polls_a_hundred_times_a_second_sees_no_failure_across_planned_restarts",
        |lab| {
            let cases = MODES.map(|mode| {
                let world = World::new(lab, mode);
                let plc = world.plc(SERVER);
                let config = prepare(lab, &world, &world.plan(&[(502, polling())]));
                (world, config, plc)
            });
            at_once(&cases, |(world, config, _)| {
                let mode = world.mode;
                let socket = config.with_file_name("notify");
                let mut command = world.gateway.command(python());
                command
                    .arg(peer("manager.py"))
                    .arg(&socket)
                    .arg(agent())
                    .args(["run", "--config"])
                    .arg(config);
                let manager = world
                    .gateway
                    .spawn_command(&format!("manager-{mode:?}"), command)
                    .unwrap();
                let ready = |times: usize| {
                    wait_until("the agent to be ready", PATIENCE, || {
                        manager.log().matches("ready\n").count() == times
                    })
                    .unwrap_or_else(|error| panic!("{error}: {}", manager.log()));
                };
                ready(1);
                let client = poll(world, &format!("polls-{mode:?}"), "8");
                for times in 2..5 {
                    std::thread::sleep(Duration::from_millis(700));
                    let id = i32::try_from(manager.id()).unwrap();
                    let id = rustix::process::Pid::from_raw(id).unwrap();
                    rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
                    ready(times);
                }
                client.wait_for_log("polled", PATIENCE).unwrap();
                let said = client.log();
                assert!(said.contains(" failed 0 "), "{mode:?}: {said}\n{}", manager.log());
                let starts: Vec<_> = manager
                    .log()
                    .lines()
                    .filter(|line| line.contains("descriptors"))
                    .map(str::to_owned)
                    .collect();
                // Two legs, two listeners, the state.
                assert!(
                    starts[1..].iter().all(|line| line.contains("with 5 descriptors")),
                    "{starts:?}"
                );
                assert_eq!(
                    manager.log().matches("change=Adopted").count(),
                    3,
                    "{}",
                    manager.log()
                );
                println!("{mode:?}: {}", said.lines().last().unwrap());
            });
        },
    )
    .unwrap();
}

#[test]
fn a_stopped_agent_holds_up_no_flow_that_may_pass_without_it_and_reads_again_when_it_goes_on() {
    lab::sandbox::test(
        "restart::a_stopped_agent_holds_up_no_flow_that_may_pass_without_it_and_reads_again_when_it_goes_on",
        |lab| {
            let all = [
                (GatewayMode::Routed, OnAgentLoss::Block),
                (GatewayMode::Routed, OnAgentLoss::Pass),
                (GatewayMode::Bridged, OnAgentLoss::Block),
                (GatewayMode::Bridged, OnAgentLoss::Pass),
            ]
            .map(|(mode, loss)| {
                let lab = Lab::new(lab.directory().join(format!("{mode:?}-{loss:?}"))).unwrap();
                let world = World::named(&lab, mode, &format!("{loss:?}").to_lowercase());
                let plc = world.plc(SERVER);
                let mut plan = world.plan(&[(502, polling())]);
                plan.rules[0].on_agent_loss = loss;
                let mut command = world.gateway.command(&agent());
                command
                    .args(["run", "--config"])
                    .arg(prepare(&lab, &world, &plan));
                let running = world.gateway.spawn_command("agent", command).unwrap();
                running.wait_for_log("policy in force", PATIENCE).unwrap();
                (world, running, loss, (lab, plc))
            });
            let write = |world: &World| world.modbus(&["pymodbus", "write", SERVER, "7", "1007"]);
            let signal = |running: &Daemon, signal| {
                let id = rustix::process::Pid::from_raw(i32::try_from(running.id()).unwrap()).unwrap();
                rustix::process::kill_process(id, signal).unwrap();
            };
            // A sign of life ends by itself: nothing can be waited for but the time.
            let beyond = Duration::from_secs(u64::from(ALIVE_S) + 2);
            std::thread::sleep(beyond);
            at_once(&all, |(world, running, loss, _)| {
                assert_eq!(write(world), "exception 2", "{:?} {loss:?}", world.mode);
                signal(running, rustix::process::Signal::STOP);
            });
            std::thread::sleep(beyond);
            at_once(&all, |(world, running, loss, _)| {
                let (mode, meanwhile) = (world.mode, write(world));
                match loss {
                    OnAgentLoss::Pass => assert_eq!(meanwhile, "1007", "{mode:?}"),
                    OnAgentLoss::Block => assert!(meanwhile.starts_with("failed"), "{mode:?}: {meanwhile}"),
                }
                signal(running, rustix::process::Signal::CONT);
            });
            at_once(&all, |(world, running, loss, _)| {
                running
                    .wait_for_log("the inspector stood still", PATIENCE)
                    .unwrap();
                assert_eq!(write(world), "exception 2", "{:?} {loss:?}", world.mode);
                assert!(
                    !running.log().contains("differ from the plan"),
                    "{}",
                    running.log()
                );
            });
        },
    )
    .unwrap();
}

#[test]
fn a_killed_agent_costs_a_reconnect_and_meanwhile_the_flow_passes_or_not_as_it_says() {
    lab::sandbox::test(
        "restart::a_killed_agent_costs_a_reconnect_and_meanwhile_the_flow_passes_or_not_as_it_says",
        |lab| {
            let cases: Vec<_> = MODES
                .into_iter()
                .flat_map(|mode| [OnAgentLoss::Block, OnAgentLoss::Pass].map(|loss| (mode, loss)))
                .map(|(mode, loss)| {
                    let lab = Lab::new(lab.directory().join(format!("{mode:?}-{loss:?}"))).unwrap();
                    let world = World::named(&lab, mode, &format!("{loss:?}").to_lowercase());
                    let plc = world.plc(SERVER);
                    let mut plan = world.plan(&[(502, polling())]);
                    plan.rules[0].on_agent_loss = loss;
                    let config = prepare(&lab, &world, &plan);
                    (world, loss, config, plc)
                })
                .collect();
            at_once(&cases, |(world, loss, config, _)| killed(world, *loss, config));
        },
    )
    .unwrap();
}

fn killed(world: &World, loss: OnAgentLoss, config: &Path) {
    let mode = world.mode;
    let start = || {
        let mut command = world.gateway.command(&agent());
        command.args(["run", "--config"]).arg(config);
        world.gateway.spawn_command("agent", command).unwrap()
    };
    let mut running = start();
    running.wait_for_log("policy in force", PATIENCE).unwrap();
    assert_eq!(
        world.modbus(&["pymodbus", "read", SERVER, "7"]),
        "1007",
        "{mode:?}"
    );
    let write = || world.modbus(&["pymodbus", "write", SERVER, "7", "1007"]);
    assert_eq!(write(), "exception 2");
    running.kill();
    let meanwhile = write();
    match loss {
        OnAgentLoss::Pass => assert_eq!(meanwhile, "1007", "{mode:?}"),
        OnAgentLoss::Block => assert!(meanwhile.starts_with("failed"), "{mode:?}: {meanwhile}"),
    }
    let again = start();
    wait_until("the agent's second start", PATIENCE, || {
        again.log().matches("policy in force").count() == 2
    })
    .unwrap();
    assert_eq!(
        again.log().matches("change=Adopted").count(),
        1,
        "{}",
        again.log()
    );
    assert_eq!(
        world.modbus(&["pymodbus", "read", SERVER, "7"]),
        "1007",
        "{mode:?}"
    );
    assert_eq!(write(), "exception 2", "{mode:?} {loss:?}");
}

#[test]
fn an_agent_with_a_thousand_inspected_connections_holds_less_than_twenty_megabytes_of_its_own() {
    lab::sandbox::test(
        "restart::an_agent_with_a_thousand_inspected_connections_holds_less_than_twenty_megabytes_of_its_own",
        |lab| {
            life::allow_sockets();
            let world = World::new(lab, GatewayMode::Routed);
            let _seen = life::controller(&world);
            let config = prepare(lab, &world, &world.plan(&[(502, polling())]));
            let mut command = world.gateway.command(&agent());
            command.args(["run", "--config"]).arg(&config);
            let running = world.gateway.spawn_command("agent", command).unwrap();
            running.wait_for_log("policy in force", PATIENCE).unwrap();
            // Beside the program's own pages, of which an unoptimised one has many.
            let own = || {
                let status = std::fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
                let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
                line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
            };
            let before = own();
            let mut all: Vec<_> = (0..1000).map(|_| life::connect(&world).unwrap()).collect();
            for _ in 0..10 {
                for stream in &mut all {
                    life::ask(stream, &life::READ).unwrap();
                }
            }
            let with = own();
            println!("its own: {before} kB without, {with} kB with 1,000 connections");
            assert!(with <= 20 * 1024, "{with} kB");
        },
    )
    .unwrap();
}
