//! `release propose | approve | reject | withdraw | list | show | revert` against a coordinator, which is never believed:
//! everything that is signed was compiled again here, and its change from what this person verified last (`standing`) is
//! shown in words before.

mod approve;
mod brought;
mod carried;
mod ending;
pub(super) mod fetched;
pub(super) mod held;
mod last;
mod parent;
mod propose;
mod recorded;
mod report;
mod standing;

use std::path::Path;

use penstock_policy::ids::{Digest, Revision};
use penstock_proto::v1::{ListReleasesRequest, Release, ReleaseState};

pub use self::last::KnownShown;
pub use self::recorded::{ChangesAndRecorded, Recorded};
pub use self::report::{Assurance, ReleaseLine, ReleaseList, ReleaseShown};
pub use self::standing::Base;

use self::approve::approve;
use self::ending::{HowItEnds, end};
use self::fetched::{FetchedRelease, envelope, history, plant_of, write_documents};
use self::propose::{ProposalReason, propose};
use self::standing::ServedChain;
use super::{Online, digest, refused};
use crate::args;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::loading::{self, LoadedPlant};
use crate::offline::changes::Changes;
use crate::offline::check::FindingLine;
use crate::offline::signing::{self, Stated};
use crate::output::Output;

/// `penstock diff PATH --against-current`.
pub(crate) async fn diff_current(
    out: &Output,
    context: Option<&str>,
    path: &Path,
    asked: Option<&str>,
    fail_on_widened: bool,
) -> Result<Exit, Failure> {
    let since = recorded::since(asked)?;
    let new = loading::load(path, out)?;
    let mut online = Online::connect(context).await?;
    let known = online.known()?;
    let current = online.fetch_named(0, None, known.verified_digest()).await?;
    let (chain, head) = history(current.as_ref());
    let told = ServedChain {
        chain: &chain,
        head,
        forgives: &|_| false,
    };
    let standing = online.stand(out, known, &told, None).await?;
    let mut old = standing.plant;
    let revision = current.as_ref().map(|current| current.statement.revision.0);
    match current {
        // Nothing is signed by this answer; but whose word it is has to be said.
        Some(current) if old.is_none() => {
            out.remark(
                "this machine has verified no release of this plant yet: what is current is the coordinator's word",
            );
            old = Some(plant_of(&current, out)?.plant);
        }
        None => out.remark("there is no current release: everything in this one is new"),
        Some(_) => {}
    }
    let changes = Changes::between(old.as_ref(), &new.plant)?;
    let against = recorded::Against {
        new: &new.plant,
        base: old.as_ref().map(|old| (old, revision)),
    };
    let recorded = recorded::recorded(&mut online, out, since.as_deref(), against).await;
    let widened = changes.may_widen;
    out.show(&ChangesAndRecorded { changes, recorded })?;
    Ok(if fail_on_widened && widened {
        Exit::Findings
    } else {
        Exit::Done
    })
}

/// A release's plant, as its documents say it.
pub(super) struct FetchedPlant {
    pub(super) revision: u64,
    pub(super) loaded: LoadedPlant,
    /// Digest of its statement.
    pub(super) stated: Digest,
    /// It was proposed as an emergency.
    pub(super) emergency: bool,
    /// It is the release that this person verified last; else all of it is the coordinator's word.
    pub(super) verified: bool,
}

/// The plant of a release; 0: of the current one. `None`: there is no such release, or this program cannot read its documents.
pub(super) async fn fetched_plant(
    online: &mut Online,
    revision: u64,
    out: &Output,
) -> Result<Option<FetchedPlant>, Failure> {
    let Some(fetched) = online.fetch(revision).await? else {
        return Ok(None);
    };
    let (known, stated) = (online.known()?, Digest::of(&fetched.signed.statement));
    known.check_number(fetched.statement.revision, stated)?;
    let Ok(loaded) = loading::judge(fetched.documents.clone(), out) else {
        return Ok(None);
    };
    let revision = fetched.statement.revision;
    if loaded.digest != fetched.statement.document_digest {
        return Err(Failure::altered(
            "digest-mismatch",
            format!("the coordinator's documents are not those of {revision}"),
        )
        .because(format!("{revision} states {}", fetched.statement.document_digest))
        .because(format!("its documents, as they came: {}", loaded.digest)));
    }
    Ok(Some(FetchedPlant {
        revision: revision.0,
        loaded,
        stated,
        emergency: fetched.statement.emergency,
        verified: known.verified_digest() == Some(stated),
    }))
}

/// Refuses an answer that is about another release than the one that it was to be about.
fn is_about(answer: &Release, revision: u64, asked: Digest) -> Result<(), Failure> {
    let answered = digest("statement_digest", &answer.statement_digest)?;
    if answer.revision == revision && answered == asked {
        return Ok(());
    }
    Err(Failure::altered(
        "digest-mismatch",
        format!("the coordinator's answer is about another release than r{revision}"),
    )
    .because(format!("sent: r{revision} {asked}"))
    .because(format!("answered: r{} {answered}", answer.revision))
    .help("it is at fault or hostile: tell whoever runs it, and sign nothing of it before you know which"))
}

/// Refuses to bring back what was never in force: it goes back without what `check` would say about it.
fn was_in_force(release: &ReleaseLine) -> Result<(), Failure> {
    if matches!(release.state.as_str(), "superseded" | "current") {
        return Ok(());
    }
    let revision = release.revision;
    Err(Failure::new(
        Exit::Refused,
        "NEVER_IN_FORCE",
        format!("release r{revision} was never in force: it is {}", release.state),
    )
    .help(format!(
        "to propose its documents as a new change: penstock release show {revision} --documents FOLDER, then \
         penstock release propose FOLDER"
    )))
}

/// `penstock release …`.
pub(crate) async fn release(
    out: &Output,
    context: Option<&str>,
    args: &args::Release,
) -> Result<Exit, Failure> {
    match args {
        args::Release::Propose {
            path,
            ticket,
            reason,
            emergency,
            again,
            base,
            recorded,
            yes,
        } => {
            let recorded = recorded::since(recorded.since.as_deref())?;
            let loaded = loading::load(path, out)?;
            if out.for_people() && !loaded.diagnostics.is_empty() {
                out.text(&loaded.diagnostics.render(loading::drawing(out.style)))?;
            }
            let mut online = Online::connect(context).await?;
            let why = ProposalReason {
                ticket: ticket.clone(),
                reason: reason.clone(),
                emergency: *emergency,
                again: *again,
                base: base.clone(),
                recorded,
                yes: *yes,
                earlier: false,
            };
            propose(out, &mut online, &loaded, why).await
        }
        args::Release::Revert {
            revision,
            ticket,
            reason,
            emergency,
            base,
            recorded,
            yes,
        } => {
            let recorded = recorded::since(recorded.since.as_deref())?;
            let mut online = Online::connect(context).await?;
            let earlier = online.require(*revision).await?;
            let digest = Digest::of(&earlier.signed.statement);
            online.known()?.check_number(earlier.statement.revision, digest)?;
            was_in_force(&ReleaseLine::of(earlier.release.clone())?)?;
            let loaded = plant_of(&earlier, out)?;
            let why = ProposalReason {
                ticket: ticket.clone(),
                reason: reason.clone(),
                emergency: *emergency,
                again: false,
                base: base.clone(),
                recorded,
                yes: *yes,
                earlier: true,
            };
            propose(out, &mut online, &loaded, why).await
        }
        args::Release::Approve {
            revision,
            digest,
            key,
            unlock,
            signature,
            base,
            recorded,
            yes,
        } => {
            let asked = approve::ApprovalRequest {
                revision: *revision,
                digest: digest.as_deref(),
                key: key.as_deref(),
                passphrase_file: unlock.passphrase_file.as_deref(),
                signature: signature.as_deref(),
                base: base.as_deref(),
                recorded: recorded::since(recorded.since.as_deref())?,
                yes: *yes,
            };
            approve(out, context, &asked).await
        }
        args::Release::Reject(args) => end(out, context, HowItEnds::Reject, args).await,
        args::Release::Withdraw(args) => end(out, context, HowItEnds::Withdraw, args).await,
        args::Release::List { limit } => list(out, context, *limit).await,
        args::Release::Show {
            revision,
            documents,
            save,
            statement,
            recorded,
        } => {
            let since = recorded::since(recorded.since.as_deref())?;
            let mut online = Online::connect(context).await?;
            online.settle_zone().await;
            let fetched = online.require(revision.unwrap_or(0)).await?;
            let digest = Digest::of(&fetched.signed.statement);
            let known = online.known()?;
            known.check_number(fetched.statement.revision, digest)?;
            let compiled = plant_of(&fetched, out);
            let verified = Assurance::of(&known, digest, compiled.as_ref().err());
            let recorded = match (&compiled, &since) {
                (Ok(loaded), Some(_)) => {
                    // Whatever is amiss with what holds, this release is shown.
                    let current = fetched_plant(&mut online, 0, out).await.ok().flatten();
                    let base = current.as_ref();
                    let against = recorded::Against {
                        new: &loaded.plant,
                        base: base.map(|current| (&current.loaded.plant, Some(current.revision))),
                    };
                    recorded::recorded(&mut online, out, since.as_deref(), against).await
                }
                _ => None,
            };
            let compared = match &compiled {
                Ok(loaded) => online.compare_with_parent(out, &known, &fetched, loaded).await?,
                Err(_) => None,
            };
            if let Some(folder) = documents {
                // What is written is taken for the release's by whoever signs it elsewhere.
                compiled?;
                write_documents(&fetched.documents, folder)?;
            }
            if let Some(file) = save {
                files::create(file, envelope(&fetched)?.to_json().as_bytes(), Mode::Shared)?;
            }
            if let Some(file) = statement {
                files::create(file, &fetched.signed.statement, Mode::Shared)?;
            }
            let mut shown = shown(&fetched, "shown", compared)?;
            shown.verified = Some(verified);
            shown.recorded = recorded;
            out.show(&shown)?;
            Ok(Exit::Done)
        }
        args::Release::Known => last::known(out, context),
        args::Release::Sign {
            statement,
            key,
            unlock,
            approver,
            documents,
            out: file,
            yes,
        } => {
            let request = signing::SignRequest {
                statement,
                key,
                passphrase_file: unlock.passphrase_file.as_deref(),
                approver,
                documents,
                out: file,
                yes: *yes,
            };
            signing::sign(out, &request)
        }
        args::Release::Verify {
            file,
            approvers,
            documents,
        } => signing::verify(out, file, approvers, documents.as_deref()),
    }
}

/// `release list`, held against what this machine has seen.
async fn list(out: &Output, context: Option<&str>, limit: u32) -> Result<Exit, Failure> {
    let mut online = Online::connect(context).await?;
    let answer = online.client.list_releases(ListReleasesRequest { limit }).await;
    let told = answer.map_err(|status| refused(&status))?.into_inner().releases;
    let known = online.known()?;
    let mut contradicts = None;
    let mut releases = Vec::new();
    for release in told {
        let digest = digest("statement_digest", &release.statement_digest)?;
        let own = online.login.context.operator.as_str();
        // What ended before it was approved no longer has its signatures, and one that came too late was never kept.
        let counts = matches!(
            ReleaseState::try_from(release.state),
            Ok(ReleaseState::Proposed | ReleaseState::Current)
        );
        let hidden =
            counts && known.has_signed(digest) && !release.approved_by.iter().any(|name| name == own);
        if let Err(failure) = known.check_number(Revision(release.revision), digest) {
            contradicts.get_or_insert(failure);
        } else if hidden {
            contradicts.get_or_insert(Failure::altered(
                "approval-hidden",
                format!("you signed r{}, and the coordinator does not show it", release.revision),
            )
            .help("it was restored from a backup, the signature was never sent, or it lies; sign again, or find out"));
        }
        releases.push(ReleaseLine::of(release)?);
    }
    let newest = releases.first().map_or(0, |newest| newest.revision);
    out.show(&ReleaseList { releases })?;
    if newest
        < known
            .verified()?
            .map_or(0, |verified| verified.statement.revision.0)
    {
        contradicts.get_or_insert(
            Failure::altered(
                "history-forked",
                format!("the coordinator's newest release is r{newest}, and you verified a later one"),
            )
            .help("it was restored from a backup, hides releases, or lies: find out which"),
        );
    }
    contradicts.map_or(Ok(Exit::Done), Err)
}

/// Refuses a release that is not the one whose first digits a person typed.
fn named_by_person(revision: u64, digest: &Digest, typed: Option<&str>) -> Result<(), Failure> {
    let whole = digest.to_string();
    let typed_digits = typed.map(|typed| typed.trim_start_matches("sha256:").to_ascii_lowercase());
    match typed_digits {
        Some(typed) if !whole.trim_start_matches("sha256:").starts_with(&typed) => Err(Failure::altered(
            "digest-mismatch",
            format!("r{revision} is not the release that you named: its digest does not begin with {typed}"),
        )
        .because(format!("the coordinator's r{revision} is {whole}"))
        .help(
            "a number names one release only: find out who announced the other one, and why it is not here",
        )),
        _ => Ok(()),
    }
}

/// A release in comparison with what holds.
struct ReleaseComparison {
    changes: Changes,
    findings: Vec<FindingLine>,
    base: Base,
    recorded: Option<Recorded>,
}

fn shown(
    fetched: &FetchedRelease,
    done: &str,
    compared: Option<ReleaseComparison>,
) -> Result<ReleaseShown, Failure> {
    let (changes, findings, base, recorded) = match compared {
        Some(compared) => (
            Some(compared.changes),
            compared.findings,
            Some(compared.base),
            compared.recorded,
        ),
        None => (None, Vec::new(), None, None),
    };
    Ok(ReleaseShown {
        after_approval: None,
        release: ReleaseLine::of(fetched.release.clone())?,
        statement: Stated::of(&fetched.statement, &fetched.signed.statement),
        changes,
        findings,
        base,
        recorded,
        verified: None,
        contradictions: Vec::new(),
        done: done.to_owned(),
        documents: fetched
            .documents
            .files
            .iter()
            .map(|file| file.name.clone())
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_answer_about_another_release_is_refused_with_both_digests() {
        let [sent, other] = [b"sent", b"else"].map(|text| Digest::of(text));
        let answer = |revision, digest: Digest| Release {
            revision,
            statement_digest: digest.0.to_vec().into(),
            ..Release::default()
        };
        assert!(is_about(&answer(4, sent), 4, sent).is_ok());
        for wrong in [answer(4, other), answer(5, sent)] {
            let failure = is_about(&wrong, 4, sent).unwrap_err();
            assert_eq!((failure.exit, &*failure.code), (Exit::Altered, "digest-mismatch"));
            let said = failure.because.join(" ");
            let answered = digest("statement_digest", &wrong.statement_digest).unwrap();
            for named in [sent, answered] {
                assert!(said.contains(&named.to_string()), "{said}");
            }
        }
    }

    #[test]
    fn only_what_was_in_force_is_brought_back() {
        for (state, goes) in [
            (ReleaseState::Superseded, true),
            (ReleaseState::Current, true),
            (ReleaseState::Proposed, false),
            (ReleaseState::Rejected, false),
            (ReleaseState::Withdrawn, false),
            (ReleaseState::Overtaken, false),
            (ReleaseState::Unspecified, false),
        ] {
            let release = Release {
                state: state.into(),
                statement_digest: vec![7; 32].into(),
                ..Release::default()
            };
            let line = ReleaseLine::of(release).unwrap();
            assert_eq!(was_in_force(&line).is_ok(), goes, "{state:?}");
        }
    }
}
