//! A capture file of any content: read, put in order, and followed.
//!
//! Promises: no panic; packets are numbered one after another; no connection brings more bytes than the file has.

use std::sync::Arc;

use penstock_inspect::capture::{Flows, Fragments, Frames, Happening, flows, reassembly};
use penstock_inspect::follow::Follower;
use penstock_inspect::judge::Rules;
use penstock_policy::model::Protocol;

pub fn run(data: &[u8]) {
    let Ok(frames) = Frames::open(data) else { return };
    let limits = flows::Limits {
        flows_max: 8,
        silent_after: None,
        stream: reassembly::Limits {
            waiting_bytes_max: 4096,
            remembered_bytes_max: 1024,
        },
    };
    let mut fragments = Fragments::default();
    let mut flows = Flows::new(limits, &[502, 1883]);
    let mut followers: Vec<Follower> = Vec::new();
    let mut bytes_in_all = 0;
    let mut happened =
        |number: usize, key: penstock_inspect::capture::FlowKey, at, happening: Happening<'_>| {
            let out = &mut |_: penstock_inspect::follow::Finding<'_>| {};
            match happening {
                Happening::Begins { midway } => {
                    assert_eq!(number, followers.len());
                    let protocol = if key.server.port() == 1883 {
                        Protocol::Mqtt
                    } else {
                        Protocol::ModbusTcp
                    };
                    followers.push(Follower::new(Arc::new(Rules::nothing(protocol)), midway));
                }
                Happening::Data(from, bytes) => {
                    bytes_in_all += bytes.len();
                    followers[number].data(from, at, bytes, out);
                }
                Happening::Gap(from, _) => followers[number].gap(from),
                Happening::Conflict(..) => {}
                Happening::Ends => followers[number].finish(out),
            }
        };
    let mut number = 0;
    for frame in frames {
        let Ok(frame) = frame else { break };
        number += 1;
        assert_eq!(frame.number, number);
        if let Ok(Some(segment)) = fragments.segment(&frame) {
            flows.segment(frame.at, &segment, &mut happened);
        }
    }
    flows.finish(&mut happened);
    assert!(
        bytes_in_all <= data.len(),
        "{bytes_in_all} bytes out of {}",
        data.len()
    );
}
