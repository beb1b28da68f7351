//! Everything that goes over the network to the coordinator. Nothing here decides about traffic: a link that is
//! down, hostile or never comes changes nothing in the kernel (DESIGN, promise 1).

pub mod connect;
pub mod enrol;
pub mod missing_names;
pub mod renew;
pub mod session;
pub mod standing;
pub mod upload;
