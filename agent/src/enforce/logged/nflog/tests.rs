#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

fn logged(said: &str, kind: u16, payload: &[u8]) -> Vec<LoggedPacket> {
    let header = [kind.to_be_bytes(), [0, 0]].concat();
    let attributes: Vec<(u16, &[u8])> = vec![
        (1, &header),
        (2, &[0x80, 0, 0, 7]),
        (4, &[0, 0, 0, 3]),
        (5, &[0, 0, 0, 4]),
        (10, said.as_bytes()),
        (9, payload),
    ];
    packets(&request(PACKET, 0, 2, 86, &attributes)).collect()
}

const TCP: [u8; 24] = [
    0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 1, 5, 10, 0, 2, 9, 0xc0, 0x01, 0x01, 0xf6,
];

#[test]
fn an_allowed_first_packet_tells_its_flow_and_tuple() {
    let packet = logged("ps:a", 0x0800, &TCP).remove(0);
    assert_eq!(
        (packet.logged, packet.flow, packet.ingress, packet.egress),
        (KernelAction::Allow, 7, 3, 4)
    );
    let (source, destination) = ("10.0.1.5".parse().unwrap(), "10.0.2.9".parse().unwrap());
    assert_eq!(
        packet.content,
        Content::Ip {
            source,
            destination,
            protocol: 6,
            port: 502,
            shape: PacketShape::Plain
        }
    );
}

#[test]
fn a_packet_of_the_answering_side_is_turned_round() {
    let packet = logged("ps:dr", 0x0800, &TCP).remove(0);
    assert_eq!(
        (packet.logged, packet.flow, packet.ingress, packet.egress),
        (KernelAction::Deny, 0, 4, 3)
    );
    let (source, destination) = ("10.0.2.9".parse().unwrap(), "10.0.1.5".parse().unwrap());
    assert_eq!(
        packet.content,
        Content::Ip {
            source,
            destination,
            protocol: 6,
            port: 0xc001,
            shape: PacketShape::Plain
        }
    );
}

#[test]
fn a_later_fragment_has_no_port() {
    let mut fragment = TCP;
    fragment[7] = 9;
    let Content::Ip { port, .. } = content(0x0800, &fragment) else {
        panic!("not IP")
    };
    assert_eq!(port, 0);
}

proptest! {
    #[test]
    fn bytes_of_any_kind_are_read_without_harm(kind: u16, payload: Vec<u8>, said in "ps:[adwi]r?") {
        for packet in logged(&said, kind, &payload) {
            prop_assert!(packet.flow <= MARK_FLOW);
        }
        prop_assert!(packets(&payload).count() <= payload.len());
    }
}

#[test]
fn lost_messages_are_known_by_the_numbers_of_those_that_come() {
    let numbered = |number: u32| request(PACKET, 0, 2, 86, &[(12, &number.to_be_bytes())]);
    let mut numbers = Numbers::default();
    assert_eq!(numbers.lost(&numbered(0)), 0);
    assert_eq!(numbers.lost(&[numbered(1), numbered(4)].concat()), 2);
    assert_eq!(numbers.report_ahead(), 1, "the socket overran, and nothing comes");
    assert_eq!(
        numbers.lost(&numbered(15)),
        9,
        "ten were lost, of which one is reported"
    );
    assert_eq!(numbers.lost(&numbered(16)), 0);
}
