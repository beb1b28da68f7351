//! Between whom an inspected connection is: what its rules are looked up by, and what is counted together.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use penstock_policy::ids::{AssetId, RoleName};

/// Whose doings are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Tuple {
    /// The client's address.
    pub client: IpAddr,
    /// The server.
    pub server: SocketAddr,
    /// Who the client is by its certificate, where its TLS ends here.
    pub device: Option<Rc<AssetId>>,
    /// The role that this certificate gives it, if it gives one.
    pub role: Option<RoleName>,
}
