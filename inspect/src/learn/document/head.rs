//! What stands at the head of a proposal: what it rests on, and what it knows nothing of.

use std::fmt::Write as _;

use penstock_policy::text::is_hidden;

use super::Learned;
use crate::capture::SkipReason;
use crate::share::share;

/// Packets that no flow can permit, by what they are, with their share in words.
pub fn beyond_flows(learned: &Learned) -> impl Iterator<Item = String> + '_ {
    let beyond = learned
        .skipped
        .iter()
        .filter(|(reason, _)| is_beyond_flows(**reason));
    beyond.map(|(reason, count)| format!("{}: {reason}", share(*count, learned.packets, "packets")))
}

fn is_beyond_flows(reason: SkipReason) -> bool {
    matches!(reason, SkipReason::NotIp(_) | SkipReason::Group)
}

/// Writes it; `beside`: next to a plant.
pub(super) fn write(out: &mut String, learned: &Learned, beside: bool) {
    out.push_str("# Proposed from recorded traffic. It says what happens, not what should: read it before you sign it.\n");
    let mut read = Vec::new();
    if learned.packets > 0 || learned.remarks.is_empty() {
        read.push(format!("{} packets read", learned.packets));
    }
    if beside {
        read.push(format!(
            "{} connections or operations are permitted already, or no gateway is known to stand between their ends",
            learned.permitted_already
        ));
    }
    if learned.by_grant > 0 {
        read.push(format!(
            "nothing is proposed for {} connections or conversations that only grants of remote access permit",
            learned.by_grant
        ));
    }
    if !read.is_empty() {
        let _ = writeln!(out, "# {}.", read.join("; "));
    }
    traffic_beyond_flows(out, learned);
    if learned.unasked > 0 {
        let _ = writeln!(
            out,
            "# {} operations have too many separate ranges, each or together, to be compared with the plant: they are proposed whole, \
             though it may permit some of them.",
            learned.unasked
        );
    }
    for (reason, count) in learned
        .skipped
        .iter()
        .filter(|(reason, _)| !is_beyond_flows(**reason))
    {
        let _ = writeln!(out, "# Packets left aside: {count}, {reason}.");
    }
    if learned.further_kinds > 0 {
        let _ = writeln!(
            out,
            "# Packets left aside: {}, of further kinds than are counted apart: what they are, nothing here says.",
            learned.further_kinds
        );
    }
    if learned.claims.left_out > 0 {
        let _ = writeln!(
            out,
            "# {} times a name, maker, model or firmware was claimed beyond what is kept: who says so much of itself, or of so many, is worth a look.",
            learned.claims.left_out
        );
    }
    for remark in &learned.remarks {
        let _ = writeln!(
            out,
            "# {}",
            remark.replace(|c: char| c.is_control() || is_hidden(c), " ")
        );
    }
    if learned.left_out > 0 {
        let _ = writeln!(
            out,
            "# {} packets of further connections were left out: there were more than are followed at a time.",
            learned.left_out
        );
    }
}

fn traffic_beyond_flows(out: &mut String, learned: &Learned) {
    let mut beyond = beyond_flows(learned).peekable();
    if beyond.peek().is_some() {
        out.push_str(
            "# NO FLOW CAN PERMIT this; where it has to cross, a bridged gateway drops it once a zone enforces, unless `frames` of a conduit permit it \
             (proposed below where it is known between which zones it goes), and a routed one does not forward it:\n",
        );
        for words in beyond {
            let _ = writeln!(out, "#   {words}");
        }
    }
    if !learned.enveloped.is_empty() {
        out.push_str(
            "# A BRIDGED GATEWAY DROPS frames like these once a zone enforces; what they carry is proposed below as if it came plain:\n",
        );
    }
    for (envelope, count) in &learned.enveloped {
        let _ = writeln!(
            out,
            "#   {}: {envelope}",
            share(*count, learned.packets, "packets")
        );
    }
    if learned.further_enveloped > 0 {
        let further = share(learned.further_enveloped, learned.packets, "packets");
        let _ = writeln!(
            out,
            "#   {further}: further tags and labels than are counted apart"
        );
    }
}
