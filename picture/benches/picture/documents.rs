//! Documents of large plants: stations around a centre, equal or each different, and one site with very many zones. Also what the crate's
//! tests draw.

use std::fmt::Write as _;

use penstock_policy::diagnostics::SourceFile;
use penstock_policy::model::Plant;

/// In what stations differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stations {
    /// Only in names, titles and addresses.
    Equal,
    /// Each has another port; some have a safety zone, or fewer assets.
    Different,
}

const HEAD: &str = "plant: large
title: Northshire Water
approvers:
  threshold: 1
  people:
    bob: { key: \"ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\" }
";

/// A control centre and so many stations with their own gateways, each with so many assets.
pub(crate) fn stations(count: usize, assets: usize, how: Stations) -> String {
    let differ = how == Stations::Different;
    let mut text = format!("{HEAD}sites:\n  centre: {{ title: Control centre, timezone: UTC }}\n");
    let name = |n: usize| format!("s-{n:04}");
    let net = |n: usize| format!("10.{}.{}", 20 + n / 250, n % 250);
    let sis_net = |n: usize| format!("10.{}.{}", 120 + n / 250, n % 250);
    let wan = |n: usize| format!("172.{}.{}.2", 16 + n / 250, n % 250);
    let has_sis = |n: usize| differ && n.is_multiple_of(3);
    for n in 0..count {
        writeln!(text, "  {}: {{ title: Station {n}, timezone: UTC }}", name(n)).unwrap();
    }
    let all: Vec<String> = (0..count).map(name).collect();
    writeln!(
        text,
        "gateways:\n  gw-centre: {{ site: centre, mode: routed, interfaces: {{ eth1: {{ zone: wan, behind: [{}], address: \
         172.31.0.1/12 }}, eth2: {{ zone: centre, address: 10.0.0.1/24 }} }}, management: {{ interface: eth0, peers: 192.0.2.10 }} }}",
        all.join(", ")
    )
    .unwrap();
    for n in 0..count {
        let sis = if has_sis(n) {
            format!(
                ", eth3: {{ zone: {}-sis, address: {}.1/24 }}",
                name(n),
                sis_net(n)
            )
        } else {
            String::new()
        };
        writeln!(
            text,
            "  gw-{}: {{ site: {}, mode: routed, interfaces: {{ eth1: {{ zone: wan, behind: centre, address: {}/12 }}, \
             eth2: {{ zone: {}, address: {}.1/24 }}{sis} }}, management: {{ interface: eth0, peers: 192.0.2.10 }} }}",
            name(n),
            name(n),
            wan(n),
            name(n),
            net(n)
        )
        .unwrap();
    }
    text.push_str(
        "zones:\n  wan: { title: The carrier's network, kind: external, networks: 172.16.0.0/12 }\n  \
         centre: { title: Control centre, kind: operations, networks: 10.0.0.0/24, sl_target: 2 }\n",
    );
    for n in 0..count {
        writeln!(
            text,
            "  {}: {{ title: Station {n}, kind: control, networks: {}.0/24, sl_target: 2 }}",
            name(n),
            net(n)
        )
        .unwrap();
        if has_sis(n) {
            writeln!(
                text,
                "  {}-sis: {{ title: Shutdown {n}, kind: safety, networks: {}.0/24, sl_target: 3 }}",
                name(n),
                sis_net(n)
            )
            .unwrap();
        }
    }
    text.push_str(
        "assets:\n  scada: { zone: centre, address: 10.0.0.11, role: scada-server, criticality: high }\n",
    );
    for n in 0..count {
        let fewer = if differ { n % 7 } else { 0 };
        for asset in 0..assets.saturating_sub(fewer).max(1) {
            let role = ["plc", "hmi", "flow sensor", "valve"][asset % 4];
            let address = format!("{}.{}", net(n), 10 + asset);
            writeln!(
                text,
                "  {}.a{asset}: {{ zone: {}, address: {address}, role: {role} }}",
                name(n),
                name(n)
            )
            .unwrap();
        }
        if has_sis(n) {
            writeln!(
                text,
                "  {}.sis: {{ zone: {}-sis, address: {}.10, role: safety-plc }}",
                name(n),
                name(n),
                sis_net(n)
            )
            .unwrap();
        }
    }
    text.push_str("conduits:\n");
    for n in 0..count {
        let service = if differ {
            format!("tcp/{}", 1000 + n)
        } else {
            "modbus-tcp, allow: any".to_owned()
        };
        writeln!(
            text,
            "  {}.watch: {{ title: Watch station {n}, from: centre, to: {}, flows: {{ poll: {{ source: scada, destination: {}.a0, \
             service: {service}, must_flow: yes }} }} }}",
            name(n),
            name(n),
            name(n)
        )
        .unwrap();
        if has_sis(n) {
            writeln!(
                text,
                "  {}.trip: {{ from: {}, to: {}-sis, flows: {{ trip: {{ source: {}.a0, destination: {}.sis, service: tcp/5000 }} }} }}",
                name(n),
                name(n),
                name(n),
                name(n),
                name(n)
            )
            .unwrap();
        }
    }
    text
}

/// One site with so many zones, each joined with the one before and with one that has nothing to do with it.
pub(crate) fn flat(zones: usize) -> String {
    let mut text = format!("{HEAD}sites: {{ works: {{ title: Works, timezone: UTC }} }}\ngateways:\n");
    let net = |n: usize| format!("10.{}.{}", 20 + n / 250, n % 250);
    for n in 1..zones {
        writeln!(
            text,
            "  gw-{n}: {{ site: works, mode: bridged, interfaces: {{ eth1: {{ zone: z-{} }}, eth2: {{ zone: z-{n} }} }} }}",
            n - 1
        )
        .unwrap();
    }
    text.push_str("zones:\n");
    for n in 0..zones {
        let kind = ["operations", "control", "control", "safety"][n % 4];
        writeln!(
            text,
            "  z-{n}: {{ title: Cell {n}, kind: {kind}, networks: {}.0/24 }}",
            net(n)
        )
        .unwrap();
    }
    text.push_str("assets:\n");
    for n in 0..zones {
        for asset in 0..1 + n % 5 {
            let address = format!("{}.{}", net(n), 10 + asset);
            writeln!(
                text,
                "  a-{n}-{asset}: {{ zone: z-{n}, address: {address}, role: plc }}"
            )
            .unwrap();
        }
    }
    text.push_str("conduits:\n");
    for n in 1..zones {
        for (other, via) in [
            (n - 1, String::new()),
            (
                (n.wrapping_mul(2_654_435_761) >> 7) % n,
                ", enforced_by: { other: Firewall }".to_owned(),
            ),
        ] {
            if other == n - 1 && !via.is_empty() {
                continue;
            }
            writeln!(
                text,
                "  c-{n}-{other}: {{ from: z-{other}, to: z-{n}{via}, flows: {{ f: {{ source: a-{other}-0, destination: a-{n}-0, \
                 service: tcp/{} }} }} }}",
                1000 + n
            )
            .unwrap();
        }
    }
    text
}

/// The plant of a document.
pub(crate) fn read(text: String) -> Plant {
    let file = SourceFile {
        name: "plant.yaml".to_owned(),
        text,
    };
    let loaded = penstock_policy::load(&[file], jiff::civil::date(2026, 12, 1));
    let faults: Vec<_> = loaded.diagnostics.errors().take(3).collect();
    loaded.plant.unwrap_or_else(|| panic!("{faults:?}"))
}
