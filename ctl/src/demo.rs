//! `penstock demo`: a whole plant on one machine, in which every promise that it shows is checked as it is shown.
//!
//! ```text
//! demo        finds the programs, enters the sandbox, runs the steps, keeps the plant if asked
//!   topology  the networks          programs  what is run, found before anything begins
//!   peers     devices of the plant  counter   their clients, counted
//!   control   the coordinator, the gateways and the people, each by the program a person would use
//!   story     the steps             show      how they are told
//! ```
//!
//! Everything runs through the real binaries, as a person would run them; nothing here calls into them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use penstock_lab::{Lab, LabError, sandbox};

mod control;
mod counter;
mod keep;
mod peers;
mod programs;
mod show;
mod story;
mod topology;

pub use keep::enter;
pub use show::Tone;

use programs::Programs;
use show::Show;

/// What the demo may be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Leave the plant running afterwards, until an interrupt.
    pub keep: bool,
    /// Sentences or JSON lines.
    pub tone: Tone,
    /// With colours.
    pub coloured: bool,
    /// Folder of the Python environment with pymodbus; `None`: `peers` above the folder of the programs.
    pub peers: Option<PathBuf>,
}

/// Why the demo ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A program that it needs is not there.
    #[error("the demo needs programs that are missing here: {0}; `make setup` installs them")]
    Missing(String),
    /// The plant on this machine could not be built or run.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// What the demo claims is not so.
    #[error("{claim} does not hold: {seen}")]
    NotSo {
        /// What was to be shown.
        claim: &'static str,
        /// What was seen instead.
        seen: String,
    },
    /// A program printed something else than its documented JSON.
    #[error("`{command}` printed what cannot be read as its JSON")]
    Unreadable {
        /// What was run.
        command: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A file operation failed.
    #[error("cannot {verb} {}", path.display())]
    System {
        /// The operation.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl DemoError {
    fn system(verb: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::System {
            verb,
            path: path.to_owned(),
            source,
        }
    }
}

/// Fails with what was seen unless `holds`.
fn claim(claim: &'static str, holds: bool, seen: impl FnOnce() -> String) -> Result<(), DemoError> {
    if holds {
        Ok(())
    } else {
        Err(DemoError::NotSo { claim, seen: seen() })
    }
}

/// Runs the demo: outside the sandbox it checks what is needed and enters it, inside it tells the story.
///
/// # Errors
/// When something that it needs is missing. A step that does not hold is told in its place and gives exit code 1.
pub fn run(options: &Options) -> Result<ExitCode, DemoError> {
    let programs = Programs::find(options.peers.as_deref())?;
    if !sandbox::inside() {
        let arguments: Vec<_> = std::env::args_os().skip(1).collect();
        let status = sandbox::reexecute(&arguments)?;
        return Ok(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from));
    }
    sandbox::prepare()?;
    let lab = Lab::new("/run/penstock-demo")?;
    let mut show = Show::new(options.tone, options.coloured);
    show.say(" Penstock demo: Riverside drinking-water works");
    let mut plant = None;
    let told = story::tell(&mut show, &lab, &programs, &mut plant);
    show.finish();
    match told {
        Ok((_control, _cast)) => {
            if options.keep {
                keep::explain(&show);
                keep::forever();
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(_) => {
            // The fault itself was told in its place; the programs' own words help to find its cause.
            show.say(&last_words(lab.directory()));
            if options.keep {
                keep::explain(&show);
                keep::forever();
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The end of what coordinator and agents printed.
fn last_words(folder: &Path) -> String {
    const LINES: usize = 12;
    let mut text = String::new();
    for name in [
        "coordinator",
        "agent-gw-ops",
        "agent-gw-safety",
        "agent-gw-ops-again",
        "agent-gw-safety-again",
    ] {
        let Ok(log) = std::fs::read(folder.join(format!("{name}.log"))) else {
            continue;
        };
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let end = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
        text.push_str(&format!("\n {name} printed last:\n   {}\n", end.join("\n   ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::counter::Counter;
    use super::peers::{self, Devices};
    use super::topology::{HISTORIAN, PLC_7, SIS_1, Topology};
    use super::*;

    #[test]
    fn without_gateways_rules_every_machine_of_the_plant_reaches_every_other() {
        sandbox::test(
            "demo::tests::without_gateways_rules_every_machine_of_the_plant_reaches_every_other",
            |lab| {
                let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/bin/python");
                let plant = Topology::build(lab).unwrap();
                let _devices = Devices::start(lab, &plant, &python).unwrap();
                assert_eq!(peers::read_register(&plant.hmi, PLC_7, 3).unwrap(), 703);
                peers::write_register(&plant.office_pc, PLC_7, 3, 4242).unwrap();
                assert_eq!(peers::read_register(&plant.hmi, PLC_7, 3).unwrap(), 4242);
                assert_eq!(peers::read_register(&plant.office_pc, SIS_1, 1).unwrap(), 1);

                let _publisher = peers::publisher(&plant.plc_7, peers::PRESSURE).unwrap();
                let polls = Counter::modbus("polling", &plant.hmi, PLC_7).unwrap();
                let pings = Counter::ping("reachability", &plant.hmi, PLC_7).unwrap();
                let messages =
                    Counter::mqtt("figures", &plant.office_pc, HISTORIAN, peers::PRESSURE).unwrap();
                for counter in [&polls, &pings, &messages] {
                    let tally = counter.wait_for_answers(20, Duration::from_secs(10)).unwrap();
                    assert_eq!(tally.lost, 0, "{}", counter.what());
                }
                plant.gw_ops.ip(&["link", "set", "control", "down"]).unwrap();
                polls.wait_for_loss(Duration::from_secs(10)).unwrap();
            },
        )
        .unwrap();
    }
}
