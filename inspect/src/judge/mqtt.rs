//! MQTT rules: what may be published and subscribed, by topic; who may connect.
//!
//! - A flow without a `connect` rule lets any client identifier and user connect; with one, only those.
//! - A will is judged like a publication to its topic.
//! - A shared subscription takes messages away from the others of its group. So it needs a rule that is
//!   written `$share/NAME/FILTER` (`$share/+/FILTER` for any group); a plain filter does not permit it.
//! - A delivery by the broker is judged by the same rules as the subscription that it answers, so that one from
//!   an earlier session or an earlier policy does not outlive it.
//! - To end a subscription is always permitted.

use penstock_policy::model::{MqttOperation, NumberRange};

use super::trie::{Grant, Trie};
use super::{Refusal, RuleIndex, RulesError, Verdict, Why};
use crate::mqtt::operation::Operation;
use crate::mqtt::topic::Subscription;

/// Compiled MQTT rules of one flow.
#[derive(Debug)]
pub struct MqttRules {
    publish: Trie,
    subscribe: Trie,
    /// Filters of shared subscriptions by share name; `+` for any.
    shared: Vec<(String, Trie)>,
    /// Plain and shared filters together: what may be delivered.
    deliver: Trie,
    connect: Vec<Connect>,
    /// Every filter with its rule, for the nearest one.
    filters: Vec<(Side, String, RuleIndex)>,
    texts: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Publish,
    Subscribe,
}

#[derive(Debug)]
struct Connect {
    rule: RuleIndex,
    client_ids: Option<Vec<String>>,
    users: Option<Vec<String>>,
}

impl MqttRules {
    /// Compiles a flow's list.
    pub fn compile(list: &[MqttOperation]) -> Result<Self, RulesError> {
        if list.is_empty() {
            return Err(RulesError::Empty);
        }
        let mut rules = Self {
            texts: list.iter().map(text).collect(),
            ..Self::nothing()
        };
        for (index, operation) in list.iter().enumerate() {
            rules.add(index, operation)?;
        }
        Ok(rules)
    }

    /// Permits nothing but to connect.
    pub(super) fn nothing() -> Self {
        Self {
            publish: Trie::default(),
            subscribe: Trie::default(),
            shared: Vec::new(),
            deliver: Trie::default(),
            connect: Vec::new(),
            filters: Vec::new(),
            texts: Vec::new(),
        }
    }

    fn add(&mut self, index: RuleIndex, operation: &MqttOperation) -> Result<(), RulesError> {
        match operation {
            MqttOperation::Publish { topics, qos, retain } => {
                let grant = grant(index, *qos, *retain)?;
                for filter in listed(index, topics)? {
                    let subscription = parsed(index, filter)?;
                    if subscription.share.is_some() {
                        return Err(bad_filter(index, filter));
                    }
                    self.publish.insert(filter, grant);
                    self.filters.push((Side::Publish, filter.clone(), index));
                }
            }
            MqttOperation::Subscribe { topics, qos } => {
                let grant = grant(index, *qos, true)?;
                for filter in listed(index, topics)? {
                    let subscription = match filter.strip_prefix("$share/+/") {
                        Some(inner) => Subscription {
                            share: Some("+"),
                            filter: parsed(index, inner)?.filter,
                        },
                        None => parsed(index, filter)?,
                    };
                    self.deliver.insert(subscription.filter, grant);
                    self.filters.push((Side::Subscribe, filter.clone(), index));
                    match subscription.share {
                        None => self.subscribe.insert(filter, grant),
                        Some(name) => self.share(name).insert(subscription.filter, grant),
                    }
                }
            }
            MqttOperation::Connect { client_ids, users } => {
                for list in [client_ids, users].into_iter().flatten() {
                    if list.is_empty() {
                        return Err(RulesError::EmptyList {
                            index,
                            field: "client identifiers or users",
                        });
                    }
                }
                self.connect.push(Connect {
                    rule: index,
                    client_ids: client_ids.clone(),
                    users: users.clone(),
                });
            }
        }
        Ok(())
    }

    fn share(&mut self, name: &str) -> &mut Trie {
        let at = match self.shared.iter().position(|(known, _)| known == name) {
            Some(at) => at,
            None => {
                self.shared.push((name.to_owned(), Trie::default()));
                self.shared.len() - 1
            }
        };
        #[allow(clippy::indexing_slicing)] // Found or pushed on the line above.
        &mut self.shared[at].1
    }

    /// Each rule in words.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Judges one operation.
    pub fn judge(&self, operation: &Operation<'_>) -> Verdict {
        match operation {
            Operation::Connect { client_id, user } => self.connect(client_id, user.as_deref()),
            Operation::Publish { topic, qos, retain } | Operation::Will { topic, qos, retain } => {
                let mut closest = Closest::default();
                let found = self
                    .publish
                    .matching(topic, &mut |grant| closest.take(grant, *qos, *retain));
                closest.verdict(found)
            }
            Operation::Subscribe { filter, qos } => self.subscribe(filter, *qos),
            Operation::Unsubscribe { .. } => Verdict::Upkeep,
            Operation::Deliver { topic, .. } => {
                let found = self.deliver.matching(topic, &mut |grant| Some(grant.rule));
                Closest::default().verdict(found)
            }
        }
    }

    fn connect(&self, client_id: &str, user: Option<&str>) -> Verdict {
        if self.connect.is_empty() {
            return Verdict::Upkeep;
        }
        let names = |list: &Option<Vec<String>>, name: Option<&str>| match list {
            None => true,
            Some(list) => name.is_some_and(|name| list.iter().any(|listed| listed == name)),
        };
        let mut nearest = None;
        for rule in &self.connect {
            let (client_fits, user_fits) =
                (names(&rule.client_ids, Some(client_id)), names(&rule.users, user));
            if client_fits && user_fits {
                return Verdict::Allow(rule.rule);
            }
            if nearest.is_none() || client_fits {
                nearest = Some(rule.rule);
            }
        }
        Verdict::Refuse(Refusal {
            why: Why::Identity,
            nearest,
        })
    }

    fn subscribe(&self, filter: &str, qos: u8) -> Verdict {
        let mut closest = Closest::default();
        let Ok(wanted) = Subscription::parse(filter) else {
            return closest.verdict(None);
        };
        let mut take = |grant: &Grant| closest.take(grant, qos, false);
        let found = match wanted.share {
            None => self.subscribe.covering(wanted.filter, &mut take),
            Some(name) => self
                .shared
                .iter()
                .filter(|(permitted, _)| permitted == "+" || permitted == name)
                .find_map(|(_, trie)| trie.covering(wanted.filter, &mut take)),
        };
        closest.verdict(found)
    }

    /// The rule whose filter shares most levels with what was asked.
    pub(crate) fn nearest(&self, operation: &Operation<'_>) -> Option<RuleIndex> {
        let (side, topic) = match operation {
            Operation::Publish { topic, .. } | Operation::Will { topic, .. } => (Side::Publish, topic),
            Operation::Subscribe { filter, .. } => (Side::Subscribe, filter),
            Operation::Deliver { topic, .. } => (Side::Subscribe, topic),
            Operation::Connect { .. } | Operation::Unsubscribe { .. } => return None,
        };
        let shared_levels = |filter: &str| {
            filter
                .split('/')
                .zip(topic.split('/'))
                .take_while(|(level, name)| level == name || *level == "+")
                .count()
        };
        self.filters
            .iter()
            .filter(|(of, _, _)| *of == side)
            .map(|(_, filter, rule)| (shared_levels(filter), *rule))
            .max_by_key(|(levels, rule)| (*levels, usize::MAX - rule))
            .map(|(_, rule)| rule)
    }
}

/// The grant that came closest, while none was found.
#[derive(Debug, Default)]
struct Closest {
    refusal: Option<Refusal>,
}

impl Closest {
    fn take(&mut self, grant: &Grant, qos: u8, retain: bool) -> Option<RuleIndex> {
        let why = if qos < grant.qos_min || qos > grant.qos_max {
            Why::Qos
        } else if retain && !grant.retain {
            Why::Retain
        } else {
            return Some(grant.rule);
        };
        self.refusal = Some(Refusal {
            why,
            nearest: Some(grant.rule),
        });
        None
    }

    fn verdict(self, found: Option<RuleIndex>) -> Verdict {
        match (found, self.refusal) {
            (Some(rule), _) => Verdict::Allow(rule),
            (None, Some(refusal)) => Verdict::Refuse(refusal),
            (None, None) => Verdict::Refuse(Refusal {
                why: Why::Topic,
                nearest: None,
            }),
        }
    }
}

fn grant(index: RuleIndex, qos: NumberRange, retain: bool) -> Result<Grant, RulesError> {
    match (u8::try_from(qos.first), u8::try_from(qos.last)) {
        (Ok(qos_min), Ok(qos_max)) if qos_min <= qos_max && qos_max <= 2 => Ok(Grant {
            rule: index,
            qos_min,
            qos_max,
            retain,
        }),
        _ => Err(RulesError::Range {
            index,
            field: "qos",
            first: qos.first,
            last: qos.last,
        }),
    }
}

fn listed(index: RuleIndex, topics: &[String]) -> Result<&[String], RulesError> {
    if topics.is_empty() {
        return Err(RulesError::EmptyList {
            index,
            field: "topics",
        });
    }
    Ok(topics)
}

fn parsed(index: RuleIndex, filter: &str) -> Result<Subscription<'_>, RulesError> {
    Subscription::parse(filter).map_err(|_| bad_filter(index, filter))
}

fn bad_filter(index: RuleIndex, filter: &str) -> RulesError {
    RulesError::Filter {
        index,
        filter: filter.to_owned(),
    }
}

fn text(operation: &MqttOperation) -> String {
    let qos_text = |qos: &NumberRange| super::ranges_text(std::slice::from_ref(qos));
    match operation {
        MqttOperation::Publish { topics, qos, retain } => format!(
            "publish {}, QoS {}{}",
            topics.join(" "),
            qos_text(qos),
            if *retain { ", retained too" } else { "" }
        ),
        MqttOperation::Subscribe { topics, qos } => {
            format!("subscribe {}, QoS {}", topics.join(" "), qos_text(qos))
        }
        MqttOperation::Connect { client_ids, users } => {
            let mut text = "connect".to_owned();
            if let Some(client_ids) = client_ids {
                text.push_str(&format!(" as {}", client_ids.join(" ")));
            }
            if let Some(users) = users {
                text.push_str(&format!(" with user {}", users.join(" ")));
            }
            text
        }
    }
}
