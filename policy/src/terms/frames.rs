//! Frames that carry neither IP nor ARP, by what a bridge sees of each: its EtherType, the VLAN that it is tagged with, the MAC
//! address that it is for, and of GOOSE, sampled values and their management the application's number.

use serde::{Deserialize, Serialize};

use super::{EtherType, MacPrefix, NumberRange};

/// The greatest VLAN.
pub const VLAN_MAX: u16 = 4094;

/// The most blocks of MAC addresses, and the most ranges of applications.
const LISTED_MAX: usize = 256;

/// Which frames are meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frames {
    /// What kind they are of.
    pub ether_type: EtherType,
    /// The VLAN that the one tag before them names; 0: none, untagged or tagged with a priority alone. Sorted, never empty.
    pub vlans: Vec<u16>,
    /// Whom they are for; `None`: anybody. Sorted, none within another, never empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destinations: Option<Vec<MacPrefix>>,
    /// Which applications; `None`: any. Only where frames of the kind name one. Sorted and apart, never empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appids: Option<Vec<NumberRange>>,
}

/// A frame that carries neither IP nor ARP, as a bridge sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameSeen {
    /// Whom it is for.
    pub destination: [u8; 6],
    /// The VLAN of its one tag, 0 without a tag; `None`: several tags, or another than IEEE 802.1Q.
    pub vlan: Option<u16>,
    /// Its type, behind that tag; or what stands in its place.
    pub ether_type: u16,
    /// The first two bytes of what it carries; `None`: there are none.
    pub appid: Option<u16>,
}

impl Frames {
    /// Whether `frame` is one of them.
    pub fn holds(&self, frame: &FrameSeen) -> bool {
        let within = |ids: &[NumberRange], id: u16| {
            let id = u32::from(id);
            ids.iter().any(|range| (range.first..=range.last).contains(&id))
        };
        let to = |blocks: &Vec<MacPrefix>| blocks.iter().any(|block| block.contains(frame.destination));
        frame.ether_type == self.ether_type.number()
            && frame.vlan.is_some_and(|vlan| self.vlans.contains(&vlan))
            && self.destinations.as_ref().is_none_or(to)
            && self
                .appids
                .as_ref()
                .is_none_or(|ids| frame.appid.is_some_and(|id| within(ids, id)))
    }

    /// Entries of all lists: VLANs, blocks of MAC addresses, ranges of applications.
    pub fn entries(&self) -> usize {
        let destinations = self.destinations.as_ref().map_or(0, Vec::len);
        let appids = self.appids.as_ref().map_or(0, Vec::len);
        self.vlans.len() + destinations + appids
    }

    /// Whether all of `other` are certainly among them.
    pub fn cover(&self, other: &Self) -> bool {
        let destinations = match (&self.destinations, &other.destinations) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => other
                .iter()
                .all(|block| own.iter().any(|wide| wide.covers(*block))),
        };
        let appids = match (&self.appids, &other.appids) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => other.iter().all(|range| {
                own.iter()
                    .any(|wide| wide.first <= range.first && range.last <= wide.last)
            }),
        };
        self.ether_type == other.ether_type
            && other.vlans.iter().all(|vlan| self.vlans.contains(vlan))
            && destinations
            && appids
    }

    /// What would make them mean anything, or nothing, in words.
    pub fn fault(&self) -> Option<&'static str> {
        let listed = |list: Option<usize>| list.is_some_and(|count| count > LISTED_MAX);
        if listed(self.destinations.as_ref().map(Vec::len)) || listed(self.appids.as_ref().map(Vec::len)) {
            return Some("list more than 256 MAC addresses or ranges of applications");
        }
        let sorted = |vlans: &[u16]| vlans.is_sorted_by(|a, b| a < b);
        if self.vlans.is_empty()
            || !sorted(&self.vlans)
            || self.vlans.last().is_some_and(|last| *last > VLAN_MAX)
        {
            return Some("list no VLANs, or such as there are not");
        }
        if let Some(blocks) = &self.destinations
            && (blocks.is_empty() || MacPrefix::merged(blocks.clone()) != *blocks)
        {
            return Some("list no MAC addresses, or some twice");
        }
        let Some(ids) = &self.appids else { return None };
        if !self.ether_type.has_appid() {
            return Some("limit applications, which frames of this kind do not name");
        }
        let in_order =
            ids.iter().all(|range| range.first <= range.last) && NumberRange::merged(ids.clone()) == *ids;
        let known = ids.iter().all(|range| range.last <= u16::MAX.into());
        (ids.is_empty() || !in_order || !known).then_some("list no applications, or some twice")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn blocks() -> impl Strategy<Value = MacPrefix> {
        let texts = vec![
            "01:0c:cd:01:00:00/40",
            "01:0c:cd:01:00:00/46",
            "01:0c:cd:01:00:02",
            "01:0c:cd:01:00:04/47",
            "01:0c:cd:01:00:04",
        ];
        prop::sample::select(texts).prop_map(|text| text.parse().unwrap())
    }

    fn frames() -> impl Strategy<Value = Frames> {
        let ids = prop::collection::vec((0_u32..6, 0_u32..3), 1..3).prop_map(|ids| {
            let ranges = ids.into_iter().map(|(first, more)| NumberRange {
                first,
                last: first + more,
            });
            NumberRange::merged(ranges.collect())
        });
        (
            prop::sample::select(vec![0x88b8_u16, 0x88ba]),
            prop::collection::btree_set(0_u16..3, 1..3),
            prop::option::of(prop::collection::vec(blocks(), 1..4).prop_map(MacPrefix::merged)),
            prop::option::of(ids),
        )
            .prop_map(|(kind, vlans, destinations, appids)| Frames {
                ether_type: kind.try_into().unwrap(),
                vlans: vlans.into_iter().collect(),
                destinations,
                appids,
            })
    }

    proptest! {
        #[test]
        fn what_covers_others_holds_each_frame_that_these_hold(
            (wide, narrow) in (frames(), frames()),
            (last, vlan, kind, appid) in (0_u8..8, prop::option::of(0_u16..3), prop::sample::select(vec![0x88b8_u16, 0x88ba]), prop::option::of(0_u16..9)),
        ) {
            prop_assert_eq!((wide.fault(), narrow.fault()), (None, None));
            let seen = FrameSeen { destination: [1, 0x0c, 0xcd, 1, 0, last], vlan, ether_type: kind, appid };
            if wide.cover(&narrow) && narrow.holds(&seen) {
                prop_assert!(wide.holds(&seen));
            }
            prop_assert!(wide.cover(&wide));
        }
    }
}
