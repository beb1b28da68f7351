//! What a proposal lists and does not propose: connections that came to nothing, and flows of which nothing worked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use super::{Clock, Ends, Learned, PortCarrier, Talk, allow, seen};
use crate::learn::attempts::Attempts;

/// Lines of one client.
const LINES_MAX: usize = 20;
/// So many services that never answered look like a scan.
const SCAN_MIN: usize = 32;
/// Packets of one talk of a scan, at most.
const SCAN_PACKETS_MAX: u64 = 8;

/// Clients that seem to scan: by talks that nobody answered, and in which little was sent.
pub(super) fn scanning(talks: &[(&Ends, &Talk)]) -> BTreeSet<IpAddr> {
    let mut probed: BTreeMap<IpAddr, (usize, BTreeSet<(PortCarrier, u16)>)> = BTreeMap::new();
    for (ends, talk) in talks {
        if is_probe(ends, talk) {
            let (unanswered, ports) = probed.entry(ends.client).or_default();
            *unanswered += usize::from(talk.answered == Some(0));
            // Gateways count connections, and do not say whether they were answered: of these only many ports look like a scan, not one server
            // for each of many controllers.
            ports.insert((ends.carrier, ends.server.port()));
        }
    }
    probed.retain(|_, (unanswered, ports)| *unanswered >= SCAN_MIN || ports.len() >= SCAN_MIN);
    probed.into_keys().collect()
}

/// Whether a talk could be one of a scan's: little was sent, and nothing shows that it was answered.
pub(super) fn is_probe(ends: &Ends, talk: &Talk) -> bool {
    let packets = talk.packets.map_or(0, |packets| packets.count);
    let unproven = match ends.carrier {
        PortCarrier::Udp => talk.answered.is_none_or(|answered| answered == 0),
        PortCarrier::Tcp => talk.connections.count == 0 && !talk.is_read(),
    };
    unproven && packets <= SCAN_PACKETS_MAX
}

/// Whether all that was read of a talk came to nothing.
pub(super) fn came_to_nothing(talk: &Talk) -> bool {
    !talk.is_read() && !talk.unread && !talk.failed.is_empty()
}

/// Who spoke to whom, and what of it was read.
type Talks<'a> = [(&'a Ends, &'a Talk)];

/// Writes the section, if there is anything in it.
pub(super) fn write(
    out: &mut String,
    learned: &Learned,
    (in_vain, probes): (&Talks<'_>, &Talks<'_>),
    beside: bool,
    clock: &Clock<'_>,
) {
    let tried = learned.attempts.iter();
    let tried: Vec<(&Ends, &Attempts)> = tried
        .filter(|(ends, _)| !learned.talks.contains_key(ends))
        .collect();
    if tried.is_empty() && in_vain.is_empty() && probes.is_empty() {
        return;
    }
    out.push_str(
        "\n# NOT PROPOSED: what was asked and did not work. If some of it is needed all the same, write a flow for it.\n",
    );
    for (ends, talk) in in_vain {
        let _ = writeln!(
            out,
            "# {} to {}: connected {}, and nothing that it asked{} was carried out:",
            ends.client,
            service(ends),
            seen(&talk.connections, clock),
            if beside {
                " beyond what the plant permits"
            } else {
                ""
            }
        );
        let Some(protocol) = talk.protocol else { continue };
        let lines = allow::failed(protocol, talk, clock);
        for line in lines.iter().take(LINES_MAX) {
            let _ = writeln!(out, "#   {} # {}", line.entry, line.remark);
        }
        more(out, lines.len(), "operations");
    }
    let mut by_client: BTreeMap<IpAddr, Vec<(&Ends, String)>> = BTreeMap::new();
    for (ends, attempts) in tried {
        by_client
            .entry(ends.client)
            .or_default()
            .push((ends, in_words(attempts, clock)));
    }
    for (ends, talk) in probes {
        let words = match talk.packets {
            Some(packets) => format!("{}, and nothing shows an answer", seen(&packets, clock)),
            None => "nothing shows an answer".to_owned(),
        };
        by_client.entry(ends.client).or_default().push((ends, words));
    }
    for (client, tried) in by_client {
        let machines: BTreeSet<IpAddr> = tried.iter().map(|(ends, _)| ends.server.ip()).collect();
        let looks = if tried.len() >= SCAN_MIN {
            ": it looks like a scan"
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "# {client} tried {} of {}{looks}:",
            counted(tried.len(), "service"),
            counted(machines.len(), "machine"),
        );
        for (ends, words) in tried.iter().take(LINES_MAX) {
            let _ = writeln!(out, "#   {}: {words}", service(ends));
        }
        more(out, tried.len(), "services");
    }
}

/// "10.0.0.5 tcp/502".
pub(super) fn service(ends: &Ends) -> String {
    let carrier = match ends.carrier {
        PortCarrier::Tcp => "tcp",
        PortCarrier::Udp => "udp",
    };
    format!("{} {carrier}/{}", ends.server.ip(), ends.server.port())
}

fn in_words(attempts: &Attempts, clock: &Clock<'_>) -> String {
    let parts = [
        (attempts.refused, "refused by a reset"),
        (attempts.unanswered, "not answered"),
        (attempts.silent, "opened and closed without a byte"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, what)| format!("{count} {what}")).collect();
    format!("{}: {}", seen(&attempts.seen, clock), parts.join(", "))
}

fn more(out: &mut String, all: usize, what: &str) {
    if let Some(more @ 1..) = all.checked_sub(LINES_MAX) {
        let _ = writeln!(out, "#   and {more} more {what}");
    }
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}
