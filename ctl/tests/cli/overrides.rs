//! Overrides away from the gateway: a code for the envelope, and a request that is read, signed and judged.

use std::path::Path;

use penstock_policy::ids::Digest;
use penstock_policy::overrides::{Code, Effect, OVERRIDE_FORMAT, Override, Signed};

use crate::said::{Said, ends, json, penstock, works};

/// The works with new keys of three people, of whom two may override its gateways.
fn overridable() -> tempfile::TempDir {
    let folder = works();
    let mut section = "break_glass:\n  longest: 4h\n  people:\n".to_owned();
    for person in ["k.lang", "m.ruiz", "stranger"] {
        let made = ends(
            folder.path(),
            0,
            &["key", "new", &format!("{person}.key"), "--output", "json"],
        );
        let key = json(&made.out)["public"].as_str().unwrap().to_owned();
        if person != "stranger" {
            section += &format!("    {person}: {{ key: \"{key}\" }}\n");
        }
    }
    std::fs::write(folder.path().join("plant/break-glass.yaml"), section).unwrap();
    folder
}

fn asked() -> Override {
    Override {
        format: OVERRIDE_FORMAT.to_owned(),
        plant: "riverside-water".parse().unwrap(),
        gateway: "gw-works".parse().unwrap(),
        release: Digest::of(b"release"),
        number: Digest::of(b"number"),
        seconds: 3 * 3600,
        reason: "HMI 1 burnt out".to_owned(),
        ticket: Some("INC-4711".to_owned()),
        effects: vec![Effect::Observe {
            one: "10.20.1.21/32".parse().unwrap(),
            other: "10.20.4.0/24".parse().unwrap(),
        }],
    }
}

/// Writes a request as the agent does: nobody has signed it.
fn request(folder: &Path, asked: &Override) {
    let signed = Signed {
        payload: asked.to_bytes(),
        signatures: Vec::new(),
    };
    std::fs::write(folder.join("asked"), signed.to_json()).unwrap();
}

fn sign(folder: &Path, code: i32, person: &str, more: &[&str]) -> Said {
    let key = format!("{person}.key");
    let arguments = [
        "override", "sign", "asked", "--key", &key, "--as", person, "--yes",
    ];
    ends(folder, code, &[&arguments, more].concat())
}

#[test]
fn two_people_sign_a_request_that_the_documents_then_permit() {
    let folder = overridable();
    let folder = folder.path();
    request(folder, &asked());
    let show = |code| {
        ends(
            folder,
            code,
            &["override", "show", "asked", "--documents", "plant"],
        )
        .out
    };
    let page = ends(folder, 0, &["override", "show", "asked"]).out;
    for said in [
        "gw-works of riverside-water",
        "3h from its beginning",
        "HMI 1 burnt out",
        "INC-4711",
        "nothing is refused between 10.20.1.21/32 and 10.20.4.0/24, only reported",
        "Nobody has signed it.",
        &penstock_policy::release::spoken(&Digest::of(b"release")),
    ] {
        assert!(page.contains(said), "{said}: {page}");
    }
    assert!(
        show(1)
            .contains("it takes two people of the document's `break_glass`, and none of them has signed it")
    );
    sign(folder, 0, "k.lang", &["--documents", "plant"]);
    let page = show(1);
    assert!(
        page.contains("✓ signed by k.lang") && page.contains("and only k.lang has signed it"),
        "{page}"
    );
    let said = sign(folder, 0, "m.ruiz", &["--documents", "plant", "-o", "whole"]);
    assert!(
        said.out.contains("penstock-agent override begin whole"),
        "{}",
        said.out
    );
    assert!(!show(1).contains("m.ruiz"), "the request itself is as it was");
    let whole = ends(
        folder,
        0,
        &[
            "override",
            "show",
            "whole",
            "--documents",
            "plant",
            "--output",
            "json",
        ],
    );
    let shown = json(&whole.out);
    assert_eq!(shown["permitted"], true);
    assert_eq!(shown["signatures"][1]["name"], "m.ruiz");
    assert_eq!(shown["signatures"][1]["counts"], true);
    assert_eq!(shown["effects"][0]["assets"][0], "hmi-1");
    sign(folder, 6, "m.ruiz", &["-o", "whole"]);
}

#[test]
fn one_key_does_not_sign_under_two_names_also_where_no_documents_are_at_hand() {
    let folder = overridable();
    let folder = folder.path();
    request(folder, &asked());
    sign(folder, 0, "k.lang", &[]);
    let again = [
        "override",
        "sign",
        "asked",
        "--key",
        "k.lang.key",
        "--as",
        "m.ruiz",
        "--yes",
    ];
    let said = ends(folder, 6, &again);
    assert!(
        said.err.contains("this key has signed it as k.lang already"),
        "{}",
        said.err
    );
    sign(folder, 0, "k.lang", &[]);
    let page = ends(folder, 0, &["override", "show", "asked"]).out;
    assert!(!page.contains("m.ruiz"), "{page}");
}

#[test]
fn nobody_signs_whom_the_documents_do_not_let_and_a_strangers_signature_counts_nowhere() {
    let folder = overridable();
    let folder = folder.path();
    request(folder, &asked());
    let said = sign(folder, 6, "stranger", &["--documents", "plant"]);
    assert!(said.err.contains("those who may: k.lang, m.ruiz"), "{}", said.err);
    let wrong = [
        "override",
        "sign",
        "asked",
        "--key",
        "stranger.key",
        "--as",
        "k.lang",
        "--yes",
        "--documents",
        "plant",
    ];
    assert!(
        ends(folder, 6, &wrong)
            .err
            .contains("not the key that `break_glass`")
    );
    // Without the documents nothing is known of who may; the judgement is the gateway's.
    ends(folder, 0, &wrong[..8]);
    let page = ends(folder, 1, &["override", "show", "asked", "--documents", "plant"]).out;
    assert!(
        page.contains("✗ the signature under the name k.lang does not count"),
        "{page}"
    );
}

#[test]
fn nothing_is_signed_that_was_not_shown_or_is_for_another_plant_or_longer_than_permitted() {
    let folder = overridable();
    let folder = folder.path();
    request(folder, &asked());
    let unasked = [
        "override",
        "sign",
        "asked",
        "--key",
        "k.lang.key",
        "--as",
        "k.lang",
    ];
    let said = ends(folder, 2, &unasked);
    assert!(said.err.contains("nobody can be asked here"));
    assert!(
        said.out.contains("HMI 1 burnt out"),
        "it is shown all the same: {}",
        said.out
    );
    let mut elsewhere = asked();
    elsewhere.plant = "elsewhere".parse().unwrap();
    request(folder, &elsewhere);
    sign(folder, 7, "k.lang", &["--documents", "plant"]);
    let mut long = asked();
    long.seconds = 5 * 3600;
    request(folder, &long);
    let page = ends(folder, 1, &["override", "show", "asked", "--documents", "plant"]).out;
    assert!(
        page.contains("it would last 5h, and the document permits 4h at most"),
        "{page}"
    );
}

#[test]
fn a_file_that_is_no_request_is_neither_shown_nor_signed() {
    let folder = overridable();
    let folder = folder.path();
    let mut hidden = asked();
    hidden.reason = "harmless\u{202e}\u{1b}[2J".to_owned();
    request(folder, &hidden);
    let said = sign(folder, 7, "k.lang", &[]);
    assert!(
        !said.err.contains(['\u{202e}', '\u{1b}']) && said.out.is_empty(),
        "{}",
        said.err
    );
    let mut unordered = asked();
    unordered.effects = vec![Effect::Unasked, unordered.effects[0]];
    request(folder, &unordered);
    ends(folder, 7, &["override", "show", "asked"]);
    for text in ["", "{}", "not json", &"x".repeat(40_000)] {
        std::fs::write(folder.join("asked"), text).unwrap();
        let code = if text.len() > 32 * 1024 { 6 } else { 7 };
        let said = ends(folder, code, &["override", "show", "asked"]);
        assert!(said.out.is_empty() && said.err.contains("asked"), "{}", said.err);
    }
}

#[test]
fn a_code_is_shown_once_with_the_line_that_makes_it_good_at_its_gateway() {
    let folder = overridable();
    let folder = folder.path();
    let seal = |gateway| {
        [
            "override",
            "seal",
            "--plant",
            "plant",
            "--gateway",
            gateway,
            "--output",
            "json",
        ]
    };
    let made = json(&ends(folder, 0, &seal("gw-works")).out);
    let code = Code::parse(made["code"].as_str().unwrap()).unwrap();
    let digest = code.digest(&"riverside-water".parse().unwrap(), &"gw-works".parse().unwrap());
    assert_eq!(made["digest"], digest.to_string());
    let path = folder.join("plant/break-glass.yaml");
    let before = std::fs::read_to_string(&path).unwrap();
    assert!(!before.contains(&digest.to_string()), "nothing is written");
    std::fs::write(
        &path,
        format!("{before}  sealed:\n    {}\n", made["line"].as_str().unwrap()),
    )
    .unwrap();
    ends(folder, 0, &["check", "plant"]);
    let again = json(&ends(folder, 0, &seal("gw-works")).out);
    assert_ne!(again["code"], made["code"]);
    let line = again["line"].as_str().unwrap();
    assert!(
        line.contains(&digest.to_string()) && line.contains(again["digest"].as_str().unwrap()),
        "{line}"
    );
    std::fs::write(&path, format!("{before}  sealed:\n    {line}\n")).unwrap();
    ends(folder, 0, &["check", "plant"]);
    let page = ends(
        folder,
        0,
        &["override", "seal", "--plant", "plant", "--gateway", "gw-works"],
    )
    .out;
    assert!(
        page.contains("break_glass:\n  sealed:\n    gw-works: ["),
        "{page}"
    );
    let said = penstock(folder, &seal("gw-9"));
    assert_eq!(said.code, 2);
    assert!(said.err.contains("gw-works"), "{}", said.err);
}
