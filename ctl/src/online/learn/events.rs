//! From events of the trail to talks. What a gateway says is checked like any other input: numbers have their ranges,
//! operations their names; what does not fit is no talk.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use penstock_inspect::capture::link::is_group;
use penstock_inspect::learn::{Ends, EntryKey, EntrySeen, PortCarrier, Talk};
use penstock_inspect::replay::Occurrences;
use penstock_policy::protocol::Protocol;
use penstock_policy::terms::Mac;
use penstock_proto::learned::{self, LearnedEntry};
use penstock_proto::v1::{LearnedEvent, VerdictEvent};

/// Why a verdict counts for no talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::online) enum NotCounted {
    /// What it tells of has no ports.
    Portless,
    /// It went to a group, which no flow can name.
    Group,
    /// It means nothing.
    Unusable,
}

/// What a gateway learned of two ends.
pub(in crate::online) fn learned(event: LearnedEvent) -> Option<(Ends, Talk)> {
    let ends = ends(&event.source, &event.destination, event.protocol, event.port)?;
    let protocol = Protocol::of(&event.application)?;
    let mut talk = Talk::new(Duration::from_millis(event.first_ms), Some(protocol));
    talk.connections = seen(event.connections, event.first_ms, event.last_ms)?;
    (talk.further, talk.unread) = (event.further, event.unread);
    (talk.in_order, talk.misfits) = (event.in_order, event.misfits);
    talk.guessed = event.guessed;
    talk.opened = event.connections.saturating_sub(event.guessed);
    for ms in [event.first_ms, event.last_ms] {
        talk.days.add(Duration::from_millis(ms));
    }
    for entry in learned::entries(&event, protocol)? {
        let (key, seen) = operations(entry)?;
        talk.operations.insert(key, seen);
    }
    talk.names.extend(event.client_ids);
    Some((ends, talk))
}

/// Behind which MAC addresses a gateway saw an address.
pub(in crate::online) fn binding(event: &LearnedEvent) -> Option<(IpAddr, impl Iterator<Item = Mac>)> {
    let address: IpAddr = event.source.parse().ok()?;
    let binding = event.binding.as_ref()?;
    let mac: Mac = binding.mac.parse().ok()?;
    let before = match binding.previous_mac.as_str() {
        "" => None,
        before => Some(before.parse().ok()?),
    };
    Some((address, before.into_iter().chain([mac])))
}

/// What a gateway counted by its verdicts.
pub(in crate::online) fn counted(verdict: &VerdictEvent) -> Result<(Ends, Talk), NotCounted> {
    if !matches!(verdict.protocol, 6 | 17) {
        return Err(NotCounted::Portless);
    }
    let ends = ends(
        &verdict.source,
        &verdict.destination,
        verdict.protocol,
        verdict.port,
    );
    let packets = seen(verdict.count, verdict.first_ms, verdict.last_ms);
    let (Some(ends), Some(packets)) = (ends, packets) else {
        return Err(NotCounted::Unusable);
    };
    if is_group(ends.server.ip()) {
        return Err(NotCounted::Group);
    }
    let mut talk = Talk::new(packets.first, None);
    talk.packets = Some(packets);
    for at in [packets.first, packets.last] {
        talk.days.add(at);
    }
    Ok((ends, talk))
}

fn ends(source: &str, destination: &str, protocol: u32, port: u32) -> Option<Ends> {
    let destination: IpAddr = destination.parse().ok()?;
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    Some(Ends {
        client: source.parse().ok()?,
        server: SocketAddr::new(destination, port),
        carrier: match protocol {
            6 => PortCarrier::Tcp,
            17 => PortCarrier::Udp,
            _ => return None,
        },
    })
}

fn seen(count: u64, first_ms: u64, last_ms: u64) -> Option<Occurrences> {
    let (first, last) = (Duration::from_millis(first_ms), Duration::from_millis(last_ms));
    (first <= last).then_some(Occurrences { count, first, last })
}

fn operations(told: LearnedEntry) -> Option<(EntryKey, EntrySeen)> {
    let key = EntryKey {
        numbers: told.numbers,
        operation: told.operation,
        texts: told.texts,
        written: told.written,
    };
    let seen = EntrySeen {
        seen: seen(told.count, told.first_ms, told.last_ms)?,
        sets: told.sets.into(),
    };
    Some((key, seen))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use penstock_proto::v1::{LearnedModbus, LearnedRange};

    use super::*;

    fn event() -> LearnedEvent {
        LearnedEvent {
            source: "10.1.0.5".into(),
            destination: "fd00::9".into(),
            protocol: 6,
            port: 502,
            application: "modbus-tcp".into(),
            modbus: vec![LearnedModbus {
                unit: 1,
                function: "read-coils".into(),
                count: 3,
                write: vec![LearnedRange { first: 0, last: 9 }],
                ..LearnedModbus::default()
            }],
            ..LearnedEvent::default()
        }
    }

    #[test]
    fn what_a_gateway_learned_becomes_a_talk() {
        let (ends, talk) = learned(event()).unwrap();
        assert_eq!(ends.server.to_string(), "[fd00::9]:502");
        assert_eq!(talk.operations.values().next().unwrap().seen.count, 3);
    }

    #[test]
    fn a_field_that_cannot_be_makes_no_talk() {
        let spoilt: [fn(&mut LearnedEvent); 9] = [
            |e| e.source = "everywhere".into(),
            |e| e.port = 65_536,
            |e| e.port = 0,
            |e| e.protocol = 1,
            |e| e.application = "telnet".into(),
            |e| e.modbus[0].unit = 256,
            |e| e.modbus[0].function = "read-coils: {} }\nzones:".into(),
            |e| e.modbus[0].write[0].last = 70_000,
            |e| e.first_ms = e.last_ms + 1,
        ];
        for spoil in spoilt {
            let mut event = event();
            spoil(&mut event);
            assert!(learned(event.clone()).is_none(), "{event:?}");
        }
    }

    #[test]
    fn a_mac_address_that_cannot_be_one_is_none() {
        let seen = |mac: &str, before: &str| {
            let event = LearnedEvent {
                source: "10.1.0.5".into(),
                binding: Some(penstock_proto::v1::LearnedBinding {
                    mac: mac.into(),
                    previous_mac: before.into(),
                    ..Default::default()
                }),
                ..LearnedEvent::default()
            };
            binding(&event).map(|(_, macs)| macs.count())
        };
        let mac = "00:1d:9c:00:47:07";
        assert_eq!((seen(mac, ""), seen(mac, mac)), (Some(1), Some(2)));
        assert_eq!(
            (seen("", ""), seen(mac, "\" }"), seen("ff:ff:ff:ff:ff:ff", "")),
            (None, None, None)
        );
    }

    #[test]
    fn a_verdict_counts_packets_and_what_no_flow_can_permit_is_told_apart() {
        let verdict = VerdictEvent {
            source: "10.1.0.5".into(),
            destination: "10.2.0.9".into(),
            protocol: 17,
            port: 161,
            count: 7,
            ..VerdictEvent::default()
        };
        let (ends, talk) = counted(&verdict).unwrap();
        assert_eq!((ends.carrier, talk.packets.unwrap().count), (PortCarrier::Udp, 7));
        let echo = VerdictEvent {
            protocol: 1,
            port: 0,
            ..verdict.clone()
        };
        assert_eq!(counted(&echo).unwrap_err(), NotCounted::Portless);
        for group in ["239.1.2.3", "255.255.255.255", "ff02::1"] {
            let to_group = VerdictEvent {
                destination: group.into(),
                ..verdict.clone()
            };
            assert_eq!(counted(&to_group).unwrap_err(), NotCounted::Group, "{group}");
        }
    }
}
