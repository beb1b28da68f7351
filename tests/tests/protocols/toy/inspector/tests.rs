//! What a protocol has by its vocabulary and its folder alone.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::check::check;
use penstock_policy::compile::compile_all;
use penstock_policy::diagnostics::SourceFile;
use penstock_policy::diff::diff;
use penstock_policy::model::Plant;
use penstock_policy::plan::{Capability, Plan};
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::toy::TOY;
use penstock_policy::reach::Steps;

use crate::capture::envelope::Envelope;
use crate::capture::link::Segment;
use crate::connection::{Connection, ConnectionLimits, Mode, Output, Sender};
use crate::judge::{OnRefusal, Rules};
use crate::learn::{Learned, Learner, Talk, document};
use crate::replay::Plans;

const KEY: &str = "ed25519:3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";

const DOCUMENT: &str = r#"
plant: toy-works
approvers:
  threshold: 1
  people:
    eva: { key: "ed25519:3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29" }
sites:
  works: { timezone: UTC }
gateways:
  gw:
    site: works
    mode: routed
    interfaces:
      eth1: { zone: office, address: 10.1.0.1/24 }
      eth2: { zone: cell, address: 10.2.0.1/24 }
    management: { interface: eth0, peers: 192.0.2.10 }
zones:
  office: { kind: operations, sl_target: 1, networks: 10.1.0.0/24, accountable: it }
  cell: { kind: control, sl_target: 2, networks: 10.2.0.0/24, accountable: ops }
assets:
  desk: { zone: office, address: 10.1.0.10 }
  box: { zone: cell, address: 10.2.0.20 }
conduits:
  office-to-cell:
    from: office
    to: cell
    sl_target: 2
    on_agent_loss: block
    flows:
      lines:
        source: desk
        destination: box
        service: toy-lines
        allow:
          - get: { points: 0-9 }
          - set: { points: 5, values: 0-50 }
          - load: { programs: [day, night] }
"#;

fn load(text: &str) -> penstock_policy::LoadedDocument {
    let file = SourceFile {
        name: "plant.yaml".to_owned(),
        text: text.to_owned(),
    };
    penstock_policy::load(&[file], "2026-06-01".parse().unwrap())
}

fn plant(text: &str) -> Plant {
    let loaded = load(text);
    loaded.plant.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
}

fn plan(plant: &Plant) -> Plan {
    compile_all(plant).unwrap().into_values().next().unwrap()
}

fn operations() -> Operations {
    plan(&plant(DOCUMENT)).rules[0]
        .operations
        .as_deref()
        .unwrap()
        .clone()
}

#[test]
fn a_document_is_read_and_comes_to_a_plan_that_is_read_again() {
    let plan = plan(&plant(DOCUMENT));
    assert!(plan.requires.contains(&Capability::inspect(TOY)));
    assert_eq!(Plan::from_bytes(&plan.to_bytes()).unwrap(), plan);
    assert_eq!(
        operations().phrases(),
        [
            "get (points 0-9)",
            "set (points 5, values 0-50)",
            "load day or night"
        ]
    );
    let text = String::from_utf8(plan.to_bytes()).unwrap();
    assert!(
        text.contains(r#"{"toy-lines":[{"get":{"points":[{"first":0,"last":9}]}}"#),
        "{text}"
    );
}

#[test]
fn what_is_wrong_in_a_document_is_said_by_the_vocabulary() {
    let words = |from: &str, to: &str| {
        let loaded = load(&DOCUMENT.replace(from, to));
        let said: Vec<String> = loaded.diagnostics.iter().map(|one| format!("{one:?}")).collect();
        said.join("\n")
    };
    assert!(words("get: { points: 0-9 }", "gat: { points: 0-9 }").contains("did you mean `get`?"));
    assert!(words("points: 0-9 }", "points: 0-9, values: 1 }").contains("`get` has no `values` to limit"));
    assert!(words("get: { points: 0-9 }", "get").contains("`get` does not say its `points`"));
    assert!(words("points: 0-9 }", "points: 1000 }").contains("the largest possible number is 999"));
}

#[test]
fn a_change_is_said_by_its_limits_and_check_knows_what_only_reads() {
    let (before, after) = (
        plant(DOCUMENT),
        plant(&DOCUMENT.replace("points: 0-9", "points: 0-4")),
    );
    let said = diff(Some(&before), &after).unwrap().to_string();
    assert!(
        said.contains("get: points 0-9 → 0-4: 5-9 may no longer be read by desk on box"),
        "{said}"
    );
    let findings = check(&before, &compile_all(&before).unwrap(), None);
    assert!(
        !findings.iter().any(|finding| finding.code == "PC0117"),
        "{findings:?}"
    );
    assert!(operations().effects().all(|effect| effect.is_some()));
    let steps = Steps::of(&before);
    let [office, cell] = ["office", "cell"].map(|zone| zone.parse().unwrap());
    let reach = steps.reach(&office, &cell, NonZeroUsize::MIN).unwrap();
    let ways: Vec<String> = reach.acts().map(ToString::to_string).collect();
    assert!(
        ways.iter().any(|way| way.contains("only: get (points 0-9)")),
        "{ways:?}"
    );
}

/// What comes out of a connection for these bytes of the client.
fn through(connection: &mut Connection, bytes: &[u8]) -> [String; 3] {
    let (mut server, mut client, mut judged) = (Vec::new(), Vec::new(), Vec::new());
    connection.feed(
        Sender::Client,
        Duration::ZERO,
        bytes,
        &mut |output| match output {
            Output::ToServer(bytes) => server.extend_from_slice(bytes),
            Output::ToClient(bytes) => client.extend_from_slice(bytes),
            Output::Judged {
                operation, verdict, ..
            } => {
                let mark = if verdict.allows() { '+' } else { '-' };
                judged.push(format!("{mark}{operation}"));
            }
            _ => {}
        },
    );
    let text = |bytes| String::from_utf8(bytes).unwrap();
    [text(server), text(client), judged.join("; ")]
}

fn connection(mode: Mode) -> Connection {
    let rules = Arc::new(Rules::compile(&operations()).unwrap());
    Connection::new(rules, mode, OnRefusal::Answer, ConnectionLimits::default())
}

const ASKED: &[u8] = b"GET 7\nSET 5 51\nLOAD day\nLOAD dusk\nGET 10\n";

#[test]
fn what_is_permitted_passes_and_what_is_not_is_refused_in_its_own_words() {
    let expected = [
        "GET 7\nLOAD day\n".to_owned(),
        "ERR refused\nERR refused\nERR refused\n".to_owned(),
        "+get 7; -set 5 to 51; +load day; -load dusk; -get 10".to_owned(),
    ];
    assert_eq!(through(&mut connection(Mode::Enforce), ASKED), expected);
    // However the stream is cut.
    let mut cut = connection(Mode::Enforce);
    let mut all = [String::new(), String::new(), String::new()];
    for byte in ASKED.chunks(1) {
        let out = through(&mut cut, byte);
        for (all, out) in all.iter_mut().zip(out) {
            if !all.is_empty() && !out.is_empty() && all.contains("get 7") {
                all.push_str("; ");
            }
            all.push_str(&out);
        }
    }
    assert_eq!(all, expected);
}

#[test]
fn observed_everything_passes_and_the_verdicts_are_the_same() {
    let [server, client, judged] = through(&mut connection(Mode::Observe), ASKED);
    assert_eq!((server.as_bytes(), client.as_str()), (ASKED, ""));
    assert_eq!(judged, "+get 7; -set 5 to 51; +load day; -load dusk; -get 10");
}

#[test]
fn a_frozen_connection_goes_on_at_the_same_byte() {
    let mut first = connection(Mode::Enforce);
    through(&mut first, b"GE");
    let frozen = first.freeze(Duration::ZERO);
    let rules = Arc::new(Rules::compile(&operations()).unwrap());
    let limits = ConnectionLimits::default();
    let thawed = Connection::thaw(
        &frozen,
        Duration::ZERO,
        rules,
        Mode::Enforce,
        OnRefusal::Answer,
        limits,
    );
    assert_eq!(through(&mut thawed.unwrap(), b"T 7\n")[0], "GET 7\n");
}

/// What is learned from a connection in which the client asks `asked`.
fn learned(asked: &[u8], known: Option<&Plans>) -> Learned {
    let [client, server] = ["10.1.0.10:40000", "10.2.0.20:7070"].map(|end| end.parse().unwrap());
    let segment = |syn: bool, sequence: u32, payload| Segment {
        source: client,
        destination: server,
        sequence,
        acknowledged: (!syn).then_some(1),
        syn,
        fin: false,
        rst: false,
        payload,
        missing_bytes: 0,
        envelope: Envelope::default(),
    };
    let mut learner = Learner::new(known);
    learner.segment(Duration::ZERO, &segment(true, 0, &[]));
    learner.segment(Duration::ZERO, &segment(false, 1, asked));
    learner.finish()
}

#[test]
fn what_is_learned_is_a_document_that_permits_it_and_nothing_is_proposed_twice() {
    let seen = learned(b"GET 7\nSET 5 21\nLOAD day\n", None);
    let text = document::write(&seen, None, Some(KEY), &|_| String::new());
    for line in [
        "get: { points: [7] }",
        "set: { points: [5], values: [21] }",
        "load: { programs: [\"day\"] }",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let plans = Plans::new(vec![plan(&plant(&text))]).unwrap();
    let again = learned(b"GET 7\nSET 5 21\nLOAD day\n", Some(&plans));
    assert!(!again.talks.values().any(Talk::has_operations));
    let more = learned(b"GET 8\n", Some(&plans));
    assert!(more.talks.values().any(Talk::has_operations));
    let mut all = learned(b"GET 7\n", None);
    all.leave_out(&plans);
    assert!(!all.talks.values().any(Talk::has_operations));
}

#[test]
fn a_refusal_says_which_rule_came_closest() {
    let rules = Rules::compile(&operations()).unwrap();
    let query = crate::query::Query::read("set 5 value 51").unwrap();
    let verdict = query.judge(&rules).unwrap();
    assert_eq!(
        rules.explain(query.operation(), verdict),
        "the values are not within those permitted; closest is operation 2 (set (points 5, values 0-50))"
    );
}
