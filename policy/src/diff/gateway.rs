//! What a gateway's own record changes: who may reach the gateway itself, and when and after what question it may be changed.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::Effect;
use super::flow::covers;
use super::record::FieldAccount;
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
    let effect = match (effect, change_control(old, new, &mut details)) {
        (Some(one), Some(other)) if one != other => Some(Effect::Altered),
        (one, other) => one.or(other),
    };
    for (what, before, after) in [
        ("labels", labels(old), labels(new)),
        ("redundant with", pair(old), pair(new)),
    ] {
        if before != after {
            details.push(format!("{what}: {after} (was {before})"));
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

/// When the gateway may be changed, and what it asks before: more leave to change is wider, though no packet passes by it.
fn change_control(old: &Gateway, new: &Gateway, details: &mut Vec<String>) -> Option<Effect> {
    let (mut wider, mut narrower) = (false, false);
    if old.windows != new.windows {
        wider |= !within(&new.windows, &old.windows);
        narrower |= !within(&old.windows, &new.windows);
        let (before, after) = (windows(&old.windows), windows(&new.windows));
        details.push(format!("may be changed: {after} (was: {before})"));
    }
    if old.safe_to_change != new.safe_to_change {
        wider |= old.safe_to_change.is_some();
        narrower |= new.safe_to_change.is_some();
        let (before, after) = (condition(old), condition(new));
        details.push(format!("safe to change: {after} (was: {before})"));
    }
    (wider || narrower).then(|| Effect::of(wider, narrower))
}

/// Whether all of these windows lie in those; none at all is any time.
fn within(these: &[Window], those: &[Window]) -> bool {
    let minutes = |windows: &[Window]| -> BTreeSet<(u8, u16)> {
        let each = windows.iter().flat_map(|window| {
            let minutes = window.start_minute..window.end_minute;
            minutes.map(|minute| (window.weekday, minute))
        });
        each.collect()
    };
    those.is_empty() || (!these.is_empty() && minutes(these).is_subset(&minutes(those)))
}

fn labels(gateway: &Gateway) -> String {
    let labels = gateway.labels.iter().map(|(key, label)| format!("{key} {label}"));
    or_none(labels.collect::<Vec<_>>().join(", "))
}

fn condition(gateway: &Gateway) -> String {
    let asked = gateway.safe_to_change.as_ref();
    asked.map_or_else(|| "nothing is asked".to_owned(), ToString::to_string)
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

fn windows(windows: &[Window]) -> String {
    if windows.is_empty() {
        return "at any time".to_owned();
    }
    and(windows.iter().map(ToString::to_string))
}

fn said(management: &ManagementAccess) -> String {
    let peers = management.peers.iter().map(|peer| match peer {
        host if host.prefix_len() == host.max_prefix_len() => IpNet::addr(host).to_string(),
        network => network.to_string(),
    });
    format!("by {} from {}", management.interface, and(peers))
}
