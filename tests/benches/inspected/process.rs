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

/// Processor time of all its threads since its start, in seconds.
pub(super) fn processor_seconds(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    // The second field is its name, in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    // The 14th and 15th field of proc_pid_stat(5).
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<f64>().unwrap())
        .sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// The processes of this program. The sandbox sees only its own.
pub(super) fn named(program: &str) -> impl Iterator<Item = u32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    processes.filter_map(move |entry| {
        let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let name = std::fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
        (name.trim_end() == program).then_some(id)
    })
}
