//! Who may override a gateway, from the text to its plan.

use super::{BASE, codes, load_text};
use crate::compile::compile_all;
use crate::diagnostics::Code;
use crate::ids::Digest;
use crate::plan::{BreakGlass, Capability, Plan};
use crate::release::signing::ApproverKey;

/// A second gateway, at another site.
const ANNEX: &str = "  gw-2:\n    site: annex\n    mode: routed\n    interfaces:\n      eth1: { zone: office, address: 10.1.0.2/24 }\n      \
                     eth2: { zone: ops, behind: cells, address: 10.2.0.2/24 }\n      eth3: { zone: safety, address: 10.3.0.2/24 }\n    \
                     management: { interface: eth0, peers: 192.0.2.10 }\nzones:\n";

fn with(break_glass: &str) -> String {
    BASE.replace("zones:\n", ANNEX)
        .replace("risk:\n", &format!("break_glass:\n{break_glass}risk:\n"))
}

fn person(name: &str, seed: u8, sites: &str) -> String {
    let key = String::from(ApproverKey::from_seed(&[seed; 32]).public());
    format!("    {name}: {{ key: \"{key}\"{sites} }}\n")
}

/// What the plans of the two gateways have, and what else is said of the document.
fn permitted(break_glass: &str) -> ([Option<BreakGlass>; 2], Vec<Code>) {
    let loaded = load_text(&with(break_glass));
    let said = codes(&loaded);
    let plant = loaded.plant.unwrap_or_else(|| panic!("{said:?}"));
    let plans = compile_all(&plant).unwrap();
    let each = ["gw-1", "gw-2"].map(|name| {
        let plan = &plans[&name.parse().unwrap()];
        let overrides = Capability::of(Capability::OVERRIDES);
        assert_eq!(
            plan.requires.contains(&overrides),
            plan.break_glass.is_some(),
            "{name}"
        );
        assert_eq!(&Plan::from_bytes(&plan.to_bytes()).unwrap(), plan);
        plan.break_glass.clone()
    });
    (each, said)
}

#[test]
fn people_without_sites_may_override_every_gateway_for_a_shift() {
    let people = person("kim", 1, "") + &person("lee", 2, "");
    let ([one, other], said) = permitted(&format!("  people:\n{people}"));
    let one = one.unwrap();
    assert_eq!(Some(&one), other.as_ref());
    assert_eq!(
        (one.people.len(), one.codes.len(), one.longest_s),
        (2, 0, 8 * 3600)
    );
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn people_of_a_site_and_a_code_of_a_gateway_come_into_the_plans_where_they_count_and_no_other() {
    let people = person("kim", 1, ", sites: works") + &person("lee", 2, ", sites: [works, annex]");
    let code = Digest::of(b"a code");
    let ([one, other], said) = permitted(&format!("  people:\n{people}"));
    assert_eq!(one.unwrap().people.len(), 2);
    assert_eq!(other, None, "lee alone is nobody");
    assert_eq!(said, [Code::NotOverridable]);
    let sealed = format!("  longest: 90m\n  people:\n{people}  sealed: {{ gw-2: \"{code}\" }}\n");
    let ([one, other], said) = permitted(&sealed);
    assert!(said.is_empty(), "{said:?}");
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!((one.codes.len(), one.longest_s), (0, 5_400));
    assert_eq!((other.people.len(), other.codes), (1, [code].into()));
}

#[test]
fn a_document_without_the_section_gives_plans_with_the_bytes_that_they_had_before_there_was_one() {
    let plant = load_text(BASE).plant.unwrap();
    for plan in compile_all(&plant).unwrap().values() {
        let text = String::from_utf8(plan.to_bytes()).unwrap();
        assert!(
            !text.contains("break_glass") && !text.contains("overrides"),
            "{text}"
        );
    }
}

#[test]
fn a_wrong_part_of_the_section_brings_no_second_fault_and_no_plant() {
    let (lee, code) = (person("lee", 2, ""), Digest::of(b""));
    for (text, expected) in [
        (
            format!("  people:\n    kim: {{ key: ed25519:zz }}\n{lee}"),
            Code::NotAKey,
        ),
        (
            format!("  longest: shift\n  people:\n{}{lee}", person("kim", 1, "")),
            Code::NotANumber,
        ),
        (
            format!("  longest: 59s\n  people:\n{}{lee}", person("kim", 1, "")),
            Code::OutOfRange,
        ),
        (
            format!("  people:\n{}{lee}", person("kim", 1, ", sites: abroad")),
            Code::UnknownName,
        ),
        (
            format!("  people:\n{}{lee}", person("kim", 1, ", sites: []")),
            Code::EmptyList,
        ),
        ("  people: {}\n".to_owned(), Code::EmptyList),
        ("  sealed: { gw-1: [] }\n".to_owned(), Code::EmptyList),
        (
            format!(
                "  people:\n{}{lee}  sealed: {{ gw-1: [\"{code}\", \"{code}\"] }}\n",
                person("kim", 1, "")
            ),
            Code::RepeatedItem,
        ),
        (
            "  sealed: { gw-1: \"sha256:11\" }\n".to_owned(),
            Code::NotACodeDigest,
        ),
    ] {
        let loaded = load_text(&with(&text));
        assert_eq!(codes(&loaded), [expected], "{text}");
        assert!(loaded.plant.is_none());
    }
}
