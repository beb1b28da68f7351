//! Inside the protocol: the historian may read some registers of a controller, and write none.

use super::ENGINEER;
use crate::demo::control::{Control, PATIENCE, list, text};
use crate::demo::peers;
use crate::demo::show::Step;
use crate::demo::topology::{HISTORIAN, PLC_8};
use crate::demo::{DemoError, claim};
use penstock_lab::wait_until;

/// A register that the historian may read.
const READABLE: u16 = 41;
/// One that it may not.
const BEYOND: u16 = 150;
/// What mbpoll says of a Modbus exception 1, and of a 2.
const ILLEGAL_FUNCTION: &str = "Illegal function";
const ILLEGAL_ADDRESS: &str = "Illegal data address";

/// What the flow lists passes; the rest is answered as the protocol itself refuses.
pub(super) fn refused(step: &mut Step, control: &Control<'_>) -> Result<(), DemoError> {
    let historian = &control.plant.historian;
    let before = peers::read_register(historian, PLC_8, READABLE)?;
    step.saw(format!(
        "the historian reads register {READABLE} of plc-8: {before}"
    ));

    let write = peers::write_register(historian, PLC_8, READABLE, 6666);
    claim_exception(&write, ILLEGAL_FUNCTION)?;
    let read = peers::read_register(historian, PLC_8, BEYOND);
    claim_exception(&read, ILLEGAL_ADDRESS)?;
    let after = peers::read_register(historian, PLC_8, READABLE)?;
    claim("the controller's register is as it was", before == after, || {
        format!("{before} became {after}")
    })?;
    step.saw(format!(
        "its write is answered with \"{ILLEGAL_FUNCTION}\", its read of register {BEYOND} with \"{ILLEGAL_ADDRESS}\"; \
         nothing hangs, nothing has changed"
    ));

    let operation = format!("write-single-register {READABLE} unit 1");
    let explained = control.penstock(
        ENGINEER,
        &[
            "explain",
            &control.argument("r1"),
            "--from",
            HISTORIAN,
            "--to",
            PLC_8,
            "--operation",
            &operation,
        ],
    )?;
    claim(
        "`penstock explain` refuses the operation",
        explained.code == 1,
        || format!("exit code {}: {}", explained.code, explained.said),
    )?;
    step.saw(format!(
        "penstock explain: {}",
        text(&explained.json()?, "/sentence")
    ));

    wait_until("the refused operation in the audit trail", PATIENCE, || {
        told(control).is_ok_and(|told| told.is_some())
    })?;
    step.saw(format!(
        "penstock audit search --kind operation: {}",
        told(control)?.unwrap_or_default()
    ));
    Ok(())
}

/// The client was told by the protocol, and in these words of its own.
fn claim_exception<T>(answer: &Result<T, penstock_lab::LabError>, words: &str) -> Result<(), DemoError> {
    let said = match answer {
        Ok(_) => "it was done".to_owned(),
        Err(error) => error.to_string(),
    };
    claim(
        "a refused operation is answered with the protocol's own exception",
        said.contains(words),
        || said.clone(),
    )
}

/// The refused write as the trail names it.
fn told(control: &Control<'_>) -> Result<Option<String>, DemoError> {
    let answer = control
        .penstock(
            ENGINEER,
            &[
                "audit",
                "search",
                "--kind",
                "operation",
                "--decision",
                "deny",
                PLC_8,
            ],
        )?
        .done()?
        .json()?;
    Ok(list(&answer, "/records")
        .iter()
        .find(|record| text(record, "/event/operation").starts_with("write-single-register"))
        .map(|record| {
            format!(
                "{} on {} by {}: {}",
                text(record, "/event/operation"),
                text(record, "/event/server_name"),
                text(record, "/event/client_name"),
                text(record, "/event/reason")
            )
        }))
}
