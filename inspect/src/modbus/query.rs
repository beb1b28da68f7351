//! A request as a person asks for it: the one that a master would send.

use penstock_policy::protocol::modbus_tcp::functions::{modbus_function, modbus_function_number};
use penstock_policy::protocol::modbus_tcp::register_numbers::{probably_meant, shown};
use penstock_policy::terms::NumberRange;

use super::judge::ModbusRules;
use super::Request;
use crate::judge::{Rules, Verdict};
use crate::operation::VALUES;
use crate::query::{Asked, Query, QueryError, Words};

/// How one is written.
pub(super) const EXAMPLE: &str = "for example: --operation \"write-single-register 40 unit 1\" (addresses count from 0, as on the wire); further words are `value 5`, \
                                  `reading 0-9`, `file 4`, `sub-function 2`";

/// A request by its bytes.
#[derive(Debug)]
struct AskedRequest {
    unit: u8,
    pdu: Vec<u8>,
}

impl Asked for AskedRequest {
    fn judge(&self, rules: &Rules) -> Option<Verdict> {
        let rules = rules.of::<ModbusRules>()?;
        let request = Request::decode(self.unit, &self.pdu).ok()?;
        Some(rules.judge(&request))
    }
}

/// Reads the words behind the name of a function; `None`: it is not one.
pub(super) fn read(function: &str, words: &mut Words<'_>) -> Option<Result<Query, QueryError>> {
    let named = modbus_function(function);
    let code = named
        .map(|named| named.code)
        .or_else(|| modbus_function_number(function))?;
    Some(request(function, code, words))
}

fn request(function: &str, code: u8, words: &mut Words<'_>) -> Result<Query, QueryError> {
    let refused = |why: String| QueryError::new(why, EXAMPLE);
    let (unit, fields) = Fields::read(function, words)?;
    let unit = unit.ok_or_else(|| refused(format!("`{function}` does not say which unit is asked")))?;
    let mei_type = modbus_function(function).and_then(|named| named.sub_function);
    let pdu = fields
        .pdu(code, mei_type)
        .ok_or_else(|| refused(format!("`{function}` does not say which addresses it is about")))?;
    let request = Request::decode(unit, &pdu)
        .map_err(|error| refused(format!("no master could ask for this `{function}`")).because(&error))?;
    let operation = request.operation();
    let assumed = operation.numbers(VALUES).is_some() && fields.value.is_none();
    let doubt = doubt(function, &request);
    Ok(Query::new(operation, AskedRequest { unit, pdu })
        .assuming(
            assumed.then_some("no value was given: judged with value 0; add `value N` to ask about another"),
        )
        .doubting(doubt))
}

/// What to know of addresses that look like the register numbers of a manual.
fn doubt(function: &str, request: &Request<'_>) -> Option<String> {
    let spans = [request.write, request.read].into_iter().flatten();
    let ranges: Vec<NumberRange> = spans.map(NumberRange::from).collect();
    let (range, meant) = probably_meant(function, &ranges)?;
    Some(format!(
        "{} is taken as it stands, for addresses on the wire. A register that a manual numbers so has another: {}",
        shown(range),
        shown(meant)
    ))
}

/// `40` or `40-43`.
fn span(word: &str) -> Option<(u16, u16)> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let span = (first.parse().ok()?, last.parse().ok()?);
    (span.0 <= span.1).then_some(span)
}

/// What a request says beside its function and unit.
#[derive(Default)]
struct Fields {
    addresses: Option<(u16, u16)>,
    reading: Option<(u16, u16)>,
    value: Option<u16>,
    file: u16,
    sub_function: u16,
}

impl Fields {
    fn read(function: &str, words: &mut Words<'_>) -> Result<(Option<u8>, Self), QueryError> {
        let refused = |why: String| QueryError::new(why, EXAMPLE);
        let (mut unit, mut fields) = (None, Self::default());
        while let Some(word) = words.next() {
            match word {
                "unit" | "units" => unit = Some(words.number("a unit, 0-255", EXAMPLE)?),
                "value" | "values" => fields.value = Some(words.number("a value, 0-65535", EXAMPLE)?),
                "file" => fields.file = words.number("the number of a file", EXAMPLE)?,
                "sub-function" => fields.sub_function = words.number("a sub-function, 0-65535", EXAMPLE)?,
                // "(read 0-9, write 20)", as events say it.
                "reading" | "read" => {
                    let word = words.next().unwrap_or("nothing");
                    let reading = span(word);
                    let reading =
                        reading.ok_or_else(|| refused(format!("`{word}` is not a range of addresses")))?;
                    fields.reading = Some(reading);
                }
                word => {
                    let addresses = span(word)
                        .ok_or_else(|| refused(format!("`{word}` says nothing about `{function}`")))?;
                    if fields.addresses.replace(addresses).is_some() {
                        return Err(refused(format!("`{word}` is a second range of addresses")));
                    }
                }
            }
        }
        Ok((unit, fields))
    }

    /// The value; 0 where none was given ([`Query::assumption`]).
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
