//! MQTT 3.1.1 and 5 (OASIS), and 3.1 before them.
//!
//! What a client may publish and subscribe to, by topic filter, and under which names it may connect. A gateway that is a bridge
//! between two brokers carries publications of this vocabulary.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::vocabulary::{
    Aspect, Member,
    Carried, Carrier, Effect, Kind, Limit, Operation, Patterns, Phrase, Placeholder, Refusals, Session, Spelling,
    Takes, Vocabulary,
};
use super::{LimitSet, Operations, Permitted, Protocol};
use crate::terms::{NumberRange, OnRefusal};

/// MQTT.
pub const MQTT: Protocol = Protocol(&VOCABULARY);

/// The greatest quality of service.
const QOS_MAX: u32 = 2;

pub(super) static VOCABULARY: Vocabulary = Vocabulary {
    word: "mqtt",
    name: "MQTT",
    services: &SERVICES,
    limits: &[&TOPICS, &QOS, &RETAIN, &CLIENT_IDS, &USERS],
    operations: &OPERATIONS,
    groups: &[],
    numbered: None,
    members,
    spelling: Spelling::Key,
    session: Some(Session {
        operation: "connect",
        names: "client_ids",
        anyone: "any client",
        risk: "lets its clients connect under any identifier, also under another client's, whose session the broker then hands \
               over",
        help: "list who may connect: `connect: { client_ids: [...] }`",
    }),
    refusals: Refusals {
        words: &[
            OnRefusal::Answer,
            OnRefusal::Acknowledge,
            OnRefusal::Disconnect,
            OnRefusal::Reset,
            OnRefusal::Drop,
        ],
        otherwise: "",
        help: "",
    },
    matches_answers: false,
    has_roles: false,
    example: "`allow: [{ publish: { topics: [\"works/#\"] } }]`",
    placeholder: Placeholder {
        entry: "subscribe: { topics: [\"put/its/topics/here\"], qos: 0 }",
        replace: "packet: put what it is for in place of the subscription",
    },
};

static SERVICES: [Carried; 4] = [
    Carried::plain("mqtt", Carrier::Tcp, 1883, "MQTT 3.1, 3.1.1 and 5"),
    Carried::plain("mqtts", Carrier::Tcp, 8883, "MQTT over TLS")
        .inside_tls(),
    Carried::plain(
        "mqtt-bridge",
        Carrier::Tcp,
        1883,
        "one-way bridge between two MQTT brokers",
    )
    .bridged(),
    Carried::plain(
        "mqtts-bridge",
        Carrier::Tcp,
        8883,
        "one-way bridge between two MQTT brokers, over TLS",
    )
    .inside_tls()
    .bridged(),
];

static TOPIC_FILTERS: Patterns = Patterns {
    noun: "a topic filter",
    any: "#",
    is: is_topic_filter,
    rule: "`+` stands alone between slashes, `#` alone and last",
    schema: "^(([^+#/]*|\\+)/)*([^+#/]*|\\+|#)$",
    examples: &[
        "works/line0/+",
        "works/line1/+",
        "works/line1/pressure",
        "works/#",
    ],
    covers: subscription_covers,
};

static TOPICS: Limit = Limit {
    name: "topics",
    kind: Kind::Patterns(&TOPIC_FILTERS),
    help: "Topic filters that cover what may be published or subscribed to, one or a list, or `any`.",
    phrase: Phrase::behind("", ", "),
};

static QOS: Limit = Limit {
    name: "qos",
    kind: Kind::Range {
        last: QOS_MAX,
        one: "the quality of service is one range",
        help: "write `0`, `0-1` or `0-2`",
    },
    help: "Quality of service, 0–2; default: any.",
    phrase: Phrase::bracketed("qos "),
};

static RETAIN: Limit = Limit {
    name: "retain",
    kind: Kind::Flag {
        yes: "may be retained",
        no: "not retained",
    },
    help: "Whether messages may be retained; default: no.",
    phrase: Phrase::bracketed(""),
};

static CLIENT_IDS: Limit = Limit {
    name: "client_ids",
    kind: Kind::Texts,
    help: "Client identifiers, one or a list.",
    phrase: Phrase::behind("as client ", " or "),
};

static USERS: Limit = Limit {
    name: "users",
    kind: Kind::Texts,
    help: "User names, one or a list.",
    phrase: Phrase::behind("as user ", " or "),
};

static PUBLISHED: Aspect = Aspect {
    done: "published",
    ..aspect("published", &[&TOPICS])
};
static SUBSCRIBED: Aspect = Aspect {
    done: "subscribed to",
    ..aspect("subscribed", &[&TOPICS])
};
static QUALITY: Aspect = Aspect {
    after: " at QoS ",
    ..aspect("qos", &[&QOS])
};
static RETAINED: Aspect = Aspect {
    after: ", retained too,",
    ..aspect("retained", &[&RETAIN])
};
static CLIENT: Aspect = Aspect {
    nouns: ["client ", "client "],
    ..aspect("client", &[&CLIENT_IDS])
};
static USER: Aspect = Aspect {
    nouns: ["user ", "user "],
    ..aspect("user", &[&USERS])
};

const fn aspect(id: &'static str, by: &'static [&'static Limit]) -> Aspect {
    Aspect {
        id,
        by,
        name: id,
        nouns: ["", ""],
        done: "",
        after: "",
        spans: false,
    }
}

/// Each name is an operation of its own.
fn members(name: &str) -> Vec<Member> {
    let known = (0..).zip(&OPERATIONS);
    let own = known.filter(|(_, operation)| operation.name == name);
    let member = own.map(|(code, operation)| Member {
        code,
        aspects: operation.limits.iter().map(|takes| takes.bounds).collect(),
        fixed: None,
    });
    member.collect()
}

/// What to write where no topic is named.
const WRITE_TOPICS: &str = "write `topics: [\"works/#\"]`, or `topics: any`";

static OPERATIONS: [Operation; 3] = [
    Operation {
        name: "publish",
        effect: Effect::Write,
        limits: &[Takes::required(&TOPICS, &PUBLISHED, WRITE_TOPICS), Takes::optional(&QOS, &QUALITY), Takes::optional(&RETAIN, &RETAINED)],
        help: "Publishes messages, and leaves a will.",
    },
    Operation {
        name: "subscribe",
        effect: Effect::Read,
        limits: &[Takes::required(&TOPICS, &SUBSCRIBED, WRITE_TOPICS), Takes::optional(&QOS, &QUALITY)],
        help: "Subscribes to messages, and receives them.",
    },
    Operation {
        name: "connect",
        effect: Effect::Session,
        limits: &[Takes::optional(&CLIENT_IDS, &CLIENT), Takes::optional(&USERS, &USER)],
        help: "Connects; where no entry names it, any client may.",
    },
];

/// Whether `text` is a topic filter (MQTT 5, section 4.7.1): `#` only alone in the last level, `+` only alone in its level.
fn is_topic_filter(text: &str) -> bool {
    let levels: Vec<&str> = text.split('/').collect();
    !text.is_empty()
        && levels.iter().enumerate().all(|(n, level)| {
            (!level.contains('#') || (*level == "#" && n + 1 == levels.len()))
                && (!level.contains('+') || *level == "+")
        })
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

/// Whether every topic that `inner` matches is matched by `outer` (MQTT 5, section 4.7).
pub(crate) fn filter_covers(outer: &str, inner: &str) -> bool {
    let wild = |level: &str| matches!(level, "#" | "+");
    // Every topic has a first level, which `+` matches too.
    if inner == "#" {
        return matches!(outer, "#" | "+/#");
    }
    // A wildcard in the first level matches no topic that begins with `$`.
    if outer.split('/').next().is_some_and(wild) && inner.starts_with('$') {
        return false;
    }
    let mut inner_levels = inner.split('/');
    for level in outer.split('/') {
        if level == "#" {
            // It also matches the level above, so that `inner` may have ended there.
            return true;
        }
        match inner_levels.next() {
            None | Some("#") => return false,
            Some(inner_level) if level == "+" || level == inner_level => {}
            Some(_) => return false,
        }
    }
    inner_levels.next().is_none()
}

/// A permitted MQTT operation with its limits by name. So a bridge's publications stand in its plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum MqttOperation {
    /// Publish to topics that these filters cover.
    Publish {
        /// Topic filters (MQTT 5, section 4.7).
        topics: Vec<String>,
        /// Quality of service allowed, lowest and highest (0–2).
        qos: NumberRange,
        /// Whether retained messages are allowed.
        retain: bool,
    },
    /// Subscribe to filters that these filters cover.
    Subscribe {
        /// Topic filters.
        topics: Vec<String>,
        /// Quality of service allowed, lowest and highest (0–2).
        qos: NumberRange,
    },
    /// Connect only with these client identifiers or user names.
    Connect {
        /// Client identifiers; empty list cannot occur; `None`: not limited.
        client_ids: Option<Vec<String>>,
        /// User names.
        users: Option<Vec<String>>,
    },
}

impl MqttOperation {
    /// A permitted operation by this type; `None`: it is not one of MQTT.
    pub fn of(permitted: &Permitted) -> Option<Self> {
        let listed = |limit: &Limit| match permitted.limit(limit.name) {
            Some(LimitSet::Patterns(listed) | LimitSet::Texts(listed)) => Some(listed.clone()),
            _ => None,
        };
        let qos = || match permitted.limit(QOS.name) {
            Some(LimitSet::Range(range)) => Some(*range),
            _ => None,
        };
        match permitted.operation.as_str() {
            "publish" => Some(Self::Publish {
                topics: listed(&TOPICS)?,
                qos: qos()?,
                retain: permitted.limit(RETAIN.name) == Some(&LimitSet::Flag(true)),
            }),
            "subscribe" => Some(Self::Subscribe {
                topics: listed(&TOPICS)?,
                qos: qos()?,
            }),
            "connect" => Some(Self::Connect {
                client_ids: listed(&CLIENT_IDS),
                users: listed(&USERS),
            }),
            _ => None,
        }
    }

    /// A list by this type; `None`: one of them is not an operation of MQTT.
    pub fn list(operations: &Operations) -> Option<Vec<Self>> {
        let own = operations.protocol == MQTT;
        own.then(|| operations.permitted.iter().map(Self::of).collect())?
    }
}

impl From<MqttOperation> for Permitted {
    fn from(operation: MqttOperation) -> Self {
        let topics_and_qos = |topics, qos| {
            [
                (TOPICS.name, LimitSet::Patterns(topics)),
                (QOS.name, LimitSet::Range(qos)),
            ]
        };
        let (name, limits) = match operation {
            MqttOperation::Publish { topics, qos, retain } => {
                let retain = (RETAIN.name, LimitSet::Flag(retain));
                ("publish", topics_and_qos(topics, qos).into_iter().chain([retain]).collect())
            }
            MqttOperation::Subscribe { topics, qos } => {
                ("subscribe", topics_and_qos(topics, qos).into_iter().collect())
            }
            MqttOperation::Connect { client_ids, users } => {
                let named = [(&CLIENT_IDS, client_ids), (&USERS, users)];
                let limits = named
                    .into_iter()
                    .filter_map(|(limit, names)| Some((limit.name, LimitSet::Texts(names?))));
                ("connect", limits.collect())
            }
        };
        Self {
            operation: name.to_owned(),
            limits,
        }
    }
}

impl From<Vec<MqttOperation>> for Operations {
    fn from(operations: Vec<MqttOperation>) -> Self {
        Self::of(MQTT, operations)
    }
}

impl fmt::Display for MqttOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Permitted::from(self.clone()).phrase(&VOCABULARY))
    }
}
