//! Memory that was needed only for a change of policy goes back to the system.
//!
//! Reading a plan of 100,000 flows, making its kernel entries ready and writing the script take several times what stays.
//! The allocator keeps what is freed for later, which here may be in months.

/// Gives back what the allocator holds and nobody uses. Blocks the calling thread for some milliseconds.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)] // One call for which no safe wrapper is at hand.
pub fn give_back() {
    // SAFETY: it takes a number and no pointer, may be called at any time, and touches only what is free.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators do so on their own.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}
