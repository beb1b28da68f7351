//! Closed lists of words, security levels, and public keys: what the standard or the model gives names to.

use serde_json::{Value, json};

use super::node::{Kind, Node};
use super::read::{Field, Term, record, scalar, words};
use super::scalars::Number;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::model::{Consequence, PublicKey, SlVector, ZoneKind};
use crate::terms::{Answers, Assurance, Enforcement, GatewayMode, OnAgentLoss, OnDrift, OnRefusal};

impl Term for PublicKey {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "a public key", faults)?;
        match Self::try_from(text.to_owned()) {
            Ok(key) => Some(key),
            Err(error) => {
                faults.add(
                    Fault::new(Code::NotAKey, node.place, error.to_string()).help(
                        "`penstock key new` makes a key and prints its public half, `penstock key show` prints that of any other",
                    ),
                );
                None
            }
        }
    }

    fn schema() -> Value {
        let penstock = "ed25519:[0-9a-fA-F]{64}";
        let ssh =
            "(ssh-ed25519|(verify-required +)?sk-ssh-ed25519@openssh\\.com) +[A-Za-z0-9+/]+={0,2}( .*)?";
        json!({ "type": "string", "pattern": format!("^({penstock}|{ssh})$") })
    }
}

words!(GatewayMode, "`routed` or `bridged`", {
    "routed" => GatewayMode::Routed,
    "bridged" => GatewayMode::Bridged,
});
words!(OnDrift, "`repair` or `report`", {
    "repair" => OnDrift::Repair,
    "report" => OnDrift::Report,
});
words!(ZoneKind, "a kind of zone", {
    "enterprise" => ZoneKind::Enterprise,
    "dmz" => ZoneKind::Dmz,
    "operations" => ZoneKind::Operations,
    "control" => ZoneKind::Control,
    "safety" => ZoneKind::Safety,
    "wireless" => ZoneKind::Wireless,
    "remote-access" => ZoneKind::RemoteAccess,
    "transient" => ZoneKind::Transient,
    "external" => ZoneKind::External,
});
words!(Consequence, "a class of consequence", {
    "none" => Consequence::None,
    "business" => Consequence::Business,
    "production" => Consequence::Production,
    "environment" => Consequence::Environment,
    "safety" => Consequence::Safety,
});
words!(Enforcement, "`observe` or `enforce`", {
    "observe" => Enforcement::Observe,
    "enforce" => Enforcement::Enforce,
});
words!(OnAgentLoss, "`block` or `pass`", {
    "block" => OnAgentLoss::Block,
    "pass" => OnAgentLoss::Pass,
});
words!(OnRefusal, "`answer`, `acknowledge`, `disconnect`, `reset` or `drop`", {
    "answer" => OnRefusal::Answer,
    "acknowledge" => OnRefusal::Acknowledge,
    "disconnect" => OnRefusal::Disconnect,
    "reset" => OnRefusal::Reset,
    "drop" => OnRefusal::Drop,
});
words!(Answers, "`strict` or `in-order`", {
    "strict" => Answers::Strict,
    "in-order" => Answers::InOrder,
});
words!(Assurance, "an assurance of identity, D0–D5", {
    "D0" => Assurance::D0,
    "D1" => Assurance::D1,
    "D2" => Assurance::D2,
    "D3" => Assurance::D3,
    "D4" => Assurance::D4,
    "D5" => Assurance::D5,
});

/// How much the plant depends on an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Criticality(pub(crate) &'static str);

words!(Criticality, "`low`, `medium`, `high` or `safety`", {
    "low" => Criticality("low"),
    "medium" => Criticality("medium"),
    "high" => Criticality("high"),
    "safety" => Criticality("safety"),
});

/// A security level, 0–4.
pub(crate) type Level = Number<0, 4>;

#[allow(non_snake_case)] // The standard's abbreviations are the keys of the document.
mod levels {
    use super::{Level, record};

    record! {
        /// A security level for each of the seven foundational requirements.
        Levels "a vector of security levels" {
            /// Identification and authentication control, 0–4.
            required IAC: Level,
            /// Use control, 0–4.
            required UC: Level,
            /// System integrity, 0–4.
            required SI: Level,
            /// Data confidentiality, 0–4.
            required DC: Level,
            /// Restricted data flow, 0–4.
            required RDF: Level,
            /// Timely response to events, 0–4.
            required TRE: Level,
            /// Resource availability, 0–4.
            required RA: Level,
        }
    }
}

/// One number for all seven foundational requirements, or a mapping with one for each.
impl Term for SlVector {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        if !matches!(node.kind, Kind::Mapping(_)) {
            let Number(level) = Level::read(node, faults)?;
            let n = u8::try_from(level).ok()?;
            return Some(Self {
                iac: n,
                uc: n,
                si: n,
                dc: n,
                rdf: n,
                tre: n,
                ra: n,
            });
        }
        let levels = levels::Levels::read(node, faults)?;
        let level = |field: &Field<Level>| field.value().and_then(|n| u8::try_from(n.0).ok());
        Some(Self {
            iac: level(&levels.IAC)?,
            uc: level(&levels.UC)?,
            si: level(&levels.SI)?,
            dc: level(&levels.DC)?,
            rdf: level(&levels.RDF)?,
            tre: level(&levels.TRE)?,
            ra: level(&levels.RA)?,
        })
    }

    fn schema() -> Value {
        json!({ "anyOf": [Level::schema(), levels::Levels::schema()] })
    }
}
