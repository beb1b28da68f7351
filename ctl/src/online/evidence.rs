//! `audit evidence`: trails with what proves them, verified as they come, into one file.
//!
//! The head of the coordinator's tree is remembered with the login: trails that later do not begin with what was seen were
//! rewritten, or come of an older backup, and this person notices, whoever holds the coordinator.

use std::path::Path;

use penstock_proto::audit::evidence::{EvidenceReader, MAGIC, Vouched, write_piece};
use penstock_proto::audit::tree_head::TreeHead;
use penstock_proto::tls::times::instant;
use penstock_proto::v1::evidence_piece::Piece;
use penstock_proto::v1::{EvidencePiece, GetEvidenceRequest};

use super::draft::Draft;
use super::releases::fetched::history;
use super::{Online, refused};
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files;
use crate::offline::evidence::{EvidenceProved, altered};
use crate::output::Output;
use crate::{times, words};

/// `penstock audit evidence`.
pub(super) async fn take(
    out: &Output,
    context: Option<&str>,
    file: &Path,
    source: Option<&str>,
    (since, until): (Option<&str>, Option<&str>),
) -> Result<Exit, Failure> {
    files::free(file)?;
    // What cannot be meant is refused before anybody is asked.
    times::stretch(since, until, words::now_ms())?;
    let mut online = Online::connect(context).await?;
    online.settle_zone().await;
    let (from_ms, until_ms) = times::stretch(since, until, words::now_ms())?;
    let (name, plant) = (online.login.name.clone(), online.login.context.plant.clone());
    let (roots, seen) = (online.contexts.roots(&name)?, online.contexts.seen_tree(&name)?);
    let request = GetEvidenceRequest {
        source: source.unwrap_or_default().to_owned(),
        from_ms,
        until_ms,
        seen_size: seen.as_ref().map_or(0, |seen| seen.tree.size),
    };
    let waiting = ask::waiting(out, "taking evidence");
    // Before the head: what a release names of the trails is in the tree by then.
    let known = online.known()?.verified_digest();
    let current = online.fetch_named(0, None, None).await?;
    let (releases, _) = history(current.as_ref());
    let cosigned = online.served_tree(&[]).await?.map(|tree| tree.cosigned);
    let answer = online.client.get_evidence(request).await;
    let mut stream = answer.map_err(|status| refused(&status))?.into_inner();
    let what = "what the coordinator sent";
    let no_head = || super::unreachable("the coordinator ended the connection before it sent anything");
    let first = stream.message().await.map_err(|status| refused(&status))?;
    let first = first.ok_or_else(no_head)?;
    let note = match &first.piece {
        Some(Piece::Head(head)) => head.note.clone(),
        _ => return Err(no_head()),
    };
    let mut draft = Draft::begin(file, 0o666)?;
    draft.add(MAGIC)?;
    add_piece(&mut draft, &first)?;
    let mut reader = EvidenceReader::begin(first, &plant, &roots).map_err(|error| altered(what, &error))?;
    if let Some(seen) = seen.filter(|seen| !reader.continues(&seen.tree)) {
        let kept = online.contexts.keep_conflict(&name, &note)?;
        return Err(rewritten(&seen, &kept));
    }
    while let Some(piece) = stream.message().await.map_err(|status| refused(&status))? {
        add_piece(&mut draft, &piece)?;
        reader.take(piece).map_err(|error| altered(what, &error))?;
    }
    if let Some(known) = known {
        reader.believe(Vouched::Release(known));
    }
    let mut add = |piece| -> Result<(), Failure> {
        let piece = EvidencePiece { piece: Some(piece) };
        add_piece(&mut draft, &piece)?;
        reader.take(piece).map_err(|error| altered(what, &error))
    };
    releases
        .into_iter()
        .try_for_each(|release| add(Piece::Release(release)))?;
    let cosigned = cosigned.unwrap_or_else(|why| {
        out.remark(&format!(
            "▲ the file has no heads that external witnesses cosigned: {why}"
        ));
        Vec::new()
    });
    cosigned
        .into_iter()
        .try_for_each(|note| add(Piece::Cosigned(note.into())))?;
    let (sizes, size) = (reader.named_sizes(), reader.head().head.tree.size);
    for proof in online.tree_proofs(size, &sizes).await? {
        let piece = EvidencePiece {
            piece: Some(Piece::Proof(proof)),
        };
        add_piece(&mut draft, &piece)?;
        reader.take(piece).map_err(|error| altered(what, &error))?;
    }
    let report = reader.report().map_err(|error| altered(what, &error))?;
    draft.finish()?;
    online.contexts.keep_tree(&name, &note)?;
    drop(waiting);
    let proved = EvidenceProved::of(&plant, report);
    if known.is_some() && proved.releases > 0 && proved.approvers != "known" {
        out.remark(
            "▲ the release that you verified last on this machine is not among those of the coordinator: it was restored from a backup, hides releases, or lies (penstock release known)",
        );
    }
    out.show(&proved)?;
    Ok(proved.exit())
}

fn add_piece(draft: &mut Draft, piece: &EvidencePiece) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    // Memory takes whatever it is given.
    let _ = write_piece(&mut bytes, piece);
    Ok(draft.add(&bytes)?)
}

fn rewritten(seen: &TreeHead, kept: &Path) -> Failure {
    let (origin, size) = (&seen.origin, seen.tree.size);
    Failure::altered(
        "trail-rewritten",
        format!(
            "the coordinator's trails do not begin with the {size} blocks that {origin} signed for at {}, and this login saw: blocks were taken out \
             or altered since then, or the coordinator was restored from an older backup",
            instant(seen.time_ms)
        ),
    )
    .because(format!(
        "the head of today is kept in {}, beside the one that was seen: both are signed, and prove it",
        files::quoted(kept)
    ))
    .help("no file of evidence was written. Gateways still hold blocks that they delivered, and the coordinator's word for what it had (penstock-agent audit check)")
}
