//! What stands in trails: each kind of event is described once, in a file of its own (DESIGN §8; IEC 62443-3-3 SR 2.8, SR 6.1).
//!
//! A description has the kind's word, its stored bit, its rightful writer and its severities ([`KindDescription`]); of one event its
//! severity, the texts that are searched, the sentence for people, and its fields by name ([`Described`]). Whoever writes,
//! searches, prints or exports events reads it here. A new kind is its message in `audit.proto`, its file, and its line below.
//!
//! A trail is worth what its writers can say in it: an approval, a certificate that was issued, a gap in somebody's trail are
//! known to the coordinator alone, so that only its own trail may hold them. The coordinator takes no block in which a
//! gateway says otherwise ([`unrightful`]), and whoever reads a trail asks again ([`EventKind::may_be_written_by`]): what an
//! older coordinator took stays readable, and is not believed ([`Reading::of`]).

use serde_json::Value;

use crate::v1::audit_event::Kind;
use crate::v1::{AuditBlockBody, AuditEvent, Decision, LearnedRange, NamedAddress, Severity};

pub mod agent;
mod alarm;
mod drift;
mod ends;
mod fault;
mod identity;
mod learned;
mod loss;
mod operation;
mod operator;
mod policy;
mod reading;
mod seal;
mod trail;
mod verdict;
mod words;

pub use agent::AgentStep;
pub use reading::Reading;
pub use words::{decision_word, severity_word};

/// How the reason of a foretold reset ends whose client only has to open its connection again.
pub const RECONNECTS: &str = "its client has to reconnect";
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

/// What is the same of all events of a kind.
#[derive(Debug)]
pub struct KindDescription {
    /// Its word, in searches and in what is printed.
    pub word: &'static str,
    /// The number of its bit in a block's summary; stored, so that a bit keeps its meaning.
    pub bit: u32,
    /// Who writes it.
    pub writer: Writer,
    /// What it is about, for people.
    pub meaning: &'static str,
    /// The severities that such events have, the gravest first, and when.
    pub severities: &'static [(Severity, &'static str)],
}

/// One event, whatever its kind.
pub trait Described {
    /// How grave it is; its writer may know that it is graver.
    fn severity(&self) -> Severity;

    /// What of it is searched by text.
    fn texts(&self) -> Vec<&str>;

    /// It in one sentence, its addresses by the names that they had.
    fn sentence(&self, names: &[NamedAddress]) -> String;

    /// Its fields by name, as one object.
    fn fields(&self) -> Value;

    /// The two addresses that it is about.
    fn addresses(&self) -> Option<[&str; 2]> {
        None
    }

    /// What was decided.
    fn decision(&self) -> Decision {
        Decision::Unspecified
    }

    /// The flows (`conduit/flow`) that it names.
    fn flows(&self) -> Vec<&str> {
        Vec::new()
    }

    /// The zones that it names.
    fn zones(&self) -> Vec<&str> {
        Vec::new()
    }

    /// What its writer itself calls the ends.
    fn ends(&self) -> Vec<&str> {
        Vec::new()
    }

    /// The operation inside a connection.
    fn operation(&self) -> Option<&str> {
        None
    }

    /// The least and the greatest value of a refused write.
    fn values(&self) -> Option<LearnedRange> {
        None
    }

    /// The operator who did it.
    fn operator(&self) -> Option<&str> {
        None
    }

    /// How often what it reports happened.
    fn times(&self) -> u64 {
        1
    }
}

macro_rules! kinds {
    ($($name:ident in $file:ident,)*) => {
        /// A kind of event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind {
            $(#[doc = concat!("As `event/", stringify!($file), ".rs` describes it.")] $name,)*
        }

        impl EventKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What is the same of all its events.
            pub fn description(self) -> &'static KindDescription {
                match self { $(Self::$name => &$file::KIND,)* }
            }

            /// The kind of `event`; `None` where this version does not know it.
            pub fn of(event: &AuditEvent) -> Option<Self> {
                event.kind.as_ref().map(|kind| match kind { $(Kind::$name(_) => Self::$name,)* })
            }
        }

        impl Kind {
            /// The event's description.
            pub fn described(&self) -> &dyn Described {
                match self { $(Self::$name(event) => event,)* }
            }
        }
    };
}

kinds! {
    Verdict in verdict,
    Policy in policy,
    Drift in drift,
    Loss in loss,
    Agent in agent,
    Operator in operator,
    Operation in operation,
    Learned in learned,
    Fault in fault,
    Trail in trail,
    Identity in identity,
    Seal in seal,
    Alarm in alarm,
}

impl EventKind {
    /// Its word, in searches and in what is printed.
    pub fn word(self) -> &'static str {
        self.description().word
    }

    /// Its bit in a block's summary.
    pub fn bit(self) -> u32 {
        1 << self.description().bit
    }

    /// Who writes it.
    pub fn writer(self) -> Writer {
        self.description().writer
    }

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

impl AuditEvent {
    /// The event's description; `None` where this version does not know its kind.
    pub fn described(&self) -> Option<&dyn Described> {
        self.kind.as_ref().map(Kind::described)
    }
}

/// The first kind in `body` that the trail of `source` may not hold. Kinds that this version does not know are taken: a
/// gateway may be newer.
pub fn unrightful(source: &str, body: &AuditBlockBody) -> Option<EventKind> {
    let mut kinds = body.events.iter().filter_map(EventKind::of);
    kinds.find(|kind| !kind.may_be_written_by(source))
}

#[cfg(test)]
mod tests;
