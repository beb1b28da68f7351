//! `audit verify`: what a file of evidence proves to somebody who has only the plant's root certificates, and what it does not.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::Path;

use penstock_policy::ids::PlantId;
use penstock_proto::audit::evidence::{EvidenceError, EvidenceReader, EvidenceReport, Pieces};
use penstock_proto::tls::certificates_from_pem;
use penstock_proto::tls::times::instant;
use rustls::pki_types::CertificateDer;
use schemars::JsonSchema;
use serde::Serialize;

use crate::contexts::Contexts;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, FileError};
use crate::output::{Output, Page, Report, Tone};

/// The largest file of root certificates.
const ROOTS_BYTES_MAX: u64 = 1 << 20;

/// What evidence proves.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EvidenceProved {
    /// The plant.
    pub plant: String,
    /// The coordinator whose key signed the head of the tree over all trails.
    pub signed_by: String,
    /// When, by its clock (RFC 3339, UTC).
    pub signed_at: String,
    /// Whether its certificate was valid then.
    pub signed_in_time: bool,
    /// Blocks of all trails that the coordinator had by then.
    pub tree_size: u64,
    /// The root of their tree, hexadecimal.
    pub tree_root: String,
    /// Blocks in this file, each of which is in that tree, but those of `before_tree`.
    pub blocks: u64,
    /// Blocks from before there was a tree; the chains of their sources tie them to blocks in it, but for those of `unproved`.
    pub before_tree: u64,
    /// Blocks that nothing ties to the tree: they may be anybody's.
    pub unproved: u64,
    /// The first and the last block of all trails that is in the file, counted from 0 in the order in which they came; absent: none is.
    pub first_leaf: Option<u64>,
    /// The last one.
    pub last_leaf: Option<u64>,
    /// Blocks between these two that are not in the file: those of other sources, where one was asked for.
    pub left_out: u64,
    /// Each trail of which there are blocks.
    pub trails: Vec<TrailProved>,
    /// Whether nothing in it contradicts anything, and all of it is proved to be the coordinator's: only then is any of it to be believed.
    pub sound: bool,
}

/// What is proved of one trail.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TrailProved {
    /// Gateway, or `coordinator/<name>`.
    pub source: String,
    /// Blocks that follow one another.
    pub blocks: u64,
    /// What is in them, without losses and seals.
    pub events: u64,
    /// Blocks that are missing, and that no loss record accounts for.
    pub unexplained: u64,
    /// Whether its source's seals cover some of it; what is behind the newest one, a sentence says.
    pub sealed: bool,
    /// Whether its source's identity key vouches for seals of it.
    pub vouched: bool,
    /// Blocks behind the newest seal.
    pub unsealed_blocks: u64,
    /// Everything in sentences; each that begins with `WRONG` contradicts.
    pub findings: Vec<String>,
    /// Whether nothing contradicts.
    pub sound: bool,
}

impl EvidenceProved {
    /// In words and numbers.
    pub(crate) fn of(plant: &PlantId, report: EvidenceReport) -> Self {
        let head = &report.head.head;
        Self {
            plant: plant.to_string(),
            signed_by: report.head.by.identity.subject.to_string(),
            signed_at: instant(head.time_ms),
            signed_in_time: report.head.is_in_time(),
            tree_size: head.tree.size,
            tree_root: head.tree.root.iter().map(|byte| format!("{byte:02x}")).collect(),
            blocks: report.blocks,
            before_tree: report.before_tree,
            unproved: report.unproved,
            first_leaf: report.leaves.map(|(first, _)| first),
            last_leaf: report.leaves.map(|(_, last)| last),
            left_out: report.left_out,
            sound: report.is_sound(),
            trails: report
                .trails
                .into_iter()
                .map(|(source, trail)| TrailProved {
                    source,
                    blocks: trail.blocks,
                    events: trail.events,
                    unexplained: trail.unexplained(),
                    sealed: trail.sealed.is_some(),
                    vouched: trail.vouched.is_some(),
                    unsealed_blocks: trail.unsealed.0,
                    findings: trail.to_string().lines().map(str::to_owned).collect(),
                    sound: trail.is_whole(),
                })
                .collect(),
        }
    }

    /// How the command ends.
    pub(crate) fn exit(&self) -> Exit {
        if self.sound { Exit::Done } else { Exit::Altered }
    }
}

impl Report for EvidenceProved {
    const SCHEMA: &'static str = "penstock.audit-verify/1";
    fn page(&self, page: &mut Page) {
        let title = page.paint(
            Tone::Strong,
            &format!("{} blocks of the trails of {}", self.blocks, self.plant),
        );
        page.line(title);
        let mut say = |tone: Tone, mark: &str, words: &str| {
            let mark = page.paint(tone, mark);
            let words = page.paint(Tone::Plain, words);
            page.line(format!("  {mark} {words}"));
        };
        let had = format!(
            "{} had {} blocks at {} and signed that",
            self.signed_by, self.tree_size, self.signed_at
        );
        match self.unproved {
            0 => say(
                Tone::Good,
                "✓",
                &format!("{had}: each block in this file is one of them"),
            ),
            unproved => say(
                Tone::Bad,
                "✗",
                &format!(
                    "{had}; WRONG: nothing proves {unproved} blocks in this file to be among them: they may be anybody's"
                ),
            ),
        }
        if let (Some(first), Some(last)) = (self.first_leaf, self.last_leaf) {
            say(
                Tone::Dim,
                "·",
                &format!(
                    "this file goes from block {first} to block {last} of all trails, and leaves {} between them out: nothing is said of any other",
                    self.left_out
                ),
            );
        }
        if !self.signed_in_time {
            say(
                Tone::Warn,
                "!",
                "its certificate was not valid at that time: its clock was wrong, or the key was used later",
            );
        }
        if self.before_tree > self.unproved {
            say(
                Tone::Dim,
                "·",
                &format!(
                    "{} blocks were stored before there was such a tree: the chains of their sources tie them to it",
                    self.before_tree - self.unproved
                ),
            );
        }
        for trail in &self.trails {
            page.gap();
            let (tone, mark) = match (trail.sound, trail.sealed && trail.vouched) {
                (true, true) => (Tone::Good, "✓"),
                (true, false) => (Tone::Warn, "!"),
                (false, _) => (Tone::Bad, "✗"),
            };
            let mark = page.paint(tone, mark);
            let source = page.paint(Tone::Name, &trail.source);
            page.line(format!("{mark} {source}"));
            for finding in &trail.findings {
                let tone = if finding.starts_with("WRONG") {
                    Tone::Bad
                } else {
                    Tone::Plain
                };
                let finding = page.paint(tone, finding);
                page.line(format!("    {finding}"));
            }
        }
    }
}

/// The evidence is altered, or none.
pub(crate) fn altered(what: &str, error: &EvidenceError) -> Failure {
    Failure::altered("evidence-altered", format!("{what} proves nothing")).caused_by(error)
}

fn roots_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let named = path.display().to_string();
    let read = certificates_from_pem(&files::read(path, ROOTS_BYTES_MAX)?, &named);
    read.map_err(|error| Failure::usage(format!("{named} holds no root certificates")).caused_by(&error))
}

/// `penstock audit verify`.
pub(crate) fn verify(
    out: &Output,
    context: Option<&str>,
    file: &Path,
    (roots, plant): (Option<&Path>, Option<&PlantId>),
) -> Result<Exit, Failure> {
    let login = || -> Result<_, Failure> {
        let contexts = Contexts::open()?;
        let login = contexts.find(context)?;
        Ok((contexts.roots(&login.name)?, login.context.plant))
    };
    let (roots, plant) = match (roots, plant) {
        (Some(path), Some(plant)) => (roots_in(path)?, plant.clone()),
        (Some(path), None) => (roots_in(path)?, login()?.1),
        (None, _) => login()?,
    };
    let proved = EvidenceProved::of(&plant, read(file, &plant, &roots)?);
    out.show(&proved)?;
    Ok(proved.exit())
}

/// Reads a file of evidence, piece by piece.
fn read(path: &Path, plant: &PlantId, roots: &[CertificateDer<'static>]) -> Result<EvidenceReport, Failure> {
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Failure::altered(
            "evidence-altered",
            format!(
                "{} is not a whole file of evidence (penstock audit evidence makes them)",
                path.display()
            ),
        ),
        _ => Failure::from(FileError::Read {
            path: path.to_owned(),
            source,
        }),
    };
    let wrong = |error: EvidenceError| altered(&path.display().to_string(), &error);
    let file = File::open(path).map_err(failed)?;
    let mut pieces = Pieces::of(BufReader::with_capacity(1 << 20, file)).map_err(failed)?;
    let first = pieces.read().map_err(failed)?.unwrap_or_default();
    let mut reader = EvidenceReader::begin(first, plant, roots).map_err(wrong)?;
    while let Some(piece) = pieces.read().map_err(failed)? {
        reader.take(piece).map_err(wrong)?;
    }
    Ok(reader.report())
}
