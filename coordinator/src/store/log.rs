//! The log on which several coordinators agree: the interface that a replicated store is built on.
//!
//! Each transaction of each coordinator is one *entry* ([`entry`]), and all entries stand in one order. A coordinator decides a
//! transaction on its own copy of the store, as it is behind the last entry that it knows, and asks the log to put the entry
//! directly behind that one. If another one stands there already, the transaction is undone, the other entry is applied, and the
//! transaction is decided anew. So what a copy holds is a function of the log alone: records, trails and the tree over
//! them are the same at every coordinator, byte for byte, and what one coordinator decided was decided on all that came before.
//!
//! An entry travels in messages ([`entry::Part`]), since what carries the log bounds their size.
//!
//! Not here: the copy (`sqlite`), and what carries the log (`jetstream`).

pub(super) mod entry;
#[cfg(test)]
pub(super) mod memory;

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

/// A message of the log.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// Its number in the log, from 1 on and without a gap.
    pub(super) number: u64,
    /// An encoded [`entry::Part`].
    pub(super) payload: Bytes,
}

/// Why a message is not known to stand where it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotPut {
    /// Another message stands there.
    Behind,
    /// The log has no room.
    Full(String),
    /// It may stand there, or may stand there later: nobody answered in time.
    Unknown(String),
}

/// Why there is no next message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LogError {
    /// The log does not have what should come next: it was set back, cut short, or is another one.
    Lost(String),
    /// The log is closed.
    Closed,
}

/// What an operation of the log answers when it is done.
pub(super) type Awaited<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// How long a log is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Until a message is known to stand in the log.
    pub(super) put: Duration,
    /// Until one looks again whether a message stands there that nobody answered for.
    pub(super) look: Duration,
    /// Until the next message of an entry that another coordinator has begun: it may have died over it.
    pub(super) courtesy: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            put: Duration::from_secs(10),
            look: Duration::from_millis(500),
            courtesy: Duration::from_secs(2),
        }
    }
}

/// A log, as one coordinator has it open.
pub(super) trait Log: Send {
    /// What one message may hold, bytes.
    fn message_bytes_max(&self) -> usize;

    /// How long it is waited for.
    fn patience(&self) -> Patience {
        Patience::default()
    }

    /// The next message behind those that were given, as soon as there is one; also those that this coordinator put there.
    /// Dropped before it answered, it has taken nothing.
    fn next(&mut self) -> Awaited<'_, Message, LogError>;

    /// Puts a message directly behind the one of number `last`, durable when this answers with its number.
    fn put(&mut self, last: u64, payload: Bytes) -> Awaited<'_, u64, NotPut>;

    /// The number of the newest message, as the log has it by now, and not before this was asked.
    fn newest(&mut self) -> Awaited<'_, u64, NotPut>;
}
