//! `audit export`: the trail once, in the formats that programs of others read. The bytes are those that the coordinator's own exports
//! send (`penstock_proto::export`).

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use penstock_proto::export::{ExportRecord, Format, Position, otlp};
use penstock_proto::v1::{AuditRecord, SearchAuditRequest};

use super::Online;
use super::trail::{self, ReadBudget, is_newer, understood};
use crate::ask;
use crate::exit::Exit;
use crate::failure::{Failure, PIPE_CLOSED};
use crate::output::Output;
use crate::words;

/// All of it, in stretches of time of which each fits one answer.
const BUDGET: ReadBudget = ReadBudget {
    page: 100_000,
    records: usize::MAX,
    until: None,
};

/// Where the records go.
pub(super) struct ExportTarget<'a> {
    /// In which format.
    pub(super) format: Format,
    /// A file that is not there yet; else standard output.
    pub(super) out: Option<&'a Path>,
    /// Of this source, only what stands here and behind.
    pub(super) from: Option<&'a Position>,
}

/// Writes what `request` finds, the oldest first.
pub(super) async fn export(
    out: &Output,
    context: Option<&str>,
    request: impl FnOnce() -> Result<SearchAuditRequest, Failure>,
    target: ExportTarget<'_>,
) -> Result<Exit, Failure> {
    let mut online = Online::connect(context).await?;
    online.settle_zone().await;
    let mut request = request()?;
    if let Some(from) = target.from {
        if !request.source.is_empty() && request.source != from.source {
            return Err(Failure::usage(format!(
                "--from-position is of {}, and --source asks for {}",
                from.source, request.source
            )));
        }
        request.source.clone_from(&from.source);
    }
    if request.until_ms == 0 {
        request.until_ms = words::now_ms();
    }
    let plant = online.login.context.plant.to_string();
    let mut sink = Sink::open(target.out)?;
    let waiting = ask::waiting(out, "reading the trail");
    let (mut written, mut failed) = (0_u64, None);
    let asks_newer = is_newer(&request);
    let mut take = |record: AuditRecord, _: u64| {
        if let Err(failure) = understood(asks_newer, &record) {
            failed.get_or_insert(failure);
            return;
        }
        let record = ExportRecord::of(&plant, &record);
        let is_asked = target.from.is_none_or(|from| record.position >= *from);
        if is_asked && failed.is_none() {
            written += 1;
            failed = sink.write(target.format, record).err();
        }
    };
    let gaps = trail::read(&mut online, &request, BUDGET, &mut take).await?;
    drop(waiting);
    if let Some(failure) = failed {
        return Err(failure);
    }
    let gaps = gaps.in_words();
    if !gaps.is_empty() {
        let mut failure = Failure::local("incomplete", "the export lacks a part of the trail");
        for gap in gaps {
            failure = failure.because(gap);
        }
        return Err(failure.help("ask for it by source: --source GATEWAY"));
    }
    sink.finish()?;
    out.remark(&format!("{written} records"));
    Ok(Exit::Done)
}

/// Standard output, or a new file, which goes again if it does not become whole.
struct Sink {
    out: Box<dyn Write>,
    file: Option<(File, PathBuf)>,
}

impl Sink {
    fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self {
                out: Box::new(BufWriter::new(io::stdout())),
                file: None,
            });
        };
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let opened = made.and_then(|file| Ok((file.try_clone()?, file)));
        let (copy, file) = opened.map_err(|error| {
            let words = format!("cannot make {}", path.display());
            Failure::local("file-exists", words)
                .caused_by(&error)
                .help("an export never overwrites a file; give another name")
        })?;
        Ok(Self {
            out: Box::new(BufWriter::new(copy)),
            file: Some((file, path.to_owned())),
        })
    }

    fn write(&mut self, format: Format, record: ExportRecord) -> Result<(), Failure> {
        let written = match format {
            Format::Lines(format) => writeln!(self.out, "{}", format.line(&record)),
            // Requests one behind the other are one request.
            Format::Otlp => self.out.write_all(&otlp::request(&[record])),
        };
        written.map_err(|error| failed(&error))
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| failed(&error))?;
        if let Some((file, _)) = self.file.take() {
            file.sync_all().map_err(|error| failed(&error))?;
        }
        Ok(())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some((_, path)) = self.file.take() {
            // A part of an export must not be taken for all of it.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn failed(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::local(PIPE_CLOSED, ""),
        _ => Failure::local("output-failed", "the export cannot be written").caused_by(error),
    }
}
