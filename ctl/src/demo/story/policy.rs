//! A release into force, what it lets through, and a flow taken out again while it is in use.

use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use super::begin::{key, wait_for_effective};
use super::{ENGINEER, MANAGER, SAFETY, Traffic, rollout};
use crate::demo::control::{Control, PATIENCE, list, number, text};
use crate::demo::counter::{Counter, Tally};
use crate::demo::peers;
use crate::demo::show::Step;
use crate::demo::topology::{HISTORIAN, PLC_7, PLC_8};
use crate::demo::{DemoError, claim};
use penstock_lab::wait_until;

/// From the start of the rollout to both kernels: what the README promises, said beside what was measured. A busy machine
/// that takes longer is no fault of the plant's, so the demo tells it and goes on.
const ENFORCED_BUDGET_MS: u64 = 500;

/// Proposes, approves and measures r1, and starts the clients that are counted from then on.
pub(super) fn first(step: &mut Step, control: &Control<'_>) -> Result<Traffic, DemoError> {
    propose(control, 1, "CHG-4711", "First release of the works")?;
    let own = control.penstock(
        ENGINEER,
        &[
            "release",
            "approve",
            "1",
            "--digest",
            &digest(control, 1)?,
            "--key",
            &key(control, ENGINEER),
            "--yes",
        ],
    )?;
    claim("the author cannot approve", own.code != 0, || {
        "k.ito approved k.ito's own release".to_owned()
    })?;
    step.saw("k.ito proposed r1; k.ito's own approval: refused");
    approve(control, 1, MANAGER)?;
    let waiting = show(control, 1)?;
    claim(
        "one approval is not enough",
        text(&waiting, "/release/state") == "proposed",
        || waiting.to_string(),
    )?;
    step.saw("j.meyer approved: 1 of 2, and nothing has changed on any gateway");
    approve(control, 1, SAFETY)?;
    rollout::start(control, 1, "CHG-4711")?;
    enforced(step, control, 1)?;

    let plant = control.plant;
    Ok(Traffic {
        _publishers: [
            peers::publisher(&plant.plc_7, peers::PRESSURE)?,
            peers::publisher(&plant.sis, peers::SAFETY_STATE)?,
        ],
        archive: Counter::modbus("historian reads plc-7", &plant.historian, PLC_7)?,
        lasting: vec![
            Counter::modbus("hmi-1 polls plc-7", &plant.hmi, PLC_7)?,
            Counter::modbus("hmi-1 polls plc-8", &plant.hmi, PLC_8)?,
            Counter::ping("hmi-1 pings plc-7", &plant.hmi, PLC_7)?,
            Counter::mqtt(
                "office reads plc-7's pressure by MQTT",
                &plant.office_pc,
                HISTORIAN,
                peers::PRESSURE,
            )?,
            Counter::mqtt(
                "hmi-1 sees sis-1's state by MQTT",
                &plant.hmi,
                HISTORIAN,
                peers::SAFETY_STATE,
            )?,
        ],
    })
}

/// Every declared flow carries traffic.
pub(super) fn declared(step: &mut Step, control: &Control<'_>, traffic: &Traffic) -> Result<(), DemoError> {
    for counter in traffic.lasting.iter().chain([&traffic.archive]) {
        let tally = counter.wait_for_answers(10, PATIENCE)?;
        claim("declared traffic passes without loss", tally.lost == 0, || {
            format!("{}: {} lost", counter.what(), tally.lost)
        })?;
        step.saw(format!("{}: {} answers, 0 lost", counter.what(), tally.answered));
    }
    peers::write_register(&control.plant.hmi, PLC_7, 40, 1234)?;
    let seen = peers::read_register(&control.plant.hmi, PLC_7, 40)?;
    claim("the operator's panel can steer", seen == 1234, || {
        format!("the register holds {seen}")
    })?;
    Ok(())
}

/// Takes `archive` out of the policy while it is in use, and holds the others to losing nothing.
pub(super) fn revoke(step: &mut Step, control: &Control<'_>, traffic: &Traffic) -> Result<(), DemoError> {
    let changes = control.penstock(
        ENGINEER,
        &["diff", &control.argument("r1"), &control.argument("r2")],
    )?;
    claim(
        "`penstock diff` names the flow",
        changes.said.contains("archive"),
        || changes.said.clone(),
    )?;
    let (before, retransmitted) = (tallies(traffic), retransmissions(control)?);
    let socket = standing_connection(control)?;

    propose(
        control,
        2,
        "CHG-4712",
        "The historian no longer reads plc-7 by itself",
    )?;
    approve(control, 2, MANAGER)?;
    approve(control, 2, SAFETY)?;
    rollout::start(control, 2, "CHG-4712")?;
    let effective_ms = enforced(step, control, 2)?;

    traffic.archive.wait_for_loss(PATIENCE)?;
    let stopped = traffic.archive.tally();
    sleep(Duration::from_millis(1000));
    let later = traffic.archive.tally();
    claim(
        "a revoked flow gets no further answer",
        later.answered == stopped.answered,
        || {
            format!(
                "{} more answers after it had stopped",
                later.answered.saturating_sub(stopped.answered)
            )
        },
    )?;
    let overrun = later.last_answer_ms.saturating_sub(effective_ms);
    claim(
        "the revoked flow stopped when the release took effect",
        overrun <= ANSWER_READ_MS,
        || format!("its last answer came {overrun} ms later"),
    )?;
    claim(
        "its connection still stands",
        standing_connection(control)? == socket,
        || "it was closed".to_owned(),
    )?;
    step.saw(format!(
        "historian → plc-7: last answer {} before r2 took effect, {} questions since without one, the connection {socket} still standing",
        before_or_at(effective_ms, later.last_answer_ms),
        later.lost
    ));
    nothing_lost(step, control, traffic, &before, retransmitted)
}

/// What reading a line that was printed in time may take on a busy machine.
const ANSWER_READ_MS: u64 = 500;

fn before_or_at(effective_ms: u64, last_answer_ms: u64) -> String {
    match effective_ms.saturating_sub(last_answer_ms) {
        0 => "as".to_owned(),
        early => format!("{early} ms"),
    }
}

/// Holds every lasting client to having lost nothing since `before`, and tells how many TCP segments the
/// panel had to send again (none, unless the machine itself stalls).
pub(super) fn nothing_lost(
    step: &mut Step,
    control: &Control<'_>,
    traffic: &Traffic,
    before: &[Tally],
    retransmitted: u64,
) -> Result<(), DemoError> {
    let mut answers = 0;
    for (counter, before) in traffic.lasting.iter().zip(before) {
        let tally = counter.wait_for_answers(5, PATIENCE)?;
        let lost = tally.lost.saturating_sub(before.lost);
        claim("the other flows lose nothing", lost == 0, || {
            format!("{} lost {lost}", counter.what())
        })?;
        answers += tally.answered.saturating_sub(before.answered);
    }
    let again = retransmissions(control)?.saturating_sub(retransmitted);
    step.saw(format!(
        "the five others: {answers} answers meanwhile, 0 lost, {again} TCP segments sent again"
    ));
    Ok(())
}

/// Where all lasting clients stand.
pub(super) fn tallies(traffic: &Traffic) -> Vec<Tally> {
    traffic.lasting.iter().map(Counter::tally).collect()
}

/// TCP segments that the panel had to send again so far.
pub(super) fn retransmissions(control: &Control<'_>) -> Result<u64, DemoError> {
    let table = control.plant.hmi.run("cat", &["/proc/self/net/snmp"])?;
    let mut lines = table
        .lines()
        .filter(|line| line.starts_with("Tcp:"))
        .map(|line| line.split_whitespace());
    let (names, values) = (lines.next(), lines.next());
    let found = names.zip(values).and_then(|(names, values)| {
        names
            .zip(values)
            .find(|(name, _)| *name == "RetransSegs")
            .and_then(|(_, value)| value.parse().ok())
    });
    found.ok_or(DemoError::NotSo {
        claim: "the kernel counts segments sent again",
        seen: table,
    })
}

/// The historian's own end of its connection to plc-7's Modbus port, as `ss` shows it.
fn standing_connection(control: &Control<'_>) -> Result<String, DemoError> {
    let filter = format!("dst {PLC_7} and dport = :502");
    let sockets = control
        .plant
        .historian
        .run("ss", &["-Htn", "state", "established", &filter])?;
    let own = sockets.split_whitespace().nth(2).map(str::to_owned);
    own.ok_or(DemoError::NotSo {
        claim: "the historian's connection to plc-7 stands",
        seen: "there is none".to_owned(),
    })
}

/// Proposes a document as `revision`.
pub(super) fn propose(
    control: &Control<'_>,
    revision: u64,
    ticket: &str,
    reason: &str,
) -> Result<(), DemoError> {
    let document = control.argument(&format!("r{revision}"));
    control
        .penstock(
            ENGINEER,
            &[
                "release", "propose", &document, "--ticket", ticket, "--reason", reason, "--yes",
            ],
        )?
        .done()?;
    Ok(())
}

/// Signs `revision` as one of its approvers.
pub(super) fn approve(
    control: &Control<'_>,
    revision: u64,
    person: crate::demo::control::Person,
) -> Result<(), DemoError> {
    let digest = digest(control, revision)?;
    let revision = revision.to_string();
    control
        .penstock(
            person,
            &[
                "release",
                "approve",
                &revision,
                "--digest",
                &digest,
                "--key",
                &key(control, person),
                "--yes",
            ],
        )?
        .done()?;
    Ok(())
}

/// The digest of a release, as its author announces it.
fn digest(control: &Control<'_>, revision: u64) -> Result<String, DemoError> {
    Ok(text(&show(control, revision)?, "/release/statement_digest").to_owned())
}

fn show(control: &Control<'_>, revision: u64) -> Result<Value, DemoError> {
    control
        .penstock(ENGINEER, &["release", "show", &revision.to_string()])?
        .done()?
        .json()
}

/// Waits until `revision` is enforced on both gateways, tells how long it took, and gives the later gateway's moment.
///
/// The time runs from the start of the rollout, by the coordinator's clock, to the agent's own event that its kernel
/// holds the plan; all of them share this machine's clock.
fn enforced(step: &mut Step, control: &Control<'_>, revision: u64) -> Result<u64, DemoError> {
    wait_for_effective(control, revision)?;
    let mut moments = Vec::new();
    wait_until(
        "both gateways' events that the release took effect",
        PATIENCE,
        || {
            moments = effective_events(control, revision).unwrap_or_default();
            moments.len() == 2
        },
    )?;
    let started_ms = rollout::started_ms(control, revision)?;
    let effective_ms = moments.iter().copied().max().unwrap_or_default();
    let took = effective_ms.saturating_sub(started_ms);
    let beside = if took <= ENFORCED_BUDGET_MS {
        String::new()
    } else {
        format!(" (the budget is {ENFORCED_BUDGET_MS} ms: is this machine busy?)")
    };
    step.saw(format!(
        "a.silva approved, and k.ito started the rollout: r{revision} was on trial on both gateways after {took} ms{beside}"
    ));
    step.measured(
        "rollout started to enforced, both gateways",
        f64::from(u32::try_from(took).unwrap_or(u32::MAX)),
        "ms",
    );
    rollout::completed(control, revision)?;
    step.saw("each gateway was confirmed over the new rules");
    Ok(effective_ms)
}

fn effective_events(control: &Control<'_>, revision: u64) -> Result<Vec<u64>, DemoError> {
    let answer = control
        .penstock(
            ENGINEER,
            &["audit", "search", "--kind", "policy", "--limit", "1000"],
        )?
        .done()?
        .json()?;
    Ok(list(&answer, "/records")
        .iter()
        .filter(|record| {
            text(record, "/event/step") == "effective" && number(record, "/event/revision") == revision
        })
        .map(|record| number(record, "/time_ms"))
        .collect())
}
