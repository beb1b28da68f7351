//! A process that holds keys leaves no image of its memory: not when it crashes, and not to another process of its user.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Keeps this process out of core dumps, whatever the machine's limits and `kernel.core_pattern` say, and away from debuggers of the
/// same user; programs that it runs are as they were. Where the kernel refuses, that is logged: nothing is worse than before.
pub fn keep_memory_private() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "a crash of this process may write its memory, and with it its keys, to the disk");
    }
}
