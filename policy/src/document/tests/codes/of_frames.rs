//! For each code about frames other than IP a document that has it.

use super::super::frames::{IO, bridged};
use super::Spoil::{self, Edit};
use super::*;

pub(super) const EXAMPLES: &[(Code, Spoil)] = &[
    (
        Code::NotAnEtherType,
        Made(|| bridged(&IO.replace("ethertype: goose", "ethertype: 0x0800"))),
    ),
    (
        Code::NotAnEtherType,
        Made(|| bridged(&IO.replace("ethertype: goose", "ethertype: profinet"))),
    ),
    (
        Code::NotAnEtherType,
        Made(|| bridged("io: { from: office, ethertype: 0x88cc }\n")),
    ),
    (
        Code::FramesNotBridged,
        Edit(
            "      web: { source: clerk, destination: hmi, service: https }\n",
            "      web: { source: clerk, destination: hmi, service: https }\n    frames:\n      io: { from: office, ethertype: ptp }\n",
        ),
    ),
    (
        Code::FramesUnfit,
        Made(|| bridged(IO).replace("eth2: { zone: ops }", "eth2: { zone: ops, behind: cells }")),
    ),
    (
        Code::FramesUnfit,
        Made(|| bridged(&IO.replace("ethertype: goose", "ethertype: profinet-rt"))),
    ),
    (
        Code::NotByGrant,
        Made(|| bridged(IO).replace("    conduit: maintain\n", "    conduit: reports\n")),
    ),
];
