//! The kinds of event that stand in trails: each with its word, its number and its rightful writer (DESIGN §8;
//! IEC 62443-3-3 SR 2.8, SR 6.1).
//!
//! A trail is worth what its writers can say in it: an approval, a certificate that was issued, a gap in somebody's trail are
//! known to the coordinator alone, so that only its own trail may hold them. The coordinator takes no block in which a
//! gateway says otherwise ([`unrightful`]), and whoever reads a trail asks again ([`EventKind::may_be_written_by`]): what an
//! older coordinator took stays readable, and is not believed.

use crate::v1::audit_event::Kind;
use crate::v1::{AuditBlockBody, AuditEvent};

/// What the sources of coordinators' own trails begin with.
pub const COORDINATOR_PREFIX: &str = "coordinator/";

/// Who writes a kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// A gateway, in its own trail.
    Gateway,
    /// A coordinator alone, in its own trail.
    Coordinator,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $bit:literal, $writer:ident;)*) => {
        /// A kind of event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind { $($(#[$doc])* $name,)* }

        impl EventKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its word, in searches and in what is printed.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// Its bit in a block's summary; stored, so that a bit keeps its meaning.
            pub fn bit(self) -> u32 {
                match self { $(Self::$name => 1 << $bit,)* }
            }

            /// Who writes it.
            pub fn writer(self) -> Writer {
                match self { $(Self::$name => Writer::$writer,)* }
            }

            /// The kind of `event`; `None` where this version does not know it.
            pub fn of(event: &AuditEvent) -> Option<Self> {
                event.kind.as_ref().map(|kind| match kind { $(Kind::$name(_) => Self::$name,)* })
            }
        }
    };
}

kinds! {
    /// Packets or connections with one verdict.
    Verdict = "verdict", 0, Gateway;
    /// A step in the life of a policy.
    Policy = "policy", 1, Gateway;
    /// The kernel's table is not what the agent put there.
    Drift = "drift", 2, Gateway;
    /// Events that the trail lacks.
    Loss = "loss", 3, Gateway;
    /// Something that happened to the agent.
    Agent = "agent", 4, Gateway;
    /// What an operator did, or was refused.
    Operator = "operator", 5, Coordinator;
    /// Operations inside inspected connections.
    Operation = "operation", 6, Gateway;
    /// What was learned where zones observe.
    Learned = "learned", 7, Gateway;
    /// A fault that health shows: it began, it ended, or it was found when it was over.
    Fault = "fault", 8, Gateway;
    /// What the coordinator found about a gateway's trail.
    Trail = "trail", 9, Coordinator;
    /// A certificate that was issued or refused.
    Identity = "identity", 10, Coordinator;
}

impl EventKind {
    /// The kind of this word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.word() == word)
    }

    /// Whether the trail of `source` may hold it. (A coordinator's own may hold any: it is the one that takes what others write;
    /// and older ones wrote of gaps in trails as of drift.)
    pub fn may_be_written_by(self, source: &str) -> bool {
        self.writer() == Writer::Gateway || source.starts_with(COORDINATOR_PREFIX)
    }
}

/// The first kind in `body` that the trail of `source` may not hold. Kinds that this version does not know are taken: a
/// gateway may be newer.
pub fn unrightful(source: &str, body: &AuditBlockBody) -> Option<EventKind> {
    let mut kinds = body.events.iter().filter_map(EventKind::of);
    kinds.find(|kind| !kind.may_be_written_by(source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn words_and_bits_are_unique_and_a_word_leads_back_to_its_kind() {
        let bits: BTreeSet<u32> = EventKind::ALL.iter().map(|kind| kind.bit()).collect();
        assert_eq!(bits.len(), EventKind::ALL.len());
        for kind in EventKind::ALL {
            assert_eq!(EventKind::of_word(kind.word()), Some(*kind));
        }
    }

    #[test]
    fn what_the_coordinator_alone_knows_no_gateway_may_write() {
        let of_gateways: Vec<_> = EventKind::ALL
            .iter()
            .filter(|kind| kind.may_be_written_by("gw-a"))
            .map(|kind| kind.word())
            .collect();
        assert_eq!(
            of_gateways,
            [
                "verdict",
                "policy",
                "drift",
                "loss",
                "agent",
                "operation",
                "learned",
                "fault"
            ]
        );
        assert!(
            EventKind::ALL
                .iter()
                .all(|kind| kind.may_be_written_by("coordinator/c1"))
        );
    }
}
