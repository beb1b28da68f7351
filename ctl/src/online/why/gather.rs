//! Refusals of the trail, put together: one group for each thing that was refused, however often.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use penstock_inspect::query::Query;
use penstock_policy::verdict::{Carried, Connection};
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AuditRecord, Decision, LearnedRange, NamedAddress, SearchAuditRequest};

use crate::failure::Failure;
use crate::online::{Online, trail};

/// Different things that are kept apart; further ones are counted.
const GROUPS_MAX: usize = 1_000;

/// One end of what was refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::online) struct RefusedEnd {
    pub(super) address: String,
    /// Its names by the release in force then.
    pub(super) asset: Option<String>,
    pub(super) zone: Option<String>,
}

/// What was refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    observed: bool,
    source: String,
    destination: String,
    protocol: u32,
    port: u32,
    operation: Option<String>,
    /// Of what has no addresses: why it was refused, and between which interfaces.
    beside_ip: Option<(String, [String; 2])>,
}

/// One thing that was refused, and when.
#[derive(Debug, Clone)]
pub(in crate::online) struct Group {
    /// It passed, as its zones only observe.
    pub(super) observed: bool,
    pub(super) from: RefusedEnd,
    pub(super) to: RefusedEnd,
    /// IP protocol number.
    pub(super) protocol: u32,
    pub(super) port: u32,
    /// The operation by its words, where the connection itself passed.
    pub(super) operation: Option<String>,
    /// The least and the greatest value that a refused write carried.
    pub(super) values: Option<LearnedRange>,
    pub(super) count: u64,
    pub(super) first_ms: u64,
    pub(in crate::online) last_ms: u64,
    pub(super) severity: i32,
    /// Of the last time: the release in force, the gateway, its site's zone, and its words.
    pub(in crate::online) revision: u64,
    pub(super) gateway: String,
    pub(super) time_zone: String,
    pub(in crate::online) reason: String,
    /// The interfaces by which it came and would have left; empty where the event does not say.
    pub(super) interfaces: [String; 2],
}

/// To or by whom something was refused.
#[derive(Debug)]
pub(in crate::online) enum Subject {
    /// An asset, by its name or its address.
    Asset(String),
    /// Whatever lay in a zone, or crossed one of the sides at which it lies: a gateway, and an interface of it.
    Zone(String, BTreeSet<(String, String)>),
}

/// What was refused to or by one subject.
#[derive(Debug)]
pub(in crate::online) struct Refusals {
    subject: Subject,
    groups: BTreeMap<Key, Group>,
    /// There were more records, or more different things, than are looked at.
    pub(in crate::online) cut: bool,
}

impl Refusals {
    pub(in crate::online) fn of(subject: Subject) -> Self {
        Self {
            subject,
            groups: BTreeMap::new(),
            cut: false,
        }
    }

    /// Takes what the coordinator finds.
    pub(super) async fn read(
        &mut self,
        online: &mut Online,
        request: SearchAuditRequest,
    ) -> Result<(), Failure> {
        let (records, cut) = trail::newest(online, request).await?;
        self.cut |= cut;
        records.into_iter().for_each(|record| self.take(record));
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// What was dropped before what only would have been; then by severity, and the latest first.
    pub(in crate::online) fn worst_first(&mut self) -> Vec<Group> {
        let mut all: Vec<Group> = std::mem::take(&mut self.groups).into_values().collect();
        all.sort_by_key(|group| {
            (
                group.observed,
                -i64::from(group.severity),
                u64::MAX - group.last_ms,
            )
        });
        all
    }

    /// Whether an end is the subject: by its address, by its name then, or by the name that the gateway itself gave it.
    fn is_about(&self, group: &Group, [client, server]: &[String; 2]) -> bool {
        let ends = [(&group.from, client), (&group.to, server)];
        match &self.subject {
            Subject::Zone(zone, sides) => {
                let mut interfaces = group.interfaces.iter();
                ends.iter().any(|(end, _)| end.zone.as_ref() == Some(zone))
                    || interfaces.any(|name| sides.contains(&(group.gateway.clone(), name.clone())))
            }
            // An address is searched for as it is written in events.
            Subject::Asset(subject) => ends.iter().any(|(end, own)| {
                normal(&end.address) == *subject || end.asset.as_ref() == Some(subject) || *own == subject
            }),
        }
    }

    /// Takes one record, if it is about the subject.
    pub(in crate::online) fn take(&mut self, record: AuditRecord) {
        let Some((group, own)) = Group::of(record) else {
            return;
        };
        let key = key_of(&group);
        if !self.is_about(&group, &own) {
            return;
        }
        if let Some(known) = self.groups.get_mut(&key) {
            known.and(group);
        } else if self.groups.len() < GROUPS_MAX {
            self.groups.insert(key, group);
        } else {
            self.cut = true;
        }
    }
}

/// A text as events write it, where it is an address: `fd00::9`, however it was typed.
pub(super) fn normal(text: &str) -> String {
    let address = text.parse::<IpAddr>();
    address.map_or_else(|_| text.to_owned(), |address| address.to_canonical().to_string())
}

fn key_of(group: &Group) -> Key {
    Key {
        observed: group.observed,
        source: group.from.address.clone(),
        destination: group.to.address.clone(),
        protocol: group.protocol,
        port: group.port,
        operation: group.operation.clone(),
        beside_ip: group
            .is_beside_ip()
            .then(|| (group.reason.clone(), group.interfaces.clone())),
    }
}

fn named(address: &str, names: &[NamedAddress]) -> RefusedEnd {
    let named = names.iter().find(|named| named.address == address);
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    RefusedEnd {
        address: address.to_owned(),
        asset: named.and_then(|named| given(&named.asset)),
        zone: named.and_then(|named| given(&named.zone)),
    }
}

impl Group {
    /// What one record says was decided, and what its gateway itself calls the two ends.
    pub(in crate::online) fn of(record: AuditRecord) -> Option<(Self, [String; 2])> {
        let event = record.event.unwrap_or_default();
        let end = |address: &str| named(address, &record.names);
        Some(match event.kind {
            Some(Kind::Verdict(verdict)) => {
                let group = Self {
                    observed: verdict.decision() == Decision::WouldDeny,
                    from: end(&verdict.source),
                    to: end(&verdict.destination),
                    protocol: verdict.protocol,
                    port: verdict.port,
                    operation: None,
                    values: None,
                    count: verdict.count,
                    first_ms: verdict.first_ms,
                    last_ms: event.time_ms,
                    severity: event.severity,
                    revision: event.revision,
                    gateway: record.source,
                    time_zone: record.time_zone,
                    reason: verdict.reason,
                    interfaces: [verdict.ingress, verdict.egress],
                };
                (group, [String::new(), String::new()])
            }
            Some(Kind::Operation(operation)) => {
                let group = Self {
                    observed: operation.decision() == Decision::WouldDeny,
                    from: end(&operation.client),
                    to: end(&operation.server),
                    protocol: 6,
                    port: operation.port,
                    operation: Some(operation.operation),
                    values: operation.values,
                    count: operation.count,
                    first_ms: operation.first_ms,
                    last_ms: event.time_ms,
                    severity: event.severity,
                    revision: event.revision,
                    gateway: record.source,
                    time_zone: record.time_zone,
                    reason: operation.reason,
                    interfaces: <[String; 2]>::default(),
                };
                (group, [operation.client_name, operation.server_name])
            }
            _ => return None,
        })
    }

    /// It carries neither IP nor ARP.
    pub(super) fn is_beside_ip(&self) -> bool {
        self.from.address.is_empty() && self.to.address.is_empty()
    }

    /// The same thing at another time.
    fn and(&mut self, other: Group) {
        let (count, first_ms) = (
            self.count.saturating_add(other.count),
            self.first_ms.min(other.first_ms),
        );
        let severity = self.severity.max(other.severity);
        let values = match (self.values, other.values) {
            (Some(one), Some(two)) => Some(LearnedRange {
                first: one.first.min(two.first),
                last: one.last.max(two.last),
            }),
            // Where one of them does not say its values, all of them are not known.
            _ => None,
        };
        if other.last_ms > self.last_ms {
            *self = other;
        }
        (self.count, self.first_ms, self.severity, self.values) = (count, first_ms, severity, values);
    }

    /// The operation with one of the values that it carried; `None` where its words do not read back exactly as they are, or
    /// it writes and no value is known.
    pub(super) fn asked(&self, value: Option<u32>) -> Option<Query> {
        trail::asked(self.operation.as_ref()?, value, self.values.is_some())
    }

    /// How it was carried; `None` for a number that is none.
    pub(super) fn carried(&self) -> Option<Carried> {
        let port = u16::try_from(self.port).ok()?;
        Some(match self.protocol {
            6 => Carried::Tcp(port),
            17 => Carried::Udp(port),
            // The event does not say which ICMP: a rule is only looked for, and missed, where it is an echo.
            1 | 58 if self.reason.starts_with("no flow permits it") => Carried::IcmpEcho,
            other => Carried::Other(u8::try_from(other).ok()?),
        })
    }

    /// As it crossed its gateway; where the event does not say by which interfaces, by those on whose sides the ends live.
    pub(super) fn connection(&self, side: impl Fn(IpAddr) -> Option<String>) -> Option<Connection> {
        let (source, destination) = (self.from.address.parse().ok()?, self.to.address.parse().ok()?);
        // What was dropped where it came in has no interface on the other side.
        let [ingress, egress] = match self.interfaces.iter().any(String::is_empty) {
            false => self.interfaces.clone(),
            true => [side(source)?, side(destination)?],
        };
        Some(Connection {
            ingress,
            egress,
            source,
            destination,
            transport: self.carried()?,
        })
    }

    /// The server as people call it.
    pub(super) fn server_shown(&self) -> String {
        self.to.asset.clone().unwrap_or_else(|| self.to.address.clone())
    }
}
