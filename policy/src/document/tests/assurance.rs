//! What a conduit asks its ends to prove, from the text to the plan.

use super::tunnels::tunnelled;
use super::{BASE, codes, load_text};
use crate::check::{Severity, check};
use crate::compile::compile_all;
use crate::diagnostics::Code;
use crate::diff::{Effect, diff};
use crate::explain::{Question, explain};
use crate::plan::Plan;
use crate::terms::Proof;
use crate::verdict::Decision;

const ASKS: &str = "    accountable: safety\n    on_agent_loss";

fn asking(text: &str, minimum: &str) -> String {
    text.replace(ASKS, &format!("    minimum_assurance: {minimum}\n{ASKS}"))
}

/// With a MAC address for each end of the conduit `watch`.
fn with_macs(text: &str) -> String {
    text.replace(
        "plc: { zone: safety,",
        "plc: { zone: safety, mac: \"00:1d:9c:00:47:09\",",
    )
    .replace("[10.2.0.20, \"fd00:2::20\"]", "[10.2.0.20]")
}

fn plan(text: &str, gateway: &str) -> Plan {
    let loaded = load_text(text);
    let plant = loaded.plant.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
    compile_all(&plant)
        .unwrap()
        .remove(&gateway.parse().unwrap())
        .unwrap()
}

fn said(text: &str) -> Vec<String> {
    let loaded = load_text(text);
    let weak = loaded
        .diagnostics
        .iter()
        .filter(|one| one.code == Code::AssuranceTooLow);
    weak.map(|one| one.message.clone()).collect()
}

fn permitted(plan: &Plan) -> Vec<String> {
    let rules = plan.rules.iter().filter(|rule| rule.conduit.as_str() == "watch");
    rules.map(|rule| rule.flow.to_string()).collect()
}

#[test]
fn an_address_alone_is_denied_where_more_is_asked_for_and_a_mac_address_lifts_it() {
    let weak = asking(BASE, "D1");
    assert_eq!(permitted(&plan(&weak, "gw-1")), Vec::<String>::new());
    let said_of = said(&weak);
    assert!(
        said_of.iter().any(|words| words.contains(
            "the flow `watch/read` is denied to `plc`, which proves who it is by its \
                                                   address only (D0) at `gw-1`; `watch` asks for D1"
        )),
        "{said_of:?}"
    );
    assert!(
        !said_of.iter().any(|words| words.contains("`hmi`")),
        "its IPv6 address meets nobody: {said_of:?}"
    );
    let six = with_macs(&weak)
        .replace("[10.2.0.20]", "[10.2.0.20, \"fd00:2::20\"]")
        .replace("address: 10.3.0.7", "addresses: [10.3.0.7, \"fd00:3::7\"]");
    let six = six.replace(
        "networks: 10.3.0.0/24",
        "networks: [10.3.0.0/24, \"fd00:3::/64\"]",
    );
    assert!(
        said(&six)
            .iter()
            .any(|words| words.contains("denied from `hmi` at fd00:2::20, which proves")),
        "no address of the gateway's is near it: {:?}",
        said(&six)
    );
    let bound = with_macs(&weak);
    assert_eq!(said(&bound), Vec::<String>::new());
    let plan = plan(&bound, "gw-1");
    assert_eq!(permitted(&plan), ["read", "tell"]);
    assert_eq!(plan.bound.keys().collect::<Vec<_>>(), ["eth2", "eth3"]);
    assert_eq!(plan.address_proof("10.3.0.7/32".parse().unwrap()), Proof::Mac);
    assert_eq!(plan.address_proof("10.3.0.8/32".parse().unwrap()), Proof::Address);
    assert_eq!(plan.address_proof("10.3.0.0/24".parse().unwrap()), Proof::Address);
}

#[test]
fn an_address_that_comes_through_a_router_is_not_bound_and_one_that_is_alone_on_its_interface_needs_no_more()
{
    let bound = with_macs(&asking(BASE, "D1"));
    // The gateway's own address is in another network: the packets come from a router.
    let routed = bound.replace("address: 10.3.0.1/24", "address: 10.3.0.1/30");
    assert_eq!(permitted(&plan(&routed, "gw-1")), Vec::<String>::new());
    assert!(
        said(&routed).iter().all(|words| words.contains("`plc`")),
        "{:?}",
        said(&routed)
    );
    let alone = asking(BASE, "D1")
        .replace("    networks: 10.3.0.0/24\n", "")
        .replace("[10.2.0.20, \"fd00:2::20\"]", "[10.2.0.20]");
    let plan = plan(&alone, "gw-1");
    assert_eq!(plan.address_proof("10.3.0.7/32".parse().unwrap()), Proof::Port);
    assert_eq!(permitted(&plan), ["read", "tell"]);
}

#[test]
fn what_the_document_claims_of_an_asset_lifts_nothing() {
    let claimed = asking(BASE, "D3").replace("identity: D0", "identity: D5");
    assert_eq!(permitted(&plan(&claimed, "gw-1")), Vec::<String>::new());
    assert_eq!(said(&claimed), said(&asking(BASE, "D3")));
}

#[test]
fn tls_that_ends_at_the_gateway_proves_a_certificate_where_nothing_passes_unread() {
    let mqtts = |text: &str| {
        text.replace(
            "        service: mqtt\n",
            "        service: mqtts\n        tls: {}\n",
        )
    };
    let secured = asking(&mqtts(BASE), "D4");
    assert_eq!(
        permitted(&plan(&secured, "gw-1")),
        ["tell"],
        "Modbus has no certificate"
    );
    assert_eq!(said(&secured).len(), 2, "both ends of `read`");
    let unread = secured.replace("on_agent_loss: block", "on_agent_loss: pass");
    assert_eq!(permitted(&plan(&unread, "gw-1")), Vec::<String>::new());
    let plain = asking(
        &BASE.replace(
            "        service: mqtt\n",
            "        service: mqtt\n        tls: { server: plain }\n",
        ),
        "D4",
    );
    let half = said(&plain);
    assert!(
        half.iter()
            .any(|words| words.contains("`watch/tell` is denied to `hmi`")),
        "{half:?}"
    );
    assert!(
        !half
            .iter()
            .any(|words| words.contains("`watch/tell` is denied from")),
        "{half:?}"
    );
}

#[test]
fn beyond_a_tunnel_counts_what_the_other_gateway_binds() {
    let text = asking(&tunnelled(), "D1").replace("[10.2.0.20, \"fd00:2::20\"]", "[10.2.0.20]");
    let weak = plan(&text, "gw-1");
    assert_eq!(permitted(&weak), Vec::<String>::new());
    let text = with_macs(&text);
    for (gateway, beyond) in [("gw-1", "10.3.0.7/32"), ("gw-2", "10.2.0.20/32")] {
        let plan = plan(&text, gateway);
        assert_eq!(permitted(&plan), ["read", "tell"], "{gateway}");
        assert_eq!(plan.address_proof(beyond.parse().unwrap()), Proof::Tunnel);
        assert_eq!(plan.bound.len(), 1, "its own end, by its MAC address");
    }
}

/// The two plans may be of different documents, as if other software had made one of them; the checker has both, and the one that counts.
#[test]
fn what_a_plan_takes_for_bound_beyond_a_tunnel_is_held_against_the_plan_of_the_gateway_there() {
    for minimum in ["D0", "D1", "D3"] {
        let text = asking(&tunnelled(), minimum).replace("[10.2.0.20, \"fd00:2::20\"]", "[10.2.0.20]");
        let both = with_macs(&text);
        let all = [(true, true), (true, false), (false, true), (false, false)];
        let texts = all.map(|(plc, hmi)| {
            let mut text = both.clone();
            for (mac, is_known) in [("00:1d:9c:00:47:09", plc), ("00:1d:9c:00:47:07", hmi)] {
                if !is_known {
                    text = text.replace(&format!(", mac: \"{mac}\""), "");
                }
            }
            text
        });
        let counts = load_text(&texts[0]).plant.unwrap();
        let plans = |name: &str| texts.each_ref().map(|text| plan(text, name));
        let (ones, twos) = (plans("gw-1"), plans("gw-2"));
        for ((at_one, one), (at_two, two)) in all
            .iter()
            .zip(&ones)
            .flat_map(|one| all.iter().zip(&twos).map(move |two| (one, two)))
        {
            let plans = [one, two].map(|plan| (plan.gateway.clone(), plan.clone()));
            let found = check(&counts, &plans.into(), None);
            let found = found.iter().filter(|one| one.code.starts_with("PC011"));
            let found: Vec<String> = found.map(ToString::to_string).collect();
            // gw-1 takes gw-2's word for the controller's address, and gw-2 takes gw-1's for the panel's.
            let lies = [
                ("10.3.0.7", at_one.0 && !at_two.0),
                ("10.2.0.20", at_two.1 && !at_one.1),
            ];
            let lies = lies.iter().filter(|(_, lies)| *lies && minimum == "D1");
            let lies: Vec<String> = lies
                .map(|(address, _)| format!("{address} counts as bound"))
                .collect();
            assert_eq!(found.len(), lies.len(), "{at_one:?} {at_two:?}: {found:?}");
            for lie in lies {
                assert!(found.iter().any(|words| words.contains(&lie)), "{lie}: {found:?}");
            }
        }
    }
}

#[test]
fn a_change_that_denies_a_flow_by_its_assurance_says_so_and_one_that_must_flow_is_not_released() {
    let old = load_text(BASE).plant.unwrap();
    let text = asking(BASE, "D1").replace(
        "        service: modbus-tcp\n",
        "        service: modbus-tcp\n        must_flow: yes\n",
    );
    let new = load_text(&text).plant.unwrap();
    let changed = diff(Some(&old), &new).unwrap();
    let of_flow = |name: &str| {
        let changes = changed.changes.iter();
        changes
            .filter(|change| change.subject.to_string() == name)
            .map(|one| (one.effect, one.details.join("; ")))
            .next()
            .unwrap()
    };
    let (effect, words) = of_flow("flow watch/tell");
    assert_eq!(effect, Effect::Narrowed);
    assert!(
        words.contains("denied from now on, by its assurance: ") && words.contains("from plc at gw-1"),
        "{words}"
    );
    let (back, words) = {
        let changed = diff(Some(&new), &old).unwrap();
        let change = changed
            .changes
            .into_iter()
            .find(|one| one.subject.to_string() == "flow watch/tell")
            .unwrap();
        (change.effect, change.details.join("; "))
    };
    assert_eq!(back, Effect::Widened);
    assert!(words.contains("no longer denied by its assurance"), "{words}");
    let found = check(&new, &compile_all(&new).unwrap(), None);
    let lost = found.iter().find(|finding| finding.code == "PC0163").unwrap();
    assert_eq!(lost.severity, Severity::Error);
    assert!(
        lost.words.contains("watch/read must flow, but is denied"),
        "{lost}"
    );
}

#[test]
fn an_answer_says_how_well_each_end_is_known_and_a_denial_which_end_is_not() {
    let asked = |text: &str| {
        let plant = load_text(text).plant.unwrap();
        let question = Question {
            source: "hmi".parse().unwrap(),
            destination: "plc".parse().unwrap(),
            transport: "tcp/502".parse().unwrap(),
        };
        let answer = explain(&plant, &compile_all(&plant).unwrap(), &question).unwrap();
        (answer.answers[0].verdict.decision, answer.to_string())
    };
    let (decision, words) = asked(BASE);
    assert_eq!(decision, Decision::Allow);
    assert!(
        words.contains("the client is known by its address only (D0), the server by its address only (D0)"),
        "{words}"
    );
    let (decision, words) = asked(&asking(BASE, "D1"));
    assert_eq!(decision, Decision::Deny);
    assert!(
        words.contains("flow watch/read permits it only to ends that prove who they are to D1 at least; plc proves it by its \
                        address only (D0)"),
        "{words}"
    );
}

#[test]
fn a_document_that_asks_for_nothing_is_not_warned() {
    assert!(!codes(&load_text(BASE)).contains(&Code::AssuranceTooLow));
    assert!(!codes(&load_text(&asking(BASE, "D0"))).contains(&Code::AssuranceTooLow));
}
