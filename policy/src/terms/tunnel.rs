//! What tunnels between gateways are called, and where they are found if the document does not say.

use crate::ids::{Digest, GatewayId};

/// What the names of all tunnels' devices begin with.
pub const TUNNEL_PREFIX: &str = "pst-";
/// The UDP port of a gateway's tunnels where the document names none.
pub const TUNNEL_PORT: u16 = 4433;
/// The most tunnels that end at one gateway: each is a side of it.
pub const TUNNELS_MAX: usize = 32;

/// The device of the tunnel to a gateway: `pst-` and its name, or where that is longer than an interface's name may be, a part of its
/// digest.
///
/// ```
/// use penstock_policy::terms::tunnel_device;
///
/// assert_eq!(tunnel_device(&"gw-2".parse()?), "pst-gw-2");
/// assert_eq!(tunnel_device(&"gateway-of-the-north-works".parse()?).len(), 15);
/// # Ok::<(), penstock_policy::ids::NameError>(())
/// ```
pub fn tunnel_device(peer: &GatewayId) -> String {
    const NAME_MAX: usize = 15 - TUNNEL_PREFIX.len();
    let name = peer.as_str();
    if name.len() <= NAME_MAX {
        return format!("{TUNNEL_PREFIX}{name}");
    }
    let digest = Digest::of(name.as_bytes()).to_string();
    let digits = digest.rsplit(':').next().unwrap_or_default().chars();
    format!("{TUNNEL_PREFIX}{}", digits.take(NAME_MAX).collect::<String>())
}
