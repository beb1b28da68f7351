//! Blocks of MAC addresses, in one spelling.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// MAC addresses that begin alike: one, or a block of them, of a single machine or of a group.
///
/// ```
/// use penstock_policy::terms::MacPrefix;
///
/// let goose: MacPrefix = "01:0c:cd:01:00:00/39".parse().unwrap();
/// assert!(goose.contains([0x01, 0x0c, 0xcd, 0x01, 0x01, 0xff]));
/// assert!("01:0c:cd:01:00:01/40".parse::<MacPrefix>().is_err(), "bits behind the prefix");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacPrefix {
    first: [u8; 6],
    bits: u8,
}

/// A text that is not a MAC address or a block of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a MAC address or a block of them: write `01:0c:cd:01:00:05`, or `01:0c:cd:01:00:00/40`, with zeros behind the prefix"
)]
pub struct MacPrefixError(String);

impl MacPrefix {
    /// One address.
    pub fn one(address: [u8; 6]) -> Self {
        Self {
            first: address,
            bits: 48,
        }
    }

    /// The first and the last address.
    pub fn ends(self) -> [[u8; 6]; 2] {
        let [_, _, rest @ ..] = (number(self.first) | behind(self.bits)).to_be_bytes();
        [self.first, rest]
    }

    /// Whether `address` is one of them.
    pub fn contains(self, address: [u8; 6]) -> bool {
        number(address) & !behind(self.bits) == number(self.first)
    }

    /// Whether all of `other` are among them.
    pub fn covers(self, other: Self) -> bool {
        self.bits <= other.bits && self.contains(other.first)
    }

    /// The same addresses in as few blocks as they were written in, sorted: none lies within another.
    pub fn merged(mut all: Vec<Self>) -> Vec<Self> {
        all.sort_unstable_by_key(|block| (block.first, block.bits));
        let mut merged: Vec<Self> = Vec::with_capacity(all.len());
        for block in all {
            if !merged.last().is_some_and(|last| last.covers(block)) {
                merged.push(block);
            }
        }
        merged
    }
}

fn number([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// The bits behind a prefix.
fn behind(bits: u8) -> u64 {
    let rest = 48_u32.saturating_sub(bits.into());
    (1_u64 << rest) - 1
}

impl FromStr for MacPrefix {
    type Err = MacPrefixError;

    fn from_str(text: &str) -> Result<Self, MacPrefixError> {
        let wrong = || MacPrefixError(text.chars().take(40).collect());
        let (address, bits) = text.split_once('/').unwrap_or((text, "48"));
        let is_plain =
            bits.len() <= 2 && bits.bytes().all(|byte| byte.is_ascii_digit()) && !bits.starts_with('0');
        let bits: u8 = bits.parse().ok().filter(|_| is_plain).ok_or_else(wrong)?;
        let mut first = [0; 6];
        let mut pairs = address.split(':');
        for byte in &mut first {
            let pair = pairs
                .next()
                .filter(|pair| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = u8::from_str_radix(pair.ok_or_else(wrong)?, 16).map_err(|_| wrong())?;
        }
        let has_rest = number(first) & behind(bits) != 0;
        if pairs.next().is_some() || !(1..=48).contains(&bits) || has_rest {
            return Err(wrong());
        }
        Ok(Self { first, bits })
    }
}

impl TryFrom<String> for MacPrefix {
    type Error = MacPrefixError;

    fn try_from(text: String) -> Result<Self, MacPrefixError> {
        text.parse()
    }
}

impl From<MacPrefix> for String {
    fn from(block: MacPrefix) -> Self {
        block.to_string()
    }
}

impl fmt::Display for MacPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.first;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")?;
        match self.bits {
            48 => Ok(()),
            bits => write!(f, "/{bits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn blocks_of_mac_addresses_are_read_in_one_spelling() {
        for wrong in [
            "",
            "01:0c:cd:01:00",
            "01:0c:cd:01:00:00/0",
            "01:0c:cd:01:00:00/49",
            "01:0c:cd:01:00:00/040",
            "01:0c:cd:01:00:01/40",
            "01-0c-cd-01-00-00",
            "01:0c:cd:01:00:00:00",
            "01:0c:cd:01:00:00/",
            "1:c:cd:1:0:0",
        ] {
            assert!(wrong.parse::<MacPrefix>().is_err(), "{wrong}");
        }
        let block: MacPrefix = "01:0C:CD:01:00:00/39".parse().unwrap();
        assert_eq!(block.to_string(), "01:0c:cd:01:00:00/39");
        assert_eq!(
            block.ends(),
            [[1, 0x0c, 0xcd, 1, 0, 0], [1, 0x0c, 0xcd, 1, 1, 0xff]]
        );
    }
}
