//! Who an address is: the names that a release has for addresses, and its sites' time zones, for the trail.
//!
//! An event says addresses. What they were called is a matter of the release in force when it happened, whose number the
//! event says; so names are looked up there, and never in a later one. A release that cannot be read has no names.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use penstock_policy::ids::Revision;
use penstock_policy::model::Plant;
use penstock_proto::refusal::{Reason, Refusal};

use super::Releases;

/// Directories that are kept; about 100 bytes for each address of a plant.
const KEPT_MAX: usize = 4;

/// Two zones, in order.
type ZonePair = (Arc<str>, Arc<str>);

/// What one release calls addresses.
#[derive(Debug, Default)]
pub struct Directory {
    assets: HashMap<IpAddr, (Arc<str>, Arc<str>)>,
    /// Zones' networks by their first address; no two of them overlap.
    networks: BTreeMap<IpAddr, (IpNet, Arc<str>)>,
    /// By gateway.
    time_zones: HashMap<String, Arc<str>>,
    /// By gateway.
    sites: HashMap<String, Arc<str>>,
    /// Conduits by their two zones, in order.
    conduits: HashMap<ZonePair, Vec<Arc<str>>>,
    /// It is that of a release, not what stands for one that cannot be read.
    known: bool,
    /// Of all sites.
    all_time_zones: BTreeSet<Arc<str>>,
}

/// The name of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'d> {
    /// The asset; `None`: it is only in the zone's networks.
    pub asset: Option<&'d str>,
    /// The zone.
    pub zone: &'d str,
}

impl Directory {
    /// Of a plant.
    pub fn of(plant: &Plant) -> Self {
        let zones: BTreeMap<_, Arc<str>> = plant.zones.keys().map(|id| (id, id.as_str().into())).collect();
        let mut directory = Self {
            known: true,
            ..Self::default()
        };
        for (id, asset) in &plant.assets {
            let (name, zone): (Arc<str>, _) = (id.as_str().into(), zones.get(&asset.zone));
            for (address, zone) in asset.addresses.iter().zip(zone.into_iter().cycle()) {
                directory
                    .assets
                    .insert(*address, (Arc::clone(&name), Arc::clone(zone)));
            }
        }
        for (id, zone) in &plant.zones {
            for network in &zone.networks {
                let zone = (
                    *network,
                    zones.get(id).map_or_else(|| id.as_str().into(), Arc::clone),
                );
                directory.networks.insert(network.network(), zone);
            }
        }
        for site in plant.sites.values() {
            directory.all_time_zones.insert(site.timezone.as_str().into());
        }
        for (id, conduit) in &plant.conduits {
            let ends = ordered(conduit.from.as_str().into(), conduit.to.as_str().into());
            directory
                .conduits
                .entry(ends)
                .or_default()
                .push(id.as_str().into());
        }
        for (gateway, placed) in &plant.gateways {
            directory
                .sites
                .insert(gateway.to_string(), placed.site.as_str().into());
            if let Some(site) = plant.sites.get(&placed.site)
                && let Some(time_zone) = directory.all_time_zones.get(site.timezone.as_str())
            {
                directory
                    .time_zones
                    .insert(gateway.to_string(), Arc::clone(time_zone));
            }
        }
        directory
    }

    /// The name of an address; `None`: it lies in no zone.
    pub fn name(&self, address: IpAddr) -> Option<Name<'_>> {
        if let Some((asset, zone)) = self.assets.get(&address) {
            return Some(Name {
                asset: Some(asset),
                zone,
            });
        }
        let (_, (network, zone)) = self.networks.range(..=address).next_back()?;
        network.contains(&address).then_some(Name { asset: None, zone })
    }

    /// The time zone of a source's site; of a coordinator, that of all sites if it is one.
    pub fn time_zone(&self, source: &str) -> Option<&str> {
        let own = self.time_zones.get(source);
        let common = || {
            self.all_time_zones
                .first()
                .filter(|_| self.all_time_zones.len() == 1)
        };
        own.or_else(|| common().filter(|_| source.contains('/')))
            .map(|zone| &**zone)
    }

    /// The site of a gateway.
    pub fn site(&self, gateway: &str) -> Option<&str> {
        self.sites.get(gateway).map(|site| &**site)
    }

    /// The conduits between two zones, whichever of them a flow begins in.
    pub fn conduits<'d>(&'d self, one: &str, other: &str) -> impl Iterator<Item = &'d str> {
        let between = self.conduits.get(&ordered(one.into(), other.into()));
        between.into_iter().flatten().map(|conduit| &**conduit)
    }

    /// Whether a release says this: of one that cannot be read now nobody knows what it calls anything.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// The time zones of all sites.
    pub fn time_zones(&self) -> impl Iterator<Item = &str> {
        self.all_time_zones.iter().map(|zone| &**zone)
    }
}

fn ordered(one: Arc<str>, other: Arc<str>) -> ZonePair {
    if one <= other { (one, other) } else { (other, one) }
}

/// The directories that were used last, the newest at the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Directories {
    kept: Arc<Mutex<VecDeque<CachedDirectory>>>,
    /// Held while one is read: who wants the same one meanwhile finds it then.
    reading: Arc<tokio::sync::Mutex<()>>,
}

/// A release's number, and its directory.
type CachedDirectory = (Revision, Arc<Directory>);

impl Directories {
    fn held(&self, revision: Revision) -> Option<Arc<Directory>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(held, _)| *held == revision)?;
        let found = kept.remove(place)?;
        let directory = Arc::clone(&found.1);
        kept.push_back(found);
        Some(directory)
    }

    fn keep(&self, revision: Revision, directory: &Arc<Directory>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(held, _)| *held != revision);
        kept.push_back((revision, Arc::clone(directory)));
        while kept.len() > KEPT_MAX {
            kept.pop_front();
        }
    }
}

impl Releases {
    /// As if a release of this number had been read, for tests.
    #[cfg(test)]
    pub(crate) fn know(&self, revision: Revision, directory: Directory) {
        self.directories.keep(revision, &Arc::new(directory));
    }

    /// What a release calls addresses; nothing of one that is not there or cannot be read.
    ///
    /// # Errors
    /// The names cannot be looked up now, for example because too many documents wait to be compiled: that is not a release without names.
    pub async fn directory(&self, revision: Revision) -> Result<Arc<Directory>, Refusal> {
        if let Some(held) = self.directories.held(revision) {
            return Ok(held);
        }
        let _reading = self.directories.reading.lock().await;
        if let Some(held) = self.directories.held(revision) {
            return Ok(held);
        }
        let read = match self.get(revision).await {
            Ok(recorded) => self.plant_of(&recorded, Directory::of).await,
            Err(refusal) => Err(refusal),
        };
        let directory = match read {
            Ok(directory) => Arc::new(directory),
            // What will not be otherwise the next time is not asked for again with each event.
            Err(refusal)
                if matches!(
                    refusal.reason,
                    Reason::NotFound | Reason::DocumentErrors | Reason::StoreCorrupt
                ) =>
            {
                tracing::debug!(%revision, %refusal, "a release has no names for the trail");
                Arc::default()
            }
            Err(refusal) => return Err(refusal),
        };
        self.directories.keep(revision, &directory);
        Ok(directory)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_has_the_name_of_its_asset_and_else_that_of_the_zone_that_holds_it() {
        let zone: Arc<str> = "control".into();
        let mut directory = Directory::default();
        let network: IpNet = "10.2.0.0/24".parse().unwrap();
        directory
            .networks
            .insert(network.network(), (network, Arc::clone(&zone)));
        directory
            .assets
            .insert("10.2.0.9".parse().unwrap(), ("plc-7".into(), zone));
        let name = |address: &str| directory.name(address.parse().unwrap());
        let asset = Name {
            asset: Some("plc-7"),
            zone: "control",
        };
        assert_eq!(name("10.2.0.9"), Some(asset));
        assert_eq!(name("10.2.0.8"), Some(Name { asset: None, ..asset }));
        assert_eq!(
            (name("10.2.1.0"), name("10.1.255.255"), name("::1")),
            (None, None, None)
        );
    }
}
