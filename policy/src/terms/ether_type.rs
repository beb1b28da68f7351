//! EtherTypes that can be permitted, and the names that documents have for them.
//!
//! One that carries packets or frames of other kinds inside (IP, tags, tunnels, labels) is none of them: what is in it would pass every rule.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What kind of frame it is, where that can be permitted.
///
/// ```
/// use penstock_policy::terms::EtherType;
///
/// assert_eq!("profinet-rt".parse::<EtherType>(), "0x8892".parse());
/// assert!("0x0800".parse::<EtherType>().is_err(), "IPv4 is for flows");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EtherType(u16);

/// EtherTypes that plants use beside IP, by the names that documents have for them.
pub const ETHER_TYPES: [(&str, u16); 10] = [
    ("profinet-rt", 0x8892),
    ("ethercat", 0x88a4),
    ("powerlink", 0x88ab),
    ("goose", 0x88b8),
    ("gse-management", 0x88b9),
    ("sampled-values", 0x88ba),
    ("sercos-iii", 0x88cd),
    ("mrp", 0x88e3),
    ("ptp", 0x88f7),
    ("prp-supervision", 0x88fb),
];

/// Those whose frames begin with the number of an application (IEC 61850-8-1 and 9-2).
const WITH_APPID: std::ops::RangeInclusive<u16> = 0x88b8..=0x88ba;

/// The first number that is a type: what is below is the length of an IEEE 802.3 frame.
const FIRST: u16 = 0x0600;

/// Those that carry packets or frames of other kinds inside.
const CARRIERS: [(u16, &str); 23] = [
    (0x0800, "IPv4"),
    (0x0806, "ARP"),
    (0x22f3, "TRILL"),
    (0x6558, "bridged Ethernet"),
    (0x8035, "reverse ARP"),
    (0x8100, "a VLAN's tag"),
    (0x86dd, "IPv6"),
    (0x876b, "compressed TCP/IP"),
    (0x880b, "PPP"),
    (0x8847, "MPLS"),
    (0x8848, "MPLS"),
    (0x8863, "PPPoE"),
    (0x8864, "PPPoE"),
    (0x8870, "jumbo frames"),
    (0x88a8, "a VLAN's tag"),
    (0x88e5, "MACsec"),
    (0x88e7, "a backbone's tag"),
    (0x8926, "a virtual port's tag"),
    (0x892f, "an HSR tag"),
    (0x893f, "an extended port's tag"),
    (0x894f, "a service's header"),
    (0x9100, "a VLAN's tag"),
    (0xa0ed, "6LoWPAN"),
];

/// Those that no bridge passes on: they are for who is at the other end of the cable.
const LINK_LOCAL: [(u16, &str); 4] = [
    (0x8808, "flow control"),
    (0x8809, "slow protocols"),
    (0x888e, "EAPOL"),
    (0x88cc, "LLDP"),
];

/// Why a number or a name is no EtherType that can be permitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EtherTypeError {
    /// Neither a known name nor four hexadecimal digits.
    #[error(
        "`{0}` is not an EtherType: write a name, such as `profinet-rt`, or four hexadecimal digits, such as `0x8892`"
    )]
    Unknown(String),
    /// It would let pass what it carries.
    #[error("frames of EtherType {0:#06x} carry {1}: what is in them would pass every rule")]
    Carrier(u16, &'static str),
    /// A permit would change nothing.
    #[error(
        "frames of EtherType {0:#06x} ({1}) are for the other end of a cable, and no bridge passes them on"
    )]
    LinkLocal(u16, &'static str),
    /// The length of a frame.
    #[error("{0:#06x} is the length of a frame, and not an EtherType: they begin at 0x0600")]
    Length(u16),
}

impl EtherType {
    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// Whether its frames begin with the number of an application.
    pub fn has_appid(self) -> bool {
        WITH_APPID.contains(&self.0)
    }

    /// As documents write it: by name, where it has one.
    pub fn word(self) -> String {
        let known = ETHER_TYPES.iter().find(|(_, number)| *number == self.0);
        known.map_or_else(|| format!("{:#06x}", self.0), |(name, _)| (*name).to_owned())
    }
}

impl TryFrom<u16> for EtherType {
    type Error = EtherTypeError;

    fn try_from(number: u16) -> Result<Self, EtherTypeError> {
        let of = |list: &'static [(u16, &'static str)]| list.iter().find(|(known, _)| *known == number);
        // 0x9200 and 0x9300 tag as 0x9100 does.
        let carried =
            of(&CARRIERS).or_else(|| matches!(number, 0x9200 | 0x9300).then_some(&(0x9100, "a VLAN's tag")));
        match (carried, of(&LINK_LOCAL)) {
            (Some((_, carries)), _) => Err(EtherTypeError::Carrier(number, carries)),
            (_, Some((_, name))) => Err(EtherTypeError::LinkLocal(number, name)),
            _ if number < FIRST => Err(EtherTypeError::Length(number)),
            _ => Ok(Self(number)),
        }
    }
}

impl FromStr for EtherType {
    type Err = EtherTypeError;

    fn from_str(text: &str) -> Result<Self, EtherTypeError> {
        if let Some((_, number)) = ETHER_TYPES.iter().find(|(name, _)| *name == text) {
            return Ok(Self(*number));
        }
        match hexadecimal(text) {
            Some(number) => number.try_into(),
            None => Err(EtherTypeError::Unknown(text.chars().take(40).collect())),
        }
    }
}

impl TryFrom<String> for EtherType {
    type Error = EtherTypeError;

    fn try_from(text: String) -> Result<Self, EtherTypeError> {
        text.parse()
    }
}

impl From<EtherType> for String {
    fn from(kind: EtherType) -> Self {
        format!("{:#06x}", kind.0)
    }
}

/// `goose (EtherType 0x88b8)`.
impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ETHER_TYPES.iter().find(|(_, number)| *number == self.0) {
            Some((name, number)) => write!(f, "{name} (EtherType {number:#06x})"),
            None => write!(f, "EtherType {:#06x}", self.0),
        }
    }
}

/// A number of 16 bits as `0x8892`.
pub fn hexadecimal(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 4)?;
    let is_hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u16::from_str_radix(digits, 16).ok().filter(|_| is_hexadecimal)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_carries_other_packets_what_stays_on_its_link_and_a_length_are_no_ethertype_that_can_be_permitted()
    {
        for text in [
            "0x0800", "0x86dd", "0x0806", "0x8100", "0x88a8", "0x9100", "0x9200", "0x9300", "0x8847",
            "0x8864", "0x880b", "0x8926", "0x892f", "0x893f", "0xa0ed", "0x88e5", "0x88cc", "0x8808",
            "0x05ff", "0x0000", "8892", "0x892", "0x88922", "0x+892", "34962", "Goose", "",
        ] {
            assert!(text.parse::<EtherType>().is_err(), "{text}");
        }
        for (name, number) in ETHER_TYPES {
            let kind: EtherType = name.parse().unwrap();
            assert_eq!((kind.number(), kind.word().as_str()), (number, name));
            assert_eq!(String::from(kind).parse(), Ok(kind));
        }
        assert_eq!("0x0600".parse::<EtherType>().unwrap().word(), "0x0600");
    }
}
