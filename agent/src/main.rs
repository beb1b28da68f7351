//! The program `penstock-agent`: its commands, its log, its signals. Everything else is in the library.
//!
//! Exit codes: 0 done; 1 it failed; 2 the command line is wrong; 3 the configuration is wrong; 4 not enrolled, or
//! the enrolment was refused.

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use penstock_agent::commands::asking::{Asking, CONFIG_PATH};
use penstock_agent::commands::audit::AuditCommand;
use penstock_agent::commands::overrides::OverrideCommand;
use penstock_agent::commands::trust::TrustCommand;
use penstock_agent::commands::withdrawn::WithdrawnCommand;
use penstock_agent::config::{Config, ConfigError, DEFAULT_TEXT, LogFormat};
use penstock_agent::enforce::standing;
use penstock_agent::enforce::{Base, EnforceSettings, Enforcer};
use penstock_agent::link::enrol::{EnrolError, KeyChoice, enrol_into, key_digest_in};
use penstock_agent::local::change::TrialState;
use penstock_agent::local::{Ask, LocalSettings, REASON_BYTES_MAX, ask, is_reason};
use penstock_agent::service_manager::{ServiceManager, StoredDescriptor};
use penstock_agent::{app, audit, rollback, status};
use penstock_policy::text;
use penstock_proto::token::Token;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const EXIT_FAILED: u8 = 1;
const EXIT_CONFIG: u8 = 3;
const EXIT_ENROLMENT: u8 = 4;

#[derive(Parser)]
#[command(
    name = "penstock-agent",
    version,
    about = "Penstock on an edge gateway",
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Enforce the stored policy and keep in touch with the coordinator.
    Run {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
        config: PathBuf,
    },
    /// Make this machine a gateway of a plant, by a single-use token.
    Enrol {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
        config: PathBuf,
        /// The file that holds the token, or `-` for standard input.
        #[arg(long, value_name = "FILE")]
        token: PathBuf,
        /// Make a new key: the one of this machine was withdrawn, or shall no longer count. It takes the old one's place as soon as it
        /// has a certificate; an agent that runs goes on with it by itself.
        #[arg(long)]
        new_key: bool,
    },
    /// Show the key with which this machine enrols, so that a token can be made for it and no other; born now, if there is none.
    Key {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
        config: PathBuf,
        /// The one with which `enrol --new-key` goes on.
        #[arg(long)]
        new_key: bool,
    },
    /// Load the boot-time rules: guarded interfaces pass nothing until the agent has put its policy in force.
    Base {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
        config: PathBuf,
    },
    /// Show identity, policy and audit spool as they are on this machine, also while the agent runs.
    Status {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
        config: PathBuf,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Keep the release that is on trial here.
    ///
    /// One confirms what one saw: name the release, or look at it and answer the question on a terminal. Root may, and the members of the
    /// group in `local.group` of the configuration.
    Confirm {
        #[command(flatten)]
        asking: Asking,
        /// The release that is to stay.
        #[arg(long, value_name = "N")]
        revision: Option<u64>,
    },
    /// Take the release that is on trial here back: what was in force before it comes back.
    Revert {
        #[command(flatten)]
        asking: Asking,
        /// The release; the one on trial if it is left out.
        #[arg(long, value_name = "N")]
        revision: Option<u64>,
        /// Why, for the audit trail.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Let no release begin on this gateway until the hold is released. A trial that runs goes on.
    Hold {
        #[command(flatten)]
        asking: Asking,
        /// Why, for the audit trail and for whoever waits for it.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// End the hold: a release that was held begins.
    ReleaseHold {
        #[command(flatten)]
        asking: Asking,
    },
    /// Let a release that was reverted here come again.
    Clear {
        #[command(flatten)]
        asking: Asking,
        /// The reverted release.
        #[arg(long, value_name = "N")]
        revision: u64,
    },
    /// Override what this gateway enforces, for a while (break-glass).
    ///
    /// For the hour at which a device is replaced and nobody can make a release: two people of the document's `break_glass` sign a
    /// request, or a sealed code opens it. It ends by itself, and when a release says the same.
    Override {
        #[command(subcommand)]
        command: OverrideCommand,
    },
    /// Whose keys no longer count at this gateway: show them, or bring a list to a site without a link.
    Withdrawn {
        #[command(subcommand)]
        command: WithdrawnCommand,
    },
    /// Which root certificates this gateway trusts: show them, or bring a trust bundle to a site without a link.
    Trust {
        #[command(subcommand)]
        command: TrustCommand,
    },
    /// What this gateway's own audit trail proves.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Take this gateway's disk for the newest of itself, after it was set back or its TPM was cleared.
    ///
    /// Only where the key is in a TPM, whose counter tells an older disk. The reason is for the audit trail; an agent that runs takes it up by itself.
    AcceptDisk {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
        config: PathBuf,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Check a configuration, or print the default one.
    Config {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
        config: PathBuf,
        /// Print the default configuration with what each line means.
        #[arg(long)]
        default: bool,
    },
}

fn main() -> ExitCode {
    penstock_proto::dumps::keep_memory_private();
    let arguments = Arguments::parse();
    match execute(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "penstock-agent: {}",
                text::printable(&text::sentence(error.as_ref()))
            );
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<ConfigError>() {
        EXIT_CONFIG
    } else if error.is::<EnrolError>() || error.is::<status::NotEnrolled>() {
        EXIT_ENROLMENT
    } else {
        EXIT_FAILED
    }
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run { config } => {
            let config = Config::load(&config)?;
            begin_log(&config);
            let kept = ServiceManager::kept();
            runtime()?.block_on(run(config, kept))
        }
        Command::Enrol {
            config,
            token,
            new_key,
        } => {
            let config = Config::load(&config)?;
            let token = read_token(&token)?;
            penstock_agent::durable::create_folder(&config.state_folder)?;
            let choice = choice(new_key);
            let enrolled = runtime()?.block_on(enrol_into(
                &config.identity(),
                &config.state_folder,
                &token,
                choice,
            ))?;
            print!("{}", text::printable(&enrolled.to_string()));
            Ok(())
        }
        Command::Key { config, new_key } => {
            let config = Config::load(&config)?;
            penstock_agent::durable::create_folder(&config.state_folder)?;
            println!("{}", key_digest_in(&config.identity(), choice(new_key))?);
            Ok(())
        }
        Command::Base { config } => {
            let config = Config::load(&config)?;
            let Some(base) = Base::read(&base_path(&config))? else {
                println!("no policy was ever in force here: there is nothing to guard yet");
                return Ok(());
            };
            let nft = penstock_agent::enforce::nft::run::Nft::new(config.nft);
            let loaded = runtime()?.block_on(base.load(&nft))?;
            println!(
                "{}",
                match loaded {
                    penstock_agent::enforce::ground::base::BaseOutcome::Denying =>
                        "the guarded interfaces pass nothing now",
                    penstock_agent::enforce::ground::base::BaseOutcome::LeftAlone =>
                        "rules of penstock are there already and stay",
                }
            );
            Ok(())
        }
        Command::Status { config, json } => {
            let status = status::read(&Config::load(&config)?);
            if json {
                println!("{}", text::json(&serde_json::to_string(&status)?));
            } else {
                print!("{}", text::printable(&status.to_string()));
            }
            status.enrolled()?;
            Ok(())
        }
        Command::Confirm { asking, revision } => {
            let settings = asking.settings()?;
            let trial = on_trial(&settings, revision)?;
            if revision.is_none() && !is_agreed(&trial)? {
                println!("nothing was done");
                return Ok(());
            }
            let statement = trial.statement;
            asking.steer(&settings, Ask::Confirm { statement })
        }
        Command::Revert {
            asking,
            revision,
            reason,
        } => {
            let settings = asking.settings()?;
            let statement = on_trial(&settings, revision)?.statement;
            asking.steer(&settings, Ask::Revert { statement, reason })
        }
        Command::Hold { asking, reason } => {
            let settings = asking.settings()?;
            asking.steer(&settings, Ask::Hold { reason })
        }
        Command::ReleaseHold { asking } => {
            let settings = asking.settings()?;
            asking.steer(&settings, Ask::ReleaseHold)
        }
        Command::Clear { asking, revision } => {
            let settings = asking.settings()?;
            let change = ask::standing(&settings)?.change;
            let reverted = change.reverted_as(revision).with_context(|| {
                format!("nothing was done: r{revision} is not reverted here; `penstock-agent status` shows what is")
            })?;
            let statement = reverted.statement;
            asking.steer(&settings, Ask::Clear { statement })
        }
        Command::Override { command } => command.execute(),
        Command::Withdrawn { command } => command.execute(),
        Command::Trust { command } => command.execute(),
        Command::Audit { command } => command.execute(),
        Command::AcceptDisk { config, reason } => {
            let config = Config::load(&config)?;
            let identity = config.identity();
            anyhow::ensure!(
                identity.counts_on_tpm(),
                "nothing was done: this gateway's key is in a file, and no TPM tells the age of its disk; only one whose key is in a TPM has a disk to accept"
            );
            anyhow::ensure!(
                is_reason(&reason),
                "nothing was done: a reason is one line of 1 to {REASON_BYTES_MAX} bytes"
            );
            let shown = rollback::accept(&config.state_folder, identity.tpm(), &reason)?;
            println!("this disk counts as the newest now, at {shown} of the TPM's counter");
            Ok(())
        }
        Command::Config { config, default } => {
            if default {
                print!("{DEFAULT_TEXT}");
            } else {
                let held = Config::load(&config)?;
                println!("{} is valid", config.display());
                println!("{}", text::printable(&held.key_in_words()));
            }
            Ok(())
        }
    }
}

fn choice(new_key: bool) -> KeyChoice {
    match new_key {
        true => KeyChoice::New,
        false => KeyChoice::Held,
    }
}

/// The trial that runs, which has to be that of `revision`.
fn on_trial(settings: &LocalSettings, revision: Option<u64>) -> anyhow::Result<TrialState> {
    let trial = ask::standing(settings)?.change.trial;
    let trial = trial.context("nothing was done: no release is on trial here")?;
    match revision {
        Some(asked) if asked != trial.revision => {
            anyhow::bail!(
                "nothing was done: r{asked} is not on trial here, r{} is",
                trial.revision
            )
        }
        _ => Ok(trial),
    }
}

/// Shows the trial, and has its number typed by who confirms it.
fn is_agreed(trial: &TrialState) -> anyhow::Result<bool> {
    let number = trial.revision;
    if !std::io::stdin().is_terminal() {
        anyhow::bail!(
            "nothing was done: one confirms what one saw; name it with `--revision {number}`, if it is r{number}"
        );
    }
    eprintln!("r{number} is on trial: {}", text::printable(&trial.to_string()));
    eprint!("Type the number of the release that is to stay ({number}): ");
    let mut typed = String::new();
    std::io::stdin().lock().take(64).read_line(&mut typed)?;
    Ok(typed.trim() == number.to_string())
}

/// Two threads: one may wait for the kernel while the other keeps the link; more would only cost memory.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .context("cannot start the run time")
}

fn begin_log(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::new(&config.log_level);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours());
    match config.log_format {
        LogFormat::Human => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Colours are for a terminal that obeys them, and for people who want them (<https://no-color.org>).
fn colours() -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    std::io::stderr().is_terminal()
        && set("NO_COLOR").is_none()
        && set("TERM").is_none_or(|term| term != "dumb")
}

fn base_path(config: &Config) -> PathBuf {
    config.state_folder.join("base.json")
}

fn read_token(path: &Path) -> anyhow::Result<Token> {
    let mut bytes = Vec::new();
    let limit = Token::FILE_BYTES_MAX;
    if path == Path::new("-") {
        std::io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    }
    .with_context(|| format!("cannot read the token from {}", path.display()))?;
    Token::from_bytes(&bytes).context("the token is not used")
}

async fn run(config: Config, kept: Vec<StoredDescriptor>) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let nudge = Arc::new(Notify::new());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (stopping, looking) = (stop.clone(), nudge.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => looking.notify_one(),
            }
        }
        stopping.cancel();
    });
    // Here, so that the data plane can record before anything else is ready.
    let (audit, unwritten) = audit::queue();
    let settings = EnforceSettings {
        nft: config.nft.clone(),
        log_group: config.log_group,
        base_path: Some(base_path(&config)),
        account_path: Some(config.state_folder.join("logged")),
        note_path: Some(config.state_folder.join(standing::FILE)),
        verify_interval: config.verify_interval,
        inspect: Some(config.inspect),
        own: config.own_services(),
        ..EnforceSettings::default()
    };
    let kernel = Arc::new(Enforcer::start_with(settings, kept, audit.clone())?);
    app::run(config, kernel, (audit, unwritten), nudge, stop, |_| {}).await?;
    Ok(())
}
