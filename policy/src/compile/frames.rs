//! What crosses a bridged gateway beside IP, with each zone as the sides that it has there.

use super::sorted;
use crate::ids::{ConduitId, ZoneId};
use crate::model::{Conduit, Gateway};
use crate::plan::FrameRule;
use crate::terms::{Frames, MacPrefix, NumberRange};

/// The frames of a conduit at one of its gateways.
pub(super) fn rules<'a>(
    gateway: &'a Gateway,
    id: &'a ConduitId,
    conduit: &'a Conduit,
) -> impl Iterator<Item = FrameRule> + 'a {
    let sides = |zone: &ZoneId| {
        let sides = gateway.interfaces.iter();
        sorted(
            sides
                .filter(|(_, side)| side.zone == *zone)
                .map(|(name, _)| name.clone()),
        )
    };
    conduit.frames.iter().map(move |(name, flow)| FrameRule {
        conduit: id.clone(),
        flow: name.clone(),
        from: sides(&flow.from),
        to: sides(&flow.to),
        both: flow.both,
        frames: merged(&flow.frames),
    })
}

/// The same frames, with all lists in order.
fn merged(frames: &Frames) -> Frames {
    Frames {
        ether_type: frames.ether_type,
        vlans: sorted(frames.vlans.iter().copied()),
        destinations: frames.destinations.clone().map(MacPrefix::merged),
        appids: frames.appids.clone().map(NumberRange::merged),
    }
}
