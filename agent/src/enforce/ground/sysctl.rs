//! Kernel parameters: those without which a bridged gateway would not be judged (`net.bridge.bridge-nf-call-*`) are set,
//! others are looked at.

use std::io;
use std::path::Path;

const FOLDER: &str = "/proc/sys/net/bridge";
const PARAMETERS: [&str; 2] = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"];

/// Whether this kernel can show bridged packets to `inet` tables at all.
pub(in crate::enforce) fn can_filter_bridged() -> bool {
    Path::new(FOLDER).is_dir()
}

/// Those parameters that are off, so that bridged packets of a family are not shown to the rules.
pub(in crate::enforce) fn hiding_bridged() -> io::Result<Vec<&'static str>> {
    let mut off = Vec::new();
    for parameter in PARAMETERS {
        if std::fs::read_to_string(Path::new(FOLDER).join(parameter))?.trim() != "1" {
            off.push(parameter);
        }
    }
    Ok(off)
}

/// Switches the showing of bridged packets on where it is off.
pub(in crate::enforce) fn show_bridged() -> io::Result<()> {
    for parameter in hiding_bridged()? {
        std::fs::write(Path::new(FOLDER).join(parameter), "1")?;
    }
    Ok(())
}

/// Switches those of these parameters off again that show bridged packets.
pub(in crate::enforce) fn hide_bridged(parameters: &[String]) -> io::Result<()> {
    let ours = |parameter: &&&str| parameters.iter().any(|named| named == **parameter);
    for parameter in PARAMETERS.iter().filter(ours) {
        std::fs::write(Path::new(FOLDER).join(parameter), "0")?;
    }
    Ok(())
}

/// Whether a parameter, named by its path, is there and 1.
pub(in crate::enforce) fn is_on(parameter: &str) -> bool {
    std::fs::read_to_string(Path::new("/proc/sys").join(parameter)).is_ok_and(|value| value.trim() == "1")
}

/// Whether a parameter, named by its path, is there and 0.
pub(in crate::enforce) fn is_off(parameter: &str) -> bool {
    std::fs::read_to_string(Path::new("/proc/sys").join(parameter)).is_ok_and(|value| value.trim() == "0")
}

/// Whether an interface of this name exists in the calling thread's network namespace.
pub(in crate::enforce) fn interface_exists(name: &str) -> bool {
    interface_number(name).is_some()
}

/// The number of the interface of this name in the calling thread's network namespace.
pub(in crate::enforce) fn interface_number(name: &str) -> Option<u32> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    );
    rustix::net::netdevice::name_to_index(socket.ok()?, name).ok()
}

/// The name of the interface of this number in the calling thread's network namespace.
pub(in crate::enforce) fn interface_name(number: u32) -> Option<String> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    );
    rustix::net::netdevice::index_to_name(socket.ok()?, number).ok()
}
