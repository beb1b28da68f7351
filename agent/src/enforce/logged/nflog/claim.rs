//! What of a neighbour's claim was wrong, as a log prefix says it.

use super::{KernelAction, prefix};

/// A neighbour's claim that is not to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NeighbourClaim {
    /// A MAC address that belongs to another side.
    Moved,
    /// ARP or neighbour discovery of a form that no host needs.
    Malformed,
    /// An address that is another's.
    Forged,
    /// A question or an answer between neighbours that no flow joins.
    Unjoined,
    /// A router that is not declared, or a redirect.
    Advertised,
    /// An address, in a packet from another MAC address than it is bound to.
    Unbound,
}

impl NeighbourClaim {
    /// What a log prefix says, if it is that of a claim.
    pub(super) fn of(said: &str) -> Option<(KernelAction, Self)> {
        let (logged, letter) = match said.strip_prefix(prefix::DENY) {
            Some(letter) => (KernelAction::Deny, letter),
            None => (KernelAction::WouldDeny, said.strip_prefix(prefix::WOULD_DENY)?),
        };
        let claim = match letter {
            prefix::MOVED => Self::Moved,
            prefix::MALFORMED => Self::Malformed,
            prefix::FORGED => Self::Forged,
            prefix::UNJOINED => Self::Unjoined,
            prefix::ADVERTISED => Self::Advertised,
            prefix::UNBOUND => Self::Unbound,
            _ => return None,
        };
        Some((logged, claim))
    }
}
