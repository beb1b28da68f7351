#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use penstock_policy::overrides::OVERRIDE_FORMAT;
use penstock_policy::terms::GatewayMode;

use super::*;
use crate::reconcile::tests::overrides::side;

const SECOND: Duration = Duration::from_secs(1);

fn at(boot: u64, synchronised: bool) -> Time {
    Time {
        wall_ms: 1_000_000_000 + boot * 1000,
        synchronised,
        boot: Duration::from_secs(boot),
    }
}

fn asked(effects: Vec<Effect>) -> Override {
    Override {
        format: OVERRIDE_FORMAT.to_owned(),
        plant: "water".parse().unwrap(),
        gateway: "gw-1".parse().unwrap(),
        release: Digest([1; 32]),
        number: Digest([0xab; 32]),
        seconds: 3600,
        reason: "the PLC was replaced".to_owned(),
        ticket: Some("T-9".to_owned()),
        effects,
    }
}

fn device() -> Effect {
    Effect::Device {
        address: "10.0.2.9".parse().unwrap(),
        mac: "02:00:00:00:00:09".parse().unwrap(),
    }
}

fn begun(now: Time) -> LastingOverride {
    let people = Authority::People(vec!["anna".parse().unwrap(), "bert".parse().unwrap()]);
    LastingOverride::begin(
        asked(vec![device()]),
        people,
        "root".to_owned(),
        "boot0".to_owned(),
        now,
    )
}

/// A bridged gateway on whose far side 10.0.2.9 has this MAC address.
fn plan(mac: &str) -> Plan {
    let mut far = side("lan2", "pumps", "10.0.2.0/24");
    far.hardware.push(penstock_policy::plan::Hardware {
        address: "10.0.2.9".parse().unwrap(),
        mac: mac.parse().unwrap(),
    });
    Plan {
        mode: GatewayMode::Bridged,
        interfaces: vec![side("lan1", "office", "10.0.1.0/24"), far],
        ..crate::reconcile::tests::granted(1, 2)
    }
}

#[test]
fn an_override_ends_at_the_same_moment_whatever_agent_takes_it_up_in_its_boot() {
    let mut lasting = begun(at(100, false));
    assert_eq!(lasting.left(at(100, false)), 3600 * SECOND);
    lasting.resume("boot0", at(3000, false));
    assert_eq!(lasting.left(at(3000, false)), 700 * SECOND);
    assert_eq!(lasting.is_over(None, at(3699, false)), None);
    assert_eq!(lasting.is_over(None, at(3700, false)).unwrap().code, "time");
}

#[test]
fn after_a_restart_of_the_machine_it_goes_on_with_a_little_less_than_was_left_and_never_with_more() {
    let mut lasting = begun(at(100, false));
    lasting.note(at(1100, false));
    // Up to a minute later the machine goes; the boot counts from its beginning.
    lasting.resume("boot1", at(20, false));
    let left = lasting.left(at(20, false));
    let permitted = (3600 - 1000 - NOTED_EVERY.as_secs() as u32 - 20) * SECOND;
    assert!(left <= permitted && left + 20 * SECOND > permitted, "{left:?}");
    // A boot without a name may be any: all that it has run counts.
    let mut nameless = begun(at(100, false));
    nameless.resume("", at(100_000, false));
    assert!(nameless.left(at(100_000, false)).is_zero());
}

#[test]
fn a_clock_that_is_synchronised_ends_it_though_the_machine_was_off_and_one_that_is_not_does_not() {
    let mut lasting = begun(at(100, true));
    lasting.note(at(100, true));
    let later = Time {
        wall_ms: at(100, true).wall_ms + 3_600_000,
        synchronised: false,
        boot: 10 * SECOND,
    };
    lasting.resume("boot1", later);
    assert!(!lasting.left(later).is_zero());
    let known = Time {
        synchronised: true,
        ..later
    };
    assert!(lasting.left(known).is_zero());
    // One that began without such a clock is bound by it from when there is one.
    let mut lasting = begun(at(100, false));
    assert_eq!(lasting.until_ms, None);
    lasting.note(at(200, true));
    assert_eq!(lasting.until_ms, Some(at(200, true).wall_ms + 3_500_000));
}

#[test]
fn a_release_that_says_the_same_ratifies_it_and_one_that_leaves_nothing_ends_it() {
    let now = at(100, true);
    let lasting = begun(now);
    assert_eq!(lasting.is_over(Some(&plan("02:00:00:00:00:01")), now), None);
    let end = lasting.is_over(Some(&plan("02:00:00:00:00:09")), now).unwrap();
    assert_eq!(end.code, "ratified");
    let routed = Plan {
        mode: GatewayMode::Routed,
        ..plan("02:00:00:00:00:01")
    };
    let end = lasting.is_over(Some(&routed), now).unwrap();
    assert_eq!(end.code, "nothing-left");
    assert!(end.why.contains("knows no device"), "{}", end.why);
}

#[test]
fn a_number_is_good_once_and_for_a_day_and_the_oldest_gives_way_to_a_new_one() {
    let mut numbers = Numbers::default();
    let number = |byte| Digest([byte; 32]);
    numbers.give_out(number(0), 10 * SECOND);
    assert!(numbers.has(number(0), 86_000 * SECOND));
    assert!(!numbers.has(number(0), 86_410 * SECOND) && !numbers.has(number(1), 11 * SECOND));
    numbers.take(number(0));
    assert!(!numbers.has(number(0), 11 * SECOND));
    for byte in 1..=17 {
        numbers.give_out(number(byte), 20 * SECOND);
    }
    assert!(!numbers.has(number(1), 20 * SECOND) && numbers.has(number(2), 20 * SECOND));
}

#[test]
fn what_is_shown_names_what_until_when_by_whom_and_why_and_the_zones_of_the_device() {
    let lasting = begun(at(100, true));
    let shown = ShownOverride::of(&lasting, true);
    let fault = shown.fault(Some(&plan("02:00:00:00:00:01")));
    assert_eq!(
        (fault.code.as_str(), fault.zones.as_slice()),
        (OVERRIDDEN, &["pumps".to_owned()][..])
    );
    let until = instant(at(3700, true).wall_ms);
    // The coordinator keeps the first 256 bytes: only the reason may be cut.
    let words = format!(
        "overridden until {until} by anna and bert (abababababab): 10.0.2.9 is the device 02:00:00:00:00:09; why: the PLC was replaced (T-9)"
    );
    assert_eq!(fault.message, words);
    // The words stay as they are: a report that changes each second would be sent each second.
    assert_eq!(
        ShownOverride::of(&lasting, true).fault(Some(&plan("02:00:00:00:00:01"))),
        fault
    );
    let all = ShownOverride {
        asked: asked(vec![device(), Effect::Unasked]),
        ..shown.clone()
    };
    assert!(all.fault(Some(&plan("02:00:00:00:00:01"))).zones.is_empty());
    let state = OverrideState::of_shown(&shown, 1900 * SECOND);
    let words = state.to_string();
    assert!(
        words.starts_with("abababababab: 10.0.2.9 is") && words.contains("30 min left"),
        "{words}"
    );
    assert!(is_meant("ABABAB", state.number) && is_meant(&state.number.to_string(), state.number));
    assert!(!is_meant("ababa", state.number) && !is_meant("ababac", state.number));
}

#[test]
fn the_disk_says_how_long_one_still_lasts_where_no_agent_runs() {
    let lasting = begun(at(100, false));
    let state = OverrideState::of_stored(lasting.clone(), "boot0", at(1900, false));
    assert_eq!((state.left_ms, state.in_kernel), (1_800_000, None));
    let state = OverrideState::of_stored(lasting, "boot1", at(4000, false));
    assert_eq!(state.left_ms, 0);
    assert!(
        state.to_string().contains("it is over when the agent starts"),
        "{state}"
    );
}
