//! The tags and labels in which a packet came: they part what has equal addresses in two VLANs, and a bridged gateway lets nothing
//! cross that has any.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

/// Tags and labels of one packet, from the outside in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Envelope {
    /// The outermost VLAN, 0 for a tag that only has a priority.
    outer: Option<u16>,
    /// The innermost, if there is another.
    inner: Option<u16>,
    /// What else stood before the packet.
    label: Option<Label>,
}

/// What is not a VLAN's tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// IEC 62439-3.
    Hsr,
    /// RFC 2516.
    PppoE,
    /// RFC 3032.
    Mpls,
}

impl Envelope {
    /// Whether there was none: the packet stood in its frame as a gateway expects it.
    pub fn is_plain(self) -> bool {
        self == Self::default()
    }

    /// The VLAN that the packet belongs to; `None`: no tag says.
    fn vlan(self) -> Option<u16> {
        self.inner.or(self.outer).filter(|vlan| *vlan > 0)
    }

    /// A VLAN's tag more, within those that came before.
    pub(super) fn tag(&mut self, control: u16) {
        let vlan = Some(control & 0x0fff);
        match self.outer {
            None => self.outer = vlan,
            Some(_) => self.inner = vlan,
        }
    }

    /// A label; the outermost counts.
    pub(super) fn label(&mut self, label: Label) {
        self.label.get_or_insert(label);
    }
}

/// "tagged VLAN 10", "tagged VLAN 20 in VLAN 100", "tagged with a priority alone (VLAN 0)", "behind MPLS labels (EtherType 0x8847)".
impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.outer, self.inner) {
            (Some(0), None) => f.write_str("tagged with a priority alone (VLAN 0)")?,
            (Some(vlan), None) => write!(f, "tagged VLAN {vlan}")?,
            (Some(outer), Some(inner)) => write!(f, "tagged VLAN {inner} in VLAN {outer}")?,
            (None, _) => {}
        }
        let Some(label) = self.label else {
            return match self.outer {
                Some(_) => Ok(()),
                None => f.write_str("untagged"),
            };
        };
        if self.outer.is_some() {
            f.write_str(", ")?;
        }
        f.write_str(match label {
            Label::Hsr => "with an HSR tag (EtherType 0x892f)",
            Label::PppoE => "in PPPoE (EtherType 0x8864)",
            Label::Mpls => "behind MPLS labels (EtherType 0x8847)",
        })
    }
}

/// Two ends in one order for both directions, and the VLAN that parts them from the same ends in another.
pub(super) type BothEnds = (SocketAddr, SocketAddr, Option<u16>);

/// Pairs of ends whose VLAN is remembered.
const LANES_MAX: usize = 65_536;

/// Which VLAN packets of two ends belong to. A switch that copies packets may tag those of one direction alone, so untagged ones go with
/// tagged ones of the same ends.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    tagged: HashMap<(SocketAddr, SocketAddr), u16>,
}

impl Lanes {
    /// The ends of a packet between `one` and `other`; `is_known` says which are followed already.
    pub(super) fn ends(
        &mut self,
        (one, other): (SocketAddr, SocketAddr),
        envelope: Envelope,
        is_known: impl Fn(&BothEnds) -> bool,
    ) -> BothEnds {
        let (first, second) = (one.min(other), one.max(other));
        let untagged = (first, second, None);
        let Some(vlan) = envelope.vlan() else {
            let vlan = self.tagged.get(&(first, second)).copied();
            return match vlan {
                Some(_) if !is_known(&untagged) => (first, second, vlan),
                _ => untagged,
            };
        };
        let tagged = (first, second, Some(vlan));
        if !is_known(&tagged) && is_known(&untagged) {
            return untagged;
        }
        if self.tagged.len() < LANES_MAX {
            self.tagged.insert((first, second), vlan);
        }
        tagged
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    fn tagged(vlan: u16) -> Envelope {
        let mut envelope = Envelope::default();
        envelope.tag(vlan);
        envelope
    }

    #[test]
    fn equal_ends_in_two_vlans_are_apart_and_a_direction_without_tags_goes_with_the_other() {
        let (one, other): (SocketAddr, SocketAddr) =
            ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:502".parse().unwrap());
        let mut lanes = Lanes::default();
        let mut known = BTreeSet::new();
        let mut of = |ends, envelope| {
            let ends = lanes.ends(ends, envelope, |ends| known.contains(ends));
            known.insert(ends);
            ends.2
        };
        assert_eq!(of((one, other), tagged(10)), Some(10));
        assert_eq!(of((other, one), Envelope::default()), Some(10));
        assert_eq!(of((one, other), tagged(20)), Some(20));
        assert_eq!(of((one, other), tagged(10)), Some(10));
        // Untagged first.
        let elsewhere = "10.0.0.3:502".parse().unwrap();
        assert_eq!(of((one, elsewhere), Envelope::default()), None);
        assert_eq!(of((elsewhere, one), tagged(30)), None);
        // A priority is no VLAN.
        assert_eq!(of((one, elsewhere), tagged(0xe000)), None);
    }

    #[test]
    fn an_envelope_reads_as_people_say_it() {
        let mut double = tagged(100);
        double.tag(20);
        let mut hsr = Envelope::default();
        hsr.label(Label::Hsr);
        for (envelope, words) in [
            (Envelope::default(), "untagged"),
            (tagged(10), "tagged VLAN 10"),
            (tagged(0xc000), "tagged with a priority alone (VLAN 0)"),
            (double, "tagged VLAN 20 in VLAN 100"),
            (hsr, "with an HSR tag (EtherType 0x892f)"),
        ] {
            assert_eq!(envelope.to_string(), words);
        }
    }
}
