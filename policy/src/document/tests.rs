//! The document as a whole: the examples load clean, split files mean the same, every code has its example, and
//! no input panics.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod accepted;
mod addresses;
mod assurance;
mod break_glass;
mod changes;
mod codes;
mod effects;
mod elsewhere;
mod examples;
mod frames;
mod inside;
mod properties;
mod roles;
mod schema;
mod stations;
mod tunnels;

use jiff::civil::{Date, date};

use super::{LoadedDocument, load};
use crate::compile::compile_all;
use crate::diagnostics::{Code, SourceFile};
use crate::diff::diff;

/// The example that people start from.
const WATERWORKS: &str = include_str!("../../../deploy/examples/waterworks/plant.yaml");
/// A small plant in which every section occurs, to make faults in.
const BASE: &str = include_str!("tests/base.yaml");
const TODAY: Date = date(2026, 11, 22);

fn load_text(text: &str) -> LoadedDocument {
    load(&[SourceFile::new("plant.yaml", text)], TODAY)
}

fn codes(loaded: &LoadedDocument) -> Vec<Code> {
    loaded
        .diagnostics
        .iter()
        .map(|diagnostic| diagnostic.code)
        .collect()
}

#[test]
fn a_grant_is_as_long_as_gateways_count_it() {
    let until = |until: &str| codes(&load_text(&BASE.replace("until: 2026-12-01T16:00:00Z", until)));
    assert!(until("until: 2026-12-01T08:00:00.0009Z").contains(&Code::EndsBeforeItBegins));
    assert!(!until("until: 2026-12-01T08:00:00.001Z").contains(&Code::EndsBeforeItBegins));
}

#[test]
fn all_faults_come_at_once_and_no_plant_with_them() {
    let text = WATERWORKS
        .replace("enforcement: enforce", "enforcment: enforce")
        .replace("timezone: Europe/Berlin", "timezone: CET")
        .replace("destination: sis-1", "destination: sis-2")
        .replace("threshold: 2", "threshold: 9");
    let loaded = load_text(&text);
    assert!(loaded.plant.is_none());
    let expected = [
        Code::ThresholdUnreachable,
        Code::NotATimeZone,
        Code::UnknownKey,
        Code::UnknownName,
    ];
    assert_eq!(codes(&loaded), expected, "in the order of the text");
}

#[test]
fn one_wrong_field_brings_no_second_fault_about_what_hangs_on_it() {
    for (from, to, code) in [
        (
            "networks: 10.3.0.0/24",
            "networks: 10.3.0.0/33",
            Code::NotANetwork,
        ),
        ("kind: safety", "kind: safetty", Code::NotOneOf),
        ("address: 10.3.0.7", "address: 10.3.0.777", Code::NotANetwork),
        ("service: https", "service: htps", Code::UnknownService),
        ("    site: works", "    site: [works]", Code::WrongShape),
    ] {
        let loaded = load_text(&BASE.replacen(from, to, 1));
        assert_eq!(codes(&loaded), [code], "{to}");
    }
}

#[test]
fn a_document_in_several_files_is_the_same_plant() {
    for text in [WATERWORKS, BASE] {
        let whole = load_text(text).plant.unwrap();
        let cuts: Vec<usize> = ["\nassets:", "\nconduits:", "\nzones:"]
            .iter()
            .map(|key| text.find(key).unwrap())
            .collect();
        for cut in cuts {
            let files = [
                SourceFile::new("b.yaml", &text[cut..]),
                SourceFile::new("a.yaml", &text[..cut]),
            ];
            assert_eq!(load(&files, TODAY).plant.unwrap(), whole);
        }
    }
}

#[test]
fn a_section_continues_in_another_file_and_a_name_does_not() {
    let more = "assets:\n  plc-2: { zone: safety, address: 10.3.0.8 }\n";
    let files = [SourceFile::new("a.yaml", BASE), SourceFile::new("b.yaml", more)];
    assert_eq!(load(&files, TODAY).plant.unwrap().assets.len(), 4);

    let again = "assets:\n  plc: { zone: safety, address: 10.3.0.8 }\nplant: other\n";
    let files = [SourceFile::new("a.yaml", BASE), SourceFile::new("b.yaml", again)];
    let loaded = load(&files, TODAY);
    assert_eq!(codes(&loaded), [Code::DuplicateKey, Code::DuplicateKey]);
    for diagnostic in &loaded.diagnostics {
        assert_eq!(diagnostic.location.as_ref().unwrap().file, "b.yaml");
        assert_eq!(
            diagnostic.related[0].location.file, "a.yaml",
            "both places are named"
        );
    }
}

#[test]
fn an_inner_zone_takes_its_network_out_of_its_parents() {
    let plant = load_text(BASE).plant.unwrap();
    let networks = |zone: &str| plant.zones[&zone.parse().unwrap()].networks.clone();
    let written: Vec<ipnet::IpNet> = ["10.2.0.0/25", "10.2.0.192/26", "fd00:2::/64"]
        .iter()
        .map(|net| net.parse().unwrap())
        .collect();
    assert_eq!(networks("ops"), written);
    assert_eq!(networks("cells"), ["10.2.0.128/26".parse().unwrap()]);
}

#[test]
fn yaml_of_both_versions_means_what_it_says() {
    // Booleans in all their spellings, where a boolean is expected.
    for (word, value) in [
        ("on", true),
        ("yes", true),
        ("True", true),
        ("off", false),
        ("no", false),
        ("FALSE", false),
    ] {
        let written = format!("destination: plc\n        must_flow: {word}\n");
        let plant = load_text(&BASE.replace("destination: plc\n", &written))
            .plant
            .unwrap();
        let watch = &plant.conduits[&"watch".parse().unwrap()];
        assert_eq!(watch.flows[&"read".parse().unwrap()].must_flow, value, "{word}");
    }
    // Text stays as written, quoted or not; unquoted it is a warning where readers disagree.
    for (written, text, warned) in [
        ("2.10", "2.10", true),
        ("no", "no", true),
        ("\"2.10\"", "2.10", false),
        ("12:30", "12:30", true),
        ("v2", "v2", false),
    ] {
        let loaded = load_text(&BASE.replace("identity: D0", &format!("firmware: {written}")));
        assert_eq!(
            codes(&loaded),
            if warned { vec![Code::AmbiguousText] } else { vec![] },
            "{written}"
        );
        assert_eq!(
            loaded.plant.unwrap().assets[&"plc".parse().unwrap()]
                .firmware
                .as_deref(),
            Some(text)
        );
    }
    // Numbers are plain decimal digits.
    for written in ["010", "0x10", "1_0", "12:30", "1e3", "+1", "-1", "1.0", "٣"] {
        let loaded = load_text(&BASE.replace("likelihood: 2", &format!("likelihood: {written}")));
        assert_eq!(codes(&loaded), [Code::NotANumber], "{written}");
    }
}

#[test]
fn a_file_that_is_not_utf_8_says_where() {
    let error = SourceFile::from_bytes("plant.yaml", b"plant: x\ntitle: caf\xe9\n".to_vec()).unwrap_err();
    assert_eq!((error.line, error.offset, error.byte), (2, 19, 0xe9));
    assert!(error.to_string().contains("plant.yaml"));
}

#[test]
fn one_broken_file_does_not_hide_the_faults_of_the_others() {
    let files = [
        SourceFile::new("a.yaml", BASE.replace("kind: safety", "kind: safetty")),
        SourceFile::new("b.yaml", "assets: { plc-2: [ }\n"),
    ];
    assert_eq!(codes(&load(&files, TODAY)), [Code::NotOneOf, Code::NotYaml]);
}

#[test]
fn the_size_of_a_document_is_the_limit_that_it_meets_and_the_docs_say_the_same_number() {
    use super::limits::{self, DOCUMENT_BYTES_MAX, FILES_MAX, NODES_MAX};
    let said = format!("{} MiB and {FILES_MAX} files", DOCUMENT_BYTES_MAX >> 20);
    let page = include_str!("../../../docs/plant-document.md");
    assert!(
        page.contains(&said),
        "docs/plant-document.md does not say: {said}"
    );
    // The densest that a plant says: short names, short addresses, lists of ports.
    let assets: String = (0..2000).fold("assets:\n".to_owned(), |text, n| {
        text + &format!("  {n:x}: {{zone: z, address: 10.1.{}.{}}}\n", n / 250, n % 250)
    });
    let ports: Vec<String> = (1..1000).map(|port| port.to_string()).collect();
    for dense in [assets, format!("ports: [{}]\n", ports.join(","))] {
        let (mut nodes, mut faults) = (0, super::Faults::default());
        assert!(super::parse::parse(0, &dense, &mut nodes, &mut faults).is_some());
        let least = dense.len() / nodes;
        assert!(
            least >= DOCUMENT_BYTES_MAX / NODES_MAX,
            "{least} bytes for each value"
        );
    }
    let large = SourceFile::new("plant.yaml", " ".repeat(DOCUMENT_BYTES_MAX + 1));
    let loaded = load(&[large], TODAY);
    assert_eq!(codes(&loaded), [Code::TooLarge]);
    let words = loaded.diagnostics.errors().next().unwrap().message.clone();
    assert!(words.ends_with(&limits::in_words()), "{words}");
}

#[test]
fn a_folder_of_too_many_files_is_refused_before_it_is_read() {
    let files: Vec<SourceFile> = (0..1001)
        .map(|n| SourceFile::new(format!("{n}.yaml"), "["))
        .collect();
    assert_eq!(codes(&load(&files, TODAY)), [Code::TooLarge]);
}

#[test]
fn an_interface_takes_several_addresses_of_both_families_and_each_is_judged() {
    let with = |address: &str| {
        load_text(
            &BASE
                .replace("address: 10.3.0.1/24", &format!("address: {address}"))
                .replace(
                    "networks: 10.3.0.0/24",
                    "networks: [10.3.0.0/24, \"fd00:3::/64\"]",
                ),
        )
    };
    let dual = with("[10.3.0.1/24, \"fd00:3::1/64\", 10.3.0.2/24]");
    assert_eq!(codes(&dual), []);
    let plant = dual.plant.unwrap();
    let alone = with("10.3.0.1/24").plant.unwrap();
    assert_eq!(
        compile_all(&plant).unwrap(),
        compile_all(&alone).unwrap(),
        "what is the gateway's own is no end of a flow"
    );
    let difference = diff(Some(&alone), &plant).unwrap().to_string();
    assert!(
        difference.contains("10.3.0.1/24, fd00:3::1/64, 10.3.0.2/24 (was 10.3.0.1/24)"),
        "{difference}"
    );
    let interfaces = &plant.gateways.values().next().unwrap().interfaces;
    let shown: Vec<String> = interfaces["eth3"]
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(shown, ["10.3.0.1/24", "fd00:3::1/64", "10.3.0.2/24"]);
    assert_eq!(codes(&with("10.3.0.1/24")), [], "one alone needs no list");
    assert_eq!(
        codes(&with("[10.3.0.1/24, \"fd00:4::1/64\"]")),
        [Code::InterfaceOutsideZone]
    );
    assert_eq!(
        codes(&with("[10.3.0.1/24, 10.3.0.255/24]")),
        [Code::NotAHostAddress]
    );
    assert_eq!(codes(&with("[10.3.0.1/24, 10.3.0.1/24]")), [Code::RepeatedItem]);
    assert!(with("[]").plant.is_none(), "an empty list is no address");
}
