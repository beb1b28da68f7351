//! What follows from attempts that are refused: a pause for codes alone, and a trail that counts what it does not name.

use super::*;
use crate::reconcile::overrides::refusals::{RECORDED_MAX, SPAN};

fn wrong_code(form: &str) -> OverrideAsk {
    begin(signed(form, &[]), Some(Code::from_random([8; 26])))
}

#[test]
fn whoever_begins_before_signing_signs_and_begins_at_once_also_while_wrong_codes_are_slowed() {
    let (mut gateway, _) = with(&overridable());
    let form = gateway.form(1, 60);
    for by in [&[][..], &BOTH[..1]] {
        assert_eq!(refusal(gateway.ask(begin(signed(&form, by), None))), "too-few");
    }
    assert_eq!(refusal(gateway.ask(wrong_code(&form))), "wrong-code");
    assert_eq!(refusal(gateway.ask(wrong_code(&form))), "pausing");
    gateway.ask(begin(signed(&form, &BOTH), None)).unwrap();
    assert!(gateway.is_overridden());
    assert_eq!(gateway.recorded("override-refused"), 3);
    // Signatures shorten no pause.
    assert_eq!(refusal(gateway.by_code(2)), "pausing");
}

#[test]
fn refusals_without_a_code_make_no_code_wait() {
    let (mut gateway, _) = with(&overridable());
    let form = gateway.form(1, 60);
    for _ in 0..3 {
        assert_eq!(refusal(gateway.ask(begin(signed(&form, &[]), None))), "too-few");
    }
    gateway.by_code(2).unwrap();
    assert!(gateway.is_overridden());
    // One that was used is refused, and guesses nothing.
    for number in 3..6 {
        assert_eq!(refusal(gateway.by_code(number)), "spent-code");
    }
}

#[test]
fn a_flood_of_refused_attempts_is_counted_in_the_trail_and_wrong_codes_are_recorded_all_the_same() {
    let (mut gateway, _) = with(&overridable());
    let form = gateway.form(1, 60);
    let flood = |gateway: &mut Gateway| {
        for _ in 0..1000 {
            refusal(gateway.ask(begin(signed(&form, &[]), None)));
        }
    };
    let recorded = |gateway: &Gateway| gateway.recorded("override-refused");
    let most = RECORDED_MAX as usize;
    flood(&mut gateway);
    assert_eq!(recorded(&gateway), most);
    assert_eq!(refusal(gateway.ask(wrong_code(&form))), "wrong-code");
    assert_eq!(recorded(&gateway), most + 1);
    gateway.pass(SPAN);
    gateway.step(Occasion::Tick);
    assert_eq!(
        recorded(&gateway),
        most + 2,
        "the others are counted in one event"
    );
    gateway.step(Occasion::Tick);
    assert_eq!(recorded(&gateway), most + 2);
    flood(&mut gateway);
    assert_eq!(recorded(&gateway), 2 * most + 2);
}
