//! What becomes of more boxes than a sheet has room for: those with the same partners stand in one list; if that is not enough, the ones
//! with the most conduits stay, and the others of each layer stand in one list.

use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::ids::{ConduitId, ZoneId};
use penstock_policy::model::Conduit;

use super::{Boxed, Cluster, Layer};

/// One in so many boxes is kept for the cards with the most conduits, where nothing else makes room: more of their wires are not to be told apart.
const KEPT: usize = 5;

/// What a cluster is joined with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Partner<'a> {
    Cluster(usize),
    Room(&'a ZoneId),
}

/// At most about `room_for` boxes.
pub(super) fn gather<'a>(
    clusters: Vec<Cluster<'a>>,
    conduits: &[(&'a ConduitId, &'a Conduit)],
    room_for: usize,
) -> Vec<Boxed<'a>> {
    if clusters.len() <= room_for {
        return clusters.into_iter().map(Boxed::Cluster).collect();
    }
    let mut of: BTreeMap<&ZoneId, usize> = BTreeMap::new();
    for (ix, cluster) in clusters.iter().enumerate() {
        of.extend(cluster.zones().map(|zone| (zone, ix)));
    }
    let mut partners: Vec<BTreeSet<Partner<'a>>> = vec![BTreeSet::new(); clusters.len()];
    let mut weight = vec![0_usize; clusters.len()];
    for (_, conduit) in conduits {
        for (one, other) in [(&conduit.from, &conduit.to), (&conduit.to, &conduit.from)] {
            let Some(ix) = of.get(one).copied() else { continue };
            let partner = of
                .get(other)
                .map_or(Partner::Room(other), |other| Partner::Cluster(*other));
            if let (Some(partners), Some(weight)) = (partners.get_mut(ix), weight.get_mut(ix))
                && partner != Partner::Cluster(ix)
            {
                partners.insert(partner);
                *weight += 1;
            }
        }
    }
    let mut classes: BTreeMap<(Layer, &BTreeSet<Partner<'a>>), Vec<usize>> = BTreeMap::new();
    for (ix, (cluster, partners)) in clusters.iter().zip(&partners).enumerate() {
        classes.entry((cluster.layer, partners)).or_default().push(ix);
    }
    let mut groups: Vec<Vec<usize>> = classes.into_values().collect();
    if groups.len() > room_for {
        let mut heaviest: Vec<usize> = (0..clusters.len()).collect();
        heaviest.sort_by_key(|ix| (std::cmp::Reverse(weight.get(*ix)), *ix));
        let rest = heaviest.split_off((room_for / KEPT).min(heaviest.len()));
        let mut lists: BTreeMap<Layer, Vec<usize>> = BTreeMap::new();
        for ix in rest {
            if let Some(cluster) = clusters.get(ix) {
                lists.entry(cluster.layer).or_default().push(ix);
            }
        }
        groups = heaviest
            .into_iter()
            .map(|ix| vec![ix])
            .chain(lists.into_values())
            .collect();
    }
    for group in &mut groups {
        group.sort_unstable();
    }
    groups.sort_unstable();
    let mut clusters: Vec<Option<Cluster<'a>>> = clusters.into_iter().map(Some).collect();
    let boxes = groups.into_iter().filter_map(|group| {
        let taken = group
            .into_iter()
            .filter_map(|ix| clusters.get_mut(ix).and_then(Option::take));
        let mut taken: Vec<Cluster<'a>> = taken.collect();
        let layer = taken.first()?.layer;
        match taken.len() {
            1 => taken.pop().map(Boxed::Cluster),
            _ => Some(Boxed::List(taken, layer)),
        }
    });
    boxes.collect()
}
