//! Entering the sandbox: the program runs itself again inside namespaces of its own.
//!
//! As root in new mount, network and process namespaces, else in a user namespace as well. `/run` becomes an own
//! tmpfs, so that `ip netns` neither needs nor leaves anything on the machine. `setpriv --pdeathsig` and
//! `unshare --kill-child` make the inner program die with the outer one, and it is process 1 of its process
//! namespace, so everything that it started dies with it.
//!
//! The inner program is told by [`MARK`] in its environment; it must call [`prepare`] before anything else.

use std::ffi::OsStr;
use std::process::{Command, ExitStatus, Output, Stdio};

use super::LabError;
use super::namespace::run;

/// Set in the environment of a program that runs inside the sandbox; its value is the outer process's number.
pub const MARK: &str = "PENSTOCK_LAB";

/// Whether this process is the inner one: marked, and the first one of its process namespace. A mark alone, inherited or set by
/// hand, is not enough: this program would mount over the machine's own `/run`.
pub fn inside() -> bool {
    is_inner(std::env::var_os(MARK).as_deref(), std::process::id())
}

fn is_inner(mark: Option<&OsStr>, process: u32) -> bool {
    mark.is_some() && process == 1
}

/// Makes the mounts of the sandbox. Once, at the start of the inner program.
///
/// # Errors
/// Outside of the sandbox, where nothing is mounted; or when a mount or a folder cannot be made.
pub fn prepare() -> Result<(), LabError> {
    if !inside() {
        let source = std::io::Error::other("this process is not inside a sandbox of its own");
        return Err(LabError::system("mount", "/run", source));
    }
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755,size=256m", "penstock-lab", "/run"]))?;
    for folder in ["/run/netns", "/run/lock"] {
        std::fs::create_dir_all(folder).map_err(|e| LabError::system("create folder", folder, e))?;
    }
    run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    Ok(())
}

/// Runs this same program with `arguments` inside the sandbox, with the terminal of this one, and waits for it.
///
/// An interrupt ends both: the inner one by the death of the outer.
///
/// # Errors
/// The sandbox cannot be made: `unshare` or `setpriv` is missing, or this user may make no namespaces. How the
/// program ended is not an error.
pub fn reexecute<S: AsRef<OsStr>>(arguments: &[S]) -> Result<ExitStatus, LabError> {
    command()?
        .args(arguments)
        .status()
        .map_err(|e| LabError::system("run", "setpriv", e))
}

/// The body of a `#[test]` that needs namespaces: runs `body` inside the sandbox.
///
/// `name` is the test's full name as the harness prints it. In the outer process the test binary runs itself for
/// this one test in the sandbox and its success is asserted; a name that no test has is a failure, so nothing can
/// be skipped silently. `body` gets a lab with a scratch folder that goes when the sandbox goes.
///
/// # Errors
/// When the sandbox cannot be made, or the inner run did not pass exactly one test; all that it printed is printed.
pub fn test(name: &str, body: impl FnOnce(&super::Lab)) -> Result<(), LabError> {
    if inside() {
        prepare()?;
        body(&super::Lab::new("/run/penstock-lab")?);
        return Ok(());
    }
    let output = command()?
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| LabError::system("run", "setpriv", e))?;
    let text = both(&output);
    if output.status.success() && text.contains("test result: ok. 1 passed") {
        print!("{text}");
        return Ok(());
    }
    eprintln!("{text}");
    let result = text.lines().find(|line| line.starts_with("test result"));
    Err(LabError::Command {
        command: format!("{name} in the sandbox"),
        status: output.status.to_string(),
        output: result.unwrap_or("its output is above").to_owned(),
    })
}

/// This program as a command inside the sandbox, without arguments yet.
fn command() -> Result<Command, LabError> {
    let program =
        std::env::current_exe().map_err(|e| LabError::system("find", "the running program's own file", e))?;
    let user = rustix::process::geteuid().as_raw();
    let attempts: &[&str] = if user == 0 {
        &["-mnp", "-Urmnp"]
    } else {
        &["-Urmnp"]
    };
    let mut detail = String::new();
    for flags in attempts {
        let probe = Command::new("unshare")
            .args([flags, "--fork", "--mount-proc", "--kill-child", "true"])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| missing("unshare", "util-linux", e))?;
        if probe.status.success() {
            let mut command = Command::new("setpriv");
            command
                .args(["--pdeathsig", "KILL", "unshare", flags])
                .args(["--fork", "--mount-proc", "--kill-child", "--"])
                .arg(program)
                .env("PATH", path())
                .env(MARK, std::process::id().to_string());
            return Ok(command);
        }
        detail = both(&probe).trim().to_owned();
    }
    Err(LabError::Forbidden { user, detail })
}

/// The search path with the system's own folders: an ordinary user's lacks them on Debian, and `nft` lies there.
pub fn path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

fn missing(program: &str, package: &'static str, error: std::io::Error) -> LabError {
    if error.kind() == std::io::ErrorKind::NotFound {
        let program = program.to_owned();
        return LabError::Missing { program, package };
    }
    LabError::system("run", program, error)
}

fn both(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_in_the_environment_alone_lets_nothing_be_mounted_over_the_machines_own_folders() {
        assert!(!is_inner(None, 1));
        assert!(!is_inner(Some(OsStr::new("4711")), 4712));
        assert!(is_inner(Some(OsStr::new("4711")), 1));
        assert!(prepare().is_err(), "this test runs outside of a sandbox");
    }
}
