//! Frames other than IP that were seen, by all that a rule of a bridged gateway can ask of them. Nothing in them is read.

use std::collections::BTreeMap;

use penstock_policy::terms::EtherType;

use crate::capture::{BridgedFrame, Frame};
use crate::replay::Occurrences;

/// Different frames that are kept apart; further ones are counted together.
const FRAMES_MAX: usize = 4_096;

/// By what frames differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameKey {
    /// What kind they are of.
    pub ether_type: EtherType,
    /// The VLAN of their tag; 0: none.
    pub vlan: u16,
    /// Who sent them.
    pub sender: [u8; 6],
    /// Whom they are for.
    pub destination: [u8; 6],
    /// The application, of kinds that have one.
    pub appid: Option<u16>,
}

impl FrameKey {
    /// Whether they are for many at once.
    pub fn is_to_many(&self) -> bool {
        self.destination.first().is_some_and(|first| first & 1 == 1)
    }
}

/// Frames by what tells them apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenFrames {
    seen: BTreeMap<FrameKey, Occurrences>,
    /// Frames beyond [`FRAMES_MAX`].
    pub left_out: u64,
}

impl SeenFrames {
    /// Takes a frame that carries neither IP nor ARP; `ignores_tags`: who recorded it has added its tags. What no gateway could permit is
    /// counted elsewhere.
    pub(super) fn frame(&mut self, frame: &Frame<'_>, ignores_tags: bool) {
        let Some(bridged) = BridgedFrame::of(frame, ignores_tags).filter(|bridged| !bridged.is_link_local())
        else {
            return;
        };
        let (Some(ether_type), Some(vlan)) = (bridged.permittable(), bridged.seen.vlan) else {
            return;
        };
        let key = FrameKey {
            ether_type,
            vlan,
            sender: bridged.sender,
            destination: bridged.seen.destination,
            appid: bridged.seen.appid,
        };
        if let Some(seen) = self.seen.get_mut(&key) {
            seen.again(frame.at);
        } else if self.seen.len() < FRAMES_MAX {
            self.seen.insert(key, Occurrences::once(frame.at));
        } else {
            self.left_out += 1;
        }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = (&FrameKey, &Occurrences)> {
        self.seen.iter()
    }
}
