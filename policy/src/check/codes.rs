//! The table of the checker's codes: how grave, one line, and the longer text of `penstock explain PC0101`.
//!
//! As with the document's codes, a code is never given a second meaning and never renumbered.

use super::Severity;

/// What a finding's code is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FindingCode {
    /// `PC0101`.
    pub code: &'static str,
    /// How grave it is at worst.
    pub severity: Severity,
    /// Its meaning in one line.
    pub meaning: &'static str,
    /// Why it is so, and what to do about it.
    pub explanation: &'static str,
}

/// The code that is written `text`, in either case.
pub fn finding_code(text: &str) -> Option<&'static FindingCode> {
    let wanted = text.trim();
    FINDING_CODES
        .iter()
        .find(|known| known.code.eq_ignore_ascii_case(wanted))
}

const fn error(code: &'static str, meaning: &'static str, explanation: &'static str) -> FindingCode {
    FindingCode {
        code,
        severity: Severity::Error,
        meaning,
        explanation,
    }
}

const fn warning(code: &'static str, meaning: &'static str, explanation: &'static str) -> FindingCode {
    FindingCode {
        severity: Severity::Warning,
        ..error(code, meaning, explanation)
    }
}

const fn note(code: &'static str, meaning: &'static str, explanation: &'static str) -> FindingCode {
    FindingCode {
        severity: Severity::Note,
        ..error(code, meaning, explanation)
    }
}

const UNFAITHFUL: &str = "The checker derives from the plant, by code of its own, what each plan must hold, and this plan holds something else. Compile the plans again; if the finding stays, it is a fault in Penstock: please report it, and release nothing until then.";

/// Every code, by number.
pub const FINDING_CODES: &[FindingCode] = &[
    error(
        "PC0101",
        "No management access is declared, so nobody reaches the gateway over the network.",
        "A gateway's `management` names the interface and the peers by which people reach it; no plan closes that way, and every other way to the gateway's own ports is closed. Without it the gateway is managed by its coordinator alone, whose link it opens itself, and at its own console.",
    ),
    error(
        "PC0102",
        "Management access names no peers.",
        "An empty list never means everyone: nobody could reach the gateway. Name the addresses from which it is managed.",
    ),
    warning(
        "PC0103",
        "Management comes in by a side that the gateway guards.",
        "Whatever goes wrong in that zone, or in its rules, takes the way to the gateway along. Give management an interface of its own.",
    ),
    error(
        "PC0104",
        "A management peer lives where management does not come in.",
        "Its packets arrive on another interface than the one that is kept open, and are dropped there. Name a peer that is reached through the management interface, or correct the interface.",
    ),
    error(
        "PC0105",
        "Management comes in by a port of the gateway's bridge.",
        "A port of a bridge has no addresses of its own, and what comes in by a guarded one is never management's: nobody could reach the gateway except at its own console. Give management an interface of its own that is not a port of the bridge.",
    ),
    FindingCode {
        severity: Severity::Note,
        ..warning(
            "PC0106",
            "A bridged gateway has flows, and no router is declared on any of its sides.",
            "ARP and neighbour discovery cross a bridged gateway only between ends of a flow and declared routers. Where all of them share one network segment nothing is missing. Where a router stands between them, hosts look for the router instead: declare it under `routers` of the interface on whose side it stands, also if it lies in no zone; for IPv6 with its link-local address too.",
        )
    },
    error("PC0111", "A gateway has no plan.", UNFAITHFUL),
    error(
        "PC0112",
        "A plan is for another gateway or plant than the one it is kept for.",
        UNFAITHFUL,
    ),
    error(
        "PC0113",
        "A rule or bridge of the plan is not what its flow declares.",
        UNFAITHFUL,
    ),
    error("PC0114", "A declared flow is missing from the plan.", UNFAITHFUL),
    error(
        "PC0115",
        "A side of the gateway is not what the plant makes it.",
        UNFAITHFUL,
    ),
    error(
        "PC0116",
        "The agent would refuse the plan as malformed.",
        UNFAITHFUL,
    ),
    error(
        "PC0117",
        "The plan limits or carries something without requiring an agent that can.",
        "An agent that does not know how to look inside a protocol, to carry a bridge or to keep to change windows must refuse the plan. It can only do so if the plan says what it requires. Compile the plans again; if the finding stays, it is a fault in Penstock: please report it.",
    ),
    error(
        "PC0118",
        "A conduit of the plan is open at other times than its grants of remote access say.",
        UNFAITHFUL,
    ),
    error(
        "PC0119",
        "The plan has other tunnels than its conduits ask for.",
        UNFAITHFUL,
    ),
    warning(
        "PC0120",
        "A flow that limits what MQTT clients do lets them connect under any identifier.",
        "A broker that gets a second connection under an identifier ends the first and hands over its session: subscriptions, and the messages that are kept for it. So a client of this flow can push another one off, at any time. List who may connect: `connect: { client_ids: [...] }`.",
    ),
    warning(
        "PC0121",
        "A flow permits nothing that others do not permit already.",
        "Whatever it was meant for happens by another flow, and the trail names that one. Remove one of the two, so that each thing that is permitted has one reason.",
    ),
    error(
        "PC0122",
        "A flow limits operations on connections that another flow leaves unlimited, or that end with another flow's grant.",
        "What several flows permit on the same connection adds up, so the limits have no effect there. Give the wider flow its operations too, or take these ends and ports out of it. Where only a grant opens the wider flow, the limits hold again when it ends, in the kernel too. But a connection has one course: one that is to pass unread while no agent lives cannot go on so after a grant that ended then. That must not be released; a flow with `on_agent_loss: block` can share connections with a grant's.",
    ),
    warning(
        "PC0123",
        "A flow can never pass a gateway that has it in its plan.",
        "Its ends are not on two sides of that gateway, so no packet of it gets there. Correct the addresses, or name the gateways that the conduit crosses with `via`.",
    ),
    error(
        "PC0124",
        "Two flows name different protocols for the same connections.",
        "A port speaks one protocol, and what one of the two lists cannot be understood as the other. Correct the service of one of them.",
    ),
    error(
        "PC0125",
        "Two flows share connections, but not how their TLS ends at the gateway.",
        "A connection's TLS either ends at the gateway or does not, and the gateway takes one server for the right one. Give both flows the same service and the same `tls`, or take the shared ends out of one of them.",
    ),
    warning(
        "PC0126",
        "Two flows share connections, but answer a refusal differently.",
        "An operation that neither permits is refused by both, so it is left to chance which answer the client gets. Write the same `on_refusal` at both.",
    ),
    warning(
        "PC0127",
        "Connections can pass beside a one-way bridge.",
        "A bridge lets messages cross one way and nothing come back. A flow that lets its two brokers open connections to each other undoes that. Take the brokers out of the flow, or do without the bridge.",
    ),
    warning(
        "PC0128",
        "Two flows share connections, but match answers differently.",
        "An answer belongs to a connection, not to one of its flows. Where one flow says `answers: in-order` and another is strict, the strict way holds: answers under other identifiers are withheld. Write the same `answers` at both.",
    ),
    note(
        "PC0129",
        "A flow takes answers in order, whatever identifiers they carry.",
        "With `answers: in-order` an answer that fits the one request that waits is let through under any transaction identifier and unit. It may be the late answer to a request that was given up, of another register or of another device behind the same address; a client that does not compare the identifiers takes it for the newest. Write it only for servers that need it (a replay or the trail names them), behind which there is one device, and give the server's next firmware a look.",
    ),
    note(
        "PC0130",
        "A flow's last metre is in the plain.",
        "The flow says `tls: { server: plain }`: the gateway ends its clients' TLS, verifies who they are, and speaks to the server in the plain, since the server speaks no TLS. Whoever is on that side of the gateway can read and change what passes there, and open the server's port himself. Keep that side short and locked: the gateway in the server's cabinet, on a port of its own, and no other asset in that zone that does not need the server.",
    ),
    error(
        "PC0131",
        "A flow that must flow would be lost.",
        "In the plans in force it is marked `must_flow`, and the new ones do not permit all of it. Put it back; if the process can do without it, release it first without `must_flow`, so that someone has said so.",
    ),
    warning(
        "PC0132",
        "A flow that must flow may do less inside its protocol.",
        "Some operations that it has in the plans in force are no longer listed. Make sure that the process does not use what is taken away; the diff names it.",
    ),
    error(
        "PC0141",
        "A zone with strangers in it reaches a safety zone directly.",
        "Enterprise, external, remote-access, transient and wireless zones have no business in the safety system (IEC 62443-3-3 SR 5.2). Let them ask a system in between, in a zone of its own, that itself only reads from safety.",
    ),
    warning(
        "PC0142",
        "A zone with strangers in it can act on a safety zone over several steps.",
        "Whoever holds one asset of a zone is taken to hold the whole zone, so a path of conduits is a way in. It is a note where the last step can only read. Limit that step to operations that read, or cut the path.",
    ),
    warning(
        "PC0143",
        "A flow into a safety zone may do anything that its protocol can do.",
        "Either its service has operations that could be limited, and `allow: any` leaves them all open; or it is written as a port, among them one where such a protocol is spoken, or as a port of which nothing is known. Name the service, and list the operations that it needs under `allow`. It is a note where the service is named and no gateway can read its protocol yet, and for frames other than IP, in which nothing is read.",
    ),
    warning(
        "PC0144",
        "A flow into a safety zone would pass uninspected while no agent lives.",
        "`on_agent_loss: pass` lets it pass with all operations of its protocol. Into a safety zone `block` is the rule. It is a note for a flow that must flow.",
    ),
    warning(
        "PC0151",
        "A zone with a high target only observes.",
        "Observing records what enforcement would drop, and lets it pass, which does not meet a target security level above 1. It is a note while a compensating control for SR 5.2 is on record and has not expired. Enforce once the recorded would-denials are understood.",
    ),
    warning(
        "PC0152",
        "Two sides of a gateway have addresses in common.",
        "A sender that forges an address of the other side is then not known by where it comes in. Divide the networks of the zones, so that each address lives in one of them.",
    ),
    warning(
        "PC0161",
        "A flow that must flow stops with the agent.",
        "A flow that names operations is read by the gateway's agent; while no agent lives (a crash, an upgrade that fails), `on_agent_loss` decides, and it is `block` by default. Of what must flow that is rarely meant: set `on_agent_loss: pass`, which lets its connections pass unread meanwhile, or do without `must_flow`. A bridge between brokers is carried by the agent itself and always waits for it: that is a note.",
    ),
    warning(
        "PC0162",
        "A flow's `on_agent_loss: pass` has no effect where another flow blocks the same connections.",
        "While no agent lives, a connection that several flows permit passes unread only if each of their conduits says `on_agent_loss: pass`; `block`, which is the default, wins. Write the same at both conduits, or take the shared ends out of one of the two flows.",
    ),
    error(
        "PC0163",
        "A flow that must flow is denied, since its ends prove too little of who they are.",
        "`minimum_assurance` of a conduit asks both ends of its flows to prove who they are, and what proves less at a gateway is denied there. The process needs this flow. Let the gateway check more (`penstock explain PS0618` says how), or lower the minimum. Between zones that only observe nothing is dropped yet, so there it is a warning.",
    ),
    error(
        "PC0171",
        "A plan lets its gateway change at other times, or after another question, than the document says.",
        UNFAITHFUL,
    ),
    error(
        "PC0172",
        "What a gateway asks before it changes does not pass another gateway on the way.",
        "`safe_to_change` is asked from the gateway's own address. Where another gateway stands between it and the asset, that gateway drops the question like anything else that no conduit permits; without an answer nothing is safe, and the gateway would never change. Make the asking gateway an asset with that address, and write the flow: of a coil, `service: modbus-tcp` with `read-coils` and the unit that is asked.",
    ),
    warning(
        "PC0173",
        "No change window of a gateway is as long as a trial by the default rollout plan.",
        "A change begins only if its trial and a minute more end before the window does. Where every window is shorter, the gateway stays at what it has. Make a window longer; or write the rollout plan with a shorter `trial`, if that is enough to see whether the process goes on.",
    ),
    error(
        "PC0181",
        "A plan lets others override its gateway, or for longer, than the document says.",
        UNFAITHFUL,
    ),
    note(
        "PC0182",
        "A gateway that asks the process before it changes can be overridden by nobody.",
        "Without an answer nothing is safe. If the asset that is asked is replaced or burnt out, the gateway enforces what it has and takes nothing new, not even the release that would name another asset. With `break_glass`, two people or a sealed code can let it change without the answer for a while (`penstock-agent override request --unasked`).",
    ),
    note(
        "PC0191",
        "A finding is accepted that is not found.",
        "`accepted` lists a finding by its code and by all that its sentence names. There is none of this code with exactly these names: it was mended, or it says something else now and stands among the findings again. Take the entry out, or have the new finding accepted.",
    ),
    warning(
        "PC0192",
        "One entry accepts several findings.",
        "Findings of one code can name the same things and say something else of them: that one zone reaches another is not that the other reaches it. Whoever accepted one of them may not have seen the others. `says` in the entry, with words of the sentence, limits it to the finding that has them.",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_that_the_checker_gives_is_explained_and_no_other() {
        let sources = [
            include_str!("agent_loss.rs"),
            include_str!("assurance.rs"),
            include_str!("break_glass.rs"),
            include_str!("change_control.rs"),
            include_str!("faithful.rs"),
            include_str!("history.rs"),
            include_str!("management.rs"),
            include_str!("names.rs"),
            include_str!("neighbours.rs"),
            include_str!("rules.rs"),
            include_str!("safety.rs"),
            include_str!("zones.rs"),
        ];
        let given: BTreeSet<&str> = sources
            .iter()
            .flat_map(|text| text.split('"'))
            .filter(|piece| piece.len() == 6 && piece.starts_with("PC"))
            .collect();
        let explained: BTreeSet<&str> = FINDING_CODES.iter().map(|known| known.code).collect();
        assert_eq!(given, explained);
        assert_eq!(explained.len(), FINDING_CODES.len(), "each once");
        assert!(FINDING_CODES.is_sorted_by(|a, b| a.code < b.code));
    }

    #[test]
    fn a_code_is_found_in_either_case() {
        assert_eq!(finding_code("pc0101"), FINDING_CODES.first());
        assert_eq!(finding_code("PC9999"), None);
    }
}
