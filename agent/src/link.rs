//! Everything that goes over the network to the coordinator. Nothing here decides about traffic: a link that is
//! down, hostile or never comes changes nothing in the kernel (DESIGN, promise 1).

pub mod connect;
pub mod enrol;
pub mod missing_names;
pub mod renew;
pub mod session;
pub mod upload;

/// A random number for jitter. If the system has none to give, all wait alike.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}
