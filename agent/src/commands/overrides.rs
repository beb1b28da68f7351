//! `penstock-agent override`: a request to be signed, its beginning, its end, and what lasts.

use std::fs::OpenOptions;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use ipnet::IpNet;
use penstock_policy::overrides::{BYTES_MAX, Effect};
use penstock_policy::terms::Mac;
use penstock_policy::text;

use super::asking::Asking;
use crate::local::{Ask, OverrideQuestion, TypedCode, ask};
use crate::overrides::{OverrideState, is_meant};
use crate::status;

/// The longest line that is read as a code, bytes.
const CODE_BYTES_MAX: u64 = 256;

/// What can be done with overrides.
#[derive(Debug, clap::Subcommand)]
pub enum OverrideCommand {
    /// Make a request for two people to sign (`penstock override sign FILE`), or for a sealed code.
    Request {
        /// Who asks, and whom.
        #[command(flatten)]
        asking: Asking,
        /// Another device has this address now.
        #[arg(long, value_name = "ADDRESS=MAC")]
        device: Vec<String>,
        /// What crosses between these two is reported where it would be refused, and passes.
        #[arg(long, value_name = "NETWORK=NETWORK")]
        observe: Vec<String>,
        /// The process is not asked before a change.
        #[arg(long)]
        unasked: bool,
        /// For how long, as in `4h` or `1h 30m`.
        #[arg(long = "for", value_name = "TIME")]
        lasts: jiff::SignedDuration,
        /// Why, for those who sign it and for the audit trail.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// What your change management calls it.
        #[arg(long, value_name = "TICKET")]
        ticket: Option<String>,
        /// Where the request goes; standard output by default.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Put an override in force.
    Begin {
        /// Who asks, and whom.
        #[command(flatten)]
        asking: Asking,
        /// The request, signed; or as it was made, with `--code`.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// By a sealed code, which is typed, or read from standard input.
        #[arg(long)]
        code: bool,
    },
    /// End an override now.
    End {
        /// Who asks, and whom.
        #[command(flatten)]
        asking: Asking,
        /// The first digits of its number, as `override list` shows it.
        #[arg(value_name = "NUMBER", required_unless_present = "all")]
        number: Option<String>,
        /// All of them.
        #[arg(long, conflicts_with = "number")]
        all: bool,
    },
    /// Show what is overridden, also while no agent runs.
    List {
        /// Who asks, and whom.
        #[command(flatten)]
        asking: Asking,
    },
}

impl OverrideCommand {
    /// Does it.
    ///
    /// # Errors
    /// Nothing was done, and why.
    pub fn execute(self) -> anyhow::Result<()> {
        match self {
            Self::Request {
                asking,
                device,
                observe,
                unasked,
                lasts,
                reason,
                ticket,
                output,
            } => {
                let settings = asking.settings()?;
                let seconds =
                    u32::try_from(lasts.as_secs()).context("that is not a time that an override may last")?;
                let question = OverrideQuestion::Request {
                    effects: effects(&device, &observe, unasked)?,
                    seconds,
                    reason,
                    ticket,
                };
                let made = asking.asked(&settings, Ask::Override(question))?;
                match output {
                    None => println!("{made}"),
                    Some(path) => write_new(&path, &made)?,
                }
                Ok(())
            }
            Self::Begin { asking, file, code } => {
                let settings = asking.settings()?;
                let signed = read(&file)?;
                let code = code.then(typed_code).transpose()?;
                let question = OverrideQuestion::Begin { signed, code };
                asking.steer(&settings, Ask::Override(question))
            }
            Self::End { asking, number, all } => {
                let settings = asking.settings()?;
                let lasting = ask::standing(&settings)?.change.overrides;
                let number = match number.filter(|_| !all) {
                    None => None,
                    Some(written) => Some(named(&lasting, &written)?.number),
                };
                asking.steer(&settings, Ask::Override(OverrideQuestion::End { number }))
            }
            Self::List { asking } => {
                let lasting = status::read(&asking.config()?).change.overrides;
                if lasting.is_empty() {
                    println!("nothing is overridden");
                }
                for one in lasting {
                    println!("{}", text::printable(&one.to_string()));
                }
                Ok(())
            }
        }
    }
}

/// The one that is meant.
fn named<'a>(lasting: &'a [OverrideState], written: &str) -> anyhow::Result<&'a OverrideState> {
    let mut meant = lasting.iter().filter(|one| is_meant(written, one.number));
    match (meant.next(), meant.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => anyhow::bail!(
            "nothing was done: no override has a number that begins so (six digits or more); `penstock-agent override list` shows \
             them"
        ),
        (Some(_), Some(_)) => {
            anyhow::bail!("nothing was done: several overrides have numbers that begin so: write more of it")
        }
    }
}

fn effects(devices: &[String], observed: &[String], unasked: bool) -> anyhow::Result<Vec<Effect>> {
    let mut effects = Vec::new();
    for device in devices {
        let (address, mac) = pair(device)?;
        let form =
            || format!("`{device}` is not an address and a MAC address, as in 192.0.2.10=02:00:00:00:00:01");
        effects.push(Effect::Device {
            address: address.parse::<IpAddr>().with_context(form)?,
            mac: mac.parse::<Mac>().map_err(|_| anyhow::anyhow!(form()))?,
        });
    }
    for ends in observed {
        let (one, other) = pair(ends)?;
        effects.push(Effect::Observe {
            one: network(one)?,
            other: network(other)?,
        });
    }
    if unasked {
        effects.push(Effect::Unasked);
    }
    if effects.is_empty() {
        anyhow::bail!("nothing was asked for: use `--device`, `--observe` or `--unasked`");
    }
    Ok(effects)
}

fn pair(text: &str) -> anyhow::Result<(&str, &str)> {
    text.split_once('=')
        .with_context(|| format!("`{text}` has no `=` between its two parts"))
}

/// A network, or a single address.
fn network(text: &str) -> anyhow::Result<IpNet> {
    let network = text
        .parse::<IpAddr>()
        .map(IpNet::from)
        .or_else(|_| text.parse::<IpNet>());
    let network = network.with_context(|| format!("`{text}` is not an address or a network"))?;
    Ok(network.trunc())
}

fn read(path: &Path) -> anyhow::Result<String> {
    // With room for signatures and the file's own form.
    let limit = 3 * BYTES_MAX as u64;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limit).read_to_string(&mut text))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
}

fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let written = OpenOptions::new().write(true).create_new(true).open(path);
    written
        .and_then(|mut file| writeln!(file, "{text}"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!(
        "{} is good for a day and while this agent runs: have two people sign it, or use it with a sealed code; then `penstock-agent \
         override begin {}`",
        path.display(),
        path.display()
    );
    Ok(())
}

fn typed_code() -> anyhow::Result<TypedCode> {
    let stdin = std::io::stdin();
    let silenced = if stdin.is_terminal() {
        eprint!("The sealed code (it is not shown): ");
        Some(
            Silence::begin()
                .context("the terminal goes on showing what is typed: use standard input for the code")?,
        )
    } else {
        None
    };
    let mut typed = String::new();
    stdin.lock().take(CODE_BYTES_MAX).read_line(&mut typed)?;
    if silenced.is_some() {
        eprintln!();
    }
    drop(silenced);
    Ok(TypedCode(typed))
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silence(libc::termios);

#[allow(unsafe_code)] // Two calls for which no safe wrapper is at hand.
impl Silence {
    fn begin() -> std::io::Result<Self> {
        // SAFETY: all zeroes is a value of this structure of numbers.
        let mut settings: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is ours and lives on while the call fills it in.
        if unsafe { libc::tcgetattr(libc::STDIN_FILENO, &raw mut settings) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        let before = Self(settings);
        settings.c_lflag &= !libc::ECHO;
        // SAFETY: the structure is ours, and only read.
        if unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSAFLUSH, &raw const settings) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(before)
    }
}

#[allow(unsafe_code)] // As above.
impl Drop for Silence {
    fn drop(&mut self) {
        // SAFETY: the structure is ours, and only read. A terminal that is gone shows nothing.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSAFLUSH, &raw const self.0) };
    }
}
