#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use penstock_policy::ids::Digest;
use penstock_proto::v1;
use proptest::prelude::*;

use super::*;
use crate::sessions::GatewayFacts;

const STALE_AFTER_MS: u64 = 30_000;
const NOW_MS: u64 = 1_000_000;

fn here() -> ZoneId {
    ZoneId::new("here").unwrap()
}

fn fault(words: &str) -> ReportedFault {
    ReportedFault {
        words: words.to_owned(),
        ..ReportedFault::default()
    }
}

fn mark(revision: u64) -> PolicyMark {
    PolicyMark {
        revision: Revision(revision),
        plan: Digest::of(&revision.to_be_bytes()),
        statement: Some(Digest::of(&revision.to_le_bytes())),
    }
}

fn evidence() -> impl Strategy<Value = GatewayEvidence> {
    (
        any::<bool>(),
        prop::option::of(900_000u64..NOW_MS),
        prop::option::of(1u64..4),
        prop::option::weighted(0.9, Just(2u64)),
        prop::option::weighted(0.2, Just((Revision(2), "altered".to_owned()))),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        prop::collection::vec(Just(fault("spool-full")), 0..2),
    )
        .prop_map(
            |(connected, reported_ms, effective, wanted, refused, drift, kernel_failed, faults)| {
                GatewayEvidence {
                    connected,
                    reported_ms,
                    effective: effective.map(mark),
                    wanted: wanted.map(mark),
                    refused,
                    drift,
                    kernel_failed,
                    faults,
                    foretold: Vec::new(),
                    granted: Vec::new(),
                    rollout: None,
                    withdrawn: None,
                }
            },
        )
}

fn fine() -> GatewayEvidence {
    GatewayEvidence {
        connected: true,
        reported_ms: Some(NOW_MS),
        effective: Some(mark(2)),
        wanted: Some(mark(2)),
        refused: None,
        drift: false,
        kernel_failed: false,
        faults: Vec::new(),
        foretold: Vec::new(),
        granted: Vec::new(),
        rollout: None,
        withdrawn: None,
    }
}

fn zone(enforce: bool, gateways: usize) -> Boundary {
    Boundary {
        enforcement: if enforce {
            Enforcement::Enforce
        } else {
            Enforcement::Observe
        },
        gateways: (0..gateways)
            .map(|n| GatewayId::new(format!("gw-{n}")).unwrap())
            .collect(),
        assurance: None,
        neighbours: None,
        consequence: None,
        is_safety: false,
        must_flows: BTreeSet::new(),
    }
}

fn named(all: Vec<GatewayEvidence>) -> BTreeMap<GatewayId, GatewayEvidence> {
    all.into_iter()
        .zip(0..)
        .map(|(evidence, n)| (GatewayId::new(format!("gw-{n}")).unwrap(), evidence))
        .collect()
}

fn judged(boundary: &Boundary, all: &BTreeMap<GatewayId, GatewayEvidence>) -> ZoneJudgement {
    judge(&here(), boundary, all, Some(Revision(2)), NOW_MS, STALE_AFTER_MS)
}

proptest! {
    #[test]
    fn a_state_always_has_reasons(all in prop::collection::vec(evidence(), 0..5), enforce: bool) {
        let boundary = zone(enforce, all.len());
        prop_assert!(!judged(&boundary, &named(all)).reasons.is_empty());
    }

    #[test]
    fn only_full_and_fresh_evidence_is_healthy(all in prop::collection::vec(evidence(), 1..5), enforce: bool) {
        let boundary = zone(enforce, all.len());
        let well = all.iter().all(|e| {
            e.connected && e.reported_ms.is_some_and(|at| NOW_MS - at <= STALE_AFTER_MS)
                && e.effective.is_some() && e.effective == e.wanted && e.refused.is_none()
                && !e.drift && !e.kernel_failed && e.faults.is_empty()
        });
        let state = judged(&boundary, &named(all)).state;
        let healthy = if enforce { ZoneState::Enforcing } else { ZoneState::Observing };
        prop_assert_eq!(well, state == healthy);
        prop_assert!(enforce || state != ZoneState::Enforcing, "what only observes never counts as enforcing");
    }

    #[test]
    fn taking_evidence_away_or_adding_a_fault_never_makes_a_zone_look_better(
        all in prop::collection::vec(evidence(), 1..4), which in 0usize..4, how in 0u8..7,
    ) {
        let boundary = zone(true, all.len());
        let before = judged(&boundary, &named(all.clone())).state;
        let mut worse = named(all);
        let name = GatewayId::new(format!("gw-{}", which % worse.len())).unwrap();
        let one = worse.get_mut(&name).unwrap();
        match how {
            0 => { worse.remove(&name); }
            1 => one.connected = false,
            2 => one.faults.push(fault("more")),
            3 => one.drift = true,
            4 => one.kernel_failed = true,
            5 => one.reported_ms = one.reported_ms.map(|at| at.saturating_sub(600_000)),
            _ => one.refused = Some((Revision(2), "altered".to_owned())),
        }
        let after = judged(&boundary, &worse).state;
        // What was certainly open stays bad, but without evidence it is unknown whether it still is.
        prop_assert!(after >= before || (how == 0 && after == ZoneState::Unknown), "{before:?} → {after:?}");
    }

    #[test]
    fn the_order_of_gateways_and_strangers_elsewhere_do_not_matter(
        all in prop::collection::vec(evidence(), 1..5), stranger in evidence(),
    ) {
        let mut boundary = zone(true, all.len());
        let mut facts = named(all);
        let before = judged(&boundary, &facts).state;
        boundary.gateways.reverse();
        facts.insert(GatewayId::new("elsewhere").unwrap(), stranger);
        prop_assert_eq!(judged(&boundary, &facts).state, before);
    }
}

#[test]
fn each_fault_alone_gives_its_own_state_and_names_the_gateway() {
    let cases: [(ZoneState, &str, GatewayEvidence); 12] = [
        (
            ZoneState::Degraded,
            "is on trial with r2",
            GatewayEvidence {
                rollout: Some(("is on trial with r2".to_owned(), true)),
                ..fine()
            },
        ),
        (ZoneState::Enforcing, "r2 is effective", fine()),
        (
            ZoneState::Stale,
            "is revoked since yesterday by ada (stolen); has been disconnected",
            GatewayEvidence {
                connected: false,
                withdrawn: Some("is revoked since yesterday by ada (stolen)".to_owned()),
                ..fine()
            },
        ),
        (
            ZoneState::Unknown,
            "is suspended; has not reported",
            GatewayEvidence {
                reported_ms: None,
                withdrawn: Some("is suspended".to_owned()),
                ..fine()
            },
        ),
        (
            ZoneState::Unknown,
            "has not reported",
            GatewayEvidence {
                reported_ms: None,
                ..fine()
            },
        ),
        (
            ZoneState::Stale,
            "has been disconnected",
            GatewayEvidence {
                connected: false,
                ..fine()
            },
        ),
        (
            ZoneState::Stale,
            "has not reported for",
            GatewayEvidence {
                reported_ms: Some(NOW_MS - STALE_AFTER_MS - 1),
                ..fine()
            },
        ),
        (
            ZoneState::Unprotected,
            "no policy",
            GatewayEvidence {
                effective: None,
                ..fine()
            },
        ),
        (
            ZoneState::Degraded,
            "enforces r1, not yet r2",
            GatewayEvidence {
                effective: Some(mark(1)),
                ..fine()
            },
        ),
        (
            ZoneState::Degraded,
            "restored from a backup",
            GatewayEvidence {
                effective: Some(mark(3)),
                ..fine()
            },
        ),
        (
            ZoneState::Degraded,
            "changed its kernel's rules",
            GatewayEvidence {
                drift: true,
                ..fine()
            },
        ),
        (
            ZoneState::Unprotected,
            "kernel",
            GatewayEvidence {
                kernel_failed: true,
                ..fine()
            },
        ),
    ];
    for (state, words, evidence) in cases {
        let judgement = judged(&zone(true, 2), &named(vec![fine(), evidence]));
        assert_eq!(judgement.state, state, "{words}");
        assert!(
            judgement.reasons.iter().any(|reason| reason.contains(words)),
            "{:?}",
            judgement.reasons
        );
    }
    let none = judged(&zone(true, 0), &named(Vec::new()));
    assert_eq!(none.state, ZoneState::Unprotected);
}

#[test]
fn an_observing_zone_says_what_enforcing_would_change_and_stays_what_it_is() {
    let told = GatewayEvidence {
        foretold: vec!["enforcing would change what inspected connections carry today".to_owned()],
        ..fine()
    };
    for (enforce, state) in [(false, ZoneState::Observing), (true, ZoneState::Enforcing)] {
        let judgement = judged(&zone(enforce, 1), &named(vec![told.clone()]));
        assert_eq!(judgement.state, state);
        assert!(judgement.reasons[0].contains("is effective"), "{judgement:?}");
        let says = judgement
            .reasons
            .iter()
            .any(|reason| reason.contains("enforcing would change"));
        assert_eq!(says, !enforce, "{judgement:?}");
    }
}

#[test]
fn a_conduit_that_a_grant_opened_is_shown_and_is_no_fault() {
    let open = GatewayEvidence {
        granted: vec!["conduit remote is open for Carla until 2026-12-01T16:00:00Z (grant visit)".to_owned()],
        ..fine()
    };
    let shows = |open: GatewayEvidence| {
        let judgement = judged(&zone(true, 1), &named(vec![open]));
        let shown = judgement
            .reasons
            .iter()
            .any(|reason| reason.contains("open for Carla until"));
        (judgement.state, shown)
    };
    assert_eq!(shows(open.clone()), (ZoneState::Enforcing, true));
    let gone = GatewayEvidence {
        connected: false,
        ..open
    };
    assert_eq!(
        shows(gone),
        (ZoneState::Stale, false),
        "what is so now is not known"
    );
}

#[test]
fn what_gateways_have_in_common_is_one_reason_and_the_gravest_comes_first() {
    let away = GatewayEvidence {
        connected: false,
        ..fine()
    };
    let open = GatewayEvidence {
        kernel_failed: true,
        ..fine()
    };
    let mut all = vec![away; 100];
    all.push(open);
    let judgement = judged(&zone(true, all.len()), &named(all));
    assert_eq!(judgement.state, ZoneState::Unprotected);
    assert_eq!(judgement.reasons.len(), 2, "{:?}", judgement.reasons);
    assert_eq!(
        judgement.reasons[0],
        "gw-100: its kernel does not hold the policy"
    );
    assert_eq!(
        judgement.reasons[1],
        "gw-0, gw-1, gw-2 and 97 more: has been disconnected for less than a minute"
    );
}

#[test]
fn a_fault_that_concerns_other_zones_leaves_a_zone_as_it_is() {
    let concerns = |zones: &[&str]| GatewayEvidence {
        faults: vec![ReportedFault {
            words: "interface eth2 has no carrier (no-carrier)".to_owned(),
            zones: zones.iter().map(|zone| ZoneId::new(*zone).unwrap()).collect(),
        }],
        ..fine()
    };
    let state = |zones: &[&str]| judged(&zone(true, 1), &named(vec![concerns(zones)])).state;
    assert_eq!(state(&["elsewhere"]), ZoneState::Enforcing);
    assert_eq!(state(&["elsewhere", "here"]), ZoneState::Degraded);
    assert_eq!(
        state(&[]),
        ZoneState::Degraded,
        "one that names nobody concerns all"
    );
}

/// A core gateway, behind whose one side lie cells with gateways of their own, and one without.
const CELLS: &str = "plant: works
approvers: { threshold: 1, people: { bob: { key: \"ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\" } } }
sites: { works: { title: Works, timezone: UTC } }
zones:
  office: { title: Office, kind: enterprise, networks: [10.0.0.0/24] }
  transit: { title: Transit, kind: operations, networks: [10.9.0.0/24] }
  cell-a: { title: Cell A, kind: control, networks: [10.1.0.0/24] }
  cell-b: { title: Cell B, kind: control, networks: [10.2.0.0/24] }
  bare: { title: Bare, kind: control, networks: [10.3.0.0/24] }
gateways:
  core:
    site: works
    mode: routed
    interfaces:
      eth1: { zone: office, address: 10.0.0.1/24 }
      eth2: { zone: transit, behind: [cell-a, cell-b, bare], address: 10.9.0.1/24 }
    management: { interface: eth0, peers: [192.0.2.10] }
  gw-a:
    site: works
    mode: routed
    interfaces:
      eth1: { zone: transit, behind: [office], address: 10.9.0.2/24 }
      eth2: { zone: cell-a, address: 10.1.0.1/24 }
    management: { interface: eth0, peers: [192.0.2.10] }
  gw-b:
    site: works
    mode: routed
    interfaces:
      eth1: { zone: transit, behind: [office], address: 10.9.0.3/24 }
      eth2: { zone: cell-b, address: 10.2.0.1/24 }
    management: { interface: eth0, peers: [192.0.2.10] }
";

#[test]
fn a_zone_depends_on_the_gateways_that_guard_it_and_not_on_those_behind_which_another_does() {
    let file = penstock_policy::diagnostics::SourceFile {
        name: "plant.yaml".to_owned(),
        text: CELLS.to_owned(),
    };
    let loaded = penstock_policy::load(&[file], jiff::civil::date(2026, 1, 1));
    let plant = loaded
        .plant
        .unwrap_or_else(|| panic!("{:?}", loaded.diagnostics.errors().collect::<Vec<_>>()));
    let on = |zone: &str| -> Vec<String> {
        let boundaries = boundaries(&plant, &penstock_policy::compile::compile_all(&plant).unwrap());
        let boundary = &boundaries[&ZoneId::new(zone).unwrap()];
        boundary.gateways.iter().map(ToString::to_string).collect()
    };
    assert_eq!(on("cell-a"), ["gw-a"], "the core may be away");
    assert_eq!(on("cell-b"), ["gw-b"]);
    assert_eq!(on("bare"), ["core"], "nobody else guards it");
    assert_eq!(on("office"), ["core"]);
    assert_eq!(on("transit"), ["core", "gw-a", "gw-b"]);
}

#[test]
fn a_gateway_that_judges_by_the_next_release_in_its_shadow_is_as_well_as_before_and_it_is_shown() {
    let shadow = GatewayEvidence {
        rollout: Some(("judges live traffic by r3".to_owned(), false)),
        ..fine()
    };
    let judgement = judged(&zone(true, 1), &named(vec![shadow]));
    assert_eq!(judgement.state, ZoneState::Enforcing);
    assert!(
        judgement
            .reasons
            .iter()
            .any(|reason| reason.contains("judges live traffic by r3"))
    );
}

#[test]
fn gateways_that_enforce_different_releases_as_they_should_are_well_and_no_revision_is_named() {
    let older = GatewayEvidence {
        effective: Some(mark(1)),
        wanted: Some(mark(1)),
        ..fine()
    };
    let judgement = judged(&zone(true, 2), &named(vec![fine(), older]));
    assert_eq!(judgement.state, ZoneState::Enforcing);
    assert!(
        judgement.reasons[0].contains("enforces what it should have"),
        "{:?}",
        judgement.reasons
    );
}

#[test]
fn what_people_override_at_a_gateway_degrades_the_zones_that_it_concerns_in_its_own_words() {
    let overridden = v1::Fault {
        zones: vec!["control".to_owned()],
        ..v1::Fault::new(
            "overridden",
            "overridden until noon by anna and bert: a device".to_owned(),
        )
    };
    let facts = GatewayFacts {
        faults: vec![overridden],
        ..GatewayFacts::default()
    };
    let evidence = facts.evidence(None);
    let fault = &evidence.faults[0];
    assert_eq!(fault.words, "overridden until noon by anna and bert: a device");
    assert!(fault.concerns(&"control".parse().unwrap()) && !fault.concerns(&"office".parse().unwrap()));
}
