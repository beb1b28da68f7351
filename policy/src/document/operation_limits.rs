//! The records below an operation's name: which limits can be written, by protocol.

use serde_json::{Value, json};

use super::node::{Kind, Node};
use super::numbers::{Addresses, Numbers};
use super::read::{At, OneOrMany, Term, record, scalar};
use super::scalars::Text;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};

record! {
    /// The limits of a Modbus operation.
    ModbusLimits "a Modbus operation" {
        /// Unit identifiers, 0–255, or `any`.
        optional units: Numbers<255>,
        /// Data addresses (file records: file numbers), 0–65535, or `any`. They count from 0, as on the wire: what manuals
        /// number 40001, 30001 or 10001 has address 0.
        optional addresses: Addresses,
        /// Data addresses that may be read by what also writes, from 0 as on the wire; default: the same as `addresses`.
        optional read_addresses: Addresses,
        /// Values that may be written, 0–65535 (coils: 0 and 1), or `any`.
        optional values: Numbers<65535>,
        /// Sub-functions, 0–65535, or `any`.
        optional sub_functions: Numbers<65535>,
    }
}

record! {
    /// The limits of publishing by MQTT.
    PublishLimits "the MQTT operation `publish`" {
        /// Topic filters that cover what may be published, one or a list, or `any`.
        optional topics: Topics,
        /// Quality of service, 0–2; default: any.
        optional qos: Numbers<2>,
        /// Whether messages may be retained; default: no.
        optional retain: bool,
    }
}

record! {
    /// The limits of subscribing by MQTT.
    SubscribeLimits "the MQTT operation `subscribe`" {
        /// Topic filters that cover what may be subscribed to, one or a list, or `any`.
        optional topics: Topics,
        /// Quality of service, 0–2; default: any.
        optional qos: Numbers<2>,
    }
}

record! {
    /// The limits of connecting by MQTT.
    ConnectLimits "the MQTT operation `connect`" {
        /// Client identifiers, one or a list.
        optional client_ids: OneOrMany<Text>,
        /// User names, one or a list.
        optional users: OneOrMany<Text>,
    }
}

/// MQTT topic filters, or the word `any`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Topics(pub(crate) Vec<At<String>>);

impl Term for Topics {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        if matches!(&node.kind, Kind::Scalar { text, .. } if text == "any") {
            return Some(Self(vec![At {
                value: "#".to_owned(),
                place: node.place,
            }]));
        }
        let filters = OneOrMany::<TopicFilter>::read(node, faults)?;
        let places = filters.0.into_iter().map(|at| At {
            value: at.value.0,
            place: at.place,
        });
        Some(Self(places.collect()))
    }

    fn schema() -> Value {
        OneOrMany::<TopicFilter>::schema()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct TopicFilter(String);

impl Term for TopicFilter {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "a topic filter", faults)?;
        // MQTT 5, section 4.7.1: `#` only alone in the last level, `+` only alone in its level.
        let levels: Vec<&str> = text.split('/').collect();
        let good = !text.is_empty()
            && levels.iter().enumerate().all(|(n, level)| {
                (!level.contains('#') || (*level == "#" && n + 1 == levels.len()))
                    && (!level.contains('+') || *level == "+")
            });
        if good {
            return Some(Self(text.to_owned()));
        }
        faults.add(
            Fault::new(
                Code::NotATopicFilter,
                node.place,
                format!("{} is not a topic filter", node.describe()),
            )
            .label("`+` stands alone between slashes, `#` alone and last"),
        );
        None
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^(([^+#/]*|\\+)/)*([^+#/]*|\\+|#)$", "minLength": 1 })
    }
}
