//! `penstock-coordinator authority`: a plant's root on a machine without a network, and the key of a coordinator that it certifies for
//! issuing. What goes from one machine to the other, on a stick, is a request and a certificate: no key.

mod pem;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use penstock_coordinator::ca::{IssuingTerms, OfflineRoot};
use penstock_coordinator::config::Config;
use penstock_coordinator::pkcs11::KeyUri;
use penstock_coordinator::{app, clock, files};
use penstock_policy::ids::{CoordinatorId, Digest, OperatorId, PlantId};
use penstock_proto::bundle::{Bundle, BundleRoot, Phase, SignedBundle, Trusted, from_json, to_json};
use penstock_proto::channel::Address;
use penstock_proto::keys::{KeyError, Passphrase, passphrase_in};
use penstock_proto::tls::times::instant;
use penstock_proto::tls::{certificates_from_pem, validity_ms};
use rustls::pki_types::CertificateDer;

use self::pem::{request_der, request_pem};

/// The request's name in the data folder.
const REQUEST: &str = "issuing-request.pem";
/// Longest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;
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
        /// The key is made on a token, by its PKCS #11 URI, and never leaves it; the folder says where it is (root.uri).
        #[arg(long, value_name = "PKCS11-URI", conflicts_with_all = ["passphrase_file", "no_passphrase"])]
        key: Option<String>,
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
    /// On the coordinator's machine: makes the key by which it is to issue next, in a file or on the token that `authority.keys` names first, and a
    /// request for the root to sign; also while it runs.
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
        #[command(flatten)]
        anyway: Anyway,
    },
    /// On the machine without a network: the next trust bundle, by which the plant trusts another root, another one issues, one is dropped, or a
    /// stolen issuing certificate no longer counts.
    Bundle {
        /// The file of all trust bundles so far; it is made, and grows by this one.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The folder of a root that is trusted already: it signs. Twice, where a new root and an old one shall both sign.
        #[arg(long, value_name = "DIR", required = true)]
        root: Vec<PathBuf>,
        /// Trust this root (its certificate) too: nothing is issued below it yet.
        #[arg(long, value_name = "ROOT.PEM")]
        add: Option<PathBuf>,
        /// Issue below this root from now on; what the one before issued still counts.
        #[arg(long, value_name = "ROOT.PEM")]
        activate: Option<PathBuf>,
        /// Trust this root no more.
        #[arg(long, value_name = "ROOT.PEM")]
        drop: Option<PathBuf>,
        /// This issuing certificate no longer counts, nor what it issued: its key may be in other hands.
        #[arg(long, value_name = "ISSUING.PEM")]
        withdraw: Vec<PathBuf>,
        /// A file whose first line is the passphrase of the roots' keys; without it, it is asked for.
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// On the coordinator's machine, while the coordinator is stopped: takes the trust bundles in a file, for it and all that connect to it.
    Trust {
        /// Its configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// What `authority bundle` wrote.
        #[arg(value_name = "BUNDLES")]
        file: PathBuf,
        #[command(flatten)]
        anyway: Anyway,
    },
    /// Which roots are trusted, which one issues, and which gateways know them; also while the coordinator runs.
    Show {
        /// Its configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// Whether it is done although some gateways are not ready for it.
#[derive(Debug, clap::Args)]
pub(crate) struct Anyway {
    /// Also where gateways are not ready for it: they have to be enrolled again.
    #[arg(long, requires = "because")]
    force: bool,
    /// Why; it stands in the trail.
    #[arg(long, value_name = "REASON", requires = "force")]
    because: Option<String>,
}

impl AuthorityCommand {
    pub(crate) fn execute(self) -> anyhow::Result<()> {
        match self {
            Self::New {
                dir,
                plant,
                passphrase_file,
                no_passphrase,
                key,
            } => {
                if let Some(uri) = key {
                    let uri = key_uri(&uri)?;
                    let root = OfflineRoot::create_on(&dir, plant, &uri, clock::now_ms())?;
                    println!(
                        "The root of plant {} is in {}, and its {} on the {}: whoever loses that token has no root any more, unless the token was copied by its maker's means.\n\
                         SHA-256 of the root: {}",
                        root.plant(),
                        dir.display(),
                        uri.key_in_words(),
                        uri.token_in_words(),
                        Digest::of(root.certificate())
                    );
                    return Ok(());
                }
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
                let (request, place) = app::issuing_request(&crate::configured(&config)?)?;
                files::write_new(&out, request_pem(&request).as_bytes())?;
                println!(
                    "It is for the key {place}. The request is in {}. Take it to the machine that has the plant's root and run there\n\
                     penstock-coordinator authority sign {} --root DIR --coordinator NAME -o issuing.pem",
                    out.display(),
                    out.display()
                );
                Ok(())
            }
            Self::Bundle {
                file,
                root,
                add,
                activate,
                drop,
                withdraw,
                passphrase_file,
            } => {
                let change = BundleChange {
                    add,
                    activate,
                    drop,
                    withdraw,
                };
                bundle(&file, &root, &change, passphrase_file.as_deref())
            }
            Self::Trust { config, file, anyway } => {
                let checked = crate::configured(&config)?;
                let text = String::from_utf8(read(&file)?)
                    .with_context(|| format!("{} is not text", file.display()))?;
                let taken = app::install_trust(&checked, &text, anyway.because.as_deref());
                let trusted = crate::runtime()?.block_on(taken).context("nothing was changed")?;
                println!(
                    "From the coordinator's next start on: {}\nStart it now: gateways, which enforce as before, and people connect again by themselves, and get the bundle.",
                    in_words(&trusted)
                );
                Ok(())
            }
            Self::Show { config } => {
                print!(
                    "{}",
                    crate::runtime()?.block_on(app::authority_in_words(&crate::configured(&config)?))?
                );
                Ok(())
            }
            Self::Install {
                config,
                certificate,
                anyway,
            } => {
                let checked = crate::configured(&config)?;
                let pem = read(&certificate)?;
                let installed = app::install_issuing(&checked, &pem, anyway.because.as_deref());
                crate::runtime()?
                    .block_on(installed)
                    .context("nothing was changed")?;
                println!(
                    "The coordinator issues by this certificate from its next start on, {}. Start it now; what was issued before goes on counting.",
                    until(&pem)
                );
                Ok(())
            }
        }
    }
}

/// A key's place as it is typed.
pub(crate) fn key_uri(text: &str) -> anyhow::Result<KeyUri> {
    text.parse::<KeyUri>()
        .map_err(|error| anyhow::anyhow!("`--key` holds a URI that {error}"))
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

/// What a bundle changes.
struct BundleChange {
    add: Option<PathBuf>,
    activate: Option<PathBuf>,
    drop: Option<PathBuf>,
    withdraw: Vec<PathBuf>,
}

/// A certificate of a file, alone in it.
fn one_certificate(file: &Path) -> anyhow::Result<CertificateDer<'static>> {
    let found = certificates_from_pem(&read(file)?, &file.display().to_string())?;
    let [one] = found.as_slice() else {
        bail!(
            "{} holds {} certificates, and one is wanted",
            file.display(),
            found.len()
        );
    };
    Ok(one.clone())
}

fn bundle(
    file: &Path,
    signers: &[PathBuf],
    change: &BundleChange,
    passphrase_file: Option<&Path>,
) -> anyhow::Result<()> {
    let open = |dir: &PathBuf| OfflineRoot::open(dir, || passphrase(&dir.join("root.key"), passphrase_file));
    let signers = signers.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let first = signers.first().context("name the root that signs: --root DIR")?;
    let mut bundles = match file.exists() {
        true => from_json(&String::from_utf8_lossy(&read(file)?))?,
        false => Vec::new(),
    };
    let before = match bundles.last() {
        Some(newest) => newest.trusted()?,
        None => Trusted::first(std::slice::from_ref(first.certificate())),
    };
    ensure!(
        change.add.is_some()
            || change.activate.is_some()
            || change.drop.is_some()
            || !change.withdraw.is_empty(),
        "a bundle that changes nothing is not made: say --add, --activate, --drop or --withdraw"
    );
    let mut roots = before.roots.clone();
    if let Some(add) = &change.add {
        let certificate = one_certificate(add)?;
        ensure!(
            before.phase(&certificate).is_none(),
            "{} is trusted already",
            add.display()
        );
        roots.push((certificate, Phase::Next));
    }
    if let Some(activate) = &change.activate {
        let certificate = one_certificate(activate)?;
        ensure!(
            before.phase(&certificate).is_some(),
            "{} is not trusted yet: --add it in a bundle of its own first, so that everybody knows it when it issues",
            activate.display()
        );
        for (root, phase) in &mut roots {
            *phase = match (*root == certificate, *phase) {
                (true, _) => Phase::Active,
                (false, Phase::Active) => Phase::Retiring,
                (false, other) => other,
            };
        }
    }
    if let Some(drop) = &change.drop {
        let certificate = one_certificate(drop)?;
        ensure!(
            before.phase(&certificate).is_some(),
            "{} is not trusted anyway",
            drop.display()
        );
        roots.retain(|(root, _)| *root != certificate);
    }
    let withdrawn = change
        .withdraw
        .iter()
        .map(|file| Ok(Digest::of(&one_certificate(file)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let roots = roots
        .iter()
        .map(|(root, phase)| BundleRoot::new(root, *phase))
        .collect();
    let next = Bundle::following(&before, first.plant(), clock::now_ms(), roots, withdrawn)?;
    let mut signed = SignedBundle::unsigned(&next);
    for signer in &signers {
        signer.sign_bundle(&mut signed)?;
    }
    let taken = before
        .take(&signed, first.plant())?
        .context("the bundle says nothing new")?;
    bundles.push(signed);
    files::replace(file, to_json(&bundles).as_bytes())?;
    println!(
        "{} holds {}. Take it to the coordinator's machine.",
        file.display(),
        in_words(&taken)
    );
    Ok(())
}

/// What is trusted.
fn in_words(trusted: &Trusted) -> String {
    let roots: Vec<String> = trusted
        .roots
        .iter()
        .map(|(root, phase)| format!("root {} {phase}", Digest::of(root)))
        .collect();
    let withdrawn = match trusted.withdrawn.len() {
        0 => String::new(),
        count => format!("; {count} issuing certificates are withdrawn"),
    };
    format!("trust bundle {}: {}{withdrawn}", trusted.number, roots.join(", "))
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
