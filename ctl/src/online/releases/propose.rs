//! `release propose` and `release revert`: a document becomes a release that waits for its signatures.

use std::collections::BTreeSet;
use std::path::PathBuf;

use penstock_policy::ids::{Digest, Revision};
use penstock_policy::release::{self, Draft, REPLACES_MAX};
use penstock_proto::v1::{DocumentFile, ListGatewaysRequest, ListReleasesRequest, ProposeReleaseRequest};

use super::super::trails::named_before;
use super::super::{Online, refused};
use super::carried::Carried;
use super::fetched::{FetchedRelease, history};
use super::recorded::{self, Against};
use super::report::{ReleaseLine, ReleaseShown};
use super::standing::{ServedChain, VerifiedStanding};
use super::{held, is_about};
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::loading::LoadedPlant;
use crate::offline::changes::Changes;
use crate::offline::check::FindingLine;
use crate::offline::signing::{self, Stated};
use crate::output::{Output, Page, Report as _};
use crate::words;

/// Why something is proposed.
pub(super) struct ProposalReason {
    pub(super) ticket: Option<String>,
    pub(super) reason: String,
    /// Without window, shadow and waves, for more signatures.
    pub(super) emergency: bool,
    /// Also the current release's own document, and on top of histories that the coordinator does not know.
    pub(super) again: bool,
    /// This person's own copy of the document in force.
    pub(super) base: Option<PathBuf>,
    /// Since when recorded traffic is judged; `None`: it is not.
    pub(super) recorded: Option<String>,
    pub(super) yes: bool,
    /// A document that was in force goes back as it is, also where `check` finds errors in it: it is for a person to weigh.
    pub(super) earlier: bool,
}

pub(super) async fn propose(
    out: &Output,
    online: &mut Online,
    loaded: &LoadedPlant,
    why: ProposalReason,
) -> Result<Exit, Failure> {
    if loaded.plant.id != online.login.context.plant {
        return Err(Failure::usage(format!(
            "the document is of plant {}, the login of plant {}",
            loaded.plant.id, online.login.context.plant
        ))
        .help("name another login with --context"));
    }
    let known = online.known()?;
    let current = online.fetch_named(0, None, known.verified_digest()).await?;
    if let Some(current) = current
        .as_ref()
        .filter(|current| current.statement.document_digest == loaded.digest && !why.again)
    {
        return Err(Failure::usage(format!(
            "nothing to propose: release {} has exactly this document, and is current",
            current.statement.revision
        ))
        .help("--again proposes it under the next number, for gateways that are ahead of a restored coordinator"));
    }
    let (chain, head) = history(current.as_ref());
    let told = ServedChain {
        chain: &chain,
        head,
        // The proposal joins both histories.
        forgives: &|_| why.again,
    };
    let mut standing = online.stand(out, known, &told, why.base.as_deref()).await?;
    may_be_an_emergency(&standing, loaded, why.emergency)?;
    let joined = join(online, &standing, current.as_ref(), &why).await?;
    let (changes, findings) = Changes::with_findings(standing.plant.as_ref(), &loaded.plant)?;
    let against = Against {
        new: &loaded.plant,
        base: standing
            .plant
            .as_ref()
            .map(|plant| (plant, standing.base.revision)),
    };
    let recorded = recorded::recorded(online, out, why.recorded.as_deref(), against).await;
    let contradictions = online.contradictions(&standing.known).await?;
    if out.for_people() {
        let mut page = Page::new(out.style);
        held::show(&contradictions, &mut page);
        if why.emergency {
            signing::emergency_page(&mut page);
        }
        changes.page(&mut page);
        page.gap();
        recorded::show(recorded.as_ref(), &mut page);
        page.gap();
        standing.base.page(&mut page, standing.approvers.as_ref());
        out.text(&page.finish())?;
    }
    if !why.earlier {
        refuse_errors(&findings)?;
    }
    let revision = joined.revision;
    let mut carried = Carried::now(online, &loaded.plant, out).await?;
    let before = named_before(chain.iter(), &standing.known)?;
    carried.name_trails(online, (before, why.again), out).await?;
    let kind = if why.emergency {
        "the EMERGENCY release"
    } else {
        "release"
    };
    let draft = Draft {
        emergency: why.emergency,
        revision: Revision(revision),
        parent: head,
        replaces: joined.replaces,
        document_digest: loaded.digest,
        author: online.login.context.operator.clone(),
        ticket: why.ticket,
        reason: why.reason,
        created_ms: words::now_ms(),
        withdrawn: carried.withdrawn,
        trust: carried.trust,
        trails: carried.trails,
    };
    let built = release::build(&loaded.plant, draft).map_err(|error| {
        Failure::new(
            Exit::BadDocument,
            "not-released",
            "no release can be made of this document",
        )
        .caused_by(&error)
    })?;
    carried.warn(&built.statement.format, out);
    ask::confirm(out, why.yes, &format!("Propose this as {kind} r{revision}?"))?;
    let statement = built.statement.to_bytes();
    let documents = loaded.documents.files.iter().map(|file| DocumentFile {
        name: file.name.clone(),
        content: file.content.clone().into(),
    });
    let request = ProposeReleaseRequest {
        statement: statement.clone().into(),
        documents: documents.collect(),
    };
    // What cannot be written down here is found before anything is sent.
    standing.known.save()?;
    let waiting = ask::waiting(out, "the coordinator compiles the release again");
    let answer = online.client.propose_release(request).await;
    drop(waiting);
    let answer = match answer.map_err(|status| refused(&status)) {
        Ok(answer) => answer.into_inner(),
        Err(failure) => {
            // Whether it was taken nobody knows: its author has read it in full, and claims no number for it.
            if failure.exit == Exit::Unreachable {
                standing.known.see(&statement, false);
                standing.known.save()?;
            }
            return Err(failure);
        }
    };
    let digest = Digest::of(&statement);
    is_about(&answer, revision, digest)?;
    // Only now: the number of a proposal that was refused is free for another one.
    standing.known.number(built.statement.revision, digest)?;
    standing.known.see(&statement, false);
    standing.known.save()?;
    carried.keep_seen(online)?;
    out.show(&ReleaseShown {
        after_approval: None,
        statement: Stated::of(&built.statement, &statement),
        release: ReleaseLine::of(answer)?,
        changes: Some(changes),
        findings,
        base: Some(standing.base),
        recorded,
        verified: None,
        contradictions,
        done: "proposed".to_owned(),
        documents: loaded
            .documents
            .files
            .iter()
            .map(|file| file.name.clone())
            .collect(),
    })?;
    Ok(Exit::Done)
}

/// Refuses an emergency where the approvers in force, as far as this person verified them, have none.
fn may_be_an_emergency(
    standing: &VerifiedStanding,
    loaded: &LoadedPlant,
    emergency: bool,
) -> Result<(), Failure> {
    let approvers = standing.approvers.as_ref().unwrap_or(&loaded.plant.approvers);
    if approvers.needed(emergency).is_some() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Refused,
        "NO_EMERGENCIES",
        "not proposed: the approvers in force have no `emergency_threshold`, so that no gateway would take an emergency",
    )
    .help("propose it without --emergency: it then waits for its windows and waves")
    .help("for the next time: give `approvers` an `emergency_threshold` and release that document"))
}

/// What `check` calls an error is not released.
fn refuse_errors(findings: &[FindingLine]) -> Result<(), Failure> {
    let errors: Vec<&FindingLine> = findings
        .iter()
        .filter(|finding| finding.severity == "error")
        .collect();
    let Some(first) = errors.first() else {
        return Ok(());
    };
    let gateway = first
        .gateway
        .as_ref()
        .map_or_else(String::new, |gateway| format!("{gateway}: "));
    Err(Failure::new(
        Exit::BadDocument,
        "check-errors",
        format!(
            "not proposed: the document has {} that must not be released, the first: {gateway}{} ({})",
            words::count(errors.len(), "error"),
            first.message,
            first.code
        ),
    )
    .help(first.help.clone()))
}

/// The number of a proposal, and the heads of other histories that it joins.
struct ProposalNumber {
    revision: u64,
    replaces: Vec<Digest>,
}

/// How far a gateway's number may be ahead of all others, to be believed: it is only the gateway that says so.
const AHEAD_MAX: u64 = 100_000;

/// The next number that was never used, as far as this machine, the coordinator and, for `--again`, the gateways know;
/// and what gateways and this person hold that the coordinator does not know.
async fn join(
    online: &mut Online,
    standing: &VerifiedStanding,
    current: Option<&FetchedRelease>,
    why: &ProposalReason,
) -> Result<ProposalNumber, Failure> {
    let newest = online
        .client
        .list_releases(ListReleasesRequest { limit: 1 })
        .await;
    let newest = newest.map_err(|status| refused(&status))?.into_inner().releases;
    let mut highest = newest
        .iter()
        .map(|release| release.revision)
        .chain([standing.known.highest()])
        .max()
        .unwrap_or(0);
    let mut replaces: BTreeSet<Digest> = standing.left_behind.into_iter().collect();
    if why.again {
        let whole = online.fetch_named(0, None, None).await?;
        let mut own: BTreeSet<Digest> = whole
            .iter()
            .flat_map(|whole| whole.chain.iter().chain([&whole.signed]))
            .map(|signed| Digest::of(&signed.statement))
            .collect();
        own.extend(current.map(|current| Digest::of(&current.signed.statement)));
        let gateways = online.client.list_gateways(ListGatewaysRequest {}).await;
        let gateways = gateways.map_err(|status| refused(&status))?.into_inner().gateways;
        let bound = highest.saturating_add(AHEAD_MAX);
        for held in gateways.into_iter().filter_map(|gateway| gateway.policy?.trusted) {
            let digest = super::super::digest("statement_digest", &held.statement_digest)?;
            if held.revision <= bound && !own.contains(&digest) {
                highest = highest.max(held.revision);
                replaces.insert(digest);
            }
        }
    }
    if replaces.len() > REPLACES_MAX {
        return Err(Failure::new(
            Exit::Refused,
            "too-many-histories",
            format!("gateways hold {} releases that the coordinator does not know", replaces.len()),
        )
        .help(format!("a release joins at most {REPLACES_MAX}; a restored coordinator does not explain more: look for a hostile gateway")));
    }
    Ok(ProposalNumber {
        revision: highest + 1,
        replaces: replaces.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_document_in_which_check_finds_an_error_is_not_proposed_and_one_with_warnings_is() {
        let finding = |severity: &str| FindingLine {
            code: "PC0101".to_owned(),
            severity: severity.to_owned(),
            gateway: Some("gw-a".to_owned()),
            message: "nobody can manage it".to_owned(),
            help: "give it a management interface".to_owned(),
            names: Vec::new(),
            file: None,
            line: None,
            column: None,
            accepted: None,
        };
        assert!(refuse_errors(&[finding("warning"), finding("note")]).is_ok());
        let refused = refuse_errors(&[finding("warning"), finding("error")]).unwrap_err();
        assert_eq!(refused.exit, Exit::BadDocument);
        assert!(
            refused.message.contains("1 error")
                && refused.message.contains("gw-a: nobody can manage it (PC0101)"),
            "{}",
            refused.message
        );
    }
}
