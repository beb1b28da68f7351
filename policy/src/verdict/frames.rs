//! What a plan says of a frame that carries neither IP nor ARP, on a bridged gateway. The same order as for connections, as far as a
//! frame without addresses can be asked: sides that are not in the plan, one zone on both, what is permitted, who observes.

use super::decide::interface;
use crate::plan::{FrameRule, Plan};
use crate::terms::{Enforcement, FrameSeen, GatewayMode};

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameVerdict<'a> {
    /// It passes by this rule.
    Permitted(&'a FrameRule),
    /// It passes, since nothing is crossed: both sides are the same zone.
    SameZone,
    /// It passes, and is recorded: nothing permits it, and both sides only observe.
    Observed,
    /// It is dropped.
    Refused,
    /// It crosses no guarded interface.
    NotGuarded,
    /// The gateway routes: no frame crosses it.
    Routed,
}

impl FrameVerdict<'_> {
    /// Whether it comes out on the other side.
    pub fn passes(self) -> bool {
        match self {
            Self::Permitted(_) | Self::SameZone | Self::Observed | Self::NotGuarded => true,
            Self::Refused | Self::Routed => false,
        }
    }
}

/// What `plan` says of a frame from one interface to another.
pub fn decide_frame<'a>(plan: &'a Plan, [ingress, egress]: [&str; 2], frame: &FrameSeen) -> FrameVerdict<'a> {
    if plan.mode == GatewayMode::Routed {
        return FrameVerdict::Routed;
    }
    let (from, to) = (interface(plan, ingress), interface(plan, egress));
    let sides = [from, to].into_iter().flatten();
    // Such a frame shows no address by which a zone could be told from another.
    let Some(mode) = sides.map(|side| side.observing.mode(None)).max() else {
        return FrameVerdict::NotGuarded;
    };
    if let (Some(from), Some(to)) = (from, to) {
        if from.zone == to.zone && from.behind.is_empty() && to.behind.is_empty() {
            return FrameVerdict::SameZone;
        }
        if let Some(rule) = plan.frame_rule(ingress, egress, frame) {
            return FrameVerdict::Permitted(rule);
        }
    }
    match mode {
        Enforcement::Observe => FrameVerdict::Observed,
        Enforcement::Enforce => FrameVerdict::Refused,
    }
}
