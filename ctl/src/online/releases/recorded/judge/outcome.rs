//! What new plans say of one thing that was done: of the connection, and of what was done inside it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use penstock_policy::plan::{Plan, Rule};
use penstock_policy::protocol::{LimitSet, Operations, Permitted};
use penstock_policy::terms::{Enforcement, NumberRange};
use penstock_policy::verdict::{
    Carried, Connection, Decision, Permissions, decide, matching, mode, permitted,
};
use penstock_proto::v1::LearnedRange;

use super::{Inside, Judge, Outcome, Question};
use crate::offline::explain::OperationVerdict;
use crate::online::trail;

impl Judge {
    /// As it crosses the gateway: where the event does not say by which interfaces, by those on whose sides its ends live.
    pub(super) fn connection(
        &self,
        question: &Question,
        plan: &Plan,
        carried: Carried,
    ) -> Option<Connection> {
        let side = |address: IpAddr| {
            let base = self.base.get(&question.gateway);
            let mut sides = plan
                .interfaces
                .iter()
                .chain(base.into_iter().flat_map(|base| &base.interfaces));
            Some(sides.find(|side| side.holds(address))?.name.clone())
        };
        let [ingress, egress] = match &question.sides {
            Some(sides) => sides.clone(),
            None => [side(question.client)?, side(question.server)?],
        };
        Some(Connection {
            ingress,
            egress,
            source: question.client,
            destination: question.server,
            transport: carried,
        })
    }

    /// What the gateway's new plan says. Of what was done over some time, what passes at one of its ends passes.
    pub(super) fn outcome(
        &self,
        plans: &BTreeMap<String, Plan>,
        question: &Question,
        carried: Carried,
    ) -> Outcome {
        let Some(plan) = plans.get(&question.gateway) else {
            return Outcome::Unknown(format!("the release has no gateway {}", question.gateway));
        };
        let Some(connection) = self.connection(question, plan, carried) else {
            return Outcome::Unknown("an end lies on no side of its gateway".to_owned());
        };
        let moments = match question.moments {
            None => vec![None],
            Some([first, last]) if first == last => vec![Some(first)],
            Some([first, last]) => vec![Some(last), Some(first)],
        };
        let mut outcomes = moments.into_iter().map(|moment| match moment {
            None => self.judge(question, plan, &connection),
            Some(_) => self.judge(question, &plan.at(moment), &connection),
        });
        let last = outcomes.next();
        match (last, outcomes.next()) {
            (
                Some(Outcome::Refused(_) | Outcome::Unknown(_)),
                Some(first @ (Outcome::Passes | Outcome::Observed)),
            ) => first,
            (Some(last), _) => last,
            (None, _) => Outcome::Passes,
        }
    }

    fn judge(&self, question: &Question, plan: &Plan, connection: &Connection) -> Outcome {
        let verdict = decide(plan, connection);
        match verdict.decision {
            Decision::Deny => return Outcome::Refused(verdict.reason.to_string()),
            Decision::WouldDeny => return Outcome::Observed,
            Decision::NotGuarded => return Outcome::Passes,
            Decision::Allow => {}
        }
        let inside = match &question.inside {
            Inside::Connection => Outcome::Passes,
            Inside::Operation(words, values) => operation(plan, connection, words, *values),
            Inside::Permitted(name, revision) => self.named(question, plan, connection, (name, *revision)),
        };
        let is_of_connection = matches!(question.inside, Inside::Connection);
        let inside = match inside {
            Outcome::Passes if !is_of_connection && self.changes_roles(question, plan, connection) => {
                Outcome::Unknown(
                    "the release changes what clients may do by their role, and roles are not judged here"
                        .to_owned(),
                )
            }
            inside => inside,
        };
        match inside {
            Outcome::Refused(_) | Outcome::Unknown(_)
                if mode(plan, connection) == Some(Enforcement::Observe) =>
            {
                Outcome::Observed
            }
            inside => inside,
        }
    }

    /// Whether a flow of the connection tells roles apart in another way than the release compared with.
    fn changes_roles(&self, question: &Question, plan: &Plan, connection: &Connection) -> bool {
        let base = self.base.get(&question.gateway);
        let before = |rule: &Rule| {
            let same = |other: &&Rule| (&other.conduit, &other.flow) == (&rule.conduit, &rule.flow);
            base?.rules.iter().find(same)?.roles.clone()
        };
        matching(plan, connection).any(|rule| rule.roles.is_some() && rule.roles != before(rule))
    }

    /// A permitted operation of which the trail has only the name.
    fn named(
        &self,
        question: &Question,
        plan: &Plan,
        connection: &Connection,
        (name, revision): (&str, u64),
    ) -> Outcome {
        let Permissions::Only(listed) = permitted(plan, connection) else {
            return Outcome::Passes;
        };
        let lists: Vec<&Operations> = listed.iter().map(|(_, operations)| *operations).collect();
        let Some(protocol) = lists.first().map(|operations| operations.protocol) else {
            return Outcome::Passes;
        };
        let codes = |name: &str| -> Vec<u32> {
            (protocol.members)(name)
                .iter()
                .map(|member| member.code)
                .collect()
        };
        let own = codes(name);
        // What needs no entry has no name in documents.
        if own.is_empty() {
            return Outcome::Passes;
        }
        let concerns = |entry: &&Permitted| codes(&entry.operation).iter().any(|code| own.contains(code));
        let now: Vec<&Permitted> = lists
            .iter()
            .flat_map(|list| &list.permitted)
            .filter(concerns)
            .collect();
        if now.is_empty() {
            return Outcome::Refused(format!("no flow between the two permits {name}"));
        }
        if now
            .iter()
            .any(|entry| entry.operation == name && entry.limits.is_empty())
        {
            return Outcome::Passes;
        }
        let unknown = |why: &str| {
            Outcome::Unknown(format!(
                "of a permitted operation the trail has only the name, and {why}"
            ))
        };
        if self.base_revision != Some(revision) {
            return unknown("it was permitted by another release than the one compared with");
        }
        let base = self
            .base
            .get(&question.gateway)
            .map(|base| base.at(question.moments.map(|[_, last]| last)));
        let then = base.as_ref().map(|base| permitted(base, connection));
        match then {
            Some(Permissions::Only(then)) => {
                let mut then = then.iter().flat_map(|(_, list)| &list.permitted).filter(concerns);
                if then.all(|inner| now.iter().any(|outer| covers(outer, inner))) {
                    return Outcome::Passes;
                }
                unknown("the release narrows what it permits of it")
            }
            _ => unknown("the release limits what was not limited"),
        }
    }
}

/// An operation by all its words. The ends of what it wrote are known to have been written; what lies between may have been.
fn operation(plan: &Plan, connection: &Connection, words: &str, values: Option<[u32; 2]>) -> Outcome {
    let range = values.map(|[first, last]| LearnedRange { first, last });
    let telling: Vec<Option<u32>> = match range {
        None => vec![None],
        Some(_) => trail::telling_values(plan, connection, range.as_ref())
            .into_iter()
            .map(Some)
            .collect(),
    };
    let mut doubt = None;
    for value in telling {
        let Some(asked) = trail::asked(words, value, values.is_some()) else {
            return Outcome::Unknown("the words of the operation do not read back exactly".to_owned());
        };
        let on = connection.destination.to_string();
        let Some(verdict) = OperationVerdict::on_connection(&asked, &on, plan, connection) else {
            return Outcome::Passes;
        };
        if verdict.decision == "allow" {
            continue;
        }
        let is_end =
            value.is_none() || values.is_some_and(|ends| ends.into_iter().any(|end| Some(end) == value));
        if !is_end {
            doubt = Some("which values between the least and the greatest were written is not recorded");
            continue;
        }
        let closest = match (&verdict.entry, &verdict.flow) {
            (Some(entry), Some(flow)) => format!("; closest is {entry} ({flow})"),
            _ => String::new(),
        };
        return Outcome::Refused(format!("{}{closest}", verdict.reason));
    }
    doubt.map_or(Outcome::Passes, |why| Outcome::Unknown(why.to_owned()))
}

/// Whether an entry permits all that another of the same name does.
fn covers(outer: &Permitted, inner: &Permitted) -> bool {
    let within = |outer: &LimitSet, inner: &LimitSet| match (outer, inner) {
        (LimitSet::Numbers(outer), LimitSet::Numbers(inner)) => inner.iter().all(|inner| {
            let holds = |outer: &NumberRange| outer.first <= inner.first && inner.last <= outer.last;
            outer.iter().any(holds)
        }),
        (outer, inner) => outer == inner,
    };
    outer.operation == inner.operation
        && outer
            .limits
            .iter()
            .all(|(name, outer)| inner.limit(name).is_some_and(|inner| within(outer, inner)))
}
