//! A machine with a TPM: swtpm in a folder of its own, and tpm2-tools to look into it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_agent::config::Config;
use penstock_agent::identity::IdentityFolder;
use penstock_agent::link::enrol::{KeyChoice, enrol_into};
use penstock_agent::tpm::{KeyPlace, Tpm, TpmAddress};

use crate::dark::gateway::{FakeKernel, Running};
use crate::dark::token;
use crate::world::World;

/// swtpm, with a folder of its own; killed when it is dropped, and what it holds stays until then.
pub struct Machine {
    pub folder: tempfile::TempDir,
    running: Option<Child>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.switch_off();
    }
}

pub fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; scripts/setup installs what is lacking"));
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complained}");
    output
}

impl Machine {
    pub fn new() -> Self {
        let mut machine = Self {
            folder: tempfile::tempdir().unwrap(),
            running: None,
        };
        machine.switch_on();
        machine
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("tpm")
    }

    pub fn address(&self) -> TpmAddress {
        TpmAddress::Socket(self.socket())
    }

    pub fn switch_on(&mut self) {
        let socket = self.socket();
        let _ = std::fs::remove_file(&socket);
        let path = socket.display();
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg(format!("--tpmstate=dir={}", self.folder.path().display()))
            .arg(format!("--server=type=unixio,path={path}"))
            .arg(format!("--ctrl=type=unixio,path={path}.ctrl"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.running = Some(child.expect("scripts/setup installs swtpm"));
        let began = Instant::now();
        while !socket.exists() {
            assert!(began.elapsed() < Duration::from_secs(20), "swtpm did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn switch_off(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// One of tpm2-tools, in a folder for its files.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let output = run(Command::new(program)
            .args(arguments)
            .current_dir(self.folder.path())
            .env(
                "TPM2TOOLS_TCTI",
                format!("swtpm:path={}", self.socket().display()),
            ));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn folder(&self, state: &Path) -> IdentityFolder {
        IdentityFolder::new(state).with_keys(KeyPlace::Tpm, Tpm::at(self.address()))
    }

    pub fn config(&self, state: &Path) -> Config {
        Config {
            key: KeyPlace::Tpm,
            tpm: self.address(),
            ..Running::config(state)
        }
    }

    pub async fn enrolled(&self, world: &World, state: &Path) {
        let token = token(world).await;
        enrol_into(&self.folder(state), state, &token, KeyChoice::Held)
            .await
            .unwrap();
    }

    pub async fn agent(&self, state: &Path) -> Running {
        Running::start_as(self.config(state), Arc::new(FakeKernel::default())).await
    }
}
