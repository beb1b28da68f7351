//! `release reject` and `release withdraw`: a proposal that waits ends, by its digest and with a reason.

use penstock_policy::ids::Digest;
use penstock_proto::v1::EndReleaseRequest;

use super::super::{Online, refused};
use super::fetched::FetchedRelease;
use super::{is_about, named_by_person, shown};
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::known::short;
use crate::offline::signing::Stated;
use crate::output::{Output, Page};

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HowItEnds {
    Reject,
    Withdraw,
}

pub(super) async fn end(
    out: &Output,
    context: Option<&str>,
    how: HowItEnds,
    args: &crate::args::EndRelease,
) -> Result<Exit, Failure> {
    let mut online = Online::connect(context).await?;
    let fetched = online.require(args.revision).await?;
    let digest = Digest::of(&fetched.signed.statement);
    named_by_person(args.revision, &digest, args.digest.as_deref())?;
    online.known()?.check_number(fetched.statement.revision, digest)?;
    if out.for_people() {
        let mut page = Page::new(out.style);
        Stated::of(&fetched.statement, &fetched.signed.statement).page(&mut page);
        out.text(&page.finish())?;
    }
    let (verb, done) = match how {
        HowItEnds::Reject => ("Reject", "rejected"),
        HowItEnds::Withdraw => ("Withdraw", "withdrawn"),
    };
    let question = format!("{verb} release r{} ({})?", args.revision, short(&digest));
    ask::confirm(out, args.yes, &question)?;
    let request = EndReleaseRequest {
        revision: args.revision,
        statement_digest: digest.0.to_vec().into(),
        reason: args.reason.clone(),
    };
    let answer = match how {
        HowItEnds::Reject => online.client.reject_release(request).await,
        HowItEnds::Withdraw => online.client.withdraw_release(request).await,
    };
    let release = answer.map_err(|status| refused(&status))?.into_inner();
    is_about(&release, args.revision, digest)?;
    out.show(&shown(&FetchedRelease { release, ..fetched }, done, None)?)?;
    Ok(Exit::Done)
}
