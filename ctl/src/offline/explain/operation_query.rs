//! One operation as a person asks for it: "write-single-register 40 unit 1", "publish line4/a/temperature qos 1 retain".
//!
//! Events and refusals can be pasted as they are: "of unit 1", "at QoS 1, retained" read the same. A Modbus operation is
//! made into the request that a master would send, so that it is judged by the very code that judges traffic.

use penstock_inspect::judge::{Rules, Verdict};
use penstock_inspect::modbus::request::Request;
use penstock_inspect::{Operation, mqtt};
use penstock_policy::protocol::Protocol;
use penstock_policy::protocol::modbus_tcp::MODBUS_TCP;
use penstock_policy::protocol::modbus_tcp::functions::{
    MODBUS_FUNCTIONS, modbus_function, modbus_function_number, modbus_group,
};
use penstock_policy::protocol::modbus_tcp::register_numbers::{probably_meant, shown};
use penstock_policy::protocol::mqtt::MQTT;
use penstock_policy::terms::NumberRange;

use crate::failure::Failure;

/// An operation that is asked about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OperationQuery {
    /// A Modbus request.
    Modbus {
        unit: u8,
        pdu: Vec<u8>,
        /// The value was not said, and is 0 here.
        assumed: bool,
    },
    /// An MQTT operation.
    Mqtt(mqtt::Operation<'static>),
}

const MODBUS_HELP: &str = "for example: --operation \"write-single-register 40 unit 1\" (addresses count from 0, as on the wire); further words are `value 5`, \
                           `reading 0-9`, `file 4`, `sub-function 2`";
const MQTT_HELP: &str = "for example: --operation \"publish line4/a/temperature qos 1 retain\", \"subscribe line4/#\", \
                         \"connect pump-7 user operator\"";

impl OperationQuery {
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let words = words(text);
        let mut words = words.iter().map(String::as_str).peekable();
        match words.next() {
            Some(verb @ ("publish" | "subscribe" | "unsubscribe" | "connect")) => {
                mqtt(verb, words).map(Self::Mqtt)
            }
            Some(function) => modbus(function, words),
            None => Err(Failure::usage("no operation is named").help(MODBUS_HELP)),
        }
    }

    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Self::Modbus { .. } => MODBUS_TCP,
            Self::Mqtt(_) => MQTT,
        }
    }

    /// The operation as events say it, and how `rules` judge it; `None` where they are of another protocol.
    pub(super) fn judge(&self, rules: &Rules) -> Option<Verdict> {
        match (self, rules) {
            (Self::Modbus { unit, pdu, .. }, Rules::Modbus(rules)) => Request::decode(*unit, pdu)
                .ok()
                .map(|request| rules.judge(&request)),
            (Self::Mqtt(operation), Rules::Mqtt(rules)) => Some(rules.judge(operation)),
            _ => None,
        }
    }

    /// What to know of addresses that look like the register numbers of a manual.
    pub(super) fn doubt(&self) -> Option<String> {
        let Some(Operation::Modbus(operation)) = self.operation() else {
            return None;
        };
        let spans = [operation.write, operation.read].into_iter().flatten();
        let ranges: Vec<NumberRange> = spans
            .map(|span| NumberRange {
                first: span.first.into(),
                last: span.last.into(),
            })
            .collect();
        let (range, meant) = probably_meant(&operation.function(), &ranges)?;
        Some(format!(
            "{} is taken as it stands, for addresses on the wire. A register that a manual numbers so has another: {}",
            shown(range),
            shown(meant)
        ))
    }

    pub(crate) fn operation(&self) -> Option<Operation<'static>> {
        match self {
            Self::Modbus { unit, pdu, .. } => {
                let request = Request::decode(*unit, pdu).ok()?;
                Some(Operation::Modbus(request.operation()))
            }
            Self::Mqtt(operation) => Some(Operation::Mqtt(operation.clone())),
        }
    }

    /// That a value was taken for granted, where the operation writes one and none was said.
    pub(super) fn assumption(&self) -> Option<&'static str> {
        let writes =
            matches!(self.operation(), Some(Operation::Modbus(operation)) if operation.values.is_some());
        (writes && matches!(self, Self::Modbus { assumed: true, .. }))
            .then_some("no value was given: judged with value 0; add `value N` to ask about another")
    }

    /// As events say it, and on whom: "write-single-register 40 of unit 1 on plc-7", with the value that is written.
    pub(super) fn said(&self, on: &str) -> String {
        let operation = self.operation();
        let value = match &operation {
            Some(Operation::Modbus(operation)) => operation.values,
            _ => None,
        };
        let value = value.map_or_else(String::new, |value| format!(" with value {value}"));
        operation.map_or_else(String::new, |operation| format!("{operation} on {on}{value}"))
    }
}

/// The words of a text: at blanks, but not within double quotes; commas and the small words of events fall away.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, part) in text.replace('\u{2013}', "-").split('"').enumerate() {
        if number % 2 == 1 {
            words.push(part.to_owned());
            continue;
        }
        let small = |word: &&str| !matches!(*word, "" | "of" | "at" | "as" | "with" | "write");
        let plain = part
            .split_whitespace()
            .map(|word| word.trim_end_matches(',').trim_matches(['(', ')']))
            .filter(small);
        words.extend(plain.map(str::to_owned));
    }
    words
}

fn number<T: std::str::FromStr>(what: &str, word: Option<&str>, help: &str) -> Result<T, Failure> {
    word.and_then(|word| word.parse().ok()).ok_or_else(|| {
        Failure::usage(format!("`{}` is not {what}", word.unwrap_or("nothing"))).help(help.to_owned())
    })
}

/// `40` or `40-43`.
fn span(word: &str) -> Option<(u16, u16)> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let span = (first.parse().ok()?, last.parse().ok()?);
    (span.0 <= span.1).then_some(span)
}

fn mqtt<'a>(
    verb: &str,
    mut words: impl Iterator<Item = &'a str>,
) -> Result<mqtt::Operation<'static>, Failure> {
    let refused = |why: String| Failure::usage(why).help(MQTT_HELP);
    let subject = words
        .next()
        .ok_or_else(|| refused(format!("`{verb}` does not say what")))?
        .to_owned();
    let (mut qos, mut retain, mut user) = (0, false, None);
    while let Some(word) = words.next() {
        match (verb, word.to_ascii_lowercase().as_str()) {
            ("publish" | "subscribe", "qos") => {
                qos = number("a quality of service", words.next(), MQTT_HELP)?
            }
            ("publish", "retain" | "retained") => retain = true,
            ("connect", "user") => user = words.next().map(|user| user.to_owned().into()),
            _ => return Err(refused(format!("`{word}` says nothing about `{verb}`"))),
        }
    }
    if qos > 2 {
        return Err(refused(format!(
            "{qos} is not a quality of service: it is 0, 1 or 2"
        )));
    }
    let checked = match verb {
        "publish" => mqtt::topic::check_name(&subject),
        "subscribe" | "unsubscribe" => mqtt::topic::check_filter(&subject),
        _ => Ok(()),
    };
    checked
        .map_err(|error| refused(format!("`{subject}` cannot be used there")).because(error.to_string()))?;
    Ok(match verb {
        "publish" => mqtt::Operation::Publish {
            topic: subject.into(),
            qos,
            retain,
        },
        "subscribe" => mqtt::Operation::Subscribe {
            filter: subject.into(),
            qos,
        },
        "unsubscribe" => mqtt::Operation::Unsubscribe {
            filter: subject.into(),
        },
        _ => mqtt::Operation::Connect {
            client_id: subject.into(),
            user,
        },
    })
}

fn modbus<'a>(function: &str, mut words: impl Iterator<Item = &'a str>) -> Result<OperationQuery, Failure> {
    let refused = |why: String| Failure::usage(why).help(MODBUS_HELP);
    let mut fields = Fields::default();
    let mut unit = None;
    while let Some(word) = words.next() {
        match word {
            "unit" | "units" => unit = Some(number("a unit, 0-255", words.next(), MODBUS_HELP)?),
            "value" | "values" => fields.value = Some(number("a value, 0-65535", words.next(), MODBUS_HELP)?),
            "file" => fields.file = number("the number of a file", words.next(), MODBUS_HELP)?,
            "sub-function" => {
                fields.sub_function = number("a sub-function, 0-65535", words.next(), MODBUS_HELP)?;
            }
            // "(read 0-9, write 20)", as events say it.
            "reading" | "read" => {
                let word = words.next().unwrap_or("nothing");
                fields.reading =
                    Some(span(word).ok_or_else(|| refused(format!("`{word}` is not a range of addresses")))?);
            }
            word => {
                let addresses =
                    span(word).ok_or_else(|| refused(format!("`{word}` says nothing about `{function}`")))?;
                if fields.addresses.replace(addresses).is_some() {
                    return Err(refused(format!("`{word}` is a second range of addresses")));
                }
            }
        }
    }
    let code = code(function)?;
    let unit = unit.ok_or_else(|| refused(format!("`{function}` does not say which unit is asked")))?;
    let pdu = fields.pdu(
        code,
        modbus_function(function).and_then(|named| named.sub_function),
    );
    let pdu = pdu.ok_or_else(|| refused(format!("`{function}` does not say which addresses it is about")))?;
    Request::decode(unit, &pdu).map_err(|error| {
        refused(format!("no master could ask for this `{function}`")).because(error.to_string())
    })?;
    Ok(OperationQuery::Modbus {
        unit,
        pdu,
        assumed: fields.value.is_none(),
    })
}

fn code(function: &str) -> Result<u8, Failure> {
    if let Some(named) = modbus_function(function) {
        return Ok(named.code);
    }
    if let Some(code) = modbus_function_number(function) {
        return Ok(code);
    }
    let failure = Failure::usage(format!("`{function}` is not an operation of Modbus or MQTT"));
    if modbus_group(function).is_some() {
        return Err(failure.help(format!("{function} is a group: ask for one of its functions")));
    }
    let names: Vec<&str> = MODBUS_FUNCTIONS.iter().map(|known| known.name).collect();
    Err(failure.help(format!(
        "Modbus has {}; MQTT publish, subscribe, connect",
        names.join(", ")
    )))
}

/// What a Modbus request says beside its function.
#[derive(Default)]
struct Fields {
    addresses: Option<(u16, u16)>,
    reading: Option<(u16, u16)>,
    value: Option<u16>,
    file: u16,
    sub_function: u16,
}

impl Fields {
    /// The value; 0 where none was given ([`OperationQuery::assumption`]).
    fn value(&self) -> u16 {
        self.value.unwrap_or(0)
    }

    /// The request (V1.1b3, section 6). `None` where it needs addresses that were not said.
    fn pdu(&self, code: u8, mei_type: Option<u16>) -> Option<Vec<u8>> {
        let count = |(first, last): (u16, u16)| u16::try_from(u32::from(last) - u32::from(first) + 1).ok();
        let mut pdu = vec![code];
        let mut put = |word: u16| pdu.extend(word.to_be_bytes());
        match code {
            1..=4 => {
                let span = self.addresses.or(self.reading)?;
                put(span.0);
                put(count(span)?);
            }
            5 => {
                put(self.addresses?.0);
                put(match self.value() {
                    0 => 0,
                    1 => 0xff00,
                    // No coil can have it, which decoding then says.
                    other => other,
                });
            }
            6 => {
                put(self.addresses?.0);
                put(self.value());
            }
            8 => {
                put(self.sub_function);
                put(0);
            }
            15 | 16 => {
                let span = self.addresses?;
                let count = count(span)?;
                put(span.0);
                put(count);
                self.values(code, count, &mut pdu);
            }
            20 | 21 => {
                let write = code == 21;
                pdu.push(if write { 9 } else { 7 });
                pdu.push(6);
                for word in [self.file, 0, 1] {
                    pdu.extend(word.to_be_bytes());
                }
                if write {
                    pdu.extend(self.value().to_be_bytes());
                }
            }
            // All bits from the OR mask: the register ends up with the value, whatever it had.
            22 => {
                put(self.addresses?.0);
                put(0);
                put(self.value());
            }
            23 => {
                let (read, write) = (self.reading?, self.addresses?);
                put(read.0);
                put(count(read)?);
                let count = count(write)?;
                put(write.0);
                put(count);
                self.values(16, count, &mut pdu);
            }
            24 => put(self.addresses.or(self.reading)?.0),
            43 if mei_type == Some(14) => pdu.extend([14, 1, 0]),
            43 => pdu.extend([13, 0]),
            _ => {}
        }
        Some(pdu)
    }

    /// The byte count and the value, as often as there are addresses.
    fn values(&self, code: u8, count: u16, pdu: &mut Vec<u8>) {
        if code == 15 {
            let bytes = count.div_ceil(8);
            // Past what a byte can count no master can ask, which decoding then says.
            pdu.push(u8::try_from(bytes).unwrap_or(u8::MAX));
            for byte in 0..bytes {
                let bits = (count - byte * 8).min(8);
                let all = if bits == 8 { 0xff } else { (1_u8 << bits) - 1 };
                pdu.push(if self.value() == 0 { 0 } else { all });
            }
            return;
        }
        pdu.push(u8::try_from(u32::from(count) * 2).unwrap_or(u8::MAX));
        for _ in 0..count {
            pdu.extend(self.value().to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_operation_that_is_said_reads_back_as_it_was_said() {
        for text in [
            "write-single-register 40 of unit 1",
            "read-holding-registers 0\u{2013}9 of unit 255",
            "read-device-identification of unit 1",
            "report-server-id of unit 3",
            "function-65 of unit 1",
            "read-write-multiple-registers (read 0\u{2013}9, write 20) of unit 1",
            "publish line4/a/temperature at QoS 1, retained",
            "subscribe line4/# at QoS 2",
            "connect as pump-7 with user operator",
            "unsubscribe line4/#",
        ] {
            let operation = OperationQuery::parse(text)
                .unwrap()
                .operation()
                .unwrap()
                .to_string();
            assert_eq!(operation, text);
        }
    }

    #[test]
    fn every_function_of_the_standard_can_be_asked_for() {
        for function in MODBUS_FUNCTIONS {
            let text = format!(
                "{} 4 reading 4 file 4 sub-function 0 value 1 unit 1",
                function.name
            );
            let asked = OperationQuery::parse(&text).unwrap();
            let Some(Operation::Modbus(operation)) = asked.operation() else {
                panic!("{text}")
            };
            assert_eq!(operation.function_name(), Some(function.name));
            assert_eq!(operation.values.is_some(), function.values, "{}", function.name);
        }
        for (text, said) in [
            (
                "write-multiple-coils 0-9 value 1 unit 1",
                "write-multiple-coils 0\u{2013}9 of unit 1 on plc-7 with value 1",
            ),
            (
                "mask-write-register 7 value 5 unit 1",
                "mask-write-register 7 of unit 1 on plc-7 with value 5",
            ),
            (
                "write-single-register 40 unit 1",
                "write-single-register 40 of unit 1 on plc-7 with value 0",
            ),
        ] {
            assert_eq!(OperationQuery::parse(text).unwrap().said("plc-7"), said);
        }
    }

    #[test]
    fn a_write_without_a_value_says_that_it_was_judged_with_0() {
        let assumption = |text: &str| OperationQuery::parse(text).unwrap().assumption();
        let said = assumption("write-single-register 40 unit 1").unwrap();
        assert!(said.contains("judged with value 0"), "{said}");
        for complete in [
            "write-single-register 40 unit 1 value 0",
            "read-coils 0-3 unit 1",
            "publish a/b",
        ] {
            assert_eq!(assumption(complete), None, "{complete}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused_with_what_is_missing() {
        for (text, why) in [
            ("", "no operation is named"),
            ("write-single-register 40", "does not say which unit"),
            ("write-single-register unit 1", "does not say which addresses"),
            ("write-single-register 40 41 unit 1", "second range"),
            ("read-coils 9-3 unit 1", "says nothing about"),
            ("read-coils 0-4000 unit 1", "no master could ask"),
            ("write-single-coil 4 value 7 unit 1", "no master could ask"),
            ("read-only 0-9 unit 1", "is not an operation"),
            ("publish", "does not say what"),
            ("publish line4/# qos 1", "cannot be used there"),
            ("publish a qos 3", "0, 1 or 2"),
            ("subscribe a retain", "says nothing about"),
        ] {
            let failure = OperationQuery::parse(text).unwrap_err();
            let said = format!("{failure:?}");
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
