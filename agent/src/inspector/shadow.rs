//! What the next plan would do to inspected connections: counted beside what the policy in force does, and nothing of it carried out.
//!
//! Of each connection that is read, a second reader goes on from where the first stands (as after a planned restart), under the rules of
//! the next plan, and hears what the first let go on: no byte of it comes from there. It only observes, so all that enforcing would change
//! is said by the code that would change it: refused operations, withheld answers, connections that would end.
//!
//! Nor does an internal error of the second reader touch the connection: its shadow ends, and is said to.
//!
//! What the two know of clients beyond a connection is kept apart. Where the next plan's zones only observe there is no second reader:
//! nothing would change. What is not read today cannot be judged: counted are the connections that would be reset for it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_inspect::connection::{Connection, ConnectionLimits, Effect, Memory, Mode, Output, Sender};
use penstock_inspect::judge::{RuleIndex, Verdict};
use penstock_policy::ids::FlowId;
use penstock_policy::terms::Tls;

use super::lookup::{InspectionPolicy, RuleSet, TupleRules};
use super::tally::Tally;
use super::tuple::Tuple;

/// Flows in force that are counted apart; what is above is counted with no flow.
const FLOWS_MAX: usize = 4096;

/// Counts by the number of the flow in force; 0: of no flow.
type ByFlow = BTreeMap<u32, u64>;

/// What the next plan would change since it is judged by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InspectedShadowCounts {
    /// Operations that would be refused, and answers and packets that would be withheld.
    pub(crate) refused: ByFlow,
    /// Connections that would be ended.
    pub(crate) cut: ByFlow,
    /// Connections that would be reset, so that they are opened again and read from their beginning.
    pub(crate) reset: ByFlow,
}

/// The next plan, and what it came to.
#[derive(Debug)]
pub(super) struct InspectedShadow {
    policy: Arc<InspectionPolicy>,
    memory: Arc<Memory>,
    counts: Mutex<InspectedShadowCounts>,
}

impl InspectedShadow {
    pub(super) fn new(policy: Arc<InspectionPolicy>) -> Self {
        Self {
            policy,
            memory: Arc::default(),
            counts: Mutex::default(),
        }
    }

    pub(super) fn counts(&self) -> InspectedShadowCounts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, of: fn(&mut InspectedShadowCounts) -> &mut ByFlow, flow: Option<FlowId>) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let by_flow = of(&mut counts);
        let number = flow.map_or(0, |flow| flow.0);
        let has_room = by_flow.len() < FLOWS_MAX || by_flow.contains_key(&number);
        let count = by_flow.entry(if has_room { number } else { 0 }).or_default();
        *count = count.saturating_add(1);
    }
}

/// The second reader of one connection.
#[derive(Debug)]
pub(super) struct Beside {
    shadow: Arc<InspectedShadow>,
    /// The flow in force, where no rule of it says which.
    flow: Option<FlowId>,
    reader: Reader,
    is_cut: bool,
    /// The rules in force that permitted what goes on just now, in its order.
    permitted: Vec<Option<RuleIndex>>,
}

#[derive(Debug)]
enum Reader {
    /// It begins between two packets.
    Waiting(Arc<RuleSet>),
    Reading(Box<Connection>),
    /// The connection would be no more, or it failed.
    Done,
}

impl Beside {
    /// What the next plan says of a connection that is carried so under the flow in force (judged: by what reads it); `None`: nothing more
    /// than is counted now.
    pub(super) fn begin(
        shadow: &Arc<InspectedShadow>,
        (tuple, flow): (&Tuple, Option<FlowId>),
        (judged, tls, is_unread): (Option<&Connection>, Option<&Arc<Tls>>, bool),
    ) -> Option<Self> {
        let policy = &shadow.policy;
        let mode = policy.mode(tuple.client, tuple.server.ip());
        if mode == Mode::Observe {
            return None;
        }
        let cut = || shadow.count(|counts| &mut counts.cut, flow);
        let set = match policy.find_for(tuple) {
            TupleRules::Anything => return None,
            TupleRules::Nothing | TupleRules::Unusable(_) => {
                cut();
                return None;
            }
            TupleRules::Only(set) => set,
        };
        match judged {
            _ if is_unread && set.passes_unread(mode) => None,
            _ if is_unread || set.tls.as_ref() != tls => {
                cut();
                None
            }
            // Nothing of it is limited there.
            _ if set.rules.is_none() => None,
            Some(connection) if !connection.is_guessed() => {
                let mut beside = Self {
                    shadow: Arc::clone(shadow),
                    flow,
                    reader: Reader::Waiting(set),
                    is_cut: false,
                    permitted: Vec::new(),
                };
                beside.apart(|beside| beside.take_up(connection, tuple, &Tally::default()));
                Some(beside)
            }
            _ => {
                shadow.count(|counts| &mut counts.reset, flow);
                None
            }
        }
    }

    /// The rules in force said this of something that goes on.
    pub(super) fn goes_on(&mut self, verdict: Verdict) {
        if let Reader::Reading(_) = self.reader {
            self.permitted.push(match verdict {
                Verdict::Allow(rule) => Some(rule),
                Verdict::Upkeep | Verdict::Refuse(_) => None,
            });
        }
    }

    /// `passed` went on of what `side` sent, and if it `ended`, that was all of it.
    pub(super) fn hear(
        &mut self,
        (side, passed, ended): (Sender, &[u8], bool),
        now: Duration,
        (first, tuple): (&Connection, &Tuple),
        tally: &Tally,
    ) {
        self.apart(|beside| {
            beside.ask(tally, |reader, out| {
                if !passed.is_empty() {
                    reader.feed(side, now, passed, out);
                }
                if ended {
                    reader.end(side, out);
                }
            });
            beside.take_up(first, tuple, tally);
        });
    }

    /// Does something of the second reader's, of which no error may reach the connection.
    fn apart(&mut self, work: impl FnOnce(&mut Self)) {
        if let Reader::Done = self.reader {
            return;
        }
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            self.reader = Reader::Done;
            tracing::error!(
                "internal error where a connection is judged by the next plan, which goes on without that"
            );
        }
    }

    /// Begins where the first reader stands, once that is between two packets: what it holds would be heard again.
    fn take_up(&mut self, first: &Connection, tuple: &Tuple, tally: &Tally) {
        let Reader::Waiting(set) = &self.reader else {
            return;
        };
        if [Sender::Client, Sender::Server]
            .into_iter()
            .any(|side| first.within_packet(side))
        {
            return;
        }
        let (now, limits) = (super::now(), ConnectionLimits::default());
        let (Some(rules), refusal) = (set.rules.clone(), set.on_refusal) else {
            return;
        };
        match Connection::thaw(&first.freeze(now), now, rules, Mode::Observe, refusal, limits) {
            Ok(reader) => {
                let reader = reader.remembering(&self.shadow.memory, tuple.server, tuple.client);
                self.reader = Reader::Reading(Box::new(reader));
                self.ask(tally, Connection::review);
            }
            // It speaks another protocol there.
            Err(_) => self.cut(),
        }
    }

    /// Has the second reader say something, and counts what it says.
    fn ask(&mut self, tally: &Tally, ask: impl FnOnce(&mut Connection, &mut dyn FnMut(Output<'_>))) {
        let Reader::Reading(reader) = &mut self.reader else {
            return;
        };
        let (mut judged, mut ends) = (0, false);
        let (shadow, permitted, flow) = (&self.shadow, &self.permitted, self.flow);
        ask(reader, &mut |output| match output {
            Output::Judged { verdict, .. } => {
                let rule = permitted.get(judged).copied().flatten();
                judged += 1;
                if !verdict.allows() {
                    let of_rule = rule.and_then(|rule| tally.flow(rule));
                    shadow.count(|counts| &mut counts.refused, of_rule.or(flow));
                }
            }
            Output::Deviation { effect, .. } => match effect {
                Effect::Withheld => shadow.count(|counts| &mut counts.refused, flow),
                Effect::Ended => ends = true,
            },
            _ => {}
        });
        self.permitted.clear();
        if ends {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if !std::mem::replace(&mut self.is_cut, true) {
            self.shadow.count(|counts| &mut counts.cut, self.flow);
        }
        if let Reader::Waiting(_) = self.reader {
            self.reader = Reader::Done;
        }
    }

    /// What it holds beside the first reader, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.reader {
            Reader::Reading(reader) => reader.held_memory(),
            Reader::Waiting(_) | Reader::Done => 0,
        }
    }
}
