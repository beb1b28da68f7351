//! The plant's devices, all of them programs that others wrote: pymodbus, mosquitto and their clients.

use std::path::{Path, PathBuf};
use std::time::Duration;

use penstock_lab::{Daemon, Lab, LabError, Namespace};

use super::DemoError;
use super::topology::{HISTORIAN, PLC_7, PLC_8, SIS_1, Topology};

/// Where plc-7 publishes a pressure.
pub(super) const PRESSURE: &str = "works/filters/7/pressure";
/// Where the safety controller publishes its state.
pub(super) const SAFETY_STATE: &str = "works/chlorine/state";
/// What a device may take to start on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

const PLC_PY: &str = include_str!("peers/plc.py");

/// Every message is its number, so that a missing one is seen by the next.
const PUBLISH: &str = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done";

/// The devices that serve; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Devices {
    _running: Vec<Daemon>,
}

impl Devices {
    /// Starts three controllers and a broker, and waits until they listen.
    pub(super) fn start(lab: &Lab, plant: &Topology, python: &Path) -> Result<Self, DemoError> {
        let script = write(lab, "plc.py", PLC_PY)?;
        // The broker of a namespace without users but the one it runs as.
        let broker = write(
            lab,
            "mosquitto.conf",
            "listener 1883 0.0.0.0\nallow_anonymous true\nuser root\n",
        )?;
        let python = python.to_string_lossy();
        let mut running = Vec::new();
        for (machine, address, first_value) in [
            (&plant.plc_7, PLC_7, "700"),
            (&plant.plc_8, PLC_8, "800"),
            (&plant.sis, SIS_1, "0"),
        ] {
            running.push(machine.spawn(machine.name(), &python, &[&script, address, first_value])?);
        }
        running.push(plant.historian.spawn("broker", "mosquitto", &["-c", &broker])?);
        for (machine, address) in [(&plant.plc_7, PLC_7), (&plant.plc_8, PLC_8), (&plant.sis, SIS_1)] {
            machine.wait_for_tcp(&format!("{address}:502"), PATIENCE)?;
        }
        plant
            .historian
            .wait_for_tcp(&format!("{HISTORIAN}:1883"), PATIENCE)?;
        Ok(Self { _running: running })
    }
}

/// A controller that publishes numbered messages to the historian's broker until this is dropped.
pub(super) fn publisher(controller: &Namespace, topic: &str) -> Result<Daemon, LabError> {
    let script = format!("({PUBLISH}) | exec mosquitto_pub -h {HISTORIAN} -q 1 -t {topic} -l");
    controller.spawn(
        &format!("publisher-{}", controller.name()),
        "sh",
        &["-c", &script],
    )
}

/// Reads one holding register; the error tells that nobody answered.
pub(super) fn read_register(from: &Namespace, address: &str, register: u16) -> Result<u16, LabError> {
    let register_text = register.to_string();
    let output = from.run(
        "mbpoll",
        &[
            "-m",
            "tcp",
            "-a",
            "1",
            "-0",
            "-r",
            &register_text,
            "-c",
            "1",
            "-1",
            "-o",
            "1",
            address,
        ],
    )?;
    output
        .lines()
        .find_map(|line| line.strip_prefix(&format!("[{register}]:"))?.trim().parse().ok())
        .ok_or_else(|| LabError::Command {
            command: format!("mbpoll {address}"),
            status: "without a value".to_owned(),
            output,
        })
}

/// Tries to write one holding register.
pub(super) fn write_register(
    from: &Namespace,
    address: &str,
    register: u16,
    value: u16,
) -> Result<(), LabError> {
    let (register, value) = (register.to_string(), value.to_string());
    from.run(
        "mbpoll",
        &[
            "-m", "tcp", "-a", "1", "-0", "-r", &register, "-1", "-o", "1", address, &value,
        ],
    )
    .map(drop)
}

fn write(lab: &Lab, name: &str, text: &str) -> Result<String, DemoError> {
    let path: PathBuf = lab.directory().join(name);
    std::fs::write(&path, text).map_err(|source| DemoError::system("write", &path, source))?;
    Ok(path.to_string_lossy().into_owned())
}
