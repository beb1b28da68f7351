//! Bridge table: what a plan permits beside IP, by what stands in the frame itself: EtherType, VLAN, destination and APPID.
//!
//! Asked twice by the same words. In prerouting, before the bridge learns where a MAC address is: a closed side admits such a frame
//! only if some way leads on for it (the chains `framed`, by side), and its sender is bound to that side as an end of a flow is. And
//! where it is forwarded (the chain `frames`): only there the port is known by which it leaves.
//!
//! A tag that the network card took off is put back by the kernel where a rule reads the header, and is counted as if it stood there. So one
//! tag is 4 bytes, and what carries two of them, or another than IEEE 802.1Q, has a tag where the type of what is permitted would be.

use std::fmt::Write;

use penstock_policy::plan::FrameRule;
use penstock_policy::terms::Frames;

use super::lines::of_side;
use crate::enforce::shape::structure::Structure;

/// The chain for each side: whose sender is bound to it.
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

/// Rules for what comes in by `interface`: what is permitted on any way leads to the chain that binds its sender.
pub(super) fn admission(structure: &Structure, interface: &str) -> String {
    let enters = |rule: &&FrameRule| {
        rule.ways()
            .any(|(from, _)| from.iter().any(|name| name == interface))
    };
    let rules = structure.frames.iter().filter(enters);
    let chain = of_side(FRAMED, interface);
    let lines = rules.flat_map(|rule| asks(&rule.frames));
    lines.map(|asked| format!("{asked} goto {chain}\n")).collect()
}

/// The chain that binds the sender of what is permitted to its side, and what of it is refused: another side's MAC address, or one for which
/// there is no room.
pub(super) fn bound(interface: &str, [moved, bind, unknown]: [&str; 3]) -> String {
    let chain = of_side(FRAMED, interface);
    format!("chain {chain} {{\n{moved}{bind} return\n{unknown}\n}}")
}

/// The chain of what may cross, by both ports.
pub(super) fn chain(script: &mut String, structure: &Structure) {
    script.push_str("chain frames {\n");
    for rule in &structure.frames {
        for (from, to) in rule.ways() {
            for asked in asks(&rule.frames) {
                let (from, to) = (names(from), names(to));
                let _ = writeln!(
                    script,
                    "iifname {from} oifname {to} {asked} meta mark set 0 accept"
                );
            }
        }
    }
    script.push_str("}\n");
}
