//! Attempts and what must hold of each: that it comes out where it is sent to or nowhere at all, and what the trail says.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use penstock_agent::observed::{Observation, VerdictSeen};
use penstock_policy::terms::GatewayMode;
use penstock_policy::verdict::Decision;

use super::wire::{essence, frame};
use super::world::{Agent, PATIENCE, SILENCE, World};

/// What must hold of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Must {
    /// It comes out at its target, and the trail has no denial of it.
    Pass,
    /// It comes out nowhere, and a denial in the trail says so with these words in its reason.
    Stop(&'static str),
    /// It comes out at its target, and the trail says that enforcement would stop it, with these words.
    PassTold(&'static str),
}

/// One frame that somebody sends.
#[derive(Debug)]
pub struct Attempt {
    /// What it tries, in words.
    pub what: String,
    /// The side that it is sent from.
    pub from: &'static str,
    /// The side that it is to reach.
    pub to: &'static str,
    /// The whole frame.
    pub frame: Vec<u8>,
    /// What must hold.
    pub must: Must,
}

/// A row of a table.
pub fn attempt(
    what: impl Into<String>,
    (from, to): (&'static str, &'static str),
    frame: Vec<u8>,
    must: Must,
) -> Attempt {
    Attempt {
        what: what.into(),
        from,
        to,
        frame,
        must,
    }
}

/// The frame that carries an IP packet from one side to another: to the gateway that routes it, or to the far end.
pub fn carried(world: &World, (from, to): (&str, &str), packet: &[u8]) -> Vec<u8> {
    let (near, far) = (&world.sides[from], &world.sides[to]);
    let next = match world.mode {
        GatewayMode::Routed => near.gateway_mac,
        GatewayMode::Bridged => far.mac,
    };
    frame(near.mac, next, packet)
}

/// Makes the attempts one after another and holds what becomes of each against what must; then waits for the trail's words.
pub async fn hold(world: &World, agent: &mut Agent, attempts: &[Attempt]) {
    let mode = world.mode;
    let mut untold = Vec::new();
    for row in attempts {
        let Attempt {
            what, from, to, must, ..
        } = row;
        let expected = matches!(must, Must::Pass | Must::PassTold(_));
        let places = come_out(world, row, expected);
        if expected {
            assert!(
                places.contains(to),
                "{mode:?}: {what}: did not reach {to} from {from}"
            );
        } else {
            assert!(
                places.is_empty(),
                "{mode:?}: {what}: from {from} it came out at {places:?}"
            );
        }
        match *must {
            Must::Stop(words) => untold.push((row, Decision::Deny, words)),
            Must::PassTold(words) => untold.push((row, Decision::WouldDeny, words)),
            Must::Pass => {}
        }
    }
    let mut seen = Vec::new();
    let waiting = async {
        while !untold.is_empty() {
            let Some(observed) = agent.observed.recv().await else {
                return;
            };
            if let Observation::Verdict(verdict) = &observed {
                untold.retain(|(row, decision, words)| !is_told(verdict, row, *decision, words));
            }
            seen.push(observed);
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
    let untold: Vec<_> = untold
        .iter()
        .map(|(row, decision, words)| (&row.what, row.from, decision, words))
        .collect();
    assert!(
        in_time && untold.is_empty(),
        "{mode:?}: not in the trail: {untold:#?}; seen: {seen:#?}"
    );
}

/// Whether an event is the trail's word of an attempt.
fn is_told(verdict: &VerdictSeen, row: &Attempt, decision: Decision, words: &str) -> bool {
    let sides = [verdict.ingress.as_str(), verdict.egress.as_str()];
    verdict.decision == decision
        && sides.contains(&row.from)
        && verdict.reason.contains(words)
        && source_of(&row.frame).is_none_or(|ip| [verdict.source, verdict.destination].contains(&Some(ip)))
}

/// Who sent a frame's packet, or asks or answers in its ARP.
fn source_of(frame: &[u8]) -> Option<IpAddr> {
    let four = |at: usize| <[u8; 4]>::try_from(&frame[at..at + 4]).unwrap().into();
    match frame[12..14] {
        [0x08, 0x00] => Some(four(26)),
        [0x08, 0x06] => Some(four(28)),
        [0x86, 0xdd] => Some(<[u8; 16]>::try_from(&frame[22..38]).unwrap().into()),
        _ => None,
    }
}

/// The sides, but for its own, at which an attempt comes out.
fn come_out(world: &World, row: &Attempt, expected: bool) -> Vec<&'static str> {
    world.drain();
    world.sides[row.from].wire.send(&row.frame);
    let begun = Instant::now();
    let mut places: Vec<&'static str> = Vec::new();
    let patience = if expected { PATIENCE } else { SILENCE / 5 };
    while begun.elapsed() < patience && !(expected && places.contains(&row.to)) {
        for side in super::plans::SIDES {
            let Some(there) = world.sides.get(side).filter(|_| side != row.from) else {
                continue;
            };
            while let Some(caught) = there.wire.try_catch() {
                if is_same(&row.frame, &caught) && !places.contains(&side) {
                    places.push(side);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    places
}

/// Whether a caught frame is the one that was sent: its IP packet apart from what routers change, else its every byte.
fn is_same(sent: &[u8], caught: &[u8]) -> bool {
    let is_ip = |frame: &[u8]| frame.len() >= 42 && matches!(frame[12..14], [0x08, 0x00] | [0x86, 0xdd]);
    match (is_ip(sent), is_ip(caught)) {
        (true, true) => essence(&sent[14..]) == essence(&caught[14..]),
        (false, false) => caught.starts_with(sent) || sent.starts_with(caught) && caught.len() >= 42,
        _ => false,
    }
}
