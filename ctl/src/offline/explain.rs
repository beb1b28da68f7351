//! `explain`: would this connection pass, by which rule of which line, or what came closest and what differs; and if it
//! passes, may it do this inside its protocol.

mod code;
mod field;
mod inside;
mod others;
mod report;

use std::net::IpAddr;

use penstock_inspect::query::Query;
use penstock_policy::document::services::services;
use penstock_policy::explain::{
    self, Carries, GatewayAnswer, Outcome, QueryEnd, Question, last_metre, proven,
};
use penstock_policy::ids::{AssetId, ZoneId};
use penstock_policy::model::{FlowEnd, Plant, ZoneKind};
use penstock_policy::plan::{Plan, opened_by};
use penstock_policy::protocol::Carrier;
use penstock_policy::protocol::Operations;
use penstock_policy::terms::Transport;
use penstock_policy::verdict::{Carried, Decision, Reason, RuleName};

pub use self::code::CodeMeaning;
pub use self::field::{FieldMeaning, FieldPlace};
pub use self::inside::OperationVerdict;
pub(crate) use self::report::others as others_in_words;
pub use self::report::{BridgeLine, End, Explanation, GatewayVerdict, Permitted, RuleLine};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::loading::{self, LoadedPlant};
use crate::output::Output;
use crate::{args, locate, times};

/// `penstock explain`.
pub(crate) fn explain(out: &Output, args: &args::Explain) -> Result<Exit, Failure> {
    let asks_connection =
        args.from.is_some() || args.to.is_some() || args.service.is_some() || args.operation.is_some();
    if !asks_connection && let Some(meaning) = CodeMeaning::of(&args.subject)? {
        out.show(&meaning)?;
        return Ok(Exit::Done);
    }
    if !asks_connection
        && !std::path::Path::new(&args.subject).exists()
        && let Some(meaning) = FieldMeaning::of(&args.subject)
    {
        out.show(&meaning)?;
        return Ok(Exit::Done);
    }
    let what_for = args.service.is_some() || args.operation.is_some();
    let (Some(from), Some(to), true) = (&args.from, &args.to, what_for) else {
        return Err(
            Failure::usage("to explain a connection, name --from, --to and --service")
                .help("for example: penstock explain plant/ --from hmi-1 --to plc-7 --service tcp/502"),
        );
    };
    let asked = args.operation.as_deref().map(read_operation).transpose()?;
    let loaded = loading::load(std::path::Path::new(&args.subject), out)?;
    let (from, to) = (named(&loaded.plant, from), named(&loaded.plant, to));
    let transport = match (&args.service, &asked) {
        (Some(service), _) => carried(&loaded.plant, service)?,
        (None, Some(asked)) => carried(&loaded.plant, &service_of(&loaded.plant, from, to, asked))?,
        (None, None) => return Err(Failure::usage("name --service, or --operation")),
    };
    let now_ms = crate::words::now_ms();
    let at_ms = match &args.at {
        Some(text) => {
            times::read(text, times::SpanEnd::Since, now_ms, &times::zone()).map_err(Failure::usage)?
        }
        None => now_ms,
    };
    let explanation = judge(
        &loaded,
        at_ms,
        (from, to, transport),
        asked.as_ref(),
        args.gateway.as_deref(),
    )?;
    out.show(&explanation)?;
    if let Some(doubt) = asked.as_ref().and_then(Query::doubt) {
        out.remark(&format!("▲ {doubt}"));
    }
    Ok(if explanation.decision == "allow" {
        Exit::Done
    } else {
        Exit::Findings
    })
}

/// Reads the operation that is asked about.
fn read_operation(text: &str) -> Result<Query, Failure> {
    Query::read(text).map_err(|error| {
        let failure = Failure::usage(error.what).help(error.help);
        match error.because {
            Some(why) => failure.because(why),
            None => failure,
        }
    })
}

/// The service by which the document lets the two speak the operation's protocol, else that protocol's own.
fn service_of(plant: &Plant, from: &str, to: &str, asked: &Query) -> String {
    let names = |ends: &[FlowEnd], name: &str| ends.iter().any(|end| end.name() == name);
    let flows = plant.conduits.values().flat_map(|conduit| conduit.flows.values());
    let declared = flows
        .filter(|flow| flow.service.protocol == Some(asked.operation().protocol))
        .find(|flow| names(&flow.sources, from) && names(&flow.destinations, to));
    declared.map_or_else(
        || asked.operation().protocol.word.to_owned(),
        |flow| flow.service.name.clone(),
    )
}

/// `now_ms`: when the connection is opened, which decides where a grant of remote access opens the conduit.
fn judge(
    loaded: &LoadedPlant,
    now_ms: u64,
    (from, to, transport): (&str, &str, Carried),
    asked: Option<&Query>,
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
        transport,
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
    for plan in plans.values_mut() {
        plan.open = plan.open_at(Some(now_ms));
    }
    let explained = explain::explain(plant, &plans, &question).map_err(|error| {
        Failure::usage(format!("whether {from} can talk to {to} cannot be decided"))
            .because(error.to_string())
    })?;
    let gateways = explained.answers.iter().map(|answer| {
        let rules = plans.get(&answer.gateway);
        told(loaded, answer, rules, asked.map(|asked| (asked, to)))
    });
    let gateways: Vec<GatewayVerdict> = gateways.collect();
    let bridges: Vec<BridgeLine> = explained
        .bridges
        .iter()
        .map(|carries| bridge_line(loaded, carries, asked.map(|asked| (asked, to))))
        .collect();
    let allows = |operation: &Option<OperationVerdict>| {
        operation
            .as_ref()
            .is_some_and(|operation| operation.decision == "allow")
    };
    let bridged = bridges.iter().any(|bridge| allows(&bridge.operation));
    let refused = gateways
        .iter()
        .any(|gateway| gateway.operation.is_some() && !allows(&gateway.operation));
    let end = |name: &str| End {
        name: name.to_owned(),
        zone: zone_of(plant, name),
    };
    Ok(Explanation {
        decision: match explained.outcome() {
            _ if bridged => "allow",
            Outcome::Passes | Outcome::PassesObserved if refused => "deny",
            Outcome::Passes => "allow",
            Outcome::PassesObserved => "would-deny",
            Outcome::Dropped => "deny",
            Outcome::NoGateway => "not-guarded",
        }
        .to_owned(),
        source: end(from),
        destination: end(to),
        service: question.transport.to_string(),
        sentence: sentence(&gateways, &bridges),
        gateways,
        bridges,
    })
}

/// What decided: the first gateway that drops it, else the first that would, else the first.
fn sentence(gateways: &[GatewayVerdict], bridges: &[BridgeLine]) -> String {
    let carried = bridges
        .iter()
        .filter_map(|bridge| Some((&bridge.gateway, bridge.operation.as_ref()?)));
    let mut carried = carried.filter(|(_, operation)| operation.decision == "allow");
    let mut inside: Vec<_> = gateways
        .iter()
        .filter_map(|verdict| Some((&verdict.gateway, verdict.operation.as_ref()?)))
        .collect();
    inside.sort_by_key(|(_, operation)| operation.decision == "allow");
    if let Some((gateway, operation)) = carried.next().or_else(|| inside.first().copied()) {
        let entry = match (&operation.entry, operation.decision == "allow") {
            (Some(entry), true) => format!(" by {entry}"),
            (Some(entry), false) => format!("; closest is {entry}"),
            (None, _) => String::new(),
        };
        let flow = operation
            .flow
            .as_ref()
            .map_or_else(String::new, |flow| format!(" (flow {flow})"));
        let assumed = operation
            .assumption
            .as_ref()
            .map_or_else(String::new, |assumption| format!(" ({assumption})"));
        return format!("{}{entry}{flow}, at {gateway}{assumed}", operation.reason);
    }
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

/// The asset that the plant calls so.
fn tagged<'a>(plant: &'a Plant, tag: &str) -> Option<&'a AssetId> {
    let mut assets = plant.assets.iter();
    assets
        .find(|(_, asset)| asset.tag.as_deref() == Some(tag))
        .map(|(id, _)| id)
}

/// What was asked by, as the document names it: an asset that the plant calls so, by its name.
fn named<'a>(plant: &'a Plant, asked: &'a str) -> &'a str {
    // A tag that reads as an address is none: whoever asks by an address means that.
    if asked.parse::<std::net::IpAddr>().is_ok() {
        return asked;
    }
    tagged(plant, asked).map_or(asked, AssetId::as_str)
}

/// An asset or address as it was written; for a name that is neither, those that look like it.
pub(crate) fn who(plant: &Plant, name: &str) -> Result<QueryEnd, Failure> {
    let known = |who: &QueryEnd| match who {
        QueryEnd::Asset(id) => plant.assets.contains_key(id),
        QueryEnd::Address(_) => true,
    };
    if let Some(who) = name.parse().ok().filter(known) {
        return Ok(who);
    }
    if let Some(id) = tagged(plant, name) {
        return Err(Failure::usage(format!(
            "`{name}` is the tag of an asset, which is asked for by its name here"
        ))
        .help(format!("write `{id}`")));
    }
    let failure = Failure::usage(format!(
        "`{name}` is neither an asset of the plant nor an address"
    ));
    Err(did_you_mean(failure, name, plant.assets.keys()))
}

/// Names those that somebody may have meant, if there are such.
pub(crate) fn did_you_mean(
    failure: Failure,
    name: &str,
    known: impl Iterator<Item = impl ToString>,
) -> Failure {
    let near: Vec<String> = known
        .map(|known| known.to_string())
        .filter(|known| {
            known.contains(name) || name.contains(known.as_str()) || distance_is_small(known, name)
        })
        .collect();
    match near.is_empty() {
        true => failure,
        false => failure.help(format!("did you mean {}?", near.join(" or "))),
    }
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
        let known = services().find(|known| known.name == service)?;
        Some(match known.carrier {
            Carrier::Tcp => Carried::Tcp(known.port),
            Carrier::Udp => Carried::Udp(known.port),
            Carrier::IcmpEcho => Carried::IcmpEcho,
        })
    };
    by_document.or_else(by_name).ok_or_else(|| {
        Failure::usage(format!("`{service}` is not a service"))
            .help("write tcp/502, udp/47808, icmp-echo, or a service by name such as modbus-tcp or mqtt")
    })
}

fn zone_of(plant: &Plant, name: &str) -> Option<String> {
    if let Some(asset) = AssetId::new(name).ok().and_then(|id| plant.assets.get(&id)) {
        return Some(asset.zone.to_string());
    }
    zone_at(plant, name.parse().ok()?).map(ToString::to_string)
}

/// The zone in which an address lies.
pub(crate) fn zone_at(plant: &Plant, address: IpAddr) -> Option<&ZoneId> {
    if let Some(asset) = plant
        .assets
        .values()
        .find(|asset| asset.addresses.contains(&address))
    {
        return Some(&asset.zone);
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
        .map(|(_, _, id)| id)
}

fn rule_line(loaded: &LoadedPlant, rule: &RuleName, matched: bool) -> RuleLine {
    RuleLine {
        flow: rule.to_string(),
        flow_id: rule.id.0,
        line: locate::flow(&loaded.documents, rule.conduit.as_str(), rule.flow.as_str()),
        matched,
    }
}

fn bridge_line(loaded: &LoadedPlant, carries: &Carries, asked: Option<(&Query, &str)>) -> BridgeLine {
    let publications = Operations::from(carries.publications.clone());
    BridgeLine {
        gateway: carries.gateway.to_string(),
        rule: rule_line(loaded, &carries.rule, true),
        brokers: [carries.from.to_string(), carries.to.to_string()],
        operation: asked
            .map(|(asked, on)| OperationVerdict::on_bridge(asked, on, &carries.rule, &publications)),
        publications: publications.phrases(),
    }
}

pub(crate) fn told(
    loaded: &LoadedPlant,
    answer: &GatewayAnswer,
    plan: Option<&Plan>,
    asked: Option<(&Query, &str)>,
) -> GatewayVerdict {
    let line = |rule: &RuleName, matched: bool| rule_line(loaded, rule, matched);
    let verdict = &answer.verdict;
    let (rule, differs) = match &verdict.reason {
        Reason::Rule(rule) => (Some(line(rule, true)), Vec::new()),
        Reason::NoRule {
            nearest: Some(nearest),
        } => (Some(line(&nearest.rule, false)), nearest.differs.clone()),
        Reason::Unproven { rule, weak, .. } => (
            Some(line(rule, false)),
            weak.iter().map(ToString::to_string).collect(),
        ),
        _ => (None, Vec::new()),
    };
    let reason = match &verdict.reason {
        Reason::Rule(_) if !answer.granted.is_empty() => {
            format!("a conduit permits it, only during {}", opened_by(&answer.granted))
        }
        Reason::Rule(_) => "a conduit permits it".to_owned(),
        Reason::NoRule { nearest: Some(_) } => "no conduit permits it; the closest one differs:".to_owned(),
        Reason::Unproven { minimum, .. } => {
            format!("a conduit permits it only to ends that prove who they are to {minimum} at least:")
        }
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
        last_metre: answer.plain_port.map(last_metre),
        proven: answer.proofs.map(|[client, server]| proven(client, server)),
        operation: asked
            .zip(plan)
            .filter(|_| verdict.decision == Decision::Allow)
            .and_then(|((asked, on), plan)| OperationVerdict::on_connection(asked, on, plan, connection)),
        others: plan.map_or_else(Vec::new, |plan| {
            others::permitted(plan, connection, &verdict.reason, asked.map(|(asked, _)| asked))
        }),
        answers: plan
            .filter(|_| verdict.decision == Decision::Allow)
            .and_then(|plan| others::answers(plan, connection)),
    }
}

/// `eth1`, as the plan names it.
fn side_words(plan: Option<&Plan>, name: &str) -> String {
    let zone = plan
        .and_then(|plan| plan.interfaces.iter().find(|side| side.name == name))
        .map(|side| &side.zone);
    zone.map_or_else(|| name.to_owned(), |zone| format!("{name}: {zone}"))
}
