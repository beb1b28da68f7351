//! The people, the coordinator and the gateways, each by the program that a person would use.
//!
//! People work in the `engineering` namespace, everyone with a home of their own, so that nobody's key or login is
//! within another's reach. The coordinator and each agent have a folder of their own below the lab's.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::DemoError;
use super::programs::Programs;
use super::topology::Topology;
use penstock_lab::{Daemon, Lab, LabError, Namespace};

/// Long enough for a slow machine, short enough to not be taken for a hang.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What a program answered.
#[derive(Debug)]
pub(super) struct Answer {
    command: String,
    /// Exit code; -1 if it was killed.
    pub(super) code: i32,
    /// Standard output.
    pub(super) said: String,
    /// Standard error.
    pub(super) complained: String,
}

impl Answer {
    /// Runs a command to its end, whatever that is.
    fn of(mut command: Command) -> Result<Self, DemoError> {
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let words = words.join(" ");
        let output = command
            .stdin(Stdio::null())
            .output()
            .map_err(|source| LabError::System {
                verb: "run",
                what: words.clone(),
                source,
            })?;
        Ok(Self {
            command: words,
            code: output.status.code().unwrap_or(-1),
            said: String::from_utf8_lossy(&output.stdout).into_owned(),
            complained: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// This answer, if the program says that it did what it was asked.
    pub(super) fn done(self) -> Result<Self, DemoError> {
        if self.code == 0 {
            return Ok(self);
        }
        let output = format!("{}{}", self.complained, self.said);
        Err(LabError::Command {
            command: self.command,
            status: format!("exit code {}", self.code),
            output,
        }
        .into())
    }

    /// Its output as JSON.
    pub(super) fn json(&self) -> Result<Value, DemoError> {
        serde_json::from_str(&self.said).map_err(|source| DemoError::Unreadable {
            command: self.command.clone(),
            source,
        })
    }
}

/// A person with a home of their own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Person(pub(super) &'static str);

/// Everything that is not the plant itself.
#[derive(Debug)]
pub(super) struct Control<'a> {
    pub(super) plant: &'a Topology,
    programs: &'a Programs,
    folder: PathBuf,
}

impl<'a> Control<'a> {
    pub(super) fn new(lab: &Lab, plant: &'a Topology, programs: &'a Programs) -> Self {
        Self {
            plant,
            programs,
            folder: lab.directory().to_owned(),
        }
    }

    /// A file or folder of the demo.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// As [`Control::path`], as an argument.
    pub(super) fn argument(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// Writes a file of the demo, with its folder.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), DemoError> {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| DemoError::system("create folder", folder, e))?;
        }
        std::fs::write(&path, text).map_err(|e| DemoError::system("write", &path, e))
    }

    /// `penstock …` as a person on the engineering machine.
    pub(super) fn penstock(&self, person: Person, arguments: &[&str]) -> Result<Answer, DemoError> {
        let home = self.home(person);
        std::fs::create_dir_all(&home).map_err(|e| DemoError::system("create folder", &home, e))?;
        let mut command = self.command(&self.plant.engineering, &self.programs.penstock);
        command
            .env("HOME", &home)
            .env("XDG_CONFIG_HOME", &home)
            .args(["--output", "json"])
            .args(arguments);
        Answer::of(command)
    }

    /// Where a person keeps keys and logins.
    pub(super) fn home(&self, person: Person) -> PathBuf {
        self.path("people").join(person.0)
    }

    /// `penstock-coordinator …`, to its end.
    pub(super) fn coordinator(&self, arguments: &[&str]) -> Result<Answer, DemoError> {
        let mut command = self.command(&self.plant.coordinator, &self.programs.coordinator);
        command.args(arguments);
        Answer::of(command)
    }

    /// The coordinator, running.
    pub(super) fn run_coordinator(&self, arguments: &[&str]) -> Result<Daemon, DemoError> {
        let mut command = self.command(&self.plant.coordinator, &self.programs.coordinator);
        command.args(arguments);
        Ok(self.plant.coordinator.spawn_command("coordinator", command)?)
    }

    /// `penstock-agent …` on a gateway, to its end.
    pub(super) fn agent(&self, gateway: &Namespace, arguments: &[&str]) -> Result<Answer, DemoError> {
        let mut command = self.command(gateway, &self.programs.agent);
        command.args(arguments);
        Answer::of(command)
    }

    /// A gateway's agent, running, with its log under `name`.
    pub(super) fn run_agent(
        &self,
        gateway: &Namespace,
        name: &str,
        arguments: &[&str],
    ) -> Result<Daemon, DemoError> {
        let mut command = self.command(gateway, &self.programs.agent);
        command.args(arguments);
        Ok(gateway.spawn_command(name, command)?)
    }

    fn command(&self, machine: &Namespace, program: &Path) -> Command {
        machine.command(&program.to_string_lossy())
    }
}

/// The number at `pointer` (RFC 6901); 0 where there is none.
pub(super) fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

/// The text at `pointer`; empty where there is none.
pub(super) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The list at `pointer`; empty where there is none.
pub(super) fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}
