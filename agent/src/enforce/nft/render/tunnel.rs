//! What tunnels need beside the rules of sides: that TCP's segments fit them, and that the gateways at their other ends are let in.
//!
//! Everything else that keeps tunnelled traffic inside its tunnel is said of sides (`inet`).

use crate::enforce::shape::structure::TunnelRules;

/// Lets no TCP opening ask for segments larger than the tunnel takes. Each gateway does so for its own end: each end of the connection asks for its own.
/// (The kernel answers larger packets of others by ICMP; old TCP does not listen to that.)
pub(super) fn clamp(tunnels: &TunnelRules) -> String {
    if tunnels.devices.is_empty() {
        return String::new();
    }
    let names: Vec<String> = tunnels.devices.iter().map(|name| format!("\"{name}\"")).collect();
    format!(
        "oifname {{ {} }} tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu\n",
        names.join(", ")
    )
}

/// Lets in who connects to this gateway's tunnels. Who that may be is decided by certificate.
pub(super) fn entrance(tunnels: &TunnelRules) -> String {
    match &tunnels.entrance {
        Some((interface, port)) => format!("iifname \"{interface}\" udp dport {port} accept\n"),
        None => String::new(),
    }
}
