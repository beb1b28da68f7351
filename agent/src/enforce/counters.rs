//! What the kernel counted, as totals that mean something to a person.

use std::collections::BTreeMap;

/// The kernel's named counters: packets and bytes by family and name.
pub type NamedCounters = BTreeMap<(u8, String), (u64, u64)>;

/// Totals since the agent began; they go on through reloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Connections that are inspected now.
    pub inspected_connections: u64,
    /// Packets that a flow let through.
    pub allowed_packets: u64,
    /// Their bytes.
    pub allowed_bytes: u64,
    /// Packets dropped between zones.
    pub denied_packets: u64,
    /// Packets that passed between observing zones and would be dropped.
    pub would_deny_packets: u64,
    /// Packets to the gateway itself that were dropped.
    pub input_denied_packets: u64,
    /// Bridged packets dropped because the kernel did not show them to the rules.
    pub uninspected_packets: u64,
    /// Packets of both legs of inspected connections that went to the inspector.
    pub intercepted_packets: u64,
    /// Packets that were forwarded unread, since there was no inspector and the flow passes on agent loss.
    pub unattended_packets: u64,
    /// Packets that were dropped because they were sent for a flow that is not permitted any more, to a side where their
    /// destination does not belong, or could not be brought to the inspector.
    pub stray_packets: u64,
    /// Operations inside connections that were refused, framing attacks among them.
    pub denied_operations: u64,
    /// Operations that passed between observing zones and would be refused.
    pub would_deny_operations: u64,
    /// Of the dropped and would-be dropped, those that the log's limit left out; in `inet`, of connections whose
    /// would-deny was logged before, none.
    pub untold_packets: u64,
}

impl Counters {
    /// These totals, and what the tables have counted since they were loaded.
    pub fn and(self, named: &NamedCounters) -> Self {
        let of = |family: u8, name: &str| named.get(&(family, name.to_owned())).copied().unwrap_or_default();
        let (inet, bridge) = (1, 7);
        let both = |name: &str| of(inet, name).0 + of(bridge, name).0;
        let (allowed_packets, allowed_bytes) = of(inet, "allowed");
        let untold = |all: &str, told: &str| both(all).saturating_sub(both(told));
        Self {
            inspected_connections: self.inspected_connections,
            denied_operations: self.denied_operations,
            would_deny_operations: self.would_deny_operations,
            allowed_packets: self.allowed_packets + allowed_packets,
            allowed_bytes: self.allowed_bytes + allowed_bytes,
            denied_packets: self.denied_packets + both("denied"),
            would_deny_packets: self.would_deny_packets + both("would_deny"),
            input_denied_packets: self.input_denied_packets + both("input_denied"),
            uninspected_packets: self.uninspected_packets + both("uninspected"),
            intercepted_packets: self.intercepted_packets + both("intercepted"),
            unattended_packets: self.unattended_packets + both("unattended"),
            stray_packets: self.stray_packets + both("stray") + both("cut_off"),
            untold_packets: self.untold_packets
                + of(inet, "would_deny_untold").0
                + of(bridge, "would_deny")
                    .0
                    .saturating_sub(of(bridge, "would_deny_told").0)
                + untold("denied", "denied_told")
                + untold("input_denied", "input_told"),
        }
    }
}

/// Log messages that the kernel has sent for these tables.
pub fn logged(named: &NamedCounters) -> u64 {
    let of_logged = named.iter().filter(|((_, name), _)| name == "logged");
    of_logged.map(|(_, (packets, _))| packets).sum()
}
