//! Any trail and any search; and whether an event is asked for, decided without the search's code.

use penstock_policy::diagnostics::SourceFile;
use penstock_proto::v1::{FaultEvent, IdentityEvent, LearnedRange, OperationEvent};

use super::*;
use crate::releases::Directory;

pub(super) const DAY_MS: u64 = 86_400_000;

/// Two releases, of which the second has another name for the controller and another conduit.
pub(super) fn directory(plc: &str, conduit: &str) -> Directory {
    let text = format!(
        "plant: riverside
approvers:
  threshold: 1
  people:
    bob: {{ key: \"ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\" }}
sites:
  works: {{ title: Works, timezone: UTC }}
  mill: {{ title: Mill, timezone: UTC }}
gateways:
  gw-1:
    site: works
    mode: routed
    interfaces:
      eth1: {{ zone: operations, address: 10.20.1.1/24 }}
      eth2: {{ zone: control, address: 10.20.4.1/24 }}
zones:
  operations: {{ title: Operations, kind: operations, networks: [10.20.1.0/24] }}
  control: {{ title: Control, kind: control, networks: [10.20.4.0/24] }}
assets:
  hmi: {{ zone: operations, address: 10.20.1.21 }}
  {plc}: {{ zone: control, address: 10.20.4.7 }}
conduits:
  {conduit}:
    title: Supply
    from: operations
    to: control
    flows:
      poll: {{ source: hmi, destination: {plc}, service: tcp/502 }}
"
    );
    let loaded = penstock_policy::load(
        &[SourceFile::new("plant.yaml", &text)],
        jiff::civil::date(2026, 12, 1),
    );
    let said: Vec<_> = loaded.diagnostics.iter().map(|one| one.message.clone()).collect();
    Directory::of(&loaded.plant.ok_or(said).unwrap())
}

const ADDRESSES: [&str; 5] = ["10.20.1.21", "10.20.1.77", "10.20.4.7", "10.9.9.9", "fd00::9"];

fn address() -> impl Strategy<Value = String> {
    prop::sample::select(ADDRESSES.to_vec()).prop_map(str::to_owned)
}

fn flow() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "", "supply/poll", "feed/poll"]).prop_map(str::to_owned)
}

fn kind() -> impl Strategy<Value = Kind> {
    let verdict = (1..4, address(), address(), flow()).prop_map(|(decision, source, destination, flow)| {
        Kind::Verdict(VerdictEvent {
            decision,
            source,
            destination,
            flow,
            ..VerdictEvent::default()
        })
    });
    let words = prop::sample::select(vec![
        "write-single-register 40 of unit 1",
        "Read-Coils 1 of unit 1",
        "read-coils",
    ]);
    let operation = (0..4, address(), address(), flow(), words, 0u32..9, any::<bool>());
    let operation = operation.prop_map(|(decision, client, server, flow, words, value, writes)| {
        Kind::Operation(OperationEvent {
            subject: if decision == 0 { "session" } else { "operation" }.to_owned(),
            decision,
            operation: words.to_owned(),
            client,
            server,
            client_name: if value > 4 { "panel" } else { "" }.to_owned(),
            flow,
            values: writes.then_some(LearnedRange {
                first: value,
                last: value + 3,
            }),
            ..OperationEvent::default()
        })
    });
    let fault = flow().prop_map(|flow| {
        Kind::Fault(FaultEvent {
            code: "no-carrier".to_owned(),
            zones: vec!["control".to_owned()],
            flows: Some(flow).filter(|flow| !flow.is_empty()).into_iter().collect(),
            ..FaultEvent::default()
        })
    });
    let who = prop::sample::select(vec!["anna", "bob"]);
    let operator = who.clone().prop_map(|operator| {
        Kind::Operator(OperatorEvent {
            operator: operator.to_owned(),
            ..OperatorEvent::default()
        })
    });
    let identity = who.prop_map(|who| {
        Kind::Identity(IdentityEvent {
            subject: format!("operator/{who}"),
            ..IdentityEvent::default()
        })
    });
    prop_oneof![4 => verdict, 3 => operation, 1 => fault, 1 => operator, 1 => identity]
}

pub(super) fn event() -> impl Strategy<Value = AuditEvent> {
    (0u64..5, 0i32..5, 0u64..4, kind()).prop_map(|(day, severity, revision, kind)| AuditEvent {
        time_ms: day * DAY_MS + day,
        severity,
        revision,
        kind: Some(kind),
    })
}

/// What happens to a store between two pages.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Append {
        source: &'static str,
        received_day: u64,
        blocks: Vec<Vec<AuditEvent>>,
    },
    Index {
        blocks: usize,
    },
    Retain {
        blocks: u32,
    },
}

const SOURCES: [&str; 3] = ["gw-1", "gw-2", "coordinator/c1"];

pub(super) fn step() -> impl Strategy<Value = Step> {
    let blocks = prop::collection::vec(prop::collection::vec(event(), 0..4), 1..6);
    prop_oneof![
        4 => (prop::sample::select(SOURCES.to_vec()), 0u64..5, blocks)
            .prop_map(|(source, received_day, blocks)| Step::Append { source, received_day, blocks }),
        4 => (1usize..6).prop_map(|blocks| Step::Index { blocks }),
        1 => (1u32..4).prop_map(|blocks| Step::Retain { blocks }),
    ]
}

fn some<T: Clone + std::fmt::Debug + 'static>(of: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![4 => Just(Vec::new()), 1 => prop::sample::subsequence(of, 1..2)]
}

fn strings(of: &[&str]) -> impl Strategy<Value = Vec<String>> + use<> {
    some(of.iter().map(|one| (*one).to_owned()).collect())
}

pub(super) fn request() -> impl Strategy<Value = SearchAuditRequest> {
    let times = (0u64..5, 0u64..3, any::<bool>(), 0i32..3);
    let coarse = (
        some(vec!["verdict", "operation", "fault", "operator"]),
        0i32..5,
        0i32..4,
        any::<bool>(),
    );
    let names = (
        strings(&["works", "mill"]),
        strings(&["operations", "control", "nowhere"]),
        strings(&["supply", "feed"]),
        strings(&["hmi", "plc", "valve", "panel", "10.9.9.9", "FD00:0::9"]),
        strings(&["Write-Single-Register", "read-coils 1", "read"]),
        strings(&["anna", "bob"]),
    );
    let values = prop_oneof![3 => Just(None), 1 => (0u32..9, 0u32..3).prop_map(Some)];
    let text = prop::sample::select(vec!["", "", "", "PLC", "10.20.4", "of unit", "zz"]);
    let source = prop::sample::select(vec!["", "", "gw-1", "coordinator/c1"]);
    (times, coarse, names, values, (text, source, any::<bool>())).prop_map(
        |(
            (from, more, bounded, clock),
            (kinds, severity_min, decision, coarse),
            (sites, zones, conduits, assets, operations, operators),
            values,
            (text, source, newest_first),
        )| SearchAuditRequest {
            source: source.to_owned(),
            from_ms: if bounded { from * DAY_MS } else { 0 },
            until_ms: if bounded { (from + more) * DAY_MS + 3 } else { 0 },
            clock,
            kinds: kinds.into_iter().map(str::to_owned).collect(),
            severity_min: if coarse { severity_min } else { 0 },
            decision: if coarse { decision } else { 0 },
            text: text.to_owned(),
            newest_first,
            sites,
            zones,
            conduits,
            assets,
            operations,
            values: values.map(|(first, more)| LearnedRange {
                first,
                last: first + more,
            }),
            operators,
            ..SearchAuditRequest::default()
        },
    )
}

/// What a person would say, from the document alone: the zone and the asset of an address under a revision.
fn called(address: &str, revision: u64) -> (Option<&'static str>, Option<&'static str>) {
    let plc = match revision {
        1 => "plc",
        2 => "valve",
        _ => return (None, None),
    };
    match address {
        "10.20.1.21" => (Some("operations"), Some("hmi")),
        "10.20.1.77" => (Some("operations"), None),
        "10.20.4.7" => (Some("control"), Some(plc)),
        _ => (None, None),
    }
}

/// Whether an event is asked for, decided without any of the search's code.
pub(super) fn wanted(
    request: &SearchAuditRequest,
    source: &str,
    received_ms: u64,
    event: &AuditEvent,
) -> bool {
    let within = |ms: u64| ms >= request.from_ms && (request.until_ms == 0 || ms <= request.until_ms);
    let in_time = match request.clock {
        0 => within(event.time_ms),
        1 => within(received_ms),
        _ => within(event.time_ms) || within(received_ms),
    };
    let mut ends: Vec<&str> = Vec::new();
    let (mut names, mut flows, mut zones): (Vec<&str>, Vec<&str>, Vec<&str>) = Default::default();
    let mut texts: Vec<&str> = Vec::new();
    let (mut decision, mut operation, mut values, mut operator) = (0, None, None, None);
    let kind = match event.kind.as_ref().unwrap() {
        Kind::Verdict(it) => {
            ends = vec![&it.source, &it.destination];
            flows.push(&it.flow);
            decision = it.decision;
            texts.extend([it.source.as_str(), &it.destination, &it.flow]);
            "verdict"
        }
        Kind::Operation(it) => {
            ends = vec![&it.client, &it.server];
            names.push(&it.client_name);
            flows.push(&it.flow);
            decision = it.decision;
            operation = (it.subject == "operation").then(|| it.operation.to_lowercase());
            values = it.values;
            texts.extend([
                it.client.as_str(),
                &it.server,
                &it.flow,
                &it.operation,
                &it.client_name,
            ]);
            "operation"
        }
        Kind::Fault(it) => {
            flows.extend(it.flows.iter().map(String::as_str));
            zones.extend(it.zones.iter().map(String::as_str));
            texts.extend(it.flows.iter().chain(&it.zones).map(String::as_str));
            texts.push(&it.code);
            "fault"
        }
        Kind::Operator(it) => {
            operator = Some(it.operator.as_str());
            texts.push(&it.operator);
            "operator"
        }
        Kind::Identity(it) => {
            operator = it.subject.strip_prefix("operator/");
            texts.push(&it.subject);
            "identity"
        }
        other => panic!("{other:?}"),
    };
    flows.retain(|flow| !flow.is_empty());
    let mine = matches!(kind, "verdict" | "operation" | "fault") || source.starts_with("coordinator/");
    for end in &ends {
        let (zone, asset) = called(end, event.revision);
        zones.extend(zone);
        names.extend(asset);
        texts.extend(zone);
        texts.extend(asset);
    }
    let between = [ends.first(), ends.get(1)].map(|end| end.and_then(|end| called(end, event.revision).0));
    let conduits: Vec<&str> = match (flows.is_empty(), between) {
        (true, [Some(one), Some(other)]) if one != other => {
            vec![if event.revision == 1 { "supply" } else { "feed" }]
        }
        _ => flows.iter().map(|flow| flow.split('/').next().unwrap()).collect(),
    };
    let site = (source == "gw-1" && (event.revision == 1 || event.revision == 2)).then_some("works");
    let one_of = |asked: &[String], has: &[&str]| {
        asked.is_empty() || asked.iter().any(|asked| has.contains(&asked.as_str()))
    };
    let assets: Vec<String> = request
        .assets
        .iter()
        .map(|asset| asset.replace("FD00:0::9", "fd00::9"))
        .collect();
    names.extend(&ends);
    let says = |asked: &String| {
        let asked = asked.to_lowercase();
        operation
            .as_ref()
            .is_some_and(|said| *said == asked || said.starts_with(&format!("{asked} ")))
    };
    in_time
        && (request.source.is_empty() || request.source == source)
        && (request.kinds.is_empty() || mine && request.kinds.iter().any(|asked| asked == kind))
        && event.severity >= request.severity_min
        && (request.decision == 0 || request.decision == decision)
        && one_of(&request.sites, site.as_slice())
        && one_of(&request.zones, &zones)
        && one_of(&request.conduits, &conduits)
        && one_of(&assets, &names)
        && (request.operations.is_empty() || request.operations.iter().any(says))
        && request.values.is_none_or(|asked| {
            values
                .is_some_and(|values: LearnedRange| values.first <= asked.last && values.last >= asked.first)
        })
        && one_of(&request.operators, operator.as_slice())
        && (request.text.is_empty()
            || texts
                .iter()
                .any(|text| text.to_lowercase().contains(&request.text.to_lowercase())))
}
