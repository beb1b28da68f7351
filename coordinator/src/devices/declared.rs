//! What the release in force says of devices: by which addresses and names each serves, and which gateways stand at its zone; and what addresses these have themselves.
//!
//! A document is read whole for it, which takes a moment on a large plant; so what was read is kept until another release is in force.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use penstock_policy::ids::{AssetId, Digest, GatewayId, Revision, ZoneId};
use penstock_policy::model::{FlowEnd, Plant};
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::names::{NAMES_MAX, NamesError, ServerNames};
use tokio::sync::Mutex;

use crate::releases::Releases;

/// The devices of one release.
#[derive(Debug)]
pub(crate) struct Declared {
    revision: Revision,
    assets: HashMap<AssetId, DeclaredDevice>,
    /// The gateways at each zone.
    gateways: HashMap<ZoneId, BTreeSet<GatewayId>>,
    /// The addresses of each gateway itself.
    own: HashMap<GatewayId, BTreeSet<IpAddr>>,
}

#[derive(Debug)]
struct DeclaredDevice {
    zone: ZoneId,
    names: Result<ServerNames, NamesError>,
}

impl Declared {
    /// Those of the release in force.
    pub(crate) async fn read(releases: &Releases) -> Result<Self, Refusal> {
        let (revision, plant) = releases.plant().await?;
        Ok(Self::of(revision, &plant))
    }

    fn of(revision: Revision, plant: &Plant) -> Self {
        let mut called = called(plant);
        let assets = plant.assets.iter().map(|(id, asset)| {
            let mut names = ServerNames::default();
            names.extend(asset.addresses.iter().copied());
            let written = called.remove(id).unwrap_or_default();
            let added = written.iter().try_for_each(|name| names.add(name));
            let device = DeclaredDevice {
                zone: asset.zone.clone(),
                names: added.map(|()| names),
            };
            (id.clone(), device)
        });
        let mut gateways: HashMap<ZoneId, BTreeSet<GatewayId>> = HashMap::new();
        let sides = plant.gateways.iter().flat_map(|(gateway, declared)| {
            let sides = declared.interfaces.values();
            sides.map(move |side| (gateway, side))
        });
        let mut own: HashMap<GatewayId, BTreeSet<IpAddr>> = HashMap::new();
        for (gateway, side) in sides {
            let addresses = side.addresses.iter().map(IpNet::addr);
            own.entry(gateway.clone()).or_default().extend(addresses);
            for zone in std::iter::once(&side.zone).chain(&side.behind) {
                gateways.entry(zone.clone()).or_default().insert(gateway.clone());
            }
        }
        Self {
            revision,
            assets: assets.collect(),
            gateways,
            own,
        }
    }

    /// What an asset serves by: its addresses, and the DNS names that flows to it expect in a certificate of the plant's authority.
    ///
    /// # Errors
    /// There is no such asset, or a certificate cannot carry its names.
    pub(crate) fn names(&self, asset: &AssetId) -> Result<ServerNames, Refusal> {
        let unusable = |words: String| Refusal::new(Reason::DocumentErrors, words);
        let device = self.device(asset)?;
        let names = device
            .names
            .clone()
            .map_err(|error| unusable(error.to_string()))?;
        if names.len() > NAMES_MAX {
            return Err(unusable(format!(
                "{asset} has {} addresses and names, and a certificate carries at most {NAMES_MAX}",
                names.len()
            )));
        }
        Ok(names)
    }

    /// The same for one that asks through a gateway, which has to stand at its zone.
    ///
    /// # Errors
    /// As [`Self::names`], or the gateway stands elsewhere.
    pub(crate) fn served(
        &self,
        asset: &AssetId,
        through: Option<&GatewayId>,
    ) -> Result<ServerNames, Refusal> {
        let zone = &self.device(asset)?.zone;
        if let Some(gateway) = through
            && !self.gateways.get(zone).is_some_and(|at| at.contains(gateway))
        {
            let words = format!(
                "{asset} is in zone {zone}, and gateway/{gateway} does not stand there by {}: no device enrols through a gateway of elsewhere",
                self.revision
            );
            return Err(Refusal::new(Reason::WrongKindOfPeer, words));
        }
        self.names(asset)
    }

    /// Whether an address is a gateway's own.
    pub(crate) fn is_own(&self, gateway: &GatewayId, address: IpAddr) -> bool {
        self.own
            .get(gateway)
            .is_some_and(|addresses| addresses.contains(&address))
    }

    fn device(&self, asset: &AssetId) -> Result<&DeclaredDevice, Refusal> {
        self.assets.get(asset).ok_or_else(|| {
            let revision = self.revision;
            let words = format!(
                "there is no asset {asset} in {revision}, the current release; a device has to be declared and approved \
                 before it gets a certificate"
            );
            Refusal::new(Reason::NotFound, words).field("asset", format!("{asset} is not in {revision}"))
        })
    }
}

/// The DNS names that flows expect at each asset in a certificate of the plant's authority.
fn called(plant: &Plant) -> HashMap<AssetId, Vec<String>> {
    let mut called: HashMap<AssetId, Vec<String>> = HashMap::new();
    for flow in plant.conduits.values().flat_map(|conduit| conduit.flows.values()) {
        // A bridge connects to its source, too.
        let source = flow.bridge_source.as_ref().and_then(|source| source.tls.as_ref());
        for (ends, tls) in [(&flow.destinations, flow.tls.as_ref()), (&flow.sources, source)] {
            let name = tls
                .filter(|tls| tls.server_authorities.is_none() && tls.plain_port.is_none())
                .and_then(|tls| tls.server_name.as_ref());
            let Some(name) = name else {
                continue;
            };
            for end in ends {
                if let FlowEnd::Asset(asset, _) = end {
                    called.entry(asset.clone()).or_default().push(name.clone());
                }
            }
        }
    }
    called
}

/// The digest of a release's statement, and its devices.
type Kept = Option<(Digest, Arc<Declared>)>;

/// The devices of the release in force, kept while it is. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct DeclaredDevices {
    releases: Releases,
    /// Of the statement with this digest. Held while one is read: who wants the same meanwhile finds it then.
    kept: Arc<Mutex<Kept>>,
}

impl DeclaredDevices {
    /// Those of the releases here.
    pub(crate) fn new(releases: Releases) -> Self {
        Self {
            releases,
            kept: Arc::default(),
        }
    }

    /// Those of the release in force.
    ///
    /// # Errors
    /// There is none yet, or it cannot be read now.
    pub(crate) async fn now(&self) -> Result<Arc<Declared>, Refusal> {
        let mut kept = self.kept.lock().await;
        let current = self.releases.now().map(|current| current.recorded.digest);
        if let (Some((digest, declared)), Some(current)) = (&*kept, current)
            && *digest == current
        {
            return Ok(declared.clone());
        }
        let declared = Arc::new(Declared::read(&self.releases).await?);
        let is_still = self.releases.now().map(|now| now.recorded.digest) == current;
        *kept = current
            .filter(|_| is_still)
            .map(|digest| (digest, declared.clone()));
        Ok(declared)
    }
}
