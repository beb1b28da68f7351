//! What a flow says about being looked into: how a refusal is answered, whose TLS ends at the gateway, what is bridged.
//! Where TLS ends before a server in the plain: `plain`.
//!
//! None of it takes effect by itself. `on_refusal`, `answers` and `tls` are refused where nothing would read them, since a key
//! without effect is one that somebody relies on in vain; a bridge is refused where it could not stand.

use super::{Between, Context, plain};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::grammar::{self, Allow, End};
use crate::document::per_end::PerEnd;
use crate::document::read::{At, Field, OneOrMany};
use crate::document::tls::{Certificates, ServerName, Tls as Written};
use crate::ids::FlowName;
use crate::model::{BridgeSource, FlowEnd, Service};
use crate::protocol::mqtt::MqttOperation;
use crate::protocol::{NamedService, Operations, Protocol};
use crate::terms::{Answers, GatewayMode, OnRefusal, Tls};
use crate::words;

/// What comes of it.
pub(super) struct Inside {
    pub(super) on_refusal: OnRefusal,
    pub(super) answers: Answers,
    pub(super) tls: Option<Tls>,
    pub(super) bridge_source: Option<BridgeSource>,
}

/// The two ends of a flow: as written, and those that hold.
type Ends<'a> = [(&'a Field<OneOrMany<End>>, &'a [(FlowEnd, Place)]); 2];

/// Whether the gateway forwards nothing of the service, and speaks it to both ends itself.
pub(super) fn is_bridge(service: &Service) -> bool {
    NamedService::of(service).is_some_and(|known| known.bridged)
}

/// Judges the keys of `flow`, whose `operations` are those that its `allow` lists. `None` if a fault was added.
pub(super) fn inside(
    name: &FlowName,
    flow: &grammar::Flow,
    operations: Option<&Operations>,
    ends: Ends<'_>,
    between: &Between<'_>,
    context: &Context<'_>,
    faults: &mut Faults,
) -> Option<Inside> {
    let At {
        value: service,
        place,
    } = flow.service.get()?;
    let before = faults.errors();
    let bridged = is_bridge(&service.destination().value);
    refusal(flow, operations, bridged, faults);
    answers(flow, operations, faults);
    if bridged {
        one_broker_at_each_end(name, ends, faults);
        only_publications(flow, operations, faults);
        one_routed_gateway(name, *place, between, context, faults);
    }
    let speaks = |service: &At<Service>| {
        operations.is_some() && NamedService::of(&service.value).is_some_and(|known| known.tls)
    };
    let to_plain = plain::is_written(flow, bridged);
    plain::fits(name, flow, bridged, faults);
    let (source, destination) = (
        speaks(service.source()),
        speaks(service.destination()) || to_plain,
    );
    written_tls(flow, service, (source, destination), bridged, faults);
    if destination && !bridged {
        ended_once(name, (*place, to_plain), between, context, faults);
        before_named_servers(name, ends, to_plain, faults);
    }
    let tls = |speaks: bool, at: fn(&PerEnd<Written>) -> &At<Written>| {
        speaks
            .then(|| {
                flow.tls
                    .value()
                    .map(|tls| {
                        let written = &at(tls).value;
                        model(&written.server_authorities, &written.server_name)
                    })
                    .unwrap_or_default()
            })
            .map(|tls| plain::with_port(tls, flow, to_plain))
    };
    (faults.errors() == before).then(|| Inside {
        on_refusal: flow.on_refusal.value().copied().unwrap_or_default(),
        answers: flow.answers.value().copied().unwrap_or_default(),
        tls: tls(destination, PerEnd::destination),
        bridge_source: bridged.then(|| BridgeSource {
            service: service.source().value.clone(),
            tls: tls(source, PerEnd::source),
        }),
    })
}

pub(super) fn model(authorities: &Field<Certificates>, name: &Field<ServerName>) -> Tls {
    Tls {
        server_authorities: authorities.value().map(|certificates| certificates.0.clone()),
        server_name: name.value().map(|name| name.0.clone()),
        plain_port: None,
    }
}

/// Whether what is written for each end stands at a bridge, which alone has two servers.
pub(super) fn only_bridges_have_two(flow: &grammar::Flow, faults: &mut Faults) -> bool {
    let mut good = true;
    let mut fault = |place: Place, message: String| {
        good = false;
        faults.add(
            Fault::new(Code::EndsOfNoBridge, place, message)
                .label("no bridge")
                .help("only `mqtt-bridge` and `mqtts-bridge`, with their ports, have a service and `tls` for each end"),
        );
    };
    let service = flow.service.get();
    if let Some(PerEnd::Each { source, destination }) = service.map(|at| &at.value) {
        for end in [source, destination]
            .into_iter()
            .filter(|end| !is_bridge(&end.value))
        {
            let name = &end.value.name;
            fault(
                end.place,
                format!("`{name}` is spoken between the two ends, not to each of them"),
            );
        }
    } else if let (
        Some(service),
        Some(At {
            value: PerEnd::Each { .. },
            place,
        }),
    ) = (service, flow.tls.get())
        && !is_bridge(&service.value.destination().value)
    {
        fault(
            *place,
            "the flow has one server, and so no TLS for each end".to_owned(),
        );
    }
    good
}

fn refusal(flow: &grammar::Flow, operations: Option<&Operations>, bridged: bool, faults: &mut Faults) {
    let Some(At { value, place }) = flow.on_refusal.get() else {
        return;
    };
    if operations.is_none() || bridged {
        let message = if bridged {
            "a bridge has no client whose operation it could refuse"
        } else {
            "the flow is not limited to operations, so none is refused"
        };
        faults.add(
            Fault::new(Code::RefusalWithoutOperations, *place, message)
                .label("without effect")
                .help("remove the key, or limit the flow with `allow`"),
        );
    } else if let Some(operations) = operations
        && !operations.protocol.refusals.words.contains(value)
    {
        let refusals = &operations.protocol.refusals;
        let others = Protocol::all().filter(|other| other.refusals.words.contains(value));
        let others = words::and(others.map(|other| other.name));
        faults.add(
            Fault::new(Code::AcknowledgeWithoutMqtt, *place, refusals.otherwise)
                .label(format!("only for {others}"))
                .help(refusals.help),
        );
    }
}

fn answers(flow: &grammar::Flow, operations: Option<&Operations>, faults: &mut Faults) {
    if let Some(At { place, .. }) = flow.answers.get()
        && !operations.is_some_and(|operations| operations.protocol.matches_answers)
    {
        let matching = Protocol::all().filter(|protocol| protocol.matches_answers);
        let matching = words::and(matching.map(|protocol| format!("`{}`", protocol.word)));
        let message = "no answers are matched with requests in this flow";
        faults.add(
            Fault::new(Code::AnswersNotMatched, *place, message)
                .label("without effect")
                .help(format!(
                    "only flows of {matching} that are limited to operations have it; remove the key"
                )),
        );
    }
}

/// `tls` stands where the gateway speaks it (at source and destination), and names one server at most.
fn written_tls(
    flow: &grammar::Flow,
    service: &PerEnd<Service>,
    (source, destination): (bool, bool),
    bridged: bool,
    faults: &mut Faults,
) {
    let Some(At { value: tls, place }) = flow.tls.get() else {
        return;
    };
    let mut idle = |service: &At<Service>, place: Place| {
        let message = format!("the gateway ends no TLS for this flow (`{}`)", service.value.name);
        faults.add(
            Fault::new(Code::TlsNotEnded, place, message)
                .label("without effect")
                .help(if bridged {
                    "remove the key, or write `service: mqtts-bridge` for the broker that speaks TLS"
                } else {
                    "remove the key, or write `service: mqtts` and list the operations under `allow`; or `server: plain`, to end \
                     the clients' TLS before a server that speaks none"
                }),
        );
    };
    match tls {
        PerEnd::Same(_) if !source && !destination => idle(service.destination(), *place),
        PerEnd::Same(both) => {
            if let (true, true, Some(At { place, .. })) =
                (bridged, source && destination, both.value.server_name.get())
            {
                faults.add(
                    Fault::new(
                        Code::NameOfTwoServers,
                        *place,
                        "both brokers of a bridge would have to bear this name",
                    )
                    .label("whose name?")
                    .help("write `tls: { source: …, destination: … }`, each with the name of its broker, or leave the name out"),
                );
            }
        }
        PerEnd::Each {
            source: at_source,
            destination: at_destination,
        } => {
            if !source {
                idle(service.source(), at_source.place);
            }
            if !destination {
                idle(service.destination(), at_destination.place);
            }
        }
    }
}

/// The gateway knows whose certificate to expect, and clients the gateway's, only where the flow names the server.
fn before_named_servers(name: &FlowName, ends: Ends<'_>, to_plain: bool, faults: &mut Faults) {
    let [_, (_, destinations)] = ends;
    let (why, help) = match to_plain {
        false => (
            "where the gateway cannot tell whose certificate to expect",
            "name the server's asset, or write `allow: any` and let it pass encrypted",
        ),
        true => (
            "and the gateway's certificate cannot bear the addresses of all of it",
            "name the server's asset, or a list of them",
        ),
    };
    for (end, place) in destinations {
        if let FlowEnd::Zone(zone, _) = end {
            faults.add(
                Fault::new(
                    Code::TlsBeforeZone,
                    *place,
                    format!("the TLS of the flow `{name}` would end before the whole zone `{zone}`, {why}"),
                )
                .label("which server?")
                .help(help),
            );
        }
    }
}

fn one_broker_at_each_end(name: &FlowName, ends: Ends<'_>, faults: &mut Faults) {
    for ((written, found), role) in ends.into_iter().zip(["source", "destination"]) {
        let Some(At { value: list, place }) = written.get() else {
            continue;
        };
        // An end that does not hold was said already.
        if list.0.len() != found.len() {
            continue;
        }
        let problem = match found {
            [(FlowEnd::Asset(_, addresses), _)] if addresses.len() == 1 => continue,
            [(FlowEnd::Asset(asset, addresses), _)] => {
                format!("the {role} `{asset}` has {} addresses", addresses.len())
            }
            [(FlowEnd::Zone(zone, _), _)] => format!("the {role} is the whole zone `{zone}`"),
            several => format!("there are {} {role}s", several.len()),
        };
        faults.add(
            Fault::new(
                Code::BridgeEnds,
                *place,
                format!("the bridge `{name}` needs one broker at each end, but {problem}"),
            )
            .label("one asset with one address")
            .help("name the broker's asset; write a flow for each further broker"),
        );
    }
}

fn only_publications(flow: &grammar::Flow, operations: Option<&Operations>, faults: &mut Faults) {
    const HELP: &str = "list only `publish` entries, such as `publish: { topics: [\"line4/#\"] }`";
    let Some(At { value: allow, place }) = flow.allow.get() else {
        return;
    };
    match (allow, operations) {
        (Allow::Operations(entries), Some(listed)) => {
            for (entry, permitted) in entries.iter().zip(&listed.permitted) {
                if !matches!(MqttOperation::of(permitted), Some(MqttOperation::Publish { .. })) {
                    faults.add(
                        Fault::new(
                            Code::BridgeOperations,
                            entry.place,
                            "a bridge carries publications, and nothing else",
                        )
                        .label("not a publication")
                        .help(HELP),
                    );
                }
            }
        }
        _ => faults.add(
            Fault::new(
                Code::BridgeOperations,
                *place,
                "a bridge carries only the publications that it names",
            )
            .label("no `any` here")
            .help(HELP),
        ),
    }
}

fn one_routed_gateway(
    name: &FlowName,
    place: Place,
    between: &Between<'_>,
    context: &Context<'_>,
    faults: &mut Faults,
) {
    let gateways = context.document.gateways.value();
    let mode = |id| gateways?.get(id)?.mode.value().copied();
    let mut crossed = between.via.iter();
    let (message, label) = match (crossed.next(), crossed.next()) {
        // That no gateway stands between was said already.
        (None, _) => return,
        (Some(gateway), None) if mode(gateway) == Some(GatewayMode::Bridged) => (
            format!(
                "the gateway `{gateway}` is bridged and has no address of its own from which to speak to the brokers of `{name}`"
            ),
            "needs a routed gateway".to_owned(),
        ),
        (Some(_), None) => return,
        (Some(_), Some(_)) => (
            format!(
                "the conduit crosses {} gateways, and only one of them can be the bridge `{name}`",
                between.via.len()
            ),
            "needs one gateway".to_owned(),
        ),
    };
    faults.add(
        Fault::new(Code::BridgeGateway, place, message)
            .label(label)
            .help("name one routed gateway with `via`, in a conduit of its own if other flows need more"),
    );
}

fn ended_once(
    name: &FlowName,
    (place, to_plain): (Place, bool),
    between: &Between<'_>,
    context: &Context<'_>,
    faults: &mut Faults,
) {
    let gateways = context.document.gateways.value();
    let partner = |id| gateways?.get(id)?.redundant_with.value();
    // Every gateway but the first stands beside the first, not behind it.
    let mut crossed = between.via.iter();
    let Some(first) = crossed.next() else { return };
    let second = crossed.find(|other| partner(other) != Some(first));
    if let Some(second) = second {
        faults.add(
            Fault::new(
                Code::TlsEndedTwice,
                place,
                format!("both `{first}` and `{second}` would end the TLS of the flow `{name}`"),
            )
            .label("ended twice")
            .help(match to_plain {
                false => {
                    "lead the conduit through one gateway (`via`), or write `allow: any` and let it pass encrypted"
                }
                true => "lead the conduit through one gateway (`via`), the one next to the server",
            }),
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::mqtt::MQTT;

    #[test]
    fn only_mqtt_services_can_be_bridged_or_read_inside_tls() {
        for known in crate::document::services::services() {
            if known.bridged {
                assert_eq!(known.protocol, Some(MQTT), "{}", known.name);
            }
            if known.tls && known.protocol.is_some() {
                assert_eq!(known.protocol, Some(MQTT), "{}", known.name);
            }
        }
    }
}
