//! `penstock-coordinator`: sets a plant's coordinator up, runs it, and backs it up.

#[path = "main/authority.rs"]
mod authority;

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use penstock_coordinator::config::{Config, ConfigFile, DEFAULT, LogFile, LogFormat};
use penstock_coordinator::operators::Role;
use penstock_coordinator::rollout::run::AfterApproval;
use penstock_coordinator::{app, files};
use penstock_policy::ids::{CoordinatorId, OperatorId, PlantId};
use penstock_proto::channel::Address;
use penstock_proto::keys::passphrase_in;
use penstock_proto::peer::Subject;
use penstock_proto::token::Token;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Issues identities, carries signed releases to gateways, gathers their audit trails.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a new plant's coordinator: its authority, its configuration, and a token for the first admin.
    Init {
        /// Folder for everything that it keeps.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// The plant's name.
        #[arg(long)]
        plant: PlantId,
        /// This coordinator's name.
        #[arg(long, default_value = "coordinator-1")]
        name: CoordinatorId,
        /// Address to listen on; may be repeated. Default: all of this machine's, on the ports of `--address`.
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Vec<SocketAddr>,
        /// Address for Prometheus, loopback only; `none` for none.
        #[arg(long, value_name = "ADDRESS:PORT")]
        metrics: Option<String>,
        /// Where gateways and operators reach it, as written into tokens and into its certificate; may be repeated.
        #[arg(long, value_name = "HOST:PORT", required = true)]
        address: Vec<Address>,
        /// Name of the first admin.
        #[arg(long, default_value = "admin")]
        admin: OperatorId,
        /// What becomes of approved releases: `wait` for somebody to start their rollout, start it by the `default-plan`, or carry
        /// them to all gateways `at-once`, on no trial (laboratories only).
        #[arg(long, value_name = "WHAT", default_value = "wait")]
        after_approval: AfterApproval,
        /// Where the configuration is written; default: DIR/coordinator.toml.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The plant's root is kept on a machine without a network (`authority new`), and this is its certificate. Without this, the
        /// root is made on this machine, and whoever has the machine has the plant.
        #[arg(long, value_name = "ROOT.PEM")]
        under: Option<PathBuf>,
        /// The key by which it issues is made on a token, by its PKCS #11 URI, and never leaves it; it stands in the configuration then.
        #[arg(long, value_name = "PKCS11-URI", requires = "under")]
        key: Option<String>,
    },
    /// Keeps the plant's root on a machine without a network, and certifies with it the key by which a coordinator issues.
    #[command(subcommand)]
    Authority(authority::AuthorityCommand),
    /// Runs the coordinator.
    Serve {
        /// Its configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Makes a token for an operator while the coordinator is stopped: for when no admin is left.
    Token {
        /// Its configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The operator's name.
        #[arg(long)]
        operator: OperatorId,
        /// The operator's role: viewer, engineer, approver or admin.
        #[arg(long, default_value = "admin")]
        role: Role,
        /// Where the coordinator is reached; may be repeated.
        #[arg(long, value_name = "HOST:PORT", required = true)]
        address: Vec<Address>,
    },
    /// Copies store and authority to a new folder, also while the coordinator runs.
    Backup {
        /// Its configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The new folder.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// The file whose first line is the passphrase that locks the root's key in the backup, if that is on this machine; only you may
        /// read it.
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// Leave the authority's key out: whoever restores the backup needs it from elsewhere.
        #[arg(long, conflicts_with = "passphrase_file")]
        without_key: bool,
    },
    /// Brings the store to the servers in `[storage.nats]`, which replicate it, or back; while the coordinator is stopped.
    Migrate {
        /// The coordinator's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The other way: the copy in the data folder becomes a store that stands alone, when it has all that other coordinators wrote.
        #[arg(long)]
        alone: bool,
        /// The servers are lost: the copy stands alone as it is, without what it lacks.
        #[arg(long, requires = "alone")]
        as_it_is: bool,
    },
    /// Takes the passphrase off the authority's key, as it comes from a backup.
    Unlock {
        /// The coordinator's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The file whose first line is the passphrase; only you may read it.
        #[arg(long, value_name = "FILE")]
        passphrase_file: PathBuf,
    },
    /// Prints a configuration, or checks one.
    Config {
        /// Print one with every key at its default.
        #[arg(long)]
        default: bool,
        /// Check this one.
        #[arg(long, value_name = "FILE", conflicts_with = "default")]
        check: Option<PathBuf>,
    },
}

/// How long the first admin's token is good.
const TOKEN_SECONDS: u32 = 24 * 3600;

fn main() -> anyhow::Result<()> {
    penstock_proto::dumps::keep_memory_private();
    execute(Arguments::parse().command)
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init {
            data,
            plant,
            name,
            listen,
            metrics,
            address,
            admin,
            after_approval,
            config,
            under,
            key,
        } => {
            // The configuration is read from anywhere later on.
            let data = std::path::absolute(&data).context("`--data` cannot be used")?;
            let mut file = ConfigFile::with_defaults(plant, name, data);
            file.listen.grpc = if listen.is_empty() {
                everywhere(&address)
            } else {
                listen
            };
            file.rollouts.after_approval = after_approval;
            if let Some(uri) = key {
                file.authority.keys = vec![authority::key_uri(&uri)?.to_string()];
            }
            let hosts: BTreeSet<&str> = address.iter().map(Address::host).collect();
            file.listen.names = hosts.into_iter().map(str::to_owned).collect();
            if let Some(metrics) = metrics {
                file.listen.metrics = if metrics == "none" { String::new() } else { metrics };
            }
            init(&file, &address, &admin, config, under.as_deref())
        }
        Command::Authority(command) => command.execute(),
        Command::Serve { config } => {
            let file = ConfigFile::read(&config)?;
            let checked = check(&file, &config)?;
            log(&file.log)?;
            runtime()?.block_on(serve(&checked))
        }
        Command::Token {
            config,
            operator,
            role,
            address,
        } => {
            let checked = check(&ConfigFile::read(&config)?, &config)?;
            println!("{}", token(&checked, &operator, role, address)?);
            Ok(())
        }
        Command::Backup {
            config,
            to,
            passphrase_file,
            without_key,
        } => {
            let checked = check(&ConfigFile::read(&config)?, &config)?;
            if app::has_root_key(&checked) && passphrase_file.is_none() && !without_key {
                bail!(
                    "the plant's root key is on this machine: --passphrase-file locks it in the backup, --without-key leaves it out"
                );
            }
            let passphrase = passphrase_file.as_deref().map(passphrase_in).transpose()?;
            let passphrase = passphrase.as_ref().map(|one| one.as_str());
            app::backup(&checked, &to, passphrase)?;
            let key = match (app::has_root_key(&checked), passphrase) {
                (true, Some(_)) => {
                    "It holds the authority's key, locked by the passphrase: keep that elsewhere."
                }
                (true, None) => "The authority's key is not in it: without it, it cannot be restored.",
                (false, _) => {
                    "It does not hold the key by which this coordinator issues: who restores it has the plant's root sign a new request."
                }
            };
            let key = match app::token_in_words(&checked) {
                Ok(Some(place)) => format!(
                    "It does not hold the key by which this coordinator issues, which is the {place}: who restores it needs that token with its PIN, or has the plant's root sign a new request."
                ),
                _ => key.to_owned(),
            };
            println!("Backed up to {}. {key}", to.display());
            Ok(())
        }
        Command::Migrate {
            config, alone: false, ..
        } => {
            let contents = runtime()?.block_on(app::replicate(&configured(&config)?))?;
            println!(
                "The servers hold the store, as was read back from them: {contents}.\n\
                 This coordinator follows it from its next start on; others take it from there."
            );
            Ok(())
        }
        Command::Migrate {
            config,
            alone: true,
            as_it_is,
        } => {
            let contents = runtime()?.block_on(app::stand_alone(&configured(&config)?, as_it_is))?;
            println!(
                "The store stands alone: {contents}.\n\
                 Take `[storage.nats]` out of {} before the next start. What the servers hold stays there, and nobody reads it any more.",
                config.display()
            );
            Ok(())
        }
        Command::Unlock {
            config,
            passphrase_file,
        } => {
            let checked = check(&ConfigFile::read(&config)?, &config)?;
            let was_locked = app::unlock(&checked, passphrase_in(&passphrase_file)?.as_str())?;
            println!(
                "The authority's key in {} {}.",
                checked.data.display(),
                if was_locked {
                    "is unlocked"
                } else {
                    "was not locked"
                }
            );
            Ok(())
        }
        Command::Config { default: true, .. } => {
            print!("{DEFAULT}");
            Ok(())
        }
        Command::Config {
            check: Some(path), ..
        } => {
            let checked = check(&ConfigFile::read(&path)?, &path)?;
            println!("{} can be used", path.display());
            keys_in_words(&checked)
                .with_context(|| format!("nothing can be issued on this machine by {}", path.display()))
        }
        Command::Config { .. } => bail!("say --default, or --check FILE"),
    }
}

/// Says where each key is by which it issues. No token is asked: its module is only loaded.
///
/// # Errors
/// One cannot be: the coordinator would run, and issue nothing.
fn keys_in_words(config: &Config) -> anyhow::Result<()> {
    let mut modules = Ok(());
    for uri in &config.keys {
        let (key, token) = (uri.key_in_words(), uri.token_in_words());
        println!(
            "authority.keys: the {key} on the {token} ({})",
            uri.module.display()
        );
        modules = modules.and(uri.load_module());
    }
    Ok(modules?)
}

/// All addresses of this machine, on each port by which it is reached.
fn everywhere(reached: &[Address]) -> Vec<SocketAddr> {
    let ports: BTreeSet<u16> = reached.iter().map(Address::port).collect();
    ports
        .into_iter()
        .map(|port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        .collect()
}

/// What a configuration file says.
fn configured(path: &Path) -> anyhow::Result<Config> {
    check(&ConfigFile::read(path)?, path)
}

fn check(file: &ConfigFile, path: &Path) -> anyhow::Result<Config> {
    file.check()
        .with_context(|| format!("{} cannot be used", path.display()))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

fn log(file: &LogFile) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&file.level).context("`log.level` cannot be used")?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match file.format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

fn token(
    config: &Config,
    operator: &OperatorId,
    role: Role,
    coordinators: Vec<Address>,
) -> anyhow::Result<Token> {
    let (token, root_digest) =
        runtime()?.block_on(app::operator_token(config, operator, role, TOKEN_SECONDS))?;
    Ok(Token {
        plant: config.plant.clone(),
        subject: Subject::Operator(operator.clone()),
        coordinators,
        secret: token.secret,
        root_digest,
        approvers: None,
        expires_ms: token.expires_ms,
    })
}

fn init(
    file: &ConfigFile,
    addresses: &[Address],
    admin: &OperatorId,
    config: Option<PathBuf>,
    under: Option<&Path>,
) -> anyhow::Result<()> {
    let checked = file.check()?;
    let request = match under {
        Some(root) => Some(app::init_under(&checked, root)?),
        None => {
            app::init(&checked)?;
            None
        }
    };
    let config = config.unwrap_or_else(|| checked.data.join("coordinator.toml"));
    let list = |texts: Vec<String>| {
        let quoted: Vec<_> = texts.iter().map(|text| format!("{text:?}")).collect();
        quoted.join(", ")
    };
    let grpc = list(checked.grpc.iter().map(ToString::to_string).collect());
    let rollouts = match checked.after_approval {
        AfterApproval::Wait => String::new(),
        other => format!("\n[rollouts]\nafter_approval = {:?}\n", other.as_str()),
    };
    let keys = match file.authority.keys.as_slice() {
        [] => String::new(),
        keys => format!("\n[authority]\nkeys = [{}]\n", list(keys.to_vec())),
    };
    let text = format!(
        "# Written by `penstock-coordinator init`; `penstock-coordinator config --default` shows every key.\n\
         plant = {:?}\nname = {:?}\ndata = {:?}\n\n[listen]\ngrpc = [{grpc}]\nnames = [{}]\nmetrics = {:?}\n{rollouts}{keys}",
        checked.plant.to_string(),
        checked.name.to_string(),
        checked.data.display().to_string(),
        list(file.listen.names.clone()),
        file.listen.metrics,
    );
    files::write_new(&config, text.as_bytes())?;
    if let Some(request) = request {
        return authority::begun_under(&checked, &request, &config, (admin, addresses));
    }
    let token = token(&checked, admin, Role::Admin, addresses.to_vec())?;
    eprintln!(
        "Plant {} has an authority in {}, and a configuration in {}.\n\
         It will listen on {grpc}.\n\
         Next: penstock-coordinator serve --config {}\n\
         The first admin ({admin}) enrols within 24 hours with this token, once:",
        checked.plant,
        checked.data.display(),
        config.display(),
        config.display()
    );
    println!("{token}");
    Ok(())
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let running = app::start(config).await?;
    for address in &running.grpc {
        tracing::info!(%address, plant = %config.plant, name = %config.name, "serving");
    }
    if let Some(address) = running.metrics {
        tracing::info!(%address, "metrics");
    }
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let goes_on_elsewhere = tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        () = running.deposed() => true,
    };
    tracing::info!("stopping");
    running.stop().await;
    if goes_on_elsewhere {
        bail!("this coordinator does not act any more; started again, it stands by");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn written(arguments: &[&str]) -> ConfigFile {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let line = [
            "penstock-coordinator",
            "init",
            "--plant",
            "works",
            "--metrics",
            "none",
            "--data",
        ];
        let line = line
            .iter()
            .copied()
            .chain([data.to_str().unwrap()])
            .chain(arguments.iter().copied());
        execute(Arguments::try_parse_from(line).unwrap().command).unwrap();
        ConfigFile::read(&data.join("coordinator.toml")).unwrap()
    }

    #[test]
    fn a_new_coordinator_listens_on_the_ports_by_which_it_is_said_to_be_reached_and_is_named_by_their_hosts()
    {
        let reached = [
            "--address",
            "coordinator.example:9000",
            "--address",
            "10.0.0.5:9001",
            "--address",
            "10.0.0.5:9000",
        ];
        let file = written(&reached);
        let listens: Vec<_> = file.listen.grpc.iter().map(ToString::to_string).collect();
        assert_eq!(listens, ["[::]:9000", "[::]:9001"]);
        assert_eq!(file.listen.names, ["10.0.0.5", "coordinator.example"]);
        // What is said about listening counts more.
        let file = written(&[&reached[..], &["--listen", "10.0.0.5:7643"]].concat());
        assert_eq!(file.listen.grpc, ["10.0.0.5:7643".parse().unwrap()]);
        assert_eq!(file.listen.names.len(), 2);
    }
}
