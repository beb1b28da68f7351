//! What of a plan is about frames that carry neither IP nor ARP: on a bridged gateway nothing else speaks of them, and what is not
//! named here is refused where a zone enforces.
//!
//! Such a frame shows no address, so all that tells where it comes from is the side that it comes in by. Therefore each side that is
//! named here is one zone alone.

use serde::{Deserialize, Serialize};

use super::Plan;
use crate::ids::{ConduitId, FlowName};
use crate::terms::{FrameSeen, Frames};

/// The most rules of a plan, and the most entries of all their lists together: each is a part of several rules in the kernel.
pub(crate) const FRAME_RULES_MAX: usize = 256;
pub(crate) const FRAME_ENTRIES_MAX: usize = 4_096;

/// Frames that pass from some sides to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameRule {
    /// The conduit that permits them.
    pub conduit: ConduitId,
    /// Their name within that conduit.
    pub flow: FlowName,
    /// The interfaces of the zone that they come from; sorted, never empty.
    pub from: Vec<String>,
    /// Those of the zone that they go to; sorted, never empty.
    pub to: Vec<String>,
    /// Whether the same frames pass the other way.
    pub both: bool,
    /// Which frames.
    pub frames: Frames,
}

impl FrameRule {
    /// The ways on which they pass: by which interfaces in, by which out.
    pub fn ways(&self) -> impl Iterator<Item = (&[String], &[String])> {
        let back = self.both.then_some((self.to.as_slice(), self.from.as_slice()));
        std::iter::once((self.from.as_slice(), self.to.as_slice())).chain(back)
    }

    /// Whether it lets `frame` pass from one interface to another.
    pub fn permits(&self, ingress: &str, egress: &str, frame: &FrameSeen) -> bool {
        let on = |names: &[String], name: &str| names.iter().any(|one| one == name);
        self.ways().any(|(from, to)| on(from, ingress) && on(to, egress)) && self.frames.holds(frame)
    }
}

impl Plan {
    /// The first rule that lets `frame` pass from one interface to another.
    pub fn frame_rule(&self, ingress: &str, egress: &str, frame: &FrameSeen) -> Option<&FrameRule> {
        let mut rules = self.frames.iter();
        rules.find(|rule| rule.permits(ingress, egress, frame))
    }
}
