//! How the parts of a plant are said to people: operations, ends of a flow, lists. One wording for `diff`, `reach`,
//! `check`, the CLI and the console.

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;

use crate::model::{Flow, FlowEnd, FrameFlow, Service};
use crate::plan::Broker;
use crate::terms::{Answers, Frames, NumberRange, OnRefusal, PortRange, Tls, Transport};

/// A list of ports as people write it: `502,1000-1010`.
pub fn port_words(ports: &[PortRange]) -> String {
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    ports.join(",")
}

/// A transport with its ports: `tcp/502,1000-1010`.
pub fn transport_words(transport: &Transport) -> String {
    match transport {
        Transport::Tcp(ranges) => format!("tcp/{}", port_words(ranges)),
        Transport::Udp(ranges) => format!("udp/{}", port_words(ranges)),
        Transport::IcmpEcho => "icmp-echo".to_owned(),
    }
}

impl fmt::Display for NumberRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FlowEnd {
    /// The name as the document writes it (`plc-7`, `zone:control`).
    pub fn name(&self) -> String {
        match self {
            Self::Asset(asset, _) => asset.to_string(),
            Self::Zone(zone, _) => format!("zone:{zone}"),
        }
    }

    /// Its networks.
    pub fn networks(&self) -> Vec<IpNet> {
        match self {
            Self::Asset(_, addresses) => addresses.iter().copied().map(IpNet::from).collect(),
            Self::Zone(_, networks) => networks.clone(),
        }
    }
}

impl fmt::Display for FlowEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<String> = match self {
            Self::Asset(_, addresses) => addresses.iter().map(ToString::to_string).collect(),
            Self::Zone(_, networks) => networks.iter().map(ToString::to_string).collect(),
        };
        write!(f, "{} ({})", self.name(), places.join(", "))
    }
}

/// Numbers of applications as `0x0001`, `0x0001-0x00ff`.
pub fn appid_words(ids: &[NumberRange]) -> String {
    let words = ids.iter().map(|range| match range.first == range.last {
        true => format!("{:#06x}", range.first),
        false => format!("{:#06x}-{:#06x}", range.first, range.last),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// `goose (EtherType 0x88b8) of VLAN 10, to 01:0c:cd:01:00:00/40, APPID 0x0001-0x0004`.
impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ether_type)?;
        let vlans: Vec<String> = self
            .vlans
            .iter()
            .map(|vlan| match vlan {
                0 => "no VLAN".to_owned(),
                vlan => format!("VLAN {vlan}"),
            })
            .collect();
        if self.vlans != [0] {
            write!(f, " of {}", vlans.join(" or "))?;
        }
        if let Some(blocks) = &self.destinations {
            let blocks: Vec<String> = blocks.iter().map(ToString::to_string).collect();
            write!(f, ", to {}", blocks.join(", "))?;
        }
        match &self.appids {
            Some(ids) => write!(f, ", APPID {}", appid_words(ids)),
            None => Ok(()),
        }
    }
}

/// `control to cell, and back: profinet-rt (EtherType 0x8892)`.
impl fmt::Display for FrameFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let back = if self.both { ", and back" } else { "" };
        write!(f, "{} to {}{back}: {}", self.from, self.to, self.frames)
    }
}

impl fmt::Display for Flow {
    /// `hmi-1 (10.20.1.21) to plc-7 (10.20.4.7) by tcp/502, only: read-coils (unit 1)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", and(self.sources.iter()))?;
        let by = |service: &Service, tls: &Option<Tls>| match tls {
            Some(tls) => format!("by {} inside TLS, {tls}", service.transport),
            None => format!("by {}", service.transport),
        };
        let destinations = and(self.destinations.iter());
        match &self.bridge_source {
            Some(source) => {
                let (here, there) = (by(&source.service, &source.tls), by(&self.service, &self.tls));
                if here != there {
                    write!(f, " {here}")?;
                }
                write!(f, " to {destinations} {there}")?;
            }
            None => write!(f, " to {destinations} by {}", self.service.transport)?,
        }
        if let Some(operations) = &self.operations {
            let only = if self.is_bridge() {
                "carried by the gateway, one way, only"
            } else {
                "only"
            };
            write!(f, ", {only}: {}", operations.phrases().join("; "))?;
        }
        if let Some(roles) = &self.roles {
            write!(f, "; {roles}")?;
        }
        if let (Some(tls), false) = (&self.tls, self.is_bridge()) {
            write!(f, "; TLS ends at the gateway, {tls}")?;
        }
        if self.answers != Answers::Strict {
            write!(f, "; {}", self.answers)?;
        }
        match self.on_refusal {
            OnRefusal::Answer => Ok(()),
            other => write!(f, "; a refusal {other}"),
        }
    }
}

impl fmt::Display for Answers {
    /// Which pass: `answers pass only under their request's identifiers`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Strict => "answers pass only under their request's identifiers",
            Self::InOrder => "answers pass in order, under any identifiers",
        })
    }
}

impl fmt::Display for OnRefusal {
    /// What a refusal does: `resets the connection`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Answer => "is answered as the protocol does",
            Self::Acknowledge => "is acknowledged as though done",
            Self::Disconnect => "is answered and ends the connection",
            Self::Reset => "resets the connection",
            Self::Drop => "gets no answer",
        })
    }
}

impl fmt::Display for Broker {
    /// How the gateway reaches it: `broker-pumps by tcp/8883 inside TLS`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.tls.is_some() { " inside TLS" } else { "" };
        write!(f, "{} by tcp/{}{tls}", self.asset, self.port)
    }
}

impl fmt::Display for Tls {
    /// Whom the gateway takes for the server: `the server known by the plant's own authority`; or that nothing is encrypted on the
    /// last metre.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(port) = self.plain_port {
            write!(f, "the last metre in the plain to the server's port {port}")?;
            return match &self.server_name {
                None => Ok(()),
                Some(name) => write!(f, ", which clients call {name}"),
            };
        }
        let authorities = match &self.server_authorities {
            None => "the plant's own authority".to_owned(),
            Some(pem) => match pem.matches("BEGIN CERTIFICATE").count() {
                1 => "an authority of its own".to_owned(),
                count => format!("{count} authorities of its own"),
            },
        };
        match &self.server_name {
            None => write!(f, "the server known by {authorities}"),
            Some(name) => write!(f, "the server known as {name} by {authorities}"),
        }
    }
}

/// `a`, `a and b`, `a, b and c`, in order and each once.
pub(crate) fn and<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let items: BTreeSet<String> = items.map(|item| item.to_string()).collect();
    let mut items: Vec<String> = items.into_iter().collect();
    match items.pop() {
        None => "nothing".to_owned(),
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} and {last}", items.join(", ")),
    }
}
