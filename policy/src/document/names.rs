//! Names: of everything that the document defines, of labels, and of network interfaces.

use serde_json::{Value, json};

use super::node::{Node, excerpt};
use super::read::{Key, Term, scalar};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::ids::{
    ApproverId, AssetId, ConduitId, ControlId, FlowName, GatewayId, GrantId, PlantId, RoleName, SiteId,
    ZoneId, check_name,
};

/// The pattern of all names of `ids`.
const NAME_PATTERN: &str = "^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$";

macro_rules! names {
    ($($type:ty, $what:literal;)*) => {$(
        impl Term for $type {
            fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
                let text = scalar(node, $what, faults)?;
                match <$type>::new(text) {
                    Ok(name) => Some(name),
                    Err(error) => {
                        faults.add(
                            Fault::new(Code::BadName, node.place, error.to_string())
                                .label(concat!("expected: ", $what)),
                        );
                        None
                    }
                }
            }

            fn schema() -> Value {
                json!({ "type": "string", "pattern": NAME_PATTERN })
            }
        }

        impl Key for $type {
            fn text(&self) -> &str {
                self.as_str()
            }
            fn parse(text: &str) -> Result<Self, String> {
                <$type>::new(text).map_err(|error| error.to_string())
            }
            const PATTERN: &'static str = NAME_PATTERN;
        }
    )*};
}

names! {
    PlantId, "the name of the plant";
    SiteId, "the name of a site";
    GatewayId, "the name of a gateway";
    ZoneId, "the name of a zone";
    AssetId, "the name of an asset";
    ConduitId, "the name of a conduit";
    FlowName, "the name of a flow";
    ApproverId, "the name of an approver";
    ControlId, "the name of a compensating control";
    GrantId, "the name of a grant";
    RoleName, "the name of a role";
}

/// A label's key: any name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LabelKey(pub(crate) String);

impl std::fmt::Display for LabelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Key for LabelKey {
    fn text(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Result<Self, String> {
        check_name(text)
            .map(|()| Self(text.to_owned()))
            .map_err(|error| error.to_string())
    }
    const PATTERN: &'static str = NAME_PATTERN;
}

/// The kernel's name of a network interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InterfaceName(pub(crate) String);

impl std::fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Key for InterfaceName {
    fn text(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Result<Self, String> {
        // The kernel allows more; this is what interfaces are really called, and safe in a ruleset as it stands.
        let fits = (1..=15).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@'))
            && text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if fits {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{}` is not the name of an interface: use 1–15 of a-z, A-Z, 0-9, `-`, `_`, `.`, beginning with a letter or digit",
            excerpt(text)
        ))
    }
    const PATTERN: &'static str = "^[A-Za-z0-9][A-Za-z0-9@_.-]{0,14}$";
}

impl Term for InterfaceName {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "the name of an interface", faults)?;
        Self::parse(text)
            .map_err(|reason| faults.add(Fault::new(Code::BadName, node.place, reason)))
            .ok()
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": Self::PATTERN })
    }
}
