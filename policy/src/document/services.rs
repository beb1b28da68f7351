//! Services: what a flow carries, by name, by name at another port, or as a transport with its ports.

use serde_json::{Value, json};

use super::node::{Node, excerpt};
use super::read::{Term, scalar};
use super::scalars::decimal;
use super::suggest;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::model::Service;
use crate::terms::{PortRange, Protocol, Transport};

/// How a named service is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo, which has no ports.
    IcmpEcho,
}

/// A service that the grammar knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedService {
    /// Its name.
    pub name: &'static str,
    /// TCP, UDP or ICMP echo.
    pub carrier: Carrier,
    /// Its port unless another is written (0 for ICMP echo).
    pub port: u16,
    /// The protocol whose operations can be told apart, if it is one.
    pub protocol: Option<Protocol>,
    /// TLS carries that protocol, so that it is read only where the TLS ends at the gateway.
    pub tls: bool,
    /// The gateway is itself the client of both ends, and forwards nothing between them.
    pub bridged: bool,
    /// What it is, for people.
    pub title: &'static str,
}

const fn tcp(name: &'static str, port: u16, title: &'static str) -> NamedService {
    NamedService {
        name,
        carrier: Carrier::Tcp,
        port,
        protocol: None,
        tls: false,
        bridged: false,
        title,
    }
}

const fn udp(name: &'static str, port: u16, title: &'static str) -> NamedService {
    NamedService {
        name,
        carrier: Carrier::Udp,
        port,
        protocol: None,
        tls: false,
        bridged: false,
        title,
    }
}

const fn inspected(service: NamedService, protocol: Protocol) -> NamedService {
    NamedService {
        protocol: Some(protocol),
        ..service
    }
}

const fn inside_tls(service: NamedService) -> NamedService {
    NamedService { tls: true, ..service }
}

const fn bridged(service: NamedService) -> NamedService {
    NamedService {
        bridged: true,
        ..inspected(service, Protocol::Mqtt)
    }
}

/// Every service with a name. Ports are those registered with IANA, or the protocol's own custom.
pub const SERVICES: &[NamedService] = &[
    inspected(tcp("modbus-tcp", 502, "Modbus/TCP"), Protocol::ModbusTcp),
    inspected(tcp("mqtt", 1883, "MQTT 3.1.1 and 5"), Protocol::Mqtt),
    inside_tls(inspected(tcp("mqtts", 8883, "MQTT over TLS"), Protocol::Mqtt)),
    bridged(tcp(
        "mqtt-bridge",
        1883,
        "one-way bridge between two MQTT brokers",
    )),
    inside_tls(bridged(tcp(
        "mqtts-bridge",
        8883,
        "one-way bridge between two MQTT brokers, over TLS",
    ))),
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
    NamedService {
        name: "icmp-echo",
        carrier: Carrier::IcmpEcho,
        port: 0,
        protocol: None,
        tls: false,
        bridged: false,
        title: "ICMP echo (ping)",
    },
];

impl NamedService {
    /// The one that a service names, if it does: `mqtt` and `mqtt:1884` name `mqtt`, `tcp/1883` names none.
    pub fn of(service: &Service) -> Option<&'static Self> {
        let name = service.name.split(':').next()?;
        SERVICES.iter().find(|known| known.name == name)
    }
}

/// The ports at which gateways read a protocol in the plain, where no rule says what it is: those of the services in the list
/// above that end at one server.
pub fn plain_ports() -> impl Iterator<Item = (u16, Protocol)> {
    SERVICES
        .iter()
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
        let names: Vec<&str> = SERVICES.iter().map(|service| service.name).collect();
        let ported: Vec<&str> = SERVICES
            .iter()
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
    let Some(known) = SERVICES.iter().find(|service| service.name == name) else {
        let mut help = suggest::help(name, SERVICES.iter().map(|service| service.name));
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
