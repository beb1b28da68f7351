//! `release sign` and `release verify` without a coordinator: for machines that have no network, and for doubters.
//!
//! Nothing is signed that was not compiled again here and found to be what the statement says.

use std::path::Path;

use penstock_policy::ids::{ApproverId, Digest, GatewayId, Revision};
use penstock_policy::model::ApproverSet;
use penstock_policy::release::{self, Draft, Envelope, Signable, Statement, TrailsAnchor, Trust};
use schemars::JsonSchema;
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::keys::{self, passphrase};
use crate::loading::{self, LoadedPlant};
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// Largest signed release that is read, bytes.
pub(crate) const SIGNED_BYTES_MAX: u64 = 1 << 20;

/// What a release states.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Stated {
    /// The plant.
    pub plant: String,
    /// Its revision.
    pub revision: u64,
    /// Digest of the statement that it follows; absent for the first.
    pub parent: Option<String>,
    /// Digests of statements of another history that it follows too.
    pub replaces: Vec<String>,
    /// Digest of the documents.
    pub document_digest: String,
    /// Merkle root over all plans.
    pub plans_root: String,
    /// How many gateways it has a plan for.
    pub gateways: u64,
    /// Who proposed it.
    pub author: String,
    /// Where it was agreed.
    pub ticket: Option<String>,
    /// Why.
    pub reason: String,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// Whether it is an emergency, which waits for no change window and no wave.
    pub emergency: bool,
    /// Up to which number it names the list of withdrawn keys; absent: it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdrawn_list: Option<u64>,
    /// The number of the trust bundle that it names; absent: it names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_bundle: Option<u64>,
    /// The head of the coordinator's trails that it names; absent: it names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trails: Option<TrailsStated>,
    /// Digest of the statement's exact bytes.
    pub statement_digest: String,
    /// The digest's first eight bytes in words, to be compared by telephone.
    pub words: String,
}

/// How far a release says that the coordinator's trails go.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TrailsStated {
    /// Blocks of all trails.
    pub blocks: u64,
    /// The root of the tree over them, hexadecimal.
    pub root: String,
    /// Whether they begin again: they do not begin with what releases before this one name.
    pub again: bool,
}

impl From<TrailsAnchor> for TrailsStated {
    fn from(head: TrailsAnchor) -> Self {
        Self {
            blocks: head.size,
            root: head.root.to_string().trim_start_matches("sha256:").to_owned(),
            again: head.again,
        }
    }
}

impl Stated {
    /// What the statement with these exact bytes says.
    pub fn of(statement: &Statement, bytes: &[u8]) -> Self {
        Self {
            plant: statement.plant.to_string(),
            revision: statement.revision.0,
            parent: statement.parent.map(|digest| digest.to_string()),
            replaces: statement.replaces.iter().map(ToString::to_string).collect(),
            document_digest: statement.document_digest.to_string(),
            plans_root: statement.plans_root.to_string(),
            gateways: statement.gateways,
            author: statement.author.to_string(),
            ticket: statement.ticket.clone(),
            reason: statement.reason.clone(),
            created_ms: statement.created_ms,
            emergency: statement.emergency,
            withdrawn_list: statement.withdrawn.map(|anchor| anchor.number),
            trust_bundle: statement.trust.map(|anchor| anchor.number),
            trails: statement.trails.map(TrailsStated::from),
            statement_digest: Digest::of(bytes).to_string(),
            words: release::spoken(&Digest::of(bytes)),
        }
    }

    /// Its name in a question to whoever is about to give it force.
    pub(crate) fn asked(&self) -> String {
        let digest: String = self
            .statement_digest
            .trim_start_matches("sha256:")
            .chars()
            .take(12)
            .collect();
        let kind = if self.emergency {
            "the EMERGENCY release"
        } else {
            "release"
        };
        format!("{kind} r{} ({digest})", self.revision)
    }

    /// Writes it for people.
    pub fn page(&self, page: &mut Page) {
        if self.emergency {
            emergency_page(page);
        }
        let plain = |text: &str| page.style.paint(Tone::Plain, text);
        let facts = [
            (
                "release",
                page.paint(Tone::Strong, &format!("r{} of {}", self.revision, self.plant)),
            ),
            ("author", plain(&self.author)),
            ("ticket", plain(self.ticket.as_deref().unwrap_or("—"))),
            ("reason", plain(&self.reason)),
            ("made", plain(&words::when(self.created_ms, words::now_ms()))),
            ("gateways", plain(&self.gateways.to_string())),
            ("words", page.paint(Tone::Strong, &self.words)),
            ("statement", page.paint(Tone::Dim, &self.statement_digest)),
            ("document", page.paint(Tone::Dim, &self.document_digest)),
            ("plans", page.paint(Tone::Dim, &self.plans_root)),
        ];
        page.facts(&facts);
        let named = [
            ("list of withdrawn keys", self.withdrawn_list),
            ("trust bundle", self.trust_bundle),
        ];
        for (what, number) in named {
            if let Some(number) = number {
                page.line(format!(
                    "  it names the {what}, number {number}: gateways that know less learn it by the approvers' signatures"
                ));
            }
        }
        if let Some(trails) = &self.trails {
            page.line(format!(
                "  it names the first {} blocks of the coordinator's trails: with the approvers' signatures, nobody alters or removes them unnoticed",
                trails.blocks
            ));
        }
        if self.trails.as_ref().is_some_and(|trails| trails.again) {
            let warn = page.paint(Tone::Bad, "▲▲");
            page.line(format!(
                "{warn} it says that the trails begin again: they do not begin with the blocks that earlier releases name. Sign it only if you know why, such as that the coordinator was restored from a backup"
            ));
        }
        for replaced in &self.replaces {
            let warn = page.paint(Tone::Warn, "▲");
            page.line(format!(
                "{warn} it replaces {replaced}, which gateways or people hold and its coordinator does not know"
            ));
        }
    }
}

/// Says what an emergency is, loudly, before it is proposed or signed and wherever it is shown.
pub(crate) fn emergency_page(page: &mut Page) {
    let loud = page.paint(Tone::Bad, "▲▲ EMERGENCY ▲▲");
    page.line(format!(
        "{loud} It waits for no change window, is judged in no shadow and watched in no wave: each gateway enforces it as soon as \
         its interlock lets it, on trial."
    ));
    page.line(
        "   A gateway that does not enforce the release before it yet takes that change with it, at once, too.",
    );
    page.gap();
}

/// A statement's exact bytes, read strictly.
pub(crate) fn read_statement(bytes: &[u8]) -> Result<Statement, Failure> {
    Statement::from_bytes(bytes).map_err(|error| {
        Failure::altered(
            "statement-unusable",
            "this is not a release statement that can be trusted",
        )
        .caused_by(&error)
    })
}

/// Refuses unless the documents compile to exactly what the statement says.
pub(crate) fn compare(statement: &Statement, loaded: &LoadedPlant) -> Result<(), Failure> {
    let mismatch = |what: &str, stated: &str, found: &str| {
        Failure::altered(
            "statement-mismatch",
            format!("the release does not say what its documents say: its {what} differs"),
        )
        .because(format!("stated: {stated}"))
        .because(format!("compiled here: {found}"))
        .help("do not sign it; ask its author, and tell whoever runs the coordinator")
    };
    if statement.document_digest != loaded.digest {
        return Err(mismatch(
            "document digest",
            &statement.document_digest.to_string(),
            &loaded.digest.to_string(),
        ));
    }
    let built = release::build(&loaded.plant, Draft::of(statement)).map_err(|error| {
        Failure::altered("not-compiled", "the release's documents cannot be compiled here").caused_by(&error)
    })?;
    if built.statement.plans_root != statement.plans_root {
        let (stated, found) = (
            statement.plans_root.to_string(),
            built.statement.plans_root.to_string(),
        );
        return Err(mismatch("root over all plans", &stated, &found));
    }
    if built.statement.approvers != statement.approvers {
        let words = |set| serde_json::to_string(set).unwrap_or_default();
        return Err(mismatch(
            "set of approvers",
            &words(&statement.approvers),
            &words(&built.statement.approvers),
        ));
    }
    // Field by field above for the sake of words; here nothing can have been forgotten.
    if built.statement != *statement {
        return Err(mismatch(
            "statement",
            &statement.digest().to_string(),
            &built.statement.digest().to_string(),
        ));
    }
    Ok(())
}

/// A signed release that was written.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Signed {
    /// What it says.
    pub statement: Stated,
    /// Who signed just now.
    pub signed_as: String,
    /// Everybody whose signature is in the file now.
    pub signatures: Vec<String>,
    /// The file.
    pub file: String,
}

impl Report for Signed {
    const SCHEMA: &'static str = "penstock.release-sign/1";
    fn page(&self, page: &mut Page) {
        let (done, by) = (
            page.paint(Tone::Good, "✓"),
            page.paint(Tone::Strong, &self.signed_as),
        );
        let file = page.paint(Tone::Name, &self.file);
        page.line(format!(
            "{done} r{} signed by {by}, written to {file}",
            self.statement.revision
        ));
        let all = page.paint(Tone::Plain, &self.signatures.join(", "));
        page.line(format!("  signatures in it: {all}"));
        page.line(format!(
            "  bring it to the coordinator with: penstock release approve {} --digest {} --signature {}",
            self.statement.revision,
            self.statement
                .statement_digest
                .trim_start_matches("sha256:")
                .get(..12)
                .unwrap_or_default(),
            files::quoted(Path::new(&self.file))
        ));
    }
}

/// What `release sign` was asked.
#[derive(Debug)]
pub struct SignRequest<'a> {
    /// Statement or signed release.
    pub statement: &'a Path,
    /// The key.
    pub key: &'a Path,
    /// The file that holds the key's passphrase; without one the person is asked.
    pub passphrase_file: Option<&'a Path>,
    /// The approver's name.
    pub approver: &'a str,
    /// The documents.
    pub documents: &'a Path,
    /// Where the signed release goes.
    pub out: &'a Path,
    /// Do not ask.
    pub yes: bool,
}

/// `penstock release sign`.
pub(crate) fn sign(out: &Output, request: &SignRequest<'_>) -> Result<Exit, Failure> {
    let bytes = files::read(request.statement, SIGNED_BYTES_MAX)?;
    let mut envelope = match std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| Envelope::from_json(text).ok())
    {
        Some(envelope) => envelope,
        None => Envelope {
            statement: bytes,
            signatures: Vec::new(),
        },
    };
    let statement = read_statement(&envelope.statement)?;
    let approver: ApproverId = request
        .approver
        .parse()
        .map_err(|error: penstock_policy::ids::NameError| Failure::usage(error.to_string()))?;
    let loaded = loading::load(request.documents, out)?;
    compare(&statement, &loaded)?;
    let key = keys::read(request.key, || {
        passphrase::existing(out, request.key, request.passphrase_file)
    })?;
    may_sign(&statement, &approver, &key, None)?;
    let stated = Stated::of(&statement, &envelope.statement);
    if out.for_people() {
        let mut page = Page::new(out.style);
        stated.page(&mut page);
        out.text(&page.finish())?;
    }
    if stated.trails.is_some() {
        out.remark(
            "the coordinator's trails were not compared with what it says of them: there is no coordinator here (penstock release approve compares them)",
        );
    }
    crate::ask::confirm(
        out,
        request.yes,
        &format!("Sign {} as {approver}?", stated.asked()),
    )?;
    let known = statement.approvers.people.get(&approver).map(|person| person.key);
    let payload = Signable::release(&envelope.statement);
    let signature = key.sign(approver.clone(), &payload, known.as_ref())?;
    envelope.add(signature);
    files::create(request.out, envelope.to_json().as_bytes(), Mode::Shared)?;
    out.show(&Signed {
        statement: stated,
        signed_as: approver.to_string(),
        signatures: envelope
            .signatures
            .iter()
            .map(|s| s.approver.to_string())
            .collect(),
        file: request.out.display().to_string(),
    })?;
    Ok(Exit::Done)
}

/// Refuses signatures that no gateway would count: the author's own, that of somebody who is not one of the approvers, and
/// one by another key. `in_force`: the approvers whose signatures hold, where they are known.
pub(crate) fn may_sign(
    statement: &Statement,
    approver: &ApproverId,
    key: &keys::Signer,
    in_force: Option<&ApproverSet>,
) -> Result<(), Failure> {
    may_count(statement, approver)?;
    // Offline, the release's own set is all that is at hand: a key that differs from it is a slip worth stopping, unless
    // the release is what introduces the approver.
    let approvers = in_force.unwrap_or(&statement.approvers);
    match approvers.people.get(approver) {
        Some(known) if !known.key.is_held_as(&key.public()) => Err(Failure::local(
            "wrong-key",
            format!("this is not the key that the plant document has for {approver}"),
        )
        .because(format!("the document has {}", String::from(known.key)))
        .because(format!("the file holds {}", keys::public_words(key)))),
        None if in_force.is_some() => Err(Failure::new(
            Exit::Refused,
            "NOT_AN_APPROVER",
            format!("{approver} is not one of the approvers in force"),
        )),
        _ => Ok(()),
    }
}

/// Refuses the author's own signature, which counts nowhere.
pub(crate) fn may_count(statement: &Statement, approver: &ApproverId) -> Result<(), Failure> {
    if statement.author.as_str() != approver.as_str() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Refused,
        "SELF_APPROVAL",
        format!(
            "{approver} is the author of r{}, and nobody approves their own release",
            statement.revision.0
        ),
    )
    .help("another approver has to sign"))
}

/// A signed release from a file.
pub(crate) fn read_envelope(file: &Path) -> Result<Envelope, Failure> {
    let bytes = files::read(file, SIGNED_BYTES_MAX)?;
    let unreadable = |error: &(dyn std::error::Error + 'static)| {
        Failure::altered(
            "envelope-unusable",
            format!("{} is not a signed release", file.display()),
        )
        .caused_by(error)
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| unreadable(&error))?;
    Envelope::from_json(text).map_err(|error| unreadable(&error))
}

/// What verification found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Verified {
    /// What the release says.
    pub statement: Stated,
    /// Whose signatures counted.
    pub signers: Vec<String>,
    /// How many were needed.
    pub threshold: u8,
    /// Whether the documents were compiled and compared too.
    pub documents_compared: bool,
}

impl Report for Verified {
    const SCHEMA: &'static str = "penstock.release-verify/1";
    fn page(&self, page: &mut Page) {
        let done = page.paint(Tone::Good, "✓");
        let signers = page.paint(Tone::Strong, &self.signers.join(", "));
        page.line(format!("{done} signed by {signers}; {} needed", self.threshold));
        if self.documents_compared {
            page.line(format!("{done} its documents compile to exactly what it states"));
        } else {
            let note = page.paint(Tone::Dim, "its documents were not looked at (--documents PATH)");
            page.line(format!("  {note}"));
        }
        page.gap();
        self.statement.page(page);
    }
}

/// `penstock release verify`.
pub(crate) fn verify(
    out: &Output,
    file: &Path,
    approvers: &Path,
    documents: Option<&Path>,
) -> Result<Exit, Failure> {
    let envelope = read_envelope(file)?;
    let believed = loading::load(approvers, out)?.plant;
    let trust = Trust {
        plant: believed.id,
        // Only a gateway's own plan depends on its name, and here is none.
        gateway: GatewayId::new("offline").map_err(|error| Failure::usage(error.to_string()))?,
        approvers: believed.approvers,
        floor: Revision(0),
        current: None,
    };
    let verified =
        release::verify_release(&trust, &envelope.statement, &envelope.signatures).map_err(|error| {
            Failure::altered(error.code(), format!("{} must not be believed", file.display()))
                .caused_by(&error)
        })?;
    if let Some(documents) = documents {
        compare(&verified.statement, &loading::load(documents, out)?)?;
    }
    out.show(&Verified {
        statement: Stated::of(&verified.statement, &envelope.statement),
        signers: verified.signers.iter().map(ToString::to_string).collect(),
        // It was verified, so that there is one.
        threshold: trust
            .approvers
            .needed(verified.statement.emergency)
            .unwrap_or(trust.approvers.threshold),
        documents_compared: documents.is_some(),
    })?;
    Ok(Exit::Done)
}
