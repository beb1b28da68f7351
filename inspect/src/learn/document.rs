//! A proposal as YAML: assets and conduits that a plant document takes as they stand.
//!
//! Beside a plant the proposal is one more file of its folder. Without one it is a whole document: clients are put
//! into a zone `operations`, servers into a zone `control`, with one gateway between them, as a first sketch.

mod allow;
mod apart;
mod claims;
mod flow;
mod frames;
mod head;
mod macs;
mod names;
mod place;
mod shapes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use penstock_policy::document::services::protocol_at;
use penstock_policy::model::{Asset, Plant};

use self::claims::Claimed;
use self::frames::{ProposedFrames, Surroundings};
pub use self::head::beyond_flows;
use self::place::Place;
use super::macs::SeenMacs;
use super::{Ends, EntryKey, EntrySeen, Learned, PortCarrier, Talk};
use crate::replay::Occurrences;

/// How a time is written; the caller knows time zones.
pub type Clock<'c> = dyn Fn(std::time::Duration) -> String + 'c;

/// Writes the proposal. `approver` is the public key of the first approver of a whole document.
pub fn write(learned: &Learned, plant: Option<&Plant>, approver: Option<&str>, clock: &Clock<'_>) -> String {
    let mut out = String::new();
    head::write(&mut out, learned, plant.is_some());
    let unread = learned.unread_packets();
    let (seen, seen_frames) = (&learned.macs, &learned.frames);
    if let Some(plant) = plant {
        macs::of_known(&mut out, seen, plant);
    }
    let gathered = learned;
    let together = plant.map(|plant| by_asset(learned, plant));
    let learned = together.as_ref().unwrap_or(learned);
    let talks = learned.talks.iter();
    // A connection that passes, all of whose operations do, has nothing to propose.
    let talks = talks.filter(|(_, talk)| {
        plant.is_none() || talk.protocol.is_none() || talk.is_read() || !talk.failed.is_empty()
    });
    let (in_vain, talks): (Vec<(&Ends, &Talk)>, Vec<_>) =
        talks.partition(|(_, talk)| apart::came_to_nothing(talk));
    let scanning = apart::scanning(&talks);
    let (probes, talks): (Vec<_>, Vec<_>) = talks
        .into_iter()
        .partition(|(ends, talk)| scanning.contains(&ends.client) && apart::is_probe(ends, talk));
    let servers: BTreeSet<IpAddr> = talks.iter().map(|(ends, _)| ends.server.ip()).collect();
    let clients: BTreeSet<IpAddr> = talks.iter().map(|(ends, _)| ends.client).collect();
    let operating = place::operating(&talks);
    let places = plant.map(place::Places::of);
    let claimed = Claimed::of(gathered, plant, clients.union(&servers).copied());
    if let Some(plant) = plant {
        claimed.of_known(&mut out, plant);
    }
    let place = |address: IpAddr| {
        let mut place = match &places {
            Some(places) => places.within(address)?,
            None => Place::sketched(&operating, address),
        };
        if let Some(name) = claimed.name(address).filter(|_| place.is_new) {
            place.asset.clone_from(name);
        }
        Some(place)
    };
    if talks.iter().any(|(_, talk)| talk.is_read()) {
        out.push_str(
            "# `allow` limits a flow to operations. A gateway whose agent cannot inspect the protocol refuses such a plan whole.\n",
        );
    }
    let around = Surroundings {
        plant,
        macs: seen,
        place: &place,
    };
    let frames = ProposedFrames::of(seen_frames, &around);
    frames.remarks(&mut out);
    if talks.is_empty() && frames.is_empty() {
        out.push_str(match unread {
            0 => "# Nothing is proposed: no connection was seen that needs it.\n",
            _ => "# Nothing is proposed: no connection that could be read needs it.\n",
        });
    }
    if plant.is_none() {
        heading(&mut out, approver);
    } else if !talks.is_empty() || !frames.is_empty() {
        out.push_str("# Everything below WIDENS the existing plant: it is refused today.\n");
    }
    assets(&mut out, clients.union(&servers), &place, (seen, &claimed));
    let writing = Writing {
        plant,
        days: learned.days.count(),
        clock,
    };
    conduits(&mut out, &talks, &frames, &place, &writing);
    apart::write(&mut out, learned, (&in_vain, &probes), plant.is_some(), clock);
    out
}

/// Which talks of this recording, or of a part of it, a proposal lists apart: what came to nothing, and scans.
pub fn apart(learned: &Learned) -> impl Fn(&Ends, &Talk) -> bool {
    let talks = learned.talks.iter();
    let talks: Vec<(&Ends, &Talk)> = talks.filter(|(_, talk)| !apart::came_to_nothing(talk)).collect();
    let scanning = apart::scanning(&talks);
    move |ends, talk| {
        apart::came_to_nothing(talk) || (scanning.contains(&ends.client) && apart::is_probe(ends, talk))
    }
}

/// The talks of an asset's several addresses as one: a flow names assets.
fn by_asset(learned: &Learned, plant: &Plant) -> Learned {
    let mut together = Learned::default();
    together.days = learned.days.clone();
    together.attempts = learned.attempts.clone();
    let of_asset = |asset: &Asset| {
        let first = asset.addresses.first().copied();
        asset
            .addresses
            .iter()
            .map(move |address| (*address, first.unwrap_or(*address)))
            .collect::<Vec<_>>()
    };
    let first: HashMap<IpAddr, IpAddr> = plant.assets.values().flat_map(of_asset).collect();
    let first_of = |address: IpAddr| first.get(&address).copied().unwrap_or(address);
    for (ends, talk) in &learned.talks {
        let ends = Ends {
            client: first_of(ends.client),
            server: SocketAddr::new(first_of(ends.server.ip()), ends.server.port()),
            ..*ends
        };
        together.add(ends, talk.clone());
    }
    together
}

fn heading(out: &mut String, approver: Option<&str>) {
    out.push_str("plant: learned\ntitle: Learned from recorded traffic\n\n");
    match approver {
        Some(key) => {
            let _ = writeln!(
                out,
                "approvers:\n  threshold: 1\n  people:\n    first: {{ key: \"{key}\" }}\n"
            );
        }
        None => out.push_str(
            "# Not valid yet: name who approves. `penstock key new FILE` makes a key.\n\
             # approvers: { threshold: 1, people: { NAME: { key: \"ed25519:...\" } } }\n\n",
        ),
    }
    out.push_str(
        "sites:\n  site: { title: Site, timezone: UTC }\n\n\
         # One gateway in the wire between the two zones: put the real one here, with its interfaces, and with\n\
         # `management`, by which it is reached itself.\n\
         gateways:\n  gw-1:\n    site: site\n    mode: bridged\n    interfaces:\n      \
         eth1: { zone: operations }\n      eth2: { zone: control }\n\n\
         zones:\n  operations: { title: Who opens connections, kind: operations, enforcement: observe }\n  \
         control: { title: Who is opened to, kind: control, enforcement: observe }\n\n",
    );
}

/// Whether a protocol that can be read belongs to the port.
fn known_port(ends: &Ends) -> bool {
    ends.carrier == PortCarrier::Tcp && protocol_at(ends.server.port()).is_some()
}

fn assets<'a>(
    out: &mut String,
    addresses: impl Iterator<Item = &'a IpAddr>,
    place: &dyn Fn(IpAddr) -> Option<Place>,
    (seen, claimed): (&SeenMacs, &Claimed<'_>),
) {
    let mut lines = String::new();
    for address in addresses {
        match place(*address) {
            Some(place) if place.is_new => {
                let (mac, doubt) = macs::of_new(seen, *address);
                let (claims, by) = claimed.of_new(*address);
                let _ = writeln!(
                    lines,
                    "{doubt}{by}  {}: {{ zone: {}, address: \"{address}\"{mac}{claims} }}",
                    place.asset, place.zone
                );
            }
            Some(_) => {}
            None => {
                let _ = writeln!(
                    out,
                    "# {address} lies in no zone of the plant, or is a network's broadcast address: nothing is proposed for it."
                );
            }
        }
    }
    if !lines.is_empty() {
        let _ = writeln!(out, "assets:\n{lines}");
    }
}

/// What all flows are written by.
struct Writing<'w> {
    plant: Option<&'w Plant>,
    /// Days on which anything was seen.
    days: usize,
    clock: &'w Clock<'w>,
}

fn conduits(
    out: &mut String,
    talks: &[(&Ends, &Talk)],
    frames: &ProposedFrames,
    place: &dyn Fn(IpAddr) -> Option<Place>,
    writing: &Writing<'_>,
) {
    let plant = writing.plant;
    let mut by_zones: BTreeMap<(String, String, bool), Flows> = BTreeMap::new();
    for (ends, talk) in talks {
        let (Some(from), Some(to)) = (place(ends.client), place(ends.server.ip())) else {
            continue;
        };
        if from.zone == to.zone {
            inside(out, ends, talk, &from.zone, writing);
            continue;
        }
        let passes =
            talk.has_operations() && plant.is_some_and(|plant| place::passes_without_agent(plant, ends));
        let zones = (from.zone.clone(), to.zone.clone(), passes);
        let flows = by_zones.entry(zones).or_default();
        flow::write(flows, ends, talk, (&from, &to), writing);
    }
    if by_zones.is_empty() && frames.is_empty() {
        return;
    }
    out.push_str("conduits:\n");
    let mut given = BTreeSet::new();
    let mut named = |base: &str| {
        let free = |name: &String| {
            let mut declared = plant.into_iter().flat_map(|plant| plant.conduits.keys());
            !given.contains(name) && !declared.any(|id| id.as_str() == name)
        };
        let base: String = base.chars().take(55).collect();
        let base = base.trim_end_matches(['-', '.']);
        let mut names =
            std::iter::once(base.to_owned()).chain((2..).map(|number| format!("{base}-{number}")));
        let name = names.find(free).unwrap_or_else(|| base.to_owned());
        given.insert(name.clone());
        name
    };
    for ((from, to, passes), flows) in by_zones {
        let name = named(&format!("learned-{from}-{to}"));
        let _ = writeln!(out, "  {name}:\n    from: {from}\n    to: {to}");
        if passes {
            out.push_str(
                "    on_agent_loss: pass # as at the flows that share its connections: `block` would hold for them too\n",
            );
        }
        let _ = write!(out, "    flows:\n{}", flows.in_order());
    }
    frames.write(out, named, writing.clock);
}

/// What needs no conduit, with what it does: no gateway that stands at the zone's border sees it.
fn inside(out: &mut String, ends: &Ends, talk: &Talk, zone: &str, writing: &Writing<'_>) {
    let _ = writeln!(
        out,
        "# {} to {}: inside zone {zone}, which needs no conduit{}",
        ends.client,
        ends.server,
        if talk.is_read() {
            "; what it does there no gateway judges:"
        } else {
            "."
        }
    );
    let lines = talk
        .protocol
        .map(|protocol| allow::needed(protocol, talk, writing.clock));
    for line in lines.into_iter().flatten() {
        let _ = writeln!(out, "#   {} # {}", line.entry, line.remark);
    }
}

/// The flows of one conduit while they are written.
#[derive(Default)]
struct Flows {
    /// How much is to be doubted of each, and its text.
    written: Vec<(u32, String)>,
    names: BTreeSet<String>,
}

impl Flows {
    /// All of them, what is most to be doubted first.
    fn in_order(mut self) -> String {
        self.written.sort_by_key(|(doubt, _)| std::cmp::Reverse(*doubt));
        self.written.into_iter().map(|(_, text)| text).collect()
    }

    /// A name for the flow between two assets: at most 63 characters, and no other flow's. The ends of the assets'
    /// names are kept, since machines of one kind differ there; where that is not enough, a number follows.
    fn name(&mut self, from: &Place, to: &Place, port: u16) -> String {
        let tail = |name: &str| {
            let skipped = name.chars().count().saturating_sub(24);
            name.chars().skip(skipped).collect::<String>()
        };
        let base = format!("{}-to-{}-{port}", tail(&from.asset), tail(&to.asset));
        let base = base.trim_start_matches(['-', '.']);
        let mut name = base.to_owned();
        for number in 2.. {
            if self.names.insert(name.clone()) {
                break;
            }
            name = format!("{base}-{number}");
        }
        name
    }
}

/// "120 times, from 2026-03-01T08:00:00Z to 2026-03-01T09:00:00Z".
fn seen(seen: &Occurrences, clock: &Clock<'_>) -> String {
    let (first, last) = (clock(seen.first), clock(seen.last));
    match seen.count {
        1 => format!("once, at {first}"),
        count if first == last => format!("{count} times, at {first}"),
        count => format!("{count} times, from {first} to {last}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn place(asset: &str) -> Place {
        Place {
            zone: "control".to_owned(),
            asset: asset.to_owned(),
            is_new: false,
        }
    }

    #[test]
    fn flows_of_machines_whose_long_names_end_alike_have_names_of_their_own() {
        let mut flows = Flows::default();
        let ending = "remote-terminal-unit-of-the-upper-works-7";
        let (one, other) = (
            place(&format!("north-{ending}")),
            place(&format!("south-{ending}")),
        );
        let server = place(&format!("historian-{ending}"));
        let names = [
            flows.name(&one, &server, 65_535),
            flows.name(&other, &server, 65_535),
            flows.name(&other, &server, 502),
        ];
        assert_eq!(BTreeSet::from(names.clone()).len(), 3, "{names:?}");
        for name in names {
            penstock_policy::ids::FlowName::new(&name).unwrap();
        }
    }
}
