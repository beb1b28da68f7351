//! `release approve`: what is signed was compiled again here, and its change from what this person verified last is shown
//! before. With `--signature`, a signature that was made on a machine without a network is brought instead of made.

use std::path::Path;

use penstock_policy::ids::{ApproverId, Digest};
use penstock_policy::model::ApproverSet;
use penstock_policy::release::{Signable, Signature};
use penstock_proto::v1::{ApproveReleaseRequest, WhoAmIRequest};

use super::super::{Online, refused};
use super::brought::Brought;
use super::fetched::{FetchedRelease, plant_of};
use super::recorded::{self, Against};
use super::report::ReleaseLine;
use super::standing::ServedChain;
use super::{ReleaseComparison, held, is_about, named_by_person, shown};
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::keys::{self, passphrase};
use crate::offline::changes::Changes;
use crate::offline::signing::{self, Stated};
use crate::output::{Output, Page, Report as _, Tone};

/// What `release approve` was asked.
pub(super) struct ApprovalRequest<'a> {
    pub(super) revision: u64,
    /// The first digits of its digest, as it was announced.
    pub(super) digest: Option<&'a str>,
    pub(super) key: Option<&'a Path>,
    /// The file that holds the key's passphrase.
    pub(super) passphrase_file: Option<&'a Path>,
    pub(super) signature: Option<&'a Path>,
    pub(super) base: Option<&'a Path>,
    /// Since when recorded traffic is judged; `None`: it is not.
    pub(super) recorded: Option<String>,
    pub(super) yes: bool,
}

pub(super) async fn approve(
    out: &Output,
    context: Option<&str>,
    asked: &ApprovalRequest<'_>,
) -> Result<Exit, Failure> {
    let key = asked
        .key
        .map(|file| keys::read(file, || passphrase::existing(out, file, asked.passphrase_file)))
        .transpose()?;
    let brought = asked.signature.map(Brought::read).transpose()?;
    let mut online = Online::connect(context).await?;
    let known = online.known()?;
    let revision = asked.revision;
    let fetched = online
        .fetch_named(revision, None, known.verified_digest())
        .await?
        .ok_or_else(|| super::fetched::no_such(revision))?;
    let digest = Digest::of(&fetched.signed.statement);
    named_by_person(revision, &digest, asked.digest)?;
    known.check_number(fetched.statement.revision, digest)?;
    waits(&fetched)?;
    let loaded = plant_of(&fetched, out)?;
    let statement = &fetched.statement;
    let told = ServedChain {
        chain: &fetched.chain,
        head: statement.parent,
        forgives: &|known| known.leads_on(statement),
    };
    let mut standing = online.stand(out, known, &told, asked.base).await?;
    let parent = statement.parent.map(|parent| parent.to_string());
    if standing.left_behind.is_none() && parent != standing.base.statement_digest {
        return Err(not_on_top(revision, parent, standing.base.statement_digest));
    }
    let approvers = standing
        .approvers
        .clone()
        .unwrap_or_else(|| statement.approvers.clone());
    let operator = ApproverId::new(online.login.context.operator.as_str())
        .map_err(|error| Failure::usage(error.to_string()))?;
    let brought = brought
        .map(|brought| brought.envelope(&fetched.signed.statement, &approvers))
        .transpose()?;
    let signers = match (&key, &brought) {
        (Some(key), _) => {
            signing::may_sign(statement, &operator, key, Some(&approvers))?;
            vec![operator.clone()]
        }
        (None, Some(envelope)) => to_bring(&fetched, envelope, &approvers)?,
        (None, None) => return Err(Failure::usage("either --key or --signature says what is given")),
    };
    let (changes, findings) = Changes::with_findings(standing.plant.as_ref(), &loaded.plant)?;
    let against = Against {
        new: &loaded.plant,
        base: standing
            .plant
            .as_ref()
            .map(|plant| (plant, standing.base.revision)),
    };
    let recorded = recorded::recorded(&mut online, out, asked.recorded.as_deref(), against).await;
    let contradictions = online.contradictions(&standing.known).await?;
    let compared = online.compare_trails(statement, &fetched.chain, &standing.known);
    let (trails, remark) = compared.await?;
    let stated = Stated::of(statement, &fetched.signed.statement);
    if out.for_people() {
        let mut page = Page::new(out.style);
        held::show(&contradictions, &mut page);
        stated.page(&mut page);
        page.gap();
        changes.page(&mut page);
        page.gap();
        recorded::show(recorded.as_ref(), &mut page);
        page.gap();
        standing.base.page(&mut page, standing.approvers.as_ref());
        let done = page.paint(Tone::Good, "✓");
        page.line(format!(
            "{done} compiled here: its documents say exactly what it states"
        ));
        if statement.trails.is_some() && trails.is_some() {
            page.line(format!(
                "{done} the coordinator's trails begin with the blocks that it names"
            ));
        }
        out.text(&page.finish())?;
    }
    if let Some(remark) = remark {
        out.remark(&remark);
    }
    let names: Vec<_> = signers.iter().map(ToString::to_string).collect();
    let (release, names) = (stated.asked(), names.join(", "));
    let question = if key.is_some() {
        format!("Sign {release} as {names}?")
    } else {
        format!("Bring the signature of {names} to {release}?")
    };
    ask::confirm(out, asked.yes, &question)?;
    let signatures: Vec<Signature> = match (key, brought) {
        (Some(key), _) => {
            let known = approvers.people.get(&operator).map(|person| person.key);
            let payload = Signable::release(&fetched.signed.statement);
            let signature = key.sign(operator.clone(), &payload, known.as_ref())?;
            // Before it is sent: the coordinator may keep it and say nothing.
            standing.known.number(statement.revision, digest)?;
            standing.known.see(&fetched.signed.statement, true);
            vec![signature]
        }
        (None, brought) => {
            let among = |signature: &Signature| signers.contains(&signature.approver);
            let all = brought.map(|envelope| envelope.signatures).unwrap_or_default();
            standing.known.number(statement.revision, digest)?;
            standing.known.see(&fetched.signed.statement, false);
            all.into_iter().filter(among).collect()
        }
    };
    standing.known.save()?;
    if let Some(trails) = &trails {
        online.keep_seen(trails)?;
    }
    let mut release = fetched.release.clone();
    for signature in signatures {
        release = give(&mut online, revision, digest, &operator, &signature).await?;
    }
    let fetched = FetchedRelease { release, ..fetched };
    let compared = ReleaseComparison {
        changes,
        findings,
        base: standing.base,
        recorded,
    };
    let mut shown = shown(&fetched, "signed", Some(compared))?;
    shown.contradictions = contradictions;
    if shown.release.state == "current" {
        // Without an answer the signature stands all the same.
        let answer = online.client.who_am_i(WhoAmIRequest {}).await;
        shown.after_approval = answer.ok().map(|answer| answer.into_inner().after_approval);
    }
    out.show(&shown)?;
    Ok(Exit::Done)
}

/// Gives one signature to the coordinator, and looks whether it kept it.
async fn give(
    online: &mut Online,
    revision: u64,
    digest: Digest,
    operator: &ApproverId,
    signature: &Signature,
) -> Result<penstock_proto::v1::Release, Failure> {
    let request = ApproveReleaseRequest {
        revision,
        statement_digest: digest.0.to_vec().into(),
        signature: Some(signature.into()),
        brought: signature.approver != *operator,
    };
    let answer = online.client.approve_release(request).await;
    let release = answer.map_err(|status| refused(&status))?.into_inner();
    is_about(&release, revision, digest)?;
    let mut shown = release.approved_by.iter();
    if shown.any(|name| *name == signature.approver.as_str()) {
        return Ok(release);
    }
    Err(Failure::altered(
        "approval-hidden",
        format!("the coordinator took the signature over r{revision}, and does not show it"),
    )
    .help("it is at fault or hostile: tell whoever runs it"))
}

/// The approvers whose signatures the file brings: those in force, each of them verified here.
fn to_bring(
    fetched: &FetchedRelease,
    envelope: &penstock_policy::release::Envelope,
    approvers: &ApproverSet,
) -> Result<Vec<ApproverId>, Failure> {
    let statement = &fetched.statement;
    if envelope.statement != fetched.signed.statement {
        return Err(Failure::altered(
            "digest-mismatch",
            format!(
                "the file holds signatures over another release than {}",
                statement.revision
            ),
        )
        .because(format!("in the file: {}", Digest::of(&envelope.statement)))
        .because(format!(
            "at the coordinator: {}",
            Digest::of(&fetched.signed.statement)
        )));
    }
    let signed = Signable::release(&envelope.statement);
    let mut bring = Vec::new();
    for signature in &envelope.signatures {
        let signer = &signature.approver;
        let Some(approver) = approvers.people.get(signer) else {
            return Err(Failure::new(
                Exit::Refused,
                "NOT_AN_APPROVER",
                format!("the file holds a signature of {signer}, who is not one of the approvers in force"),
            ));
        };
        if let Err(misfit) = signature.check(&signed, &approver.key) {
            return Err(Failure::altered(
                "altered",
                format!("the signature of {signer} in the file does not count"),
            )
            .because(format!("it {misfit}")));
        }
        let given = fetched
            .release
            .approved_by
            .iter()
            .any(|name| *name == signer.as_str());
        if !given {
            signing::may_count(statement, signer)?;
            bring.push(signer.clone());
        }
    }
    if bring.is_empty() {
        return Err(Failure::usage(
            "the file brings no signature that the release does not have already",
        ));
    }
    Ok(bring)
}

/// Refuses what does not wait for signatures, as the coordinator says: then nobody has to look any further.
fn waits(fetched: &FetchedRelease) -> Result<(), Failure> {
    let line = ReleaseLine::of(fetched.release.clone())?;
    if line.state == "proposed" {
        return Ok(());
    }
    let failure = Failure::new(
        Exit::Refused,
        "NOT_PROPOSED",
        format!(
            "release r{} does not wait for signatures: it is {}",
            line.revision, line.state
        ),
    );
    Err(match line.state.as_str() {
        "overtaken" => {
            failure.help("another release became current meanwhile: its author has to propose it again")
        }
        "rejected" | "withdrawn" => failure.because(format!("by {}: {}", line.ended_by, line.ended_reason)),
        _ => failure,
    })
}

fn not_on_top(revision: u64, parent: Option<String>, holds: Option<String>) -> Failure {
    let on_top = |digest: Option<String>| digest.unwrap_or_else(|| "nothing".to_owned());
    Failure::altered(
        "parent-mismatch",
        format!("release r{revision} was not made on top of the one that holds"),
    )
    .because(format!("it was made on top of {}", on_top(parent)))
    .because(format!("what holds is {}", on_top(holds)))
    .help("its author has to propose it again")
}
