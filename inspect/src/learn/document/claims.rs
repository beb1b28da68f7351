//! What a proposal says of what machines claim: of a new asset its name, maker, model and firmware, and above it, by what; of one that the plant
//! has, what it lacks or says otherwise, as a comment.
//!
//! A name is taken where one machine alone is claimed to have it, of all that claim anything, and it has one alone; where it does not, or
//! another asset has the name, or YAML could take it for something else, the asset stays named by its address. Makers are also known by MAC addresses, where these are beyond doubt.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use penstock_policy::document::taken_for;
use penstock_policy::ids::AssetId;
use penstock_policy::model::Plant;
use penstock_policy::terms::Mac;

use super::allow::quoted;
use crate::learn::Learned;
use crate::learn::claims::{Attribute, ClaimSource, Subject};
use crate::learn::vendors::vendor;

/// The longest name that is taken.
const NAME_CHARS_MAX: usize = 40;
/// Claims that contradict one another and are listed.
const LISTED_MAX: usize = 4;

/// What is claimed of machines.
pub(super) struct Claimed<'l> {
    learned: &'l Learned,
    names: BTreeMap<IpAddr, String>,
}

/// By attribute: the texts, each with what it comes from.
type Texts = BTreeMap<Attribute, BTreeMap<String, BTreeSet<ClaimSource>>>;

impl<'l> Claimed<'l> {
    /// Of the machines with these addresses that are no assets yet.
    pub(super) fn of(
        learned: &'l Learned,
        plant: Option<&Plant>,
        addresses: impl Iterator<Item = IpAddr>,
    ) -> Self {
        let mut claimed = Self {
            learned,
            names: BTreeMap::new(),
        };
        let mut wanted: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        for address in addresses {
            let texts = claimed.texts(&BTreeSet::from([address]));
            let names = texts.get(&Attribute::Name);
            let as_asset: BTreeSet<String> = names
                .into_iter()
                .flatten()
                .filter_map(|(name, _)| as_name(name))
                .collect();
            if let (Some(name), 1) = (as_asset.first(), as_asset.len()) {
                wanted.entry(name.clone()).or_default().insert(address);
            }
        }
        let taken: BTreeSet<String> = plant
            .into_iter()
            .flat_map(|plant| &plant.assets)
            .flat_map(|(id, asset)| [Some(id.to_string()), asset.tag.as_deref().and_then(as_name)])
            .flatten()
            .collect();
        let mut claimants: BTreeMap<String, BTreeSet<Subject>> = BTreeMap::new();
        for (subject, name) in learned.claims.names() {
            if let Some(name) = as_name(name) {
                claimants.entry(name).or_default().insert(subject);
            }
        }
        for (name, addresses) in wanted {
            if let (Some(address), 1) = (addresses.first(), addresses.len())
                && claimants
                    .get(&name)
                    .is_none_or(|all| claimed.are_one(*address, all))
                && !taken.contains(&name)
                && !name.starts_with("host-")
            {
                claimed.names.insert(*address, name);
            }
        }
        claimed
    }

    /// Whether these are all the machine that has this address: by its other addresses, or by its MAC address. A port's own is
    /// known only from the frame by which it named itself and its address.
    fn are_one(&self, address: IpAddr, subjects: &BTreeSet<Subject>) -> bool {
        let macs = &self.learned.macs;
        let mac = macs.of(&BTreeSet::from([address])).and_then(Result::ok);
        let is_behind = |mac, address| macs.behind(mac).any(|behind| behind == address);
        let others = subjects.iter().filter(|subject| match **subject {
            Subject::Address(other) => other != address && !mac.is_some_and(|mac| is_behind(mac, other)),
            Subject::Mac(mac) => !is_behind(mac, address),
        });
        match others.collect::<Vec<_>>().as_slice() {
            [] => true,
            [Subject::Mac(other)] => {
                let mut claims = self.learned.claims.of(Subject::Address(address));
                macs.behind(*other).next().is_none()
                    && claims.any(|(_, _, by)| matches!(by, ClaimSource::Lldp | ClaimSource::Dcp))
            }
            _ => false,
        }
    }

    /// The name that is taken for an asset.
    pub(super) fn name(&self, address: IpAddr) -> Option<&String> {
        self.names.get(&address)
    }

    /// The end of a new asset's line, and a comment above it.
    pub(super) fn of_new(&self, address: IpAddr) -> (String, String) {
        let (mut line, mut taken, mut open) = (String::new(), Vec::new(), Vec::new());
        for (attribute, texts) in self.texts(&BTreeSet::from([address])) {
            let key = key(attribute);
            let is_taken = match attribute {
                Attribute::Name => self.names.contains_key(&address),
                _ => texts.len() == 1,
            };
            if let (true, Some((text, sources))) = (is_taken, texts.first_key_value()) {
                if attribute != Attribute::Name {
                    let _ = write!(line, ", {key}: {}", quoted(text));
                }
                taken.push(format!("{key} by {}", in_words(sources)));
            } else {
                open.push(format!("{key} {}", listed(&texts)));
            }
        }
        let mut comment = String::new();
        if !taken.is_empty() {
            let _ = writeln!(comment, "  # Claimed on the network: {}.", taken.join(", "));
        }
        if !open.is_empty() {
            let _ = writeln!(
                comment,
                "  # Claimed of {address}, and not taken: {}.",
                open.join(", ")
            );
        }
        (line, comment)
    }

    /// What was claimed of the plant's own assets and is not in the document.
    pub(super) fn of_known(&self, out: &mut String, plant: &Plant) {
        let (mut missing, mut other) = (String::new(), String::new());
        for (id, asset) in &plant.assets {
            let own: BTreeSet<IpAddr> = asset.addresses.iter().copied().collect();
            let mut texts = self.texts(&own);
            texts.remove(&Attribute::Name);
            for (attribute, texts) in texts {
                let declared = match attribute {
                    Attribute::Vendor => &asset.vendor,
                    Attribute::Model => &asset.model,
                    _ => &asset.firmware,
                };
                let key = key(attribute);
                let _ = match declared {
                    None => writeln!(missing, "#   {id}: {key} {}", listed(&texts)),
                    // Makers and models have many spellings, and a version one.
                    Some(declared) if attribute == Attribute::Firmware && !texts.contains_key(declared) => {
                        writeln!(
                            other,
                            "#   {id}: declared {key} {}, seen {}",
                            quoted(declared),
                            listed(&texts)
                        )
                    }
                    Some(_) => Ok(()),
                };
            }
        }
        if !missing.is_empty() {
            let _ = write!(
                out,
                "# Claimed on the network of assets that are declared, and not in the document; add what you know to be right:\n{missing}"
            );
        }
        if !other.is_empty() {
            let _ = write!(
                out,
                "# Assets that claim ANOTHER firmware than is declared:\n{other}"
            );
        }
    }

    /// All that is claimed of the machine that has these addresses.
    fn texts(&self, own: &BTreeSet<IpAddr>) -> Texts {
        let mut texts = Texts::new();
        let mut add = |attribute, text: &str, source| {
            let texts = texts.entry(attribute).or_default();
            texts.entry(text.to_owned()).or_default().insert(source);
        };
        let mac: Option<Mac> = self.learned.macs.of(own).and_then(Result::ok);
        let addresses = own.iter().copied().map(Subject::Address);
        for subject in addresses.chain(mac.map(Subject::Mac)) {
            for (attribute, text, source) in self.learned.claims.of(subject) {
                add(*attribute, text, *source);
            }
        }
        // What a machine says of its maker counts more than who made its network interface.
        if let Some(maker) = mac.and_then(vendor)
            && !texts.contains_key(&Attribute::Vendor)
        {
            let sources = BTreeSet::from([ClaimSource::MacPrefix]);
            texts.insert(Attribute::Vendor, BTreeMap::from([(maker.to_owned(), sources)]));
        }
        texts
    }
}

/// The key that an asset has for it.
fn key(attribute: Attribute) -> &'static str {
    match attribute {
        Attribute::Name => "name",
        Attribute::Vendor => "vendor",
        Attribute::Model => "model",
        Attribute::Firmware => "firmware",
    }
}

/// `"plc-1" (LLDP)`, for each.
fn listed(texts: &BTreeMap<String, BTreeSet<ClaimSource>>) -> String {
    let each = texts.iter().take(LISTED_MAX);
    let each = each.map(|(text, sources)| format!("{} ({})", quoted(text), in_words(sources)));
    let mut words = each.collect::<Vec<_>>().join(" or ");
    if let Some(more @ 1..) = texts.len().checked_sub(LISTED_MAX) {
        let _ = write!(words, " or {more} more");
    }
    words
}

fn in_words(sources: &BTreeSet<ClaimSource>) -> String {
    let words: Vec<String> = sources.iter().map(ToString::to_string).collect();
    words.join(" and ")
}

/// A claimed name in the form of an asset's: in small letters, with hyphens for what no name has.
fn as_name(claimed: &str) -> Option<String> {
    let claimed = claimed.trim_end_matches('.');
    let claimed = claimed.strip_suffix(".local").unwrap_or(claimed);
    let mut name = String::new();
    for c in claimed.chars().map(|c| c.to_ascii_lowercase()) {
        match c {
            'a'..='z' | '0'..='9' | '.' => name.push(c),
            _ if !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    let name: String = name.chars().take(NAME_CHARS_MAX).collect();
    let name = name.trim_matches(['-', '.']);
    // An address is no name, nor is a number, nor what YAML takes for something else.
    let has_letter = name.contains(|c: char| c.is_ascii_lowercase());
    (has_letter && taken_for(name).is_none() && AssetId::new(name).is_ok()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_name_is_taken_in_the_form_of_an_assets() {
        for (claimed, name) in [
            ("PLC_01", Some("plc-01")),
            ("HMI-7.local.", Some("hmi-7")),
            ("historian.plant.example", Some("historian.plant.example")),
            ("=A1+S2 -- K7", Some("a1-s2-k7")),
            ("Wärter 2", Some("w-rter-2")),
            ("10.0.0.5", None),
            ("---", None),
            ("NULL", None),
            ("Yes", None),
            ("no.local", None),
            ("ON", None),
            ("off", None),
            ("True", None),
            ("false", None),
            ("Y", None),
            ("n", None),
            ("0x1F", None),
            ("1E5", None),
            ("nullify", Some("nullify")),
            ("1e5-b", Some("1e5-b")),
            ("\"}, zones: {", Some("zones")),
        ] {
            assert_eq!(as_name(claimed).as_deref(), name, "{claimed}");
        }
    }
}
