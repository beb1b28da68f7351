//! `audit search` and `audit tail`: the trail, record by record, each with its place in its chain.

use penstock_proto::event::{Reading, severity_word};
use penstock_proto::v1::{
    AuditClock, AuditRecord, Decision, NamedAddress, SearchAuditRequest, Severity, TailAuditRequest,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Online, refused};
use crate::args::{self, AuditFilter, ClockArg, DecisionArg, SeverityArg};
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
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
    /// `verdict`, `operation`, `policy`, `drift`, `loss`, `agent`, `learned`, `fault`, `operator`, `trail`, `identity`; `foreign`, if
    /// its source may not write such events; or `unknown`.
    pub kind: String,
    /// The event in one sentence, for people; its words may change.
    pub summary: String,
    /// The event's own fields.
    pub event: serde_json::Map<String, serde_json::Value>,
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
        limit: 0,
        newest_first: false,
    })
}

/// What a search found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Found {
    /// Each record, newest first unless asked otherwise.
    pub records: Vec<Record>,
    /// Whether the limit was reached, so that there may be more.
    pub may_be_more: bool,
}

impl Report for Found {
    const SCHEMA: &'static str = "penstock.audit-search/1";
    fn page(&self, page: &mut Page) {
        for record in &self.records {
            record.page(page);
        }
        if self.records.is_empty() {
            page.line("no records match");
        } else if self.may_be_more {
            let more = format!(
                "the first {} records; there may be more (--limit)",
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
        } => {
            // What cannot be meant is refused before anybody is asked.
            request(filter, until.as_deref())?;
            let mut online = Online::connect(context).await?;
            online.settle_zone().await;
            let request = SearchAuditRequest {
                limit: *limit,
                newest_first: !oldest_first,
                ..request(filter, until.as_deref())?
            };
            let waiting = ask::waiting(out, "searching the trail");
            let found = online.search(request).await?;
            let records: Vec<Record> = found.into_iter().map(Record::from).collect();
            drop(waiting);
            out.show(&Found {
                may_be_more: records.len() == *limit as usize,
                records,
            })?;
            Ok(Exit::Done)
        }
        args::Audit::Tail { filter } => {
            request(filter, None)?;
            let mut online = Online::connect(context).await?;
            online.settle_zone().await;
            let request = TailAuditRequest {
                filter: Some(request(filter, None)?),
            };
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
                    Some(record) => out.show_next(&Record::from(record))?,
                    None => return Err(super::unreachable("the coordinator ended the connection")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use penstock_proto::event::EventKind;
    use penstock_proto::v1::audit_event::Kind;
    use penstock_proto::v1::{AuditEvent, VerdictEvent};

    use super::*;

    #[test]
    fn a_record_has_its_sentence_its_fields_and_the_names_of_its_addresses() {
        let event = AuditEvent {
            time_ms: 1_700_000_000_000,
            severity: Severity::Warning as i32,
            revision: 3,
            kind: Some(Kind::Verdict(VerdictEvent {
                decision: Decision::Deny as i32,
                source: "10.1.0.9".into(),
                destination: "10.20.4.7".into(),
                protocol: 6,
                port: 502,
                count: 4,
                reason: "no rule matches".into(),
                ..VerdictEvent::default()
            })),
        };
        let record = Record::from(AuditRecord {
            source: "gw-a".into(),
            event: Some(event),
            names: vec![NamedAddress {
                address: "10.1.0.9".into(),
                asset: String::new(),
                zone: "office".into(),
            }],
            ..AuditRecord::default()
        });
        assert_eq!(
            record.summary,
            "deny 10.1.0.9 (zone office) → 10.20.4.7 tcp/502 ×4: no rule matches"
        );
        assert_eq!(
            (record.kind.as_str(), record.severity.as_str()),
            ("verdict", "warning")
        );
        assert_eq!(record.event.get("decision"), Some(&serde_json::json!("deny")));
        assert_eq!(record.names.first().and_then(|named| named.asset.clone()), None);
    }

    #[test]
    fn an_event_of_the_future_is_shown_rather_than_hidden() {
        let record = Record::from(AuditRecord {
            event: Some(AuditEvent::default()),
            ..AuditRecord::default()
        });
        assert_eq!(
            (record.kind.as_str(), record.severity.as_str()),
            ("unknown", "unknown")
        );
        assert!(!record.summary.is_empty());
    }

    #[test]
    fn the_schema_names_each_kind_of_event() {
        let schema = serde_json::to_string(&schemars::schema_for!(Record)).unwrap_or_default();
        for kind in EventKind::ALL {
            assert!(schema.contains(&format!("`{}`", kind.word())), "{kind:?}");
        }
    }
}
