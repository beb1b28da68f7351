//! This boot of the machine: its name, and when it began.

use std::time::Duration;

use crate::clock;

/// The kernel's identifier of this boot; empty if it cannot be read.
pub fn id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// When this boot began, milliseconds since 1970; 0 if that cannot be read.
pub fn began_ms() -> u64 {
    let uptime = std::fs::read_to_string("/proc/uptime").ok().and_then(|text| {
        let seconds = text.split_whitespace().next()?.parse::<f64>().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    });
    uptime.map_or(0, |uptime| {
        clock::now_ms().saturating_sub(u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_has_a_name_and_began_before_now() {
        assert!(id().len() >= 32);
        assert!((1..=clock::now_ms()).contains(&began_ms()));
    }
}
