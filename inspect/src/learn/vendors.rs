//! Who made a network interface, by the prefix that its MAC address has from the IEEE.
//!
//! The table is of makers of what plants have, not of all there are: `scripts/mac-vendors` writes it from the IEEE's public listing. Whoever
//! buys an interface from one of them may build it into something else, and a MAC address is claimed as easily as any other: it is a
//! hint for a person.

use std::collections::HashMap;
use std::sync::LazyLock;

use penstock_policy::terms::Mac;

/// A line for each maker: its name, a tab, and its prefixes.
const LISTED: &str = include_str!("vendors.txt");
/// How many of a MAC address's bits prefixes have, the longest first.
const PREFIX_BITS: [u32; 3] = [36, 28, 24];

static PREFIXES: LazyLock<HashMap<(u32, u64), &'static str>> = LazyLock::new(|| {
    let lines = LISTED.lines().filter_map(|line| line.split_once('\t'));
    let prefixes = lines.flat_map(|(maker, prefixes)| prefixes.split(' ').map(move |prefix| (prefix, maker)));
    prefixes
        .filter_map(|(prefix, maker)| {
            let bits = 4 * u32::try_from(prefix.len()).ok()?;
            Some(((bits, u64::from_str_radix(prefix, 16).ok()?), maker))
        })
        .collect()
});

/// Who made the interface with this address; `None`: none that is listed, or the address is not a maker's.
pub fn vendor(mac: Mac) -> Option<&'static str> {
    let number = mac
        .0
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte));
    let mut prefixes = PREFIX_BITS.iter();
    prefixes.find_map(|bits| PREFIXES.get(&(*bits, number >> (48 - bits))).copied())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_makers_prefix_names_it_and_the_longest_one_counts() {
        for (mac, maker) in [
            ("00:0e:8c:12:34:56", Some("Siemens")),
            ("00:00:bc:00:00:01", Some("Rockwell Automation")),
            ("00:80:f4:00:00:01", Some("Schneider Electric")),
            ("00:30:de:00:00:01", Some("WAGO")),
            // 28 and 36 bits of a block that belongs to several.
            ("a4:da:22:00:00:01", Some("GE")),
            ("70:b3:d5:15:30:01", Some("Schneider Electric")),
            ("70:b3:d5:ff:f0:01", None),
            ("00:50:c2:8f:20:01", Some("Schneider Electric")),
            ("02:00:00:00:00:01", None),
        ] {
            assert_eq!(vendor(mac.parse().unwrap()), maker, "{mac}");
        }
    }

    #[test]
    fn every_line_of_the_table_is_read() {
        let lines = LISTED.lines().filter(|line| !line.starts_with('#'));
        let listed: usize = lines
            .map(|line| line.split_once('\t').unwrap().1.split(' ').count())
            .sum();
        assert_eq!(PREFIXES.len(), listed);
        assert!(PREFIXES.keys().all(|(bits, _)| PREFIX_BITS.contains(bits)));
    }
}
