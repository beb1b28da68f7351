//! `audit search` and `audit tail`: the trail, record by record, each with its place in its chain.

mod own;

use penstock_proto::event::EventKind;
use penstock_proto::fault::flows_in_words;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{
    AuditEvent, AuditRecord, Decision, LearnedEvent, LearnedMessages, OperationEvent, SearchAuditRequest,
    Severity, TailAuditRequest, VerdictEvent,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Online, refused};
use crate::args::{self, AuditFilter, DecisionArg, SeverityArg};
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, Page, Report, Tone};
use crate::words;

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

fn severity_word(severity: i32) -> (&'static str, Tone) {
    match Severity::try_from(severity) {
        Ok(Severity::Info) => ("info", Tone::Dim),
        Ok(Severity::Notice) => ("notice", Tone::Plain),
        Ok(Severity::Warning) => ("warning", Tone::Warn),
        Ok(Severity::Alarm) => ("alarm", Tone::Bad),
        Ok(Severity::Unspecified) | Err(_) => ("unknown", Tone::Warn),
    }
}

fn decision_word(decision: i32) -> &'static str {
    match Decision::try_from(decision) {
        Ok(Decision::Allow) => "allow",
        Ok(Decision::Deny) => "deny",
        Ok(Decision::WouldDeny) => "would-deny",
        Ok(Decision::Unspecified) | Err(_) => "unknown",
    }
}

/// Kind, sentence and fields of an event.
fn tell(event: AuditEvent) -> (&'static str, String, serde_json::Value) {
    use serde_json::json;
    let with = |kind, (said, fields)| (kind, said, fields);
    match event.kind {
        None => (
            "unknown",
            "an event of a kind that this version does not know".to_owned(),
            json!({}),
        ),
        Some(Kind::Verdict(e)) => {
            let fields = json!({
                "decision": decision_word(e.decision), "flow_id": e.flow_id, "flow": e.flow, "ingress": e.ingress,
                "egress": e.egress, "source": e.source, "destination": e.destination, "protocol": e.protocol,
                "port": e.port, "count": e.count, "first_ms": e.first_ms, "last_ms": e.last_ms, "reason": e.reason,
            });
            ("verdict", verdict_words(&e), fields)
        }
        Some(Kind::Operation(e)) => {
            let mut fields = json!({
                "subject": e.subject, "operation": e.operation, "reason": e.reason, "flow_id": e.flow_id,
                "flow": e.flow, "protocol": e.protocol, "client": e.client, "client_name": e.client_name,
                "server": e.server, "server_name": e.server_name, "port": e.port, "count": e.count,
                "first_ms": e.first_ms, "last_ms": e.last_ms,
            });
            if let (true, Some(fields)) = (e.decision() != Decision::Unspecified, fields.as_object_mut()) {
                fields.insert("decision".to_owned(), decision_word(e.decision).into());
            }
            ("operation", operation_words(&e), fields)
        }
        Some(Kind::Policy(e)) => {
            let mut said = format!("policy r{} {}", e.revision, e.step);
            if !e.message.is_empty() {
                said.push_str(&format!(": {}", e.message));
            }
            let digest: String = e.plan_digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let fields = json!({
                "step": e.step, "revision": e.revision, "plan_digest": format!("sha256:{digest}"), "code": e.code,
                "message": e.message,
            });
            ("policy", said, fields)
        }
        Some(Kind::Drift(e)) => {
            let by = if e.process.is_empty() {
                String::new()
            } else {
                format!(" by {}", e.process)
            };
            let said = format!("drift {}{by}: {}", e.step, e.message);
            (
                "drift",
                said,
                json!({ "step": e.step, "message": e.message, "process": e.process }),
            )
        }
        Some(Kind::Loss(e)) => {
            let what = if e.cause == "tap-overrun" {
                "packets were not learned from"
            } else {
                "events were shed"
            };
            let said = format!("{} {what} ({})", e.events, e.cause);
            let fields =
                json!({ "events": e.events, "first_ms": e.first_ms, "last_ms": e.last_ms, "cause": e.cause });
            ("loss", said, fields)
        }
        Some(Kind::Agent(e)) => {
            let more = if e.message.is_empty() {
                String::new()
            } else {
                format!(": {}", e.message)
            };
            (
                "agent",
                format!("agent {}{more}", e.step),
                json!({ "step": e.step, "message": e.message }),
            )
        }
        Some(Kind::Operator(e)) => with("operator", own::operator(&e)),
        Some(Kind::Trail(e)) => with("trail", own::trail(&e)),
        Some(Kind::Identity(e)) => with("identity", own::identity(&e)),
        Some(Kind::Learned(e)) => {
            let fields = json!({
                "source": e.source, "destination": e.destination, "protocol": e.protocol, "port": e.port,
                "application": e.application, "connections": e.connections, "first_ms": e.first_ms,
                "last_ms": e.last_ms, "operations": e.modbus.len() + e.published.len() + e.subscribed.len(),
                "further": e.further, "unread": e.unread,
                "in_order": e.in_order, "misfits": e.misfits,
            });
            ("learned", learned_words(&e), fields)
        }
        Some(Kind::Fault(e)) => {
            let said = format!(
                "fault {} {}: {}{}",
                e.code,
                e.step,
                e.message,
                flows_in_words(&e.flows, e.further_flows)
            );
            let fields = json!({
                "step": e.step, "code": e.code, "message": e.message, "first_ms": e.first_ms, "last_ms": e.last_ms,
                "zones": e.zones, "flows": e.flows, "further_flows": e.further_flows,
            });
            ("fault", said, fields)
        }
    }
}

fn verdict_words(event: &VerdictEvent) -> String {
    let port = if event.port == 0 {
        String::new()
    } else {
        format!("/{}", event.port)
    };
    let protocol = match event.protocol {
        1 | 58 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => format!("ip protocol {other}"),
    };
    let times = if event.count > 1 {
        format!(" ×{}", event.count)
    } else {
        String::new()
    };
    let flow = if event.flow.is_empty() {
        String::new()
    } else {
        format!(" [{}]", event.flow)
    };
    let reason = if event.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", event.reason)
    };
    format!(
        "{} {} → {} {protocol}{port}{times}{flow}{reason}",
        decision_word(event.decision),
        event.source,
        event.destination
    )
}

/// "deny write-single-register 40 of unit 1 on plc-7 (10.2.0.9:502) by hmi-1 (10.1.0.5) ×3 [supply/polling]: why".
fn operation_words(event: &OperationEvent) -> String {
    let end = |name: &str, address: String| {
        if name.is_empty() {
            address
        } else {
            format!("{name} ({address})")
        }
    };
    let port = event.port;
    let server = match event.server.contains(':') {
        true => format!("[{}]:{port}", event.server),
        false => format!("{}:{port}", event.server),
    };
    let decision = match event.decision() {
        Decision::Unspecified => String::new(),
        _ => format!("{} ", decision_word(event.decision)),
    };
    let mut said = format!(
        "{decision}{} on {} by {}",
        event.operation,
        end(&event.server_name, server),
        end(&event.client_name, event.client.clone())
    );
    if event.count > 1 {
        said.push_str(&format!(" ×{}", event.count));
    }
    if !event.flow.is_empty() {
        said.push_str(&format!(" [{}]", event.flow));
    }
    if !event.reason.is_empty() {
        said.push_str(&format!(": {}", event.reason));
    }
    said
}

/// What was learned, with its first few operations. Topics are a client's words.
fn learned_words(event: &LearnedEvent) -> String {
    const NAMED: usize = 3;
    let functions = event
        .modbus
        .iter()
        .map(|e| format!("{} of unit {} ×{}", e.function.escape_debug(), e.unit, e.count));
    let verbs = [("publish", &event.published), ("subscribe", &event.subscribed)];
    let messages = verbs.iter().flat_map(|(verb, list)| {
        let one = move |e: &LearnedMessages| format!("{verb} {} ×{}", e.topic.escape_debug(), e.count);
        list.iter().map(one)
    });
    let all: Vec<String> = functions.chain(messages).collect();
    let mut named: Vec<&str> = all.iter().take(NAMED).map(String::as_str).collect();
    let more = format!("{} more", all.len().saturating_sub(NAMED));
    if all.len() > NAMED {
        named.push(&more);
    }
    let said = if named.is_empty() {
        "no operation".to_owned()
    } else {
        named.join(", ")
    };
    format!(
        "learned {} → {} port {}: {said}",
        event.source, event.destination, event.port
    )
}

impl From<AuditRecord> for Record {
    fn from(record: AuditRecord) -> Self {
        let event = record.event.unwrap_or_default();
        let (time_ms, severity, revision) = (event.time_ms, event.severity, event.revision);
        let unrightful = EventKind::of(&event).filter(|kind| !kind.may_be_written_by(&record.source));
        let (mut kind, mut summary, mut fields) = tell(event);
        if let Some(claimed) = unrightful {
            (summary, fields) = own::foreign(&record.source, claimed, &summary, &fields);
            kind = "foreign";
        }
        Self {
            source: record.source,
            epoch: record.epoch,
            sequence: record.sequence,
            index: record.index,
            received_ms: record.received_ms,
            time_ms,
            severity: severity_word(severity).0.to_owned(),
            revision,
            kind: kind.to_owned(),
            summary,
            event: match fields {
                serde_json::Value::Object(fields) => fields,
                _ => serde_json::Map::new(),
            },
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
        let time = page.paint(Tone::Dim, &words::instant(self.time_ms));
        let severity = page.paint(tone, &format!("{:<7}", self.severity));
        let source = page.paint(Tone::Name, &self.source);
        let summary = page.paint(Tone::Plain, &self.summary);
        let place = page.paint(
            Tone::Dim,
            &format!("({}/{}/{})", self.epoch, self.sequence, self.index),
        );
        page.line(format!("{time}  {severity}  {source}  {summary}  {place}"));
    }
}

fn request(filter: &AuditFilter) -> Result<SearchAuditRequest, Failure> {
    let now = words::now_ms();
    let since = filter
        .since
        .as_deref()
        .map(|text| words::parse_time(text, now))
        .transpose()
        .map_err(Failure::usage)?;
    // What is typed is the kind's word.
    let words = filter.kind.iter().filter_map(clap::ValueEnum::to_possible_value);
    let kinds = words.map(|word| word.get_name().to_owned());
    Ok(SearchAuditRequest {
        source: filter.source.clone().unwrap_or_default(),
        from_ms: since.unwrap_or(0),
        until_ms: 0,
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
pub async fn audit(out: &Output, context: Option<&str>, args: &args::Audit) -> Result<Exit, Failure> {
    match args {
        args::Audit::Search {
            filter,
            until,
            limit,
            oldest_first,
        } => {
            let mut request = request(filter)?;
            let now = words::now_ms();
            let until = until
                .as_deref()
                .map(|text| words::parse_time(text, now))
                .transpose();
            request.until_ms = until.map_err(Failure::usage)?.unwrap_or(0);
            request.limit = *limit;
            request.newest_first = !oldest_first;
            let mut online = Online::connect(context).await?;
            let mut stream = online
                .client
                .search_audit(request)
                .await
                .map_err(|s| refused(&s))?
                .into_inner();
            let mut records = Vec::new();
            let waiting = ask::waiting(out, "searching the trail");
            while let Some(record) = stream.message().await.map_err(|status| refused(&status))? {
                // The coordinator keeps to the limit; whoever is in its place need not.
                if records.len() < *limit as usize {
                    records.push(Record::from(record));
                }
            }
            drop(waiting);
            out.show(&Found {
                may_be_more: records.len() == *limit as usize,
                records,
            })?;
            Ok(Exit::Done)
        }
        args::Audit::Tail { filter } => {
            let request = TailAuditRequest {
                filter: Some(request(filter)?),
            };
            let mut online = Online::connect(context).await?;
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
    use super::*;
    use penstock_proto::v1::OperatorEvent;

    #[test]
    fn a_refused_operation_reads_as_what_was_asked_of_whom_by_whom() {
        let event = OperationEvent {
            subject: "operation".into(),
            decision: Decision::Deny as i32,
            operation: "write-single-register 40 of unit 1".into(),
            reason: "no rule permits the function".into(),
            flow: "supply/polling".into(),
            client: "10.1.0.5".into(),
            client_name: "hmi-1".into(),
            server: "10.2.0.9".into(),
            server_name: "plc-7".into(),
            port: 502,
            count: 3,
            ..OperationEvent::default()
        };
        assert_eq!(
            operation_words(&event),
            "deny write-single-register 40 of unit 1 on plc-7 (10.2.0.9:502) by hmi-1 (10.1.0.5) ×3 \
             [supply/polling]: no rule permits the function"
        );
        let ended = OperationEvent {
            subject: "session".into(),
            operation: "connection reset by the server".into(),
            client: "fd00:1::5".into(),
            server: "fd00:2::9".into(),
            port: 1883,
            count: 1,
            ..OperationEvent::default()
        };
        assert_eq!(
            operation_words(&ended),
            "connection reset by the server on [fd00:2::9]:1883 by fd00:1::5"
        );
    }

    #[test]
    fn a_denial_reads_as_a_sentence_with_its_reason() {
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
            ..AuditRecord::default()
        });
        assert_eq!(
            record.summary,
            "deny 10.1.0.9 → 10.20.4.7 tcp/502 ×4: no rule matches"
        );
        assert_eq!(
            (record.kind.as_str(), record.severity.as_str()),
            ("verdict", "warning")
        );
        assert_eq!(record.event.get("decision"), Some(&serde_json::json!("deny")));
    }

    #[test]
    fn what_a_source_may_not_write_is_shown_as_its_claim_and_believed_of_nobody() {
        let approval = AuditEvent {
            kind: Some(Kind::Operator(OperatorEvent {
                operator: "alice".into(),
                role: "approver".into(),
                action: "approve-release".into(),
                target: "r7".into(),
                allowed: true,
                ..OperatorEvent::default()
            })),
            ..AuditEvent::default()
        };
        let read = |source: &str| {
            Record::from(AuditRecord {
                source: source.into(),
                event: Some(approval.clone()),
                ..AuditRecord::default()
            })
        };
        let own = read("coordinator/c1");
        assert_eq!(
            (own.kind.as_str(), own.summary.as_str()),
            ("operator", "alice (approver) approve-release r7")
        );
        let forged = read("gw-a");
        assert_eq!(forged.kind, "foreign");
        assert!(
            forged.summary.starts_with("NOT BELIEVED: gw-a may not write"),
            "{}",
            forged.summary
        );
        assert!(!forged.event.contains_key("operator"));
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
}
