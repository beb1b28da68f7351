//! What is known of a plant's parts, looked up once: where each zone lies, what is in it, what is not as it should be.

use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::assurance::{FlowAssurance, by_flow};
use penstock_policy::check::{Severity, acceptance, check, main_subject};
use penstock_policy::document::definitions::Defined;
use penstock_policy::ids::{AssetId, ConduitId, FlowName, GatewayId, SiteId, ZoneId};
use penstock_policy::model::{Asset, Enforcer, Plant};
use penstock_policy::plan::Plan;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Notice {
    /// An error, and no warning.
    pub(super) error: bool,
    /// A code or a few words.
    pub(super) words: String,
    /// The whole sentence.
    pub(super) sentence: String,
}

/// A plant with what is looked up in it.
pub(super) struct Facts<'a> {
    pub(super) plant: &'a Plant,
    /// Conduits that are open only while a grant of remote access lasts.
    pub(super) limited: BTreeSet<&'a ConduitId>,
    /// When grants open a conduit, milliseconds since 1970.
    pub(super) grants: BTreeMap<&'a ConduitId, Vec<(u64, u64)>>,
    /// How well the ends of each flow are known.
    pub(super) known: BTreeMap<(&'a ConduitId, &'a FlowName), FlowAssurance>,
    /// The assets of each zone.
    pub(super) assets: BTreeMap<&'a ZoneId, Vec<(&'a AssetId, &'a Asset)>>,
    /// The site of each zone that lies at one.
    pub(super) site_of: BTreeMap<&'a ZoneId, &'a SiteId>,
    /// The gateways of each site.
    pub(super) gateways: BTreeMap<&'a SiteId, Vec<&'a GatewayId>>,
    at_zones: BTreeMap<ZoneId, Vec<Notice>>,
    at_conduits: BTreeMap<ConduitId, Vec<Notice>>,
    at_gateways: BTreeMap<GatewayId, Vec<Notice>>,
}

impl<'a> Facts<'a> {
    /// Looks it all up; `plans` are the plant's, empty where it cannot be compiled.
    pub(super) fn of(plant: &'a Plant, plans: &'a BTreeMap<GatewayId, Plan>) -> Self {
        let mut facts = Self {
            plant,
            limited: plant.limited(),
            grants: BTreeMap::new(),
            known: by_flow(plant, plans),
            assets: BTreeMap::new(),
            site_of: site_of(plant),
            gateways: BTreeMap::new(),
            at_zones: BTreeMap::new(),
            at_conduits: BTreeMap::new(),
            at_gateways: BTreeMap::new(),
        };
        for grant in plant.remote_access.values() {
            let of_conduit = facts.grants.entry(&grant.conduit).or_default();
            of_conduit.push((grant.from_ms, grant.until_ms));
        }
        for (id, asset) in &plant.assets {
            facts.assets.entry(&asset.zone).or_default().push((id, asset));
        }
        for (id, gateway) in &plant.gateways {
            facts.gateways.entry(&gateway.site).or_default().push(id);
        }
        // Also a plant without gateways has findings; one that cannot be compiled has no plans to look at.
        if plans.len() == plant.gateways.len() {
            facts.find(plans);
        }
        facts.expire();
        facts
    }

    /// What is in a zone.
    pub(super) fn assets_of(&self, zone: &ZoneId) -> &[(&'a AssetId, &'a Asset)] {
        self.assets.get(zone).map_or(&[], Vec::as_slice)
    }

    /// The gateways of a site.
    pub(super) fn gateways_of(&self, site: &SiteId) -> &[&'a GatewayId] {
        self.gateways.get(site).map_or(&[], Vec::as_slice)
    }

    /// What is not as it should be in a zone.
    pub(super) fn of_zone(&self, zone: &ZoneId) -> &[Notice] {
        self.at_zones.get(zone).map_or(&[], Vec::as_slice)
    }

    /// The same of a conduit.
    pub(super) fn of_conduit(&self, conduit: &ConduitId) -> &[Notice] {
        self.at_conduits.get(conduit).map_or(&[], Vec::as_slice)
    }

    /// The same of a gateway.
    pub(super) fn of_gateway(&self, gateway: &GatewayId) -> &[Notice] {
        self.at_gateways.get(gateway).map_or(&[], Vec::as_slice)
    }

    /// That nobody enforces a conduit, if so.
    pub(super) fn unguarded(&self, conduit: &ConduitId) -> Option<Notice> {
        let record = self.plant.conduits.get(conduit)?;
        let words = match &record.enforced_by {
            Enforcer::Nobody => "nobody enforces it yet",
            Enforcer::Gateways if record.via.is_empty() => "no gateway guards it",
            Enforcer::Gateways | Enforcer::Other(_) => return None,
        };
        Some(Notice {
            error: false,
            words: "not enforced".to_owned(),
            sentence: format!("conduit {conduit}: {words}"),
        })
    }

    /// What `check` finds, but for notes and for what people accepted.
    fn find(&mut self, plans: &BTreeMap<GatewayId, Plan>) {
        for finding in check(self.plant, plans, None) {
            if finding.severity == Severity::Note || acceptance(self.plant, &finding).is_some() {
                continue;
            }
            let Some((kind, name)) = main_subject(self.plant, &finding) else {
                continue;
            };
            let words = match kind {
                Defined::Asset | Defined::Gateway => format!("{} at {name}", finding.code),
                Defined::Flow | Defined::Conduit | Defined::Zone => finding.code.to_owned(),
            };
            let notice = Notice {
                error: finding.severity == Severity::Error,
                words,
                sentence: finding.words,
            };
            self.add(kind, &name, notice);
        }
    }

    /// Compensating controls whose last day has passed.
    fn expire(&mut self) {
        let plant = self.plant;
        for (id, control) in plant
            .compensating_controls
            .iter()
            .filter(|(_, control)| control.expired)
        {
            let subjects = [
                control.zone.as_ref().map(|id| (Defined::Zone, id.to_string())),
                control.asset.as_ref().map(|id| (Defined::Asset, id.to_string())),
                control
                    .conduit
                    .as_ref()
                    .map(|id| (Defined::Conduit, id.to_string())),
            ];
            for (kind, name) in subjects.into_iter().flatten() {
                let notice = Notice {
                    error: false,
                    words: format!("control {id} expired"),
                    sentence: format!("the compensating control {id} expired on {}", control.expires),
                };
                self.add(kind, &name, notice);
            }
        }
    }

    fn add(&mut self, kind: Defined, name: &str, notice: Notice) {
        let conduit = name.split('/').next().unwrap_or_default();
        let list = match kind {
            Defined::Flow | Defined::Conduit => conduit
                .parse()
                .ok()
                .map(|id| self.at_conduits.entry(id).or_default()),
            Defined::Zone => name.parse().ok().map(|id| self.at_zones.entry(id).or_default()),
            Defined::Asset => {
                let asset = name
                    .parse()
                    .ok()
                    .and_then(|id: AssetId| self.plant.assets.get(&id));
                asset.map(|asset| self.at_zones.entry(asset.zone.clone()).or_default())
            }
            Defined::Gateway => name
                .parse()
                .ok()
                .map(|id| self.at_gateways.entry(id).or_default()),
        };
        if let Some(list) = list {
            list.push(notice);
        }
    }
}

/// The site of each zone: where all gateways stand that it is attached to, or, if it is attached to none, all by which it is reached;
/// else where the zone lies that contains it. A zone that several sites have lies between them, and at none.
fn site_of(plant: &Plant) -> BTreeMap<&ZoneId, &SiteId> {
    let mut attached: BTreeMap<&ZoneId, BTreeSet<&SiteId>> = BTreeMap::new();
    let mut reached: BTreeMap<&ZoneId, BTreeSet<&SiteId>> = BTreeMap::new();
    for gateway in plant.gateways.values() {
        for (name, interface) in &gateway.interfaces {
            // What lies behind a tunnel is at its other end.
            let here = if gateway.tunnels.contains_key(name) {
                &mut reached
            } else {
                &mut attached
            };
            here.entry(&interface.zone).or_default().insert(&gateway.site);
            for zone in &interface.behind {
                reached.entry(zone).or_default().insert(&gateway.site);
            }
        }
    }
    let only = |zone: &ZoneId| {
        let sites = attached.get(zone).or_else(|| reached.get(zone))?;
        sites.first().filter(|_| sites.len() == 1).copied()
    };
    let mut sites = BTreeMap::new();
    for (id, zone) in &plant.zones {
        let mut known = only(id);
        let at_a_gateway = attached.contains_key(id) || reached.contains_key(id);
        let mut around = zone.parent.as_ref().filter(|_| !at_a_gateway);
        // Zones contain one another in no circle; as many steps as there are zones would show one.
        for _ in 0..plant.zones.len() {
            let Some(outer) = around.filter(|_| known.is_none()) else {
                break;
            };
            known = only(outer);
            around = plant.zones.get(outer).and_then(|zone| zone.parent.as_ref());
        }
        if let Some(site) = known {
            sites.insert(id, site);
        }
    }
    sites
}

/// The first few of some names, and how many more there are.
pub(super) fn some_names<T: ToString>(names: impl IntoIterator<Item = T>, shown: usize) -> String {
    let mut names = names.into_iter();
    let first: Vec<String> = names.by_ref().take(shown).map(|name| name.to_string()).collect();
    match names.count() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// `1 zone`, `3 zones`.
pub(super) fn count(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}
