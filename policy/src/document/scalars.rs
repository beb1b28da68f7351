//! Words that mean a value: text, yes and no, numbers, names, addresses, levels, keys, dates, windows.
//!
//! Each is read from the characters that were written, never from what a YAML reader would guess them to be:
//! `010`, `0x1f`, `1_000` and `12:30` are refused as numbers because readers disagree about them, `yes`, `no`,
//! `on` and `off` are booleans exactly where a boolean is expected, and `2.10` is text where text is.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::node::{Kind, Node, excerpt};
use super::read::{At, Key, Term, record, scalar, words};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::ids::{
    ApproverId, AssetId, ConduitId, ControlId, FlowName, GatewayId, GrantId, PlantId, SiteId, ZoneId,
    check_name,
};
use crate::model::{
    Assurance, Consequence, Enforcement, GatewayMode, OnAgentLoss, OnDrift, PublicKey, SlVector, ZoneKind,
};

/// Text for people, not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) String);

impl Term for Text {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "text", faults)?;
        if text.trim().is_empty() {
            faults.add(
                Fault::new(Code::EmptyValue, node.place, "the text is empty")
                    .help("write it, or remove the key"),
            );
            return None;
        }
        let plain = matches!(node.kind, Kind::Scalar { plain: true, .. });
        warn_if_ambiguous(text, plain, node.place, faults);
        Some(Self(text.to_owned()))
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// Warns of unquoted text that YAML 1.1 or 1.2 readers take for a boolean or a number.
pub(crate) fn warn_if_ambiguous(text: &str, plain: bool, place: Place, faults: &mut Faults) {
    if !plain {
        return;
    }
    let taken_for = if as_boolean(text).is_some() || matches!(text, "y" | "Y" | "n" | "N") {
        "a yes or no"
    } else if looks_like_number(text) {
        "a number"
    } else {
        return;
    };
    faults.add(
        Fault::new(
            Code::AmbiguousText,
            place,
            format!("other YAML readers take `{text}` for {taken_for}, not for text"),
        )
        .label("unquoted")
        .help(format!("write \"{text}\"")),
    );
}

fn looks_like_number(text: &str) -> bool {
    let body = text.trim_start_matches(['+', '-']);
    let starts = body.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let based = ["0x", "0o", "0b"].iter().any(|prefix| body.starts_with(prefix));
    let sexagesimal = body.contains(':')
        && body
            .split(':')
            .all(|part| !part.is_empty() && part.len() <= 2 && part.bytes().all(|b| b.is_ascii_digit()));
    let digits = body.replace('_', "");
    starts && (based || sexagesimal || digits.parse::<f64>().is_ok())
        || matches!(body.to_ascii_lowercase().as_str(), ".inf" | ".nan")
}

/// The boolean of YAML 1.1 that is written so.
fn as_boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

impl Term for bool {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "yes or no", faults)?;
        let value = as_boolean(text);
        if value.is_none() {
            faults.add(
                Fault::new(
                    Code::NotABoolean,
                    node.place,
                    format!("`{}` is neither yes nor no", excerpt(text)),
                )
                .label("expected: yes or no")
                .help("write `yes` or `no` (also `true`, `false`, `on`, `off`)"),
            );
        }
        value
    }

    fn schema() -> Value {
        json!({ "enum": [true, false, "yes", "no", "on", "off"] })
    }
}

/// Why text is not a number of the plain decimal kind.
pub(crate) fn decimal(text: &str) -> Result<u32, &'static str> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits && text.len() > 1 && text.starts_with('0') {
        return Err("a leading zero makes it octal for some readers: write it without");
    }
    if digits {
        return text.parse().map_err(|_| "it is far too large");
    }
    if text.contains(':') {
        return Err("with a colon it is a number in base 60 for some readers");
    }
    Err("write it in plain decimal digits")
}

/// A number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number<const MIN: u32, const MAX: u32>(pub(crate) u32);

impl<const MIN: u32, const MAX: u32> Term for Number<MIN, MAX> {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "a number", faults)?;
        match decimal(text) {
            Ok(number) if (MIN..=MAX).contains(&number) => Some(Self(number)),
            Ok(number) => {
                faults.add(
                    Fault::new(
                        Code::OutOfRange,
                        node.place,
                        format!("{number} is not within {MIN}–{MAX}"),
                    )
                    .label(format!("expected: {MIN}–{MAX}")),
                );
                None
            }
            Err(reason) => {
                faults.add(
                    Fault::new(
                        Code::NotANumber,
                        node.place,
                        format!("`{}` is not a number", excerpt(text)),
                    )
                    .label(format!("expected: a number, {MIN}–{MAX}"))
                    .help(reason),
                );
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

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

fn not_a_network(node: &Node, text: &str, expected: &str, faults: &mut Faults) {
    faults.add(
        Fault::new(
            Code::NotANetwork,
            node.place,
            format!("`{}` is not {expected}", excerpt(text)),
        )
        .label(format!("expected: {expected}")),
    );
}

impl Term for IpAddr {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        const EXPECTED: &str = "an address such as 10.20.4.7 or fd00::7";
        let text = scalar(node, EXPECTED, faults)?;
        let address = text.parse().ok().and_then(unmapped);
        if address.is_none() {
            not_a_network(node, text, EXPECTED, faults);
        }
        address
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+$" })
    }
}

/// An IPv4 address in IPv6 clothes (`::ffff:10.0.0.1`) would match no packet in either family.
fn unmapped(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => None,
        address => Some(address),
    }
}

/// A network: an address with its prefix, and no bit set beyond it.
impl Term for IpNet {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        const EXPECTED: &str = "a network such as 10.20.4.0/24 or fd00:20:4::/64";
        let text = scalar(node, EXPECTED, faults)?;
        let Some(net) = text
            .parse::<Self>()
            .ok()
            .filter(|net| unmapped(net.addr()).is_some())
        else {
            not_a_network(node, text, EXPECTED, faults);
            return None;
        };
        if net.trunc() == net {
            return Some(net);
        }
        let host = net.addr();
        faults.add(
            Fault::new(
                Code::HostBits,
                node.place,
                format!("`{net}` has bits set beyond its prefix"),
            )
            .label("network or address?")
            .help(format!(
                "write {} for the whole network, {host}/{} for this address alone",
                net.trunc(),
                net.max_prefix_len()
            )),
        );
        None
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$" })
    }
}

/// An interface's own address with its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InterfaceAddress(pub(crate) IpNet);

impl Term for InterfaceAddress {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        const EXPECTED: &str = "an address with its prefix, such as 10.20.4.1/24";
        let text = scalar(node, EXPECTED, faults)?;
        let net = text
            .parse::<IpNet>()
            .ok()
            .filter(|net| unmapped(net.addr()).is_some());
        if net.is_none() {
            not_a_network(node, text, EXPECTED, faults);
        }
        net.map(Self)
    }

    fn schema() -> Value {
        IpNet::schema()
    }
}

/// Who may reach a gateway: an address, or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) IpNet);

impl Term for Peer {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "an address or a network", faults)?;
        if text.contains('/') {
            IpNet::read(node, faults).map(Self)
        } else {
            IpAddr::read(node, faults).map(|address| Self(IpNet::from(address)))
        }
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$" })
    }
}

/// A MAC address, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HardwareAddress(pub(crate) String);

impl Term for HardwareAddress {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "a MAC address", faults)?;
        let pairs: Vec<&str> = text.split(':').collect();
        let good = pairs.len() == 6
            && pairs
                .iter()
                .all(|pair| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit()));
        if good {
            return Some(Self(text.to_ascii_lowercase()));
        }
        faults.add(
            Fault::new(
                Code::NotAHardwareAddress,
                node.place,
                format!("`{}` is not a MAC address", excerpt(text)),
            )
            .label("expected: such as 00:1d:9c:00:47:07"),
        );
        None
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$" })
    }
}

impl Term for PublicKey {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "a public key", faults)?;
        match Self::try_from(text.to_owned()) {
            Ok(key) => Some(key),
            Err(error) => {
                faults.add(
                    Fault::new(Code::NotAKey, node.place, error.to_string())
                        .help("`penstock key new` makes a key and prints its public half"),
                );
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^ed25519:[0-9a-fA-F]{64}$" })
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
        let level = |field: &super::read::Field<Level>| field.value().and_then(|n| u8::try_from(n.0).ok());
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

/// Values without their places.
pub(crate) fn values<T: Clone>(items: &[At<T>]) -> Vec<T> {
    items.iter().map(|item| item.value.clone()).collect()
}
