//! What a flow may do inside its protocol: the entries of `allow`, read once the flow's service is known.
//!
//! An entry is a mapping with one key, the operation's name, and its limits below; an operation that needs no
//! limit is a bare word. Modbus names come from [`crate::functions`], the table that the inspector uses too.

use serde_json::{Value, json};

use super::node::{Kind, Node, excerpt};
use super::numbers::{Addresses, Numbers};
use super::operation_limits::{ConnectLimits, ModbusLimits, PublishLimits, SubscribeLimits};
use super::read::{At, Field, Term, wrong_shape};
use super::register_numbers::{probably_meant, shown};
use super::scalars::values;
use super::suggest;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::functions::{MODBUS_FUNCTIONS, modbus_function, modbus_function_number, modbus_group};
use crate::terms::{ModbusOperation, MqttOperation, NumberRange, Operations, Protocol};

/// The names of the groups of Modbus functions.
const MODBUS_GROUPS: [&str; 3] = ["read-only", "read-write", "programming"];
/// The names of the MQTT operations.
const MQTT_OPERATIONS: [&str; 3] = ["publish", "subscribe", "connect"];

/// Reads the entries of an `allow` list for `protocol`. `None` if any is wrong; a fault says which.
pub(crate) fn read(protocol: Protocol, entries: &[Node], faults: &mut Faults) -> Option<Operations> {
    let before = faults.errors();
    let operations = match protocol {
        Protocol::ModbusTcp => Operations::ModbusTcp(each(entries, modbus, faults)),
        Protocol::Mqtt => Operations::Mqtt(each(entries, mqtt, faults)),
    };
    (faults.errors() == before).then_some(operations)
}

fn each<T: PartialEq>(
    entries: &[Node],
    read: fn(&str, Place, &Node, &mut Faults) -> Option<T>,
    faults: &mut Faults,
) -> Vec<T> {
    let mut found: Vec<At<T>> = Vec::new();
    for entry in entries {
        let Some((name, place, limits)) = named(entry, faults) else {
            continue;
        };
        let Some(value) = read(name, place, limits, faults) else {
            continue;
        };
        if let Some(first) = found.iter().find(|other| other.value == value) {
            faults.add(
                Fault::new(
                    Code::RepeatedItem,
                    place,
                    format!("the operation `{}` stands twice", excerpt(name)),
                )
                .label("again here")
                .related(first.place, "first here")
                .help("remove one of the two, or correct its limits"),
            );
        } else {
            found.push(At { value, place });
        }
    }
    found.into_iter().map(|at| at.value).collect()
}

/// The operation's name, where it stands, and the node of its limits: the entry itself for a bare word.
fn named<'a>(entry: &'a Node, faults: &mut Faults) -> Option<(&'a str, Place, &'a Node)> {
    match &entry.kind {
        Kind::Scalar { text, .. } if !entry.is_null() => return Some((text, entry.place, entry)),
        Kind::Mapping(keys) => {
            if let [key] = keys.as_slice() {
                return Some((&key.key, key.key_place, &key.value));
            }
            let second = keys.get(1).map_or(entry.place, |key| key.key_place);
            faults.add(
                Fault::new(
                    Code::WrongShape,
                    second,
                    "an operation is one name with its limits below it",
                )
                .label(if keys.is_empty() {
                    "no name"
                } else {
                    "a second name in the same entry"
                })
                .help(
                    "begin each operation with `- `, and write its limits as `{ units: 1, addresses: 0-9 }`",
                ),
            );
        }
        _ => wrong_shape(entry, "an operation", faults),
    }
    None
}

fn unknown(name: &str, place: Place, protocol: &str, known: &[&str], faults: &mut Faults) {
    let message = format!("{protocol} has no operation `{}`", excerpt(name));
    faults.add(
        Fault::new(Code::UnknownOperation, place, message)
            .label("unknown operation")
            .help(suggest::help(name, known.iter().copied())),
    );
}

/// Which limits a Modbus operation may have.
#[derive(Clone, Copy)]
struct PermittedKeys {
    addresses: bool,
    read_addresses: bool,
    addresses_required: bool,
    values: bool,
    coils: bool,
    sub_functions: bool,
}

fn modbus_limits(name: &str) -> Option<PermittedKeys> {
    if modbus_group(name).is_some() {
        let writes = name != "read-only";
        return Some(PermittedKeys {
            addresses: true,
            read_addresses: writes,
            addresses_required: writes,
            values: writes,
            coils: false,
            sub_functions: false,
        });
    }
    if let Some(function) = modbus_function(name) {
        return Some(PermittedKeys {
            addresses: function.reads || function.writes || function.files,
            read_addresses: function.reads && function.writes,
            addresses_required: function.writes,
            values: function.values,
            coils: matches!(function.code, 5 | 15),
            sub_functions: function.sub_functions,
        });
    }
    modbus_function_number(name).map(|_| PermittedKeys {
        addresses: false,
        read_addresses: false,
        addresses_required: false,
        values: false,
        coils: false,
        sub_functions: false,
    })
}

fn modbus(name: &str, place: Place, node: &Node, faults: &mut Faults) -> Option<ModbusOperation> {
    let Some(may) = modbus_limits(name) else {
        let known: Vec<&str> = MODBUS_FUNCTIONS
            .iter()
            .map(|function| function.name)
            .chain(MODBUS_GROUPS)
            .collect();
        unknown(name, place, "Modbus", &known, faults);
        return None;
    };
    if matches!(node.kind, Kind::Scalar { .. }) {
        incomplete(name, place, "units", "write `units: 1`, or `units: any`", faults);
        return None;
    }
    let limits = ModbusLimits::read(node, faults)?;
    let extra = [
        ("addresses", may.addresses, place_of(&limits.addresses)),
        (
            "read_addresses",
            may.read_addresses,
            place_of(&limits.read_addresses),
        ),
        ("values", may.values, place_of(&limits.values)),
        (
            "sub_functions",
            may.sub_functions,
            place_of(&limits.sub_functions),
        ),
    ];
    for (limit, allowed, written) in extra {
        if let (false, Some(written)) = (allowed, written) {
            faults.add(
                Fault::new(
                    Code::NotForOperation,
                    written,
                    format!("`{name}` has no `{limit}` to limit"),
                )
                .label("this can limit nothing")
                .help(format!("remove `{limit}`")),
            );
        }
    }
    if limits.units.is_absent() {
        incomplete(name, place, "units", "write `units: 1`, or `units: any`", faults);
    }
    if may.addresses_required && limits.addresses.is_absent() {
        let help =
            "a write names its addresses: `addresses: 40-43`, or `addresses: any` if really all are meant";
        incomplete(name, place, "addresses", help, faults);
    }
    if let (
        true,
        Some(At {
            value: Numbers::Ranges(ranges),
            place,
        }),
    ) = (may.coils, limits.values.get())
        && ranges.iter().any(|range| range.last > 1)
    {
        faults.add(
            Fault::new(Code::OutOfRange, *place, "a coil's value is 0 or 1")
                .label("expected: 0, 1, 0-1 or any"),
        );
    }
    for written in [&limits.addresses, &limits.read_addresses] {
        register_numbers(name, written, faults);
    }
    Some(ModbusOperation {
        function: name.to_owned(),
        units: limited(&limits.units),
        addresses: limits.addresses.value().and_then(|at| at.0.limited()),
        read_addresses: limits.read_addresses.value().and_then(|at| at.0.limited()),
        values: limited(&limits.values),
        sub_functions: limited(&limits.sub_functions),
    })
}

/// Doubts addresses that look like the register numbers of a manual.
fn register_numbers(name: &str, written: &Field<Addresses>, faults: &mut Faults) {
    let Some(At {
        value: Addresses(Numbers::Ranges(ranges)),
        place,
    }) = written.get()
    else {
        return;
    };
    let Some((range, meant)) = probably_meant(name, ranges) else {
        return;
    };
    let (range, meant) = (shown(range), shown(meant));
    faults.add(
        Fault::new(
            Code::RegisterNumbers,
            *place,
            format!("`{range}` looks like register numbers of a manual, which are not addresses on the wire"),
        )
        .label(format!("if so, the addresses are {meant}"))
        .help(format!(
            "addresses count from 0, as on the wire: write `{meant}` for what a manual numbers {range}"
        )),
    );
}

fn place_of<T>(field: &Field<T>) -> Option<Place> {
    field.get().map(|at| at.place)
}

fn limited<const MAX: u32>(field: &Field<Numbers<MAX>>) -> Option<Vec<NumberRange>> {
    field.value().and_then(Numbers::limited)
}

fn incomplete(name: &str, place: Place, missing: &str, help: &str, faults: &mut Faults) {
    faults.add(
        Fault::new(
            Code::OperationIncomplete,
            place,
            format!("`{}` does not say its `{missing}`", excerpt(name)),
        )
        .label(format!("`{missing}` is missing"))
        .help(help),
    );
}

fn mqtt(name: &str, place: Place, node: &Node, faults: &mut Faults) -> Option<MqttOperation> {
    if !MQTT_OPERATIONS.contains(&name) {
        unknown(name, place, "MQTT", &MQTT_OPERATIONS, faults);
        return None;
    }
    if matches!(node.kind, Kind::Scalar { .. }) && name != "connect" {
        incomplete(
            name,
            place,
            "topics",
            "write `topics: [\"works/#\"]`, or `topics: any`",
            faults,
        );
        return None;
    }
    let no_topics = |faults: &mut Faults| {
        incomplete(
            name,
            place,
            "topics",
            "write `topics: [\"works/#\"]`, or `topics: any`",
            faults,
        );
    };
    match name {
        "publish" => {
            let limits = PublishLimits::read(node, faults)?;
            if limits.topics.is_absent() {
                no_topics(faults);
            }
            Some(MqttOperation::Publish {
                topics: values(&limits.topics.value()?.0),
                qos: quality(&limits.qos, faults)?,
                retain: limits.retain.value().copied().unwrap_or(false),
            })
        }
        "subscribe" => {
            let limits = SubscribeLimits::read(node, faults)?;
            if limits.topics.is_absent() {
                no_topics(faults);
            }
            Some(MqttOperation::Subscribe {
                topics: values(&limits.topics.value()?.0),
                qos: quality(&limits.qos, faults)?,
            })
        }
        _ => {
            if matches!(node.kind, Kind::Scalar { .. }) {
                return Some(MqttOperation::Connect {
                    client_ids: None,
                    users: None,
                });
            }
            let limits = ConnectLimits::read(node, faults)?;
            let words = |field: &Field<super::read::OneOrMany<super::scalars::Text>>| {
                field.value().map(|list| {
                    list.0
                        .iter()
                        .map(|at| at.value.0.clone())
                        .collect::<Vec<String>>()
                })
            };
            Some(MqttOperation::Connect {
                client_ids: words(&limits.client_ids),
                users: words(&limits.users),
            })
        }
    }
}

/// The quality of service as one range; default: all of it.
fn quality(field: &Field<Numbers<2>>, faults: &mut Faults) -> Option<NumberRange> {
    let Some(At {
        value: Numbers::Ranges(ranges),
        place,
    }) = field.get()
    else {
        return Some(NumberRange { first: 0, last: 2 });
    };
    if let [range] = ranges.as_slice() {
        return Some(*range);
    }
    faults.add(
        Fault::new(Code::NotARange, *place, "the quality of service is one range")
            .help("write `0`, `0-1` or `0-2`"),
    );
    None
}

/// The schemas of one entry of an `allow` list, all protocols together.
pub(crate) fn schemas() -> Vec<Value> {
    let modbus: Vec<&str> = MODBUS_FUNCTIONS
        .iter()
        .map(|function| function.name)
        .chain(MODBUS_GROUPS)
        .collect();
    let one = |properties: Value| json!({ "type": "object", "additionalProperties": false, "minProperties": 1, "maxProperties": 1, "properties": properties });
    let mut functions: serde_json::Map<String, Value> = modbus
        .iter()
        .map(|name| ((*name).to_owned(), schema_of(name)))
        .collect();
    let mut by_number = one(json!({}));
    if let Some(object) = by_number.as_object_mut() {
        object.insert(
            "patternProperties".to_owned(),
            json!({ "^function-[0-9]{1,3}$": schema_of("function-65") }),
        );
    }
    let mut schema = vec![one(Value::Object(std::mem::take(&mut functions))), by_number];
    schema.push(one(json!({
        "publish": PublishLimits::schema(),
        "subscribe": SubscribeLimits::schema(),
        "connect": ConnectLimits::schema(),
    })));
    schema.push(json!({ "const": "connect" }));
    schema
}

/// The schema of the limits that a Modbus operation may have, with those required that must be there.
fn schema_of(name: &str) -> Value {
    let Some(may) = modbus_limits(name) else {
        return Value::Bool(false);
    };
    let mut schema = ModbusLimits::schema();
    let allowed = [
        ("addresses", may.addresses),
        ("read_addresses", may.read_addresses),
        ("values", may.values),
        ("sub_functions", may.sub_functions),
    ];
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (limit, allowed) in allowed {
            if !allowed {
                properties.remove(limit);
            }
        }
    }
    let required = if may.addresses_required {
        json!(["units", "addresses"])
    } else {
        json!(["units"])
    };
    if let Some(object) = schema.as_object_mut() {
        object.insert("required".to_owned(), required);
    }
    schema
}
