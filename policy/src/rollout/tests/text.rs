//! Plans as files: what is written is read back, what is wrong is shown where it stands, and nothing is taken for more than was written.

use super::*;
use crate::diagnostics::{Code, Diagnostics, SourceFile, Style};

const PLAN: &str = "\
format: penstock-rollout/1
seed: 7
start: 2026-12-01T02:00:00+01:00
shadow: 1h
trial: 10m
silence: 5m
patience: 8d
gate: { soft_rate: 0.02 }
converge: { at_once: 1 }
waves:
  - name: lab
    gateways: { labels: { lab: \"*\" } }
    per_cell: 1
    soak: 1h
  - { name: rest, gateways: all, per_cell: 2, soak: 1d }
";

fn read(text: &str, fleet: Option<&Fleet>) -> (Option<RolloutPlan>, Diagnostics) {
    ReadPlan::of(&SourceFile::new("plan.yaml", text)).judged(fleet)
}

/// The plan with one text replaced by another; what is said of it.
fn spoilt(from: &str, to: &str) -> (Option<RolloutPlan>, Vec<(Code, usize, String)>) {
    assert!(PLAN.contains(from), "{from}");
    let (plan, diagnostics) = read(&PLAN.replacen(from, to, 1), Some(&fleet(12, 2)));
    let line = |one: &crate::diagnostics::Diagnostic| one.location.as_ref().map_or(0, |at| at.line);
    let said = diagnostics
        .iter()
        .map(|one| (one.code, line(one), one.message.clone()));
    (plan, said.collect())
}

#[test]
fn a_plan_in_yaml_says_what_the_same_plan_in_json_says() {
    let (plan, diagnostics) = read(PLAN, Some(&fleet(12, 2)));
    assert_eq!(diagnostics.render(Style::Narrated), "");
    let json = r#"{"format":"penstock-rollout/1","seed":7,"start_ms":1796086800000,"shadow":"1h","trial":"10m","silence":"5m",
        "patience":"8d","gate":{"soft_rate":0.02},"converge":{"at_once":1},"waves":[
        {"name":"lab","gateways":{"labels":{"lab":"*"}},"per_cell":1,"soak":"1h"},
        {"name":"rest","gateways":"all","per_cell":2,"soak":"1d"}]}"#;
    assert_eq!(plan.unwrap(), serde_json::from_str::<RolloutPlan>(json).unwrap());
}

#[test]
fn what_is_wrong_with_a_plan_is_shown_on_its_own_line() {
    for (from, to, code, line, words) in [
        (
            "trial: 10m",
            "trial: 5s",
            Code::RolloutPlanUnfit,
            5,
            "`trial`: 5s is not between 1m and 1d",
        ),
        (
            "shadow: 1h",
            "shadow: 0s",
            Code::RolloutPlanDoubtful,
            4,
            "`shadow`: without it",
        ),
        (
            "soft_rate: 0.02",
            "soft_rate: 1",
            Code::RolloutPlanUnfit,
            8,
            "`gate.soft_rate`",
        ),
        (
            "soft_rate: 0.02",
            "soft_rate: 2%",
            Code::NotANumber,
            8,
            "`2%` is not a rate",
        ),
        (
            "name: rest",
            "name: lab",
            Code::RolloutPlanUnfit,
            15,
            "another wave has this name",
        ),
        (
            "per_cell: 2",
            "per_cell: 0",
            Code::RolloutPlanUnfit,
            15,
            "`waves.rest.per_cell`",
        ),
        (
            "lab: \"*\"",
            "lab: bank",
            Code::RolloutPlanUnfit,
            12,
            "`waves.lab.gateways`",
        ),
        ("seed: 7", "seed: 007", Code::NotANumber, 2, "not a whole number"),
        (
            "shadow: 1h",
            "shadow: 60",
            Code::NotANumber,
            4,
            "not a length of time",
        ),
        (
            "gateways: all",
            "gateways: gw-00003",
            Code::NotOneOf,
            15,
            "chooses no gateways",
        ),
        (
            "gateways: all",
            "gateways: { list: [] }",
            Code::EmptyList,
            15,
            "the list is empty",
        ),
        (
            "gateways: all",
            "gateways: { site: works, percent: 5 }",
            Code::WrongShape,
            15,
            "in one way",
        ),
        (
            "gateways: all",
            "gateways: { percentage: 5 }",
            Code::UnknownKey,
            15,
            "not a way to choose",
        ),
        (
            "start: 2026-12-01T02:00:00+01:00",
            "start: 2026-12-01",
            Code::NotADate,
            3,
            "not a moment",
        ),
        ("seed: 7", "seed: &a 7", Code::Alias, 2, "anchor"),
        ("seed: 7\n", "", Code::MissingKey, 1, "has no `seed`"),
        (
            "trial: 10m",
            "trail: 10m",
            Code::UnknownKey,
            5,
            "`trail` is not a key of a rollout plan",
        ),
    ] {
        let (plan, said) = spoilt(from, to);
        let found = said
            .iter()
            .find(|(own, at, message)| *own == code && *at == line && message.contains(words));
        assert!(found.is_some(), "{to}: {said:?}");
        assert_eq!(plan.is_some(), code == Code::RolloutPlanDoubtful, "{to}");
    }
}

#[test]
fn without_a_fleet_a_plan_is_judged_by_what_it_says_alone() {
    let unknown = PLAN.replace("gateways: all", "gateways: { list: [gw-elsewhere] }");
    let (plan, diagnostics) = read(&unknown, None);
    assert!(plan.is_some(), "{}", diagnostics.render(Style::Narrated));
    let (plan, _) = read(&unknown, Some(&fleet(12, 2)));
    assert!(plan.is_none());
    let (plan, _) = read(&PLAN.replace("per_cell: 2", "per_cell: 0"), None);
    assert!(plan.is_none());
}

#[test]
fn a_label_that_cannot_be_read_chooses_no_more_gateways_than_with_it() {
    let (plan, said) = spoilt("{ lab: \"*\" }", "{ lab: \"*\", ring: [] }");
    assert!(plan.is_none(), "{said:?}");
    let (plan, said) = spoilt("gateways: all", "gateways: { list: [gw-00003, GW 4] }");
    assert!(plan.is_none(), "{said:?}");
}

#[test]
fn a_file_that_is_no_plan_is_said_to_be_none() {
    for text in [
        "",
        "# nothing\n",
        "plant: works\nzones: {}\n",
        "- a\n- b\n",
        "\u{0}",
    ] {
        let (plan, diagnostics) = read(text, None);
        assert!(plan.is_none() && diagnostics.has_errors(), "{text:?}");
    }
    let key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH\n-----END PRIVATE KEY-----\n";
    let (_, diagnostics) = read(key, None);
    let drawn = diagnostics.render(Style::Graphical {
        colour: false,
        width: 100,
    });
    assert!(drawn.contains("PS0112") && !drawn.contains("MC4CAQ"), "{drawn}");
}

#[test]
fn a_written_default_plan_has_its_reasons_and_counts_what_each_wave_chooses() {
    let fleet = fleet(300, 2);
    let plan = default_plan(&fleet, 7);
    let text = commented(&plan, &fleet, "Release r4 of riverside");
    assert!(
        text.starts_with("# Release r4 of riverside\nformat: penstock-rollout/1\n"),
        "{text}"
    );
    for words in [
        "# 2 of 300 gateways: gw-00000, gw-00001",
        "# 3 of 300 gateways: ",
        "and 24 more",
        "shifts or batches matter",
        "what a cell makes goes on",
    ] {
        let unwrapped = text.replace("\n# ", " ");
        assert!(unwrapped.contains(words), "{words} in\n{text}");
    }
    for line in text.lines() {
        assert!(line.chars().count() <= 110, "{line}");
    }
}

/// Any plan that can be written down, however unfit.
fn any_plan() -> impl Strategy<Value = RolloutPlan> {
    let selector = prop_oneof![
        Just(Selector::All),
        prop::collection::btree_map("[a-z]{1,4}", "[ -~äß*#:]{1,9}", 1..3)
            .prop_map(|labels| labels
                .into_iter()
                .filter(|(_, value)| !value.trim().is_empty())
                .collect())
            .prop_filter("never none", |labels: &BTreeMap<String, String>| !labels
                .is_empty())
            .prop_map(Selector::Labels),
        "(no|[a-z0-9]{1,6}|1e3)".prop_map(Selector::Site),
        (0..=100_u32).prop_map(Selector::Percent),
        prop::collection::btree_set("[a-z0-9]{1,6}", 1..5).prop_map(|ids| Selector::List(
            ids.iter()
                .map(|id| GatewayId::new(id.as_str()).unwrap())
                .collect()
        )),
    ];
    let span = || (0..40_000_000_u64).prop_map(Span::seconds);
    let wave = ("(on|[a-z][a-z0-9-]{0,6}|12)", selector, 0..5_u32, span()).prop_map(
        |(name, gateways, per_cell, soak)| Wave {
            name,
            gateways,
            per_cell,
            soak,
        },
    );
    let waves = prop::collection::vec(wave, 1..5);
    let start = prop::option::of(0..4_000_000_000_000_u64);
    (
        any::<u64>(),
        start,
        [span(), span(), span(), span()],
        0.0..2.0_f64,
        0..9_u32,
        waves,
    )
        .prop_map(
            |(seed, start_ms, [shadow, trial, silence, patience], soft_rate, at_once, waves)| RolloutPlan {
                format: FORMAT.to_owned(),
                seed,
                start_ms,
                shadow,
                trial,
                silence,
                patience,
                gate: GateLimits { soft_rate },
                converge: Converge { at_once },
                waves,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 2))]

    #[test]
    fn a_plan_that_was_written_is_read_back_as_the_same(plan in any_plan(), fleet in any_fleet()) {
        let text = commented(&plan, &fleet, "Any");
        let read = ReadPlan::of(&SourceFile::new("plan.yaml", text.as_str()));
        prop_assert_eq!(read.as_read(), Some(&plan), "{}", text);
    }

    #[test]
    fn a_default_plan_that_was_written_and_read_back_has_nothing_wrong(fleet in any_fleet(), seed in any::<u64>()) {
        let text = commented(&default_plan(&fleet, seed), &fleet, "Any");
        let (plan, diagnostics) = read(&text, Some(&fleet));
        prop_assert_eq!(diagnostics.render(Style::Narrated), "");
        prop_assert_eq!(plan, Some(default_plan(&fleet, seed)));
    }
}
