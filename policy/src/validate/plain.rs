//! A client's TLS that ends at the gateway before a server that speaks none (`tls: { server: plain }`): at one TCP port, and
//! nowhere that the key would promise what the gateway does not do.

use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::grammar;
use crate::document::read::At;
use crate::document::tls::Tls as Written;
use crate::ids::{ConduitId, FlowName};
use crate::model::{Flow, Service};
use crate::terms::{Tls, Transport};

/// What the flow says of its server's TLS.
fn written(flow: &grammar::Flow) -> Option<&Written> {
    Some(&flow.tls.value()?.destination().value)
}

/// Whether the flow's server speaks no TLS, and its clients do.
pub(super) fn is_written(flow: &grammar::Flow, bridged: bool) -> bool {
    !bridged && written(flow).is_some_and(|tls| tls.server.value().is_some())
}

/// The one TCP port of a service, if it has one.
fn port(service: &Service) -> Option<u16> {
    match &service.transport {
        Transport::Tcp(ports) => match ports.as_slice() {
            [one] if one.first == one.last => Some(one.first),
            _ => None,
        },
        Transport::Udp(_) | Transport::IcmpEcho => None,
    }
}

/// The flow's terms with the port of its server in the plain: as written, else the service's own.
pub(super) fn with_port(tls: Tls, flow: &grammar::Flow, to_plain: bool) -> Tls {
    let written = written(flow).and_then(|tls| tls.server_port.value());
    let own = flow
        .service
        .value()
        .and_then(|service| port(&service.destination().value));
    let plain_port = written
        .and_then(|port| u16::try_from(port.0).ok())
        .or(own)
        .filter(|_| to_plain);
    Tls { plain_port, ..tls }
}

/// Judges the keys that speak of a server in the plain.
pub(super) fn fits(name: &FlowName, flow: &grammar::Flow, bridged: bool, faults: &mut Faults) {
    let (Some(At { value: service, .. }), Some(At { value: tls, .. })) = (flow.service.get(), flow.tls.get())
    else {
        return;
    };
    if bridged {
        for end in [tls.source(), tls.destination()] {
            never_plain(&end.value, faults);
        }
        return;
    }
    let (service, tls) = (service.destination(), &tls.destination().value);
    if tls.server.get().is_none() {
        if let Some(at) = tls.server_port.get() {
            unfit(
                at.place,
                format!(
                    "the gateway speaks TLS to the server of the flow `{name}`, at the port of its service"
                ),
                "without effect",
                "add `server: plain`, if the server speaks no TLS; otherwise remove the key",
                faults,
            );
        }
        return;
    }
    if let Some(at) = tls.server_authorities.get() {
        unfit(
            at.place,
            format!("nobody can vouch for the server of the flow `{name}`, which speaks no TLS"),
            "without effect",
            "remove the key: a server in the plain is known by its address alone",
            faults,
        );
    }
    if port(&service.value).is_none() {
        unfit(
            service.place,
            format!(
                "the clients' TLS of the flow `{name}` ends at one TCP port, and `{}` is not one",
                service.value.name
            ),
            "not one TCP port",
            "name the port that clients connect to, such as `tcp/8080`",
            faults,
        );
    }
}

/// Adds that what is written for a bridge's broker speaks of clients' TLS.
fn never_plain(tls: &Written, faults: &mut Faults) {
    let places = [
        tls.server.get().map(|at| at.place),
        tls.server_port.get().map(|at| at.place),
    ];
    for place in places.into_iter().flatten() {
        unfit(
            place,
            "no client's TLS ends at a bridge: the gateway itself is the client of its brokers".to_owned(),
            "without effect",
            "remove the key; for a broker that speaks no TLS, name a service without it",
            faults,
        );
    }
}

/// While no agent lives nobody ends a client's TLS: `pass` would give the server bytes that it cannot read, and let whoever speaks
/// in the plain reach it unknown.
pub(super) fn never_without_agent<'a>(
    conduit: &ConduitId,
    place: Place,
    mut flows: impl Iterator<Item = (&'a FlowName, &'a Flow)>,
    faults: &mut Faults,
) {
    if let Some((flow, _)) = flows.find(|(_, flow)| flow.plain_port().is_some()) {
        unfit(
            place,
            format!(
                "the flow `{flow}` of the conduit `{conduit}` cannot pass while no agent lives: its server speaks no TLS, and \
                 nobody would end its clients'"
            ),
            "would let unknown clients in",
            "write `on_agent_loss: block`, or put the flow into a conduit of its own",
            faults,
        );
    }
}

fn unfit(place: Place, message: String, label: &str, help: &str, faults: &mut Faults) {
    faults.add(
        Fault::new(Code::PlainServerUnfit, place, message)
            .label(label)
            .help(help),
    );
}
