//! Without the coordinator, with agents that restart, and back again.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use super::attack::denied_from_office;
use super::policy::{nothing_lost, retransmissions, tallies};
use super::{ENGINEER, Traffic, begin, gateways};
use crate::demo::control::{Control, PATIENCE, list, number, text};
use crate::demo::counter::now_ms;
use crate::demo::peers;
use crate::demo::show::Step;
use crate::demo::topology::{COORDINATOR, PLC_7, PLC_8};
use crate::demo::{DemoError, claim};
use penstock_lab::{Daemon, wait_until};
use serde_json::Value;

/// Echo requests that the office sends while nobody listens to the trail.
const PROBES: u64 = 7;

/// What was true while the coordinator was away, to be found in the trail afterwards.
#[derive(Debug)]
pub(super) struct Outage {
    began_ms: u64,
}

/// The coordinator is gone already: restarts the agents and holds enforcement to what it was.
pub(super) fn alone(
    step: &mut Step,
    control: &Control<'_>,
    agents: &mut Vec<Daemon>,
    traffic: &Traffic,
) -> Result<Outage, DemoError> {
    let outage = Outage { began_ms: now_ms() };
    let health = control.penstock(ENGINEER, &["health"])?;
    claim("the coordinator is gone", health.code != 0, || {
        "it still answers".to_owned()
    })?;
    step.saw("kill -9: `penstock health` cannot reach a coordinator");
    let (before, retransmitted) = (tallies(traffic), retransmissions(control)?);

    // One is asked to end, the other is killed.
    if let [first, second] = agents.as_mut_slice() {
        first.terminate(PATIENCE)?;
        second.kill();
    }
    sleep(Duration::from_millis(300));
    undeclared_is_refused(control, "without any agent")?;
    step.saw("both agents ended (one by SIGTERM, one by kill -9): the office is still refused");
    agents.clear();
    for gateway in gateways(control) {
        let name = gateway.name();
        let config = control.argument(&format!("{name}.toml"));
        let agent = control.run_agent(
            gateway,
            &format!("agent-{name}-again"),
            &["run", "--config", &config],
        )?;
        agent.wait_for_log("policy in force", PATIENCE)?;
        agents.push(agent);
    }
    undeclared_is_refused(control, "with restarted agents")?;
    let probes = PROBES.to_string();
    let probe = control
        .plant
        .office_pc
        .run("ping", &["-n", "-c", &probes, "-i", "0.05", "-W", "1", PLC_8]);
    claim("the office cannot reach plc-8", probe.is_err(), || {
        "it answered".to_owned()
    })?;
    step.saw(format!(
        "both agents back without a coordinator; {PROBES} pings from the office to plc-8: refused"
    ));
    nothing_lost(step, control, traffic, &before, retransmitted)?;
    let resident: Vec<String> = agents
        .iter()
        .filter_map(|agent| resident_mb(step, agent))
        .collect();
    step.saw(format!("resident memory of the agents: {}", resident.join(", ")));
    Ok(outage)
}

/// What an agent holds in memory now, as the kernel counts it.
fn resident_mb(step: &mut Step, agent: &Daemon) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u32 = line.split_whitespace().next()?.parse().ok()?;
    let megabytes = f64::from(kilobytes) / 1024.0;
    step.measured("agent resident", megabytes, "MB");
    Some(format!("{megabytes:.1} MB"))
}

fn undeclared_is_refused(control: &Control<'_>, when: &'static str) -> Result<(), DemoError> {
    let plant = control.plant;
    let office = peers::read_register(&plant.office_pc, PLC_7, 0);
    claim("the office stays refused", office.is_err(), || {
        format!("it read a register of plc-7 {when}")
    })?;
    let revoked = peers::read_register(&plant.historian, PLC_7, 0);
    claim("the revoked flow stays revoked", revoked.is_err(), || {
        format!("historian read plc-7 {when}")
    })
}

/// Starts the coordinator again and holds the trail to being whole.
pub(super) fn back(
    step: &mut Step,
    control: &Control<'_>,
    traffic: &Traffic,
    outage: &Outage,
) -> Result<Daemon, DemoError> {
    let config = control.argument("coordinator.toml");
    let daemon = control.run_coordinator(&["serve", "--config", &config])?;
    control
        .plant
        .coordinator
        .wait_for_tcp(&format!("{COORDINATOR}:{}", begin::PORT), PATIENCE)?;
    wait_until("both gateways to be connected again", PATIENCE, || {
        begin::connected(control) == 2
    })?;
    step.saw("both gateways found it again by themselves");

    wait_until("the office's pings in the audit trail", PATIENCE, || {
        probes(control, outage).is_ok_and(|count| count >= PROBES)
    })?;
    let counted = probes(control, outage)?;
    claim(
        "the trail counts what was sent while nobody listened",
        counted == PROBES,
        || format!("{counted} of {PROBES} pings are in it"),
    )?;
    step.saw(format!(
        "the {PROBES} pings of the time without coordinator are in the trail, {counted} of {PROBES}"
    ));

    for gateway in gateways(control) {
        let trail = trail(control, gateway.name())?;
        step.saw(format!("{}: {}", gateway.name(), trail));
    }
    let before = tallies(traffic);
    nothing_lost(step, control, traffic, &before, retransmissions(control)?)?;
    let health = control.penstock(ENGINEER, &["health"])?.json()?;
    let zones = list(&health, "/zones");
    let enforcing = zones
        .iter()
        .filter(|zone| text(zone, "/state") == "enforcing")
        .count();
    claim(
        "all four zones are enforcing",
        enforcing == 4 && zones.len() == 4,
        || health.to_string(),
    )?;
    step.saw("penstock health: 4 of 4 zones enforcing");
    Ok(daemon)
}

/// The office's echo requests to plc-8 that the trail knows.
fn probes(control: &Control<'_>, outage: &Outage) -> Result<u64, DemoError> {
    let denied = denied_from_office(control, PLC_8)?;
    let during = denied
        .iter()
        .filter(|record| number(record, "/time_ms") >= outage.began_ms)
        .filter(|record| number(record, "/event/protocol") == 1);
    Ok(during.map(|record| number(record, "/event/count")).sum())
}

/// Holds a gateway's trail to being one proved chain, with every block from the first on, and no loss record but for what the kernel decided
/// while the agent was ended: that is counted, as nobody was there to describe it.
fn trail(control: &Control<'_>, gateway: &str) -> Result<String, DemoError> {
    let answer = control
        .penstock(
            ENGINEER,
            &[
                "audit",
                "search",
                "--source",
                gateway,
                "--limit",
                "100000",
                "--oldest-first",
            ],
        )?
        .done()?
        .json()?;
    let records = list(&answer, "/records");
    let (mut epochs, mut undescribed) = (BTreeSet::new(), 0);
    for record in records {
        if text(record, "/event/cause") == "agent-away" {
            undescribed += number(record, "/event/events");
        } else {
            claim("no event was shed", text(record, "/kind") != "loss", || {
                record.to_string()
            })?;
        }
        epochs.insert(number(record, "/epoch"));
    }
    claim("the trail is one chain", epochs.len() == 1, || {
        format!("epochs {epochs:?}")
    })?;
    let file = control.argument(&format!("{gateway}.evidence"));
    let proved = control
        .penstock(ENGINEER, &["audit", "evidence", &file, "--source", gateway])?
        .done()?
        .json()?;
    let whole = proved.pointer("/sound") == Some(&Value::Bool(true))
        && number(&proved, "/trails/0/unexplained") == 0
        && number(&proved, "/trails/0/blocks") == number(&proved, "/blocks");
    claim("the chain has every block", whole, || proved.to_string())?;
    Ok(format!(
        "one chain, {} blocks without a gap, proved by penstock audit evidence; {} events, none lost; the kernel's decisions while the agent \
         was ended are counted: {undescribed}",
        number(&proved, "/blocks"),
        records.len()
    ))
}
