//! What gateways learned in observing zones, judged by the lines of the new plans and of those in force.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use penstock_inspect::learn::entry::{EntryKey, EntrySeen};
use penstock_inspect::learn::talk::TalkLimits;
use penstock_inspect::learn::{Asking, Ends, Learned, PortCarrier, Talk};
use penstock_inspect::replay::Plans;
use penstock_policy::plan::Plan;
use penstock_policy::terms::Enforcement;
use penstock_policy::verdict::{Carried, mode};

use super::{Inside, Judge, NO_TIME, Outcome, Question, Refusal, Whose};

impl Judge {
    /// What was learned is judged at once: its lines join only at the price of what they say.
    pub(super) fn learned(&mut self, gateway: &str, ends: Ends, talk: Talk, placed_ms: u64) {
        if self.is_over() {
            return self.unjudged(NO_TIME, 1, talk.connections.count.max(1));
        }
        let carried = match ends.carrier {
            PortCarrier::Tcp => Carried::Tcp(ends.server.port()),
            PortCarrier::Udp => Carried::Udp(ends.server.port()),
        };
        let ms = |at: Duration| u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let question = Question {
            gateway: gateway.to_owned(),
            client: ends.client,
            server: ends.server.ip(),
            service: carried.to_string(),
            inside: Inside::Connection,
            passed: true,
            sides: None,
            moments: self.moments(gateway, ms(talk.connections.first), ms(talk.connections.last)),
        };
        if talk.further > 0 {
            self.unjudged(
                "the gateway learned more than it keeps of one client and server",
                0,
                talk.further,
            );
        }
        if talk.unread {
            self.unjudged("the gateway could not read it as the protocol of its port", 0, 1);
        }
        let outcome = self.outcome(&self.new, &question, carried);
        let plans = match outcome {
            Outcome::Passes => self.plans(Whose::New, gateway),
            _ => None,
        };
        if let Some(plans) = plans {
            let all: u64 = talk.operations.values().map(|seen| seen.seen.count).sum();
            let (left, unasked) = unpermitted(ends, talk.clone(), &plans, &mut self.asking);
            let not_permitted: u64 = left.values().map(|seen| seen.seen.count).sum();
            if unasked {
                let why = "it was learned in too many separate ranges to ask for each";
                self.unjudged(why, 0, not_permitted);
            } else if self.observes(Whose::New, &question, carried) {
                self.judged.observed.add(0, not_permitted);
            } else if !left.is_empty() {
                let in_force = self.plans(Whose::InForce, gateway);
                let enforced = in_force.filter(|_| {
                    self.outcome(&self.base, &question, carried) == Outcome::Passes
                        && !self.observes(Whose::InForce, &question, carried)
                });
                let before = enforced.map(|plans| unpermitted(ends, talk, &plans, &mut self.asking));
                let before = before.filter(|(_, unasked)| !unasked);
                for (key, seen) in left {
                    let already = before.as_ref().is_some_and(|(left, _)| left.contains_key(&key));
                    let numbers = key
                        .numbers
                        .iter()
                        .map(|(name, number)| format!("{name} {number}"));
                    let texts = key.texts.iter().map(|(name, text)| format!("{name} \"{text}\""));
                    let place: Vec<String> = numbers.chain(texts).collect();
                    self.refuse(
                        Refusal {
                            gateway: gateway.to_owned(),
                            client: ends.client,
                            server: ends.server.ip(),
                            service: carried.to_string(),
                            operation: Some([vec![key.operation], place].concat().join(" ")),
                            values: key.written.map(|written| [written.first, written.last]),
                            must_flow: false,
                            already,
                            count: seen.seen.count,
                            last_ms: placed_ms,
                            because: "no one line of the flow permits all that was learned of it".to_owned(),
                        },
                        &question,
                        carried,
                    );
                }
            }
            let passes = all.saturating_sub(not_permitted);
            if passes > 0 {
                self.judged.passes.add(0, passes);
            }
        }
        self.ask(question, carried, 1, placed_ms);
    }

    fn plans(&mut self, whose: Whose, gateway: &str) -> Option<Rc<Plans>> {
        let plan = self.of_whom(whose).get(gateway).cloned();
        let ready = || plan.and_then(|plan| Plans::new(vec![plan]).ok().map(Rc::new));
        let place = self.inspected.entry((whose, gateway.to_owned()));
        place.or_insert_with(ready).clone()
    }

    fn of_whom(&self, whose: Whose) -> &BTreeMap<String, Plan> {
        match whose {
            Whose::New => &self.new,
            Whose::InForce => &self.base,
        }
    }

    /// Whether all that crosses there only is observed.
    fn observes(&self, whose: Whose, question: &Question, carried: Carried) -> bool {
        let plan = self.of_whom(whose).get(&question.gateway);
        plan.is_some_and(|plan| {
            let connection = self.connection(question, plan, carried);
            connection.is_some_and(|connection| mode(plan, &connection) == Some(Enforcement::Observe))
        })
    }
}

/// What of it no line of these plans permits, and whether some of it was too much to ask for.
fn unpermitted(
    ends: Ends,
    talk: Talk,
    plans: &Plans,
    asking: &mut Asking,
) -> (BTreeMap<EntryKey, EntrySeen>, bool) {
    let mut one = Learned::within(TalkLimits::default());
    one.add(ends, talk);
    one.leave_out_within(plans, asking);
    let left = one.talks.remove(&ends).map(|talk| talk.operations);
    (left.unwrap_or_default(), one.unasked > 0)
}
