//! A plant of very many gateways in a document that may be so large: all are at one site, between the same two zones.

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

/// The document.
pub(super) fn document(gateways: u32) -> String {
    let mut text = format!(
        "plant: {PLANT}\napprovers:\n  threshold: 2\n  people:\n    bob: {{ key: \"{}\" }}\n    carol: {{ key: \"{}\" }}\n\
         sites: {{ works: {{ title: Works, timezone: UTC }} }}\nzones:\n  \
         centre: {{ title: Centre, kind: operations, networks: [10.0.0.0/16] }}\n  \
         field: {{ title: Field, kind: control }}\nassets:\n  hmi: {{ zone: centre, address: 10.0.255.21 }}\ngateways:\n",
        String::from(key("bob").public()),
        String::from(key("carol").public()),
    );
    for number in 0..gateways {
        let name = gateway(number);
        writeln!(
            text,
            "  {name}: {{ site: works, mode: bridged, interfaces: {{ a: {{ zone: centre }}, b: {{ zone: field }} }} }}"
        )
        .unwrap();
    }
    text
}
