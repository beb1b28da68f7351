//! A flow of a proposal: how often it was seen, how far it is to be trusted, and the lines that permit it.

use std::fmt::Write as _;

use penstock_policy::document::services::protocol_at;

use super::place::Place;
use super::{Ends, Flows, PortCarrier, Talk, Writing, allow, known_port, seen};
use crate::learn::talk::Failure;
use crate::replay::Occurrences;

/// How much a doubt weighs: flows with the greatest doubts come first.
mod weight {
    pub(super) const GUESSED: u32 = 16;
    pub(super) const UNREAD: u32 = 8;
    pub(super) const UNCONFIRMED: u32 = 4;
    pub(super) const IN_VAIN: u32 = 2;
    pub(super) const MIDWAY: u32 = 1;
}

/// Writes the flow of a talk between two places.
pub(super) fn write(
    flows: &mut Flows,
    ends: &Ends,
    talk: &Talk,
    (from, to): (&Place, &Place),
    writing: &Writing<'_>,
) {
    let port = ends.server.port();
    let name = flows.name(from, to, port);
    let mut text = String::new();
    let out = &mut text;
    // What was taken for a protocol by its content alone has to be that protocol all the time.
    let readable = talk
        .protocol
        .filter(|_| talk.is_read() && !(talk.by_content && talk.unread));
    let service = match (readable, port) {
        (Some(protocol), port) if protocol_at(port) == Some(protocol) => protocol.word.to_owned(),
        (Some(protocol), port) => format!("{}:{port}", protocol.word),
        (None, port) => match ends.carrier {
            PortCarrier::Tcp => format!("tcp/{port}"),
            PortCarrier::Udp => format!("udp/{port}"),
        },
    };
    times(out, ends, talk, writing);
    let doubt = doubts(out, ends, talk, readable.is_some(), writing);
    let _ = write!(
        out,
        "      {name}:\n        source: {}\n        destination: {}\n        service: {service}\n",
        from.asset, to.asset
    );
    let widening = if writing.plant.is_some() { "widens: " } else { "" };
    if let Some(protocol) = readable {
        if talk.in_order && protocol.matches_answers {
            out.push_str(
                "        answers: in-order # its server answers under other identifiers than it was asked\n",
            );
        }
        out.push_str("        allow:\n");
        allow::write(out, protocol, talk, widening, writing.clock);
    }
    flows.written.push((doubt, text));
}

/// How often it was seen, and when.
fn times(out: &mut String, ends: &Ends, talk: &Talk, writing: &Writing<'_>) {
    let clock = writing.clock;
    let _ = match (&talk.connections, &talk.packets) {
        (Occurrences { count: 1.., .. }, Some(packets)) if ends.carrier == PortCarrier::Udp => {
            let (times, conversations) = (seen(packets, clock), conversations(talk.connections.count));
            writeln!(out, "      # Datagrams {times}, in {conversations}.")
        }
        (Occurrences { count: 1.., .. }, _) => {
            writeln!(out, "      # Connected {}.", seen(&talk.connections, clock))
        }
        (_, Some(packets)) => {
            let times = seen(packets, clock);
            writeln!(out, "      # Counted by gateways at its verdicts: {times}.")
        }
        (open, None) => writeln!(out, "      # Connected before {}, and still.", clock(open.first)),
    };
}

fn conversations(count: u64) -> String {
    match count {
        1 => "one conversation".to_owned(),
        count => format!("{count} conversations"),
    }
}

/// What stands against it, in a comment each; how much that weighs.
fn doubts(out: &mut String, ends: &Ends, talk: &Talk, readable: bool, writing: &Writing<'_>) -> u32 {
    let mut doubt = 0;
    let mut say = |weight: u32, words: &str| {
        doubt += weight;
        let _ = writeln!(out, "      # {words}");
    };
    let connections = talk.connections.count;
    if talk.guessed > 0 {
        say(
            weight::GUESSED,
            "Who opened it is a guess: its beginning was not seen, and its ports do not tell. It may be the other way round.",
        );
    } else if ends.carrier == PortCarrier::Tcp && talk.opened < connections {
        let words = format!(
            "Its opening was seen in {} of {connections} connections.",
            talk.opened
        );
        say(weight::MIDWAY, &words);
    }
    if let Some(tunnel) = tunnel(ends) {
        let words = format!("A tunnel ({tunnel}): what is inside is not read, and this permits all of it.");
        say(weight::UNREAD, &words);
    }
    if talk.answered == Some(0) {
        say(
            weight::UNCONFIRMED,
            "It was never answered: some senders need no answer, others ask in vain.",
        );
    }
    if talk.unconfirmed > 0 {
        let words = format!(
            "The recording lacks the answers to {} of its operations: whether they were carried out is not known.",
            talk.unconfirmed
        );
        say(weight::UNCONFIRMED, &words);
    }
    let failed: Vec<String> = [
        (Failure::Refused, "refused by its server"),
        (Failure::Unanswered, "not answered"),
        (Failure::Malformed, "malformed"),
    ]
    .into_iter()
    .filter_map(|(why, words)| {
        let of_it = talk.failed.iter().filter(|((known, _), _)| *known == why);
        let count: u64 = of_it.map(|(_, seen)| seen.seen.count).sum();
        (count > 0).then(|| format!("{count} {words}"))
    })
    .collect();
    if !failed.is_empty() {
        let failures: u64 = talk.failed.values().map(|seen| seen.seen.count).sum();
        let worked: u64 = talk.operations.values().map(|seen| seen.seen.count).sum();
        let words = format!("Of {} operations: {}.", failures + worked, failed.join(", "));
        say(weight::IN_VAIN, &words);
    }
    if writing.days > 1 {
        let words = format!("Seen on {} of {} days.", talk.days.count(), writing.days);
        let rare = u32::from(2 * talk.days.count() < writing.days);
        say(rare, &words);
    }
    if readable && talk.by_content {
        say(
            0,
            "The port is not the protocol's own; all that was seen there is this protocol.",
        );
    }
    if !readable && known_port(ends) {
        say(
            weight::UNREAD,
            "None of its operations was read, so this permits all of them: learn them first.",
        );
    }
    if talk.unread {
        say(
            weight::UNREAD,
            "Some of it could not be read as the protocol; inspection would end such connections.",
        );
    }
    if talk.misfits {
        say(
            weight::IN_VAIN,
            "Some of its answers fit no request; inspection would withhold those, and `penstock replay` names them.",
        );
    }
    if talk.further > 0 {
        let words = format!("{} further operations are left out.", talk.further);
        say(weight::UNREAD, &words);
    }
    doubt
}

/// Tunnels over UDP, by the port that IANA gave them.
const TUNNELS: [(u16, &str); 6] = [
    (1701, "L2TP"),
    (2152, "GTP"),
    (4500, "IPsec"),
    (4789, "VXLAN"),
    (6081, "Geneve"),
    (51_820, "WireGuard"),
];

/// Which tunnel a conversation is.
fn tunnel(ends: &Ends) -> Option<&'static str> {
    let known = TUNNELS.iter().find(|(port, _)| *port == ends.server.port());
    known
        .filter(|_| ends.carrier == PortCarrier::Udp)
        .map(|(_, name)| *name)
}
