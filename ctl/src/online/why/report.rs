//! The answer of `why`, for programs and as people read it.

use schemars::JsonSchema;
use serde::Serialize;

use super::flow::SmallestFlow;
use super::gather::{Group, RefusedEnd};
use crate::offline::explain::Permitted;
use crate::output::{Page, Report, Tone};
use crate::{times, words};

/// What was refused to or by one subject.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Why {
    /// As it was asked for.
    pub subject: String,
    /// Since when was looked, in the sites' time.
    pub since: String,
    /// The same, milliseconds since 1970.
    pub since_ms: u64,
    /// Each thing that was refused, worst first.
    pub refused: Vec<Refused>,
    /// Further things that were refused and are not listed (`--limit`).
    pub further: usize,
    /// The trail has more of it than was looked at.
    pub cut: bool,
    /// The release by which "now" is judged; 0: there is none.
    pub current_revision: u64,
    /// It is the one that was verified last on this machine; else it and its documents are the coordinator's word.
    pub current_verified: bool,
}

/// One end.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Party {
    /// Its address.
    pub address: String,
    /// The asset that had it by the release in force then.
    pub asset: Option<String>,
    /// The zone that it lay in.
    pub zone: Option<String>,
}

/// One thing that was refused.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Refused {
    /// `deny`, or `would-deny`: it passed, since both of its zones only observe.
    pub decision: String,
    /// Who wanted it.
    pub source: Party,
    /// Of whom.
    pub destination: Party,
    /// `tcp/502`, `icmp-echo`; of what is not IP, `not IP`.
    pub service: String,
    /// Of what is not IP: the gateway's interfaces by which it came and would have left; empty where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<[String; 2]>,
    /// The operation, where the connection itself passed.
    pub operation: Option<String>,
    /// The least and the greatest value that refused writes carried.
    pub values: Option<[u32; 2]>,
    /// How often.
    pub count: u64,
    /// The first and the last time, in the time of the gateway's site.
    pub first: String,
    /// The last time.
    pub last: String,
    /// The same, milliseconds since 1970.
    pub last_ms: u64,
    /// The gateway that refused it last.
    pub gateway: String,
    /// The release that was in force there then; 0: none.
    pub revision: u64,
    /// Why, in the gateway's words.
    pub reason: String,
    /// Who else might do it by that release.
    pub permitted_to: Vec<Permitted>,
    /// The current release permits it.
    pub permitted_now: bool,
    /// Whom to ask; absent where nobody needs to be.
    pub ask: Option<Ask>,
    /// What would permit it.
    pub flow: Option<SmallestFlow>,
    /// Why no flow can be written for it.
    pub no_flow: Option<String>,
    #[serde(skip)]
    ago: String,
}

/// Whom to ask.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ask {
    /// Who answers for the zones and the conduit.
    pub accountable: Vec<String>,
    /// The plant's owner, with the contact.
    pub owner: Option<String>,
    /// Who may sign the change.
    pub approvers: Vec<String>,
    /// How many of them have to.
    pub threshold: u8,
}

impl From<RefusedEnd> for Party {
    fn from(end: RefusedEnd) -> Self {
        Self {
            address: end.address,
            asset: end.asset,
            zone: end.zone,
        }
    }
}

/// A group with what was found out about it.
pub(super) fn refused(
    group: Group,
    permitted_to: Vec<Permitted>,
    permitted_now: bool,
    (flow, no_flow): (Option<SmallestFlow>, Option<String>),
    ask: Option<Ask>,
    now_ms: u64,
) -> Refused {
    let zone = times::zone_at(&group.time_zone);
    let service = match (group.is_beside_ip(), group.carried()) {
        (true, _) => "not IP".to_owned(),
        (false, Some(carried)) => carried.to_string(),
        (false, None) => format!("ip/{}", group.protocol),
    };
    Refused {
        decision: if group.observed { "would-deny" } else { "deny" }.to_owned(),
        service,
        interfaces: group.is_beside_ip().then_some(group.interfaces),
        values: group.values.map(|values| [values.first, values.last]),
        first: times::shown(group.first_ms, &zone),
        last: times::shown(group.last_ms, &zone),
        ago: words::relative(group.last_ms, now_ms),
        last_ms: group.last_ms,
        source: group.from.into(),
        destination: group.to.into(),
        operation: group.operation,
        count: group.count,
        gateway: group.gateway,
        revision: group.revision,
        reason: group.reason,
        permitted_to,
        permitted_now,
        ask,
        flow,
        no_flow,
    }
}

/// "plc-7 (10.2.0.9, zone control)".
fn party(party: &Party) -> String {
    let zone = party
        .zone
        .as_ref()
        .map_or_else(|| "in no zone".to_owned(), |zone| format!("zone {zone}"));
    match &party.asset {
        Some(asset) => format!("{asset} ({}, {zone})", party.address),
        None => format!("{} ({zone})", party.address),
    }
}

/// An interface of the gateway, where it is known.
fn interface(name: &str) -> String {
    match name {
        "" => "an interface that is not known".to_owned(),
        name => format!("interface {name}"),
    }
}

impl Report for Why {
    const SCHEMA: &'static str = "penstock.why/1";
    fn page(&self, page: &mut Page) {
        let subject = page.paint(Tone::Strong, &self.subject);
        if self.refused.is_empty() && self.cut {
            let mark = page.paint(Tone::Warn, "▲");
            page.line(format!(
                "{mark} not known: the trail has more since {} that names {subject} than was looked at; in the newest of it nothing \
                 was refused to or by it. Name a shorter time (--since 1h)",
                self.since
            ));
            return;
        }
        if self.refused.is_empty() {
            let mark = page.paint(Tone::Good, "✓");
            page.line(format!(
                "{mark} nothing was refused to or by {subject} since {}",
                self.since
            ));
            page.line("  what did not reach a gateway, or was not reported by it yet, is not in the trail: penstock health");
            return;
        }
        let found = words::count(self.refused.len() + self.further, "refusal");
        page.line(format!("{subject}: {found} since {}, worst first", self.since));
        for refused in &self.refused {
            page.gap();
            refused.page(page, (self.current_revision, self.current_verified));
        }
        if self.further > 0 {
            page.gap();
            let more = format!(
                "{} not shown (--limit)",
                words::count(self.further, "more refusal")
            );
            let more = page.paint(Tone::Dim, &more);
            page.line(more);
        }
        if self.cut {
            let cut = page.paint(
                Tone::Warn,
                "the trail has more than was looked at: name a shorter time (--since 1h)",
            );
            page.line(cut);
        }
    }
}

impl Refused {
    /// As people read it, `by` the current release, and whether that was verified here.
    pub(in crate::online) fn page(&self, page: &mut Page, (revision, is_verified): (u64, bool)) {
        let (tone, head) = match self.decision.as_str() {
            "deny" => (Tone::Bad, "✗ refused"),
            _ => (Tone::Warn, "◉ passed, but would be refused if its zones enforced"),
        };
        let head = page.paint(tone, head);
        let release = match self.revision {
            0 => "before the first release".to_owned(),
            revision => format!("by release r{revision}"),
        };
        let times = if self.count == 1 {
            "once".to_owned()
        } else {
            format!("{} times", self.count)
        };
        let when = page.paint(
            Tone::Plain,
            &format!("{times}, last at {} ({})", self.last, self.ago),
        );
        let place = page.paint(Tone::Dim, &format!("at {} {release}", self.gateway));
        page.line(format!("{head} {when} {place}"));
        let asked = match &self.interfaces {
            Some([from, to]) => format!("{} → {}", interface(from), interface(to)),
            None => format!(
                "{} → {} {}",
                party(&self.source),
                party(&self.destination),
                self.service
            ),
        };
        page.paragraph(2, Tone::Strong, &asked);
        if let Some(operation) = &self.operation {
            let values = match self.values {
                Some([first, last]) if first == last => format!(" with value {first}"),
                Some([first, last]) => format!(" with values {first}\u{2013}{last}"),
                None => String::new(),
            };
            page.paragraph(2, Tone::Strong, &format!("{operation}{values}"));
        }
        if !self.reason.is_empty() {
            page.paragraph(2, Tone::Plain, &self.reason);
        }
        if !self.permitted_to.is_empty() {
            let others = crate::offline::explain::others_in_words(&self.permitted_to);
            page.paragraph(2, Tone::Plain, &format!("permitted to others: {others}"));
        }
        if self.permitted_now {
            let now = format!("the current release r{revision} permits it");
            match is_verified {
                true => page.paragraph(2, Tone::Good, &now),
                false => {
                    let now = format!("{now}: NOT VERIFIED on this machine, it is the coordinator's word");
                    page.paragraph(2, Tone::Warn, &now);
                }
            }
        }
        if let Some(ask) = &self.ask {
            ask.page(page);
        }
        if let Some(why) = &self.no_flow {
            page.paragraph(2, Tone::Plain, why);
        }
        if let Some(flow) = &self.flow {
            let place = match &flow.conduit {
                Some(conduit) => {
                    format!("smallest flow that would permit it, to be added to conduit {conduit}:")
                }
                None => "smallest flow that would permit it, in a conduit of its own:".to_owned(),
            };
            page.paragraph(2, Tone::Plain, &place);
            for line in flow.text.lines() {
                let line = page.paint(Tone::Name, line);
                page.line(format!("    {line}"));
            }
            if let Some(remark) = &flow.remark {
                page.paragraph(4, Tone::Warn, remark);
            }
        }
    }
}

impl Ask {
    fn page(&self, page: &mut Page) {
        let mut whom = self.accountable.clone();
        whom.extend(self.owner.clone());
        if !whom.is_empty() {
            page.paragraph(2, Tone::Plain, &format!("ask {}", whom.join("; ")));
        }
        let signed = format!(
            "a change takes {} of: {}",
            words::count(self.threshold.into(), "signature"),
            self.approvers.join(", ")
        );
        page.paragraph(2, Tone::Dim, &signed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Style;

    #[test]
    fn an_answer_reads_from_what_was_refused_to_what_would_permit_it() {
        let party = |asset: Option<&str>, address: &str, zone: &str| Party {
            address: address.to_owned(),
            asset: asset.map(str::to_owned),
            zone: Some(zone.to_owned()),
        };
        let why = Why {
            subject: "plc-7".to_owned(),
            since: "2026-11-27T16:00:00+01:00".to_owned(),
            since_ms: 0,
            refused: vec![Refused {
                decision: "deny".to_owned(),
                source: party(None, "10.1.0.9", "office"),
                destination: party(Some("plc-7"), "10.2.0.9", "control"),
                service: "tcp/502".to_owned(),
                interfaces: None,
                operation: Some("write-single-register 40 of unit 1".to_owned()),
                values: Some([5, 7]),
                count: 4,
                first: String::new(),
                last: "2026-11-28T15:58:00+01:00".to_owned(),
                last_ms: 0,
                gateway: "gw-works".to_owned(),
                revision: 3,
                reason: "no rule permits the function".to_owned(),
                permitted_to: vec![Permitted {
                    source: "hmi-1".to_owned(),
                    flow: "supply/polling".to_owned(),
                }],
                permitted_now: false,
                ask: Some(Ask {
                    accountable: vec!["Pump crew (zone control)".to_owned()],
                    owner: Some("Riverside Water, ot@riverside.example".to_owned()),
                    approvers: vec!["a.silva".to_owned(), "b.jones (safety)".to_owned()],
                    threshold: 2,
                }),
                flow: Some(SmallestFlow {
                    text: "conduits:\n  supply:\n    flows:\n".to_owned(),
                    conduit: Some("supply".to_owned()),
                    remark: None,
                }),
                no_flow: None,
                ago: "2 min ago".to_owned(),
            }],
            further: 1,
            cut: false,
            current_revision: 3,
            current_verified: true,
        };
        let mut page = Page::new(Style {
            color: false,
            width: 100,
            wrap: true,
        });
        why.page(&mut page);
        assert_eq!(
            page.finish(),
            "plc-7: 2 refusals since 2026-11-27T16:00:00+01:00, worst first\n\
             \n\
             ✗ refused 4 times, last at 2026-11-28T15:58:00+01:00 (2 min ago) at gw-works by release r3\n\
             \x20 10.1.0.9 (zone office) → plc-7 (10.2.0.9, zone control) tcp/502\n\
             \x20 write-single-register 40 of unit 1 with values 5\u{2013}7\n\
             \x20 no rule permits the function\n\
             \x20 permitted to others: hmi-1 (supply/polling)\n\
             \x20 ask Pump crew (zone control); Riverside Water, ot@riverside.example\n\
             \x20 a change takes 2 signatures of: a.silva, b.jones (safety)\n\
             \x20 smallest flow that would permit it, to be added to conduit supply:\n\
             \x20   conduits:\n\
             \x20     supply:\n\
             \x20       flows:\n\
             \n\
             1 more refusal not shown (--limit)\n"
        );
    }
}
