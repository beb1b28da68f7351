//! Lines that the renderers share: lists of elements, what logs, and the names of what each side has.

use std::fmt::Write;

use crate::enforce::nft::names::TABLE;

/// How many log messages a second the kernel sends per kind; what is above is counted only.
const LOG_PER_SECOND: u32 = 2000;
/// How many it sends at once: half of what is followed at once, a fifth of what the log's socket keeps unread. Unless it is
/// named, the kernel's limit is 5.
const LOG_BURST: u32 = 4096;
/// Bytes of a logged packet that are copied: an IPv6 header with some extensions, and ports.
const LOG_SNAP_BYTES: u32 = 128;
/// Elements per line of the script: bounds the length of a line, not of a transaction.
const ELEMENTS_PER_LINE: usize = 500;

/// Lines that add elements to a set, or take them from it.
pub(super) fn list(
    script: &mut String,
    verb: &str,
    family: &str,
    set: &str,
    elements: impl Iterator<Item = String>,
) {
    let mut elements = elements.peekable();
    while elements.peek().is_some() {
        let _ = write!(script, "{verb} element {family} {TABLE} {set} {{ ");
        for (place, element) in elements.by_ref().take(ELEMENTS_PER_LINE).enumerate() {
            if place > 0 {
                script.push_str(", ");
            }
            script.push_str(&element);
        }
        script.push_str(" }\n");
    }
}

/// What a rule asks before it logs.
pub(super) fn within_limit() -> String {
    format!("limit rate {LOG_PER_SECOND}/second burst {LOG_BURST} packets")
}

/// Counts, and logs with this prefix.
pub(super) fn log(prefix: &str, group: u16) -> String {
    format!("counter name logged log prefix \"{prefix}\" group {group} snaplen {LOG_SNAP_BYTES}")
}

/// The name of a set that there is for each side: `side` holds the addresses that live there, `router` those that may send
/// ICMP errors there, `observing`, where zones of both kinds are, the addresses of those that observe.
pub(super) fn name((set, family): (&str, char), interface: &str) -> String {
    format!("{set}{family}_{}", escaped(interface))
}

/// The name of a chain that there is for each side, about MAC addresses.
pub(super) fn of_side(chain: &str, interface: &str) -> String {
    format!("{chain}_{}", name(("side", '2'), interface))
}

/// An interface in the name of a set or chain. It may hold all that an interface's name may, but for `@` and `:`; and `/`,
/// which an interface's may not.
pub(super) fn escaped(interface: &str) -> String {
    interface.replace('@', "/at/").replace(':', "/colon/")
}
