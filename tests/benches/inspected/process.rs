//! What a running process takes, as the kernel counts it.

/// Resident memory now, in megabytes.
pub(super) fn resident_mb(id: u32) -> f64 {
    megabytes(id, "VmRSS:").unwrap()
}

/// Resident memory at most since its start, in megabytes; `None` if it is gone.
pub(super) fn peak_mb(id: u32) -> Option<f64> {
    megabytes(id, "VmHWM:")
}

fn megabytes(id: u32, name: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    let kilobytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1024.0)
}
