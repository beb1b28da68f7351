//! A trial of learning: the last fifth of the packets is held out, and held against what is proposed from the rest alone.
//!
//! What would have been refused there shows how far the recording is from complete: the proposal itself is made from all of it. Only what
//! worked counts, as in a proposal: what that lists apart of all the recording, scans and what came to nothing, does not.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::time::Duration;

use penstock_inspect::capture::Frame;
use penstock_inspect::learn::{Ends, LearnLimits, Learned, Learner, PortCarrier, Talk, document};
use penstock_inspect::replay::Plans;
use penstock_policy::model::PublicKey;

use crate::loading::LoadedPlant;
use crate::offline::replay::clock;
use crate::words;

/// What is held out: one packet of so many.
const PART: u64 = 5;
/// A shorter recording shows what happens in a moment, and its last fifth the same again.
const SPAN_MIN: Duration = Duration::from_secs(60);
/// Pairs of machines, and machines, that are listed.
const LISTED_MAX: usize = 8;

/// What a trial keeps at most: a quarter of what learning itself does, as both run at once.
pub(super) fn limits() -> LearnLimits {
    let mut limits = LearnLimits::default();
    limits.flows.flows_max /= 4;
    limits.flows.remembered_bytes_max /= 4;
    limits
}

/// While packets are gone over twice: first they are counted, then the rest is learned from, then the last fifth is judged.
pub(super) struct Trial<'t> {
    loaded: Option<&'t LoadedPlant>,
    made: &'t OnceCell<Result<Plans, String>>,
    counted: u64,
    first: Option<Duration>,
    last: Duration,
    taken: u64,
    began: Option<Duration>,
    /// Packets of the rest that were not followed.
    rest_left_out: u64,
    rest: Option<Learner<'t>>,
    held: Option<Learner<'t>>,
}

impl<'t> Trial<'t> {
    /// Nothing was counted yet; `rest` learns from the rest as from all, and `made` takes those of the trial.
    pub(super) fn new(
        loaded: Option<&'t LoadedPlant>,
        rest: Learner<'t>,
        made: &'t OnceCell<Result<Plans, String>>,
    ) -> Self {
        Self {
            loaded,
            made,
            counted: 0,
            first: None,
            last: Duration::ZERO,
            taken: 0,
            began: None,
            rest_left_out: 0,
            rest: Some(rest),
            held: None,
        }
    }

    /// Counts a packet, and sees who opened what.
    pub(super) fn survey(&mut self, frame: &Frame<'_>) {
        self.counted += 1;
        self.first = Some(self.first.map_or(frame.at, |first| first.min(frame.at)));
        self.last = self.last.max(frame.at);
        if let Some(rest) = &mut self.rest {
            rest.survey(frame);
        }
    }

    /// Takes a packet.
    pub(super) fn take(&mut self, frame: &Frame<'_>) {
        self.taken += 1;
        if self.why_not().is_some() {
            return;
        }
        if self.taken <= self.counted - self.counted / PART {
            if let Some(rest) = &mut self.rest {
                rest.frame(frame);
            }
            return;
        }
        self.began.get_or_insert(frame.at);
        if let Some(rest) = self.rest.take() {
            let learned = rest.finish();
            self.rest_left_out = learned.left_out;
            let made = self.made.get_or_init(|| proposed(learned, self.loaded));
            self.held = made
                .as_ref()
                .ok()
                .map(|plans| Learner::within(limits(), Some(plans)));
        }
        if let Some(held) = &mut self.held {
            held.frame(frame);
        }
    }

    /// What came of it, in sentences; the first says all in short. `all` is what was learned from the whole recording.
    pub(super) fn finish(self, all: &Learned) -> Vec<String> {
        if let Some(why) = self.why_not() {
            return vec![format!("Not tried on a part that was held out: {why}.")];
        }
        if let Some(Err(why)) = self.made.get() {
            return vec![format!("Not tried on a part that was held out: {why}.")];
        }
        let held = self.held.map(Learner::finish).unwrap_or_default();
        let began = clock(self.began.unwrap_or_default());
        let is_apart = document::apart(all);
        let refused = held.talks.iter();
        let refused = refused.filter(|(ends, talk)| is_beyond(talk) && !is_apart(ends, talk));
        let refused: Vec<(&Ends, &Talk)> = refused.collect();
        let mut said = Vec::new();
        for (ends, talk) in refused.iter().take(LISTED_MAX) {
            said.push(format!("  {}", in_words(ends, talk)));
        }
        if let Some(more @ 1..) = refused.len().checked_sub(LISTED_MAX) {
            said.push(format!("  and {more} more pairs of machines"));
        }
        if held.strangers.count > 0 {
            let machines: Vec<String> = held
                .strangers
                .machines
                .iter()
                .take(LISTED_MAX)
                .map(ToString::to_string)
                .collect();
            said.push(format!(
                "  {}, whether they worked or not, with machines that the rest does not have ({})",
                words::count(
                    usize::try_from(held.strangers.count).unwrap_or(usize::MAX),
                    "connection"
                ),
                machines.join(", ")
            ));
        }
        let outcome = match said.is_empty() {
            true => "nothing that worked would have been refused.",
            false => "this would have been refused, though it worked; more recordings bring more to light:",
        };
        let aside = held.skipped.values().sum::<u64>() + held.further_kinds;
        let aside = words::count_u64(aside, "packet");
        let unfollowed = match (self.rest_left_out, held.left_out) {
            (0, 0) => String::new(),
            (rest, last) => format!(
                " It followed fewer connections at a time than learning itself does: {} of the rest and {} of the last fifth were left out.",
                words::count_u64(rest, "packet"),
                words::count_u64(last, "packet")
            ),
        };
        let head = format!(
            "Tried on the last fifth of the packets ({}, from {began} on) with what the rest alone would propose, only of TCP and UDP between \
             two machines: not on other frames, multicast and what could not be read ({aside}).{unfollowed} Connections and operations that \
             it permits: {}; {outcome}",
            held.packets,
            held.permitted_already.saturating_sub(held.strangers.count)
        );
        said.insert(0, head);
        said
    }

    /// Why nothing is held out.
    fn why_not(&self) -> Option<String> {
        let span = self.last.saturating_sub(self.first.unwrap_or_default());
        // What was not counted before came from there.
        if self.taken > self.counted {
            Some(
                "packets from standard input are read only once, so that the last fifth is not known before"
                    .to_owned(),
            )
        } else if self.counted == 0 {
            Some("there is no packet in it".to_owned())
        } else if span < SPAN_MIN {
            Some(format!(
                "{} s of recording are too short for the last fifth to show anything that the rest does not ({} s or more are)",
                span.as_secs(),
                SPAN_MIN.as_secs()
            ))
        } else if self.counted < PART {
            Some(format!(
                "{} have no last fifth",
                words::count_u64(self.counted, "packet")
            ))
        } else {
            None
        }
    }
}

/// The plans of what is proposed, or why there are none.
fn proposed(learned: Learned, loaded: Option<&LoadedPlant>) -> Result<Plans, String> {
    let plant = loaded.map(|loaded| &loaded.plant);
    // Nobody signs what is tried.
    let approver = PublicKey::ed25519(TRIAL_KEY).to_string();
    let text = document::write(&learned, plant, Some(&approver), &clock);
    let judged = super::beside(&text, loaded);
    let Some(plant) = judged.plant else {
        let fault = judged
            .diagnostics
            .errors()
            .next()
            .map(|fault| fault.message.clone());
        return Err(format!(
            "what the rest proposes is not a valid document: {}",
            fault.unwrap_or_default()
        ));
    };
    let plans = penstock_policy::compile::compile_all(&plant).map_err(|error| error.to_string())?;
    Plans::new(plans.into_values().collect()).map_err(|error| error.to_string())
}

/// Some point of the curve.
const TRIAL_KEY: [u8; 32] = {
    let mut point = [0x66; 32];
    point[0] = 0x58;
    point
};

/// Whether a talk is refused, of what worked of it.
fn is_beyond(talk: &Talk) -> bool {
    talk.protocol.is_none() || !talk.operations.is_empty() || !talk.names.is_empty() || talk.unread
}

/// "10.0.0.1 to 10.0.0.2 tcp/502: read-coils, write-single-register".
fn in_words(ends: &Ends, talk: &Talk) -> String {
    let carrier = match ends.carrier {
        PortCarrier::Tcp => "tcp",
        PortCarrier::Udp => "udp",
    };
    let operations: BTreeSet<&str> = talk.operations.keys().map(|key| key.operation.as_str()).collect();
    let what = match operations.is_empty() {
        true if talk.answered == Some(0) => "datagrams that nobody answered".to_owned(),
        true => "the connection itself".to_owned(),
        false => operations.into_iter().collect::<Vec<_>>().join(", "),
    };
    format!(
        "{} to {} {carrier}/{}: {what}",
        ends.client,
        ends.server.ip(),
        ends.server.port()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_nothing_is_held_out_is_told_apart() {
        let said = |counted: &[u64], taken: usize| {
            let made = OnceCell::new();
            let mut trial = Trial::new(None, Learner::within(limits(), None), &made);
            let frame = |second| Frame {
                number: 1,
                link_type: 1,
                at: Duration::from_secs(second),
                bytes: &[],
                wire_bytes: 0,
            };
            counted.iter().for_each(|second| trial.survey(&frame(*second)));
            (0..taken).for_each(|_| trial.take(&frame(0)));
            trial.finish(&Learned::default()).join("\n")
        };
        for (counted, taken, why) in [
            (&[][..], 0, "there is no packet in it."),
            (&[], 3, "packets from standard input are read only once"),
            (&[0, 100], 3, "packets from standard input are read only once"),
            (&[0, 10], 2, "10 s of recording are too short"),
            (&[0, 10, 20, 100], 4, "4 packets have no last fifth."),
            (
                &[0, 10, 20, 30, 100],
                5,
                "Tried on the last fifth of the packets (1, ",
            ),
        ] {
            let said = said(counted, taken);
            assert!(said.contains(why), "{counted:?} {taken}: {said}");
        }
    }

    const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
    const SERVER: [u8; 4] = [10, 0, 0, 2];

    type End = ([u8; 4], u16);

    /// An Ethernet frame with a UDP datagram, or with the SYN of a TCP connection.
    fn frame_of(carrier: PortCarrier, (source, from): End, (destination, to): End) -> Vec<u8> {
        let (number, behind) = match carrier {
            PortCarrier::Udp => (17, vec![0, 12, 0, 0, 1, 2, 3, 4]),
            PortCarrier::Tcp => (6, vec![0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 16, 0, 0, 0, 0, 0]),
        };
        let length = 24 + behind.len();
        let mut bytes = vec![2, 0, 0, 0, 0, destination[3], 2, 0, 0, 0, 0, source[3], 8, 0];
        bytes.extend([
            0x45,
            0,
            0,
            u8::try_from(length).unwrap_or(0),
            0,
            0,
            0,
            0,
            64,
            number,
            0,
            0,
        ]);
        bytes.extend(source.into_iter().chain(destination));
        bytes.extend(from.to_be_bytes().into_iter().chain(to.to_be_bytes()));
        bytes.extend(behind);
        bytes
    }

    /// What a trial says where `last`, at most forty packets, follows on a client that asks a server all the time.
    fn tried(last: Vec<Vec<u8>>) -> String {
        let service = (SERVER, 161);
        let asks = frame_of(PortCarrier::Udp, CLIENT, service);
        let answers = frame_of(PortCarrier::Udp, service, CLIENT);
        let usual = (0..80_u64).flat_map(|at| [(5 * at, asks.clone()), (5 * at, answers.clone())]);
        let all: Vec<_> = usual.chain(last.into_iter().map(|bytes| (500, bytes))).collect();
        let frames = || {
            all.iter().zip(1..).map(|((second, bytes), number)| Frame {
                number,
                link_type: 1,
                at: Duration::from_secs(*second),
                bytes,
                wire_bytes: bytes.len(),
            })
        };
        let (made, mut learner) = (OnceCell::new(), Learner::new(None));
        let mut trial = Trial::new(None, Learner::within(limits(), None), &made);
        frames().for_each(|frame| trial.survey(&frame));
        frames().for_each(|frame| {
            trial.take(&frame);
            learner.frame(&frame);
        });
        trial.finish(&learner.finish()).join("\n")
    }

    #[test]
    fn a_scan_in_the_last_fifth_counts_as_nothing_that_worked() {
        let probe = |carrier, port| frame_of(carrier, CLIENT, (SERVER, port));
        for carrier in [PortCarrier::Udp, PortCarrier::Tcp] {
            let said = tried((3000..3040).map(|port| probe(carrier, port)).collect());
            assert!(
                said.starts_with("Tried on the last fifth of the packets (40, ")
                    && said.ends_with("nothing that worked would have been refused."),
                "{carrier:?}: {said}"
            );
        }
        // The same ports, where somebody answers there.
        let answered = (3000..3020).flat_map(|port| {
            let answer = frame_of(PortCarrier::Udp, (SERVER, port), CLIENT);
            [probe(PortCarrier::Udp, port), answer]
        });
        let said = tried(answered.collect());
        let first = "\n  10.0.0.1 to 10.0.0.2 udp/3000: the connection itself\n";
        assert!(said.contains(first), "{said}");
        assert!(said.ends_with("\n  and 12 more pairs of machines"), "{said}");
    }
}
