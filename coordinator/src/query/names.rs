//! The names of an event's addresses, by the release in force when it happened.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use penstock_policy::ids::Revision;
use penstock_proto::refusal::Refusal;
use penstock_proto::v1::{AuditEvent, NamedAddress};

use crate::releases::{Directory, Name, Releases};

/// Releases whose names one search keeps at hand: gateways follow a new one at their own pace.
const HELD_MAX: usize = 4;

/// The names of one release at a time, and of those just before it.
#[derive(Debug, Default)]
pub(super) struct Names {
    revision: u64,
    directory: Arc<Directory>,
    others: VecDeque<(u64, Arc<Directory>)>,
}

impl Names {
    /// From here on events speak of this release; 0: of none.
    pub(super) async fn turn_to(&mut self, revision: u64, releases: &Releases) -> Result<(), Refusal> {
        if self.revision == revision {
            return Ok(());
        }
        let held = self.others.iter().find(|(held, _)| *held == revision);
        let directory = match held {
            Some((_, held)) => Arc::clone(held),
            None if revision == 0 => Arc::default(),
            None => releases.directory(Revision(revision)).await?,
        };
        self.others.retain(|(held, _)| *held != revision);
        let before = std::mem::replace(&mut self.directory, directory);
        self.others.push_back((self.revision, before));
        while self.others.len() >= HELD_MAX {
            self.others.pop_front();
        }
        self.revision = revision;
        Ok(())
    }

    fn name<'n>(&'n self, address: &str) -> Option<Name<'n>> {
        // Without all of this a text is no address that needs a look.
        self.directory.name(address.parse::<IpAddr>().ok()?)
    }

    /// What the event's addresses are called, to be searched.
    pub(super) fn texts<'n>(&'n self, event: &AuditEvent) -> impl Iterator<Item = &'n str> {
        let named = addresses(event).into_iter().flatten();
        let named = named.filter_map(|address| self.name(address)).collect::<Vec<_>>();
        named
            .into_iter()
            .flat_map(|name| [Some(name.zone), name.asset])
            .flatten()
    }

    /// Whether the release that events speak of here is known.
    pub(super) fn are_known(&self) -> bool {
        self.directory.is_known()
    }

    /// The site of a gateway.
    pub(super) fn site(&self, source: &str) -> Option<&str> {
        self.directory.site(source)
    }

    /// The zones of the event's two ends, and those that it names.
    pub(super) fn zones<'n>(&'n self, event: &'n AuditEvent) -> Vec<&'n str> {
        let ends = addresses(event).into_iter().flatten();
        let mut zones: Vec<&str> = ends.filter_map(|end| Some(self.name(end)?.zone)).collect();
        zones.extend(event.described().map(|event| event.zones()).unwrap_or_default());
        zones
    }

    /// The conduits between the zones of the event's two ends.
    pub(super) fn conduits_between(&self, event: &AuditEvent) -> Vec<&str> {
        let Some([one, other]) = addresses(event) else {
            return Vec::new();
        };
        let (Some(one), Some(other)) = (self.name(one), self.name(other)) else {
            return Vec::new();
        };
        self.directory.conduits(one.zone, other.zone).collect()
    }

    /// The event's two ends: their addresses, the assets that have them, and what its writer calls them.
    pub(super) fn assets<'n>(&'n self, event: &'n AuditEvent) -> Vec<Cow<'n, str>> {
        let ends = addresses(event).into_iter().flatten();
        let mut assets: Vec<Cow<'_, str>> = ends
            .flat_map(|end| {
                let asset = self.name(end).and_then(|name| name.asset);
                [Some(normal(end)), asset.map(Cow::Borrowed)]
            })
            .flatten()
            .collect();
        let own = event.described().map(|event| event.ends()).unwrap_or_default();
        assets.extend(own.into_iter().map(Cow::Borrowed));
        assets
    }

    /// The time zone of a source's site; empty: not known.
    pub(super) fn time_zone(&self, source: &str) -> String {
        self.directory.time_zone(source).unwrap_or_default().to_owned()
    }
}

/// A text as it is compared with others of its kind: an IPv6 address has many spellings.
pub(super) fn normal(text: &str) -> Cow<'_, str> {
    match text.parse::<IpAddr>() {
        Ok(address) => Cow::Owned(address.to_canonical().to_string()),
        Err(_) => Cow::Borrowed(text),
    }
}

/// The two addresses that an event is about.
fn addresses(event: &AuditEvent) -> Option<[&str; 2]> {
    event.described()?.addresses()
}

/// The names of an event's addresses, for its reader.
pub(super) fn named(event: &AuditEvent, names: &Names) -> Vec<NamedAddress> {
    let addresses = addresses(event).into_iter().flatten();
    let named = addresses.filter_map(|address| {
        let name = names.name(address)?;
        Some(NamedAddress {
            address: address.to_owned(),
            asset: name.asset.unwrap_or_default().to_owned(),
            zone: name.zone.to_owned(),
        })
    });
    named.collect()
}
