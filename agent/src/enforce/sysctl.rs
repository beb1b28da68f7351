//! The kernel parameters without which a bridged gateway would not be judged: `net.bridge.bridge-nf-call-*`.

use std::io;
use std::path::Path;

const FOLDER: &str = "/proc/sys/net/bridge";
const PARAMETERS: [&str; 2] = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"];

/// Whether this kernel can show bridged packets to `inet` tables at all.
pub(super) fn can_filter_bridged() -> bool {
    Path::new(FOLDER).is_dir()
}

/// Switches the showing of bridged packets on where it is off; gives the parameters that were.
pub(super) fn filter_bridged() -> io::Result<Vec<&'static str>> {
    let mut were_off = Vec::new();
    for parameter in PARAMETERS {
        let path = Path::new(FOLDER).join(parameter);
        if std::fs::read_to_string(&path)?.trim() != "1" {
            std::fs::write(&path, "1")?;
            were_off.push(parameter);
        }
    }
    Ok(were_off)
}

/// Whether an interface of this name exists in the calling thread's network namespace.
pub(super) fn interface_exists(name: &str) -> bool {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    );
    socket.is_ok_and(|socket| rustix::net::netdevice::name_to_index(socket, name).is_ok())
}
