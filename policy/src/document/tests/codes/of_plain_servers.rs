//! The same for servers that speak no TLS, behind gateways at which their clients' TLS ends.

use super::Spoil::{self, Edit, Made};
use super::made::*;
use super::*;

pub(super) const EXAMPLES: &[(Code, Spoil)] = &[
    (
        Code::PlainServerUnfit,
        Edit(
            "service: https }",
            "service: tcp/443-444, tls: { server: plain, server_port: 80 } }",
        ),
    ),
    (
        Code::PlainServerUnfit,
        Edit(
            "service: mqtt\n",
            "service: mqtts\n        tls: { server_port: 1883 }\n",
        ),
    ),
    (
        Code::PlainServerUnfit,
        Edit(
            "service: mqtt\n",
            "service: mqtts-bridge\n        tls: { server: plain }\n",
        ),
    ),
    (Code::PlainServerUnfit, Made(vouched_for_in_the_plain)),
    (
        Code::PlainServerUnfit,
        Edit(
            "    accountable: it\n    flows:\n      web: { source: clerk, destination: hmi, service: https }",
            "    accountable: it\n    on_agent_loss: pass\n    flows:\n      web: { source: clerk, destination: hmi, service: https, tls: { server: plain } }",
        ),
    ),
];
