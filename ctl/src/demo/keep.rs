//! `--keep` and `--enter`: a plant that goes on running, and the way into it from another terminal.
//!
//! The sandbox has namespaces of its own, which no other process sees. Its outer process is an ordinary one of the
//! same user, so its number is what a person is given; from there the children lead to the inner process, whose
//! namespaces are entered with `nsenter`.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use super::DemoError;
use super::peers::PRESSURE;
use super::show::Show;
use super::topology::{HISTORIAN, PLC_7};
use penstock_lab::{LabError, sandbox};

/// Says how to play with the plant.
pub(super) fn explain(show: &Show) {
    let outer = std::env::var(sandbox::MARK).unwrap_or_default();
    let penstock = own_name();
    show.say(&format!(
        "\n The plant goes on running, until you press Ctrl-C here. From another terminal of the same user:\n\n\
         \x20  {penstock} demo --enter {outer}   a shell among its machines; there, for instance:\n\n\
         \x20  ip netns exec hmi-1 mbpoll -m tcp -a 1 -0 -r 0 -c 4 -1 {PLC_7}      a declared read\n\
         \x20  ip netns exec office-pc mbpoll -m tcp -a 1 -0 -r 0 -c 4 -1 {PLC_7}  is refused\n\
         \x20  ip netns exec office-pc mosquitto_sub -h {HISTORIAN} -t {PRESSURE}\n\
         \x20  ip netns exec gw-ops nft list table inet penstock\n\
         \x20  export XDG_CONFIG_HOME=/run/penstock-demo/people/k.ito\n\
         \x20  ip netns exec engineering penstock health --watch\n\
         \x20  ip netns exec engineering penstock audit tail\n\n\
         \x20 Documents, configurations and logs are in /run/penstock-demo there."
    ));
}

/// Waits for as long as the program lives: an interrupt of the outer process ends everything.
pub(super) fn forever() -> ! {
    loop {
        std::thread::park();
    }
}

/// Replaces this process by a shell, or by `command`, inside the running demo whose outer process is `outer`.
///
/// # Errors
/// When there is no demo with that number, or it belongs to somebody else.
pub fn enter(outer: u32, command: &[String]) -> Result<std::convert::Infallible, DemoError> {
    let inner = children(outer)
        .into_iter()
        .flat_map(children)
        .next()
        .ok_or_else(|| DemoError::NotSo {
            claim: "a demo that runs under that process number",
            seen: format!("process {outer} is not there, not yours, or not `penstock demo --keep`"),
        })?;
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["--target", &inner.to_string(), "--mount", "--net", "--pid"]);
    let own = fs::read_link("/proc/self/ns/user").ok();
    if own != fs::read_link(format!("/proc/{inner}/ns/user")).ok() {
        nsenter.args(["--user", "--preserve-credentials"]);
    }
    nsenter.arg("--");
    match command {
        [] => nsenter.arg("env").arg(path()).args(["PS1=plant# ", "sh"]),
        words => nsenter.args(words),
    };
    let source = nsenter.exec();
    Err(LabError::System {
        verb: "run",
        what: "nsenter".to_owned(),
        source,
    }
    .into())
}

/// How this program is called from the folder where it was started: a newcomer's is in no search path yet.
fn own_name() -> String {
    let Ok(program) = std::env::current_exe() else {
        return "penstock".to_owned();
    };
    let here = std::env::current_dir().unwrap_or_default();
    program
        .strip_prefix(here)
        .unwrap_or(&program)
        .display()
        .to_string()
}

/// The search path of the shell: this program's own folder first, so that `penstock` is the one that runs the demo.
fn path() -> String {
    let own = std::env::current_exe().ok().and_then(|program| {
        program
            .parent()
            .map(|folder| folder.to_string_lossy().into_owned())
    });
    let path = std::env::var("PATH").unwrap_or_default();
    format!("PATH={}:{path}:/usr/sbin:/sbin", own.unwrap_or_default())
}

/// Children of a process, by what every process says of its parent.
fn children(parent: u32) -> Vec<u32> {
    let wanted = format!("PPid:\t{parent}");
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|process| {
            fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status"))
                .is_ok_and(|status| status.lines().any(|line| line == wanted))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_finds_its_children() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children(std::process::id()).contains(&child.id()));
    }

    #[test]
    fn a_number_that_is_no_demo_is_refused() {
        assert!(matches!(enter(u32::MAX, &[]), Err(DemoError::NotSo { .. })));
    }
}
