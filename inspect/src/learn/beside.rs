//! What was gathered by gateways, held against a plant: what it permits already is left out.
//!
//! A learner that sees each request asks the rules at once. Here requests are already joined to ranges, and a range
//! is left out only if one rule permits all of it, at each place with the values written there: rather something is
//! proposed again, and said to widen, than missing.

use penstock_policy::protocol::modbus_tcp::functions::{modbus_function, modbus_function_number};
use penstock_policy::verdict::Carried;

use super::talk::{Learned, MessagesSeen, ModbusKey, ModbusSeen, PortCarrier, Talk};
use super::{PlantAnswer, standing};
use crate::judge::Rules;
use crate::modbus::request::{Files, Values};
use crate::modbus::{Request, Span};
use crate::mqtt;
use crate::replay::{Plans, When};

impl Learned {
    /// Leaves out what `plans` permit, at all times or by any grant, and what crosses no gateway.
    pub fn leave_out(&mut self, plans: &Plans) {
        let (mut permitted, mut by_grant) = (0, 0);
        self.talks.retain(|ends, talk| {
            let transport = match ends.carrier {
                PortCarrier::Tcp => Carried::Tcp(ends.server.port()),
                PortCarrier::Udp => Carried::Udp(ends.server.port()),
            };
            let standing = |when| standing(plans.between(ends.client, ends.server.ip(), transport, when));
            let ever = standing(When::Ever);
            if plans.have_grants() && ever.passes() && !standing(When::Never).passes() {
                by_grant += talk.connections.count.max(1);
            }
            match ever {
                PlantAnswer::Uncrossed | PlantAnswer::Open => {
                    permitted += talk.connections.count.max(1);
                    false
                }
                PlantAnswer::Shut(_) => true,
                PlantAnswer::Inspected(rules) => {
                    let left = talk.leave_out(&rules);
                    permitted += left;
                    left == 0 || talk.has_operations()
                }
            }
        });
        self.permitted_already += permitted;
        self.by_grant += by_grant;
    }
}

impl Talk {
    /// Leaves out the operations that `rules` permit; how many they were.
    fn leave_out(&mut self, rules: &Rules) -> u64 {
        let mut permitted = 0;
        let mut keep = |allowed: bool, count: u64| {
            permitted += if allowed { count } else { 0 };
            !allowed
        };
        match rules {
            Rules::Modbus(rules) => self.modbus.retain(|key, seen| {
                let allows = |request: &Request<'_>| rules.judge(request).allows();
                keep(permits(key, seen, &allows), seen.seen.count)
            }),
            Rules::Mqtt(rules) => {
                let allows = |operation: &mqtt::Operation<'_>| rules.judge(operation).allows();
                self.published.retain(|topic, seen| {
                    let publish = |qos| mqtt::Operation::Publish {
                        topic: topic.as_str().into(),
                        qos,
                        retain: seen.retain,
                    };
                    keep(both(seen, &|qos| allows(&publish(qos))), seen.seen.count)
                });
                self.subscribed.retain(|filter, seen| {
                    let subscribe = |qos| mqtt::Operation::Subscribe {
                        filter: filter.as_str().into(),
                        qos,
                    };
                    keep(both(seen, &|qos| allows(&subscribe(qos))), seen.seen.count)
                });
            }
        }
        permitted
    }
}

/// At the least and the greatest quality of service.
fn both(seen: &MessagesSeen, allows: &dyn Fn(u8) -> bool) -> bool {
    (seen.qos.0..=seen.qos.1).all(allows)
}

/// Whether all that was seen of a function is permitted, each range whole and with every value.
fn permits(key: &ModbusKey, seen: &ModbusSeen, allows: &dyn Fn(&Request<'_>) -> bool) -> bool {
    let function = modbus_function(&key.function);
    let code = function.map(|function| function.code);
    let Some(code) = code.or_else(|| modbus_function_number(&key.function)) else {
        return false;
    };
    let registers: Vec<u8> = seen
        .values
        .iter()
        .flat_map(|values| values.first..=values.last)
        .flat_map(u16::to_be_bytes)
        .collect();
    if function.is_some_and(|function| function.files) {
        // Rules know files by their number alone, so one request with all of them stands for each.
        let files = seen.write.iter().flat_map(|files| files.first..=files.last);
        let records = sub_requests(files, &registers);
        return allows(&Request {
            unit: key.unit,
            code,
            sub_function: None,
            read: None,
            write: None,
            values: Values::None,
            files: Files::of(&records, !registers.is_empty()),
        });
    }
    let (reads, writes) = function.map_or((true, true), |function| (function.reads, function.writes));
    let spans = |list: &[Span]| -> Vec<Option<Span>> {
        if list.is_empty() {
            vec![None]
        } else {
            list.iter().copied().map(Some).collect()
        }
    };
    let sub_functions: Vec<Option<u16>> = match function.and_then(|function| function.sub_function) {
        Some(fixed) => vec![Some(fixed)],
        None if seen.sub_functions.is_empty() => vec![None],
        None => seen.sub_functions.iter().copied().map(Some).collect(),
    };
    sub_functions.iter().all(|sub_function| {
        spans(&seen.write).iter().all(|write| {
            spans(&seen.read).iter().all(|read| {
                // A function that does one thing has its span in `write`, whichever it is.
                let (read, write) = match (reads, writes) {
                    (true, false) => (*write, None),
                    _ => (*read, *write),
                };
                allows(&Request {
                    unit: key.unit,
                    code,
                    sub_function: *sub_function,
                    read,
                    write,
                    values: Values::Registers(&registers),
                    files: Files::NONE,
                })
            })
        })
    })
}

/// Sub-requests that touch each of these files, and where there are `registers` write one to each and all to the first.
fn sub_requests(files: impl Iterator<Item = u16>, registers: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |file: u16, data: &[u8]| {
        records.push(6);
        records.extend(file.to_be_bytes());
        records.extend([0, 0]);
        records.extend(u16::try_from(data.len() / 2).unwrap_or(u16::MAX).to_be_bytes());
        records.extend(data);
    };
    let mut first = None;
    for file in files {
        first.get_or_insert(file);
        add(file, registers.get(..2).unwrap_or_default());
    }
    // A record says how many registers it has in 16 bits.
    if let Some(file) = first {
        for data in registers.chunks(usize::from(u16::MAX) * 2) {
            add(file, data);
        }
    }
    records
}
