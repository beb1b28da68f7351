//! What stands beside an answer about one connection: who else may do it, and which answers of the server would pass.

use penstock_inspect::judge::{Rules, Verdict};
use penstock_inspect::query::Query;
use penstock_policy::plan::{Plan, Rule};
use penstock_policy::protocol::Operations;
use penstock_policy::terms::Answers;
use penstock_policy::verdict::{
    Connection, Permissions as Permits, Reason, RuleName, for_others, permitted as permits,
};

use super::report::Permitted;

/// Who may do at this server what is refused to the connection's source: open it, or the operation inside.
pub(super) fn permitted(
    plan: &Plan,
    connection: &Connection,
    reason: &Reason,
    asked: Option<&Query>,
) -> Vec<Permitted> {
    let own = permits(plan, connection);
    let refused = match (reason, asked, &own) {
        (Reason::NoRule { .. } | Reason::Misplaced { .. } | Reason::Unguarded { .. }, _, _) => true,
        (Reason::Rule(_), Some(asked), Permits::Only(listed)) => {
            !listed.iter().any(|(_, operations)| allows(asked, operations))
        }
        _ => false,
    };
    if !refused {
        return Vec::new();
    }
    let mut found: Vec<Permitted> = Vec::new();
    for rule in for_others(plan, connection).filter(|rule| may(rule, asked)) {
        for end in &rule.sources {
            let one = Permitted {
                source: end.name.to_string(),
                flow: RuleName::of(rule).to_string(),
            };
            if !found.contains(&one) {
                found.push(one);
            }
        }
    }
    found
}

fn may(rule: &Rule, asked: Option<&Query>) -> bool {
    match (asked, rule.operations.as_deref()) {
        (Some(asked), Some(operations)) => allows(asked, operations),
        _ => true,
    }
}

fn allows(asked: &Query, operations: &Operations) -> bool {
    let rules = Rules::compile(operations).ok();
    let verdict = rules.and_then(|rules| asked.judge(&rules));
    matches!(verdict, Some(Verdict::Allow(_) | Verdict::Upkeep))
}

/// Which answers belong to a request, where a flow of the connection wants other than strictly its own.
pub(super) fn answers(plan: &Plan, connection: &Connection) -> Option<String> {
    let Permits::Only(listed) = permits(plan, connection) else {
        return None;
    };
    let all = || listed.iter().map(|(rule, _)| *rule);
    let loose: Vec<String> = all()
        .filter(|rule| rule.answers == Answers::InOrder)
        .map(|rule| RuleName::of(rule).to_string())
        .collect();
    if loose.is_empty() {
        return None;
    }
    Some(match Answers::shared(all().map(|rule| rule.answers)) {
        Answers::InOrder => {
            "answers: in-order: the next answer passes whatever identifiers it carries, if one request \
                             waits alone and it fits"
                .to_owned()
        }
        Answers::Strict => format!(
            "answers: strict: {} says in-order, but shares the connection with flows that do not, and the strictest holds",
            loose.join(", ")
        ),
    })
}
