//! What an MQTT packet does, in the field's words.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

/// One operation of a client on its broker, or a delivery by the broker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
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

/// "publish works/filters/3/pressure at QoS 1, retained".
impl fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = |f: &mut fmt::Formatter<'_>, verb: &str, topic: &str, qos: u8, retain: bool| {
            let retained = if retain { ", retained" } else { "" };
            write!(f, "{verb} {} at QoS {qos}{retained}", topic.escape_debug())
        };
        match self {
            Self::Connect { client_id, user } => {
                // In quotes where blanks would let it be taken for more words than one.
                let name = |text: &str| match text.contains(char::is_whitespace) {
                    true => format!("\"{}\"", text.escape_debug()),
                    false => text.escape_debug().to_string(),
                };
                write!(f, "connect as {}", name(client_id))?;
                match user {
                    Some(user) => write!(f, " with user {}", name(user)),
                    None => Ok(()),
                }
            }
            Self::Will { topic, qos, retain } => message(f, "will", topic, *qos, *retain),
            Self::Publish { topic, qos, retain } => message(f, "publish", topic, *qos, *retain),
            Self::Deliver { topic, qos, retain } => message(f, "deliver", topic, *qos, *retain),
            Self::Subscribe { filter, qos } => {
                write!(f, "subscribe {} at QoS {qos}", filter.escape_debug())
            }
            Self::Unsubscribe { filter } => write!(f, "unsubscribe {}", filter.escape_debug()),
        }
    }
}
