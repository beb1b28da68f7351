//! What an MQTT packet does: as its session is judged by it, and in the field's words.

use std::borrow::Cow;
use std::fmt;

pub(super) use penstock_policy::protocol::mqtt::MQTT;
use penstock_policy::terms::NumberRange;

use crate::operation::{self, Fact, NamedFact};

// What a document can limit an operation by, and so the names of its facts.

/// Topic, or topic filter as sent.
pub(super) const TOPICS: &str = "topics";
/// Quality of service, 0–2.
pub(super) const QOS: &str = "qos";
/// Retained.
pub(super) const RETAIN: &str = "retain";
/// Client identifier; empty if the broker is to choose.
pub(super) const CLIENT_IDS: &str = "client_ids";
/// User name.
pub(super) const USERS: &str = "users";

/// One operation of a client on its broker, or a delivery by the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation<'a> {
    /// The connection is opened.
    Connect {
        /// Client identifier; empty if the broker is to choose.
        client_id: Cow<'a, str>,
        /// User name.
        user: Option<Cow<'a, str>>,
    },
    /// A message is left with the broker, to be published should the client vanish.
    Will {
        /// Topic.
        topic: Cow<'a, str>,
        /// Quality of service, 0–2.
        qos: u8,
        /// Retained.
        retain: bool,
    },
    /// A message is published.
    Publish {
        /// Topic, also where only its alias was sent.
        topic: Cow<'a, str>,
        /// Quality of service, 0–2.
        qos: u8,
        /// Retained.
        retain: bool,
    },
    /// Messages are asked for.
    Subscribe {
        /// Topic filter as sent, `$share/…` included.
        filter: Cow<'a, str>,
        /// Greatest quality of service wanted, 0–2.
        qos: u8,
    },
    /// Messages are no longer asked for.
    Unsubscribe {
        /// Topic filter as sent.
        filter: Cow<'a, str>,
    },
    /// The broker delivers a message to the client.
    Deliver {
        /// Topic.
        topic: Cow<'a, str>,
        /// Quality of service, 0–2.
        qos: u8,
        /// It was retained.
        retain: bool,
    },
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

impl Operation<'_> {
    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Operation<'static> {
        match self {
            Self::Connect { client_id, user } => Operation::Connect {
                client_id: owned(client_id),
                user: user.map(owned),
            },
            Self::Will { topic, qos, retain } => Operation::Will {
                topic: owned(topic),
                qos,
                retain,
            },
            Self::Publish { topic, qos, retain } => Operation::Publish {
                topic: owned(topic),
                qos,
                retain,
            },
            Self::Subscribe { filter, qos } => Operation::Subscribe {
                filter: owned(filter),
                qos,
            },
            Self::Unsubscribe { filter } => Operation::Unsubscribe {
                filter: owned(filter),
            },
            Self::Deliver { topic, qos, retain } => Operation::Deliver {
                topic: owned(topic),
                qos,
                retain,
            },
        }
    }
}

/// As it is reported.
impl<'a> From<Operation<'a>> for operation::Operation<'a> {
    fn from(operation: Operation<'a>) -> Self {
        let of = |name, [first, second, third]: [Option<NamedFact<'a>>; 3]| {
            Self::new(MQTT, name, [first, second, third])
        };
        let message = |topic, qos, retain| {
            let retain = (RETAIN, Fact::Flag(retain));
            [
                Some((TOPICS, Fact::Text(topic))),
                Some(quality(qos)),
                Some(retain),
            ]
        };
        match operation {
            Operation::Connect { client_id, user } => {
                let user = user.map(|user| (USERS, Fact::Text(user)));
                of("connect", [Some((CLIENT_IDS, Fact::Text(client_id))), user, None])
            }
            Operation::Will { topic, qos, retain } => of("will", message(topic, qos, retain)),
            Operation::Publish { topic, qos, retain } => of("publish", message(topic, qos, retain)),
            Operation::Deliver { topic, qos, retain } => of("deliver", message(topic, qos, retain)),
            Operation::Subscribe { filter, qos } => {
                let filter = (TOPICS, Fact::Text(filter));
                of("subscribe", [Some(filter), Some(quality(qos)), None])
            }
            Operation::Unsubscribe { filter } => {
                of("unsubscribe", [Some((TOPICS, Fact::Text(filter))), None, None])
            }
        }
    }
}

fn quality<'a>(qos: u8) -> NamedFact<'a> {
    let range = NumberRange {
        first: qos.into(),
        last: qos.into(),
    };
    (QOS, Fact::Numbers(range))
}

/// "publish works/filters/3/pressure at QoS 1, retained".
pub(super) fn show(operation: &operation::Operation<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(operation.name)?;
    if let Some(topic) = operation.text(TOPICS) {
        write!(f, " {}", topic.escape_debug())?;
    }
    if let Some(client_id) = operation.text(CLIENT_IDS) {
        write!(f, " as {}", quoted(client_id))?;
    }
    if let Some(user) = operation.text(USERS) {
        write!(f, " with user {}", quoted(user))?;
    }
    if let Some(qos) = operation.numbers(QOS) {
        write!(f, " at QoS {qos}")?;
    }
    if operation.is(RETAIN) {
        f.write_str(", retained")?;
    }
    Ok(())
}

/// A name, in quotes where blanks would let it be taken for more words than one.
fn quoted(name: &str) -> String {
    match name.contains(char::is_whitespace) {
        true => format!("\"{}\"", name.escape_debug()),
        false => name.escape_debug().to_string(),
    }
}
