//! `penstock-coordinator authority`: a plant's root on a machine without a network, and the key of a coordinator that it certifies for
//! issuing. What goes from one machine to the other, on a stick, is a request and a certificate: no key.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Subcommand;
use penstock_coordinator::ca::{IssuingTerms, OfflineRoot};
use penstock_coordinator::config::Config;
use penstock_coordinator::{app, clock, files};
use penstock_policy::ids::{CoordinatorId, Digest, OperatorId, PlantId};
use penstock_proto::channel::Address;
use penstock_proto::keys::{KeyError, Passphrase, passphrase_in};
use penstock_proto::tls::times::instant;
use penstock_proto::tls::{certificates_from_pem, validity_ms};

/// The request's name in the data folder.
const REQUEST: &str = "issuing-request.pem";
/// Longest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;
const YEAR: Duration = Duration::from_secs(365 * 86_400);

#[derive(Debug, Subcommand)]
pub(crate) enum AuthorityCommand {
    /// On the machine without a network: makes the plant's root in a new folder.
    New {
        /// The new folder: root.pem, the certificate that everybody may have, and root.key, which nobody else may.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// The plant's name.
        #[arg(long)]
        plant: PlantId,
        /// A file whose first line is the passphrase that is to lock the key; without it, it is asked for.
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// The key is not locked: whoever has the file has the plant.
        #[arg(long, conflicts_with = "passphrase_file")]
        no_passphrase: bool,
    },
    /// On the machine without a network: certifies the key in a coordinator's request for issuing.
    Sign {
        /// What `init --under` or `authority request` wrote on the coordinator's machine.
        #[arg(value_name = "REQUEST")]
        request: PathBuf,
        /// The root's folder.
        #[arg(long, value_name = "DIR")]
        root: PathBuf,
        /// Whose request it is: who brought it says so, and stands for it.
        #[arg(long, value_name = "NAME")]
        coordinator: CoordinatorId,
        /// The certificate, a new file.
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
        /// For how many years.
        #[arg(long, value_name = "YEARS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
        years: u32,
        /// Leave the standard's name constraints out: devices whose TLS knows none (mbed TLS, rustls) refuse the certificate otherwise.
        /// Programs of Penstock hold it to its plant either way.
        #[arg(long)]
        no_name_constraints: bool,
        /// A file whose first line is the passphrase of the root's key; without it, it is asked for.
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// On the coordinator's machine: makes the key by which it is to issue next, and a request for the root to sign; also while it runs.
    Request {
        /// Its configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The request, a new file.
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// On the coordinator's machine, while the coordinator is stopped: takes what the root signed into use.
    Install {
        /// Its configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// What `authority sign` wrote.
        #[arg(value_name = "CERTIFICATE")]
        certificate: PathBuf,
    },
}

impl AuthorityCommand {
    pub(crate) fn execute(self) -> anyhow::Result<()> {
        match self {
            Self::New {
                dir,
                plant,
                passphrase_file,
                no_passphrase,
            } => {
                let passphrase = match passphrase_file {
                    _ if no_passphrase => None,
                    Some(file) => Some(passphrase_in(&file)?),
                    None => Some(new_passphrase()?),
                };
                let root = OfflineRoot::create(&dir, plant, passphrase.as_ref(), clock::now_ms())?;
                println!(
                    "The root of plant {} is in {}. Keep root.key on this machine and in one more safe place; root.pem goes to the coordinator.\n\
                     SHA-256 of the root: {}",
                    root.plant(),
                    dir.display(),
                    Digest::of(root.certificate())
                );
                Ok(())
            }
            Self::Sign {
                request,
                root,
                coordinator,
                out,
                years,
                no_name_constraints,
                passphrase_file,
            } => {
                let der = request_der(&read(&request)?)
                    .with_context(|| format!("{} is not a certificate request in PEM", request.display()))?;
                let key = root.join("root.key");
                let opened = OfflineRoot::open(&root, || passphrase(&key, passphrase_file.as_deref()))?;
                let terms = IssuingTerms {
                    coordinator,
                    lifetime: YEAR * years,
                    constrained: !no_name_constraints,
                };
                let pem = opened.sign(&der, &terms, clock::now_ms())?;
                files::write_new(&out, pem.as_bytes())?;
                println!(
                    "Coordinator {} may issue for plant {} {}. The certificate is in {}: take it to the coordinator's machine and run\n\
                     penstock-coordinator authority install --config FILE {}",
                    terms.coordinator,
                    opened.plant(),
                    until(pem.as_bytes()),
                    out.display(),
                    out.display()
                );
                Ok(())
            }
            Self::Request { config, out } => {
                let request = app::issuing_request(&crate::configured(&config)?)?;
                files::write_new(&out, request_pem(&request).as_bytes())?;
                println!(
                    "The request is in {}. Take it to the machine that has the plant's root and run there\n\
                     penstock-coordinator authority sign {} --root DIR --coordinator NAME -o issuing.pem",
                    out.display(),
                    out.display()
                );
                Ok(())
            }
            Self::Install { config, certificate } => {
                let checked = crate::configured(&config)?;
                let pem = read(&certificate)?;
                app::install_issuing(&checked, &pem).context("nothing was changed")?;
                println!(
                    "The coordinator issues by this certificate from its next start on, {}. What was issued before goes on counting.",
                    until(&pem)
                );
                Ok(())
            }
        }
    }
}

/// What is said, and written, where a data folder was made for a plant whose root is elsewhere.
pub(crate) fn begun_under(
    config: &Config,
    request: &[u8],
    written: &Path,
    (admin, addresses): (&OperatorId, &[Address]),
) -> anyhow::Result<()> {
    let file = config.data.join(REQUEST);
    files::write_new(&file, request_pem(request).as_bytes())?;
    let addresses: Vec<String> = addresses
        .iter()
        .map(|address| format!("--address {address}"))
        .collect();
    eprintln!(
        "Plant {} has a data folder in {}, and a configuration in {}. It issues nothing yet.\n\
         Next, on the machine that has the root: penstock-coordinator authority sign {} --root DIR --coordinator {} -o issuing.pem\n\
         Then here: penstock-coordinator authority install --config {} issuing.pem\n\
         A token for the first admin: penstock-coordinator token --config {} --operator {admin} {}\n\
         Then: penstock-coordinator serve --config {}",
        config.plant,
        config.data.display(),
        written.display(),
        file.display(),
        config.name,
        written.display(),
        written.display(),
        addresses.join(" "),
        written.display(),
    );
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut content = Vec::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut content))
        .with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(
        content.len() as u64 <= FILE_BYTES_MAX,
        "{} has more than {FILE_BYTES_MAX} bytes",
        file.display()
    );
    Ok(content)
}

const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";
const END: &str = "-----END CERTIFICATE REQUEST-----";

fn request_pem(der: &[u8]) -> String {
    let encoded = BASE64.encode(der);
    let mut text = format!("{BEGIN}\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at_checked(64).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str(END);
    text.push('\n');
    text
}

fn request_der(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once(BEGIN)?;
    let (encoded, _) = rest.split_once(END)?;
    let encoded: String = encoded.split_whitespace().collect();
    BASE64.decode(encoded).ok()
}

/// Until when a certificate holds, in words.
fn until(pem: &[u8]) -> String {
    let found = certificates_from_pem(pem, "the certificate").ok();
    let until = found.and_then(|found| validity_ms(found.first()?).ok());
    until.map_or_else(String::new, |(_, until_ms)| {
        format!("until {}", instant(until_ms))
    })
}

fn passphrase(key: &Path, file: Option<&Path>) -> Result<Passphrase, KeyError> {
    let name = || key.display().to_string();
    match file {
        Some(file) => passphrase_in(file),
        None if std::io::stdin().is_terminal() => {
            rpassword::prompt_password(format!("Passphrase of {}: ", name()))
                .map(Passphrase::new)
                .map_err(|_| KeyError::NoPassphrase(name(), "it cannot be read from the terminal"))
        }
        None => Err(KeyError::NoPassphrase(
            name(),
            "it is locked, and nobody can be asked here; name --passphrase-file",
        )),
    }
}

fn new_passphrase() -> anyhow::Result<Passphrase> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked for a passphrase here: name --passphrase-file FILE, or --no-passphrase");
    }
    let first = Passphrase::new(rpassword::prompt_password("Passphrase for the root's key: ")?);
    ensure!(
        !first.is_empty(),
        "the passphrase is empty; --no-passphrase leaves the key unlocked"
    );
    let second = Passphrase::new(rpassword::prompt_password("The same once more: ")?);
    ensure!(first == second, "the two passphrases differ");
    Ok(first)
}
