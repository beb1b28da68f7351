//! The answer about a connection, for programs and as people read it.

use schemars::JsonSchema;
use serde::Serialize;

use super::inside::OperationVerdict;
use crate::locate::Line;
use crate::output::{Page, Report, Tone};

/// The answer about one connection.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explanation {
    /// The gateways that the connection meets, in order of their names.
    pub gateways: Vec<GatewayVerdict>,
    /// What gateways carry from the one to the other themselves, with no connection between the two.
    pub bridges: Vec<BridgeLine>,
    /// `allow`, `deny`, `would-deny` or `not-guarded`: all gateways together.
    pub decision: String,
    /// Who opens it.
    pub source: End,
    /// To whom.
    pub destination: End,
    /// `tcp/502`, `icmp-echo`.
    pub service: String,
    /// The answer in one sentence, for people; its words may change.
    pub sentence: String,
}

/// One end of the connection.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct End {
    /// As it was asked for.
    pub name: String,
    /// The zone whose networks hold the address, if any does.
    pub zone: Option<String>,
}

/// What one gateway says.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GatewayVerdict {
    /// The gateway.
    pub gateway: String,
    /// The address that opens it.
    pub source: String,
    /// The address that is reached.
    pub destination: String,
    /// The side on which the connection comes in: `interface: zone`.
    pub ingress: String,
    /// The side by which it leaves.
    pub egress: String,
    /// `allow`, `deny`, `would-deny` or `not-guarded`.
    pub decision: String,
    /// Why, in a sentence.
    pub reason: String,
    /// The rule that decided, or that came closest.
    pub rule: Option<RuleLine>,
    /// What would have to differ for the closest rule to match.
    pub differs: Vec<String>,
    /// The operations that the rule is limited to; absent if it is not limited.
    pub operations: Option<Vec<String>>,
    /// That the client's TLS ends at this gateway and the last metre to the server is in the plain; absent where it is not so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_metre: Option<String>,
    /// What the two ends prove of who they are, as this gateway checks it; absent where no flow permits the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proven: Option<String>,
    /// What becomes of the operation that was asked about; absent where none was, or where nothing passes.
    pub operation: Option<OperationVerdict>,
    /// Who else may do what was asked about here and is refused to this source.
    pub others: Vec<Permitted>,
    /// Which answers of a Modbus server belong to a request on this connection, where its flows say something about it.
    pub answers: Option<String>,
}

/// Somebody who may do what was asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Permitted {
    /// The asset or zone, as the flow names it.
    pub source: String,
    /// The flow that permits it: `conduit/flow`.
    pub flow: String,
}

/// A one-way bridge between the two ends.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BridgeLine {
    /// The gateway that is the client of both brokers.
    pub gateway: String,
    /// The flow that declares it.
    pub rule: RuleLine,
    /// How the gateway reaches the broker that it takes from, and the one that it gives to.
    pub brokers: [String; 2],
    /// The publications that may cross.
    pub publications: Vec<String>,
    /// What becomes of the operation that was asked about, if one was.
    pub operation: Option<OperationVerdict>,
}

/// A rule and where it stands.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RuleLine {
    /// `conduit/flow`.
    pub flow: String,
    /// Its number in the kernel and in events.
    pub flow_id: u32,
    /// Where the document says it.
    pub line: Option<Line>,
    /// Whether it is the one that decided.
    pub matched: bool,
}

/// Most that are named on a page; JSON has all.
const OTHERS_SHOWN_MAX: usize = 6;

/// "hmi-1 (supply/polling), historian (supply/polling)".
pub(crate) fn others(all: &[Permitted]) -> String {
    let named = all.iter().take(OTHERS_SHOWN_MAX);
    let mut named: Vec<String> = named
        .map(|one| format!("{} ({})", one.source, one.flow))
        .collect();
    if all.len() > OTHERS_SHOWN_MAX {
        named.push(format!("{} more", all.len() - OTHERS_SHOWN_MAX));
    }
    named.join(", ")
}

impl Report for Explanation {
    const SCHEMA: &'static str = "penstock.explain/1";
    fn page(&self, page: &mut Page) {
        let end = |end: &End| {
            let zone = end
                .zone
                .as_ref()
                .map_or_else(|| "in no zone".to_owned(), |zone| format!("zone {zone}"));
            format!("{} ({zone})", end.name)
        };
        let asked = format!(
            "{} → {} {}",
            end(&self.source),
            end(&self.destination),
            self.service
        );
        let asked = page.paint(Tone::Strong, &asked);
        page.line(asked);
        page.gap();
        if self.gateways.is_empty() {
            let mark = page.paint(Tone::Warn, "? not guarded");
            page.line(format!(
                "{mark}: no gateway has these two addresses on two different sides"
            ));
        }
        for verdict in &self.gateways {
            let refused = verdict
                .operation
                .as_ref()
                .filter(|asked| asked.decision != "allow");
            let (mark, tone) = match verdict.decision.as_str() {
                "allow" if refused.is_some() => ("✗ refused inside the connection", Tone::Bad),
                "allow" => ("✓ allowed", Tone::Good),
                "deny" => ("✗ denied", Tone::Bad),
                "would-deny" => (
                    "◉ passes, but is recorded as what enforcement would deny",
                    Tone::Warn,
                ),
                _ => ("? not guarded", Tone::Warn),
            };
            let mark = page.paint(tone, mark);
            let at = page.paint(
                Tone::Dim,
                &format!(
                    "at {}, {} ({}) → {} ({})",
                    verdict.gateway, verdict.source, verdict.ingress, verdict.destination, verdict.egress
                ),
            );
            page.line(format!("{mark} {at}"));
            // What was asked about comes first: the connection is only the way there.
            if let Some(operation) = &verdict.operation {
                operation.page(page);
                let passes = match refused {
                    Some(_) => "the connection itself passes:",
                    None => "the connection passes:",
                };
                page.paragraph(2, Tone::Plain, &format!("{passes} {}", verdict.reason));
            } else {
                page.paragraph(2, Tone::Plain, &verdict.reason);
            }
            if let Some(rule) = &verdict.rule {
                let what = if rule.matched { "by" } else { "closest:" };
                let place = rule
                    .line
                    .as_ref()
                    .map_or_else(String::new, |line| format!("  {line}"));
                let name = page.paint(Tone::Name, &rule.flow);
                let place = page.paint(Tone::Dim, &format!("flow {:07x}{place}", rule.flow_id));
                page.line(format!("  {what} {name}  {place}"));
            }
            for difference in &verdict.differs {
                page.paragraph(4, Tone::Warn, &format!("· {difference}"));
            }
            if !verdict.others.is_empty() {
                page.paragraph(
                    2,
                    Tone::Plain,
                    &format!("permitted to others: {}", others(&verdict.others)),
                );
            }
            if let Some(answers) = &verdict.answers {
                page.paragraph(2, Tone::Plain, answers);
            }
            if let Some(last_metre) = &verdict.last_metre {
                page.paragraph(2, Tone::Warn, last_metre);
            }
            if let Some(proven) = &verdict.proven {
                page.paragraph(2, Tone::Plain, proven);
            }
            if let Some(operations) = &verdict.operations {
                page.line("  limited to these operations, all others are refused inside the protocol:");
                for operation in operations {
                    page.paragraph(4, Tone::Plain, &format!("· {operation}"));
                }
            }
        }
        for bridge in &self.bridges {
            let name = page.paint(Tone::Name, &bridge.rule.flow);
            let place = bridge
                .rule
                .line
                .as_ref()
                .map_or_else(String::new, |line| format!("  {line}"));
            let place = page.paint(Tone::Dim, &format!("flow {:07x}{place}", bridge.rule.flow_id));
            page.line(format!(
                "⇉ {} itself carries messages one way by the bridge {name}  {place}",
                bridge.gateway
            ));
            let [from, to] = &bridge.brokers;
            page.paragraph(4, Tone::Dim, &format!("from {from} to {to}"));
            if let Some(operation) = &bridge.operation {
                operation.page(page);
            }
            for publication in &bridge.publications {
                page.paragraph(4, Tone::Plain, &format!("· {publication}"));
            }
        }
    }
}
