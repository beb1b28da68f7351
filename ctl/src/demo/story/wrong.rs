//! A release that would cut a flow which must not stop: seen in its shadow, and when it is forced all the same, back by itself.

use std::time::Duration;

use serde_json::Value;

use super::policy::{approve, propose, retransmissions, tallies};
use super::rollout::{begin, shown};
use super::{MANAGER, SAFETY, Traffic};
use crate::demo::control::{Control, PATIENCE, Person, list, text};
use crate::demo::counter::now_ms;
use crate::demo::show::Step;
use crate::demo::{DemoError, claim};
use penstock_lab::wait_until;

/// With a shadow first, and one gateway before the other.
const CAREFUL: &str = include_str!("../plant/careful.yaml");
/// The client that the release would cut, among the lasting ones.
const CUT: &str = "hmi-1 sees sis-1's state by MQTT";
/// The release that goes wrong.
const WRONG: u64 = 3;

/// What the rollout shows of gw-safety.
fn gateway(rollout: &Value) -> Option<&Value> {
    list(rollout, "/gateways")
        .iter()
        .find(|gateway| text(gateway, "/name") == "gw-safety")
}

/// The wrong release is carried out: halted by what its shadow shows, forced, and back.
pub(super) fn carry_out(step: &mut Step, control: &Control<'_>, traffic: &Traffic) -> Result<(), DemoError> {
    propose(
        control,
        WRONG,
        "CHG-4713",
        "gw-safety's interfaces as the cabinet's labels say",
    )?;
    approve(control, WRONG, MANAGER)?;
    approve(control, WRONG, SAFETY)?;
    let (before, retransmitted) = (tallies(traffic), retransmissions(control)?);
    begin(control, WRONG, "CHG-4713", ("careful.yaml", CAREFUL))?;
    let halted = wait_for_halt(control, "the shadow to show what the release would cut", |_| true)?;
    claim(
        "the shadow halts a release that cuts a must-flow",
        text(&halted, "/stage") == "shadowing",
        || halted.to_string(),
    )?;
    let after = tallies(traffic);
    let lost: u64 = before
        .iter()
        .zip(&after)
        .map(|(before, after)| after.lost.saturating_sub(before.lost))
        .sum();
    claim("a shadow changes nothing", lost == 0, || format!("{lost} lost"))?;
    step.saw(format!(
        "r3 takes gw-safety's two cables for each other, and two approved it; its shadow halts the rollout: {}",
        text(&halted, "/halted")
    ));
    let answered: u64 = before
        .iter()
        .zip(&after)
        .map(|(before, after)| after.answered.saturating_sub(before.answered))
        .sum();
    step.saw(format!(
        "in the shadow: {answered} answers to all clients, 0 lost"
    ));

    let forced_ms = now_ms();
    steer(control, MANAGER, "resume", "We are sure")?;
    let reverted = wait_for_halt(control, "gw-safety to go back by itself", |rollout| {
        gateway(rollout).is_some_and(|gateway| text(gateway, "/state") == "reverted-hard")
    })?;
    let why = gateway(&reverted).map_or("", |gateway| text(gateway, "/standing/message"));
    step.saw(format!("j.meyer forces it; gw-safety goes back by itself: {why}"));
    back(step, traffic, &before, forced_ms)?;
    let again = retransmissions(control)?.saturating_sub(retransmitted);
    steer(control, MANAGER, "revert", "It was needed after all")?;
    wait_until("the rollout to be rolled back", PATIENCE, || {
        shown(control, WRONG).is_ok_and(|rollout| text(&rollout, "/stage") == "rolled-back")
    })?;
    step.saw(format!(
        "gw-ops was never given it; the rollout of r3 is rolled back ({again} TCP segments sent again by the panel, all its flows)"
    ));
    let gateway = &control.plant.gw_safety;
    let config = control.argument(&format!("{}.toml", gateway.name()));
    let clear = ["clear", "--config", &config, "--revision", "3", "--by", "m.weber"];
    let cleared = control.agent(gateway, &clear)?.done()?;
    step.saw(format!("m.weber at the cabinet: {}", cleared.said.trim()));
    Ok(())
}

/// The client that was cut is answered again, and the others never lost anything.
fn back(
    step: &mut Step,
    traffic: &Traffic,
    before: &[super::Tally],
    forced_ms: u64,
) -> Result<(), DemoError> {
    let mut others = 0;
    for (counter, before) in traffic.lasting.iter().zip(before) {
        if counter.what() == CUT {
            let at = counter.tally().answered;
            wait_until("the shutdown's state to arrive again", PATIENCE, || {
                counter.tally().answered > at + 10
            })?;
            let seconds = Duration::from_millis(now_ms().saturating_sub(forced_ms)).as_secs_f64();
            step.saw(format!("{CUT}: again {seconds:.1} s after it was forced"));
            continue;
        }
        let tally = counter.wait_for_answers(5, PATIENCE)?;
        let lost = tally.lost.saturating_sub(before.lost);
        claim("the other flows lose nothing", lost == 0, || {
            format!("{} lost {lost}", counter.what())
        })?;
        others += tally.answered.saturating_sub(before.answered);
    }
    step.saw(format!(
        "the four others, polling among them: {others} answers meanwhile, 0 lost"
    ));
    Ok(())
}

fn steer(control: &Control<'_>, person: Person, what: &str, reason: &str) -> Result<(), DemoError> {
    let revision = WRONG.to_string();
    let command = [
        "rollout", what, &revision, "--reason", reason, "--ticket", "CHG-4713", "--yes",
    ];
    control.penstock(person, &command)?.done()?;
    Ok(())
}

/// Waits until the rollout is halted and more is so.
fn wait_for_halt(
    control: &Control<'_>,
    what: &str,
    and: impl Fn(&Value) -> bool,
) -> Result<Value, DemoError> {
    let mut seen = Value::Null;
    wait_until(what, PATIENCE, || {
        seen = shown(control, WRONG).unwrap_or_default();
        !text(&seen, "/halted").is_empty() && and(&seen)
    })?;
    Ok(seen)
}
