//! A Modbus server's reading of a request, as plain as can be, and the obvious reading of a list of rules.
//!
//! Every field is read where the standard puts it. A reader that trusts the quantity and one that trusts the byte
//! count must understand the same; where they would not, or a field is missing, the request is `None`.

use penstock_policy::protocol::modbus_tcp::ModbusOperation;
use penstock_policy::terms::NumberRange;

/// What carrying out a request does.
#[derive(Debug, Default)]
pub struct Effect {
    pub unit: u8,
    pub code: u8,
    pub sub_function: Option<u16>,
    pub reads: Vec<u32>,
    pub writes: Vec<u32>,
    /// All that any written cell can hold afterwards.
    pub values: Vec<u16>,
}

/// Cuts a stream by its length fields; what is left at the end is no whole ADU.
pub fn adus(stream: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut rest = stream;
    let mut whole = Vec::new();
    while rest.len() >= 6 {
        let length = 6 + (usize::from(rest[4]) << 8 | usize::from(rest[5]));
        if rest.len() < length {
            break;
        }
        let (adu, after) = rest.split_at(length);
        whole.push(adu);
        rest = after;
    }
    (whole, rest)
}

/// What `adu` makes a server do.
pub fn effect(adu: &[u8]) -> Option<Effect> {
    if adu.len() < 8 || adu[2..4] != [0, 0] {
        return None;
    }
    // Nothing says how long what the standard does not define may be.
    let most = if matches!(adu[7], 1..=8 | 11 | 12 | 15..=17 | 20..=24 | 43) {
        260
    } else {
        1029
    };
    if adu.len() > most {
        return None;
    }
    let (unit, code, body) = (adu[6], adu[7], &adu[8..]);
    let word = |at: usize| Some(u32::from(*body.get(at)?) << 8 | u32::from(*body.get(at + 1)?));
    let short = |at: usize| word(at).and_then(|word| u16::try_from(word).ok());
    let cells = |first: u32, count: u32, most: u32| {
        (count >= 1 && count <= most && first + count <= 65_536)
            .then(|| (first..first + count).collect::<Vec<_>>())
    };
    // Registers that follow a byte count at `at`.
    let registers = |at: usize, count: usize| {
        let fits = usize::from(*body.get(at)?) == 2 * count && body.len() == at + 1 + 2 * count;
        fits.then(|| {
            (0..count)
                .filter_map(|place| short(at + 1 + 2 * place))
                .collect::<Vec<_>>()
        })
    };
    let mut effect = Effect {
        unit,
        code,
        ..Effect::default()
    };
    let exactly = |bytes: usize| (body.len() == bytes).then_some(());
    match code {
        1 | 2 => {
            exactly(4)?;
            effect.reads = cells(word(0)?, word(2)?, 2000)?;
        }
        3 | 4 => {
            exactly(4)?;
            effect.reads = cells(word(0)?, word(2)?, 125)?;
        }
        5 => {
            exactly(4)?;
            effect.writes = cells(word(0)?, 1, 1)?;
            effect.values = vec![match word(2)? {
                0xff00 => 1,
                0 => 0,
                _ => return None,
            }];
        }
        6 => {
            exactly(4)?;
            effect.writes = cells(word(0)?, 1, 1)?;
            effect.values = vec![short(2)?];
        }
        15 => {
            let count = word(2)?;
            effect.writes = cells(word(0)?, count, 1968)?;
            let bytes = usize::try_from(count.div_ceil(8)).unwrap();
            if usize::from(*body.get(4)?) != bytes || body.len() != 5 + bytes {
                return None;
            }
            let coil = |at: u32| u16::from(body[5 + usize::try_from(at / 8).unwrap()] >> (at % 8) & 1);
            effect.values = (0..count).map(coil).collect();
        }
        16 => {
            effect.writes = cells(word(0)?, word(2)?, 123)?;
            effect.values = registers(4, effect.writes.len())?;
        }
        22 => {
            exactly(6)?;
            effect.writes = cells(word(0)?, 1, 1)?;
            let (and, or) = (short(2)?, short(4)?);
            let mut left = vec![false; 65_536];
            for current in 0..=u16::MAX {
                left[usize::from((current & and) | (or & !and))] = true;
            }
            effect.values = (0..=u16::MAX).filter(|value| left[usize::from(*value)]).collect();
        }
        23 => {
            effect.reads = cells(word(0)?, word(2)?, 125)?;
            effect.writes = cells(word(4)?, word(6)?, 121)?;
            effect.values = registers(8, effect.writes.len())?;
        }
        7 | 11 | 12 | 17 => exactly(0)?,
        8 => effect.sub_function = Some(short(0)?),
        24 => {
            exactly(2)?;
            effect.reads = cells(word(0)?, 1, 1)?;
        }
        43 => effect.sub_function = Some(u16::from(*body.first()?)),
        0 | 0x80.. => return None,
        _ => {}
    }
    Some(effect)
}

fn within(ranges: &Option<Vec<NumberRange>>, number: u32) -> bool {
    let Some(ranges) = ranges else { return true };
    ranges
        .iter()
        .any(|range| range.first <= number && number <= range.last)
}

/// Whether the function is one that the rule names.
fn names(rule: &ModbusOperation, effect: &Effect) -> bool {
    let sub_function = effect.sub_function;
    let reading = match effect.code {
        1..=4 | 7 | 11 | 12 | 17 | 20 | 24 => true,
        8 => sub_function.is_some_and(|sub_function| matches!(sub_function, 0 | 2 | 11..=18)),
        43 => sub_function == Some(14),
        _ => false,
    };
    match rule.function.as_str() {
        "read-only" => reading,
        "read-write" => reading || matches!(effect.code, 5 | 6 | 15 | 16 | 22 | 23),
        "read-coils" => effect.code == 1,
        "read-holding-registers" => effect.code == 3,
        "write-single-coil" => effect.code == 5,
        "write-single-register" => effect.code == 6,
        "diagnostics" => effect.code == 8,
        "write-multiple-coils" => effect.code == 15,
        "write-multiple-registers" => effect.code == 16,
        "mask-write-register" => effect.code == 22,
        "read-write-multiple-registers" => effect.code == 23,
        "function-90" => effect.code == 90,
        other => panic!("the reference does not know {other}"),
    }
}

/// Whether one rule permits all of it.
pub fn permits(rule: &ModbusOperation, effect: &Effect) -> bool {
    let reads = if rule.read_addresses.is_some() {
        &rule.read_addresses
    } else {
        &rule.addresses
    };
    let sub_functions = effect.code != 8 || rule.function != "diagnostics";
    names(rule, effect)
        && within(&rule.units, u32::from(effect.unit))
        && effect.reads.iter().all(|at| within(reads, *at))
        && effect.writes.iter().all(|at| within(&rule.addresses, *at))
        && effect
            .values
            .iter()
            .all(|value| within(&rule.values, u32::from(*value)))
        && (sub_functions
            || effect
                .sub_function
                .is_some_and(|sub| within(&rule.sub_functions, u32::from(sub))))
}
