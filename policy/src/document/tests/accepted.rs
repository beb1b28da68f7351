//! Findings that people accepted: exactly the one that they saw, for as long as they said, and never an error.

use jiff::civil::date;

use super::{BASE, TODAY, codes, load_text};
use crate::check::{Finding, Severity, acceptance, check, main_subject, named};
use crate::compile::compile_all;
use crate::diagnostics::{Code, SourceFile};
use crate::diff::diff;
use crate::document::definitions::Defined;
use crate::document::load;
use crate::model::Plant;

fn with(entry: &str) -> String {
    BASE.replace("risk:\n", &format!("accepted:\n  - {entry}\nrisk:\n"))
}

fn findings(plant: &Plant) -> Vec<Finding> {
    check(plant, &compile_all(plant).unwrap(), None)
}

/// The one finding of this code.
fn finding(plant: &Plant, code: &str) -> Finding {
    let mut of_it = findings(plant).into_iter().filter(|finding| finding.code == code);
    let one = of_it.next().unwrap();
    assert!(of_it.next().is_none(), "{code} more than once");
    one
}

/// Any client may connect to the broker of `watch/tell`.
const ANY_CLIENT: &str = "PC0120";

#[test]
fn a_finding_is_accepted_by_its_code_and_all_that_it_names() {
    let plain = load_text(BASE).plant.unwrap();
    let found = finding(&plain, ANY_CLIENT);
    let names: Vec<String> = named(&plain, &found).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["watch/tell", "gw-1"], "{}", found.words);
    assert_eq!(acceptance(&plain, &found), None);
    for (names, matches) in [
        ("[watch/tell, gw-1]", true),
        ("[gw-1, watch/tell]", true),
        ("watch/tell", false),
        ("[watch/tell, gw-1, safety]", false),
        ("[watch/read, gw-1]", false),
    ] {
        let entry =
            format!("{{ code: {ANY_CLIENT}, where: {names}, by: anna, reason: known, expires: 2027-06-30 }}");
        let loaded = load_text(&with(&entry));
        assert_eq!(codes(&loaded), [], "{names}");
        let plant = loaded.plant.unwrap();
        let found = finding(&plant, ANY_CLIENT);
        assert_eq!(acceptance(&plant, &found).is_some(), matches, "{names}");
        let idle = findings(&plant).iter().any(|finding| finding.code == "PC0191");
        assert_eq!(idle, !matches, "{names}: an entry without a finding is noted");
    }
}

#[test]
fn an_entry_with_words_accepts_only_the_finding_that_says_them() {
    let plain = load_text(BASE).plant.unwrap();
    let words = finding(&plain, ANY_CLIENT).words;
    let part: String = words.chars().take(12).collect();
    for (says, matches) in [(part.as_str(), true), ("something else", false)] {
        let entry = format!(
            "{{ code: {ANY_CLIENT}, where: [watch/tell, gw-1], says: \"{}\", by: anna, reason: known, expires: 2027-06-30 }}",
            says.replace('"', "\\\"")
        );
        let plant = load_text(&with(&entry)).plant.unwrap();
        let found = finding(&plant, ANY_CLIENT);
        assert_eq!(acceptance(&plant, &found).is_some(), matches, "{says}: {words}");
    }
}

#[test]
fn behind_its_day_it_is_a_finding_like_any_other() {
    let entry = format!(
        "{{ code: {ANY_CLIENT}, where: [watch/tell, gw-1], by: anna, reason: known, expires: 2026-12-31 }}"
    );
    let text = with(&entry);
    let on = |day| load(&[SourceFile::new("plant.yaml", &*text)], day);
    let last = on(date(2026, 12, 31)).plant.unwrap();
    assert!(
        acceptance(&last, &finding(&last, ANY_CLIENT)).is_some(),
        "on its last day it counts"
    );
    let late = on(date(2027, 1, 1));
    assert!(codes(&late).contains(&Code::Expired), "{:?}", codes(&late));
    let late = late.plant.unwrap();
    assert_eq!(acceptance(&late, &finding(&late, ANY_CLIENT)), None);
    assert!(
        findings(&late).iter().all(|finding| finding.code != "PC0191"),
        "the warning says it already"
    );
}

#[test]
fn an_error_is_never_accepted() {
    let entry = "{ code: PC0101, where: gw-1, by: anna, reason: known, expires: 2027-06-30 }";
    let text = with(entry).replace("    management: { interface: eth0, peers: 192.0.2.10 }\n", "");
    let plant = load_text(&text).plant.unwrap();
    let found = finding(&plant, "PC0101");
    assert_eq!(found.severity, Severity::Error);
    assert_eq!(acceptance(&plant, &found), None);
}

#[test]
fn somebody_of_the_approvers_answers_for_what_exists() {
    for (entry, code) in [
        (
            "{ code: PC0120, where: watch/tel, by: anna, reason: known, expires: 2027-06-30 }",
            Code::UnknownName,
        ),
        (
            "{ code: PC0120, where: watch/tell, by: nobody, reason: known, expires: 2027-06-30 }",
            Code::UnknownName,
        ),
        (
            "{ code: PC0120, where: watch/tell, by: anna, expires: 2027-06-30 }",
            Code::MissingKey,
        ),
        (
            "{ code: PC0120, where: watch/tell, by: anna, reason: known }",
            Code::MissingKey,
        ),
        (
            "{ code: PC0120, where: [], by: anna, reason: known, expires: 2027-06-30 }",
            Code::EmptyList,
        ),
        (
            "{ code: PC12, where: watch/tell, by: anna, reason: known, expires: 2027-06-30 }",
            Code::NotAccepted,
        ),
    ] {
        let loaded = load_text(&with(entry));
        assert_eq!(codes(&loaded), [code], "{entry}");
        assert!(loaded.plant.is_none());
    }
}

#[test]
fn approvers_see_who_accepted_what_and_why_and_no_plan_changes() {
    let entry =
        "{ code: PC0120, where: [watch/tell, gw-1], by: anna, reason: until May, expires: 2027-06-30 }";
    let (old, new) = (
        load_text(BASE).plant.unwrap(),
        load_text(&with(entry)).plant.unwrap(),
    );
    let said = diff(Some(&old), &new).unwrap().to_string();
    assert!(
        said.contains("finding PC0120 at gw-1 and watch/tell")
            && said.contains("accepted by anna until 2027-06-30: until May"),
        "{said}"
    );
    let back = diff(Some(&new), &old).unwrap().to_string();
    assert!(back.contains("no longer accepted"), "{back}");
    assert_eq!(compile_all(&old).unwrap(), compile_all(&new).unwrap());
    assert!(
        diff(None, &new).unwrap().to_string().contains("until May"),
        "also of a first release"
    );
}

#[test]
fn what_a_finding_is_about_is_found_in_the_text() {
    let loaded = load(&[SourceFile::new("plant.yaml", BASE)], TODAY);
    let plant = loaded.plant.unwrap();
    let (kind, name) = main_subject(&plant, &finding(&plant, ANY_CLIENT)).unwrap();
    assert_eq!((kind, name.as_str()), (Defined::Flow, "watch/tell"));
    let line = BASE.lines().position(|line| line.trim() == "tell:").unwrap() + 1;
    assert_eq!(loaded.definitions.location(kind, &name).unwrap().line, line);
    assert_eq!(loaded.definitions.location(Defined::Zone, "watch"), None);
}
