//! Parameters of a template: what each is, and what a station gives for it.
//!
//! A parameter has a kind, so that a slip in a line of stations is a fault in that line, and not one in the middle of a template.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::node::{Kind as Written, Node};
use crate::document::read::{Field, Term, record, scalar, words};
use crate::document::scalars::{Number, Text};

/// What a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Number,
    Address,
    Network,
    Text,
}

words!(Kind, "`number`, `address`, `network` or `text`", {
    "number" => Kind::Number,
    "address" => Kind::Address,
    "network" => Kind::Network,
    "text" => Kind::Text,
});

impl Kind {
    pub(super) fn with_article(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Address => "an address",
            Self::Network => "a network",
            Self::Text => "text",
        }
    }
}

/// What a station gives for a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(u32),
    Address(IpAddr),
    Network(IpNet),
    Text(String),
}

impl Value {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Number(_) => Kind::Number,
            Self::Address(_) => Kind::Address,
            Self::Network(_) => Kind::Network,
            Self::Text(_) => Kind::Text,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Network(net) => net.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A value, and whether it was written without quotes.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) value: Value,
    pub(super) plain: bool,
}

impl Given {
    /// Reads what is given for a parameter of that kind.
    pub(super) fn read(kind: Kind, node: &Node, faults: &mut Faults) -> Option<Self> {
        let value = match kind {
            Kind::Number => {
                Number::<0, { u32::MAX }>::read(node, faults).map(|number| Value::Number(number.0))
            }
            Kind::Address => IpAddr::read(node, faults).map(Value::Address),
            Kind::Network => IpNet::read(node, faults).map(Value::Network),
            Kind::Text => text(node, faults).map(Value::Text),
        }?;
        let plain = matches!(node.kind, Written::Scalar { plain: true, .. });
        Some(Self { value, plain })
    }
}

/// Text that is not empty. Whether other readers take it for something else is seen where it is filled in.
fn text(node: &Node, faults: &mut Faults) -> Option<String> {
    let text = scalar(node, "text", faults)?;
    if text.trim().is_empty() {
        faults.add(
            Fault::new(Code::EmptyValue, node.place, "the text is empty").help("write it, or remove the key"),
        );
        return None;
    }
    Some(text.to_owned())
}

/// The longest name of a parameter.
const NAME_LENGTH_MAX: usize = 32;
/// Names that would hide something else.
const RESERVED: [&str; 2] = [super::TEMPLATE, super::STATION];

/// Whether a text can name a parameter: `net`, `uplink_address`.
pub(super) fn is_name(text: &str) -> bool {
    (1..=NAME_LENGTH_MAX).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
}

/// Why a parameter cannot have this name, if it cannot.
pub(super) fn bad_name(text: &str) -> Option<String> {
    if RESERVED.contains(&text) {
        return Some(format!(
            "no parameter is called `{text}`: `$(station)` is the station's name, and `template` says from what it is made"
        ));
    }
    (!is_name(text)).then(|| {
        format!(
            "`{}` is not the name of a parameter: use a-z, 0-9, `_` and `-`, at most {NAME_LENGTH_MAX}, beginning with a letter",
            super::super::node::excerpt(text)
        )
    })
}

record! {
    /// A parameter with a default.
    Declared "a parameter" {
        /// What it is: `number`, `address`, `network` or `text`.
        required kind: Kind,
        /// What it is for, for people.
        optional title: Text,
        /// What holds for a station that does not give it.
        optional default: Anything,
    }
}

/// One value, read once its kind is known.
#[derive(Debug, Clone)]
pub(crate) struct Anything(pub(crate) Node);

impl Term for Anything {
    fn read(node: &Node, _: &mut Faults) -> Option<Self> {
        Some(Self(node.clone()))
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "anyOf": [{ "type": "string" }, { "type": "integer" }] })
    }
}

/// A parameter of a template.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) kind: Kind,
    pub(super) default: Option<Given>,
    pub(super) place: Place,
}

impl Parameter {
    /// Reads `net: network` or `unit: { kind: number, default: 1 }`.
    pub(super) fn read(node: &Node, place: Place, faults: &mut Faults) -> Option<Self> {
        if !matches!(node.kind, Written::Mapping(_)) {
            let kind = Kind::read(node, faults)?;
            return Some(Self {
                kind,
                default: None,
                place,
            });
        }
        let declared = Declared::read(node, faults)?;
        let kind = *declared.kind.value()?;
        if matches!(declared.title, Field::Faulty) {
            return None;
        }
        let default = match declared.default.value() {
            None => None,
            Some(Anything(node)) => Some(Given::read(kind, node, faults)?),
        };
        Some(Self { kind, default, place })
    }

    pub(super) fn schema() -> serde_json::Value {
        serde_json::json!({ "anyOf": [Kind::schema(), Declared::schema()] })
    }
}
