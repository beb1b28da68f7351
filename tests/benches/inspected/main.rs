//! The inspector against its peers (DESIGN §12), interleaved in one run.
//!
//! - A Modbus read, libmodbus on both ends: routed with no filter, through HAProxy in TCP mode (which inspects nothing) and
//!   through the inspector with 100 rules.
//! - MQTT publications to a mosquitto: through the inspector with one and with 1,000 topic rules, and routed to a
//!   mosquitto that has a list of 1,000 lines itself.
//! - What 1,000 inspected connections take of memory.
//!
//! Run by `make bench`; needs HAProxy, mosquitto and libmodbus's headers, which `scripts/setup --bench` installs.
//! `PENSTOCK_BENCH=modbus` leaves MQTT and memory out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod gateway;
mod memory;
mod modbus;
mod mqtt;

use penstock::lab::{Lab, Namespace, sandbox};

/// Where the server is, behind the gateway.
const SERVER: &str = "10.2.0.9";
/// The gateway on the client's side.
const GATEWAY: &str = "10.1.255.1";

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
    if !sandbox::inside() {
        let status = sandbox::reexecute(&["--bench"]).unwrap();
        std::process::exit(status.code().unwrap_or(1));
    }
    sandbox::prepare().unwrap();
    let lab = Lab::new("/run/penstock-bench").unwrap();
    let plant = plant(&lab);
    let program = modbus::compile();
    modbus::latency(&plant, &program);
    if std::env::var("PENSTOCK_BENCH").as_deref() != Ok("modbus") {
        mqtt::rates(&plant);
        memory::of_connections(&plant, &program);
    }
}

fn plant(lab: &Lab) -> Plant {
    let [client, gateway, server] = ["client", "gateway", "server"].map(|name| lab.namespace(name).unwrap());
    lab.link((&client, "eth0"), (&gateway, "lan1")).unwrap();
    lab.link((&server, "eth0"), (&gateway, "lan2")).unwrap();
    for (host, port, side, own) in [(&client, "lan1", 1, 5), (&server, "lan2", 2, 9)] {
        host.address("eth0", &format!("10.{side}.0.{own}/16")).unwrap();
        gateway.address(port, &format!("10.{side}.255.1/16")).unwrap();
        host.route("default", &format!("10.{side}.255.1")).unwrap();
    }
    gateway.forward().unwrap();
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
