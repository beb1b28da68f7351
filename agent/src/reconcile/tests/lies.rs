//! What a lying coordinator may order, and what becomes of it on the gateway (SECURITY.md has the list).

use std::sync::atomic::Ordering;

use super::trials::{asked, believed, confirm, given, on_trial, over, standing, with_one};
use super::*;
use crate::reconcile::site::MustFlow;
use crate::reconcile::trial::Confirmer;

/// Anna or Ben sign a release, and both of them an emergency.
fn set() -> ApproverSet {
    let person = |(name, seed): (&str, u8)| {
        let approver = Approver {
            key: ApproverKey::from_seed(&[seed; 32]).public(),
            role: None,
        };
        (ApproverId::new(name).unwrap(), approver)
    };
    ApproverSet {
        threshold: 1,
        emergency_threshold: Some(2),
        people: [("anna", 1), ("ben", 2)].map(person).into(),
    }
}

/// The release that names these approvers, as an emergency or not, with these signatures.
pub(super) fn signed(
    revision: u64,
    parent: Option<Digest>,
    emergency: bool,
    signers: &[(&str, u8)],
) -> (Arc<PolicyOffer>, Digest) {
    let (offered, _) = offer(&over(), revision, parent);
    let mut offered = (*offered).clone();
    let release = offered.release.as_mut().unwrap();
    let mut statement = Statement::from_bytes(&release.statement).unwrap();
    (statement.approvers, statement.emergency) = (set(), emergency);
    let bytes = statement.to_bytes();
    let sign = |(name, seed): &(&str, u8)| {
        let approver = ApproverId::new(*name).unwrap();
        let signature = ApproverKey::from_seed(&[*seed; 32])
            .sign(approver, &bytes)
            .unwrap();
        penstock_proto::v1::Signature {
            approver: (*name).to_owned(),
            signature: signature.bytes().to_vec().into(),
            ..Default::default()
        }
    };
    release.signatures = signers.iter().map(sign).collect();
    release.statement = bytes.clone().into();
    (Arc::new(offered), Digest::of(&bytes))
}

fn refusal(gateway: &Gateway) -> String {
    let refused = gateway.view.borrow().state.refused.clone();
    refused.map(|refused| refused.code).unwrap_or_default()
}

pub(super) const BOTH: &[(&str, u8)] = &[("anna", 1), ("ben", 2)];

#[test]
fn outside_its_window_a_gateway_takes_nothing_but_an_emergency_with_all_its_signatures_and_that_on_trial_and_by_the_interlock()
 {
    let mut gateway = Gateway::new();
    let (first, one) = signed(1, None, false, &BOTH[..1]);
    gateway.step(Occasion::Offer(first, Order::default()));
    assert_eq!(given(&gateway), [1]);
    gateway.site.is_closed.store(true, Ordering::Relaxed);
    let (usual, _) = signed(2, Some(one), false, BOTH);
    gateway.step(Occasion::Offer(usual, on_trial()));
    let window = |gateway: &Gateway| matches!(standing(gateway), StandingState::Held(Hold::Window { .. }));
    assert!(window(&gateway), "{:?}", standing(&gateway));

    // As many signatures as a release needs are too few for an emergency, whatever the order says.
    let (short, _) = signed(3, Some(one), true, &BOTH[..1]);
    gateway.step(Occasion::Offer(short, on_trial()));
    assert_eq!(
        (refusal(&gateway).as_str(), given(&gateway)),
        ("under-signed", vec![1])
    );
    gateway.site.is_running.store(true, Ordering::Relaxed);
    let (whole, three) = signed(3, Some(one), true, BOTH);
    gateway.step(Occasion::Offer(whole, on_trial()));
    assert!(
        matches!(standing(&gateway), StandingState::Held(Hold::Interlock(_))),
        "{:?}",
        standing(&gateway)
    );
    // What it is outlives the agent.
    let mut gateway = gateway.restarted();
    gateway.step(Occasion::Tick);
    assert!(matches!(
        standing(&gateway),
        StandingState::Held(Hold::Interlock(_))
    ));
    gateway.site.is_running.store(false, Ordering::Relaxed);
    gateway.step(Occasion::Tick);
    assert!(
        matches!(standing(&gateway), StandingState::Trial { .. }),
        "{:?}",
        standing(&gateway)
    );
    assert_eq!((given(&gateway), believed(&gateway)), (vec![1, 3], 1));
    assert_eq!(asked(&mut gateway, confirm(three)), Ok(()));
    assert_eq!(believed(&gateway), 3);
    let (next, _) = signed(4, Some(three), false, BOTH);
    gateway.step(Occasion::Offer(next, on_trial()));
    assert!(
        window(&gateway),
        "what follows an emergency waits: {:?}",
        standing(&gateway)
    );
}

#[test]
fn a_confirmation_without_a_trial_a_revert_of_what_is_confirmed_and_words_about_another_release_change_nothing()
 {
    let (mut gateway, second, two) = with_one();
    let revert = |statement| Command::Revert {
        statement,
        by: "the coordinator".to_owned(),
        ordered: true,
    };
    let remote = |statement, seconds| Command::Confirm {
        statement,
        by: Confirmer::Remote {
            session_opened: Duration::from_secs(seconds),
        },
    };
    let one = gateway.view.borrow().state.trusted.clone().unwrap();
    let one = Digest(one.statement_digest.as_ref().try_into().unwrap());
    // Of what is in force for good, of what was never there, and of what is only staged.
    for statement in [one, two, Digest([9; 32])] {
        let why = match statement == one {
            true => CommandRefused::InForce,
            false => CommandRefused::NoTrial,
        };
        assert_eq!(asked(&mut gateway, remote(statement, 1_000)), Err(why));
        let reverted = revert(statement);
        assert_eq!(asked(&mut gateway, reverted), Err(CommandRefused::NoTrial));
    }
    gateway.site.is_running.store(true, Ordering::Relaxed);
    gateway.step(Occasion::Offer(second, on_trial()));
    assert_eq!(
        asked(&mut gateway, remote(two, 1_000)),
        Err(CommandRefused::NoTrial)
    );
    assert_eq!((given(&gateway), believed(&gateway)), (vec![1], 1));

    // On trial, neither an old session nor a word about another release ends it; confirmed, nothing takes it back.
    gateway.site.is_running.store(false, Ordering::Relaxed);
    gateway.step(Occasion::Tick);
    assert_eq!(
        asked(&mut gateway, remote(two, 1)),
        Err(CommandRefused::OldSession)
    );
    let other = revert(one);
    assert_eq!(asked(&mut gateway, other), Err(CommandRefused::OtherRelease));
    assert_eq!(asked(&mut gateway, remote(two, 1_000)), Ok(()));
    let reverted = revert(two);
    assert_eq!(asked(&mut gateway, reverted), Err(CommandRefused::NoTrial));
    let mut gateway = gateway.restarted();
    gateway.step(Occasion::Tick);
    assert_eq!((given(&gateway), believed(&gateway)), (vec![2], 2));
}

#[test]
fn an_older_release_another_child_of_the_one_that_is_held_and_another_gateways_plan_are_each_refused_by_name()
{
    let (mut gateway, second, two) = with_one();
    gateway.step(Occasion::Offer(second.clone(), Order::default()));
    let refused = |gateway: &mut Gateway, offered: Arc<PolicyOffer>| {
        gateway.step(Occasion::Offer(offered, Order::default()));
        refusal(gateway)
    };
    let (first, one) = offer(&over(), 1, None);
    assert_eq!(refused(&mut gateway, first), "older");
    // The same number for another release, as another gateway was given it; then what comes after that one.
    let (sibling, other_two) = signed(2, Some(one), false, &BOTH[..1]);
    assert_eq!(refused(&mut gateway, sibling), "number-reused");
    let (after, _) = offer(&over(), 3, Some(other_two));
    assert_eq!(refused(&mut gateway, after), "forked");
    let mut plan = over();
    plan.gateway = "gw-2".parse().unwrap();
    let (foreign, _) = offer(&plan, 3, Some(two));
    assert_eq!(refused(&mut gateway, foreign), "wrong-gateway");
    let (next, _) = offer(&over(), 3, Some(two));
    let mut altered = (*next).clone();
    altered.plan = plan.to_bytes().into();
    assert_eq!(refused(&mut gateway, Arc::new(altered)), "wrong-gateway");
    let mut altered = (*next).clone();
    let mut bytes = altered.release.as_ref().unwrap().statement.to_vec();
    let last = bytes.len() - 2;
    bytes[last] = b'2';
    altered.release.as_mut().unwrap().statement = bytes.into();
    assert_eq!(refused(&mut gateway, Arc::new(altered)), "altered");
    assert_eq!((given(&gateway), believed(&gateway)), (vec![1, 2], 2));
    gateway.step(Occasion::Offer(next, Order::default()));
    assert_eq!(given(&gateway), [1, 2, 3]);
}

#[test]
fn a_trial_that_is_ordered_for_an_instant_or_for_years_lasts_ten_seconds_or_a_week() {
    for (ordered_ms, lasts) in [(1, 10), (9_999, 10), (u64::MAX, 7 * 86_400), (120_000, 120)] {
        let (mut gateway, second, two) = with_one();
        let order = Order {
            trial_ms: Some(ordered_ms),
            ..on_trial()
        };
        gateway.step(Occasion::Offer(second, order));
        let StandingState::Trial { began, ends, .. } = standing(&gateway) else {
            panic!("{ordered_ms} ms: {:?}", standing(&gateway));
        };
        assert_eq!(ends - began, Duration::from_secs(lasts));
        gateway.pass(Duration::from_secs(lasts - 1));
        assert_eq!((given(&gateway), believed(&gateway)), (vec![1, 2], 1));
        // What is ordered in between neither lengthens it nor begins another.
        let longer = Order {
            trial_ms: Some(u64::MAX),
            ..on_trial()
        };
        gateway.step(Occasion::Order(two, longer));
        gateway.pass(Duration::from_secs(2));
        assert_eq!((given(&gateway), believed(&gateway)), (vec![1, 2, 1], 1));
    }
}

#[test]
fn who_is_far_away_confirms_no_trial_before_the_must_flows_flowed_under_its_rules_and_a_person_on_site_does()
{
    let now = |gateway: &Gateway| gateway.time.lock().unwrap().boot;
    let flow = |seen| MustFlow {
        name: "telemetry/poll".to_owned(),
        rhythm: Some(Duration::from_secs(1)),
        seen: Some(seen),
    };
    let trial = || {
        let (mut gateway, second, two) = with_one();
        let before = flow(now(&gateway) - Duration::from_secs(1));
        *gateway.site.must_flows.lock().unwrap() = vec![before];
        gateway.step(Occasion::Offer(second, on_trial()));
        let remote = Command::Confirm {
            statement: two,
            by: Confirmer::Remote {
                session_opened: now(&gateway),
            },
        };
        assert_eq!(
            asked(&mut gateway, remote.clone()),
            Err(CommandRefused::NotFlowing)
        );
        assert_eq!(believed(&gateway), 1);
        (gateway, remote, confirm(two))
    };
    let (mut gateway, remote, _) = trial();
    let seen = flow(now(&gateway));
    *gateway.site.must_flows.lock().unwrap() = vec![seen];
    assert_eq!(asked(&mut gateway, remote), Ok(()));
    assert_eq!(believed(&gateway), 2);
    let (mut gateway, _, by_anna) = trial();
    assert_eq!(asked(&mut gateway, by_anna), Ok(()));
    assert_eq!(believed(&gateway), 2);
}

#[test]
fn a_confirmation_that_is_said_again_is_no_refusal_of_what_is_in_force_already() {
    let (mut gateway, second, two) = with_one();
    gateway.step(Occasion::Offer(second, on_trial()));
    assert_eq!(asked(&mut gateway, confirm(two)), Ok(()));
    assert_eq!(asked(&mut gateway, confirm(two)), Err(CommandRefused::InForce));
    let mut gateway = gateway.restarted();
    assert_eq!(asked(&mut gateway, confirm(two)), Err(CommandRefused::InForce));
}
