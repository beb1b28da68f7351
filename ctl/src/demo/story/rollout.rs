//! Rollouts of the demo: how one is started, and what the coordinator shows of it.

use serde_json::Value;

use super::ENGINEER;
use crate::demo::DemoError;
use crate::demo::control::{Control, PATIENCE, number, text};
use penstock_lab::wait_until;

/// Both gateways together and nothing to wait for.
const QUICK: &str = include_str!("../plant/quick.yaml");

/// Starts the rollout of an approved release that has nothing to wait for.
pub(super) fn start(control: &Control<'_>, revision: u64, ticket: &str) -> Result<(), DemoError> {
    begin(control, revision, ticket, ("quick.yaml", QUICK))
}

/// Starts the rollout of an approved release by this plan, which is written to a file of that name.
pub(super) fn begin(
    control: &Control<'_>,
    revision: u64,
    ticket: &str,
    (name, plan): (&str, &str),
) -> Result<(), DemoError> {
    control.write(name, plan)?;
    let (revision, plan) = (revision.to_string(), control.argument(name));
    let words = ["--reason", "shift lead informed", "--ticket", ticket, "--yes"];
    let command = [&["rollout", "start", &revision, "--plan", &plan][..], &words].concat();
    control.penstock(ENGINEER, &command)?.done()?;
    Ok(())
}

/// Waits until the rollout of a release is over and every gateway has confirmed it.
pub(super) fn completed(control: &Control<'_>, revision: u64) -> Result<(), DemoError> {
    wait_until(
        &format!("the rollout of r{revision} to be completed"),
        PATIENCE,
        || shown(control, revision).is_ok_and(|rollout| text(&rollout, "/stage") == "completed"),
    )?;
    Ok(())
}

/// When the rollout of a release was started, milliseconds since 1970.
pub(super) fn started_ms(control: &Control<'_>, revision: u64) -> Result<u64, DemoError> {
    Ok(number(&shown(control, revision)?, "/started_ms"))
}

/// What a rollout is said to be.
pub(super) fn shown(control: &Control<'_>, revision: u64) -> Result<Value, DemoError> {
    control
        .penstock(
            ENGINEER,
            &["rollout", "show", &revision.to_string(), "--gateways"],
        )?
        .done()?
        .json()
}
