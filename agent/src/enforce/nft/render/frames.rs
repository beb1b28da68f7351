//! Bridge table: what a plan permits beside IP, by what stands in the frame itself: EtherType, VLAN, destination and APPID.
//!
//! Asked twice by the same words. In prerouting, before the bridge learns where a MAC address is: a closed side admits such a frame
//! only if some way leads on for it (the chains `beside`, by side), and no side one whose sender belongs to another (`framed`). And
//! where it is forwarded (the chain `frames`): only there the port is known by which it leaves, and its sender is bound to the side that it came
//! in by, as an end of a flow is.
//!
//! A tag that the network card took off is put back by the kernel where a rule reads the header, and is counted as if it stood there. So one
//! tag is 4 bytes, and what carries two of them, or another than IEEE 802.1Q, has a tag where the type of what is permitted would be.

use std::fmt::Write;

use penstock_policy::plan::FrameRule;
use penstock_policy::terms::Frames;

use super::lines::of_side;
use crate::enforce::shape::structure::Structure;

/// The chains for each side: what carries neither IP nor ARP, and what of it is permitted.
pub(super) const BESIDE_IP: &str = "beside";
pub(super) const FRAMED: &str = "framed";

/// What a rule asks of a frame to be one of these: a line each for those without a tag, and those with one.
fn asks(frames: &Frames) -> impl Iterator<Item = String> {
    let kind = format!("{:#06x}", frames.ether_type.number());
    let to = frames.destinations.as_ref().map_or_else(String::new, |blocks| {
        let blocks = blocks.iter().map(|block| match block.ends().map(mac) {
            [first, last] if first == last => first,
            [first, last] => format!("{first}-{last}"),
        });
        format!(" ether daddr {{ {} }}", blocks.collect::<Vec<_>>().join(", "))
    });
    let of = |at: u32| {
        frames.appids.as_ref().map_or_else(String::new, |ids| {
            let ids = ids.iter().map(|range| match range.first == range.last {
                true => format!("{:#06x}", range.first),
                false => format!("{:#06x}-{:#06x}", range.first, range.last),
            });
            format!(" @ll,{at},16 {{ {} }}", ids.collect::<Vec<_>>().join(", "))
        })
    };
    let vlans: Vec<String> = frames.vlans.iter().map(u16::to_string).collect();
    let untagged = frames.vlans.contains(&0);
    let plain = untagged.then(|| format!("@ll,96,16 {kind}{to}{}", of(112)));
    let tagged = format!(
        "@ll,96,16 0x8100 @ll,112,16 & 0x0fff {{ {} }} @ll,128,16 {kind}{to}{}",
        vlans.join(", "),
        of(144)
    );
    plain.into_iter().chain([tagged])
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn names(interfaces: &[String]) -> String {
    let quoted = interfaces.iter().map(|name| format!("\"{name}\""));
    format!("{{ {} }}", quoted.collect::<Vec<_>>().join(", "))
}

/// What comes in by `interface` and carries neither IP nor ARP: what is permitted on any way comes in, unless its sender belongs to another
/// side (`moved` refuses that); the rest fares as `foreign` says.
pub(super) fn admission(structure: &Structure, interface: &str, [moved, foreign]: [&str; 2]) -> String {
    let enters = |rule: &&FrameRule| {
        rule.ways()
            .any(|(from, _)| from.iter().any(|name| name == interface))
    };
    let rules = structure.frames.iter().filter(enters);
    let (beside, framed) = (of_side(BESIDE_IP, interface), of_side(FRAMED, interface));
    let lines = rules.flat_map(|rule| asks(&rule.frames));
    let permitted: String = lines.map(|asked| format!("{asked} goto {framed}\n")).collect();
    format!("chain {beside} {{\n{permitted}{foreign}\n}}\nchain {framed} {{\n{moved}return\n}}")
}

/// The chain of what may cross, by both ports. Only what crosses binds its sender to the side that it came in by (`bind` does, for that side):
/// a copy of the other side's frames that comes to a standby says nothing of where their sender is. Where a closed side has no room for
/// one more sender, its frames are refused.
pub(super) fn chain(script: &mut String, structure: &Structure, bind: impl Fn(&str) -> String) {
    script.push_str("chain frames {\n");
    for rule in &structure.frames {
        for (from, to) in rule.ways() {
            let to = names(to);
            for asked in asks(&rule.frames) {
                for interface in from {
                    let crosses = format!("iifname \"{interface}\" oifname {to} {asked}");
                    let bind = bind(interface);
                    let _ = writeln!(script, "{crosses} {bind} meta mark set 0 accept");
                    if !structure.neighbours.closed.contains(interface) {
                        let _ = writeln!(script, "{crosses} meta mark set 0 accept");
                    }
                }
            }
        }
    }
    script.push_str("}\n");
}
