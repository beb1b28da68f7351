//! A trial of learning: the last fifth of the packets is held out, and held against what is proposed from the rest alone.
//!
//! What would have been refused there shows how far the recording is from complete: the proposal itself is made from all of it. Only what
//! worked counts, as in a proposal; a scan in the last fifth is listed apart there.

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
        if self.why_not().is_some() {
            return;
        }
        self.taken += 1;
        if self.taken <= self.counted - self.counted / PART {
            if let Some(rest) = &mut self.rest {
                rest.frame(frame);
            }
            return;
        }
        self.began.get_or_insert(frame.at);
        if let Some(rest) = self.rest.take() {
            let made = self.made.get_or_init(|| proposed(rest.finish(), self.loaded));
            self.held = made
                .as_ref()
                .ok()
                .map(|plans| Learner::within(limits(), Some(plans)));
        }
        if let Some(held) = &mut self.held {
            held.frame(frame);
        }
    }

    /// What came of it, in sentences; the first says all in short.
    pub(super) fn finish(self) -> Vec<String> {
        if let Some(why) = self.why_not() {
            return vec![format!("Not tried on a part that was held out: {why}.")];
        }
        if let Some(Err(why)) = self.made.get() {
            return vec![format!("Not tried on a part that was held out: {why}.")];
        }
        let held = self.held.map(Learner::finish).unwrap_or_default();
        let began = clock(self.began.unwrap_or_default());
        let refused: Vec<(&Ends, &Talk)> = held.talks.iter().filter(|(_, talk)| is_beyond(talk)).collect();
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
        let head = format!(
            "Tried on the last fifth of the packets ({}, from {began} on) with what the rest alone would propose. Connections and \
             operations that it permits: {}; {outcome}",
            held.packets,
            held.permitted_already.saturating_sub(held.strangers.count)
        );
        said.insert(0, head);
        said
    }

    /// Why nothing is held out.
    fn why_not(&self) -> Option<String> {
        let span = self.last.saturating_sub(self.first.unwrap_or_default());
        if self.counted == 0 {
            Some(
                "packets from standard input are read only once, so that the last fifth is not known before"
                    .to_owned(),
            )
        } else if span < SPAN_MIN {
            Some(format!(
                "{} s of recording are too short for the last fifth to show anything that the rest does not ({} s or more are)",
                span.as_secs(),
                SPAN_MIN.as_secs()
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
