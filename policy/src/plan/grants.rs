//! Conduits that are open only while a grant of remote access lasts (IEC 62443-3-3 SR 1.13, SR 2.6).
//!
//! A plan holds the grants of its conduits and no clock: as it is read, every such conduit is closed. [`Plan::at`] gives the same
//! plan as of a moment; where no moment is known, it stays closed. Conduits without an entry stand open at all times, whatever
//! the clock says. So whoever forgets to ask for the time opens nothing.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Plan, Rule};
use crate::ids::{ConduitId, GrantId};

/// A grant of remote access, as a gateway needs it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Its name in the document.
    pub name: GrantId,
    /// Who is let in.
    pub person: String,
    /// When it begins, milliseconds since 1970.
    pub from_ms: u64,
    /// When it ends: from this moment on it is over.
    pub until_ms: u64,
}

impl Grant {
    /// Whether it lasts at this moment.
    pub fn lasts_at(&self, now_ms: u64) -> bool {
        (self.from_ms..self.until_ms).contains(&now_ms)
    }
}

/// `visit (Carla, 2026-12-01T08:00:00Z to 2026-12-01T16:00:00Z)`.
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, until) = (moment(self.from_ms), moment(self.until_ms));
        write!(f, "{} ({}, {from} to {until})", self.name, self.person)
    }
}

/// A moment in UTC, as the document may write it.
pub fn moment(ms: u64) -> String {
    let at = i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| format!("{ms} ms since 1970"), |at| at.to_string())
}

/// What opens a conduit, in words.
pub fn opened_by(grants: &[Grant]) -> String {
    if grants.is_empty() {
        "a grant of remote access, and there is none".to_owned()
    } else {
        let grants: Vec<String> = grants.iter().map(ToString::to_string).collect();
        format!("a grant of remote access: {}", grants.join(" or "))
    }
}

impl Plan {
    /// This plan as of `now_ms`: conduits with grants are open if one of theirs lasts then. `None`: the time is not known, so
    /// they are closed.
    pub fn at(&self, now_ms: Option<u64>) -> Self {
        self.opening(self.open_at(now_ms))
    }

    /// This plan with just these of its conduits that grants open.
    pub fn opening(&self, open: BTreeSet<ConduitId>) -> Self {
        Self { open, ..self.clone() }
    }

    /// The conduits that a grant opens at that moment.
    pub fn open_at(&self, now_ms: Option<u64>) -> BTreeSet<ConduitId> {
        let lasts =
            |grants: &[Grant]| now_ms.is_some_and(|now| grants.iter().any(|grant| grant.lasts_at(now)));
        let open = self.grants.iter().filter(|(_, grants)| lasts(grants));
        open.map(|(conduit, _)| conduit.clone()).collect()
    }

    /// Whether a conduit is open: it stands open, or a grant opened it.
    pub fn is_open(&self, conduit: &ConduitId) -> bool {
        !self.grants.contains_key(conduit) || self.open.contains(conduit)
    }

    /// The rules that permit anything now.
    pub fn open_rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(|rule| self.is_open(&rule.conduit))
    }

    /// The grants that can open a conduit; none of one that stands open.
    pub fn grants_of(&self, conduit: &ConduitId) -> &[Grant] {
        self.grants.get(conduit).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::compile::compile;
    use crate::plan::Capability;
    use crate::verdict::{Carried, Connection, Decision, Reason, decide};
    use crate::waterworks::{gateway, waterworks};

    const FROM: u64 = 1_796_112_000_000;
    const UNTIL: u64 = FROM + 8 * 3_600_000;

    /// The works' plan, in which every conduit but `open` hangs on one grant.
    fn granted() -> Plan {
        let mut plan = compile(&waterworks(), &gateway()).unwrap();
        let grant = Grant {
            name: "visit".parse().unwrap(),
            person: "Carla".to_owned(),
            from_ms: FROM,
            until_ms: UNTIL,
        };
        let conduit = plan.rules[0].conduit.clone();
        plan.grants.insert(conduit, vec![grant]);
        plan.requires
            .insert(Capability(Capability::REMOTE_ACCESS.to_owned()));
        plan
    }

    fn connection(plan: &Plan) -> Connection {
        let rule = &plan.rules[0];
        let (source, destination) = (
            rule.sources[0].network.addr(),
            rule.destinations[0].network.addr(),
        );
        let side = |address| {
            plan.interfaces
                .iter()
                .find(|side| side.holds(address))
                .unwrap()
                .name
                .clone()
        };
        Connection {
            ingress: side(source),
            egress: side(destination),
            source,
            destination,
            transport: Carried::Tcp(502),
        }
    }

    #[test]
    fn a_conduit_of_a_grant_is_closed_before_it_and_from_its_end_on_and_where_the_time_is_not_known() {
        let plan = granted();
        let decision = |now| decide(&plan.at(now), &connection(&plan)).decision;
        assert_eq!(decision(Some(FROM - 1)), Decision::Deny);
        assert_eq!(decision(Some(FROM)), Decision::Allow);
        assert_eq!(decision(Some(UNTIL - 1)), Decision::Allow);
        assert_eq!(decision(Some(UNTIL)), Decision::Deny);
        assert_eq!(decision(None), Decision::Deny);
        assert_eq!(
            decide(&plan, &connection(&plan)).decision,
            Decision::Deny,
            "as it was read"
        );
    }

    #[test]
    fn a_conduit_without_grants_stands_open_whatever_the_time() {
        let plan = compile(&waterworks(), &gateway()).unwrap();
        for now in [None, Some(0), Some(u64::MAX)] {
            assert_eq!(
                decide(&plan.at(now), &connection(&plan)).decision,
                Decision::Allow
            );
        }
    }

    #[test]
    fn a_refusal_names_the_grant_that_would_open_the_conduit() {
        let plan = granted();
        let verdict = decide(&plan.at(Some(UNTIL)), &connection(&plan));
        assert!(matches!(verdict.reason, Reason::Closed { .. }));
        let words = verdict.to_string();
        assert!(
            words.contains("visit (Carla, 2026-12-01T08:00:00Z to 2026-12-01T16:00:00Z)"),
            "{words}"
        );
    }

    #[test]
    fn what_is_open_is_no_part_of_a_plans_bytes_and_a_plan_without_grants_has_the_bytes_it_had() {
        let plan = granted();
        assert_eq!(plan.at(Some(FROM)).to_bytes(), plan.to_bytes());
        assert_eq!(Plan::from_bytes(&plan.at(Some(FROM)).to_bytes()).unwrap(), plan);
        let bytes = compile(&waterworks(), &gateway()).unwrap().to_bytes();
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains("grants") && !text.contains("\"open\""));
    }

    #[test]
    fn an_agent_that_does_not_know_grants_refuses_the_plan_whole() {
        let mut plan = granted();
        plan.requires.clear();
        let error = Plan::from_bytes(&plan.to_bytes()).unwrap_err().to_string();
        assert!(error.contains("does not require"), "{error}");
        // Nor does a plan of the format before have them.
        let old = include_str!("../../fixtures/plan-format-1.json").replacen('{', "{\"grants\":{},", 1);
        assert!(Plan::from_bytes(old.as_bytes()).is_err());
    }
}
