//! The inspector against its peers (DESIGN §12), interleaved in one run. Each part has a name:
//!
//! - `modbus`: a Modbus read, libmodbus on both ends, from a server that answers at once and from one as slow as a
//!   controller: routed with no filter, through HAProxy in TCP mode (which inspects nothing) and through the inspector
//!   with 100 rules, enforcing and observing.
//! - `loaded`: the same beside four programs that never rest.
//! - `shadow`: the same, enforcing, with a release in its shadow and without.
//! - `connections`: new Modbus/TCP connections up to their first answer, through HAProxy in TCP mode and the inspector.
//! - `mqtt`: MQTT publications to a mosquitto: through the inspector with one and with 1,000 topic rules, and routed to a
//!   mosquitto that has a list of 1,000 lines itself.
//! - `tls`: MQTT inside TLS that ends at the gateway, and at an HAProxy that does the same: handshakes, publications,
//!   and what 1,000 connections take of memory.
//! - `plain`: TLS that ends at the gateway before a server that speaks none, and at an HAProxy that does the same: handshakes, bulk, requests.
//! - `memory`: what the agent takes of memory with 10 and with 1,000 flows, and with 1,000 inspected connections.
//! - `tuples`: an agent's start with 100,000 inspected tuples, and a read then.
//!
//! Run by `make bench`; needs HAProxy, mosquitto and libmodbus's headers, which `scripts/setup --bench` installs, and root
//! for `tuples`: a user's namespace has no socket buffers for so large a load. `PENSTOCK_BENCH=tls` runs that part alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod connections;
mod gateway;
mod haproxy;
mod memory;
mod modbus;
mod mqtt;
#[allow(dead_code, unreachable_pub)] // The rest of it serves the tests.
#[path = "../../tests/inspected/pki.rs"]
mod pki;
mod plain;
mod process;
mod shadow;
mod tls;
mod tuples;

use penstock_lab::{Lab, Namespace, sandbox};

/// Where the client is.
const CLIENT: &str = "10.1.0.5";
/// Where the server is, behind the gateway.
const SERVER: &str = "10.2.0.9";
/// The gateway on the client's side.
const GATEWAY: &str = "10.1.255.1";

/// Measures, and prints what it measured.
type Part = fn(&Plant);

/// All measurements, by the name that selects one.
const PARTS: &[(&str, Part)] = &[
    ("modbus", modbus::latency),
    ("loaded", modbus::latency_beside_load),
    ("shadow", shadow::beside),
    ("connections", connections::rates),
    ("mqtt", mqtt::rates),
    ("tls", tls::all),
    ("plain", plain::all),
    ("memory", memory::all),
    ("tuples", tuples::starts),
];

/// A client and a server with a gateway between them.
struct Plant {
    client: Namespace,
    gateway: Namespace,
    server: Namespace,
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("this is a bench: cargo bench -p penstock-tests --bench inspected");
        return;
    }
    let selected = std::env::var("PENSTOCK_BENCH").ok();
    let parts: Vec<_> = PARTS
        .iter()
        .filter(|(name, _)| selected.as_deref().is_none_or(|selected| selected == *name))
        .collect();
    let names: Vec<_> = PARTS.iter().map(|(name, _)| name).collect();
    assert!(!parts.is_empty(), "PENSTOCK_BENCH is none of {names:?}");
    if !sandbox::inside() {
        let status = sandbox::reexecute(&["--bench"]).unwrap();
        std::process::exit(status.code().unwrap_or(1));
    }
    sandbox::prepare().unwrap();
    let lab = Lab::new("/run/penstock-bench").unwrap();
    let plant = plant(&lab);
    for (_, measure) in parts {
        measure(&plant);
    }
}

fn plant(lab: &Lab) -> Plant {
    let [client, gateway, server] = ["client", "gateway", "server"].map(|name| lab.namespace(name).unwrap());
    lab.link((&client, "eth0"), (&gateway, "lan1")).unwrap();
    lab.link((&server, "eth0"), (&gateway, "lan2")).unwrap();
    for (host, port, side, own) in [(&client, "lan1", 1, CLIENT), (&server, "lan2", 2, SERVER)] {
        host.address("eth0", &format!("{own}/16")).unwrap();
        gateway.address(port, &format!("10.{side}.255.1/16")).unwrap();
        host.route("default", &format!("10.{side}.255.1")).unwrap();
    }
    gateway.forward().unwrap();
    // An ended connection keeps its port for a minute: HAProxy, which connects from here, has enough of them.
    gateway
        .sysctl("net.ipv4.ip_local_port_range", "10000 65000")
        .unwrap();
    Plant {
        client,
        gateway,
        server,
    }
}

/// The middle of some figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The middle of what each round says of `one` to `other`: a machine that is busy for a while is so for both.
fn ratio(one: &[f64], other: &[f64]) -> f64 {
    median(one.iter().zip(other).map(|(one, other)| one / other).collect())
}
