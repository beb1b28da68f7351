//! Words that tell frames other than IP apart: EtherTypes, VLANs, blocks of MAC addresses, numbers of applications.

use serde_json::{Value, json};

use super::node::{Node, excerpt};
use super::read::{Term, scalar};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::terms::{ETHER_TYPES, EtherType, EtherTypeError, MacPrefix, NumberRange, hexadecimal};

impl Term for EtherType {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "an EtherType", faults)?;
        match text.parse() {
            Ok(kind) => Some(kind),
            Err(error) => {
                let help = match &error {
                    EtherTypeError::Unknown(_) | EtherTypeError::Length(_) => format!(
                        "write one of {}, or the four hexadecimal digits of another",
                        ETHER_TYPES.map(|(name, _)| format!("`{name}`")).join(", ")
                    ),
                    EtherTypeError::Carrier(..) => {
                        "IP is permitted by `flows`; tags, tunnels and labels are taken off before the gateway".to_owned()
                    }
                    EtherTypeError::LinkLocal(..) => "remove the entry: it would change nothing".to_owned(),
                };
                faults.add(
                    Fault::new(Code::NotAnEtherType, node.place, error.to_string())
                        .label("not an EtherType that can be permitted")
                        .help(help),
                );
                None
            }
        }
    }

    fn schema() -> Value {
        let names = ETHER_TYPES.map(|(name, _)| name);
        // Editors take four hexadecimal digits without quotes for a number.
        json!({ "anyOf": [
            { "enum": names },
            { "type": "string", "pattern": "^0x[0-9a-fA-F]{4}$" },
            { "type": "integer", "minimum": 0x600, "maximum": 0xffff },
        ] })
    }
}

/// The VLAN of a tag; 0: none.
pub(crate) type Vlan = super::scalars::Number<0, 4094>;

impl Term for MacPrefix {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "a MAC address or a block of them", faults)?;
        match text.parse() {
            Ok(block) => Some(block),
            Err(error) => {
                faults.add(
                    Fault::new(Code::NotAHardwareAddress, node.place, error.to_string())
                        .label("expected: such as 01:0c:cd:01:00:00/40"),
                );
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}(/[1-9][0-9]?)?$" })
    }
}

/// Numbers of applications in a row: `0x0001`, `0x0001-0x00ff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AppIds(pub(crate) NumberRange);

impl Term for AppIds {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "an APPID or a range of them", faults)?;
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = hexadecimal(first.trim()).zip(hexadecimal(last.trim()));
        if let Some((first, last)) = range.filter(|(first, last)| first <= last) {
            let (first, last) = (first.into(), last.into());
            return Some(Self(NumberRange { first, last }));
        }
        faults.add(
            Fault::new(
                Code::NotARange,
                node.place,
                format!("`{}` is not an APPID or a range of them", excerpt(text)),
            )
            .label(match range {
                Some(_) => "it ends before it begins",
                None => "expected: four hexadecimal digits",
            })
            .help("write `0x0001`, `0x0001-0x00ff`, or a list of such"),
        );
        None
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "string", "pattern": "^0x[0-9a-fA-F]{4}( *- *0x[0-9a-fA-F]{4})?$" },
            { "type": "integer", "minimum": 0, "maximum": 0xffff },
        ] })
    }
}
