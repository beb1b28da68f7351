//! What the proof of one event says to somebody who has only the plant's root certificates, and what it does not.

use penstock_policy::ids::PlantId;
use penstock_proto::audit::event_proof::{EventProofError, ProvedEvent, from_file, verify};
use penstock_proto::event::Reading;
use penstock_proto::tls::times::instant;
use rustls::pki_types::CertificateDer;
use schemars::JsonSchema;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Page, Report, Tone};

/// One event that is proved.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EventProved {
    /// The plant.
    pub plant: String,
    /// Its position: source/epoch/sequence/index.
    pub position: String,
    /// Gateway, or `coordinator/<name>`.
    pub source: String,
    /// When it happened by the source's clock (RFC 3339, UTC).
    pub time: String,
    /// The kind of event.
    pub kind: String,
    /// The event in one sentence, for people; its words may change.
    pub summary: String,
    /// The event's own fields.
    pub event: serde_json::Map<String, serde_json::Value>,
    /// The coordinator whose key signed the head of the tree that the event is in.
    pub signed_by: String,
    /// When, by its clock (RFC 3339, UTC).
    pub signed_at: String,
    /// Whether its certificate was valid then.
    pub signed_in_time: bool,
    /// Blocks of all trails that the coordinator had by then.
    pub tree_size: u64,
    /// The root of their tree, hexadecimal.
    pub tree_root: String,
    /// The event's block among them, counted from 0 in the order in which they came.
    pub leaf: u64,
    /// The number of a seal of the source that covers the event's block; absent: none is in the file.
    pub seal: Option<u64>,
    /// When that seal was made by the source's clock (RFC 3339, UTC).
    pub sealed_at: Option<String>,
}

impl EventProved {
    /// What a file proves.
    ///
    /// # Errors
    /// It proves nothing.
    pub(crate) fn of(
        file: &[u8],
        plant: &PlantId,
        roots: &[CertificateDer<'static>],
    ) -> Result<Self, EventProofError> {
        Ok(Self::read(plant, verify(&from_file(file)?, plant, roots)?))
    }

    fn read(plant: &PlantId, proved: ProvedEvent) -> Self {
        let ProvedEvent {
            head,
            block,
            index,
            leaf,
            event,
            seal,
        } = proved;
        let reading = Reading::of(&block.source, &event, &[]);
        let tree = head.head.tree;
        Self {
            plant: plant.to_string(),
            position: format!("{}/{}/{}/{index}", block.source, block.epoch, block.sequence),
            time: instant(event.time_ms),
            kind: reading.kind.to_owned(),
            summary: reading.sentence,
            event: reading.fields,
            source: block.source,
            signed_by: head.by.identity.subject.to_string(),
            signed_at: instant(head.head.time_ms),
            signed_in_time: head.is_in_time(),
            tree_size: tree.size,
            tree_root: tree.root.iter().map(|byte| format!("{byte:02x}")).collect(),
            leaf,
            seal: seal.as_ref().map(|seal| seal.number),
            sealed_at: seal.map(|seal| instant(seal.time_ms)),
        }
    }
}

impl Report for EventProved {
    const SCHEMA: &'static str = "penstock.audit-event/1";
    fn page(&self, page: &mut Page) {
        let title = page.paint(
            Tone::Strong,
            &format!("One event of {}: {}", self.plant, self.position),
        );
        page.line(title);
        let summary = page.paint(Tone::Plain, &format!("  {}: {}", self.time, self.summary));
        page.line(summary);
        page.gap();
        let mut say = |tone: Tone, mark: &str, words: &str| {
            let mark = page.paint(tone, mark);
            let words = page.paint(Tone::Plain, words);
            page.line(format!("  {mark} {words}"));
        };
        say(
            Tone::Good,
            "✓",
            &format!(
                "{} had {} blocks at {} and signed that: this event is in block {} of them, as {} delivered it",
                self.signed_by, self.tree_size, self.signed_at, self.leaf, self.source
            ),
        );
        if !self.signed_in_time {
            say(
                Tone::Warn,
                "!",
                "its certificate was not valid at that time: its clock was wrong, or the key was used later",
            );
        }
        match (self.seal, &self.sealed_at) {
            (Some(number), Some(at)) => say(
                Tone::Good,
                "✓",
                &format!(
                    "seal {number} of {}, made at {at} by its clock, covers it; whose key made that seal, this file does not prove",
                    self.source
                ),
            ),
            _ => say(
                Tone::Dim,
                "·",
                "which seal of its source covers it, this file does not say",
            ),
        }
        for not in [
            "not proved: that what the source wrote is true, what else happened, and whether a trail was rewritten before the head was signed",
            "the trail around it, its seals and whose keys made them: penstock audit evidence",
        ] {
            say(Tone::Dim, "·", not);
        }
    }
}

/// The file proves nothing.
pub(crate) fn altered(what: &str, error: &EventProofError) -> Failure {
    Failure::altered("evidence-altered", format!("{what} proves nothing")).caused_by(error)
}
