//! The chains of `table inet penstock` that judge connections which the kernel tracks the wrong way round.
//!
//! Connection tracking takes the first packet that it sees for the opening. On a gateway that comes to a running plant, that
//! was restarted, or that took another's place, this is as often as not one of the server's; the connection's original
//! tuple is then the server's, and no rule permits it. What misses the rules by the tracked direction comes here, and is
//! judged by the tuple turned round, at every packet and by the plan in force, where the direction is proved otherwise:
//!
//! - TCP is opened by a SYN and by nothing else. Where none was seen ([`MARK_OPENED`]) the connection stood before, and which
//!   of its ends the rules name as the client tells its direction. A SYN of the server's is never judged so: it would open a
//!   connection, and nobody opens one against a flow's direction. What else a server might send to a host that has no such
//!   connection is answered with a reset.
//! - UDP is a client's as soon as the client has spoken: a datagram that is permitted as an opening ([`MARK_TURNED`]) gives
//!   the server what every opening gives it, the answers on that pair of ports. Until then the server's datagrams are its
//!   own, and refused; but for [`STARTING_S`] after the tables were made, or after traffic came to a gateway that had none
//!   (`table::standby`), in which nothing could be known yet: then those of a declared server to its declared client pass,
//!   and are reported as assumed.
//!
//! A flow whose operations are read cannot be taken up midway: its connections are reset, and their clients open them anew.
//!
//! ICMP echo needs none of this: only a request begins an entry.

use std::fmt::Write;

use super::families::Family;
use super::lines::{log, within_limit};
use super::shape;
use crate::enforce::nft::names::{MARK_FLOW, MARK_OPENED, MARK_TURNED, STARTING, STARTING_S, prefix};

/// Chains of every structure.
pub(super) const CHAINS: [&str; 12] = [
    "turned_original4",
    "turned_original6",
    "turned_reply4",
    "turned_reply6",
    "assume4",
    "assume6",
    "turned_by_client",
    "turn",
    "turned_by_server",
    "assumed",
    "midway",
    "cut_midway",
];

/// What `tcp flags` of an opening are.
pub(super) const OPENING: &str = "tcp flags & (syn | ack) == syn";

/// The set [`STARTING`], and the counter of what passes for it.
pub(super) const OBJECTS: &str = "set starting { type inet_proto; flags timeout; }\ncounter assumed { }\n";

/// Begins the time in which the tables count as new.
pub(super) fn start(script: &mut String, table: &str) {
    let _ = writeln!(
        script,
        "add element inet {table} {STARTING} {{ udp timeout {STARTING_S}s }}"
    );
}

/// Where both families' chains lead. `gate` sends away what is not granted any more, `observed` what is only observed on its way.
pub(super) fn verdicts(script: &mut String, gate: &str, observed: &str, group: u16) {
    let _ = write!(
        script,
        "chain turned_by_client {{
         {gate}counter name allowed
         meta l4proto udp ct mark & {MARK_TURNED:#x} == 0 goto turn
         ct mark & {MARK_FLOW:#x} != 0 accept
         goto turn
         }}
         chain turn {{
         ct mark set meta mark
         meta l4proto udp ct mark set ct mark | {MARK_TURNED:#x}
         {allow} accept
         }}
         chain turned_by_server {{
         {gate}counter name allowed
         ct mark & {MARK_FLOW:#x} != 0 accept
         ct mark set meta mark
         {allow_reply} accept
         }}
         chain assumed {{
         {gate}counter name allowed
         counter name assumed
         ct mark & {MARK_FLOW:#x} != 0 accept
         ct mark set meta mark
         {assumed} accept
         }}
         chain midway {{
         {observed}
         goto cut_midway
         }}
         chain cut_midway {{
         counter name denied
         ct direction original {within_limit} counter name denied_told {cut_reply} reject with tcp reset
         ct direction reply {within_limit} counter name denied_told {cut} reject with tcp reset
         reject with tcp reset
         }}
        ",
        allow = log(prefix::ALLOW, group),
        allow_reply = log(prefix::ALLOW_REPLY, group),
        assumed = log(prefix::ASSUMED, group),
        cut = log(prefix::CUT, group),
        cut_reply = log(prefix::CUT_REPLY, group),
        within_limit = within_limit(),
    );
}

/// The chains of one family.
pub(super) fn judge(script: &mut String, family: &Family) {
    let Family {
        number: n,
        header: ip,
        ..
    } = family;
    let [(_, of_client), (_, of_server)] = shape::tuples(ip);
    let permitted = |tuple: &str, verdict: &str| {
        format!(
            "meta mark set {tuple} map @exact{n} goto {verdict}
             meta mark set {tuple} map @ranges{n} goto {verdict}
            "
        )
    };
    let inspected = |tuple: &str| {
        format!(
            "meta l4proto tcp {tuple} @inspected{n} goto midway
             meta l4proto tcp {tuple} @inspected_ranges{n} {tuple} != @spared{n} goto midway
            "
        )
    };
    let _ = write!(
        script,
        "chain turned_original{n} {{
         meta l4proto tcp ct mark & {MARK_OPENED:#x} != 0 goto miss
         {OPENING} goto miss
         meta l4proto udp ct mark & {MARK_TURNED:#x} == 0 goto assume{n}
         {by_server}{server_inspected}goto miss
         }}
         chain assume{n} {{
         meta l4proto != @starting goto miss
         {assumed}goto miss
         }}
         chain turned_reply{n} {{
         meta l4proto tcp ct mark & {MARK_OPENED:#x} != 0 goto miss
         {by_client}{client_inspected}goto miss
         }}
        ",
        by_server = permitted(&of_server, "turned_by_server"),
        assumed = permitted(&of_server, "assumed"),
        by_client = permitted(&of_client, "turned_by_client"),
        server_inspected = inspected(&of_server),
        client_inspected = inspected(&of_client),
    );
}
