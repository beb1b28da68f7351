//! `explain`: would this connection pass, by which rule of which line, or what came closest and what differs.

use std::net::IpAddr;

use penstock_policy::diagnostics::Code;
use penstock_policy::document::services::{Carrier, SERVICES};
use penstock_policy::explain::{self, Answer, Outcome, Question, Who};
use penstock_policy::ids::AssetId;
use penstock_policy::model::{Plant, ZoneKind};
use penstock_policy::plan::{Plan, Transport};
use penstock_policy::verdict::{Carried, Reason, RuleName};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::loading::{self, LoadedPlant};
use crate::locate::{self, Line};
use crate::output::{Output, Page, Report, Tone};

/// What a code means.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CodeMeaning {
    /// The code.
    pub code: String,
    /// `error` or `warning`.
    pub severity: String,
    /// In one line.
    pub meaning: String,
    /// Why it is so, and what to do about it.
    pub explanation: String,
}

impl Report for CodeMeaning {
    const SCHEMA: &'static str = "penstock.code/1";
    fn page(&self, page: &mut Page) {
        let tone = if self.severity == "error" {
            Tone::Bad
        } else {
            Tone::Warn
        };
        let (code, meaning) = (
            page.paint(tone, &self.code),
            page.paint(Tone::Strong, &self.meaning),
        );
        page.line(format!("{code} ({}): {meaning}", self.severity));
        page.gap();
        page.paragraph(0, Tone::Plain, &self.explanation);
    }
}

/// The answer about one connection.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explanation {
    /// The gateways that the connection meets, in order of their names.
    pub gateways: Vec<GatewayVerdict>,
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
            let (mark, tone) = match verdict.decision.as_str() {
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
            page.paragraph(2, Tone::Plain, &verdict.reason);
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
            if let Some(operations) = &verdict.operations {
                page.line("  limited to these operations, all others are refused inside the protocol:");
                for operation in operations {
                    page.paragraph(4, Tone::Plain, &format!("· {operation}"));
                }
            }
        }
    }
}

/// `penstock explain`.
pub fn explain(out: &Output, args: &args::Explain) -> Result<Exit, Failure> {
    let asks_connection = args.from.is_some() || args.to.is_some() || args.service.is_some();
    if let (Some(code), false) = (Code::parse(&args.subject), asks_connection) {
        out.show(&CodeMeaning {
            code: code.to_string(),
            severity: match code.severity() {
                penstock_policy::diagnostics::Severity::Error => "error",
                penstock_policy::diagnostics::Severity::Warning => "warning",
            }
            .to_owned(),
            meaning: code.meaning().to_owned(),
            explanation: code.explanation().to_owned(),
        })?;
        return Ok(Exit::Done);
    }
    let looks_like_code = args.subject.to_ascii_uppercase().starts_with("PS")
        && args
            .subject
            .get(2..)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit()));
    if looks_like_code && !asks_connection {
        return Err(Failure::usage(format!("there is no code {}", args.subject)));
    }
    let (Some(from), Some(to), Some(service)) = (&args.from, &args.to, &args.service) else {
        return Err(
            Failure::usage("to explain a connection, name --from, --to and --service")
                .help("for example: penstock explain plant/ --from hmi-1 --to plc-7 --service tcp/502"),
        );
    };
    let loaded = loading::load(std::path::Path::new(&args.subject), out)?;
    let explanation = judge(&loaded, from, to, service, args.gateway.as_deref())?;
    out.show(&explanation)?;
    Ok(if explanation.decision == "allow" {
        Exit::Done
    } else {
        Exit::Findings
    })
}

fn judge(
    loaded: &LoadedPlant,
    from: &str,
    to: &str,
    service: &str,
    only: Option<&str>,
) -> Result<Explanation, Failure> {
    let plant = &loaded.plant;
    if let Some(only) = only
        && !plant.gateways.keys().any(|id| id.as_str() == only)
    {
        let known: Vec<_> = plant.gateways.keys().map(ToString::to_string).collect();
        return Err(Failure::usage(format!("the document knows no gateway `{only}`"))
            .help(format!("it knows: {}", known.join(", "))));
    }
    let question = Question {
        source: who(plant, from)?,
        destination: who(plant, to)?,
        transport: carried(plant, service)?,
    };
    let mut plans = penstock_policy::compile::compile_all(plant).map_err(|error| {
        Failure::new(
            Exit::BadDocument,
            "not-compiled",
            "no plans can be made of the document",
        )
        .caused_by(&error)
    })?;
    plans.retain(|gateway, _| only.is_none_or(|only| gateway.as_str() == only));
    let explained = explain::explain(plant, &plans, &question).map_err(|error| {
        Failure::usage(format!("whether {from} can talk to {to} cannot be told")).because(error.to_string())
    })?;
    let gateways = explained.answers.iter().map(|answer| {
        let rules = plans.get(&answer.gateway);
        told(loaded, answer, rules)
    });
    let gateways: Vec<GatewayVerdict> = gateways.collect();
    let end = |name: &str| End {
        name: name.to_owned(),
        zone: zone_of(plant, name),
    };
    Ok(Explanation {
        decision: match explained.outcome() {
            Outcome::Passes => "allow",
            Outcome::PassesObserved => "would-deny",
            Outcome::Dropped => "deny",
            Outcome::NoGateway => "not-guarded",
        }
        .to_owned(),
        source: end(from),
        destination: end(to),
        service: question.transport.to_string(),
        sentence: sentence(&gateways),
        gateways,
    })
}

/// What decided: the first gateway that drops it, else the first that would, else the first.
fn sentence(gateways: &[GatewayVerdict]) -> String {
    let deciding = ["deny", "would-deny", "allow"]
        .into_iter()
        .find_map(|decision| gateways.iter().find(|verdict| verdict.decision == decision));
    let Some(verdict) = deciding else {
        return "no gateway stands between the two".to_owned();
    };
    let place = |rule: &RuleLine| {
        let line = rule
            .line
            .as_ref()
            .map_or_else(String::new, |line| format!(" ({line})"));
        format!("flow {}{line}", rule.flow)
    };
    match &verdict.rule {
        Some(rule) if rule.matched => format!("{} permits it at {}", place(rule), verdict.gateway),
        Some(rule) => format!(
            "no conduit permits it at {}; closest is {}, but {}",
            verdict.gateway,
            place(rule),
            verdict.differs.join(", and ")
        ),
        None => format!("{} at {}", verdict.reason, verdict.gateway),
    }
}

/// An asset or address as it was written; for a name that is neither, those that look like it.
fn who(plant: &Plant, name: &str) -> Result<Who, Failure> {
    let known = |who: &Who| match who {
        Who::Asset(id) => plant.assets.contains_key(id),
        Who::Address(_) => true,
    };
    if let Some(who) = name.parse().ok().filter(known) {
        return Ok(who);
    }
    let near: Vec<String> = plant
        .assets
        .keys()
        .map(ToString::to_string)
        .filter(|known| {
            known.contains(name) || name.contains(known.as_str()) || distance_is_small(known, name)
        })
        .collect();
    let failure = Failure::usage(format!(
        "`{name}` is neither an asset of the plant nor an address"
    ));
    Err(if near.is_empty() {
        failure
    } else {
        failure.help(format!("did you mean {}?", near.join(" or ")))
    })
}

/// One character was left out, added or changed.
fn distance_is_small(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let same_start = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let same_end = a
        .iter()
        .rev()
        .zip(b.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    a.len().abs_diff(b.len()) <= 1 && same_start + same_end + 1 >= a.len().max(b.len())
}

/// The transport that a service is carried by.
fn carried(plant: &Plant, service: &str) -> Result<Carried, Failure> {
    if let Ok(carried) = service.parse() {
        return Ok(carried);
    }
    let of = |transport: &Transport| match transport {
        Transport::Tcp(ports) => ports.first().map(|range| Carried::Tcp(range.first)),
        Transport::Udp(ports) => ports.first().map(|range| Carried::Udp(range.first)),
        Transport::IcmpEcho => Some(Carried::IcmpEcho),
    };
    let flows = plant.conduits.values().flat_map(|conduit| conduit.flows.values());
    let by_document = flows
        .filter(|flow| flow.service.name == service)
        .find_map(|flow| of(&flow.service.transport));
    let by_name = || {
        let known = SERVICES.iter().find(|known| known.name == service)?;
        Some(match known.carrier {
            Carrier::Tcp => Carried::Tcp(known.port),
            Carrier::Udp => Carried::Udp(known.port),
            Carrier::IcmpEcho => Carried::IcmpEcho,
        })
    };
    by_document.or_else(by_name).ok_or_else(|| {
        Failure::usage(format!("`{service}` is no service"))
            .help("write tcp/502, udp/47808, icmp-echo, or a service by name such as modbus-tcp or mqtt")
    })
}

fn zone_of(plant: &Plant, name: &str) -> Option<String> {
    if let Some(asset) = AssetId::new(name).ok().and_then(|id| plant.assets.get(&id)) {
        return Some(asset.zone.to_string());
    }
    let address: IpAddr = name.parse().ok()?;
    if let Some(asset) = plant
        .assets
        .values()
        .find(|asset| asset.addresses.contains(&address))
    {
        return Some(asset.zone.to_string());
    }
    plant
        .zones
        .iter()
        .filter_map(|(id, zone)| {
            let length = zone
                .networks
                .iter()
                .filter(|n| n.contains(&address))
                .map(ipnet::IpNet::prefix_len)
                .max()?;
            // An external zone often holds every address; whoever is named closer wins.
            Some((zone.kind != ZoneKind::External, length, id))
        })
        .max()
        .map(|(_, _, id)| id.to_string())
}

fn told(loaded: &LoadedPlant, answer: &Answer, plan: Option<&Plan>) -> GatewayVerdict {
    let line = |rule: &RuleName, matched: bool| RuleLine {
        flow: rule.to_string(),
        flow_id: rule.id.0,
        line: locate::flow(&loaded.documents, rule.conduit.as_str(), rule.flow.as_str()),
        matched,
    };
    let verdict = &answer.verdict;
    let (rule, differs) = match &verdict.reason {
        Reason::Rule(rule) => (Some(line(rule, true)), Vec::new()),
        Reason::NoRule {
            nearest: Some(nearest),
        } => (Some(line(&nearest.rule, false)), nearest.differs.clone()),
        _ => (None, Vec::new()),
    };
    let reason = match &verdict.reason {
        Reason::Rule(_) => "a conduit permits it".to_owned(),
        Reason::NoRule { nearest: Some(_) } => "no conduit permits it; the closest one differs:".to_owned(),
        other => other.to_string(),
    };
    let (side, connection) = (|name: &str| side_words(plan, name), &answer.connection);
    GatewayVerdict {
        gateway: answer.gateway.to_string(),
        source: connection.source.to_string(),
        destination: connection.destination.to_string(),
        ingress: side(&connection.ingress),
        egress: side(&connection.egress),
        decision: verdict.decision.code().to_owned(),
        reason,
        rule,
        differs,
        operations: answer
            .operations
            .as_ref()
            .map(|listed| listed.iter().map(|(_, phrase)| phrase.clone()).collect()),
    }
}

/// `eth1`, as the plan names it.
fn side_words(plan: Option<&Plan>, name: &str) -> String {
    let zone = plan
        .and_then(|plan| plan.interfaces.iter().find(|side| side.name == name))
        .map(|side| &side.zone);
    zone.map_or_else(|| name.to_owned(), |zone| format!("{name}: {zone}"))
}
