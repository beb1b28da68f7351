//! Bounds of one connection, whatever it speaks. What a protocol has nothing of, it does not ask for.

use std::time::Duration;

/// Bounds of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Requests in flight.
    pub transactions: TransactionLimits,
    /// Short names that a side gives to long ones, each direction.
    pub aliases: AliasLimits,
    /// The largest packet, bytes behind its first header. What streams through takes no memory.
    pub packet_bytes_max: usize,
    /// The largest packet that is judged as a whole, and the largest head of one that streams through.
    pub control_bytes_max: usize,
    /// Answers of the gateway's own that wait for the end of a packet that is passing by.
    pub queued_bytes_max: usize,
    /// Publications whose refusal is not yet completed, or whose release is still to come.
    pub refused_publications_max: usize,
    /// Filters of subscriptions that went on without the refused ones, and that the server has not answered.
    pub pending_filters_max: usize,
}

/// Bounds of the requests in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionLimits {
    /// Requests in flight; devices take 1–16. As many refusals may wait for their turn.
    pub outstanding_max: usize,
    /// After this long a request without an answer may be forgotten.
    pub reuse_after: Duration,
}

/// Bounds of one direction's aliases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AliasLimits {
    /// Aliases in use.
    pub aliases_max: usize,
    /// Bytes of all topics that aliases stand for.
    pub topic_bytes_max: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            transactions: TransactionLimits::default(),
            aliases: AliasLimits::default(),
            packet_bytes_max: 16 * 1024 * 1024,
            control_bytes_max: 64 * 1024,
            queued_bytes_max: 16 * 1024,
            refused_publications_max: 1024,
            pending_filters_max: 16 * 1024,
        }
    }
}

impl Default for TransactionLimits {
    fn default() -> Self {
        Self {
            outstanding_max: 32,
            reuse_after: Duration::from_millis(250),
        }
    }
}

impl Default for AliasLimits {
    fn default() -> Self {
        Self {
            aliases_max: 1024,
            topic_bytes_max: 64 * 1024,
        }
    }
}
