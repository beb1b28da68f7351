//! How a proposal ends that does not become current: an approver rejects it, or its author withdraws it. Its number stays
//! used.

use penstock_policy::ids::{OperatorId, Revision};
use penstock_proto::convert;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;

use super::{ProposalEnd, ProposalEndKind, RecordedRelease, Releases, targets};
use crate::journal::Deed;
use crate::store::Change;

/// Longest reason, bytes.
const REASON_BYTES_MAX: usize = 1024;

impl Releases {
    /// Ends a proposal that waits.
    pub(crate) async fn end(
        &self,
        how: ProposalEndKind,
        caller: &OperatorId,
        request: &v1::EndReleaseRequest,
        deed: Deed<'_>,
        now_ms: u64,
    ) -> Result<RecordedRelease, Refusal> {
        let digest = convert::digest("statement_digest", &request.statement_digest)
            .map_err(|error| bad("statement_digest", &error))?;
        let reason = request.reason.trim();
        if reason.is_empty() || reason.len() > REASON_BYTES_MAX {
            return Err(bad(
                "reason",
                &format!("has to be given, in at most {REASON_BYTES_MAX} bytes"),
            ));
        }
        // Not while its last signature is counted.
        let _deciding = self.deciding.lock().await;
        self.refresh().await?;
        let ended = self.change(Revision(request.revision), digest, |recorded| {
            self.waits(recorded)?;
            self.may_end(how, caller, recorded)?;
            recorded.record.ended = Some(ProposalEnd {
                how,
                by: caller.clone(),
                reason: reason.to_owned(),
                at_ms: now_ms,
            });
            Ok(Change::noted(deed.event(&targets::ended(request), "")))
        });
        let ended = ended.await?;
        self.sweep_soon();
        Ok(ended)
    }

    fn may_end(
        &self,
        how: ProposalEndKind,
        caller: &OperatorId,
        recorded: &RecordedRelease,
    ) -> Result<(), Refusal> {
        let revision = recorded.statement.revision;
        let author = &recorded.statement.author;
        match how {
            ProposalEndKind::Rejected => {
                let approvers = self.approvers_in_force(recorded);
                if approvers
                    .people
                    .keys()
                    .any(|person| person.as_str() == caller.as_str())
                {
                    return Ok(());
                }
                Err(Refusal::new(
                    Reason::NotAnApprover,
                    format!("{caller} is not one of the approvers in force, who alone can reject {revision}"),
                ))
            }
            ProposalEndKind::Withdrawn if caller == author => Ok(()),
            ProposalEndKind::Withdrawn => Err(Refusal::new(
                Reason::AuthorMismatch,
                format!("{author} proposed {revision} and alone can withdraw it; an approver can reject it"),
            )),
        }
    }
}

/// A field of a request that cannot be.
pub(super) fn bad(field: &str, what: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(Reason::BadRequest, format!("{field}: {what}")).field(field, what.to_string())
}
