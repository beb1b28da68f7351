//! Templates, stations and groups: what they come to is what somebody would have written by hand, and their faults point to where they
//! stand.

use proptest::prelude::*;

use super::{BASE, TODAY, codes, load_text};
use crate::compile::compile_all;
use crate::diagnostics::{Code, Diagnostic, SourceFile};
use crate::document::{expanded, load};

/// A hundred stations from one template.
const STATIONS: &str = include_str!("../../../../deploy/examples/pumping-stations/plant.yaml");

/// The template of [`STATIONS`], filled in by hand for one station: what a person would write without templates.
fn by_hand(name: &str, title: &str, net: &str, wan: &str, unit: u32) -> [(&'static str, String); 5] {
    [
        (
            "sites",
            format!("  {name}: {{ title: \"{title}\", timezone: Europe/London }}\n"),
        ),
        (
            "gateways",
            format!(
                "  gw-{name}:\n    site: {name}\n    mode: routed\n    interfaces:\n      eth1: {{ zone: wan, behind: centre, address: {wan}/16 }}\n      \
                 eth2: {{ zone: {name}, address: {net}.1/24 }}\n    management: {{ interface: eth0, peers: 192.0.2.10 }}\n    window: Sun 02:00-05:00\n"
            ),
        ),
        (
            "zones",
            format!(
                "  {name}:\n    title: Pumping station {title}\n    kind: control\n    sl_target: 2\n    networks: {net}.0/24\n    \
                 consequence: production\n    accountable: shift-lead\n    boundary: The station's building, locked and alarmed.\n"
            ),
        ),
        (
            "assets",
            format!(
                "  {name}.plc: {{ zone: {name}, address: {net}.10, role: plc, criticality: high }}\n  \
                 {name}.panel: {{ zone: {name}, address: {net}.20, role: hmi }}\n"
            ),
        ),
        (
            "conduits",
            format!(
                "  {name}.telecontrol:\n    title: The centre watches and steers {title}\n    from: centre\n    to: {name}\n    sl_target: 2\n    \
                 accountable: shift-lead\n    on_agent_loss: pass\n    flows:\n      polling:\n        source: [scada-1, scada-2]\n        \
                 destination: {name}.plc\n        service: modbus-tcp\n        must_flow: true\n        allow:\n          \
                 - read-holding-registers: {{ units: {unit}, addresses: 0-199 }}\n          \
                 - write-single-register: {{ units: {unit}, addresses: [40, 41], values: 0-1500 }}\n"
            ),
        ),
    ]
}

/// The example without its template and stations.
fn centre() -> &'static str {
    STATIONS.split("# What every").next().unwrap()
}

/// The example with these stations only.
fn with_stations(lines: &str) -> String {
    let (before, _) = STATIONS.split_once("\nstations:\n").unwrap();
    format!("{before}\nstations:\n{lines}")
}

fn written_out(text: &str) -> String {
    expanded(&[SourceFile::new("plant.yaml", text)]).unwrap().text()
}

fn one(loaded: &crate::LoadedDocument, code: Code) -> &Diagnostic {
    let mut of_it = loaded.diagnostics.iter().filter(|one| one.code == code);
    let one = of_it
        .next()
        .unwrap_or_else(|| panic!("{code}: {:?}", codes(loaded)));
    assert!(of_it.next().is_none(), "{code} more than once");
    one
}

#[test]
fn a_hundred_stations_are_a_hundred_lines_and_one_template() {
    let loaded = load_text(STATIONS);
    assert_eq!(codes(&loaded), []);
    let plant = loaded.plant.unwrap();
    assert_eq!(
        (plant.gateways.len(), plant.assets.len(), plant.conduits.len()),
        (101, 202, 100)
    );
    assert!(
        STATIONS.lines().count() < 210,
        "{} lines",
        STATIONS.lines().count()
    );
    let text = written_out(STATIONS);
    assert!(
        text.lines().count() > 3000,
        "{} lines by hand",
        text.lines().count()
    );
}

#[test]
fn what_is_expanded_has_the_same_plans_as_the_document_and_says_the_same_of_itself() {
    let text = written_out(STATIONS);
    let (short, long) = (load_text(STATIONS), load_text(&text));
    assert_eq!(codes(&long), codes(&short), "{text}");
    let (short, long) = (short.plant.unwrap(), long.plant.unwrap());
    assert_eq!(long, short);
    let bytes = |plant| -> Vec<Vec<u8>> {
        compile_all(plant)
            .unwrap()
            .values()
            .map(|plan| plan.to_bytes())
            .collect()
    };
    assert_eq!(bytes(&long), bytes(&short));
    let again = written_out(&text);
    assert_eq!(again, text, "what is written out stays as it is");
}

#[test]
fn one_station_is_written_out_alone() {
    let all = expanded(&[SourceFile::new("plant.yaml", STATIONS)]).unwrap();
    assert_eq!(all.stations().count(), 100);
    let text = all.station("ps-017").unwrap();
    assert!(
        text.contains("gw-ps-017:") && text.contains("ps-017.plc:") && text.contains("units: 2"),
        "{text}"
    );
    assert!(!text.contains("ps-016") && !text.contains("scada-1:"), "{text}");
    assert!(all.station("ps-101").is_none());
}

#[test]
fn a_document_without_templates_is_written_out_as_itself() {
    for document in [BASE, super::WATERWORKS] {
        let text = written_out(document);
        assert_eq!(load_text(&text).plant, load_text(document).plant, "{text}");
    }
}

#[test]
fn the_template_may_stand_in_another_file_than_its_stations() {
    let at = STATIONS.find("\nstations:\n").unwrap();
    let files = [
        SourceFile::new("b.yaml", &STATIONS[..at]),
        SourceFile::new("a.yaml", &STATIONS[at..]),
    ];
    let loaded = load(&files, TODAY);
    assert_eq!(codes(&loaded), []);
    assert_eq!(loaded.plant, load_text(STATIONS).plant);
}

proptest! {
    #[test]
    fn stations_from_a_template_are_what_writing_them_by_hand_gives(
        stations in prop::collection::btree_map("[a-z]{1,6}(-[0-9]{1,2})?", (1_u8..250, 1_u32..248), 1..6),
    ) {
        let mut taken = std::collections::BTreeSet::new();
        let mut lines = String::new();
        let mut sections = std::collections::BTreeMap::<&str, String>::new();
        let mut behind = Vec::new();
        for (name, (third, unit)) in stations {
            if !taken.insert(third) || name == "centre" || name == "wan" {
                continue;
            }
            let (net, wan) = (format!("10.20.{third}"), format!("10.255.{third}.2"));
            lines += &format!("  {name}: {{ template: pumping-station, title: \"At {name}\", net: {net}.0/24, wan: {wan}, unit: {unit} }}\n");
            for (section, text) in by_hand(&name, &format!("At {name}"), &net, &wan, unit) {
                *sections.entry(section).or_default() += &text;
            }
            behind.push(name);
        }
        prop_assume!(!behind.is_empty());
        let mut hand = centre().replace("group:stations", &format!("[{}]", behind.join(", ")));
        for (section, text) in &sections {
            let key = format!("\n{section}:\n");
            if hand.contains(&key) {
                hand = hand.replace(&key, &format!("{key}{text}"));
            } else {
                hand += &format!("{key}{text}");
            }
        }
        let (made, hand) = (load_text(&with_stations(&lines)), load_text(&hand));
        prop_assert!(!made.diagnostics.has_errors() && !hand.diagnostics.has_errors(), "{:?} {:?}", codes(&made), codes(&hand));
        let (made, hand) = (made.plant.unwrap(), hand.plant.unwrap());
        prop_assert_eq!(compile_all(&made).unwrap(), compile_all(&hand).unwrap());
        prop_assert_eq!(made, hand);
    }
}

#[test]
fn a_fault_in_a_template_is_shown_once_where_it_stands_with_its_stations() {
    let text = STATIONS.replace("role: hmi }", "rolle: hmi }");
    let loaded = load_text(&text);
    let fault = one(&loaded, Code::UnknownKey);
    assert_eq!(
        fault.message,
        "`rolle` is not a key of an asset (at the station `ps-001`, and at 99 others)"
    );
    let line = text.lines().position(|line| line.contains(" rolle:")).unwrap() + 1;
    assert_eq!(fault.location.as_ref().unwrap().line, line, "in the template");
    let station = text.lines().position(|line| line.contains("ps-001:")).unwrap() + 1;
    assert_eq!(fault.related[0].location.line, station, "and at the station");
}

#[test]
fn a_fault_of_one_station_names_that_one() {
    let net = STATIONS.replace("net: 10.20.17.0/24", "net: 10.20.16.0/24");
    let loaded = load_text(&net);
    let overlap = loaded
        .diagnostics
        .iter()
        .find(|one| one.code == Code::RepeatedItem || one.code == Code::NetworksOverlap)
        .unwrap();
    assert!(
        overlap.message.contains("at the station `ps-01"),
        "{}",
        overlap.message
    );
}

#[test]
fn a_station_gives_what_its_template_asks_for_and_nothing_else() {
    for (line, code) in [
        ("net: 10.20.1.0/24", Code::MissingKey),
        (
            "title: A, net: 10.20.1.0/24, wan: 10.255.1.2, unti: 2",
            Code::UnknownKey,
        ),
        ("title: A, net: 10.20.1.7/24, wan: 10.255.1.2", Code::HostBits),
        ("title: A, net: 10.20.1.0, wan: 10.255.1.2", Code::NotANetwork),
        ("title: A, net: 10.20.1.0/24, wan: north", Code::NotANetwork),
        (
            "title: A, net: 10.20.1.0/24, wan: 10.255.1.2, unit: 01",
            Code::NotANumber,
        ),
        (
            "title: \"\", net: 10.20.1.0/24, wan: 10.255.1.2",
            Code::EmptyValue,
        ),
        ("title: [A], net: 10.20.1.0/24, wan: 10.255.1.2", Code::WrongShape),
        (
            "title: A, net: 10.20.1.0/28, wan: 10.255.1.2",
            Code::OutsideParameter,
        ),
    ] {
        let loaded = load_text(&with_stations(&format!(
            "  ps-1: {{ template: pumping-station, {line} }}\n"
        )));
        assert!(loaded.plant.is_none());
        assert!(codes(&loaded).contains(&code), "{line}: {:?}", codes(&loaded));
    }
    let loaded = load_text(&with_stations("  ps-1: { template: pumping-sation }\n"));
    assert!(
        one(&loaded, Code::UnknownName)
            .help
            .as_ref()
            .unwrap()
            .contains("`pumping-station`"),
        "the nearest is named"
    );
}

#[test]
fn what_is_given_is_never_read_as_a_placeholder_again() {
    let line = "  ps-1: { template: pumping-station, title: \"$(station) $(net)\", net: 10.20.1.0/24, wan: 10.255.1.2 }\n";
    let plant = load_text(&with_stations(line)).plant.unwrap();
    assert_eq!(plant.sites[&"ps-1".parse().unwrap()].title, "$(station) $(net)");
}

#[test]
fn outside_templates_a_dollar_is_a_dollar() {
    let plant = load_text(&BASE.replace("boundary: a building", "boundary: a $(building)"));
    assert_eq!(codes(&plant), []);
    assert_eq!(
        plant.plant.unwrap().zones[&"office".parse().unwrap()]
            .boundary
            .as_deref(),
        Some("a $(building)")
    );
}

#[test]
fn two_things_never_become_one() {
    // By hand and by a station; and by two stations, whose names run into each other.
    let by_hand = STATIONS.replace(
        "  scada-1:",
        "  ps-001.plc: { zone: centre, address: 10.10.0.99 }\n  scada-1:",
    );
    assert!(
        one(&load_text(&by_hand), Code::DuplicateKey)
            .message
            .contains("`ps-001.plc`")
    );
    let template = STATIONS.replace("$(station).panel", "$(station)-b.plc");
    let (before, _) = template.split_once("\nstations:\n").unwrap();
    let text = format!(
        "{before}\nstations:\n  a: {{ template: pumping-station, title: A, net: 10.20.1.0/24, wan: 10.255.1.2 }}\n  \
         a-b: {{ template: pumping-station, title: B, net: 10.20.2.0/24, wan: 10.255.2.2 }}\n"
    );
    let loaded = load_text(&text);
    assert!(
        one(&loaded, Code::DuplicateKey)
            .message
            .starts_with("`a-b.plc` is defined twice under `assets`")
    );
    assert!(loaded.plant.is_none());
}

#[test]
fn a_small_document_does_not_become_one_without_bound() {
    let long = "x".repeat(16_000);
    let line = |n: usize| format!("  s{n}: {{ template: t, x: {long} }}\n");
    let zone = |n: usize| format!("      $(station)-{n}: {{ kind: control, title: $(x), boundary: $(x) }}\n");
    let zones: String = (0..300).map(zone).collect();
    let stations: String = (0..40).map(line).collect();
    let text = BASE.replacen(
        "zones:\n",
        &format!("templates:\n  t:\n    parameters: {{ x: text }}\n    zones:\n{zones}stations:\n{stations}zones:\n"),
        1,
    );
    let loaded = load_text(&text);
    assert!(loaded.plant.is_none());
    let said: Vec<&str> = loaded
        .diagnostics
        .iter()
        .map(|one| one.message.as_str())
        .collect();
    assert!(
        said.iter().any(|said| said.contains("larger, written out, than")),
        "{said:?}"
    );
}

#[test]
fn a_group_stands_for_its_members_and_holds_no_group() {
    let with = |groups: &str, source: &str| {
        BASE.replacen("zones:\n", &format!("groups:\n  {groups}\nzones:\n"), 1)
            .replace(
                "        source: hmi\n        destination: plc",
                &format!("        source: {source}\n        destination: plc"),
            )
    };
    let plain = load_text(BASE).plant.unwrap();
    for (groups, source) in [
        ("panels: hmi", "group:panels"),
        ("panels: [hmi]", "[group:panels]"),
    ] {
        let loaded = load_text(&with(groups, source));
        assert_eq!(codes(&loaded), []);
        assert_eq!(loaded.plant.as_ref(), Some(&plain), "{source}");
    }
    for (groups, source, code) in [
        ("panels: hmi", "group:panel", Code::UnknownName),
        ("panels: [hmi, hmi]", "group:panels", Code::RepeatedItem),
        ("panels: hmi", "[hmi, group:panels]", Code::RepeatedItem),
        ("panels: group:others", "group:panels", Code::GroupUnfit),
        ("panels: []", "group:panels", Code::EmptyList),
        ("panels: nobody", "group:panels", Code::UnknownName),
    ] {
        let loaded = load_text(&with(groups, source));
        assert!(codes(&loaded).contains(&code), "{groups}: {:?}", codes(&loaded));
        assert!(loaded.plant.is_none(), "{groups}");
    }
    let behind = BASE
        .replacen(
            "zones:\n",
            "groups:\n  inner: zone:cells\n  wrong: hmi\nzones:\n",
            1,
        )
        .replace("behind: cells", "behind: group:inner");
    assert_eq!(load_text(&behind).plant, Some(plain));
    let wrong = behind.replace("group:inner", "group:wrong");
    assert_eq!(codes(&load_text(&wrong)), [Code::GroupUnfit]);
}
