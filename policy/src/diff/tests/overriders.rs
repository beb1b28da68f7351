//! What is said of a change of who may override a gateway.

use super::*;
use crate::ids::Digest;
use crate::model::{Overrider, Overriders};
use crate::waterworks::key;

fn overridable() -> Plant {
    let mut plant = waterworks();
    let person = |seed: u8| Overrider {
        key: key(seed).public(),
        sites: None,
    };
    plant.break_glass = Some(Overriders {
        longest_s: 8 * 3_600,
        people: [(id("kim"), person(21)), (id("lee"), person(22))].into(),
        sealed: [(gateway(), [Digest::of(b"one")].into())].into(),
    });
    plant
}

/// What is said of the section alone.
fn of_section(change: impl FnOnce(&mut Overriders)) -> (Effect, Vec<String>) {
    let mut new = overridable();
    change(new.break_glass.as_mut().unwrap());
    let diff = diff(Some(&overridable()), &new).unwrap();
    let [change] = diff.changes.as_slice() else {
        panic!("{diff}");
    };
    assert_eq!(change.subject, Subject::BreakGlass);
    assert_eq!(diff.gateways[&gateway()], Touch::Changed);
    (change.effect, change.details.clone())
}

#[test]
fn a_section_is_said_whole_when_it_comes_and_when_it_goes() {
    let text = diff(Some(&waterworks()), &overridable()).unwrap().to_string();
    assert!(
        text.starts_with(
            "break-glass added: any two of kim and lee may override a gateway together; one sealed code may override gw-works \
             once; for at most 8h\n"
        ),
        "{text}"
    );
    let gone = diff(Some(&overridable()), &waterworks()).unwrap();
    assert!(!gone.may_widen());
    assert!(
        gone.to_string()
            .starts_with("break-glass removed: nobody may override"),
        "{gone}"
    );
    assert!(diff(Some(&overridable()), &overridable()).unwrap().is_empty());
}

#[test]
fn who_may_override_from_now_on_and_who_no_longer_is_said_by_name() {
    let wider = |details: &[&str]| {
        (
            Effect::Widened,
            details.iter().map(|one| (*one).to_owned()).collect(),
        )
    };
    let max = Overrider {
        key: key(23).public(),
        sites: Some([id("works")].into()),
    };
    assert_eq!(
        of_section(|it| drop(it.people.insert(id("max"), max.clone()))),
        wider(&["max may override gateways with another, at works"])
    );
    assert_eq!(
        of_section(|it| it.longest_s = 86_400),
        wider(&["an override lasts at most 1d (was 8h)"])
    );
    let sites =
        |it: &mut Overriders| it.people.get_mut(&id("kim")).unwrap().sites = Some([id("annex")].into());
    let (effect, details) = of_section(sites);
    assert_eq!(effect, Effect::Narrowed);
    assert_eq!(
        details,
        ["kim may override gateways at annex (was: at every site)"]
    );
    let (effect, details) = of_section(|it| it.people.get_mut(&id("kim")).unwrap().key = key(24).public());
    assert_eq!(effect, Effect::Altered);
    assert_eq!(details, ["kim has another key for overrides"]);
}

#[test]
fn a_code_in_place_of_a_spent_one_is_said_as_one_that_comes_and_one_that_goes() {
    let (effect, details) = of_section(|it| drop(it.sealed.insert(gateway(), [Digest::of(b"two")].into())));
    assert_eq!(effect, Effect::Altered);
    assert_eq!(
        details,
        [
            "one sealed code added for gw-works",
            "one sealed code of gw-works removed"
        ]
    );
    let (effect, details) = of_section(|it| it.sealed.clear());
    assert_eq!(effect, Effect::Narrowed);
    assert_eq!(details, ["one sealed code of gw-works removed"]);
}
