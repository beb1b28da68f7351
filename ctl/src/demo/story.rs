//! The steps of the demo, in their order. Each shows something, checks it, and says what it saw.
//!
//! `begin` builds the plant, its people and its gateways; `policy` brings a release into force and takes a flow out
//! again; `rollout` starts what carries them out, `wrong` one that would cut a must-flow; `attack` tries what is not declared, `operations` what a declared flow does not list; `outage` takes the
//! coordinator and the agents away and back.

mod attack;
mod begin;
mod operations;
mod outage;
mod policy;
mod rollout;
mod wrong;

use penstock_lab::{Daemon, Lab, Namespace};

use super::DemoError;
use super::control::{Control, Person};
use super::counter::{Counter, Tally};
use super::peers::Devices;
use super::programs::Programs;
use super::show::Show;
use super::topology::Topology;

/// Makes identities, and nothing else.
const ADMIN: Person = Person("root.admin");
/// Writes the document and proposes releases.
const ENGINEER: Person = Person("k.ito");
/// Approves.
const MANAGER: Person = Person("j.meyer");
/// Approves.
const SAFETY: Person = Person("a.silva");

/// What runs, besides the plant's networks. Everything ends when it is dropped.
#[derive(Debug)]
pub(super) struct Cast {
    _devices: Devices,
    coordinator: Option<Daemon>,
    agents: Vec<Daemon>,
    traffic: Option<Traffic>,
}

/// Clients that are counted from the first release on.
#[derive(Debug)]
struct Traffic {
    /// The historian's own poll, which the second release revokes.
    archive: Counter,
    /// What must never lose anything.
    lasting: Vec<Counter>,
    _publishers: [Daemon; 2],
}

/// Tells the whole story; what runs in the end is given back, to be kept or dropped.
pub(super) fn tell<'a>(
    show: &mut Show,
    lab: &Lab,
    programs: &'a Programs,
    plant: &'a mut Option<Topology>,
) -> Result<(Control<'a>, Cast), DemoError> {
    let (plant, devices) = show.step("A plant of ten machines, each in a network of its own", |step| {
        let built = plant.insert(Topology::build(lab)?);
        begin::plant(step, lab, built, programs)
    })?;
    let control = Control::new(lab, plant, programs);
    let mut cast = Cast {
        _devices: devices,
        coordinator: None,
        agents: Vec::new(),
        traffic: None,
    };

    cast.coordinator = Some(
        show.step("A coordinator, and four people with keys of their own", |step| {
            begin::coordinator(step, &control)
        })?,
    );
    cast.agents = show.step("Both gateways enrol with single-use tokens", |step| {
        begin::enrol(step, &control)
    })?;
    cast.traffic = Some(show.step(
        "Release r1: proposed by one, approved by two others, enforced",
        |step| policy::first(step, &control),
    )?);
    let Some(traffic) = cast.traffic.as_ref() else {
        return Ok((control, cast));
    };
    show.step("What is declared passes", |step| {
        policy::declared(step, &control, traffic)
    })?;
    show.step("The office attacks a pump controller", |step| {
        attack::refused(step, &control)
    })?;
    show.step(
        "Inside the protocol: the historian may read plc-8, and write nothing",
        |step| operations::refused(step, &control),
    )?;
    show.step("Release r2 revokes a flow on its standing connection", |step| {
        policy::revoke(step, &control, traffic)
    })?;
    show.step(
        "Release r3 would cut off the chlorine shutdown: seen in its shadow, and back by itself",
        |step| wrong::carry_out(step, &control, traffic),
    )?;
    let kept = show.step(
        "The coordinator is killed, the agents restart: enforcement is as it was",
        |step| {
            cast.coordinator = None;
            outage::alone(step, &control, &mut cast.agents, traffic)
        },
    )?;
    cast.coordinator = Some(
        show.step("The coordinator is back: the audit trail arrives whole", |step| {
            outage::back(step, &control, traffic, &kept)
        })?,
    );
    Ok((control, cast))
}

/// The gateways, in a fixed order.
fn gateways<'a>(control: &Control<'a>) -> [&'a Namespace; 2] {
    [&control.plant.gw_ops, &control.plant.gw_safety]
}
