//! The programs that the demo runs, found before anything is begun.
//!
//! The three of Penstock lie beside the running one, so that the demo shows exactly what was built; the Python with
//! pymodbus lies in `peers/` above it (`target/peers`, as `scripts/setup` makes it), or where `--peers` says.

use std::path::{Path, PathBuf};

use super::DemoError;
use penstock_lab::sandbox;

/// Programs of the system, each with the Debian package that has it.
const SYSTEM: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("nft", "nftables"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("stdbuf", "coreutils"),
    ("ping", "iputils-ping"),
    ("mbpoll", "mbpoll"),
    ("mosquitto", "mosquitto"),
    ("mosquitto_pub", "mosquitto-clients"),
    ("mosquitto_sub", "mosquitto-clients"),
];

/// Where everything is.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) penstock: PathBuf,
    pub(super) agent: PathBuf,
    pub(super) coordinator: PathBuf,
    pub(super) python: PathBuf,
}

impl Programs {
    /// Finds all programs, or says at once everything that is missing.
    pub(super) fn find(peers: Option<&Path>) -> Result<Self, DemoError> {
        let penstock = std::env::current_exe()
            .map_err(|e| DemoError::system("find", Path::new("the running program"), e))?;
        let folder = penstock.parent().unwrap_or(Path::new("/"));
        let peers = match peers {
            Some(peers) => peers.to_owned(),
            None => folder.parent().unwrap_or(Path::new("/")).join("peers"),
        };
        let programs = Self {
            agent: folder.join("penstock-agent"),
            coordinator: folder.join("penstock-coordinator"),
            python: peers.join("bin/python"),
            penstock,
        };
        let mut missing: Vec<String> = SYSTEM
            .iter()
            .filter(|(program, _)| !in_path(program))
            .map(|(program, package)| format!("`{program}` (apt-get install {package})"))
            .collect();
        for program in [&programs.agent, &programs.coordinator] {
            if !program.is_file() {
                missing.push(format!("{} (cargo build --workspace --bins)", program.display()));
            }
        }
        if !programs.python.is_file() {
            missing.push(format!(
                "{} (make setup, or --peers with a folder that has pymodbus)",
                programs.python.display()
            ));
        }
        if missing.is_empty() {
            Ok(programs)
        } else {
            Err(DemoError::Missing(missing.join(", ")))
        }
    }
}

/// Whether a program can be found by name.
fn in_path(program: &str) -> bool {
    std::env::split_paths(&sandbox::path()).any(|folder| folder.join(program).is_file())
}
