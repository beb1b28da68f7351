//! MQTT rules: what may be published and subscribed, by topic; who may connect.
//!
//! - A flow without a `connect` rule lets any client identifier and user connect; with one, only those.
//! - Where flows share a connection, a client may do what any flow permits that lets it connect: no flow takes away
//!   what another permits, and none gives to clients that it does not let connect. Who connects is judged once and
//!   kept as an [`Admission`].
//! - A will is judged like a publication to its topic.
//! - A shared subscription takes messages away from the others of its group. So it needs a rule that is
//!   written `$share/NAME/FILTER` (`$share/+/FILTER` for any group); a plain filter does not permit it.
//! - A delivery by the broker is judged by the same rules as the subscription that it answers, so that one from
//!   an earlier session or an earlier policy does not outlive it.
//! - To end a subscription is always permitted.

use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::NumberRange;

use crate::judge::trie::{Grant, Trie};
use crate::judge::{Judge, Objection, Refusal, RuleIndex, RulesError, Verdict};
use crate::mqtt::objection;
use crate::mqtt::operation::{Operation, TOPICS};
use crate::mqtt::topic::Subscription;
use crate::operation::Operation as AnyOperation;

/// The group of the lists that let any client connect.
const ANY_CLIENT: usize = 0;

/// Compiled MQTT rules of the flows that share a connection.
#[derive(Debug)]
pub struct MqttRules {
    publish: Trie,
    /// The groups of rules that permit to publish at QoS 2.
    releasing: Vec<usize>,
    subscribe: Trie,
    /// Filters of shared subscriptions by share name; `+` for any.
    shared: Vec<(String, Trie)>,
    /// Plain and shared filters together: what may be delivered.
    deliver: Trie,
    /// Whether there are lists that let any client connect; they are group [`ANY_CLIENT`].
    any_client: bool,
    /// One more than the lists that limit who may connect; each of those is a group of its own.
    groups: usize,
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
    group: usize,
    client_ids: Option<Vec<String>>,
    users: Option<Vec<String>>,
}

impl Connect {
    fn fits_client(&self, client_id: &str) -> bool {
        listed_or_any(self.client_ids.as_deref(), Some(client_id))
    }

    fn fits(&self, client_id: &str, user: Option<&str>) -> bool {
        self.fits_client(client_id) && listed_or_any(self.users.as_deref(), user)
    }
}

/// Whether not every client may connect: there are `connect` rules, and each of them names whom.
fn limits_clients(list: &[MqttOperation]) -> bool {
    let mut connects = list
        .iter()
        .filter_map(|operation| match operation {
            MqttOperation::Connect { client_ids, users } => Some(client_ids.is_some() || users.is_some()),
            _ => None,
        })
        .peekable();
    connects.peek().is_some() && connects.all(|names| names)
}

fn listed_or_any(list: Option<&[String]>, name: Option<&str>) -> bool {
    list.is_none_or(|list| name.is_some_and(|name| list.iter().any(|listed| listed == name)))
}

/// Which groups of rules hold for a client: those of the lists that let it connect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admission {
    all: bool,
    groups: Vec<bool>,
}

impl Admission {
    fn holds(&self, grant: &Grant) -> bool {
        self.all || self.groups.get(grant.group).copied().unwrap_or(false)
    }
}

impl MqttRules {
    /// Compiles a flow's list.
    ///
    /// # Errors
    /// The list is empty, or an entry is not understood.
    pub fn compile(list: &[MqttOperation]) -> Result<Self, RulesError> {
        Self::union(&[list])
    }

    /// Compiles the lists of flows that share a connection. Rules are numbered through.
    pub(crate) fn union(lists: &[&[MqttOperation]]) -> Result<Self, RulesError> {
        let mut rules = Self {
            any_client: false,
            ..Self::nothing()
        };
        for list in lists.iter().filter(|list| !list.is_empty()) {
            let group = if limits_clients(list) {
                rules.groups += 1;
                rules.groups - 1
            } else {
                rules.any_client = true;
                ANY_CLIENT
            };
            for operation in *list {
                rules.add(rules.texts.len(), group, operation)?;
                rules.texts.push(text(operation));
            }
        }
        if rules.texts.is_empty() {
            return Err(RulesError::Empty);
        }
        Ok(rules)
    }

    /// Permits nothing but to connect.
    pub(crate) fn nothing() -> Self {
        Self {
            publish: Trie::default(),
            releasing: Vec::new(),
            subscribe: Trie::default(),
            shared: Vec::new(),
            deliver: Trie::default(),
            any_client: true,
            groups: ANY_CLIENT + 1,
            connect: Vec::new(),
            filters: Vec::new(),
            texts: Vec::new(),
        }
    }

    fn add(&mut self, index: RuleIndex, group: usize, operation: &MqttOperation) -> Result<(), RulesError> {
        match operation {
            MqttOperation::Publish { topics, qos, retain } => {
                let grant = grant(index, group, *qos, *retain)?;
                if grant.qos_max == 2 {
                    self.releasing.push(group);
                }
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
                let grant = grant(index, group, *qos, true)?;
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
                    group,
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

    /// Which rules hold for a client that connects so.
    pub fn admit(&self, client_id: &str, user: Option<&str>) -> Admission {
        let mut admission = self.admit_unknown();
        for rule in self.connect.iter().filter(|rule| rule.fits(client_id, user)) {
            if let Some(holds) = admission.groups.get_mut(rule.group) {
                *holds = true;
            }
        }
        admission
    }

    /// Which rules hold whoever the client is.
    pub fn admit_unknown(&self) -> Admission {
        let mut groups = vec![false; self.groups];
        if let Some(holds) = groups.get_mut(ANY_CLIENT) {
            *holds = self.any_client;
        }
        Admission { all: false, groups }
    }

    /// Every rule, as if for a client that all lists let connect.
    pub fn admit_all() -> Admission {
        Admission {
            all: true,
            groups: Vec::new(),
        }
    }

    /// Whether a client may publish anything at QoS 2.
    pub(crate) fn may_release(&self, client: &Admission) -> bool {
        let held = |group: &usize| client.all || client.groups.get(*group).copied().unwrap_or(false);
        self.releasing.iter().any(held)
    }

    /// Judges one operation where it is not asked whose it is: some client may do what is allowed.
    pub fn judge(&self, operation: &Operation<'_>) -> Verdict {
        self.judge_for(&Self::admit_all(), operation)
    }

    /// Judges one operation of a client.
    pub fn judge_for(&self, client: &Admission, operation: &Operation<'_>) -> Verdict {
        let mut closest = Closest::new(client);
        match operation {
            Operation::Connect { client_id, user } => self.connect(client_id, user.as_deref()),
            Operation::Publish { topic, qos, retain } | Operation::Will { topic, qos, retain } => {
                let found = self
                    .publish
                    .matching(topic, &mut |grant| closest.take(grant, *qos, *retain));
                closest.verdict(found)
            }
            Operation::Subscribe { filter, qos } => self.subscribe(client, filter, *qos),
            Operation::Unsubscribe { .. } => Verdict::Upkeep,
            Operation::Deliver { topic, .. } => {
                let found = self.deliver.matching(topic, &mut |grant| closest.admit(grant));
                closest.verdict(found)
            }
        }
    }

    fn connect(&self, client_id: &str, user: Option<&str>) -> Verdict {
        if let Some(rule) = self.connect.iter().find(|rule| rule.fits(client_id, user)) {
            return Verdict::Allow(rule.rule);
        }
        if self.any_client {
            return Verdict::Upkeep;
        }
        let nearest = self.connect.iter().rfind(|rule| rule.fits_client(client_id));
        Verdict::Refuse(Refusal {
            why: objection::IDENTITY,
            nearest: nearest.or(self.connect.first()).map(|rule| rule.rule),
        })
    }

    fn subscribe(&self, client: &Admission, filter: &str, qos: u8) -> Verdict {
        let mut closest = Closest::new(client);
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
    fn nearest_to(&self, operation: &AnyOperation<'_>) -> Option<RuleIndex> {
        let side = match operation.name {
            "publish" | "will" => Side::Publish,
            "subscribe" | "deliver" => Side::Subscribe,
            _ => return None,
        };
        let topic = operation.text(TOPICS)?;
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

impl Judge for MqttRules {
    fn texts(&self) -> &[String] {
        &self.texts
    }

    fn nearest(&self, operation: &AnyOperation<'_>) -> Option<RuleIndex> {
        self.nearest_to(operation)
    }
}

/// The grant that came closest, while none was found.
#[derive(Debug)]
struct Closest<'c> {
    client: &'c Admission,
    refusal: Option<Refusal>,
}

impl<'c> Closest<'c> {
    fn new(client: &'c Admission) -> Self {
        Self {
            client,
            refusal: None,
        }
    }

    fn take(&mut self, grant: &Grant, qos: u8, retain: bool) -> Option<RuleIndex> {
        let why = if qos < grant.qos_min || qos > grant.qos_max {
            objection::QOS
        } else if retain && !grant.retain {
            objection::RETAIN
        } else {
            return self.admit(grant);
        };
        self.refuse(why, grant)
    }

    /// The grant fits; does it hold for this client?
    fn admit(&mut self, grant: &Grant) -> Option<RuleIndex> {
        if self.client.holds(grant) {
            return Some(grant.rule);
        }
        self.refuse(objection::IDENTITY, grant)
    }

    fn refuse(&mut self, why: Objection, grant: &Grant) -> Option<RuleIndex> {
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
                why: objection::TOPIC,
                nearest: None,
            }),
        }
    }
}

fn grant(index: RuleIndex, group: usize, qos: NumberRange, retain: bool) -> Result<Grant, RulesError> {
    match (u8::try_from(qos.first), u8::try_from(qos.last)) {
        (Ok(qos_min), Ok(qos_max)) if qos_min <= qos_max && qos_max <= 2 => Ok(Grant {
            rule: index,
            group,
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
    RulesError::Word {
        index,
        word: filter.to_owned(),
        kind: "a topic filter",
    }
}

fn text(operation: &MqttOperation) -> String {
    let qos_text = |qos: &NumberRange| crate::judge::ranges_text(std::slice::from_ref(qos));
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
