//! The ends of a connection as sentences name them.

use crate::v1::NamedAddress;

/// `plc-7 (10.2.0.9)`; of an address that no asset has, `10.2.0.8 (zone control)`. `own`: what the event itself calls it; `shown`:
/// the address as it is written, perhaps with its port.
pub(super) fn end(own: &str, address: &str, shown: &str, names: &[NamedAddress]) -> String {
    let named = names.iter().find(|named| named.address == address);
    match (own, named) {
        ("", Some(named)) if !named.asset.is_empty() => format!("{} ({shown})", named.asset),
        ("", Some(named)) => format!("{shown} (zone {})", named.zone),
        ("", None) => shown.to_owned(),
        (own, _) => format!("{own} ({shown})"),
    }
}

/// An address with its port, as it is written.
pub(super) fn with_port(address: &str, port: u32) -> String {
    match address.contains(':') {
        true => format!("[{address}]:{port}"),
        false => format!("{address}:{port}"),
    }
}
