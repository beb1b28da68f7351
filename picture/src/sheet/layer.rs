//! The layers of a picture, top to bottom.

use penstock_policy::model::ZoneKind;

/// A layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Layer {
    /// What is not the plant's own.
    Outside,
    /// Offices.
    Enterprise,
    /// Between offices and plant.
    Dmz,
    /// Sites that several others have conduits with.
    Centres,
    /// The other sites.
    Sites,
    /// Control rooms, and what comes and goes with people.
    Operations,
    /// Controllers.
    Control,
    /// Safety systems.
    Safety,
}

impl Layer {
    /// Every layer, in the order of ranks.
    const ALL: [Self; 8] = [
        Self::Outside,
        Self::Enterprise,
        Self::Dmz,
        Self::Centres,
        Self::Sites,
        Self::Operations,
        Self::Control,
        Self::Safety,
    ];

    /// The layer that a kind of zone belongs to.
    pub(in super::super) fn of(kind: ZoneKind) -> Self {
        match kind {
            ZoneKind::External => Self::Outside,
            ZoneKind::Enterprise => Self::Enterprise,
            ZoneKind::Dmz | ZoneKind::RemoteAccess => Self::Dmz,
            ZoneKind::Operations | ZoneKind::Wireless | ZoneKind::Transient => Self::Operations,
            ZoneKind::Control => Self::Control,
            ZoneKind::Safety => Self::Safety,
        }
    }

    /// Where it stands among all.
    pub(in super::super) fn rank(self) -> usize {
        Self::ALL.iter().position(|layer| *layer == self).unwrap_or(0)
    }

    /// The words at the side of the layer of this rank.
    pub(in super::super) fn title(rank: usize) -> &'static str {
        match Self::ALL.get(rank) {
            Some(Self::Outside) => "OUTSIDE",
            Some(Self::Enterprise) => "ENTERPRISE",
            Some(Self::Dmz) => "DMZ",
            Some(Self::Centres | Self::Sites) => "SITES",
            Some(Self::Operations) => "OPERATIONS",
            Some(Self::Control) => "CONTROL",
            Some(Self::Safety) => "SAFETY",
            None => "",
        }
    }
}
