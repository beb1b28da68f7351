//! What is recorded of a key's tickets, and what a hello means by it: pure rules, the one place of each.
//!
//! The record holds the ticket that its gateway was last known to hold. A hello is of the same user if it shows that one, or a later one
//! of ours: that was given and is not acknowledged, or was acknowledged before the store was restored from a backup. One that shows an
//! earlier one, another one of the same number, none at all, or what no coordinator gave is of a second user.

use penstock_policy::ids::Digest;
use penstock_policy::text;
use penstock_proto::tls::times::instant;
use penstock_proto::v1;
use serde::{Deserialize, Serialize};

use super::ticket::Ticket;

/// Of one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TicketRecord {
    /// SHA-256 of the key that it is about: another key begins without a ticket.
    pub key: Digest,
    /// What its gateway is known to hold.
    pub held: Ticket,
    /// A person decided that there is one user: the next ticket that is held counts, whatever comes before.
    pub is_open: bool,
    /// Where that was, and when, milliseconds since 1970.
    pub from: Origin,
    /// Since two users are known.
    pub twin: Option<Twin>,
}

/// Where somebody came from, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Their address.
    pub address: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// Two users of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Twin {
    /// Where the one came from that did not have the last ticket, and when that was noticed.
    pub noticed: Origin,
    /// Where the one came from that had been given it.
    pub other: Origin,
    /// What was wrong.
    pub why: Mismatch,
}

/// Why a hello is of a second user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mismatch {
    /// It shows a ticket from before the last one.
    Earlier,
    /// It shows none, although one was held.
    Missing,
    /// It shows what no coordinator of this plant gave to this key.
    Unknown,
}

/// What a hello shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// No ticket: it holds none, or its software knows none.
    Nothing,
    /// A ticket of ours for its key.
    Ticket(Ticket),
    /// Something else.
    Unknown,
}

/// What a hello means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// One user, as far as can be told. The next ticket has this number.
    Same {
        /// Of the next ticket.
        next: u64,
        /// What is to be recorded first: it shows more than was known.
        record: Option<TicketRecord>,
    },
    /// There are two since now.
    Found(TicketRecord),
    /// It is known that there are two.
    Known(Twin),
}

impl Mismatch {
    /// In words, after "the second one".
    pub fn words(self) -> &'static str {
        match self {
            Self::Earlier => "showed a ticket from before the last one",
            Self::Missing => "showed no ticket, although this gateway had one",
            Self::Unknown => "showed a ticket that no coordinator gave this gateway",
        }
    }
}

impl Twin {
    /// What health says of its gateway.
    pub fn fault(&self) -> String {
        format!(
            "two machines use this gateway's key, {}. Its certificate is not renewed until an admin decides: `penstock gateways revoke` \
             ends both, `penstock gateways resume` says that there is one",
            self.words()
        )
    }

    /// What happened, with both addresses and times.
    pub fn words(&self) -> String {
        format!(
            "from {} at {}, and from {} at {}: the one noticed {}",
            text::printable(&self.other.address),
            instant(self.other.at_ms),
            text::printable(&self.noticed.address),
            instant(self.noticed.at_ms),
            self.why.words()
        )
    }
}

impl From<&Twin> for v1::Twin {
    fn from(twin: &Twin) -> Self {
        Self {
            since_ms: twin.noticed.at_ms,
            address: twin.noticed.address.clone(),
            other_address: twin.other.address.clone(),
            other_ms: twin.other.at_ms,
            why: twin.why.words().to_owned(),
        }
    }
}

/// What a hello of the holder of `key` means, by what is recorded of its gateway.
pub(super) fn meaning(record: Option<&TicketRecord>, key: Digest, shown: Shown, from: Origin) -> Meaning {
    let shown_number = match shown {
        Shown::Ticket(ticket) => ticket.number,
        Shown::Nothing | Shown::Unknown => 0,
    };
    let same = |known: u64, record| Meaning::Same {
        next: known.max(shown_number).saturating_add(1),
        record,
    };
    let Some(record) = record.filter(|record| record.key == key) else {
        let first = match shown {
            Shown::Ticket(ticket) => held(None, key, ticket, from),
            Shown::Nothing | Shown::Unknown => None,
        };
        return same(0, first);
    };
    if let Some(twin) = &record.twin {
        return Meaning::Known(twin.clone());
    }
    let held = record.held;
    let why = match shown {
        _ if record.is_open => return same(held.number, None),
        Shown::Ticket(ticket) if ticket == held => return same(held.number, None),
        Shown::Ticket(ticket) if ticket.number > held.number => {
            let later = TicketRecord {
                held: ticket,
                from,
                ..record.clone()
            };
            return same(ticket.number, Some(later));
        }
        Shown::Ticket(_) => Mismatch::Earlier,
        Shown::Nothing => Mismatch::Missing,
        Shown::Unknown => Mismatch::Unknown,
    };
    let twin = Twin {
        noticed: from,
        other: record.from.clone(),
        why,
    };
    Meaning::Found(TicketRecord {
        twin: Some(twin),
        ..record.clone()
    })
}

/// What is recorded once the holder of `key` says that it holds a ticket; `None`: that is nothing new, or there are two users.
pub(super) fn held(
    record: Option<&TicketRecord>,
    key: Digest,
    ticket: Ticket,
    from: Origin,
) -> Option<TicketRecord> {
    let known = record.filter(|record| record.key == key);
    if known.is_some_and(|known| known.twin.is_some() || ticket.number <= known.held.number) {
        return None;
    }
    Some(TicketRecord {
        key,
        held: ticket,
        is_open: false,
        from,
        twin: None,
    })
}

/// What is recorded once a person decided that there is one user; `None`: nobody doubts it.
pub(super) fn lifted(record: &TicketRecord) -> Option<TicketRecord> {
    record.twin.as_ref()?;
    Some(TicketRecord {
        is_open: true,
        twin: None,
        ..record.clone()
    })
}

#[cfg(test)]
mod tests;
