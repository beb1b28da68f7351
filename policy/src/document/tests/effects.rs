//! Every key of the grammar does something, or is reported as recorded only (DESIGN, promise 11; HOUSE §1).
//!
//! The walk takes the keys from the JSON Schema, which is made of the declarations that read them. For each there is an edit of
//! the base document here that changes this key alone, and what must change with it. A new key without a line here fails.

use std::collections::BTreeSet;

use serde_json::Value;

use super::frames;
use super::tunnels::tunnelled;
use super::{BASE, codes, load_text};
use crate::check::check;
use crate::compile::compile_all;
use crate::diagnostics::Code;
use crate::diff::{Effect, diff};
use crate::model::Plant;
use crate::protocol::Protocol;
use crate::schema::json_schema;

/// What a key changes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Does {
    /// Some gateway's plan, and so a verdict.
    Plan,
    /// Which gateway gets what, or who may sign: a release cannot be the same.
    Release,
    /// What is said of the document: this code comes or goes.
    Warns(Code),
    /// What the checker of plans finds: this code comes, goes or has another weight.
    Finds(&'static str),
    /// A record for people, which asks for nothing: the diff that approvers read shows it.
    Record,
    /// In which order a rollout takes the gateways; no plan.
    Fleet,
}
use Does::{Finds, Fleet, Plan, Record, Release, Warns};

/// A key by its path, `*` for a name that the document gives; the base document's text, and what takes its place.
type Line = (&'static str, Does, &'static str, &'static str);

const GATEWAY: &str = "    mode: routed\n";
const CONTROL: &str = "    expires: 2027-06-30\n";
const READ: &str = "        destination: plc\n        service: modbus-tcp\n";
/// A flow whose clients' TLS ends at the gateway, with what a role may do there.
const BY_ROLE: &str = "        destination: plc\n        service: modbus-tcp:802\n        tls: { server: plain, server_port: 502 }\n        \
                       roles: { operator: [{ read-coils: { units: 1, addresses: 0-4 } }] }\n";
/// The second gateway of a pair, to be named in return.
const PAIR: &str = "gateways:\n  gw-2:\n    redundant_with: gw-1\n    site: works\n    mode: routed\n    interfaces:\n      \
                    eth1: { zone: office, address: 10.1.0.2/24 }\n      eth2: { zone: ops, behind: cells, address: 10.2.0.2/24 }\n      \
                    eth3: { zone: safety, address: 10.3.0.2/24 }\n    management: { interface: eth0, peers: 192.0.2.10 }\n  gw-1:\n    \
                    redundant_with: gw-2\n";

/// Two people, and a code.
const BREAK_GLASS: &str = "break_glass:\n  longest: 4h\n  people:\n    kim: { key: \"ed25519:0ac89f326ec1a4d2cfe9fa3a92deab2eabf9e532f72b39c14830d1a03edce4c8\" }\n    \
                           lee: { key: \"ed25519:8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c\" }\n  sealed:\n    \
                           gw-1: \"sha256:1111111111111111111111111111111111111111111111111111111111111111\"\nrisk:\n";

/// A finding that is not there: it has other names.
const ACCEPTED: &str =
    "accepted:\n  - { code: PC0120, where: safety, by: anna, reason: known, expires: 2027-07-01 }\nrisk:\n";

#[rustfmt::skip] // A table, one key a line.
const LINES: &[Line] = &[
    ("plant", Plan, "plant: test-works", "plant: other-works"),
    ("title", Record, "plant: test-works\n", "plant: test-works\ntitle: Works\n"),
    ("owner", Record, "plant: test-works\n", "plant: test-works\nowner: { organisation: Works }\n"),
    ("owner.organisation", Record, "plant: test-works\n", "plant: test-works\nowner: { organisation: Works }\n"),
    ("owner.contact", Record, "plant: test-works\n", "plant: test-works\nowner: { organisation: Works, contact: ot@works.example }\n"),
    ("approvers", Release, "threshold: 2", "threshold: 1"),
    ("approvers.threshold", Release, "threshold: 2", "threshold: 1"),
    ("approvers.emergency_threshold", Release, "threshold: 2\n", "threshold: 2\n  emergency_threshold: 2\n"),
    ("approvers.people", Release, "    ben: {", "    cleo: { key: \"ed25519:0ac89f326ec1a4d2cfe9fa3a92deab2eabf9e532f72b39c14830d1a03edce4c8\" }\n    ben: {"),
    ("approvers.people.*.key", Release, "ed25519:8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c", "ed25519:8142899829d38d0f3bec25a6be45e90ea4c9c9382fa1fb20673a186a2f4137fd"),
    ("approvers.people.*.role", Record, "6f5c\" }", "6f5c\", role: manager }"),
    ("sites", Record, "  annex: { timezone: UTC }\n", ""),
    ("sites.*.title", Record, "annex: {", "annex: { title: Annex,"),
    ("sites.*.timezone", Plan, "works: { timezone: UTC }", "works: { timezone: Europe/Berlin }"),
    ("gateways", Plan, "  gw-1:\n", "  gw-9:\n"),
    ("gateways.*.site", Record, "    site: works\n", "    site: annex\n"),
    ("gateways.*.mode", Plan, "mode: routed\n    interfaces:\n      eth1: { zone: office, address: 10.1.0.1/24 }\n      eth2: { zone: ops, behind: cells, address: 10.2.0.1/24 }\n      eth3: { zone: safety, address: 10.3.0.1/24 }\n", "mode: bridged\n    interfaces:\n      eth1: { zone: office }\n      eth2: { zone: ops, behind: cells }\n      eth3: { zone: safety }\n"),
    ("gateways.*.labels", Fleet, GATEWAY, "    mode: routed\n    labels: { ring: pilot }\n"),
    ("gateways.*.interfaces", Plan, "      eth1: {", "      eth9: {"),
    ("gateways.*.interfaces.*.zone", Plan, "eth3: { zone: safety, address: 10.3.0.1/24 }", "eth3: { zone: safety, address: 10.3.0.1/24 }\n      eth4: { zone: safety, address: 10.3.0.2/24 }"),
    ("gateways.*.interfaces.*.behind", Plan, "behind: cells, ", ""),
    ("gateways.*.interfaces.*.routers", Plan, "eth3: { zone: safety, ", "eth3: { zone: safety, routers: 10.3.0.9, "),
    ("gateways.*.interfaces.*.address", Warns(Code::RoutedWithoutAddress), "eth3: { zone: safety, address: 10.3.0.1/24 }", "eth3: { zone: safety }"),
    ("gateways.*.management", Finds("PC0101"), "    management: { interface: eth0, peers: 192.0.2.10 }\n", ""),
    ("gateways.*.management.interface", Plan, "interface: eth0", "interface: eth7"),
    ("gateways.*.management.peers", Plan, "192.0.2.10", "192.0.2.11"),
    ("gateways.*.window", Plan, GATEWAY, "    mode: routed\n    window: Sun 02:00-04:00\n"),
    ("gateways.*.safe_to_change", Plan, GATEWAY, "    mode: routed\n    safe_to_change: { modbus: plc, coil: 1, is: on }\n"),
    ("gateways.*.safe_to_change.modbus", Plan, "modbus: plc", "modbus: hmi"),
    ("gateways.*.safe_to_change.coil", Plan, "coil: 1", "coil: 2"),
    ("gateways.*.safe_to_change.unit", Plan, "coil: 1", "coil: 1, unit: 1"),
    ("gateways.*.safe_to_change.port", Plan, "coil: 1", "coil: 1, port: 1502"),
    ("gateways.*.safe_to_change.is", Plan, "is: on", "is: off"),
    ("gateways.*.safe_to_change.mqtt", Plan, "mqtt: hmi", "mqtt: clerk"),
    ("gateways.*.safe_to_change.topic", Plan, "topic: a/safe", "topic: b/safe"),
    ("gateways.*.safe_to_change.tls", Plan, "topic: a/safe", "topic: a/safe, tls: { server_name: broker.example }"),
    ("gateways.*.safe_to_change.tls.server_name", Plan, "topic: a/safe", "topic: a/safe, tls: { server_name: broker.example }"),
    ("gateways.*.safe_to_change.tls.server_authorities", Warns(Code::NotCertificates), "topic: a/safe", "topic: a/safe, tls: { server_authorities: none }"),
    ("gateways.*.tunnel", Warns(Code::TunnelUnused), GATEWAY, "    mode: routed\n    tunnel: { interface: eth1 }\n"),
    ("gateways.*.tunnel.interface", Warns(Code::NotTunnelled), "tunnel: { interface: eth1 }", "tunnel: { interface: eth2 }"),
    ("gateways.*.tunnel.address", Plan, "address: 10.1.0.2, port", "address: 10.1.0.9, port"),
    ("gateways.*.tunnel.port", Plan, "port: 4500", "port: 4501"),
    ("gateways.*.redundant_with", Fleet, "gateways:\n  gw-1:\n", PAIR),
    ("gateways.*.on_drift", Plan, GATEWAY, "    mode: routed\n    on_drift: report\n"),
    ("zones", Plan, "networks: 10.1.0.0/24", "networks: 10.1.0.0/25"),
    ("zones.*.title", Record, "    kind: enterprise\n", "    kind: enterprise\n    title: Office\n"),
    ("zones.*.kind", Warns(Code::EnterpriseToSafety), "    kind: operations\n", "    kind: enterprise\n"),
    ("zones.*.parent", Warns(Code::NetworksOverlap), "    parent: ops\n", ""),
    ("zones.*.sl_target", Finds("PC0151"), "    sl_target: 2\n    networks: [10.2.0.0/24, \"fd00:2::/64\"]\n", "    sl_target: 1\n    networks: [10.2.0.0/24, \"fd00:2::/64\"]\n"),
    ("zones.*.networks", Plan, "networks: 10.1.0.0/24", "networks: 10.1.0.0/25"),
    ("zones.*.consequence", Warns(Code::ZoneRecordIncomplete), "    consequence: business\n", ""),
    ("zones.*.accountable", Warns(Code::ZoneRecordIncomplete), "    accountable: it\n    boundary: a building\n", "    boundary: a building\n"),
    ("zones.*.boundary", Warns(Code::ZoneRecordIncomplete), "    boundary: a building\n", ""),
    ("zones.*.requirements", Record, "    kind: enterprise\n", "    kind: enterprise\n    requirements: Badges.\n"),
    ("zones.*.assumptions", Record, "    kind: enterprise\n", "    kind: enterprise\n    assumptions: It is hostile.\n"),
    ("zones.*.enforcement", Plan, "    kind: enterprise\n", "    kind: enterprise\n    enforcement: observe\n"),
    ("assets", Plan, "address: 10.1.0.20", "address: 10.1.0.21"),
    ("assets.*.title", Record, "clerk: {", "clerk: { title: Clerk,"),
    ("assets.*.tag", Record, "clerk: {", "clerk: { tag: PC_01,"),
    ("assets.*.zone", Warns(Code::AddressOutsideZone), "clerk: { zone: office", "clerk: { zone: cells"),
    ("assets.*.address", Plan, "address: 10.1.0.20", "address: 10.1.0.21"),
    ("assets.*.addresses", Plan, "addresses: [10.2.0.20, ", "addresses: [10.2.0.21, "),
    ("assets.*.mac", Plan, "00:1d:9c:00:47:07", "00:1d:9c:00:47:08"),
    ("assets.*.role", Record, "clerk: {", "clerk: { role: clerk,"),
    ("assets.*.vendor", Record, "clerk: {", "clerk: { vendor: Acme,"),
    ("assets.*.model", Record, "clerk: {", "clerk: { model: A1,"),
    ("assets.*.firmware", Record, "clerk: {", "clerk: { firmware: v1,"),
    ("assets.*.criticality", Record, "clerk: {", "clerk: { criticality: low,"),
    ("assets.*.sl_capability", Record, "clerk: {", "clerk: { sl_capability: 1,"),
    ("assets.*.identity", Record, "identity: D0", "identity: D3"),
    ("conduits", Plan, "  reports:\n", "  accounts:\n"),
    ("conduits.*.title", Record, "    from: office\n", "    title: Reports\n    from: office\n"),
    ("conduits.*.from", Warns(Code::EndOutsideConduit), "    from: office\n", "    from: cells\n"),
    ("conduits.*.to", Warns(Code::EndOutsideConduit), "    from: office\n    to: ops\n", "    from: office\n    to: cells\n"),
    ("conduits.*.via", Warns(Code::UnknownName), "    from: office\n", "    via: gw-9\n    from: office\n"),
    ("conduits.*.sl_target", Warns(Code::ConduitRecordIncomplete), "    sl_target: 3\n    accountable: safety\n    on_agent_loss", "    accountable: safety\n    on_agent_loss"),
    ("conduits.*.on_agent_loss", Plan, "on_agent_loss: block", "on_agent_loss: pass"),
    ("conduits.*.tunnel", Plan, "    tunnel: yes\n", "    tunnel: no\n"),
    ("conduits.*.only_by_grant", Plan, "    from: office\n", "    only_by_grant: yes\n    from: office\n"),
    ("conduits.*.minimum_assurance", Plan, "    from: office\n", "    minimum_assurance: D3\n    from: office\n"),
    ("conduits.*.accountable", Warns(Code::ConduitRecordIncomplete), "    sl_target: 3\n    accountable: safety\n    on_agent_loss", "    sl_target: 3\n    on_agent_loss"),
    ("conduits.*.frames", Plan, "      io: {", "      trips: {"),
    ("conduits.*.frames.*.title", Record, "io: { from", "io: { title: Trips, from"),
    ("conduits.*.frames.*.from", Plan, "from: office, ethertype", "from: ops, ethertype"),
    ("conduits.*.frames.*.both", Plan, "from: office, ethertype", "from: office, both: yes, ethertype"),
    ("conduits.*.frames.*.ethertype", Plan, "ethertype: goose", "ethertype: sampled-values"),
    ("conduits.*.frames.*.vlan", Plan, "vlan: 10", "vlan: [0, 10]"),
    ("conduits.*.frames.*.to_mac", Plan, "00:00/40", "00:00/41"),
    ("conduits.*.frames.*.appid", Plan, "0x0001-0x0004", "0x0001-0x0005"),
    ("conduits.*.flows", Plan, "      web: {", "      pages: {"),
    ("conduits.*.flows.*.title", Record, "      web: {", "      web: { title: Web,"),
    ("conduits.*.flows.*.source", Plan, "source: clerk", "source: zone:office"),
    ("conduits.*.flows.*.destination", Plan, "destination: hmi, service: https", "destination: zone:ops, service: https"),
    ("conduits.*.flows.*.service", Plan, "service: https", "service: http"),
    ("conduits.*.flows.*.allow", Plan, "addresses: 0-9", "addresses: 0-8"),
    ("conduits.*.flows.*.roles", Plan, "addresses: 0-4", "addresses: 0-3"),
    ("conduits.*.flows.*.default_role", Plan, "        roles: {", "        default_role: operator\n        roles: {"),
    ("conduits.*.flows.*.must_flow", Plan, READ, "        destination: plc\n        service: modbus-tcp\n        must_flow: yes\n"),
    ("conduits.*.flows.*.on_refusal", Plan, READ, "        destination: plc\n        service: modbus-tcp\n        on_refusal: reset\n"),
    ("conduits.*.flows.*.answers", Plan, READ, "        destination: plc\n        service: modbus-tcp\n        answers: in-order\n"),
    ("conduits.*.flows.*.tls", Warns(Code::TlsNotEnded), "        service: mqtt\n", "        service: mqtt\n        tls: {}\n"),
    ("conduits.*.flows.*.tls.server_name", Plan, "        service: mqtt\n", "        service: mqtts\n        tls: { server_name: broker.example }\n"),
    ("conduits.*.flows.*.tls.server", Plan, "        service: mqtt\n", "        service: mqtt\n        tls: { server: plain }\n"),
    ("conduits.*.flows.*.tls.server_port", Warns(Code::PlainServerUnfit), "        service: mqtt\n", "        service: mqtts\n        tls: { server_port: 1883 }\n"),
    ("conduits.*.flows.*.tls.server_authorities", Warns(Code::NotCertificates), "        service: mqtt\n", "        service: mqtts\n        tls: { server_authorities: none }\n"),
    ("remote_access", Plan, "  visit:\n", "  call:\n"),
    ("remote_access.*.person", Plan, "person: Carla", "person: Clara"),
    ("remote_access.*.conduit", Plan, "conduit: maintain\n    reason", "conduit: reports\n    reason"),
    ("remote_access.*.reason", Record, "reason: maintenance", "reason: repair"),
    ("remote_access.*.from", Plan, "2026-12-01T08:00:00Z", "2026-12-01T09:00:00Z"),
    ("remote_access.*.until", Plan, "2026-12-01T16:00:00Z", "2026-12-01T17:00:00Z"),
    ("remote_access.*.approved_by", Record, "approved_by: anna", "approved_by: ben"),
    ("break_glass", Plan, "risk:\n", BREAK_GLASS),
    ("break_glass.longest", Plan, "longest: 4h", "longest: 90m"),
    ("break_glass.people", Plan, "    kim: {", "    kit: {"),
    ("break_glass.people.*.key", Plan, "ed25519:0ac89f326ec1a4d2cfe9fa3a92deab2eabf9e532f72b39c14830d1a03edce4c8", "ed25519:8142899829d38d0f3bec25a6be45e90ea4c9c9382fa1fb20673a186a2f4137fd"),
    ("break_glass.people.*.sites", Plan, "edce4c8\" }", "edce4c8\", sites: annex }"),
    ("break_glass.sealed", Plan, "    gw-1: \"sha256:1", "    gw-1: \"sha256:2"),
    ("compensating_controls", Record, "  no-login:\n", "  no-password:\n"),
    ("compensating_controls.*.zone", Record, "    zone: safety\n    asset: plc\n", "    asset: plc\n"),
    ("compensating_controls.*.asset", Record, "    zone: safety\n    asset: plc\n", "    zone: safety\n"),
    ("compensating_controls.*.conduit", Record, CONTROL, "    expires: 2027-06-30\n    conduit: watch\n"),
    ("compensating_controls.*.requirement", Record, "SR 1.2", "SR 1.3"),
    ("compensating_controls.*.reason", Record, "It knows no user.", "It has no keyboard."),
    ("compensating_controls.*.measure", Record, "The cabinet is locked.", "The hall is locked."),
    ("compensating_controls.*.approved_by", Record, "approved_by: ben", "approved_by: anna"),
    ("compensating_controls.*.expires", Warns(Code::Expired), "2027-06-30", "2026-11-21"),
    ("conduits.*.enforced_by", Warns(Code::NotEnforcedHere), "    only_by_grant: yes\n", "    only_by_grant: yes\n    enforced_by: none\n"),
    ("conduits.*.enforced_by.other", Warns(Code::NotEnforcedHere), "    only_by_grant: yes\n", "    only_by_grant: yes\n    enforced_by: { other: A firewall }\n"),
    ("accepted", Finds("PC0191"), "risk:\n", ACCEPTED),
    ("accepted.code", Record, "code: PC0120", "code: PC0121"),
    ("accepted.where", Record, "where: safety, by", "where: ops, by"),
    ("accepted.says", Record, "reason: known", "reason: known, says: any client"),
    ("accepted.by", Record, "by: anna", "by: ben"),
    ("accepted.reason", Record, "reason: known", "reason: well known"),
    ("accepted.expires", Record, "expires: 2027-07-01", "expires: 2027-07-02"),
    ("templates", Warns(Code::TemplateUnused), "sites:\n", "templates:\n  yard:\n    sites: { $(station): { timezone: UTC } }\nsites:\n"),
    ("stations", Record, "sites:\n", "templates:\n  yard:\n    sites: { $(station): { timezone: UTC } }\nstations:\n  north: { template: yard }\nsites:\n"),
    ("groups", Warns(Code::GroupUnfit), "zones:\n", "groups: { all: group:others }\nzones:\n"),
    ("risk", Record, "threat: A wrong write", "threat: A write too many"),
    ("risk.threat", Record, "threat: A wrong write", "threat: A write too many"),
    ("risk.zone", Record, "conduit: watch, likelihood", "zone: safety, conduit: watch, likelihood"),
    ("risk.conduit", Record, "conduit: watch, likelihood", "conduit: reports, likelihood"),
    ("risk.likelihood", Record, "likelihood: 2", "likelihood: 1"),
    ("risk.impact", Record, "impact: 5", "impact: 4"),
    ("risk.residual", Record, "residual: 4", "residual: 3"),
    ("risk.countermeasures", Record, "residual: 4", "residual: 4, countermeasures: A lock"),
];

/// What the edit of a line starts from, where the base document alone cannot show it.
fn ground(key: &str) -> String {
    match key {
        // A zone that observes.
        "zones.*.sl_target" => BASE.replace(
            "    kind: operations\n",
            "    kind: operations\n    enforcement: observe\n",
        ),
        // Only a bridged gateway holds anyone to a MAC address.
        "assets.*.mac" => {
            let (_, _, routed, bridged) = LINES.iter().find(|(key, ..)| *key == "gateways.*.mode").unwrap();
            BASE.replace(routed, bridged)
        }
        // Windows are read by the site's clock.
        "sites.*.timezone" => BASE.replace(GATEWAY, "    mode: routed\n    window: Sun 02:00-04:00\n"),
        "conduits.*.tunnel" => tunnelled(),
        _ if key.starts_with("gateways.*.tunnel.") => tunnelled(),
        "conduits.*.flows.*.roles" | "conduits.*.flows.*.default_role" => BASE.replace(READ, BY_ROLE),
        _ if key.starts_with("conduits.*.frames") => frames::bridged(frames::IO),
        _ if key.starts_with("accepted.") => BASE.replace("risk:\n", ACCEPTED),
        _ if key.starts_with("break_glass.") => BASE.replace("risk:\n", BREAK_GLASS),
        _ if key.starts_with("gateways.*.safe_to_change.") => {
            let of_topic = ["mqtt", "topic", "tls"].iter().any(|word| key.contains(word));
            let asked = if of_topic {
                "mqtt: hmi, topic: a/safe, is: safe"
            } else {
                "modbus: plc, coil: 1, is: on"
            };
            BASE.replace(
                GATEWAY,
                &format!("    mode: routed\n    safe_to_change: {{ {asked} }}\n"),
            )
        }
        _ => BASE.to_owned(),
    }
}

/// The keys of all records below `schema`, by path. Operations are walked by themselves.
fn walk(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let joined = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        // A bridge writes them for each end.
        let of_ends = path.ends_with(".tls") || path.ends_with(".service");
        if of_ends && ["source", "destination"].contains(&key.as_str()) {
            continue;
        }
        if ["IAC", "UC", "SI", "DC", "RDF", "TRE", "RA"].contains(&key.as_str()) {
            continue;
        }
        found.insert(joined(key));
        if !["allow", "roles"].contains(&key.as_str()) {
            walk(inner, &joined(key), found);
        }
    }
    if schema["additionalProperties"].is_object() {
        walk(&schema["additionalProperties"], &joined("*"), found);
    }
    for alternative in schema["anyOf"].as_array().into_iter().flatten() {
        walk(alternative, path, found);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], path, found);
    }
}

fn plans(plant: &Plant) -> Vec<String> {
    let plans = compile_all(plant).unwrap();
    let text = |plan: &crate::plan::Plan| String::from_utf8(plan.to_bytes()).unwrap();
    plans.values().map(text).collect()
}

/// The plan of the first gateway.
fn of_first(plant: &Plant) -> String {
    let plans = compile_all(plant).unwrap();
    let plan = plans.values().next().unwrap();
    String::from_utf8(plan.to_bytes()).unwrap()
}

fn fleet(plant: &Plant) -> crate::rollout::Fleet {
    crate::rollout::Fleet::of(plant).unwrap()
}

/// What the checker finds under this code.
fn found(plant: &Plant, code: &str) -> Vec<String> {
    let findings = check(plant, &compile_all(plant).unwrap(), None);
    let of_code = findings.iter().filter(|finding| finding.code == code);
    of_code.map(ToString::to_string).collect()
}

fn assert_does((key, does, from, to): &Line) {
    let before = ground(key);
    assert!(before.contains(from), "{key}: the document holds {from:?}");
    let (old, new) = (load_text(&before), load_text(&before.replacen(from, to, 1)));
    let count =
        |loaded: &super::LoadedDocument, code| codes(loaded).iter().filter(|found| **found == code).count();
    if let Warns(code) = does {
        assert_ne!(
            count(&old, *code),
            count(&new, *code),
            "{key}: {code} does not come or go"
        );
        return;
    }
    let shown = |loaded: &super::LoadedDocument| {
        codes(loaded)
            .into_iter()
            .filter(|code| code.severity() == crate::diagnostics::Severity::Error)
            .count()
    };
    assert_eq!(shown(&new), 0, "{key}: {:?}", codes(&new));
    let (old, new) = (old.plant.unwrap(), new.plant.unwrap());
    let diff = diff(Some(&old), &new).unwrap();
    match does {
        Plan => assert_ne!(plans(&old), plans(&new), "{key}"),
        Release => assert!(
            diff.changes
                .iter()
                .any(|change| change.effect != Effect::Recorded),
            "{key}: {diff}"
        ),
        Finds(code) => assert_ne!(found(&old, code), found(&new, code), "{key}"),
        Record => {
            assert!(!diff.changes.is_empty(), "{key} is not shown");
            assert_eq!(plans(&old), plans(&new), "{key} is more than a record");
        }
        Fleet => {
            assert_ne!(fleet(&old), fleet(&new), "{key}");
            assert!(!diff.changes.is_empty(), "{key} is not shown");
            assert_eq!(
                of_first(&old),
                of_first(&new),
                "{key} is the coordinator's, not the gateway's"
            );
        }
        Warns(_) => {}
    }
}

#[test]
fn every_key_of_the_grammar_does_something_or_is_reported_as_recorded_only() {
    let mut keys = BTreeSet::new();
    walk(&json_schema(), "", &mut keys);
    // What stands in a template is what it comes to: `stations` holds the two against each other.
    keys.retain(|key| !key.starts_with("templates.") && !key.starts_with("stations."));
    let lines: BTreeSet<String> = LINES.iter().map(|(key, ..)| (*key).to_owned()).collect();
    assert_eq!(keys, lines, "each key of the grammar once");
    assert_eq!(lines.len(), LINES.len());
    let failed = |line: &&Line| std::panic::catch_unwind(|| assert_does(line)).is_err();
    let failed: Vec<_> = LINES.iter().filter(failed).map(|(key, ..)| key).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// A value for a parameter of an operation, and another one.
fn values(parameter: &str) -> [&'static str; 2] {
    match parameter {
        "topics" => ["a/b", "a/c"],
        "client_ids" | "users" => ["one", "two"],
        "retain" => ["yes", "no"],
        _ => ["0", "1"],
    }
}

#[test]
fn every_operation_and_each_of_its_limits_is_in_the_plan() {
    let plan_of = |service: &str, operation: &str| {
        let text = BASE
            .replace("service: modbus-tcp", &format!("service: {service}"))
            .replace("{ read-coils: { units: 1, addresses: 0-9 } }", operation);
        let loaded = load_text(&text);
        let plant = loaded
            .plant
            .as_ref()
            .unwrap_or_else(|| panic!("{operation}: {:?}", codes(&loaded)));
        plans(plant)
    };
    let (mut walked, mut named) = (0, 0);
    for protocol in Protocol::all() {
        for name in protocol.names() {
            named += 1;
            let shape = protocol.shape(name).unwrap();
            for takes in shape.limits {
                let with = |value: &str| {
                    let others = shape.limits.iter().filter(|other| other.required.is_some());
                    let others = others.map(|other| other.limit.name);
                    let limits = others
                        .filter(|other| *other != takes.limit.name)
                        .map(|other| (other, values(other)[0]))
                        .chain([(takes.limit.name, value)])
                        .map(|(limit, value)| format!("{limit}: {value}"))
                        .collect::<Vec<_>>();
                    plan_of(
                        protocol.word,
                        &format!("{{ {name}: {{ {} }} }}", limits.join(", ")),
                    )
                };
                let [one, other] = values(takes.limit.name);
                assert_ne!(with(one), with(other), "{name}: {}", takes.limit.name);
                walked += 1;
            }
        }
    }
    assert!(walked > 50 && named > 20, "only {walked} limits");
}
