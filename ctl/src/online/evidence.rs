//! `audit evidence`: trails with what proves them, verified as they come, into one file.
//!
//! The head of the coordinator's tree is remembered with the login: trails that later do not begin with what was seen were
//! rewritten, or come of an older backup, and this person notices, whoever holds the coordinator.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use penstock_proto::audit::evidence::{EvidenceReader, MAGIC, Vouched, write_piece};
use penstock_proto::audit::tree_head::TreeHead;
use penstock_proto::tls::times::instant;
use penstock_proto::v1::evidence_piece::Piece;
use penstock_proto::v1::{EvidencePiece, GetEvidenceRequest};

use super::releases::fetched::history;
use super::{Online, refused};
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, FileError};
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
    let mut draft = Draft::begin(file)?;
    draft.add(&first)?;
    let mut reader = EvidenceReader::begin(first, &plant, &roots).map_err(|error| altered(what, &error))?;
    if let Some(seen) = seen.filter(|seen| !reader.continues(&seen.tree)) {
        let kept = online.contexts.keep_conflict(&name, &note)?;
        return Err(rewritten(&seen, &kept));
    }
    while let Some(piece) = stream.message().await.map_err(|status| refused(&status))? {
        draft.add(&piece)?;
        reader.take(piece).map_err(|error| altered(what, &error))?;
    }
    if let Some(known) = known {
        reader.believe(Vouched::Release(known));
    }
    let mut add = |piece| -> Result<(), Failure> {
        let piece = EvidencePiece { piece: Some(piece) };
        draft.add(&piece)?;
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
        draft.add(&piece)?;
        reader.take(piece).map_err(|error| altered(what, &error))?;
    }
    let report = reader.report().map_err(|error| altered(what, &error))?;
    draft.finish(file)?;
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

/// A file that gets its name when all of it is there; until then it is a draft beside it, which goes with the command.
struct Draft {
    writer: BufWriter<File>,
    path: PathBuf,
}

impl Draft {
    fn begin(file: &Path) -> Result<Self, Failure> {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = file.with_file_name(name);
        let made = File::create_new(&path).map_err(|source| unwritable(&path, source))?;
        let mut draft = Self {
            writer: BufWriter::with_capacity(1 << 20, made),
            path,
        };
        let written = draft.writer.write_all(MAGIC);
        written.map_err(|source| unwritable(&draft.path, source))?;
        Ok(draft)
    }

    fn add(&mut self, piece: &EvidencePiece) -> Result<(), Failure> {
        let written = write_piece(&mut self.writer, piece);
        Ok(written.map_err(|source| unwritable(&self.path, source))?)
    }

    fn finish(mut self, file: &Path) -> Result<(), Failure> {
        let written = self
            .writer
            .flush()
            .and_then(|()| self.writer.get_ref().sync_all());
        written.map_err(|source| unwritable(&self.path, source))?;
        // Fails where the name is taken by now.
        Ok(std::fs::hard_link(&self.path, file).map_err(|source| unwritable(file, source))?)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn unwritable(path: &Path, source: std::io::Error) -> FileError {
    FileError::Write {
        path: path.to_owned(),
        source,
    }
}
