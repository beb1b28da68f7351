//! What is not declared: refused by the kernel, explained by the policy, told in the trail.

use super::ENGINEER;
use crate::demo::control::{Control, PATIENCE, list, number, text};
use crate::demo::peers;
use crate::demo::show::Step;
use crate::demo::topology::{OFFICE_PC, PLC_7, SIS_1};
use crate::demo::{DemoError, claim};
use penstock_lab::wait_until;
use serde_json::Value;

/// A register that the attack wants to change.
const REGISTER: u16 = 41;

/// The office writes to a controller and to the safety system.
pub(super) fn refused(step: &mut Step, control: &Control<'_>) -> Result<(), DemoError> {
    let plant = control.plant;
    let before = peers::read_register(&plant.hmi, PLC_7, REGISTER)?;
    for (name, address) in [("plc-7", PLC_7), ("sis-1", SIS_1)] {
        let attempt = peers::write_register(&plant.office_pc, address, REGISTER, 6666);
        claim(
            "the office cannot write to a controller",
            attempt.is_err(),
            || format!("{name} accepted it"),
        )?;
    }
    let after = peers::read_register(&plant.hmi, PLC_7, REGISTER)?;
    claim("the controller's register is as it was", before == after, || {
        format!("{before} became {after}")
    })?;
    step.saw(format!(
        "mbpoll from office-pc to plc-7 and sis-1: no connection; register {REGISTER} still holds {after}"
    ));

    let document = control.argument("r1");
    let explained = control.penstock(
        ENGINEER,
        &[
            "explain",
            &document,
            "--from",
            OFFICE_PC,
            "--to",
            PLC_7,
            "--service",
            "tcp/502",
        ],
    )?;
    claim(
        "`penstock explain` says that it is denied",
        explained.code == 1,
        || {
            format!(
                "exit code {}: {}{}",
                explained.code, explained.said, explained.complained
            )
        },
    )?;
    let verdict = explained.json()?;
    let nearest = nearest(&verdict);
    claim(
        "`penstock explain` names what came closest",
        !nearest.is_empty(),
        || verdict.to_string(),
    )?;
    step.saw(format!("penstock explain: {nearest}"));

    wait_until("the denial in the audit trail", PATIENCE, || {
        denials(control, PLC_7).is_ok_and(|count| count > 0)
    })?;
    step.saw(format!(
        "penstock audit search --decision deny: office-pc → plc-7 tcp/502, packets refused: {}",
        denials(control, PLC_7)?
    ));
    Ok(())
}

/// The sentence about the rule that came closest.
fn nearest(verdict: &Value) -> String {
    text(verdict, "/sentence").to_owned()
}

/// Denied packets from the office to `address`, as the trail counts them.
fn denials(control: &Control<'_>, address: &str) -> Result<u64, DemoError> {
    let counted = denied_from_office(control, address)?;
    Ok(counted.iter().map(|record| number(record, "/event/count")).sum())
}

/// The trail's records of packets from the office to `address` that were denied.
pub(super) fn denied_from_office(control: &Control<'_>, address: &str) -> Result<Vec<Value>, DemoError> {
    let answer = control
        .penstock(
            ENGINEER,
            &[
                "audit",
                "search",
                "--kind",
                "verdict",
                "--decision",
                "deny",
                "--limit",
                "10000",
                address,
            ],
        )?
        .done()?
        .json()?;
    let between = |record: &&Value| {
        text(record, "/event/source") == OFFICE_PC && text(record, "/event/destination") == address
    };
    Ok(list(&answer, "/records")
        .iter()
        .filter(between)
        .cloned()
        .collect())
}
