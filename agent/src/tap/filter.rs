//! The kernel's own filter in front of the tap (classic BPF): received Ethernet frames of the given interfaces that
//! carry TCP from or to a port of a protocol that is read. Everything else is never copied. Pure.
//!
//! The first VLAN tag is in the packet's own data when a filter sees it; a second one (QinQ) still stands in the
//! frame. IPv4 fragments carry no ports or are not put together, so they are left. IPv6 with extension headers passes
//! whole: it is rare, and sorted out afterwards.

use penstock_policy::document::services::plain_ports;

/// Interfaces of one filter; a jump reaches no further.
pub const INTERFACES_MAX: usize = 128;

/// How much of a packet is copied: all of it.
const ALL: u32 = 0x0004_0000;
/// `ARPHRD_ETHER`: the only kind of link that is read.
pub const ETHERNET: u16 = 1;
/// `PACKET_OUTGOING`.
const OUTGOING: u32 = 4;

/// Where the kernel shows what is not in the frame (`SKF_AD_OFF` and what follows it).
const BESIDE: u32 = 0xffff_f000;
const PACKET_TYPE: u32 = BESIDE + 4;
const INTERFACE: u32 = BESIDE + 8;
const LINK_TYPE: u32 = BESIDE + 28;

/// One instruction, as `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions skipped if a comparison holds.
    pub then: u8,
    /// Instructions skipped if it does not.
    pub otherwise: u8,
    /// Operand.
    pub operand: u32,
}

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
/// From X on.
const LOAD_HALF_X: u16 = 0x48;
const AND: u16 = 0x54;
const SHIFT_LEFT: u16 = 0x64;
const ADD: u16 = 0x04;
const TO_X: u16 = 0x07;
const SET_X: u16 = 0x01;
const JUMP: u16 = 0x05;
const EQUAL: u16 = 0x15;
const ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// ARP, and a neighbour's solicitations and advertisements: what a machine says of its own addresses. Only of frames without a tag in
/// their data, which is where the first one is not.
pub fn neighbour_program() -> Vec<Instruction> {
    let line = |code, operand, then, otherwise| Instruction {
        code,
        then,
        otherwise,
        operand,
    };
    vec![
        line(LOAD_HALF, 12, 0, 0),
        line(EQUAL, 0x0806, 6, 0),
        line(EQUAL, 0x86dd, 0, 6),
        line(LOAD_BYTE, 20, 0, 0),
        line(EQUAL, 58, 0, 4),
        line(LOAD_BYTE, 54, 0, 0),
        line(EQUAL, 135, 1, 0),
        line(EQUAL, 136, 0, 1),
        line(RETURN, ALL, 0, 0),
        line(RETURN, 0, 0, 0),
    ]
}

/// Where a jump goes; all lie ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Next,
    Frame,
    Tagged,
    V4(u32),
    V6(u32),
    Ports,
    Accept,
    Drop,
}

#[derive(Debug, Default)]
struct Assembly {
    lines: Vec<(u16, u32, To, To)>,
    labels: Vec<(To, usize)>,
}

impl Assembly {
    fn label(&mut self, label: To) {
        self.labels.push((label, self.lines.len()));
    }

    fn plain(&mut self, code: u16, operand: u32) {
        self.lines.push((code, operand, To::Next, To::Next));
    }

    fn test(&mut self, code: u16, operand: u32, then: To, otherwise: To) {
        self.lines.push((code, operand, then, otherwise));
    }

    fn jump(&mut self, to: To) {
        self.test(JUMP, 0, to, To::Next);
    }

    fn assembled(self) -> Vec<Instruction> {
        let distance = |from: usize, to: To| {
            let label = self.labels.iter().find(|(label, _)| *label == to);
            label.map_or(0, |(_, at)| at.saturating_sub(from + 1))
        };
        let short = |from, to| u8::try_from(distance(from, to)).unwrap_or(u8::MAX);
        let lines = self.lines.iter().enumerate();
        lines
            .map(|(at, &(code, operand, then, otherwise))| {
                if code == JUMP {
                    let operand = u32::try_from(distance(at, then)).unwrap_or(0);
                    return Instruction {
                        code,
                        then: 0,
                        otherwise: 0,
                        operand,
                    };
                }
                Instruction {
                    code,
                    then: short(at, then),
                    otherwise: short(at, otherwise),
                    operand,
                }
            })
            .collect()
    }
}

/// The program for these interfaces; with none it lets nothing through.
pub fn program(interfaces: &[u32]) -> Vec<Instruction> {
    let mut out = Assembly::default();
    out.plain(LOAD_WORD, INTERFACE);
    for interface in interfaces.iter().take(INTERFACES_MAX) {
        out.test(EQUAL, *interface, To::Frame, To::Next);
    }
    out.plain(RETURN, 0);
    out.label(To::Frame);
    out.plain(LOAD_WORD, PACKET_TYPE);
    out.test(EQUAL, OUTGOING, To::Drop, To::Next);
    out.plain(LOAD_WORD, LINK_TYPE);
    out.test(EQUAL, ETHERNET.into(), To::Next, To::Drop);
    for (type_at, tags) in [(12, To::Tagged), (16, To::Drop)] {
        if type_at == 16 {
            out.label(To::Tagged);
        }
        let network = type_at + 2;
        out.plain(LOAD_HALF, type_at);
        out.test(EQUAL, 0x0800, To::V4(network), To::Next);
        out.test(EQUAL, 0x86dd, To::V6(network), To::Next);
        out.test(EQUAL, 0x8100, tags, To::Next);
        out.test(EQUAL, 0x88a8, tags, To::Drop);
    }
    for network in [14, 18] {
        out.label(To::V4(network));
        out.plain(LOAD_BYTE, network + 9);
        out.test(EQUAL, 6, To::Next, To::Drop);
        out.plain(LOAD_HALF, network + 6);
        // More fragments, or not the first.
        out.test(ANY_BIT, 0x3fff, To::Drop, To::Next);
        out.plain(LOAD_BYTE, network);
        out.plain(AND, 0x0f);
        out.plain(SHIFT_LEFT, 2);
        out.plain(ADD, network);
        out.plain(TO_X, 0);
        out.jump(To::Ports);
        out.label(To::V6(network));
        out.plain(LOAD_BYTE, network + 6);
        for extension in [0, 43, 60] {
            out.test(EQUAL, extension, To::Accept, To::Next);
        }
        out.test(EQUAL, 6, To::Next, To::Drop);
        out.plain(SET_X, network + 40);
        out.jump(To::Ports);
    }
    out.label(To::Ports);
    for port_at in [0, 2] {
        out.plain(LOAD_HALF_X, port_at);
        for (port, _) in plain_ports() {
            out.test(EQUAL, u32::from(port), To::Accept, To::Next);
        }
    }
    out.label(To::Drop);
    out.plain(RETURN, 0);
    out.label(To::Accept);
    out.plain(RETURN, ALL);
    out.assembled()
}
