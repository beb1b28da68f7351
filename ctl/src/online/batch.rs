//! `penstock gateways batch`: a file of gateways that two approvers sign, and the tokens that a coordinator makes for it.

use std::path::Path;

use penstock_policy::batch::{Batch, BatchGateway, SIGNERS_NEEDED, SignedBatch};
use penstock_policy::ids::{ApproverId, Digest, GatewayId};
use penstock_proto::peer::Subject;
use penstock_proto::token::{Secret, Token};
use penstock_proto::v1::{Signature, SubmitBatchRequest};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Online, digest, malformed, refused};
use crate::args::BatchCommand;
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::keys;
use crate::keys::passphrase;
use crate::loading;
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// The largest file that is read, bytes: a batch in an envelope's base64, with signatures.
const FILE_BYTES_MAX: u64 = 8 << 20;
const DAY_MS: u64 = 86_400_000;

/// A batch, as it stands in its file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BatchShown {
    /// Its id, which is used once.
    pub id: String,
    /// SHA-256 of its bytes.
    pub digest: String,
    /// Of this plant.
    pub plant: String,
    /// How many gateways it names.
    pub gateways: usize,
    /// How many of them are bound to a key.
    pub with_key: usize,
    /// Until when it is good, milliseconds since 1970.
    pub until_ms: u64,
    /// Who says to have signed it.
    pub signed_by: Vec<String>,
    /// Its file.
    pub file: String,
}

impl BatchShown {
    fn of(signed: &SignedBatch, batch: &Batch, file: &Path) -> Self {
        Self {
            id: batch.id.clone(),
            digest: signed.digest().to_string(),
            plant: batch.plant.to_string(),
            gateways: batch.gateways.len(),
            with_key: batch.gateways.iter().filter(|one| one.key.is_some()).count(),
            until_ms: batch.until_ms,
            signed_by: signed
                .signatures
                .iter()
                .map(|one| one.approver.to_string())
                .collect(),
            file: file.display().to_string(),
        }
    }
}

impl Report for BatchShown {
    const SCHEMA: &'static str = "penstock.batch/1";
    fn page(&self, page: &mut Page) {
        let (id, plant) = (page.paint(Tone::Strong, &self.id), &self.plant);
        let file = page.paint(Tone::Name, &self.file);
        page.line(format!("batch {id} of plant {plant} in {file}"));
        let until = words::when(self.until_ms, words::now_ms());
        page.line(format!(
            "  {}, {} bound to a key; ends {until}",
            words::count(self.gateways, "gateway"),
            self.with_key
        ));
        page.line(format!("  {}", self.digest));
        let names = match self.signed_by.is_empty() {
            true => "nobody".to_owned(),
            false => self.signed_by.join(", "),
        };
        page.line(format!("  signed by {}", page.paint(Tone::Plain, &names)));
        let next = match self.signed_by.len() < SIGNERS_NEEDED {
            true => "two approvers look at it and sign it: penstock gateways batch sign",
            false => "an administrator submits it: penstock gateways batch submit",
        };
        page.line(format!("  {} {next}", page.paint(Tone::Dim, "next,")));
    }
}

/// The tokens of a batch.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BatchSubmitted {
    /// The batch.
    pub batch: BatchShown,
    /// How many tokens were made; gateways that enrolled with the batch before get none.
    pub tokens: usize,
    /// The folder that holds them.
    pub folder: String,
}

impl Report for BatchSubmitted {
    const SCHEMA: &'static str = "penstock.batch-submit/1";
    fn page(&self, page: &mut Page) {
        page.line(format!(
            "{} {} written to {}",
            page.paint(Tone::Good, "✓"),
            words::count(self.tokens, "token"),
            page.paint(Tone::Name, &self.folder)
        ));
        page.line("  each is a secret, works once, and is for the gateway of its name");
        page.line(format!(
            "  {} on each gateway: penstock-agent enrol --token FILE",
            page.paint(Tone::Dim, "next,")
        ));
    }
}

/// `penstock gateways batch …`.
pub(super) async fn batch(
    out: &Output,
    context: Option<&str>,
    command: &BatchCommand,
) -> Result<Exit, Failure> {
    match command {
        BatchCommand::New {
            path,
            from,
            days,
            out: file,
        } => {
            let loaded = loading::load(path, out)?;
            let gateways = read_list(from)?;
            let unknown: Vec<_> = gateways
                .iter()
                .filter(|one| !loaded.plant.gateways.contains_key(&one.gateway))
                .map(|one| one.gateway.to_string())
                .collect();
            if !unknown.is_empty() {
                return Err(Failure::usage(format!(
                    "the document knows no such gateways: {}",
                    unknown.join(", ")
                )));
            }
            let mut random = [0; 16];
            getrandom::fill(&mut random).map_err(|error| Failure::from(keys::KeyError::Random(error)))?;
            let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            let made_at = words::now_ms();
            let span = (made_at, made_at + u64::from(*days) * DAY_MS);
            let batch = Batch::new(loaded.plant.id, id, span, gateways)
                .map_err(|error| Failure::usage(error.to_string()))?;
            let signed = SignedBatch {
                payload: batch.to_bytes(),
                signatures: Vec::new(),
            };
            files::create(file, signed.to_json().as_bytes(), Mode::Shared)?;
            out.show(&BatchShown::of(&signed, &batch, file))?;
        }
        BatchCommand::Show { file } => {
            let (signed, batch) = read(file)?;
            out.show(&BatchShown::of(&signed, &batch, file))?;
        }
        BatchCommand::Sign {
            file,
            key,
            unlock,
            person,
            yes,
        } => {
            let (mut signed, batch) = read(file)?;
            let person: ApproverId = person
                .parse()
                .map_err(|error| Failure::usage(format!("`{person}` cannot be an approver: {error}")))?;
            let passphrase_file = unlock.passphrase_file.as_deref();
            let key = keys::read(key, || passphrase::existing(out, key, passphrase_file))?;
            if out.for_people() {
                let mut page = Page::new(out.style);
                BatchShown::of(&signed, &batch, file).page(&mut page);
                for one in &batch.gateways {
                    let key = one.key.map_or_else(|| "any key".to_owned(), String::from);
                    page.line(format!("    {}: {key}", one.gateway));
                }
                page.gap();
                out.text(&page.finish())?;
            }
            let gateways = words::count(batch.gateways.len(), "gateway");
            ask::confirm(out, *yes, &format!("Let {gateways} be enrolled, as {person}?"))?;
            let signature = key.sign(person, &signed.signable(), None)?;
            signed.add(signature);
            files::replace(file, signed.to_json().as_bytes(), Mode::Shared)?;
            out.show(&BatchShown::of(&signed, &batch, file))?;
        }
        BatchCommand::Submit { file, path, out_dir } => submit(out, context, (file, path), out_dir).await?,
    }
    Ok(Exit::Done)
}

async fn submit(
    out: &Output,
    context: Option<&str>,
    (file, path): (&Path, &Path),
    folder: &Path,
) -> Result<(), Failure> {
    let (signed, batch) = read(file)?;
    // Before the coordinator is asked: no token is made that cannot be kept, or that no gateway would believe.
    let approvers = loading::load(path, out)?.plant.approvers;
    std::fs::create_dir(folder).map_err(|source| files::FileError::Write {
        path: folder.to_owned(),
        source,
    })?;
    let mut online = Online::connect(context).await?;
    online.settle_zone().await;
    let request = SubmitBatchRequest {
        batch: signed.payload.clone().into(),
        signatures: signed.signatures.iter().map(Signature::from).collect(),
        approvers_digest: approvers.digest().0.to_vec().into(),
    };
    let answer = online.client.submit_batch(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    let root_digest = digest("root_digest", &answer.root_digest)?;
    let tokens = answer.tokens.len();
    for made in answer.tokens {
        let gateway: GatewayId = made
            .gateway
            .parse()
            .map_err(|_| malformed("a token is for no gateway"))?;
        let token = Token {
            plant: online.login.context.plant.clone(),
            subject: Subject::Gateway(gateway.clone()),
            coordinators: online.login.context.coordinators.clone(),
            secret: Secret::try_from(made.secret.as_ref()).map_err(|error| malformed(&error.to_string()))?,
            root_digest,
            approvers: Some(approvers.clone()),
            expires_ms: answer.expires_ms,
        };
        let into = folder.join(format!("{gateway}.token"));
        files::create(&into, format!("{token}\n").as_bytes(), Mode::Secret)?;
    }
    out.show(&BatchSubmitted {
        batch: BatchShown::of(&signed, &batch, file),
        tokens,
        folder: folder.display().to_string(),
    })
}

fn unusable(file: &Path, error: &(dyn std::error::Error + 'static)) -> Failure {
    let message = format!("{} is not a batch of gateways", file.display());
    Failure::altered("batch-unusable", message)
        .caused_by(error)
        .help("make one: penstock gateways batch new")
}

fn read(file: &Path) -> Result<(SignedBatch, Batch), Failure> {
    let bytes = files::read(file, FILE_BYTES_MAX)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| unusable(file, &error))?;
    let signed = SignedBatch::from_json(text).map_err(|error| unusable(file, &error))?;
    let batch = Batch::from_bytes(&signed.payload).map_err(|error| unusable(file, &error))?;
    Ok((signed, batch))
}

/// A list of gateways: one a line, and its key behind a comma if it is known.
fn read_list(file: &Path) -> Result<Vec<BatchGateway>, Failure> {
    let bytes = files::read(file, FILE_BYTES_MAX)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut gateways = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || (number == 0 && line == "gateway,key") {
            continue;
        }
        let at = format!("{}, line {}", file.display(), number + 1);
        let (name, key) = line.split_once(',').unwrap_or((line, ""));
        let gateway = name.trim().parse().map_err(|error| {
            Failure::usage(format!("{at}: this cannot be the name of a gateway: {error}"))
        })?;
        let key = match key.trim() {
            "" => None,
            key => Some(Digest::try_from(key.to_owned()).map_err(|error| {
                Failure::usage(format!("{at}: `{key}` is not the digest of a key: {error}"))
                    .help("`penstock-agent key` shows it on the gateway")
            })?),
        };
        gateways.push(BatchGateway { gateway, key });
    }
    Ok(gateways)
}
