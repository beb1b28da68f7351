//! The plant, its people and its gateways.

use penstock_lab::{Daemon, Lab, wait_until};

use super::{ADMIN, ENGINEER, MANAGER, SAFETY, gateways};
use crate::demo::control::{Control, PATIENCE, Person, list, number, text};
use crate::demo::peers::{self, Devices};
use crate::demo::programs::Programs;
use crate::demo::show::Step;
use crate::demo::topology::{COORDINATOR, PLC_7, Topology};
use crate::demo::{DemoError, claim};

/// The interfaces of gw-safety, and what they are taken for.
const SWAPPED: [(&str, &str); 2] = [
    (
        "operations: { zone: operations, behind: [office, control]",
        "safety: { zone: operations, behind: [office, control]",
    ),
    ("safety: { zone: safety", "operations: { zone: safety"),
];
/// The demo's document, with a mark where each approver's key belongs.
const DOCUMENT: &str = include_str!("../plant/plant.yaml");
/// Coordinator's port for gateways and operators.
pub(super) const PORT: u16 = 7643;

/// Starts the devices and shows that without rules everything reaches everything.
pub(super) fn plant<'a>(
    step: &mut Step,
    lab: &Lab,
    plant: &'a Topology,
    programs: &Programs,
) -> Result<(&'a Topology, Devices), DemoError> {
    let devices = Devices::start(lab, plant, &programs.python)?;
    step.saw("office, operations, control and safety; gw-ops and gw-safety route between them");
    step.saw("three controllers (pymodbus) and a broker (mosquitto) answer");
    peers::write_register(&plant.office_pc, PLC_7, 150, 1)?;
    let seen = peers::read_register(&plant.hmi, PLC_7, 150)?;
    claim(
        "without a policy the office can write to a controller",
        seen == 1,
        || format!("the register holds {seen}"),
    )?;
    step.saw("nothing guards it yet: the office has just written a register of plc-7");
    Ok((plant, devices))
}

/// Makes the coordinator, the people's keys and logins, and the document.
pub(super) fn coordinator(step: &mut Step, control: &Control<'_>) -> Result<Daemon, DemoError> {
    let config = control.argument("coordinator.toml");
    let data = control.argument("coordinator");
    let address = format!("{COORDINATOR}:{PORT}");
    let made = control
        .coordinator(&[
            "init",
            "--data",
            &data,
            "--plant",
            "riverside-water",
            "--listen",
            &address,
            "--metrics",
            "none",
            "--address",
            &address,
            "--admin",
            ADMIN.0,
            "--config",
            &config,
        ])?
        .done()?;
    let admin_token = control.argument("people/admin.token");
    control.write("people/admin.token", &made.said)?;
    let daemon = control.run_coordinator(&["serve", "--config", &config])?;
    control.plant.coordinator.wait_for_tcp(&address, PATIENCE)?;
    step.saw("the coordinator made its certificate authority and listens");

    control
        .penstock(ADMIN, &["login", "--token", &admin_token])?
        .done()?;
    for (person, role) in [
        (ENGINEER, "engineer"),
        (MANAGER, "approver"),
        (SAFETY, "approver"),
    ] {
        add(control, person, role)?;
    }
    step.saw("k.ito (engineer), j.meyer and a.silva (approvers) logged in, each with a key born on their own machine");

    let mut document = DOCUMENT.to_owned();
    for person in [ENGINEER, MANAGER, SAFETY] {
        let made = control
            .penstock(person, &["key", "new", &key(control, person)])?
            .done()?
            .json()?;
        document = document.replace(&format!("@{}@", person.0), text(&made, "/public"));
    }
    control.write("r1/plant.yaml", &document)?;
    let second = without(&document, "archive");
    control.write("r2/plant.yaml", &second)?;
    // Somebody takes the two cables of gw-safety for each other: no check of a document can see that.
    let [left, right] = SWAPPED;
    let third = second
        .replace(left.0, "\u{1}")
        .replace(right.0, right.1)
        .replace('\u{1}', left.1);
    control.write("r3/plant.yaml", &third)?;
    for release in ["r1", "r2", "r3"] {
        control
            .penstock(ENGINEER, &["check", "--strict", &control.argument(release)])?
            .done()?;
    }
    step.saw("the plant document passes `penstock check --strict`");
    Ok(daemon)
}

/// The document without the flow that its comments mark.
fn without(document: &str, flow: &str) -> String {
    let before = document.split(&format!("      # begin {flow}")).next();
    let after = document.split(&format!("# end {flow}\n")).nth(1);
    format!("{}{}", before.unwrap_or_default(), after.unwrap_or_default())
}

/// Where a person keeps the key that signs releases.
pub(super) fn key(control: &Control<'_>, person: Person) -> String {
    control
        .home(person)
        .join("approver.key")
        .to_string_lossy()
        .into_owned()
}

/// Gives a person a role and a login.
fn add(control: &Control<'_>, person: Person, role: &str) -> Result<(), DemoError> {
    let token = control.argument(&format!("people/{}.token", person.0));
    let wanted = ["operators", "add", person.0, "--role", role, "--out", &token];
    confirmed(control, &wanted, None)?;
    control.penstock(person, &["login", "--token", &token])?.done()?;
    Ok(())
}

/// What the administrator asks for; from when there is somebody who can, the plant manager confirms it, with their copy of the document.
/// Whether they had to.
fn confirmed(control: &Control<'_>, wanted: &[&str], document: Option<&str>) -> Result<bool, DemoError> {
    let asked = control.penstock(ADMIN, wanted)?;
    let request = match asked.code {
        1 => asked.json()?,
        _ => return asked.done().map(|_| false),
    };
    let id = text(&request, "/id");
    let confirm: Vec<&str> = ["requests", "confirm", id, "--yes"]
        .into_iter()
        .chain(document)
        .collect();
    control.penstock(MANAGER, &confirm)?.done()?;
    control.penstock(ADMIN, wanted)?.done()?;
    Ok(true)
}

/// Enrols both gateways, tries each token twice, and starts the agents.
pub(super) fn enrol(step: &mut Step, control: &Control<'_>) -> Result<Vec<Daemon>, DemoError> {
    let document = control.argument("r1");
    let mut agents = Vec::new();
    for gateway in gateways(control) {
        let name = gateway.name();
        let token = control.argument(&format!("{name}.token"));
        let wanted = ["gateways", "token", name, &document, "--out", &token];
        let second = confirmed(control, &wanted, Some(&document))?;
        claim(
            "an administrator alone gets no token for a gateway",
            second,
            || format!("the token of {name} was made at once"),
        )?;
        control.write(&format!("{name}.toml"), &agent_config(control, name))?;
        let config = control.argument(&format!("{name}.toml"));
        control
            .agent(gateway, &["enrol", "--config", &config, "--token", &token])?
            .done()?;

        // Somebody who copied the token tries to become the gateway with a key of their own.
        let thief = format!("thief-of-{name}");
        control.write(&format!("{thief}.toml"), &agent_config(control, &thief))?;
        let config_of_thief = control.argument(&format!("{thief}.toml"));
        let again = control.agent(
            gateway,
            &["enrol", "--config", &config_of_thief, "--token", &token],
        )?;
        claim("a token used a second time is refused", again.code != 0, || {
            format!("{name} was enrolled twice")
        })?;
        let why = format!("{}{}", again.complained, again.said);
        claim("the refusal names the token", why.contains("token"), || {
            why.clone()
        })?;

        agents.push(control.run_agent(gateway, &format!("agent-{name}"), &["run", "--config", &config])?);
        step.saw(format!(
            "{name} enrolled, its token confirmed by j.meyer; the same token a second time: refused"
        ));
    }
    wait_until("both gateways to be connected", PATIENCE, || {
        connected(control) == 2
    })?;
    step.saw("both agents hold a mutually authenticated session (TLS 1.3), and wait for their first release");
    Ok(agents)
}

/// How many gateways are connected, as the coordinator says.
pub(super) fn connected(control: &Control<'_>) -> usize {
    let Ok(answer) = control
        .penstock(ENGINEER, &["gateways", "list"])
        .and_then(|answer| answer.done()?.json())
    else {
        return 0;
    };
    list(&answer, "/gateways")
        .iter()
        .filter(|gateway| gateway.pointer("/connected").is_some_and(|yes| yes == true))
        .count()
}

/// Waits until every gateway's kernel holds `revision`, as the coordinator says.
pub(super) fn wait_for_effective(control: &Control<'_>, revision: u64) -> Result<(), DemoError> {
    wait_until(
        &format!("r{revision} to be effective on both gateways"),
        PATIENCE,
        || {
            control
                .penstock(ENGINEER, &["gateways", "list"])
                .and_then(|answer| answer.done()?.json())
                .is_ok_and(|answer| {
                    let gateways = list(&answer, "/gateways");
                    gateways.len() == 2
                        && gateways
                            .iter()
                            .all(|gateway| number(gateway, "/effective") == revision)
                })
        },
    )?;
    Ok(())
}

/// An agent's configuration: its own state folder, on a small disk.
fn agent_config(control: &Control<'_>, name: &str) -> String {
    let folder = control.argument(&format!("state-{name}"));
    format!(
        "[agent]\nstate_folder = \"{folder}\"\n\n[audit]\nspool_bytes_max = 33554432\nfree_bytes_min = 1048576\n"
    )
}
