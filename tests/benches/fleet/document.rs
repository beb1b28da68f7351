//! The plant of a fleet: one control room, and as many stations at its edge as there are gateways, each a zone, an asset and a
//! conduit. Also what `tests/scale.rs` measures.

use std::fmt::Write as _;

use penstock_policy::ids::Digest;
use penstock_policy::release::signing::ApproverKey;

pub(super) const PLANT: &str = "fleet";

/// An approver's key.
pub(super) fn key(person: &str) -> ApproverKey {
    ApproverKey::from_seed(&Digest::of(person.as_bytes()).0)
}

/// A gateway's name.
pub(super) fn gateway(number: u32) -> String {
    format!("gw-{number}")
}

/// The document; each revision's flows have another port.
pub(super) fn document(gateways: u32, revision: u64) -> String {
    let mut text = format!(
        "plant: {PLANT}\napprovers:\n  threshold: 2\n  people:\n    bob: {{ key: \"{}\" }}\n    carol: {{ key: \"{}\" }}\n\
         sites: {{ works: {{ title: Works, timezone: UTC }} }}\nzones:\n  \
         centre: {{ title: Centre, kind: operations, networks: [10.0.0.0/16] }}\n",
        String::from(key("bob").public()),
        String::from(key("carol").public()),
    );
    let net = |number: u32| format!("10.{}.{}", 1 + number / 250, number % 250);
    for number in 0..gateways {
        let net = net(number);
        writeln!(
            text,
            "  z-{number}: {{ title: Station, kind: control, networks: [{net}.0/24] }}"
        )
        .unwrap();
    }
    text.push_str("assets:\n  hmi: { zone: centre, address: 10.0.255.21 }\n");
    for number in 0..gateways {
        let net = net(number);
        writeln!(text, "  plc-{number}: {{ zone: z-{number}, address: {net}.7 }}").unwrap();
    }
    text.push_str("gateways:\n");
    for number in 0..gateways {
        let net = net(number);
        let centre = net.replacen("10", "10.0", 1);
        writeln!(
            text,
            "  {}: {{ site: works, mode: routed, interfaces: {{ eth1: {{ zone: centre, address: {centre}/16 }}, \
             eth2: {{ zone: z-{number}, address: {net}.1/24 }} }}, management: {{ interface: eth0, peers: [192.0.2.10] }} }}",
            gateway(number),
        )
        .unwrap();
    }
    text.push_str("conduits:\n");
    for number in 0..gateways {
        writeln!(
            text,
            "  c-{number}: {{ title: Station, from: centre, to: z-{number}, via: [{}], flows: {{ poll: {{ source: hmi, \
             destination: plc-{number}, service: tcp/{} }} }} }}",
            gateway(number),
            1000 + revision,
        )
        .unwrap();
    }
    text
}
