//! What becomes of one operation inside a connection that passes, or on a bridge: which entry permits it, or what
//! stands against it in the one that came closest.

use std::collections::BTreeSet;

use penstock_inspect::judge::{Rules, Verdict};
use penstock_inspect::query::Query;
use penstock_policy::plan::{Plan, Rule};
use penstock_policy::protocol::{Operations, RoleOperations};
use penstock_policy::verdict::{Connection, Permissions, RuleName, permitted};
use schemars::JsonSchema;
use serde::Serialize;

use crate::output::{Page, Tone};

/// What becomes of one operation.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OperationVerdict {
    /// The operation, as events say it: "write-single-register 40 of unit 1 on plc-7".
    pub operation: String,
    /// `allow` or `deny`.
    pub decision: String,
    /// Why, in a sentence.
    pub reason: String,
    /// The flow whose entry decided, or came closest: `conduit/flow`.
    pub flow: Option<String>,
    /// That entry, in words.
    pub entry: Option<String>,
    /// What the client gets for the refusal: "resets the connection".
    pub refusal: Option<String>,
    /// What was taken for granted, because it was not said.
    pub assumption: Option<String>,
}

impl OperationVerdict {
    /// Of `asked` on a connection that `plan` lets pass. `None` where nothing is inspected because nothing is crossed.
    pub(crate) fn on_connection(
        asked: &Query,
        on: &str,
        plan: &Plan,
        connection: &Connection,
    ) -> Option<Self> {
        match permitted(plan, connection) {
            Permissions::Nothing => None,
            Permissions::Anything | Permissions::InsideTls(_) => Some(Self {
                operation: asked.said(on),
                decision: "allow".to_owned(),
                reason: format!("{} passes: the flow is not limited to operations", asked.said(on)),
                flow: None,
                entry: None,
                refusal: None,
                assumption: None,
            }),
            Permissions::Only(listed) => {
                let lists = listed.iter().map(|(_, operations)| *operations);
                let flow = |owner: usize| listed.get(owner).map(|(rule, _)| name(rule));
                let mut verdict = Self::by(asked, on, lists, flow);
                if verdict.decision == "allow" {
                    verdict.by_role(asked, on, &listed);
                }
                if verdict.decision == "deny" {
                    verdict.refusal = listed.first().map(|(rule, _)| rule.on_refusal.to_string());
                }
                Some(verdict)
            }
        }
    }

    /// What the role in a client's certificate adds to it, where each flow that permits it tells roles apart.
    fn by_role(&mut self, asked: &Query, on: &str, listed: &[(&Rule, &Operations)]) {
        let permits = |operations: &Operations, role: Option<&Operations>| {
            let compiled = Rules::within([(operations, role)]).ok();
            let verdict = compiled.and_then(|(rules, _)| asked.judge(&rules));
            verdict.is_some_and(|verdict| verdict.allows())
        };
        let (mut roles, mut to_nobody_special) = (BTreeSet::new(), false);
        for (rule, operations) in listed.iter().filter(|(_, list)| permits(list, None)) {
            let Some(by_role) = rule.roles.as_deref() else {
                return;
            };
            let may = |operations_of_role: &RoleOperations| match operations_of_role {
                RoleOperations::All => true,
                RoleOperations::Only(list) => permits(operations, Some(list)),
            };
            let named = by_role.by_role.iter().filter(|(_, role)| may(role));
            roles.extend(named.map(|(name, _)| name.to_string()));
            to_nobody_special |= by_role.of(None).is_some_and(may);
        }
        let said = asked.said(on);
        if roles.is_empty() {
            self.decision = "deny".to_owned();
            self.reason = format!("{said} is refused: no role of its flow permits it");
            return;
        }
        let roles = roles.into_iter().collect::<Vec<_>>().join(", ");
        self.reason = match to_nobody_special {
            false => format!(
                "{said} is permitted only to clients whose certificate gives one of the roles {roles}"
            ),
            true => format!(
                "{said} is permitted to clients whose certificate gives no role, or one of the roles {roles}"
            ),
        };
    }

    /// Of `asked` on the bridge `rule`, which carries these publications.
    pub(super) fn on_bridge(asked: &Query, on: &str, rule: &RuleName, publications: &Operations) -> Self {
        Self::by(asked, on, [publications], |_| Some(rule.to_string()))
    }

    fn by<'a>(
        asked: &Query,
        on: &str,
        lists: impl IntoIterator<Item = &'a Operations>,
        flow: impl Fn(usize) -> Option<String>,
    ) -> Self {
        let said = asked.said(on);
        let refused = |reason: String| Self {
            operation: said.clone(),
            decision: "deny".to_owned(),
            reason: format!("{said} is refused: {reason}"),
            flow: None,
            entry: None,
            refusal: None,
            assumption: asked.assumption().map(str::to_owned),
        };
        let (rules, owners) = match Rules::union(lists) {
            Ok(compiled) => compiled,
            Err(error) => return refused(error.to_string()),
        };
        let Some(verdict) = asked.judge(&rules) else {
            return refused("the flow carries another protocol".to_owned());
        };
        let entry = |index: usize| rules.rule(index).map(str::to_owned);
        let owner = |index: usize| owners.get(index).and_then(|owner| flow(*owner));
        match verdict {
            Verdict::Allow(index) => Self {
                decision: "allow".to_owned(),
                reason: format!("{said} is permitted"),
                flow: owner(index),
                entry: entry(index),
                ..refused(String::new())
            },
            Verdict::Upkeep => Self {
                decision: "allow".to_owned(),
                reason: format!("{said} needs no entry of its own"),
                ..refused(String::new())
            },
            Verdict::Refuse(refusal) => {
                let nearest = refusal.nearest.or_else(|| rules.nearest(asked.operation()));
                Self {
                    flow: nearest.and_then(owner),
                    entry: nearest.and_then(entry),
                    ..refused(refusal.why.to_string())
                }
            }
        }
    }

    pub(super) fn page(&self, page: &mut Page) {
        let (mark, tone, by) = if self.decision == "allow" {
            ("✓", Tone::Good, "by")
        } else {
            ("✗", Tone::Bad, "closest:")
        };
        let mark = page.paint(tone, mark);
        page.line(format!("  {mark} {}", self.reason));
        if let Some(entry) = &self.entry {
            let flow = page.paint(Tone::Name, self.flow.as_deref().unwrap_or_default());
            page.line(format!("    {by} {entry}  {flow}"));
        }
        if let Some(assumption) = &self.assumption {
            let assumption = page.paint(Tone::Warn, assumption);
            page.line(format!("    {assumption}"));
        }
        if let Some(refusal) = &self.refusal {
            page.line(format!("    a refusal {refusal}"));
        }
    }
}

fn name(rule: &Rule) -> String {
    RuleName::of(rule).to_string()
}
