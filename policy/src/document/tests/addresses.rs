//! The Internet as a zone, addresses in a row, and the plant's own names of assets.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{BASE, codes, load_text};
use crate::diagnostics::Code;

/// The office is the Internet, and has a server of its own.
fn online() -> String {
    BASE.replace("kind: enterprise", "kind: external")
        .replace("networks: 10.1.0.0/24", "networks: internet")
        .replace("10.1.0.1/24", "198.18.0.1/24")
        .replace("10.1.0.20", "9.9.9.9")
        .replace("zone: office, address: 198.18.0.1/24", "zone: uplink, behind: office, address: 198.18.0.1/24")
        .replacen(
            "zones:\n",
            "zones:\n  uplink: { kind: external, networks: 198.18.0.0/24, accountable: it, boundary: a cable }\n",
            1,
        )
}

#[test]
fn the_internet_is_all_public_addresses_that_no_other_zone_has() {
    let plant = load_text(&online().replace("networks: 10.3.0.0/24", "networks: [10.3.0.0/24, 8.8.8.0/24]"));
    assert_eq!(codes(&plant), []);
    let plant = plant.plant.unwrap();
    let networks = &plant.zones[&"office".parse().unwrap()].networks;
    let holds = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        networks.iter().filter(|net| net.contains(&address)).count()
    };
    for outside in [
        "1.1.1.1",
        "8.8.7.255",
        "8.8.9.0",
        "223.255.255.255",
        "2606:4700::1111",
    ] {
        assert_eq!(holds(outside), 1, "{outside}");
    }
    for inside in [
        "8.8.8.8",
        "10.9.9.9",
        "172.16.0.1",
        "192.168.1.1",
        "127.0.0.1",
        "169.254.1.1",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "0.0.0.1",
        "198.18.0.7",
        "fd00::1",
        "fe80::1",
        "ff02::1",
        "2001:db8::1",
        "::1",
    ] {
        assert_eq!(holds(inside), 0, "{inside}");
    }
}

#[test]
fn there_is_one_internet_and_it_is_outside() {
    let inside = online().replacen(
        "kind: external\n    sl_target",
        "kind: enterprise\n    sl_target",
        1,
    );
    assert_eq!(codes(&load_text(&inside)), [Code::NotTheInternet]);
    let second = online().replace("networks: 198.18.0.0/24", "networks: internet");
    assert!(codes(&load_text(&second)).contains(&Code::NotTheInternet));
}

#[test]
fn a_row_of_addresses_is_each_of_them() {
    let with = |addresses: &str| {
        BASE.replace(
            "  plc: { zone: safety, address: 10.3.0.7, identity: D0 }",
            &format!("  plc: {{ zone: safety, addresses: {addresses}, identity: D0 }}"),
        )
    };
    let row = load_text(&with("[10.3.0.7-10.3.0.9]"));
    assert_eq!(codes(&row), []);
    let listed = load_text(&with("[10.3.0.7, 10.3.0.8, 10.3.0.9]"));
    assert_eq!(row.plant, listed.plant);
    for (addresses, code) in [
        ("[10.3.0.9-10.3.0.7]", Code::NotANetwork),
        ("[10.3.0.7-10.3.0.7]", Code::NotANetwork),
        ("[10.3.0.7-fd00::9]", Code::NotANetwork),
        ("[10.0.0.0-10.3.0.9]", Code::NotANetwork),
        ("[10.3.0.7-]", Code::NotANetwork),
        ("[10.3.0.7-10.3.0.9, 10.3.0.8]", Code::AddressTwice),
        ("[10.3.0.250-10.3.0.255]", Code::NotAHostAddress),
    ] {
        let loaded = load_text(&with(addresses));
        assert_eq!(codes(&loaded).first(), Some(&code), "{addresses}");
        assert!(loaded.plant.is_none(), "{addresses}");
    }
}

proptest! {
    #[test]
    fn no_row_holds_more_or_less_than_is_between_its_ends(first in 0_u32..u32::MAX - 300, more in 1_u32..300) {
        use crate::document::addresses::Addresses;
        use crate::document::node::{Kind, Node};
        use crate::document::read::Term;
        use crate::diagnostics::source::Place;
        let ends = [first, first + more].map(std::net::Ipv4Addr::from);
        let node = Node {
            place: Place::new(0, 0, 0),
            kind: Kind::Scalar { text: format!("{}-{}", ends[0], ends[1]), plain: true },
        };
        let read = Addresses::read(&node, &mut crate::diagnostics::faults::Faults::default());
        let wanted: Vec<IpAddr> = (first..=first + more).map(|n| IpAddr::V4(n.into())).collect();
        prop_assert_eq!(read.map(|row| row.0), (more < 256).then_some(wanted));
    }
}

#[test]
fn a_tag_is_one_assets_and_no_other_assets_name() {
    let tagged = |clerk: &str, hmi: &str| {
        BASE.replace("clerk: { zone", &format!("clerk: {{ tag: \"{clerk}\", zone"))
            .replace("hmi: { zone", &format!("hmi: {{ tag: \"{hmi}\", zone"))
    };
    let good = load_text(&tagged("PC_01", "=A1+S2-K7"));
    assert_eq!(codes(&good), []);
    let tag = good.plant.unwrap().assets[&"hmi".parse().unwrap()].tag.clone();
    assert_eq!(tag.as_deref(), Some("=A1+S2-K7"));
    assert_eq!(
        codes(&load_text(&tagged("clerk", "X"))),
        [],
        "its own name is no other's"
    );
    for (clerk, hmi) in [("PC_01", "PC_01"), ("hmi", "X"), ("X", "plc")] {
        assert_eq!(
            codes(&load_text(&tagged(clerk, hmi))),
            [Code::TagTwice],
            "{clerk} {hmi}"
        );
    }
}
