//! `safe_to_change`: one question to one asset, which the gateway can ask.
//!
//! A condition that can never be asked is never met, and a gateway with it would never change again. So what the document does not
//! show to be in the gateway's reach is refused here, rather than found out when a change is urgent.

use super::{Context, assets, inside, resolve};
use crate::change::{Condition, TEXT_BYTES_MAX, UNIT_DEFAULT};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::grammar;
use crate::document::read::{At, Field};
use crate::document::scalars::{as_boolean, warn_if_ambiguous};
use crate::document::tls::AskedTls;
use crate::ids::{AssetId, GatewayId};
use crate::model::{Gateway, SafeToChange};
use crate::terms::GatewayMode;

/// Judges the condition of a gateway that is made as far as the rest of it goes. `None` if a fault was added.
pub(super) fn safe_to_change(
    name: &GatewayId,
    written: &At<grammar::SafeToChange>,
    gateway: &Gateway,
    context: &Context<'_>,
    faults: &mut Faults,
) -> Option<SafeToChange> {
    let before = faults.errors();
    let At { value: it, place } = written;
    let assets = context.document.assets.value();
    let [modbus, mqtt] = [&it.modbus, &it.mqtt].map(|field| !field.is_absent());
    if modbus == mqtt {
        let fault = Fault::new(
            Code::NotACondition,
            *place,
            format!("`safe_to_change` of the gateway `{name}` does not ask one asset"),
        )
        .label(if modbus { "asks two" } else { "asks nobody" });
        faults.add(fault.help(
            "write `{ modbus: ASSET, coil: NUMBER, is: on }` or `{ mqtt: BROKER, topic: TOPIC, is: TEXT }`",
        ));
        return None;
    }
    let asked = if modbus { &it.modbus } else { &it.mqtt };
    let condition = if modbus {
        coil(it, *place, faults)
    } else {
        topic(it, *place, faults)
    };
    let asset = resolve(asked, assets, "asset", faults)?;
    let place = asked.get()?.place;
    in_reach(name, gateway, &asset, place, context, faults);
    let condition = condition?;
    let port = match it.port.value() {
        Some(port) => u16::try_from(port.0).ok()?,
        None => condition.usual_port(),
    };
    (faults.errors() == before).then_some(SafeToChange {
        asset,
        port,
        condition,
    })
}

/// Adds that a key of the one question stands in the other.
fn astray<T>(field: &Field<T>, key: &str, asks: &str, faults: &mut Faults) {
    if let Some(at) = field.get() {
        faults.add(
            Fault::new(
                Code::NotACondition,
                at.place,
                format!("`{key}` says nothing where {asks} is asked for"),
            )
            .help("remove it"),
        );
    }
}

/// What must be there in this question.
fn needed<'a, T>(
    field: &'a Field<T>,
    (key, example): (&str, &str),
    place: Place,
    faults: &mut Faults,
) -> Option<&'a At<T>> {
    if field.is_absent() {
        faults.add(
            Fault::new(Code::MissingKey, place, format!("the condition has no `{key}`"))
                .label(format!("`{key}` is missing"))
                .help(format!("add `{key}`, such as `{key}: {example}`")),
        );
    }
    field.get()
}

fn coil(it: &grammar::SafeToChange, place: Place, faults: &mut Faults) -> Option<Condition> {
    astray(&it.topic, "topic", "a coil", faults);
    astray(&it.tls, "tls", "a coil", faults);
    let coil = needed(&it.coil, ("coil", "5"), place, faults);
    let is = it.is.get()?;
    let Some(value) = as_boolean(&is.value.text) else {
        faults.add(
            Fault::new(
                Code::NotABoolean,
                is.place,
                "a coil is either on or off".to_owned(),
            )
            .label("expected: on or off")
            .help("write `is: on` or `is: off` (also `true`, `false`, `yes`, `no`)"),
        );
        return None;
    };
    let unit = match it.unit.value() {
        Some(unit) => u8::try_from(unit.0).ok()?,
        None => UNIT_DEFAULT,
    };
    Some(Condition::Coil {
        unit,
        coil: u16::try_from(coil?.value.0).ok()?,
        is: value,
    })
}

fn topic(it: &grammar::SafeToChange, place: Place, faults: &mut Faults) -> Option<Condition> {
    astray(&it.coil, "coil", "a topic", faults);
    astray(&it.unit, "unit", "a topic", faults);
    let topic = needed(&it.topic, ("topic", "line/1/safe"), place, faults);
    let is = it.is.get()?;
    warn_if_ambiguous(&is.value.text, is.value.plain, is.place, faults);
    let topic = topic?;
    let wrong = if topic.value.0.contains(['+', '#', '\0']) {
        Some((
            topic.place,
            "a wildcard stands for many topics, and one must say that it is safe",
        ))
    } else if topic.value.0.len() > TEXT_BYTES_MAX {
        Some((topic.place, "the topic is longer than 256 bytes"))
    } else if is.value.text.len() > TEXT_BYTES_MAX {
        Some((is.place, "the message is longer than 256 bytes"))
    } else {
        None
    };
    if let Some((place, why)) = wrong {
        faults.add(
            Fault::new(
                Code::NotACondition,
                place,
                format!("nobody can be asked for this: {why}"),
            )
            .help("name one topic that holds a retained message of one word"),
        );
        return None;
    }
    let tls = match &it.tls {
        Field::Absent => None,
        Field::Faulty => return None,
        Field::Given(tls) => {
            let AskedTls {
                server_authorities,
                server_name,
            } = &tls.value;
            Some(inside::model(server_authorities, server_name))
        }
    };
    Some(Condition::Topic {
        topic: topic.value.0.clone(),
        is: is.value.text.clone(),
        tls,
    })
}

/// Whether the document shows that the gateway reaches the asset.
fn in_reach(
    name: &GatewayId,
    gateway: &Gateway,
    id: &AssetId,
    place: Place,
    context: &Context<'_>,
    faults: &mut Faults,
) {
    let Some(asset) = context.document.assets.value().and_then(|assets| assets.get(id)) else {
        return; // It could not be read, which is said there.
    };
    let addresses: Vec<_> = assets::addresses(asset).into_iter().map(|at| at.value).collect();
    if addresses.is_empty() {
        if asset.address.is_absent() && asset.addresses.is_absent() {
            faults.add(
                Fault::new(
                    Code::NoAddress,
                    place,
                    format!("the asset `{id}` has no address to ask"),
                )
                .help("give the asset its `address`"),
            );
        }
        return;
    }
    let Some(zone) = asset.zone.value() else {
        return;
    };
    if gateway.asks(zone, &addresses).is_some() {
        return;
    }
    let on_side = gateway
        .interfaces
        .values()
        .any(|side| side.zone == *zone || side.behind.contains(zone));
    let why = match (on_side, gateway.mode) {
        (true, GatewayMode::Bridged) => {
            format!("it is bridged, and has no address on the side of the zone `{zone}` to ask from")
        }
        (true, GatewayMode::Routed) => {
            format!("it has no address of the same family (IPv4, IPv6) on the side of the zone `{zone}`")
        }
        (false, _) => format!("the zone `{zone}` lies on no side of it, and its management has no such peer"),
    };
    let help = match (on_side, gateway.mode) {
        (true, GatewayMode::Routed) => {
            "give the interface an address of that family, or the asset one of the gateway's"
        }
        _ => {
            "name an asset that the gateway reaches by itself: of a zone on a side where it has an address, or one, such as a broker, among the `peers` of its `management`"
        }
    };
    faults.add(
        Fault::new(
            Code::NeverAsked,
            place,
            format!("the gateway `{name}` can never ask the asset `{id}`: {why}"),
        )
        .label("never asked, so never safe")
        .help(help),
    );
}
