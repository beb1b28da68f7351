//! `rollout verify`: what a change-control record proves to somebody who has only public keys, and what rests on a word.

use std::path::Path;

use penstock_policy::ids::Digest;
use penstock_policy::model::PublicKey;
use penstock_policy::record::{
    Believed, ChangeRecord, Claim, Grade, RECORD_BYTES_MAX, RecordError, SignedRecord, verify as judge,
};
use penstock_policy::rollout::Fleet;
use schemars::JsonSchema;
use serde::Serialize;

use super::signing;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files;
use crate::loading;
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// What `rollout verify` was asked.
#[derive(Debug)]
pub struct VerifyRequest<'a> {
    /// The record.
    pub file: &'a Path,
    /// The plant document whose approvers are believed.
    pub approvers: Option<&'a Path>,
    /// The release's documents.
    pub documents: Option<&'a Path>,
    /// The key of who made the record.
    pub maker: Option<PublicKey>,
}

/// What a record proves.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RecordVerified {
    /// The plant.
    pub plant: String,
    /// The release.
    pub revision: u64,
    /// Digest of its statement.
    pub statement_digest: String,
    /// Who made the record.
    pub made_by: String,
    /// When, milliseconds since 1970.
    pub made_ms: u64,
    /// Digest of the record.
    pub record_digest: String,
    /// Whether nothing in it contradicts anything: only then is any of it to be believed.
    pub sound: bool,
    /// Each thing that it says.
    pub claims: Vec<ClaimLine>,
}

/// One thing that a record says.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ClaimLine {
    /// Stable code.
    pub code: String,
    /// `proved`: by signatures of keys that you believe, and by digests. `word`: on the word of the coordinator or of who made the
    /// record. `contradicted`: the record must not be believed.
    pub grade: String,
    /// In words.
    pub message: String,
}

impl From<Claim> for ClaimLine {
    fn from(claim: Claim) -> Self {
        Self {
            code: claim.code.to_owned(),
            grade: match claim.grade {
                Grade::Contradicted => "contradicted",
                Grade::Proved => "proved",
                Grade::Word => "word",
            }
            .to_owned(),
            message: claim.words,
        }
    }
}

impl Report for RecordVerified {
    const SCHEMA: &'static str = "penstock.rollout-verify/1";
    fn page(&self, page: &mut Page) {
        let release = page.paint(
            Tone::Strong,
            &format!("change-control record of r{} of {}", self.revision, self.plant),
        );
        let made = page.paint(
            Tone::Dim,
            &format!(
                "made by {} {}",
                self.made_by,
                words::when(self.made_ms, words::now_ms())
            ),
        );
        page.line(format!("{release}  {made}"));
        let parts = [
            ("contradicted", "must not be believed", "✗", Tone::Bad),
            ("proved", "proved", "✓", Tone::Good),
            ("word", "not proved by this file", "·", Tone::Dim),
        ];
        for (grade, heading, mark, tone) in parts {
            let claims: Vec<&ClaimLine> = self.claims.iter().filter(|claim| claim.grade == grade).collect();
            if claims.is_empty() {
                continue;
            }
            page.gap();
            let heading = page.paint(tone, heading);
            page.line(heading);
            for claim in claims {
                let mark = page.paint(tone, mark);
                let message = page.paint(Tone::Plain, &claim.message);
                page.line(format!("  {mark} {message}"));
            }
        }
    }
}

fn unusable(file: &Path, error: &RecordError) -> Failure {
    Failure::altered(
        "record-unusable",
        format!(
            "{} is not a change-control record that can be verified",
            file.display()
        ),
    )
    .caused_by(error)
}

/// `penstock rollout verify`.
pub(crate) fn verify(out: &Output, asked: &VerifyRequest<'_>) -> Result<Exit, Failure> {
    // As much again for base64.
    let bytes = files::read(asked.file, 2 * RECORD_BYTES_MAX as u64)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        Failure::altered("record-unusable", format!("{} is not text", asked.file.display())).caused_by(&error)
    })?;
    let signed = SignedRecord::from_json(&text).map_err(|error| unusable(asked.file, &error))?;
    let record = ChangeRecord::from_bytes(&signed.record).map_err(|error| unusable(asked.file, &error))?;
    let approvers = asked.approvers.map(|path| loading::load(path, out)).transpose()?;
    if let Some(loaded) = approvers
        .as_ref()
        .filter(|loaded| loaded.plant.id != record.plant)
    {
        return Err(Failure::usage(format!(
            "the document is of plant {}, the record of plant {}",
            loaded.plant.id, record.plant
        )));
    }
    let statement = record.authorisation.release.statement.as_bytes();
    let fleet = match asked.documents {
        None => None,
        Some(path) => {
            let loaded = loading::load(path, out)?;
            signing::compare(&signing::read_statement(statement)?, &loaded)?;
            let fleet = Fleet::of(&loaded.plant);
            Some(fleet.map_err(|error| {
                Failure::new(Exit::BadDocument, "no-fleet", "no rollout can carry this plant")
                    .caused_by(&error)
            })?)
        }
    };
    let believed = Believed {
        approvers: approvers.as_ref().map(|loaded| &loaded.plant.approvers),
        maker: asked.maker,
        fleet: fleet.as_ref(),
    };
    let claims = judge(&record, &signed, believed);
    let sound = !claims.iter().any(|claim| claim.grade == Grade::Contradicted);
    out.show(&RecordVerified {
        plant: record.plant.to_string(),
        revision: signing::read_statement(statement).map_or(0, |statement| statement.revision.0),
        statement_digest: Digest::of(statement).to_string(),
        made_by: record.made_by.to_string(),
        made_ms: record.made_ms,
        record_digest: Digest::of(&signed.record).to_string(),
        sound,
        claims: claims.into_iter().map(ClaimLine::from).collect(),
    })?;
    Ok(if sound { Exit::Done } else { Exit::Altered })
}
