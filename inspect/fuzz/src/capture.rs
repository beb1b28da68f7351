//! A capture file of any content: read, put in order, and followed.
//!
//! Promises: no panic; packets are numbered one after another; no connection brings more bytes than the file has; each
//! datagram is of one conversation.

use penstock_policy::protocol::modbus_tcp::MODBUS_TCP;
use penstock_policy::protocol::mqtt::MQTT;
use std::sync::Arc;

use penstock_inspect::capture::direction::{NoDeclarations, Opening};
use penstock_inspect::capture::{
    Conversations, Flows, Fragments, Frames, Happening, Transport, flows, reassembly,
};
use penstock_inspect::follow::Follower;
use penstock_inspect::judge::Rules;

pub fn run(data: &[u8]) {
    let Ok(frames) = Frames::open(data) else { return };
    let limits = flows::FlowLimits {
        flows_max: 8,
        silent_after: None,
        stream: reassembly::ReassemblyLimits {
            waiting_bytes_max: 4096,
            remembered_bytes_max: 1024,
        },
        remembered_bytes_max: 1 << 20,
    };
    let mut fragments = Fragments::default();
    let mut flows = Flows::new(limits);
    let mut followers: Vec<Follower> = Vec::new();
    let mut bytes_in_all = 0;
    let mut happened =
        |number: usize, key: penstock_inspect::capture::FlowKey, at, happening: Happening<'_>| {
            let out = &mut |_: penstock_inspect::follow::StreamFinding<'_>| {};
            match happening {
                Happening::Begins { opening } => {
                    assert_eq!(number, followers.len());
                    let protocol = if key.server.port() == 1883 {
                        MQTT
                    } else {
                        MODBUS_TCP
                    };
                    followers.push(Follower::new(
                        Arc::new(Rules::nothing(protocol).unwrap()),
                        opening != Opening::Recorded,
                    ));
                }
                Happening::Data(from, bytes) => {
                    bytes_in_all += bytes.len();
                    followers[number].data(from, at, bytes, out);
                }
                Happening::Gap(from, _) => followers[number].gap(from),
                Happening::Conflict(..) | Happening::Unopened(_) => {}
                Happening::Ends { seen } => followers[number].finish(seen, out),
            }
        };
    let mut conversations = Conversations::default();
    let (mut datagrams, mut conversed) = (0, 0);
    let mut number = 0;
    for frame in frames {
        let Ok(frame) = frame else { break };
        number += 1;
        assert_eq!(frame.number, number);
        match fragments.transport(&frame) {
            Ok(Some(Transport::Tcp(segment))) => {
                flows.segment(frame.at, &segment, &NoDeclarations, &mut happened)
            }
            Ok(Some(Transport::Udp(datagram))) => {
                datagrams += 1;
                conversations.datagram(frame.at, &datagram, &NoDeclarations, &mut |over| {
                    conversed += over.datagrams.iter().sum::<u64>();
                });
            }
            Ok(None) | Err(_) => {}
        }
    }
    flows.finish(&mut happened);
    let left_out = conversations.left_out();
    conversations.finish(&NoDeclarations, &mut |over| {
        conversed += over.datagrams.iter().sum::<u64>()
    });
    assert_eq!(conversed + left_out, datagrams);
    assert!(
        bytes_in_all <= data.len(),
        "{bytes_in_all} bytes out of {}",
        data.len()
    );
}
