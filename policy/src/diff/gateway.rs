//! What a gateway's own record changes: who may reach the gateway itself.

use ipnet::IpNet;

use super::Effect;
use super::flow::covers;
use super::record::{FieldAccount, NOT_ENFORCED};
use crate::model::{Gateway, ManagementAccess, Window};
use crate::words::and;

pub(super) fn gateway(old: &Gateway, new: &Gateway) -> FieldAccount {
    let (effect, mut details) = match (&old.management, &new.management) {
        (None, Some(after)) => (
            Some(Effect::Widened),
            vec![format!("can be reached over the network: {}", said(after))],
        ),
        (Some(before), None) => (
            Some(Effect::Narrowed),
            vec![format!(
                "can no longer be reached over the network (was: {})",
                said(before)
            )],
        ),
        (Some(before), Some(after)) if before != after => {
            let moved = before.interface != after.interface;
            let wider = moved || !covers(&before.peers, &after.peers);
            let narrower = moved || !covers(&after.peers, &before.peers);
            let detail = format!("management: {} (was {})", said(after), said(before));
            (Some(Effect::of(wider, narrower)), vec![detail])
        }
        _ => (None, Vec::new()),
    };
    if old.windows != new.windows {
        let (before, after) = (windows(&old.windows), windows(&new.windows));
        details.push(format!("window: {after} (was {before}), {NOT_ENFORCED}"));
    }
    for (what, before, after) in [
        ("labels", labels(old), labels(new)),
        ("safe to change", condition(old), condition(new)),
        ("redundant with", pair(old), pair(new)),
    ] {
        if before != after {
            details.push(format!("{what}: {after} (was {before}), {NOT_ENFORCED}"));
        }
    }
    FieldAccount {
        effect,
        details,
        fields: vec![
            "management",
            "windows",
            "labels",
            "safe_to_change",
            "redundant_with",
        ],
    }
}

fn labels(gateway: &Gateway) -> String {
    let labels = gateway.labels.iter().map(|(key, label)| format!("{key} {label}"));
    or_none(labels.collect::<Vec<_>>().join(", "))
}

fn condition(gateway: &Gateway) -> String {
    or_none(
        gateway
            .safe_to_change
            .as_ref()
            .map_or_else(String::new, |condition| {
                let is = if condition.is { "on" } else { "off" };
                format!("coil {} of {} is {is}", condition.coil, condition.modbus)
            }),
    )
}

fn pair(gateway: &Gateway) -> String {
    or_none(
        gateway
            .redundant_with
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
    )
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none".to_owned() } else { text }
}

/// As the document writes them.
fn windows(windows: &[Window]) -> String {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
    if windows.is_empty() {
        return "none".to_owned();
    }
    and(windows.iter().map(|window| {
        let day = DAYS.get(usize::from(window.weekday)).unwrap_or(&"?");
        format!(
            "{day} {}-{}",
            clock(window.start_minute),
            clock(window.end_minute)
        )
    }))
}

fn said(management: &ManagementAccess) -> String {
    let peers = management.peers.iter().map(|peer| match peer {
        host if host.prefix_len() == host.max_prefix_len() => IpNet::addr(host).to_string(),
        network => network.to_string(),
    });
    format!("by {} from {}", management.interface, and(peers))
}
