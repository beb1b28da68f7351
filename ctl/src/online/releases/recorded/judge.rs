//! Recorded traffic judged again by other plans: what crossed a gateway, or was refused there, put together to questions, each
//! asked once of the gateway's new plan.
//!
//! A connection is judged by its verdict there (`decide`); an operation whose words read back by the rules that judge traffic; of
//! a permitted one the trail has only the name, which is judged by the list that permitted it then and the one that would now; what
//! was learned in observing zones by its lines. What none of them can tell is counted, with the reason. Traffic is judged as of
//! when it passed: what a grant of remote access opened then is open.

mod learned;
mod outcome;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use penstock_inspect::learn::Asking;
use penstock_inspect::replay::Plans;
use penstock_policy::compile::compile_all;
use penstock_policy::model::Plant;
use penstock_policy::plan::Plan;
use penstock_policy::verdict::{Carried, matching};
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{self, AuditRecord, OperationEvent, VerdictEvent};

use crate::online::learn::events;

/// Different things that are judged; what comes behind them is counted.
const QUESTIONS_MAX: usize = 50_000;
/// Refusals that are listed; what comes behind them is counted.
const GROUPS_MAX: usize = 2_000;
/// Reasons for which something could not be judged.
const REASONS_MAX: usize = 100;

/// One thing that was done at one gateway.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Question {
    pub(super) gateway: String,
    pub(super) client: IpAddr,
    pub(super) server: IpAddr,
    pub(super) service: String,
    pub(super) inside: Inside,
    /// It passed; else it was refused.
    pub(super) passed: bool,
    /// By which interfaces, where the event says it.
    sides: Option<[String; 2]>,
    /// The first and the last time, where the new plan has grants of remote access.
    moments: Option<[u64; 2]>,
}

/// What was done inside the connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Inside {
    /// The connection itself is meant.
    Connection,
    /// An operation by all its words, with the least and the greatest value that it wrote.
    Operation(String, Option<[u32; 2]>),
    /// A permitted operation, of which only the name is known, and the release that permitted it.
    Permitted(String, u64),
}

/// How often, and when.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    pub(super) carried: Carried,
    pub(super) events: u64,
    pub(super) count: u64,
    pub(super) last_ms: u64,
}

/// What the new plan says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Passes,
    /// It is not permitted, and passes because the zones only observe.
    Observed,
    Refused(String),
    /// It cannot be told, and why.
    Unknown(String),
}

/// What was counted under one heading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) things: u64,
    pub(super) events: u64,
    pub(super) count: u64,
}

impl Sum {
    pub(super) fn add(&mut self, events: u64, count: u64) {
        self.things += 1;
        self.events = self.events.saturating_add(events);
        self.count = self.count.saturating_add(count);
    }
}

/// Something that the new plans refuse.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) gateway: String,
    pub(super) client: IpAddr,
    pub(super) server: IpAddr,
    pub(super) service: String,
    pub(super) operation: Option<String>,
    pub(super) values: Option<[u32; 2]>,
    pub(super) must_flow: bool,
    /// By what is in force, too.
    pub(super) already: bool,
    pub(super) count: u64,
    pub(super) last_ms: u64,
    pub(super) because: String,
}

/// Ends, service, operation, gateway: what is listed once.
pub(super) type RefusalKey = ((IpAddr, IpAddr), String, Option<String>, String);

/// All of it, judged.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) refused: BTreeMap<RefusalKey, Refusal>,
    /// Refused, and too many to be listed.
    pub(super) further: Sum,
    pub(super) passes: Sum,
    pub(super) observed: Sum,
    /// Refused then, and it would pass now.
    pub(super) newly: Sum,
    pub(super) unjudged: BTreeMap<String, Sum>,
    /// Events of traffic that were read.
    pub(super) events: u64,
    /// When the first and the last of them happened.
    pub(super) first_ms: Option<u64>,
    pub(super) last_ms: u64,
    /// Gateways that said anything.
    pub(super) heard: BTreeSet<String>,
    /// Events that gateways lost before they came into the trail.
    pub(super) lost: u64,
}

/// By which plans something is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    New,
    InForce,
}

const NO_TIME: &str = "there was no time left to judge it";

/// The new plans, those that the release is compared with, and what was taken so far.
#[derive(Debug)]
pub(super) struct Judge {
    new: BTreeMap<String, Plan>,
    /// By what is in force, and its revision.
    base: BTreeMap<String, Plan>,
    base_revision: Option<u64>,
    /// The plans of gateways that learned, the new ones and those in force, ready to judge by: what was learned is judged where it was.
    inspected: BTreeMap<(Whose, String), Option<Rc<Plans>>>,
    /// When judging ends: what is left then is counted.
    until: Option<Instant>,
    questions: BTreeMap<Question, Tally>,
    /// What is still asked of what was learned, however many gateways tell of however much.
    asking: Asking,
    judged: Judged,
}

fn compiled(plant: &Plant) -> BTreeMap<String, Plan> {
    let plans = compile_all(plant).unwrap_or_default().into_iter();
    plans.map(|(gateway, plan)| (gateway.to_string(), plan)).collect()
}

impl Judge {
    pub(super) fn of(new: &Plant, base: Option<(&Plant, Option<u64>)>) -> Self {
        Self {
            inspected: BTreeMap::new(),
            base: base.map(|(plant, _)| compiled(plant)).unwrap_or_default(),
            base_revision: base.and_then(|(_, revision)| revision),
            new: compiled(new),
            questions: BTreeMap::new(),
            asking: Asking::default(),
            judged: Judged::default(),
            until: None,
        }
    }

    /// The same, which judges no longer than until then: of a large plant each question takes its time.
    pub(super) fn until(self, until: Instant) -> Self {
        let until = Some(until);
        Self { until, ..self }
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Takes one record of the trail, with when it happened.
    pub(super) fn take(&mut self, record: AuditRecord, placed_ms: u64) {
        let event = record.event.unwrap_or_default();
        let gateway = record.source;
        let revision = event.revision;
        match event.kind {
            Some(Kind::Verdict(verdict)) => self.verdict(&gateway, &verdict, placed_ms),
            Some(Kind::Operation(operation)) => self.operation(&gateway, operation, revision, placed_ms),
            // Which MAC address an address has permits and refuses nothing.
            Some(Kind::Learned(learned)) if learned.binding.is_some() => {}
            Some(Kind::Learned(learned)) => {
                let count = learned.connections.max(1);
                match events::learned(learned) {
                    Some((ends, talk)) => self.learned(&gateway, ends, talk, placed_ms),
                    None => self.unusable(count),
                }
            }
            Some(Kind::Loss(loss)) => {
                self.judged.lost = self.judged.lost.saturating_add(loss.events);
                self.judged.heard.insert(gateway);
                return;
            }
            _ => return,
        }
        let judged = &mut self.judged;
        judged.events += 1;
        judged.first_ms = Some(judged.first_ms.map_or(placed_ms, |first| first.min(placed_ms)));
        judged.last_ms = judged.last_ms.max(placed_ms);
        judged.heard.insert(gateway);
    }

    fn unjudged(&mut self, why: &str, events: u64, count: u64) {
        let reasons = &mut self.judged.unjudged;
        let why = match reasons.contains_key(why) || reasons.len() < REASONS_MAX {
            true => why,
            false => "for further reasons",
        };
        reasons.entry(why.to_owned()).or_default().add(events, count);
    }

    fn unusable(&mut self, count: u64) {
        self.unjudged(
            "the event was not understood: is this program older than the gateways?",
            1,
            count,
        );
    }

    fn verdict(&mut self, gateway: &str, verdict: &VerdictEvent, placed_ms: u64) {
        let ends = (verdict.source.parse(), verdict.destination.parse());
        let passed = verdict.decision() != v1::Decision::Deny;
        let (Ok(client), Ok(server)) = ends else {
            return self.unusable(verdict.count);
        };
        let carried = match carried(verdict) {
            Ok(Some(carried)) => carried,
            Ok(None) => return self.unusable(verdict.count),
            Err(why) => return self.unjudged(why, 1, verdict.count),
        };
        // What was dropped where it came in has none on the other side.
        let sides = [&verdict.ingress, &verdict.egress].map(Clone::clone);
        let question = Question {
            gateway: gateway.to_owned(),
            client,
            server,
            service: carried.to_string(),
            inside: Inside::Connection,
            passed,
            sides: Some(sides).filter(|sides| sides.iter().all(|side| !side.is_empty())),
            moments: self.moments(gateway, verdict.first_ms, verdict.last_ms),
        };
        self.ask(question, carried, verdict.count, placed_ms);
    }

    fn operation(&mut self, gateway: &str, operation: OperationEvent, revision: u64, placed_ms: u64) {
        let ends = (
            operation.client.parse(),
            operation.server.parse(),
            u16::try_from(operation.port),
        );
        let (Ok(client), Ok(server), Ok(port)) = ends else {
            return self.unusable(operation.count);
        };
        let decision = operation.decision();
        if operation.subject != "operation" {
            let why = "the gateway remarked on an answer or a session, not on an operation";
            return self.unjudged(why, 1, operation.count);
        }
        let moments = self.moments(gateway, operation.first_ms, operation.last_ms);
        let values = operation.values.map(|values| [values.first, values.last]);
        let carried = Carried::Tcp(port);
        let question = Question {
            gateway: gateway.to_owned(),
            client,
            server,
            service: carried.to_string(),
            inside: match decision {
                v1::Decision::Allow => Inside::Permitted(operation.operation, revision),
                _ => Inside::Operation(operation.operation, values),
            },
            passed: decision != v1::Decision::Deny,
            sides: None,
            moments,
        };
        self.ask(question, carried, operation.count, placed_ms);
    }

    /// The first and the last time, where the moment decides.
    fn moments(&self, gateway: &str, first_ms: u64, last_ms: u64) -> Option<[u64; 2]> {
        let granted = self.new.get(gateway).is_some_and(|plan| !plan.grants.is_empty());
        granted.then_some([first_ms, last_ms])
    }

    fn ask(&mut self, question: Question, carried: Carried, count: u64, placed_ms: u64) {
        if let Some(known) = self.questions.get_mut(&question) {
            known.events += 1;
            known.count = known.count.saturating_add(count);
            known.last_ms = known.last_ms.max(placed_ms);
        } else if self.questions.len() < QUESTIONS_MAX {
            let tally = Tally {
                carried,
                events: 1,
                count,
                last_ms: placed_ms,
            };
            self.questions.insert(question, tally);
        } else {
            let why = format!("there are more than {QUESTIONS_MAX} different things in this time");
            self.unjudged(&why, 1, count);
        }
    }

    /// All that was taken, judged.
    pub(super) fn finish(mut self) -> Judged {
        for (question, tally) in std::mem::take(&mut self.questions) {
            if self.is_over() {
                self.unjudged(NO_TIME, tally.events, tally.count);
                continue;
            }
            let outcome = self.outcome(&self.new, &question, tally.carried);
            let (events, count) = (tally.events, tally.count);
            match (outcome, question.passed) {
                (Outcome::Unknown(why), true) => self.unjudged(&why, events, count),
                (Outcome::Passes | Outcome::Observed, false) => self.judged.newly.add(events, count),
                (Outcome::Refused(_) | Outcome::Unknown(_), false) => {}
                (Outcome::Passes, true) => self.judged.passes.add(events, count),
                (Outcome::Observed, true) => self.judged.observed.add(events, count),
                (Outcome::Refused(because), true) => {
                    let (operation, values) = match &question.inside {
                        Inside::Connection => (None, None),
                        Inside::Operation(words, values) => (Some(words.clone()), *values),
                        Inside::Permitted(name, _) => (Some(name.clone()), None),
                    };
                    let refusal = Refusal {
                        gateway: question.gateway.clone(),
                        client: question.client,
                        server: question.server,
                        service: question.service.clone(),
                        operation,
                        values,
                        must_flow: false,
                        already: false,
                        count,
                        last_ms: tally.last_ms,
                        because,
                    };
                    self.refuse(refusal, &question, tally.carried);
                }
            }
        }
        self.judged
    }

    /// Lists a refusal, and whether a flow that must not stop is hit.
    fn refuse(&mut self, refusal: Refusal, question: &Question, carried: Carried) {
        let key = (
            (refusal.client, refusal.server),
            refusal.service.clone(),
            refusal.operation.clone(),
            refusal.gateway.clone(),
        );
        if let Some(known) = self.judged.refused.get_mut(&key) {
            known.and(refusal);
            return;
        }
        if self.judged.refused.len() >= GROUPS_MAX {
            self.judged.further.add(1, refusal.count);
            return;
        }
        let must = |plans: &BTreeMap<String, Plan>| {
            let plan = plans.get(&question.gateway)?;
            let opened = plan.opening(plan.grants.keys().cloned().collect());
            let connection = self.connection(question, plan, carried)?;
            Some(matching(&opened, &connection).any(|rule| rule.must_flow))
        };
        let must_flow = [&self.base, &self.new]
            .into_iter()
            .any(|plans| must(plans) == Some(true));
        let already =
            refusal.already || matches!(self.outcome(&self.base, question, carried), Outcome::Refused(_));
        let refusal = Refusal {
            must_flow,
            already,
            ..refusal
        };
        self.judged.refused.insert(key, refusal);
    }
}

impl Refusal {
    /// The same thing, seen otherwise.
    fn and(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.values = match (self.values, other.values) {
            (Some([first, last]), Some([from, to])) => Some([first.min(from), last.max(to)]),
            _ => None,
        };
        if other.last_ms > self.last_ms {
            (self.last_ms, self.because) = (other.last_ms, other.because);
        }
    }
}

/// How a verdict's packets were carried; `None` for numbers that cannot be.
fn carried(verdict: &VerdictEvent) -> Result<Option<Carried>, &'static str> {
    let Ok(port) = u16::try_from(verdict.port) else {
        return Ok(None);
    };
    Ok(match verdict.protocol {
        6 => Some(Carried::Tcp(port)),
        17 => Some(Carried::Udp(port)),
        // An echo is what rules permit of it, and what a rule was looked for.
        1 | 58 if !verdict.flow.is_empty() || verdict.reason.starts_with("no flow permits it") => {
            Some(Carried::IcmpEcho)
        }
        1 | 58 => return Err("the trail does not say which ICMP it was"),
        other => u8::try_from(other).ok().map(Carried::Other),
    })
}
