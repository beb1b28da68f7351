//! Which rule decided what a record says, by the release in force then: as `why` judges it, from the documents that the coordinator
//! has of that release.

use penstock_proto::v1::AuditRecord;
use schemars::JsonSchema;
use serde::Serialize;

use super::Record;
use crate::failure::Failure;
use crate::online::Online;
use crate::online::why::{Group, Plants, verdict};
use crate::output::Output;

/// The rule behind a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Explained {
    /// The release in force then.
    pub revision: u64,
    /// What it decides, as it is judged here: `allow`, `deny`, `would-deny` or `not-guarded`.
    pub decision: String,
    /// Why, in a sentence.
    pub reason: String,
    /// The flow (`conduit/flow`) that decided, or that came closest.
    pub flow: Option<String>,
    /// What would have to differ for it to match.
    pub differs: Vec<String>,
}

impl Explained {
    /// "by r7: deny: no conduit permits it; the closest one differs: supply/poll (the source is another one)".
    pub(super) fn in_words(&self) -> String {
        let flow = self
            .flow
            .as_ref()
            .map_or(String::new(), |flow| format!(" {flow}"));
        let differs = match self.differs.as_slice() {
            [] => String::new(),
            differs => format!(" ({})", differs.join("; ")),
        };
        format!(
            "by r{}: {}: {}{flow}{differs}",
            self.revision, self.decision, self.reason
        )
    }
}

/// The records, each with its rule.
pub(super) async fn all(
    online: &mut Online,
    records: Vec<AuditRecord>,
    out: &Output,
) -> Result<Vec<Record>, Failure> {
    let mut plants = Plants::default();
    let mut all = Vec::with_capacity(records.len());
    for record in records {
        let explained = one(online, &mut plants, &record, out).await?;
        all.push(Record {
            explained,
            ..Record::from(record)
        });
    }
    Ok(all)
}

async fn one(
    online: &mut Online,
    plants: &mut Plants,
    record: &AuditRecord,
    out: &Output,
) -> Result<Option<Explained>, Failure> {
    let Some((group, _)) = Group::of(record.clone()) else {
        return Ok(None);
    };
    // Before its first policy a gateway has no rules.
    if group.revision == 0 {
        return Ok(None);
    }
    let release = plants.of(online, group.revision, out).await?;
    let judged = release.and_then(|release| verdict(&release, &group, group.last_ms));
    Ok(judged.map(|judged| {
        let told = judged.told;
        let operation = told
            .operation
            .as_ref()
            .map(|operation| operation.decision.clone());
        Explained {
            revision: group.revision,
            decision: operation.unwrap_or(told.decision),
            reason: told.reason,
            flow: told.rule.map(|rule| rule.flow),
            differs: told.differs,
        }
    }))
}
