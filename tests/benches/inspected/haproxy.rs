//! HAProxy in the gateway: the peer that does the same work without looking at what it carries.

use std::time::Duration;

use penstock_lab::Daemon;

use super::{GATEWAY, Plant, SERVER};

/// Where it listens.
pub(super) const PORT: u16 = 1502;

/// What its configuration says beside what is needed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settings<'a> {
    pub(super) global: &'a str,
    /// On the line of where it listens.
    pub(super) bind: &'a str,
    /// On the line of where it carries connections on to.
    pub(super) server: &'a str,
}

/// Looks for packets without ever sleeping; a second thread would take the processor of client and server.
pub(super) const NEVER_SLEEPING: Settings<'static> = Settings {
    global: "busy-polling\n nbthread 1",
    bind: "",
    server: "",
};

/// Carries connections to [`GATEWAY`]'s [`PORT`] on to `server_port` of the server, in TCP mode, with as many threads as
/// there are processors.
pub(super) fn start(plant: &Plant, server_port: u16, settings: Settings<'_>) -> Daemon {
    let Settings { global, bind, server } = settings;
    let configuration = std::env::temp_dir().join("penstock-bench-haproxy.cfg");
    // Without a cache: sessions of TLS are resumed on neither side, as in the agent.
    let text = format!(
        "global\n tune.ssl.cachesize 0\n {global}\n\
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
