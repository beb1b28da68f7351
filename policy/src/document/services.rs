//! Services: what a flow carries, by name, by name at another port, or as a transport with its ports.

use serde_json::{Value, json};

use super::node::{Node, excerpt};
use super::read::{Term, scalar};
use super::scalars::decimal;
use super::suggest;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::model::Service;
use crate::protocol::vocabulary::Carried;
use crate::protocol::{Carrier, NamedService, Protocol};
use crate::terms::{PortRange, Transport};

/// The services whose operations nobody reads. Ports are those registered with IANA, or the protocol's own custom.
#[rustfmt::skip]
static FORWARDED: &[Carried] = &[
    tcp("modbus-tls", 802, "Modbus/TCP Security"),
    tcp("opc-ua", 4840, "OPC UA binary"),
    tcp("s7comm", 102, "Siemens S7 communication (ISO on TCP)"),
    tcp("iec-61850-mms", 102, "IEC 61850 MMS (ISO on TCP)"),
    tcp("ethernet-ip", 44818, "EtherNet/IP explicit messages"),
    udp("ethernet-ip-io", 2222, "EtherNet/IP implicit messages"),
    tcp("dnp3", 20000, "DNP3 (IEEE 1815)"),
    tcp("iec-104", 2404, "IEC 60870-5-104"),
    tcp("hart-ip", 5094, "HART-IP"),
    udp("bacnet-ip", 47808, "BACnet/IP"),
    udp("fins", 9600, "Omron FINS"),
    tcp("amqp", 5672, "AMQP"),
    tcp("amqps", 5671, "AMQP over TLS"),
    tcp("http", 80, "HTTP"),
    tcp("https", 443, "HTTPS"),
    tcp("ssh", 22, "SSH"),
    tcp("rdp", 3389, "Remote Desktop"),
    tcp("vnc", 5900, "VNC"),
    tcp("smb", 445, "SMB file sharing"),
    tcp("postgresql", 5432, "PostgreSQL"),
    tcp("mssql", 1433, "Microsoft SQL Server"),
    tcp("ldap", 389, "LDAP"),
    tcp("ldaps", 636, "LDAP over TLS"),
    tcp("kerberos", 88, "Kerberos"),
    udp("radius", 1812, "RADIUS"),
    udp("dns", 53, "DNS over UDP"),
    tcp("dns-tcp", 53, "DNS over TCP"),
    udp("ntp", 123, "NTP"),
    udp("syslog", 514, "Syslog over UDP"),
    tcp("syslog-tls", 6514, "Syslog over TLS"),
    udp("snmp", 161, "SNMP"),
    udp("snmp-trap", 162, "SNMP traps"),
    Carried::plain("icmp-echo", Carrier::IcmpEcho, 0, "ICMP echo (ping)"),
];

const fn tcp(name: &'static str, port: u16, title: &'static str) -> Carried {
    Carried::plain(name, Carrier::Tcp, port, title)
}

const fn udp(name: &'static str, port: u16, title: &'static str) -> Carried {
    Carried::plain(name, Carrier::Udp, port, title)
}

/// Every service with a name: those of the protocols whose operations can be told apart, then all others.
pub fn services() -> impl Iterator<Item = NamedService> + Clone {
    let of = |protocol: Option<Protocol>, carried| NamedService { protocol, carried };
    let read = Protocol::all().flat_map(move |protocol| {
        let services = protocol.vocabulary().services.iter();
        services.map(move |carried| of(Some(protocol), carried))
    });
    read.chain(FORWARDED.iter().map(move |carried| of(None, carried)))
}

impl NamedService {
    /// The one that a service names, if it does: `mqtt` and `mqtt:1884` name `mqtt`, `tcp/1883` names none.
    pub fn of(service: &Service) -> Option<Self> {
        let name = service.name.split(':').next()?;
        services().find(|known| known.name == name)
    }
}

/// The ports at which gateways read a protocol in the plain, where no rule says what it is: those of the services in the list
/// above that end at one server.
pub fn plain_ports() -> impl Iterator<Item = (u16, Protocol)> {
    services()
        .filter(|known| known.carrier == Carrier::Tcp && !known.tls && !known.bridged)
        .filter_map(|known| Some((known.port, known.protocol?)))
}

/// The protocol that is read at a TCP port, if it is one of [`plain_ports`].
pub fn protocol_at(port: u16) -> Option<Protocol> {
    plain_ports()
        .find(|(known, _)| *known == port)
        .map(|(_, protocol)| protocol)
}

/// Reads a service as written.
impl Term for Service {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "a service", faults)?;
        match service(text) {
            Ok(service) => Some(service),
            Err((reason, help)) => {
                let fault = Fault::new(
                    Code::UnknownService,
                    node.place,
                    format!("`{}` is not a service", excerpt(text)),
                );
                faults.add(fault.label(reason).help(help));
                None
            }
        }
    }

    fn schema() -> Value {
        let names: Vec<&str> = services().map(|service| service.name).collect();
        let ported: Vec<&str> = services()
            .filter(|service| service.carrier != Carrier::IcmpEcho)
            .map(|service| service.name)
            .collect();
        json!({ "anyOf": [
            { "type": "string", "enum": names },
            { "type": "string", "pattern": format!("^({}):[0-9]{{1,5}}$", ported.join("|")) },
            { "type": "string", "pattern": "^(tcp|udp)/([0-9]{1,5}(-[0-9]{1,5})?|any)$" },
        ] })
    }
}

/// The service that is written so; else why not, and what to do.
pub(crate) fn service(text: &str) -> Result<Service, (String, String)> {
    if let Some((carrier, ports)) = text.split_once('/') {
        let ports = vec![port_range(ports)?];
        let transport = match carrier {
            "tcp" => Transport::Tcp(ports),
            "udp" => Transport::Udp(ports),
            other => {
                return Err((
                    format!("`{}` is not a transport", excerpt(other)),
                    "use `tcp/…` or `udp/…`".to_owned(),
                ));
            }
        };
        return Ok(Service {
            name: text.to_owned(),
            protocol: None,
            transport,
        });
    }
    let (name, port) = match text.split_once(':') {
        Some((name, written)) => (name, Some(port(written)?)),
        None => (text, None),
    };
    let Some(known) = services().find(|service| service.name == name) else {
        let mut help = suggest::help(name, services().map(|service| service.name));
        if !help.starts_with("did") {
            help.push_str("; or a transport with its ports, such as `tcp/8080`");
        }
        return Err(("no service of this name".to_owned(), help));
    };
    let ports = vec![PortRange::single(port.unwrap_or(known.port))];
    let transport = match known.carrier {
        Carrier::Tcp => Transport::Tcp(ports),
        Carrier::Udp => Transport::Udp(ports),
        Carrier::IcmpEcho if port.is_some() => {
            return Err(("an echo has no ports".to_owned(), "write `icmp-echo`".to_owned()));
        }
        Carrier::IcmpEcho => Transport::IcmpEcho,
    };
    Ok(Service {
        name: text.to_owned(),
        protocol: known.protocol,
        transport,
    })
}

fn port_range(text: &str) -> Result<PortRange, (String, String)> {
    if text == "any" {
        return Ok(PortRange {
            first: 1,
            last: u16::MAX,
        });
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = PortRange {
        first: port(first)?,
        last: port(last)?,
    };
    if range.first > range.last {
        return Err((
            "the range ends before it begins".to_owned(),
            format!("write `{last}-{first}`"),
        ));
    }
    Ok(range)
}

fn port(text: &str) -> Result<u16, (String, String)> {
    let number = decimal(text)
        .ok()
        .and_then(|number| u16::try_from(number).ok())
        .filter(|port| *port > 0);
    number.ok_or_else(|| {
        (
            format!("`{}` is not a port", excerpt(text)),
            "a port is a number, 1–65535".to_owned(),
        )
    })
}
