//! `audit verify`: what a file of evidence proves to somebody who has only the plant's root certificates, and what it does not.

mod anchored;

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read as _};
use std::path::Path;

use penstock_policy::ids::PlantId;
use penstock_proto::audit::cosignature::WitnessKey;
use penstock_proto::audit::event_proof::{FILE_BYTES_MAX, MAGIC};
use penstock_proto::audit::evidence::{
    EvidenceError, EvidenceReader, EvidenceReport, History, Pieces, Vouched,
};
use penstock_proto::tls::certificates_from_pem;
use penstock_proto::tls::times::instant;
use rustls::pki_types::CertificateDer;
use schemars::JsonSchema;
use serde::Serialize;

pub use self::anchored::{AnchoredBy, BeginsAgain, CosignedBy};
use super::event_proof::{self, EventProved};
use crate::contexts::Contexts;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, FileError};
use crate::known::KnownPlant;
use crate::loading;
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
    /// Releases in the file.
    pub releases: u64,
    /// Whose approvers sign them: `known` (those of the document that was named, or of a release that this person verified), `own-word` (the file says
    /// so itself), or `others` (none is signed by the approvers that were named).
    pub approvers: String,
    /// The newest release that names blocks with which the tree begins; absent: none does.
    pub anchored_by: Option<AnchoredBy>,
    /// Releases that do.
    pub anchors: u64,
    /// Heads of the tree, in gateways' own trails, with which it begins.
    pub seen_by_gateways: u64,
    /// The newest head of each external witness that was named, with which the tree begins.
    pub cosigned_by: Vec<CosignedBy>,
    /// Cosigned heads in the file, whoever's.
    pub cosigned: u64,
    /// Heads in gateways' trails that were not held against it: the file has more than are.
    pub unjudged: u64,
    /// The newest release that says that the trails begin again; absent: none does.
    pub begins_again: Option<BeginsAgain>,
    /// What contradicts the tree, in sentences.
    pub contradictions: Vec<String>,
    /// Whether the file says where it ends; older coordinators made files that do not: whether such a one was cut off there does not show.
    pub has_end: bool,
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
    /// Whether it has a head of the coordinator's trails that contradicts, and of which the file does not prove who signed it.
    #[serde(skip)]
    pub(crate) doubted: bool,
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
            has_end: report.has_end,
            sound: report.is_sound(),
            releases: report.anchors.releases,
            approvers: match report.anchors.history {
                History::Known => "known",
                History::OwnWord => "own-word",
                History::Others => "others",
            }
            .to_owned(),
            anchored_by: report.anchors.newest.map(AnchoredBy::from),
            anchors: report.anchors.anchored,
            seen_by_gateways: report.anchors.seen,
            cosigned_by: report
                .anchors
                .cosigned
                .into_iter()
                .map(CosignedBy::from)
                .collect(),
            cosigned: report.anchors.witnessed,
            unjudged: report.anchors.unjudged,
            begins_again: report.anchors.again.map(|(release, given_up)| BeginsAgain {
                release: release.into(),
                given_up,
            }),
            contradictions: contradictions(report.anchors.wrong, report.anchors.further),
            trails: report
                .trails
                .into_iter()
                .map(|(source, trail)| {
                    let doubted = report.anchors.doubted.get(&source).into_iter().flatten();
                    let doubted = doubted.map(|why| format!("WRONG: {why}"));
                    let findings = trail.to_string();
                    TrailProved {
                        blocks: trail.blocks,
                        events: trail.events,
                        unexplained: trail.unexplained(),
                        sealed: trail.sealed.is_some(),
                        vouched: trail.vouched.is_some(),
                        unsealed_blocks: trail.unsealed.0,
                        findings: findings.lines().map(str::to_owned).chain(doubted).collect(),
                        sound: trail.is_whole() && !report.anchors.doubted.contains_key(&source),
                        doubted: report.anchors.doubted.contains_key(&source),
                        source,
                    }
                })
                .collect(),
        }
    }

    /// What others than the coordinator hold of its trails, for people.
    fn anchors_page(&self, say: &mut impl FnMut(Tone, &str, &str)) {
        match (&self.anchored_by, self.approvers.as_str()) {
            (Some(by), "known") => say(
                Tone::Good,
                "✓",
                &format!(
                    "anchored by {} which names the first {} blocks: the trails begin with them",
                    by.named(),
                    by.blocks
                ),
            ),
            (Some(by), _) => say(
                Tone::Warn,
                "!",
                &format!(
                    "anchored by {} which names the first {} blocks: the trails begin with them. That these are the plant's approvers is the file's own word \
                     (--approvers names the document that you believe)",
                    by.named(),
                    by.blocks
                ),
            ),
            (None, _) => say(
                Tone::Warn,
                "!",
                "no release in the file names blocks with which the trails begin: that nothing was taken out before the file was made is the coordinator's word",
            ),
        }
        if self.seen_by_gateways > 0 {
            let seen = format!(
                "{} heads of the trails, in gateways' own trails: the trails begin with each",
                self.seen_by_gateways
            );
            say(Tone::Good, "✓", &seen);
        }
        for by in &self.cosigned_by {
            let cosigned = format!(
                "{} cosigned the first {} blocks at {}, by its own clock: the trails begin with them",
                by.witness, by.blocks, by.at
            );
            say(Tone::Good, "✓", &cosigned);
        }
        if self.cosigned > 0 && self.cosigned_by.is_empty() && self.contradictions.is_empty() {
            let unknown = format!(
                "{} heads in the file carry cosignatures of external witnesses: --witness KEY says whose count",
                self.cosigned
            );
            say(Tone::Dim, "·", &unknown);
        }
        if self.unjudged > 0 {
            let more = format!(
                "{} further heads in gateways' trails were not compared",
                self.unjudged
            );
            say(Tone::Warn, "!", &more);
        }
        if let Some(again) = &self.begins_again {
            let given_up = format!(
                "{} says that the trails begin again: they do not begin with {} heads from before it",
                again.release.named(),
                again.given_up
            );
            say(Tone::Warn, "!", &given_up);
        }
        for wrong in &self.contradictions {
            say(Tone::Bad, "✗", &format!("WRONG: {wrong}"));
        }
    }

    /// Where what is wrong stands in some trails alone: that the others are proved all the same; but where it is a head that contradicts, what it may mean
    /// for them.
    fn others_page(&self, page: &mut Page) {
        let wrong: Vec<_> = self.trails.iter().filter(|trail| !trail.sound).collect();
        let others = self.trails.len().saturating_sub(wrong.len());
        if wrong.is_empty() || others == 0 || !self.contradictions.is_empty() || self.unproved > 0 {
            return;
        }
        let names: Vec<_> = wrong.iter().take(5).map(|trail| trail.source.as_str()).collect();
        let more = wrong.len().saturating_sub(names.len());
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let names = names.join(", ");
        page.gap();
        page.line(match wrong.iter().any(|trail| trail.doubted) {
            false => format!(
                "What is wrong is in the trails of {names}{more} alone; what is said of the other {others} is proved all the same."
            ),
            true => format!(
                "What is wrong is in the trails of {names}{more}. Either a gateway made a head up, or the coordinator signed it by an earlier key and its trails were altered since, \
                 the other {others} perhaps among them: this file does not say which. Compare with the heads that other logins, witnesses and releases hold."
            ),
        });
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
        if !self.has_end {
            say(
                Tone::Warn,
                "!",
                "this file does not say where it ends, as those of older coordinators: if blocks were cut off at its end, that does not show",
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
        self.anchors_page(&mut say);
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
        self.others_page(page);
    }
}

fn contradictions(mut sentences: Vec<String>, further: u64) -> Vec<String> {
    sentences.extend((further > 0).then(|| format!("{further} further contradictions")));
    sentences
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
    (approvers, witnesses): (Option<&Path>, &[WitnessKey]),
) -> Result<Exit, Failure> {
    let login = || -> Result<_, Failure> {
        let contexts = Contexts::open()?;
        let login = contexts.find(context)?;
        let known = KnownPlant::open(&contexts, &login)?.verified_digest();
        Ok((contexts.roots(&login.name)?, login.context.plant, known))
    };
    let (roots, plant, known) = match (roots, plant) {
        (Some(path), Some(plant)) => (roots_in(path)?, plant.clone(), None),
        (Some(path), None) => (roots_in(path)?, login()?.1, None),
        (None, _) => login()?,
    };
    if let Some(bytes) = event_in(file)? {
        let name = file.display().to_string();
        let proved = EventProved::of(&bytes, &plant, &roots);
        out.show(&proved.map_err(|error| event_proof::altered(&name, &error))?)?;
        return Ok(Exit::Done);
    }
    let named = approvers.map(|path| loading::load(path, out)).transpose()?;
    let vouched = match named {
        Some(named) => Some(Vouched::Approvers(named.plant.approvers)),
        None => known.map(Vouched::Release),
    };
    let proved = EvidenceProved::of(&plant, read(file, (&plant, &roots), vouched, witnesses)?);
    out.show(&proved)?;
    Ok(proved.exit())
}

/// The bytes of a file that proves one event; `None`: it is something else.
fn event_in(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let failed = |source| FileError::Read {
        path: path.to_owned(),
        source,
    };
    let mut begin = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let read = file.take(MAGIC.len() as u64).read_to_end(&mut begin);
    read.map_err(failed)?;
    match begin == MAGIC {
        true => Ok(Some(files::read(path, FILE_BYTES_MAX)?)),
        false => Ok(None),
    }
}

/// Reads a file of evidence, piece by piece.
fn read(
    path: &Path,
    (plant, roots): (&PlantId, &[CertificateDer<'static>]),
    vouched: Option<Vouched>,
    witnesses: &[WitnessKey],
) -> Result<EvidenceReport, Failure> {
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
    if let Some(vouched) = vouched {
        reader.believe(vouched);
    }
    reader.believe_witnesses(witnesses.to_vec());
    while let Some(piece) = pieces.read().map_err(failed)? {
        reader.take(piece).map_err(wrong)?;
    }
    reader.report().map_err(wrong)
}
