//! `audit export`: the trail once, in the formats that programs of others read. The bytes are those that the coordinator's own exports
//! send (`penstock_proto::export`).

use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use penstock_proto::export::{ExportRecord, Format, Position, otlp};
use penstock_proto::v1::{AuditRecord, SearchAuditRequest};

use super::Online;
use super::draft::Draft;
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
    let mut written = 0_u64;
    let asks_newer = is_newer(&request);
    // The first record that cannot be written ends it: nothing more is asked of the coordinator.
    let mut take = |record: AuditRecord, _: u64| {
        understood(asks_newer, &record)?;
        let record = ExportRecord::of(&plant, &record);
        if target.from.is_none_or(|from| record.position >= *from) {
            sink.write(target.format, record)?;
            written += 1;
        }
        Ok(())
    };
    let gaps = trail::read(&mut online, &request, BUDGET, &mut take).await?;
    drop(waiting);
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

/// Standard output, or a new file, which has its name once it is whole.
enum Sink {
    Output(BufWriter<io::Stdout>),
    File(Draft),
}

impl Sink {
    fn open(path: Option<&Path>) -> Result<Self, Failure> {
        Ok(match path {
            None => Self::Output(BufWriter::new(io::stdout())),
            Some(path) => Self::File(Draft::begin(path, 0o600)?),
        })
    }

    fn write(&mut self, format: Format, record: ExportRecord) -> Result<(), Failure> {
        let bytes = match format {
            Format::Lines(format) => format!("{}\n", format.line(&record)).into_bytes(),
            // Requests one behind the other are one request.
            Format::Otlp => otlp::request(&[record]),
        };
        match self {
            Self::Output(out) => out.write_all(&bytes).map_err(|error| failed(&error)),
            Self::File(draft) => Ok(draft.add(&bytes)?),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Output(mut out) => out.flush().map_err(|error| failed(&error)),
            Self::File(draft) => Ok(draft.finish()?),
        }
    }
}

fn failed(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::local(PIPE_CLOSED, ""),
        _ => Failure::local("output-failed", "the export cannot be written").caused_by(error),
    }
}
