//! Frames other than IP in a conduit.

use crate::document::frames::{AppIds, Vlan};
use crate::document::read::{OneOrMany, record};
use crate::document::scalars::Text;
use crate::ids::ZoneId;
use crate::terms::{EtherType, MacPrefix};

record! {
    /// Frames that carry neither IP nor ARP, and that bridged gateways let pass.
    FrameFlow "frames other than IP" {
        /// What people call them.
        optional title: Text,
        /// The zone that they come from, one of the conduit's two; they pass to the other.
        required from: ZoneId,
        /// Whether the same frames also pass the other way (default: no).
        optional both: bool,
        /// What kind they are of: a name, such as `profinet-rt` or `goose`, or four hexadecimal digits, such as `0x8892`.
        required ethertype: EtherType,
        /// The VLAN of their tag, one or a list; 0 stands for none, untagged or with a priority alone, and is the default.
        optional vlan: OneOrMany<Vlan>,
        /// The MAC addresses that they are for, one or a list; a block is written `01:0c:cd:01:00:00/40`. Without it any.
        optional to_mac: OneOrMany<MacPrefix>,
        /// The APPIDs of `goose`, `sampled-values` or `gse-management`: `0x0001`, `0x0001-0x00ff`, or a list. Without it any.
        optional appid: OneOrMany<AppIds>,
    }
}
