//! `audit search` and `audit tail`: the trail, record by record, each with its place in its chain; and its sums (`sums`).

mod explained;
mod sums;

use penstock_proto::event::{Reading, severity_word};
use penstock_proto::v1::{
    AuditClock, AuditRecord, Decision, LearnedRange, NamedAddress, SearchAuditRequest, Severity,
    TailAuditRequest,
};
use schemars::JsonSchema;
use serde::Serialize;

use self::explained::Explained;
pub use self::sums::{Counts, DenialList};
use super::export::{ExportTarget, export};
use super::trail::{is_newer, understood};
use super::{Online, event_proof, evidence, refused};
use crate::args::{self, AuditFilter, ClockArg, DecisionArg, SeverityArg};
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::offline;
use crate::output::{Output, Page, Report, Tone};
use crate::{times, words};

/// Further apart than this, the time of receipt is shown beside the source's.
const APART_MS: u64 = 60_000;

/// One record.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Record {
    /// Gateway, or `coordinator/<name>`.
    pub source: String,
    /// Number of the chain.
    pub epoch: u64,
    /// Block within the chain.
    pub sequence: u64,
    /// Event within the block.
    pub index: u32,
    /// When the coordinator had it, milliseconds since 1970.
    pub received_ms: u64,
    /// When it happened by the source's clock, milliseconds since 1970.
    pub time_ms: u64,
    /// The same, in the time of the source's site (RFC 3339).
    pub time: String,
    /// When the coordinator had it, in the same time.
    pub received: String,
    /// What the release in force then calls the event's addresses.
    pub names: Vec<Named>,
    /// `info`, `notice`, `warning` or `alarm`.
    pub severity: String,
    /// The policy revision in force; 0 if none.
    pub revision: u64,
    /// `verdict`, `operation`, `policy`, `drift`, `loss`, `agent`, `learned`, `fault`, `operator`, `trail`, `identity`, `seal`, `alarm`; `foreign`, if
    /// its source may not write such events; or `unknown`.
    pub kind: String,
    /// The event in one sentence, for people; its words may change.
    pub summary: String,
    /// The event's own fields.
    pub event: serde_json::Map<String, serde_json::Value>,
    /// Which rule decided it (`--explain`); absent where it was not asked for, and of what no rule decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explained: Option<Explained>,
}

/// An address by the names that it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Named {
    /// The address.
    pub address: String,
    /// The asset that has it; absent: only the zone's networks hold it.
    pub asset: Option<String>,
    /// The zone.
    pub zone: String,
}

impl From<NamedAddress> for Named {
    fn from(named: NamedAddress) -> Self {
        Self {
            address: named.address,
            asset: (!named.asset.is_empty()).then_some(named.asset),
            zone: named.zone,
        }
    }
}

impl From<AuditRecord> for Record {
    fn from(record: AuditRecord) -> Self {
        let event = record.event.unwrap_or_default();
        let reading = Reading::of(&record.source, &event, &record.names);
        let zone = times::zone_at(&record.time_zone);
        Self {
            time: times::shown(event.time_ms, &zone),
            received: times::shown(record.received_ms, &zone),
            names: record.names.into_iter().map(Named::from).collect(),
            source: record.source,
            epoch: record.epoch,
            sequence: record.sequence,
            index: record.index,
            received_ms: record.received_ms,
            time_ms: event.time_ms,
            severity: severity_word(event.severity).to_owned(),
            revision: event.revision,
            kind: reading.kind.to_owned(),
            summary: reading.sentence,
            event: reading.fields,
            explained: None,
        }
    }
}

impl Report for Record {
    const SCHEMA: &'static str = "penstock.audit/1";
    fn page(&self, page: &mut Page) {
        let tone = match self.severity.as_str() {
            "info" => Tone::Dim,
            "notice" => Tone::Plain,
            "alarm" => Tone::Bad,
            _ => Tone::Warn,
        };
        let time = page.paint(Tone::Dim, &self.time);
        let severity = page.paint(tone, &format!("{:<7}", self.severity));
        let source = page.paint(Tone::Name, &self.source);
        let summary = page.paint(Tone::Plain, &self.summary);
        let place = page.paint(
            Tone::Dim,
            &format!("({}/{}/{})", self.epoch, self.sequence, self.index),
        );
        let received = self.received_apart(page);
        page.line(format!(
            "{time}  {severity}  {source}  {summary}  {place}{received}"
        ));
        if let Some(explained) = &self.explained {
            page.paragraph(4, Tone::Dim, &explained.in_words());
        }
    }
}

impl Record {
    /// When the coordinator had it, where that is another time than the source's clock says.
    fn received_apart(&self, page: &Page) -> String {
        if self.time_ms.abs_diff(self.received_ms) <= APART_MS || self.received_ms == 0 {
            return String::new();
        }
        if self.time_ms > self.received_ms {
            let ahead = words::span(self.time_ms - self.received_ms);
            let said = format!(
                "  received {}: the source's clock is {ahead} ahead",
                self.received
            );
            return page.paint(Tone::Warn, &said);
        }
        page.paint(Tone::Dim, &format!("  received {}", self.received))
    }
}

fn request(filter: &AuditFilter, until: Option<&str>) -> Result<SearchAuditRequest, Failure> {
    let (from_ms, until_ms) = times::stretch(filter.since.as_deref(), until, words::now_ms())?;
    let kinds = filter.kind.iter().map(|kind| kind.word().to_owned());
    Ok(SearchAuditRequest {
        source: filter.source.clone().unwrap_or_default(),
        from_ms,
        until_ms,
        clock: match filter.clock {
            ClockArg::Either => AuditClock::Either,
            ClockArg::Source => AuditClock::Source,
            ClockArg::Received => AuditClock::Received,
        } as i32,
        kinds: kinds.collect(),
        severity_min: match filter.severity {
            None => Severity::Unspecified,
            Some(SeverityArg::Info) => Severity::Info,
            Some(SeverityArg::Notice) => Severity::Notice,
            Some(SeverityArg::Warning) => Severity::Warning,
            Some(SeverityArg::Alarm) => Severity::Alarm,
        } as i32,
        decision: match filter.decision {
            None => Decision::Unspecified,
            Some(DecisionArg::Allow) => Decision::Allow,
            Some(DecisionArg::Deny) => Decision::Deny,
            Some(DecisionArg::WouldDeny) => Decision::WouldDeny,
        } as i32,
        text: filter.text.clone().unwrap_or_default(),
        sites: filter.site.clone(),
        zones: filter.zone.clone(),
        conduits: filter.conduit.clone(),
        assets: filter.asset.clone(),
        operations: filter.operation.clone(),
        values: filter.value.map(|(first, last)| LearnedRange { first, last }),
        operators: filter.operator.clone(),
        ..SearchAuditRequest::default()
    })
}

/// What a search found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Found {
    /// Each record, newest first unless asked otherwise.
    pub records: Vec<Record>,
    /// Whether the limit was reached, so that there may be more.
    pub may_be_more: bool,
    /// Where the same search goes on (`--after`); absent where there is no more.
    pub next: Option<String>,
}

impl Report for Found {
    const SCHEMA: &'static str = "penstock.audit-search/1";
    fn page(&self, page: &mut Page) {
        for record in &self.records {
            record.page(page);
        }
        if self.records.is_empty() {
            page.line("no records match");
        } else if let Some(next) = &self.next {
            let more = format!(
                "{} records; there may be more: the same search with --after {next}",
                self.records.len()
            );
            let more = page.paint(Tone::Dim, &more);
            page.line(more);
        }
    }
}

/// `penstock audit …`.
pub(crate) async fn audit(out: &Output, context: Option<&str>, args: &args::Audit) -> Result<Exit, Failure> {
    match args {
        args::Audit::Search {
            filter,
            until,
            limit,
            oldest_first,
            after,
            explain,
        } => {
            // What cannot be meant is refused before anybody is asked.
            request(filter, until.as_deref())?;
            let mut online = Online::connect(context).await?;
            online.settle_zone().await;
            let request = SearchAuditRequest {
                limit: *limit,
                newest_first: !oldest_first,
                after: after.clone().unwrap_or_default(),
                ..request(filter, until.as_deref())?
            };
            let waiting = ask::waiting(out, "searching the trail");
            let asks_newer = is_newer(&request);
            let found = online.search(request).await?;
            found
                .iter()
                .try_for_each(|record| understood(asks_newer, record))?;
            let may_be_more = found.len() == *limit as usize;
            let cursor = found.last().map(|last| last.cursor.clone());
            let records = if *explain {
                explained::all(&mut online, found, out).await?
            } else {
                found.into_iter().map(Record::from).collect()
            };
            drop(waiting);
            out.show(&Found {
                may_be_more,
                next: cursor.filter(|cursor| may_be_more && !cursor.is_empty()),
                records,
            })?;
            Ok(Exit::Done)
        }
        args::Audit::Evidence {
            file,
            source,
            since,
            until,
        } => {
            let times = (since.as_deref(), until.as_deref());
            evidence::take(out, context, file, source.as_deref(), times).await
        }
        args::Audit::Prove { position, out: file } => event_proof::prove(out, context, position, file).await,
        args::Audit::Verify {
            file,
            roots,
            plant,
            approvers,
            witness,
        } => {
            let trusted = (roots.as_deref(), plant.as_ref());
            offline::evidence::verify(out, context, file, trusted, (approvers.as_deref(), witness))
        }
        args::Audit::Counts {
            filter,
            until,
            per,
            by,
        } => {
            request(filter, until.as_deref())?;
            let mut online = Online::connect(context).await?;
            online.settle_zone().await;
            let request = request(filter, until.as_deref())?;
            let waiting = ask::waiting(out, "counting");
            let counts = sums::counts(&mut online, request, *per, *by).await?;
            drop(waiting);
            out.show(&counts)?;
            Ok(Exit::Done)
        }
        args::Audit::Denials {
            filter,
            until,
            limit,
            order,
        } => {
            request(filter, until.as_deref())?;
            let mut online = Online::connect(context).await?;
            online.settle_zone().await;
            let request = request(filter, until.as_deref())?;
            let waiting = ask::waiting(out, "reading the trail");
            let denials = sums::denials(&mut online, request, *limit, *order).await?;
            drop(waiting);
            out.show(&denials)?;
            Ok(Exit::Done)
        }
        args::Audit::Export {
            filter,
            until,
            format,
            from_position,
            out: file,
        } => {
            // What cannot be meant is refused before anybody is asked.
            request(filter, until.as_deref())?;
            let target = ExportTarget {
                format: *format,
                out: file.as_deref(),
                from: from_position.as_ref(),
            };
            export(out, context, || request(filter, until.as_deref()), target).await
        }
        args::Audit::Tail { filter } => {
            request(filter, None)?;
            let mut online = Online::connect(context).await?;
            online.settle_zone().await;
            let filter = request(filter, None)?;
            let asks_newer = is_newer(&filter);
            let request = TailAuditRequest { filter: Some(filter) };
            let mut stream = online
                .client
                .tail_audit(request)
                .await
                .map_err(|s| refused(&s))?
                .into_inner();
            loop {
                let next = tokio::select! {
                    next = stream.message() => next.map_err(|status| refused(&status))?,
                    _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
                };
                match next {
                    Some(record) => {
                        understood(asks_newer, &record)?;
                        out.show_next(&Record::from(record))?;
                    }
                    None => return Err(super::unreachable("the coordinator ended the connection")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
