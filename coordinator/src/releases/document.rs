//! From a release's document files to the plant that they describe: at a proposal, and again when somebody asks about
//! an asset of the current release.

use penstock_policy::diagnostics::SourceFile;
use penstock_policy::ids::Revision;
use penstock_policy::model::Plant;
use penstock_policy::release::{DocumentFile, document_digest};
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;

use super::{RecordedRelease, Releases};

impl Releases {
    /// The plant of the current release, read from the documents that its approvers signed for.
    pub(crate) async fn plant(&self) -> Result<(Revision, Plant), Refusal> {
        let current = self.get(Revision(0)).await?;
        let plant = self.plant_of(&current, Plant::clone).await?;
        Ok((current.statement.revision, plant))
    }

    /// What `take` makes of the plant of a release; the plant itself is gone with the turn to compile.
    pub(super) async fn plant_of<T: Send + 'static>(
        &self,
        recorded: &RecordedRelease,
        take: impl FnOnce(&Plant) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let documents = self.documents(recorded).await?;
        let statement = &recorded.statement;
        let files: Vec<_> = documents
            .iter()
            .map(|file| DocumentFile {
                name: &file.name,
                content: &file.content,
            })
            .collect();
        if document_digest(&files) != statement.document_digest {
            return Err(Refusal::new(
                Reason::StoreCorrupt,
                format!("the stored documents are not those of {}", statement.revision),
            ));
        }
        // As of the day when it was proposed: what has run out since is for the next release to say.
        let proposed_ms = recorded.record.proposed_ms;
        let turn = self.compiling.turn().await?;
        turn.work(move || Ok(take(&read(&documents, proposed_ms)?))).await
    }
}

/// Reads document files, with all their faults in the refusal.
pub(super) fn read(documents: &[v1::DocumentFile], now_ms: u64) -> Result<Plant, Refusal> {
    let sources = documents
        .iter()
        .map(|file| {
            let text = std::str::from_utf8(&file.content).map_err(|_| {
                Refusal::new(Reason::DocumentErrors, format!("{} is not UTF-8 text", file.name))
                    .field(file.name.clone(), "is not UTF-8 text")
            })?;
            Ok(SourceFile {
                name: file.name.clone(),
                text: text.to_owned(),
            })
        })
        .collect::<Result<Vec<_>, Refusal>>()?;
    let loaded = penstock_policy::load(&sources, today(now_ms));
    loaded.plant.ok_or_else(|| {
        let count = loaded.diagnostics.errors().count();
        let mut refusal = Refusal::new(
            Reason::DocumentErrors,
            format!("the plant document has {count} errors; run `penstock check` on it"),
        );
        for fault in loaded.diagnostics.errors() {
            let place = fault.location.as_ref().map_or_else(
                || "document".to_owned(),
                |at| format!("{}:{}:{}", at.file, at.line, at.column),
            );
            refusal = refusal.field(place, format!("{}: {}", fault.code, fault.message));
        }
        refusal
    })
}

fn today(now_ms: u64) -> jiff::civil::Date {
    let ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date()
}
