//! Kernel parameters: those without which a bridged gateway would not be judged (`net.bridge.bridge-nf-call-*`) are set,
//! others are looked at.

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

/// Whether a parameter, named by its path, is there and 1.
pub(super) fn is_on(parameter: &str) -> bool {
    std::fs::read_to_string(Path::new("/proc/sys").join(parameter)).is_ok_and(|value| value.trim() == "1")
}

/// Whether an interface of this name exists in the calling thread's network namespace.
pub(super) fn interface_exists(name: &str) -> bool {
    interface_number(name).is_some()
}

/// The number of the interface of this name in the calling thread's network namespace.
pub(super) fn interface_number(name: &str) -> Option<u32> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    );
    rustix::net::netdevice::name_to_index(socket.ok()?, name).ok()
}
