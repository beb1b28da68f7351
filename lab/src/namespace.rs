//! One network namespace of a lab: what is in it, and what runs in it.
//!
//! Everything goes through `ip`, so that a failed step reads as the command a person would try again by hand.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Daemon, LabError};

/// One end of a cable: a namespace, and the interface's name there.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Where the end is plugged in.
    pub namespace: &'a Namespace,
    /// What it is called there.
    pub interface: &'a str,
}

impl<'a> From<(&'a Namespace, &'a str)> for End<'a> {
    fn from((namespace, interface): (&'a Namespace, &'a str)) -> Self {
        Self { namespace, interface }
    }
}

/// A network namespace; it and its links go with the sandbox.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
    logs: PathBuf,
}

impl Namespace {
    pub(super) fn create(name: &str, logs: &Path) -> Result<Self, LabError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 30 || !name.chars().all(plain) {
            return Err(LabError::Name(name.to_owned()));
        }
        run(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Self {
            name: name.to_owned(),
            logs: logs.to_owned(),
        };
        namespace.ip(&["link", "set", "lo", "up"])?;
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), "0")?;
            namespace.sysctl(&format!("net.ipv6.conf.{scope}.accept_ra"), "0")?;
            // Nor repeated, at a random moment, which groups a host listens to: to a gateway that is one more refused packet.
            let repeated = format!("net.ipv6.conf.{scope}.mldv2_unsolicited_report_interval");
            namespace.sysctl(&repeated, "3600000")?;
        }
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` with these arguments inside.
    ///
    /// # Errors
    /// `ip` is missing, or ended with anything but success; the error has the end of what it printed.
    pub fn ip(&self, arguments: &[&str]) -> Result<String, LabError> {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// Runs many `ip` commands inside as one batch, one a line (`addr add 10.0.0.1/24 dev eth0`).
    ///
    /// # Errors
    /// As [`Namespace::ip`]; the lines before the one that failed were carried out.
    pub fn ip_batch(&self, lines: &str) -> Result<String, LabError> {
        feed(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), lines)
    }

    /// Gives an interface an address (`10.0.0.1/24`, `2001:db8::1/64`), usable at once.
    ///
    /// # Errors
    /// There is no such interface, it has the address already, or it is not an address with a prefix length.
    pub fn address(&self, interface: &str, address: &str) -> Result<(), LabError> {
        let mut arguments = vec!["addr", "add", address, "dev", interface];
        if address.contains(':') {
            arguments.push("nodad");
        }
        self.ip(&arguments).map(drop)
    }

    /// Sends what goes to `destination` (a prefix or `default`) by way of `gateway`.
    ///
    /// # Errors
    /// Nothing leads to `gateway`, or one of the two is not an address.
    pub fn route(&self, destination: &str, gateway: &str) -> Result<(), LabError> {
        let family = if gateway.contains(':') { "-6" } else { "-4" };
        self.ip(&[family, "route", "replace", destination, "via", gateway])
            .map(drop)
    }

    /// A bridge of these interfaces, up.
    ///
    /// # Errors
    /// There is an interface `name` already, or one of the ports is missing.
    pub fn bridge(&self, name: &str, ports: &[&str]) -> Result<(), LabError> {
        // A forward delay of 0 forwards at once: a lab's bridges have no loops to wait for.
        self.ip(&["link", "add", name, "type", "bridge", "forward_delay", "0"])?;
        for port in ports {
            self.ip(&["link", "set", port, "master", name, "up"])?;
        }
        self.ip(&["link", "set", name, "up"]).map(drop)
    }

    /// Sets a kernel parameter that belongs to the namespace (`net.ipv4.ip_forward`).
    ///
    /// # Errors
    /// The kernel has no such parameter, or does not take the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        let value = value.to_owned();
        self.enter(move || std::fs::write(&path, value).map_err(|e| LabError::system("write", path, e)))?
    }

    /// Makes it a router for IPv4 and IPv6.
    ///
    /// # Errors
    /// The parameters cannot be written: outside the sandbox that takes root.
    pub fn forward(&self) -> Result<(), LabError> {
        self.sysctl("net.ipv4.ip_forward", "1")?;
        self.sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    /// Lets the `inet` tables see what a bridge of this namespace forwards.
    ///
    /// # Errors
    /// The kernel's module `br_netfilter` is not loaded.
    pub fn filter_bridged(&self) -> Result<(), LabError> {
        self.sysctl("net.bridge.bridge-nf-call-iptables", "1")?;
        self.sysctl("net.bridge.bridge-nf-call-ip6tables", "1")
    }

    /// A command that will run inside, not started yet.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a program inside and gives what it printed; anything but success is an error.
    ///
    /// # Errors
    /// The program is missing, or ended with anything but success; the error has the end of what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String, LabError> {
        run(self.command(program).args(arguments))
    }

    /// As [`Namespace::run`], with `input` as its standard input.
    ///
    /// # Errors
    /// As [`Namespace::run`].
    pub fn run_with_input(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, LabError> {
        feed(self.command(program).args(arguments), input)
    }

    /// Starts a program inside that goes on until the [`Daemon`] is dropped; its output goes to `<name>.log`.
    ///
    /// # Errors
    /// Its log cannot be opened, or `ip`, which starts it, is missing. A program that is missing ends the [`Daemon`]
    /// and is in its log.
    pub fn spawn(&self, name: &str, program: &str, arguments: &[&str]) -> Result<Daemon, LabError> {
        let mut command = self.command(program);
        command.args(arguments);
        Daemon::spawn(name, command, &self.logs)
    }

    /// As [`Namespace::spawn`], for a command made with [`Namespace::command`] (environment, folder).
    ///
    /// # Errors
    /// As [`Namespace::spawn`].
    pub fn spawn_command(&self, name: &str, command: Command) -> Result<Daemon, LabError> {
        Daemon::spawn(name, command, &self.logs)
    }

    /// Runs `work` on a thread of this process that was moved into the namespace, and waits for it.
    ///
    /// Sockets opened there, and threads and processes started there, belong to the namespace.
    ///
    /// # Errors
    /// The thread cannot be moved into the namespace, or `work` panicked.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| -> Result<T, LabError> {
                self.move_in()?;
                Ok(work())
            });
            thread
                .join()
                .unwrap_or_else(|_| Err(LabError::Panicked(self.name.clone())))
        })
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// The namespace is gone, or this process may not enter it (CAP_SYS_ADMIN).
    pub fn move_in(&self) -> Result<(), LabError> {
        let path = format!("/run/netns/{}", self.name);
        let file = std::fs::File::open(&path).map_err(|e| LabError::system("open", &path, e))?;
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
            .map_err(|e| LabError::system("enter", path, e.into()))
    }
}

/// Lays one cable: both ends are made in place, so that no name is ever taken outside.
pub(super) fn link(number: u32, a: End<'_>, b: End<'_>) -> Result<(), LabError> {
    let (here, there) = (&a.namespace.name, &b.namespace.name);
    run(Command::new("ip")
        .args(["-n", here, "link", "add", "name", a.interface, "type", "veth"])
        .args(["peer", "name", b.interface, "netns", there]))?;
    for (end, side) in [(&a, 1_u8), (&b, 2)] {
        // Addresses by number, so that a capture of the same lab reads the same in every run.
        let [_, high, middle, low] = number.to_be_bytes();
        let hardware = format!("02:70:{high:02x}:{middle:02x}:{low:02x}:{side:02x}");
        end.namespace
            .ip(&["link", "set", end.interface, "address", &hardware, "up"])?;
    }
    Ok(())
}

/// Runs a command to its end, without input, and gives its standard output.
pub(super) fn run(command: &mut Command) -> Result<String, LabError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| start_failed(command, e))?;
    finished(command, &output)
}

fn feed(command: &mut Command, input: &str) -> Result<String, LabError> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| start_failed(command, e))?;
    let pipe = child.stdin.take();
    std::thread::scope(|scope| {
        // On a thread of its own: the program may print before it has read everything.
        scope.spawn(move || pipe.map(|mut pipe| pipe.write_all(input.as_bytes())));
        let output = child
            .wait_with_output()
            .map_err(|e| LabError::system("wait for", words(command), e))?;
        finished(command, &output)
    })
}

fn finished(command: &Command, output: &Output) -> Result<String, LabError> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let said = format!("{}{text}", String::from_utf8_lossy(&output.stderr));
    Err(LabError::Command {
        command: words(command),
        status: output.status.to_string(),
        output: said.chars().take(2000).collect::<String>().trim().to_owned(),
    })
}

fn words(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

fn start_failed(command: &Command, error: std::io::Error) -> LabError {
    if error.kind() == std::io::ErrorKind::NotFound {
        let program = command.get_program().to_string_lossy().into_owned();
        let package = if program == "ip" { "iproute2" } else { "util-linux" };
        return LabError::Missing { program, package };
    }
    LabError::system("run", words(command), error)
}
