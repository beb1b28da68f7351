//! For each code about roles of clients a document that has it.

use super::Spoil::{self, Edit};
use super::*;

pub(super) const EXAMPLES: &[(Code, Spoil)] = &[
    (
        Code::RolesUnfit,
        Edit(
            "        service: modbus-tcp\n        allow: [{ read-coils: { units: 1, addresses: 0-9 } }]\n",
            "        service: modbus-tcp\n        allow: [{ read-coils: { units: 1, addresses: 0-9 } }]\n        roles: { operator: any }\n",
        ),
    ),
    (
        Code::RolesUnfit,
        Edit(
            "        service: modbus-tcp\n        allow: [{ read-coils: { units: 1, addresses: 0-9 } }]\n",
            "        service: modbus-tcp:802\n        tls: { server: plain, server_port: 502 }\n        allow: any\n        roles: { operator: any }\n",
        ),
    ),
    (
        Code::RolesUnfit,
        Edit(
            "        service: modbus-tcp\n        allow: [{ read-coils: { units: 1, addresses: 0-9 } }]\n",
            "        service: modbus-tcp:802\n        tls: { server: plain, server_port: 502 }\n        allow: [{ read-coils: { units: 1, addresses: 0-9 } }]\n        default_role: operator\n",
        ),
    ),
    (
        Code::UnknownRole,
        Edit(
            "        service: modbus-tcp\n        allow: [{ read-coils: { units: 1, addresses: 0-9 } }]\n",
            "        service: modbus-tcp:802\n        tls: { server: plain, server_port: 502 }\n        allow: [{ read-coils: { units: 1, addresses: 0-9 } }]\n        roles: { operator: any }\n        default_role: operater\n",
        ),
    ),
    (
        Code::RoleBeyondFlow,
        Edit(
            "        service: modbus-tcp\n        allow: [{ read-coils: { units: 1, addresses: 0-9 } }]\n",
            "        service: modbus-tcp:802\n        tls: { server: plain, server_port: 502 }\n        allow: [{ read-coils: { units: 1, addresses: 0-9 } }]\n        roles: { operator: [{ write-single-coil: { units: 1, addresses: 3 } }] }\n",
        ),
    ),
];
