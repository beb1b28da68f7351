//! A MAC address, in one spelling.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The MAC address of a single machine.
///
/// ```
/// use penstock_policy::terms::Mac;
///
/// assert!("00:1d:9c:00:47:07".parse::<Mac>().is_ok());
/// assert!("01:00:5e:00:00:01".parse::<Mac>().is_err(), "a group's address is nobody's own");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// A text that is not the MAC address of a single machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the MAC address of a single machine: write it as `00:1d:9c:00:47:07`")]
pub struct MacError(String);

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let wrong = || MacError(text.chars().take(40).collect());
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs
                .next()
                .filter(|pair| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = u8::from_str_radix(pair.ok_or_else(wrong)?, 16).map_err(|_| wrong())?;
        }
        // A group's address is nobody's own, and neither is that of all zeros.
        let [first, ..] = bytes;
        if pairs.next().is_some() || first & 1 == 1 || bytes == [0; 6] {
            return Err(wrong());
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_of_a_single_machine_is_read_and_it_is_written_in_one_spelling() {
        assert_eq!(
            "00:1D:9c:00:47:07".parse::<Mac>().unwrap().to_string(),
            "00:1d:9c:00:47:07"
        );
        for wrong in [
            "",
            "00:1d:9c:00:47",
            "00:1d:9c:00:47:07:01",
            "001d9c004707",
            "0:1d:9c:0:47:7",
            "+0:1d:9c:00:47:07",
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
        ] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }
}
