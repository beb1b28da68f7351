//! HAProxy in the gateway: the peer that does the same work without looking at what it carries.

use std::time::Duration;

use penstock::lab::Daemon;

use super::{GATEWAY, Plant, SERVER};

/// Where it listens.
pub(super) const PORT: u16 = 1502;

/// Carries connections to [`GATEWAY`]'s [`PORT`] on to `server_port` of the server, in TCP mode with its two threads.
/// `bind` and `server` are what else its lines say.
pub(super) fn start(plant: &Plant, server_port: u16, bind: &str, server: &str) -> Daemon {
    let configuration = std::env::temp_dir().join("penstock-bench-haproxy.cfg");
    // Without a cache: sessions of TLS are resumed on neither side, as in the agent.
    let text = format!(
        "global\n tune.ssl.cachesize 0\n\
         defaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
         listen one\n bind {GATEWAY}:{PORT} {bind}\n server one {SERVER}:{server_port} {server}\n"
    );
    std::fs::write(&configuration, text).unwrap();
    let arguments = ["-f", configuration.to_str().unwrap()];
    let proxy = plant.gateway.spawn("haproxy", "haproxy", &arguments).unwrap();
    plant
        .gateway
        .wait_for_tcp(&format!("{GATEWAY}:{PORT}"), Duration::from_secs(5))
        .unwrap();
    proxy
}
