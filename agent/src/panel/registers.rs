//! The image that panels read: how zones are, as words of 16 bits. Pure. What stands where is a promise to whoever commissioned a panel
//! ([`MAP_VERSION`]): places are added where there was zero, and none is moved.
//!
//! ```text
//!    0…   this gateway           20… 51 its name, 52… 83 the plant's (ASCII, two letters a register)
//!  100…   8 registers a zone     1000… 32 registers a zone: its name
//! ```
//!
//! A zone's place is that of its name in the configured order; the other zones of the plan follow by name. So with a list a zone that is
//! added or removed moves no other, and the place of one that the plan does not have reads zero.

use std::collections::BTreeSet;
use std::time::Duration;

use penstock_policy::ids::ZoneId;

use crate::zones::{GatewayHealth, ZoneHealth, ZoneMode, ZoneState};

/// In register 0: what this map is (`PS`).
pub const MAGIC: u16 = 0x5053;
/// In register 1: what stands where.
pub const MAP_VERSION: u16 = 1;
/// The first register of the first zone.
pub const ZONES_AT: u16 = 100;
/// Registers of each zone.
pub const ZONE_REGISTERS: u16 = 8;
/// Zones that have a place.
pub const ZONES_MAX: u16 = 100;
/// The first register of the first zone's name.
pub const NAMES_AT: u16 = 1000;
/// Registers of each name.
pub const NAME_REGISTERS: u16 = 32;
/// All registers.
pub const REGISTERS: u16 = NAMES_AT + ZONES_MAX * NAME_REGISTERS;

/// Where this gateway's and the plant's name begin.
const GATEWAY_AT: u16 = 20;
const PLANT_AT: u16 = GATEWAY_AT + NAME_REGISTERS;

/// All registers at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image(Vec<u16>);

impl Image {
    /// Of a gateway of which nothing is known yet: its heartbeat is 0, and so are all states.
    pub fn unknown() -> Self {
        let mut image = Self(vec![0; usize::from(REGISTERS)]);
        image.put(0, &[MAGIC, MAP_VERSION]);
        image
    }

    /// As `health` says, with zones placed as `order` says.
    pub fn of(health: &GatewayHealth, order: &[ZoneId]) -> Self {
        let mut image = Self::unknown();
        let (places, left_out) = places(health, order);
        let revision = u32::try_from(health.revision.unwrap_or(0)).unwrap_or(u32::MAX);
        let session = health.session.map(|since| health.now.saturating_sub(since));
        let [high, low] = [revision >> 16, revision & 0xffff].map(|half| half as u16);
        image.put(
            2,
            &[
                (health.heartbeat & 0xffff) as u16,
                state_code(health.state),
                word(places.len()),
                high,
                low,
                u16::from(health.trial.is_some()),
                u16::from(session.is_some()),
                seconds(session.unwrap_or_default()),
                u16::from(health.drift),
                word(health.faults.len()),
                word(health.denied),
                word(health.must_flows),
                word(health.silent),
                word(health.overrides),
                u16::from(health.hold),
                word(left_out),
            ],
        );
        image.put_name(GATEWAY_AT, &health.gateway);
        image.put_name(PLANT_AT, &health.plant);
        for (place, (name, zone)) in (0..ZONES_MAX).zip(places) {
            image.put_name(NAMES_AT + place * NAME_REGISTERS, name.as_str());
            if let Some(zone) = zone {
                let since = health.now.saturating_sub(zone.since);
                image.put(
                    ZONES_AT + place * ZONE_REGISTERS,
                    &[
                        state_code(zone.state),
                        seconds(since),
                        mode_code(zone.mode),
                        word(zone.denied),
                        u16::from(health.trial.is_some()),
                        word(zone.silent),
                        word(zone.faults),
                        word(zone.would_deny),
                    ],
                );
            }
        }
        image
    }

    /// `count` registers from `first` on; `None`: the map does not have all of them.
    pub fn read(&self, first: u16, count: u16) -> Option<&[u16]> {
        let first = usize::from(first);
        self.0.get(first..first + usize::from(count))
    }

    fn put(&mut self, at: u16, words: &[u16]) {
        let places = self.0.iter_mut().skip(usize::from(at));
        places.zip(words).for_each(|(place, word)| *place = *word);
    }

    /// A name in ASCII, two letters a register, the first in the high byte; names have no other letters.
    fn put_name(&mut self, at: u16, name: &str) {
        let mut letters = name.bytes().take(2 * usize::from(NAME_REGISTERS));
        let places = self.0.iter_mut().skip(usize::from(at));
        for place in places.take(usize::from(NAME_REGISTERS)) {
            let [high, low] = [letters.next(), letters.next()].map(|letter| letter.unwrap_or(0));
            *place = u16::from_be_bytes([high, low]);
        }
    }
}

/// The zones by place, and how many have none.
fn places<'a>(
    health: &'a GatewayHealth,
    order: &'a [ZoneId],
) -> (Vec<(&'a ZoneId, Option<&'a ZoneHealth>)>, usize) {
    let listed: BTreeSet<&ZoneId> = order.iter().collect();
    let of = |name: &ZoneId| health.zones.iter().find(|zone| zone.zone == *name);
    let mut places: Vec<_> = order.iter().map(|name| (name, of(name))).collect();
    let others = health.zones.iter().filter(|zone| !listed.contains(&zone.zone));
    let mut others: Vec<_> = others.map(|zone| (&zone.zone, Some(zone))).collect();
    others.sort_by_key(|(name, _)| *name);
    places.append(&mut others);
    let left_out = places.len().saturating_sub(usize::from(ZONES_MAX));
    places.truncate(usize::from(ZONES_MAX));
    (places, left_out)
}

fn state_code(state: ZoneState) -> u16 {
    match state {
        ZoneState::Enforcing => 1,
        ZoneState::Observing => 2,
        ZoneState::Degraded => 3,
        ZoneState::Unprotected => 4,
    }
}

fn mode_code(mode: ZoneMode) -> u16 {
    match mode {
        ZoneMode::Observe => 1,
        ZoneMode::Enforce => 2,
        ZoneMode::Mixed => 3,
    }
}

/// A number that may be larger than a register: then the register is full.
fn word(number: impl TryInto<u16>) -> u16 {
    number.try_into().unwrap_or(u16::MAX)
}

fn seconds(span: Duration) -> u16 {
    word(span.as_secs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn zone(name: &str) -> ZoneHealth {
        ZoneHealth {
            zone: ZoneId::new(name).unwrap(),
            state: ZoneState::Degraded,
            since: Duration::from_secs(40),
            since_ms: 0,
            mode: ZoneMode::Enforce,
            denied: 70_000,
            would_deny: 5,
            silent: 1,
            faults: 2,
        }
    }

    fn health(zones: &[&str]) -> GatewayHealth {
        GatewayHealth {
            heartbeat: 0x0001_0007,
            now: Duration::from_secs(100),
            now_ms: 0,
            plant: "spine".to_owned(),
            gateway: "gw-1".to_owned(),
            state: ZoneState::Degraded,
            revision: Some(0x0002_0003),
            trial: Some(9),
            drift: false,
            overrides: 1,
            hold: true,
            session: Some(Duration::from_secs(10)),
            denied: 12,
            must_flows: 4,
            silent: 1,
            zones: zones.iter().map(|name| zone(name)).collect(),
            faults: Vec::new(),
        }
    }

    fn order(names: &[&str]) -> Vec<ZoneId> {
        names.iter().map(|name| ZoneId::new(*name).unwrap()).collect()
    }

    fn name_at(image: &Image, place: u16) -> String {
        let words = image
            .read(NAMES_AT + place * NAME_REGISTERS, NAME_REGISTERS)
            .unwrap();
        let letters: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        String::from_utf8(letters)
            .unwrap()
            .trim_end_matches('\0')
            .to_owned()
    }

    #[test]
    fn what_stands_where_is_as_documented() {
        let image = Image::of(&health(&["cell", "office"]), &[]);
        assert_eq!(
            image.read(0, 20).unwrap(),
            [MAGIC, 1, 7, 3, 2, 2, 3, 1, 1, 90, 0, 0, 12, 4, 1, 1, 1, 0, 0, 0]
        );
        assert_eq!(image.read(20, 2).unwrap(), [0x6777, 0x2d31], "gw-1");
        assert_eq!(image.read(52, 3).unwrap(), [0x7370, 0x696e, 0x6500], "spine");
        let cell = [3, 60, 2, u16::MAX, 1, 1, 2, 5];
        assert_eq!(image.read(100, 8).unwrap(), cell);
        assert_eq!(image.read(108, 8).unwrap(), cell);
        assert_eq!(image.read(116, 8).unwrap(), [0; 8]);
        assert_eq!(
            (name_at(&image, 0), name_at(&image, 1)),
            ("cell".to_owned(), "office".to_owned())
        );
        assert_eq!(image.read(4199, 1).unwrap(), [0]);
        assert!(image.read(4199, 2).is_none() && image.read(u16::MAX, 125).is_none());
    }

    #[test]
    fn of_a_gateway_that_has_not_looked_at_itself_everything_is_unknown() {
        let image = Image::unknown();
        assert_eq!(image.read(0, 4).unwrap(), [MAGIC, MAP_VERSION, 0, 0]);
    }

    #[test]
    fn in_a_given_order_a_zone_more_or_less_moves_none() {
        let given = order(&["office", "cell"]);
        for (zones, expected) in [
            (&["cell", "office"][..], ["office", "cell", "", ""]),
            (
                &["attic", "cell", "office", "yard"],
                ["office", "cell", "attic", "yard"],
            ),
            (&["attic", "cell"], ["office", "cell", "attic", ""]),
        ] {
            let image = Image::of(&health(zones), &given);
            assert_eq!([0, 1, 2, 3].map(|place| name_at(&image, place)), expected);
        }
        let gone = Image::of(&health(&["cell"]), &given);
        assert_eq!(
            gone.read(100, 8).unwrap(),
            [0; 8],
            "the office is not at this gateway"
        );
        assert_eq!(gone.read(4, 1).unwrap(), [2]);
    }

    proptest! {
        #[test]
        fn any_number_of_zones_fits_and_those_beyond_are_counted(count in 0_usize..240, listed in 0_usize..130) {
            let names: Vec<String> = (0..count).map(|number| format!("zone-{number:03}")).collect();
            let given: Vec<String> = (0..listed).map(|number| format!("zone-{:03}", 2 * number)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let given: Vec<&str> = given.iter().map(String::as_str).collect();
            let image = Image::of(&health(&names), &order(&given));
            let all: BTreeSet<&str> = names.iter().chain(&given).copied().collect();
            prop_assert_eq!(image.read(4, 1).unwrap()[0], word(all.len().min(100)));
            prop_assert_eq!(image.read(17, 1).unwrap()[0], word(all.len().saturating_sub(100)));
            let shown: Vec<String> = (0..ZONES_MAX).map(|place| name_at(&image, place)).collect();
            let distinct: BTreeSet<&String> = shown.iter().filter(|name| !name.is_empty()).collect();
            prop_assert_eq!(distinct.len(), all.len().min(100), "each has one place");
            prop_assert!(shown.iter().zip(&given).all(|(shown, given)| shown == given));
        }
    }
}
