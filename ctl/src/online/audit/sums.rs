//! `audit counts` and `audit denials`: what the trail adds up to, as the coordinator counts it.

use penstock_proto::event::{Reading, severity_word};
use penstock_proto::v1::{
    AuditAspect, AuditCount, AuditStretch, CountAuditRequest, DenialGroup, DenialOrder, ListDenialsRequest,
    SearchAuditRequest,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::Named;
use crate::args::{AspectArg, OrderArg, PerArg};
use crate::failure::Failure;
use crate::online::{Online, refused};
use crate::output::{Page, Report, Tone};
use crate::times;

/// How many records there were, over time.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Counts {
    /// `hour` or `day`.
    pub per: String,
    /// `decision`, `severity`, `kind`, `source` or `conduit`; absent: all together.
    pub by: Option<String>,
    /// Each count, by its beginning.
    pub counts: Vec<CountLine>,
    /// All records that match.
    pub records: u64,
    /// Those of them that belong to more counts than an answer has: narrow the search.
    pub further_records: u64,
}

/// The records of one hour or day.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CountLine {
    /// When it began, in the time of the source's site (RFC 3339).
    pub from: String,
    /// The same, milliseconds since 1970.
    pub from_ms: u64,
    /// IANA name of that time zone; empty: it is not known, and it began by UTC.
    pub time_zone: String,
    /// By what it is counted apart; absent where the records have none of it.
    pub what: Option<String>,
    /// Records.
    pub records: u64,
    /// How often what they report happened.
    pub times: u64,
}

impl From<AuditCount> for CountLine {
    fn from(count: AuditCount) -> Self {
        let zone = times::zone_at(&count.time_zone);
        Self {
            from: times::shown(count.from_ms, &zone),
            from_ms: count.from_ms,
            time_zone: count.time_zone,
            what: Some(count.what).filter(|what| !what.is_empty()),
            records: count.events,
            times: count.times,
        }
    }
}

impl Report for Counts {
    const SCHEMA: &'static str = "penstock.audit-counts/1";
    fn page(&self, page: &mut Page) {
        if self.counts.is_empty() {
            page.line("no records match");
            return;
        }
        let by = self.by.clone().unwrap_or_default();
        let rows: Vec<Vec<(Tone, String)>> = self
            .counts
            .iter()
            .map(|count| {
                let what = count.what.clone().unwrap_or_else(|| "\u{2013}".to_owned());
                let mut row = vec![(Tone::Plain, count.from.clone())];
                if self.by.is_some() {
                    row.push((Tone::Name, what));
                }
                row.push((Tone::Plain, count.records.to_string()));
                row.push((Tone::Plain, count.times.to_string()));
                row
            })
            .collect();
        let headings: Vec<&str> = match by.as_str() {
            "" => vec![self.per.as_str(), "records", "times"],
            by => vec![self.per.as_str(), by, "records", "times"],
        };
        page.table(&headings, &rows);
        if self.further_records > 0 {
            let further = format!(
                "and {} more records, of more counts than one answer has: narrow the search",
                self.further_records
            );
            let further = page.paint(Tone::Warn, &further);
            page.line(further);
        }
    }
}

/// Asks the coordinator for counts.
pub(super) async fn counts(
    online: &mut Online,
    filter: SearchAuditRequest,
    per: PerArg,
    by: Option<AspectArg>,
) -> Result<Counts, Failure> {
    let (per, per_word) = match per {
        PerArg::Hour => (AuditStretch::Hour, "hour"),
        PerArg::Day => (AuditStretch::Day, "day"),
    };
    let (by, by_word) = match by {
        None => (AuditAspect::None, None),
        Some(AspectArg::Decision) => (AuditAspect::Decision, Some("decision")),
        Some(AspectArg::Severity) => (AuditAspect::Severity, Some("severity")),
        Some(AspectArg::Kind) => (AuditAspect::Kind, Some("kind")),
        Some(AspectArg::Source) => (AuditAspect::Source, Some("source")),
        Some(AspectArg::Conduit) => (AuditAspect::Conduit, Some("conduit")),
    };
    let request = CountAuditRequest {
        filter: Some(filter),
        per: per.into(),
        by: by.into(),
        time_zone: times::chosen_by_person().unwrap_or_default(),
    };
    let answer = online.client.count_audit(request).await;
    let counted = answer.map_err(|status| refused(&status))?.into_inner();
    Ok(Counts {
        per: per_word.to_owned(),
        by: by_word.map(str::to_owned),
        counts: counted.counts.into_iter().map(CountLine::from).collect(),
        records: counted.events,
        further_records: counted.further_events,
    })
}

/// What was refused, or would have been.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DenialList {
    /// Each thing, in the order asked for.
    pub denials: Vec<DenialLine>,
    /// Further things that are not listed (`--limit`).
    pub further: u64,
    /// Records of things beyond those that the coordinator keeps apart: `denials` and `further` lack them. 0: the list is whole.
    pub further_records: u64,
    /// All records that match.
    pub records: u64,
}

/// One thing that was refused, however often.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DenialLine {
    /// `deny`, or `would-deny`: it passed, since its zones only observe.
    pub decision: String,
    /// Who wanted it.
    pub source: String,
    /// Of whom.
    pub destination: String,
    /// What the release in force at the last time calls the two.
    pub names: Vec<Named>,
    /// `tcp/502`.
    pub service: String,
    /// The operation, where the connection itself passed.
    pub operation: Option<String>,
    /// How often.
    pub times: u64,
    /// In how many records.
    pub records: u64,
    /// First and last, in the time of the gateway's site.
    pub first: String,
    /// See `first`.
    pub last: String,
    /// First and last, milliseconds since 1970.
    pub first_ms: u64,
    /// See `first_ms`.
    pub last_ms: u64,
    /// The gateway, the last time.
    pub gateway: String,
    /// The policy revision in force, the last time.
    pub revision: u64,
    /// Severity of the last record.
    pub severity: String,
    /// The last record in one sentence, for people; its words may change.
    pub summary: String,
}

impl DenialLine {
    /// Of a group whose last record is a verdict or an operation.
    fn of(group: DenialGroup) -> Self {
        let record = group.last.unwrap_or_default();
        let event = record.event.clone().unwrap_or_default();
        let reading = Reading::of(&record.source, &event, &record.names);
        let field = |names: [&str; 2]| {
            let found = names.iter().find_map(|name| reading.fields.get(*name));
            found
                .and_then(|value| value.as_str())
                .unwrap_or_default()
                .to_owned()
        };
        let number = |name: &str| {
            reading
                .fields
                .get(name)
                .and_then(serde_json::Value::as_u64)
                .unwrap_or(0)
        };
        let operation = reading.fields.get("operation").and_then(|value| value.as_str());
        let zone = times::zone_at(&record.time_zone);
        Self {
            decision: field(["decision", "decision"]),
            source: field(["source", "client"]),
            destination: field(["destination", "server"]),
            service: service(
                operation.map_or_else(|| number("protocol"), |_| 6),
                number("port"),
            ),
            operation: operation.map(str::to_owned),
            times: group.times,
            records: group.events,
            first: times::shown(group.first_ms, &zone),
            last: times::shown(group.last_ms, &zone),
            first_ms: group.first_ms,
            last_ms: group.last_ms,
            gateway: record.source,
            revision: event.revision,
            severity: severity_word(event.severity).to_owned(),
            summary: reading.sentence,
            names: record.names.into_iter().map(Named::from).collect(),
        }
    }

    /// "hmi-1 (10.1.0.5)", "10.9.9.9".
    fn called(&self, address: &str) -> String {
        let named = self.names.iter().find(|named| named.address == address);
        match named.map(|named| (named.asset.as_ref(), &named.zone)) {
            Some((Some(asset), _)) => format!("{asset} ({address})"),
            Some((None, zone)) => format!("{address} (zone {zone})"),
            None => address.to_owned(),
        }
    }
}

fn service(protocol: u64, port: u64) -> String {
    let port = if port == 0 {
        String::new()
    } else {
        format!("/{port}")
    };
    match protocol {
        1 | 58 => "icmp".to_owned(),
        6 => format!("tcp{port}"),
        17 => format!("udp{port}"),
        other => format!("ip protocol {other}"),
    }
}

impl Report for DenialList {
    const SCHEMA: &'static str = "penstock.audit-denials/1";
    fn page(&self, page: &mut Page) {
        if self.denials.is_empty() {
            page.line("nothing was refused that matches");
            return;
        }
        let rows: Vec<Vec<(Tone, String)>> = self
            .denials
            .iter()
            .map(|line| {
                let tone = if line.decision == "deny" {
                    Tone::Bad
                } else {
                    Tone::Warn
                };
                let what = match &line.operation {
                    Some(operation) => format!("{} {operation}", line.service),
                    None => line.service.clone(),
                };
                vec![
                    (Tone::Plain, line.last.clone()),
                    (tone, line.decision.clone()),
                    (Tone::Plain, format!("\u{d7}{}", line.times)),
                    (Tone::Name, line.called(&line.source)),
                    (Tone::Name, line.called(&line.destination)),
                    (Tone::Plain, what),
                    (Tone::Dim, line.first.clone()),
                ]
            })
            .collect();
        page.table(
            &["last", "decision", "times", "from", "to", "what", "first"],
            &rows,
        );
        if self.further > 0 {
            let further = format!("and {} more (--limit)", self.further);
            let further = page.paint(Tone::Dim, &further);
            page.line(further);
        }
        if self.further_records > 0 {
            let further = format!(
                "and {} records of yet other refusals, more than are kept apart: narrow the search",
                self.further_records
            );
            let further = page.paint(Tone::Warn, &further);
            page.line(further);
        }
    }
}

/// Asks the coordinator for what was refused.
pub(super) async fn denials(
    online: &mut Online,
    filter: SearchAuditRequest,
    limit: u32,
    order: OrderArg,
) -> Result<DenialList, Failure> {
    let order = match order {
        OrderArg::Last => DenialOrder::Last,
        OrderArg::Count => DenialOrder::Count,
    };
    let request = ListDenialsRequest {
        filter: Some(filter),
        limit,
        order: order.into(),
    };
    let answer = online.client.list_denials(request).await;
    let listed = answer.map_err(|status| refused(&status))?.into_inner();
    Ok(DenialList {
        denials: listed.groups.into_iter().map(DenialLine::of).collect(),
        further: listed.further_groups,
        further_records: listed.further_events,
        records: listed.events,
    })
}
