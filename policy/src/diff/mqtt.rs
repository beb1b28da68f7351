//! What one MQTT operation permits that another does not.
//!
//! A list is seen as its single grants: one topic filter with its quality of service. A list that says nothing of who
//! may connect lets everyone connect, so that it is seen with such a grant: to take the last `connect` away widens.

use crate::protocol::mqtt::{MqttOperation, filter_covers};
use crate::terms::NumberRange;

/// One thing that a list permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Grant {
    Publish {
        topic: String,
        qos: NumberRange,
        retain: bool,
    },
    Subscribe {
        topic: String,
        qos: NumberRange,
    },
    Connect {
        clients: Option<Vec<String>>,
        users: Option<Vec<String>>,
    },
}

/// All grants of a list.
pub(super) fn grants(list: &[MqttOperation]) -> Vec<Grant> {
    let mut grants = Vec::new();
    for operation in list {
        match operation {
            MqttOperation::Publish { topics, qos, retain } => {
                grants.extend(topics.iter().map(|topic| Grant::Publish {
                    topic: topic.clone(),
                    qos: *qos,
                    retain: *retain,
                }));
            }
            MqttOperation::Subscribe { topics, qos } => {
                grants.extend(topics.iter().map(|topic| Grant::Subscribe {
                    topic: topic.clone(),
                    qos: *qos,
                }));
            }
            MqttOperation::Connect { client_ids, users } => grants.push(Grant::Connect {
                clients: client_ids.clone(),
                users: users.clone(),
            }),
        }
    }
    if !grants.iter().any(|grant| matches!(grant, Grant::Connect { .. })) {
        grants.push(Grant::Connect {
            clients: None,
            users: None,
        });
    }
    grants
}

impl Grant {
    /// Whether all that `inner` permits is permitted here.
    pub(super) fn covers(&self, inner: &Self) -> bool {
        let within =
            |outer: &NumberRange, inner: &NumberRange| outer.first <= inner.first && inner.last <= outer.last;
        let among = |outer: &Option<Vec<String>>, inner: &Option<Vec<String>>| match (outer, inner) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(outer), Some(inner)) => inner.iter().all(|name| outer.contains(name)),
        };
        match (self, inner) {
            (
                Self::Publish { topic, qos, retain },
                Self::Publish {
                    topic: inner_topic,
                    qos: inner_qos,
                    retain: inner_retain,
                },
            ) => filter_covers(topic, inner_topic) && within(qos, inner_qos) && (*retain || !inner_retain),
            (
                Self::Subscribe { topic, qos },
                Self::Subscribe {
                    topic: inner_topic,
                    qos: inner_qos,
                },
            ) => subscription_covers(topic, inner_topic) && within(qos, inner_qos),
            (
                Self::Connect { clients, users },
                Self::Connect {
                    clients: inner_clients,
                    users: inner_users,
                },
            ) => among(clients, inner_clients) && among(users, inner_users),
            _ => false,
        }
    }

    /// `line4/# may no longer be published`; of what `others` leave of it, `line4/# may no longer be published beyond line4/a`.
    pub(super) fn sentence(&self, may: &str, others: &[Self]) -> String {
        let inner = |found: fn(&Self) -> Option<&str>| {
            let parts: Vec<&str> = others
                .iter()
                .filter(|other| self.covers(other))
                .filter_map(found)
                .collect();
            if parts.is_empty() {
                String::new()
            } else {
                format!(" beyond {}", parts.join(", "))
            }
        };
        match self {
            Self::Publish { topic, qos, retain } => {
                let retained = if *retain { ", retained too," } else { "" };
                let beyond = inner(|other| match other {
                    Self::Publish { topic, .. } => Some(topic),
                    Self::Subscribe { .. } | Self::Connect { .. } => None,
                });
                format!("{topic} {may} be published at QoS {qos}{retained}{beyond}")
            }
            Self::Subscribe { topic, qos } => {
                let beyond = inner(|other| match other {
                    Self::Subscribe { topic, .. } => Some(topic),
                    Self::Publish { .. } | Self::Connect { .. } => None,
                });
                format!("{topic} {may} be subscribed to at QoS {qos}{beyond}")
            }
            Self::Connect { clients, users } => {
                let names = |what: &str, names: &Option<Vec<String>>| {
                    names
                        .as_ref()
                        .map(|names| format!("{what} {}", names.join(" or ")))
                };
                let who: Vec<String> = [names("client", clients), names("user", users)]
                    .into_iter()
                    .flatten()
                    .collect();
                if who.is_empty() {
                    format!("any client {may} connect")
                } else {
                    format!("{} {may} connect", who.join(" with "))
                }
            }
        }
    }
}

/// Whether a subscription to `inner` is one that `outer` permits: both shared under a fitting name, or neither.
fn subscription_covers(outer: &str, inner: &str) -> bool {
    match (shared(outer), shared(inner)) {
        (None, None) => filter_covers(outer, inner),
        (Some((name, outer)), Some((inner_name, inner))) => {
            (name == "+" || name == inner_name) && filter_covers(outer, inner)
        }
        _ => false,
    }
}

/// The group and the filter of a shared subscription (MQTT 5, section 4.8.2).
fn shared(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix("$share/")?.split_once('/')
}
