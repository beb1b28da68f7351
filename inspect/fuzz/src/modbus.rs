//! A Modbus connection under any interleaving of both sides.
//!
//! Promises: however it is cut or frozen the same comes out; what reaches the server is whole ADUs, each the client's
//! own, each permitted by one rule in the eyes of [`super::modbus_reference`]; what reaches the client is whole
//! ADUs too; no more than one ADU a side is held.

use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::connection::{ConnectionLimits, Mode, Sender};
use penstock_inspect::judge::Rules;
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::modbus_tcp::ModbusOperation;
use penstock_policy::terms::NumberRange;

use super::modbus_reference::{adus, effect, permits};
use super::play::{Input, Record, Script, Step, mode, on_refusal};

/// Two ADUs that lack their last byte.
const HELD_BYTES_MAX: usize = 2 * 1028;

fn ranges(ranges: &[(u32, u32)]) -> Option<Vec<NumberRange>> {
    let range = |(first, last): &(u32, u32)| NumberRange {
        first: *first,
        last: *last,
    };
    (!ranges.is_empty()).then(|| ranges.iter().map(range).collect())
}

fn rule(
    function: &str,
    units: &[(u32, u32)],
    addresses: &[(u32, u32)],
    values: &[(u32, u32)],
) -> ModbusOperation {
    ModbusOperation {
        function: function.to_owned(),
        units: ranges(units),
        addresses: ranges(addresses),
        read_addresses: None,
        values: ranges(values),
        sub_functions: None,
    }
}

/// The lists of rules that a script chooses from.
pub fn lists() -> Vec<Vec<ModbusOperation>> {
    let mut exchange = rule("read-write-multiple-registers", &[], &[(20, 29)], &[(0, 3)]);
    exchange.read_addresses = ranges(&[(0, 9), (12, 12)]);
    let mut echo = rule("diagnostics", &[(0, 1)], &[], &[]);
    echo.sub_functions = ranges(&[(0, 0)]);
    vec![
        vec![rule("read-only", &[], &[], &[])],
        vec![
            rule("read-holding-registers", &[(1, 1)], &[(0, 9), (40, 60)], &[]),
            rule("write-single-register", &[], &[(0, 4)], &[(0, 5), (9, 9)]),
            rule("mask-write-register", &[(0, 2)], &[], &[(0, 0), (2, 2), (4, 6)]),
        ],
        vec![
            rule("read-write", &[(1, 2)], &[(10, 20)], &[(0, 1000)]),
            rule("write-multiple-registers", &[(0, 0)], &[], &[(1, 2)]),
            rule("write-multiple-coils", &[], &[(0, 30)], &[(1, 1)]),
            rule("write-single-coil", &[], &[(0, 30)], &[(0, 0)]),
        ],
        vec![
            exchange,
            echo,
            rule("read-coils", &[], &[(0, 3)], &[]),
            rule("function-90", &[], &[], &[]),
        ],
    ]
}

fn adu(head: u8, pdu: &[u8]) -> Vec<u8> {
    let length = u16::try_from(pdu.len() + 1).unwrap().to_be_bytes();
    let mut adu = vec![0, head & 3, 0, 0, length[0], length[1], head >> 2 & 3];
    adu.extend(pdu);
    adu
}

/// What an honest server says to a request.
fn answer(request: &[u8]) -> Vec<u8> {
    let mut answer = request[..request.len().min(12)].to_vec();
    let Some(effect) = effect(request) else {
        return answer;
    };
    let counted = match effect.code {
        1 | 2 => Some(effect.reads.len().div_ceil(8)),
        3 | 4 | 23 => Some(effect.reads.len() * 2),
        _ => None,
    };
    if let Some(bytes) = counted {
        answer.truncate(8);
        answer.push(u8::try_from(bytes).unwrap());
        answer.extend(vec![0; bytes]);
    } else if !matches!(effect.code, 5 | 6 | 15 | 16) {
        answer = request.to_vec();
    }
    let length = u16::try_from(answer.len() - 6).unwrap().to_be_bytes();
    answer[4..6].copy_from_slice(&length);
    answer
}

fn script(data: &[u8]) -> Script {
    let mut input = Input(data);
    let lists = lists();
    let config = input.byte();
    let rules = lists
        .into_iter()
        .map(|list| Arc::new(Rules::compile(&Operations::from(list)).unwrap()))
        .collect();
    let mut steps = Vec::new();
    let mut asked: Vec<Vec<u8>> = Vec::new();
    while !input.is_empty() && steps.len() < 200 {
        steps.push(match input.byte() % 8 {
            0 => Step::Feed(Sender::Client, input.piece().to_vec()),
            1 => {
                let adu = adu(input.byte(), input.piece());
                asked.push(adu.clone());
                Step::Feed(Sender::Client, adu)
            }
            2 => Step::Feed(Sender::Server, input.piece().to_vec()),
            3 => Step::Feed(Sender::Server, adu(input.byte(), input.piece())),
            4 => {
                let place = usize::from(input.byte());
                let bytes = if asked.is_empty() {
                    Vec::new()
                } else {
                    answer(&asked[place % asked.len()])
                };
                Step::Feed(Sender::Server, bytes)
            }
            5 => Step::Wait(Duration::from_millis(u64::from(input.byte()) * 4)),
            6 => Step::Freeze,
            _ => Step::Rules(usize::from(input.byte())),
        });
    }
    let mut limits = ConnectionLimits::default();
    if config & 0x80 != 0 {
        limits.transactions.outstanding_max = 2;
    }
    Script {
        rules,
        first_rules: usize::from(config & 3),
        mode: mode(config >> 2),
        on_refusal: on_refusal(config >> 3 & 7),
        limits,
        steps,
    }
}

pub fn run(data: &[u8]) {
    let script = script(data);
    let record = script.play(HELD_BYTES_MAX);
    let (client, server) = (script.sent(Sender::Client), script.sent(Sender::Server));
    if script.mode == Mode::Observe {
        assert_eq!(record.to_server, client, "observing changes what a client sends");
        assert_eq!(record.to_client, server, "observing changes what a server sends");
        assert_eq!(record.closed, None);
        return;
    }
    permitted(&script, &record);
    chosen(&script, &client, &record);
    let (told, rest) = adus(&record.to_client);
    assert!(rest.is_empty(), "the client is told half an ADU");
    let (said, _) = adus(&server);
    for adu in told {
        let own = adu.len() == 9 && adu[7] & 0x80 != 0;
        assert!(own || said.contains(&adu), "nobody said {adu:?}");
    }
}

/// Each ADU that went on is permitted by one rule of a list that was in force at some time.
fn permitted(script: &Script, record: &Record) {
    let lists = lists();
    let mut in_force = vec![script.first_rules];
    in_force.extend(script.steps.iter().filter_map(|step| match step {
        Step::Rules(at) => Some(*at),
        _ => None,
    }));
    let (forwarded, rest) = adus(&record.to_server);
    assert!(rest.is_empty(), "the server is told half an ADU");
    for adu in forwarded {
        let effect = effect(adu).expect("what went on is a request");
        let permitted = in_force
            .iter()
            .flat_map(|at| &lists[at % lists.len()])
            .any(|rule| permits(rule, &effect));
        assert!(permitted, "{effect:?} went on");
    }
}

/// What went on is exactly those of the client's ADUs that are said to have gone on, in their order; and while rules
/// never changed, no request to read or write data was refused that one of them permits.
fn chosen(script: &Script, client: &[u8], record: &Record) {
    let (asked, _) = adus(client);
    let lists = lists();
    let constant = !script.steps.iter().any(|step| matches!(step, Step::Rules(_)));
    for (adu, (words, forwarded)) in asked.iter().zip(&record.judged) {
        if *forwarded || !constant || words.contains("Busy") {
            continue;
        }
        let Some(effect) = effect(adu).filter(|effect| matches!(effect.code, 1..=6 | 15 | 16 | 22 | 23))
        else {
            continue;
        };
        let permitted = lists[script.first_rules % lists.len()]
            .iter()
            .any(|rule| permits(rule, &effect));
        assert!(!permitted, "{words}, although permitted: {effect:?}");
    }
    let went_on: Vec<u8> = asked
        .iter()
        .zip(&record.judged)
        .filter(|(_, (_, forwarded))| *forwarded)
        .flat_map(|(adu, _)| adu.to_vec())
        .collect();
    assert_eq!(record.to_server, went_on);
}
