//! What a flow's permitted operations say of one operation.
//!
//! [`Rules::compile`] turns the plan's list into tables once; a decision then costs the same whatever other
//! conduits hold, and hardly more with a thousand rules than with one. One rule must permit an operation
//! *whole*: ranges of different rules do not add up, because their limits on values, units and QoS differ.
//!
//! Each protocol judges in its folder: [`crate::modbus::judge`] by function code and unit, then spans; [`crate::mqtt::judge`] on
//! [`trie`], by topic level. What is judged by its facts alone needs no more than [`sets`]. What a refusal looks like on the wire stands beside.

mod reason;
pub mod sets;
pub mod trie;

use std::any::Any;
use std::fmt;

use penstock_policy::protocol::{Operations, Protocol};
use penstock_policy::terms::Answers;
pub use penstock_policy::terms::OnRefusal;

pub use self::reason::Reason;
use crate::operation::Operation;
use crate::protocols::{self, Inspector};

/// Position of a rule in the flow's list of operations, from 0.
pub type RuleIndex = usize;

/// What happens to an operation, and why (DESIGN, promise 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A rule permits it.
    Allow(RuleIndex),
    /// It keeps the connection up and needs no rule: a connection where no rule limits who may connect, the
    /// end of a subscription.
    Upkeep,
    /// Nothing permits it.
    Refuse(Refusal),
}

impl Verdict {
    /// Whether it may be forwarded.
    pub fn allows(self) -> bool {
        !matches!(self, Self::Refuse(_))
    }

    /// Whether it may, or might but for what else its packet holds.
    pub(crate) fn would_allow_alone(self) -> bool {
        let together = |refusal: &Refusal| refusal.why == Objection::Together;
        self.allows() || matches!(self, Self::Refuse(refusal) if together(&refusal))
    }

    /// The same for something whose packet is refused whole.
    #[must_use]
    pub(crate) fn with_packet_refused(self) -> Self {
        let nearest = match self {
            Self::Refuse(_) => return self,
            Self::Allow(rule) => Some(rule),
            Self::Upkeep => None,
        };
        let why = Objection::Together;
        Self::Refuse(Refusal { why, nearest })
    }
}

/// Why nothing permits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What stands against it in the rule that came closest.
    pub why: Objection,
    /// That rule, where finding it cost nothing; see [`Rules::explain`].
    pub nearest: Option<RuleIndex>,
}

/// What stands against an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// Not a request that the standard knows; its bytes went nowhere.
    #[error("it is malformed: {0}")]
    Malformed(Reason),
    /// Too much in flight.
    #[error("{0}")]
    Busy(Reason),
    /// No rule names the function.
    #[error("no rule permits the function")]
    Function,
    /// Something of it is outside what its limit holds; what it is called: `points`.
    #[error("the {0} are not within those permitted")]
    NotWithin(&'static str),
    /// What only its protocol knows.
    #[error("{0}")]
    Own(Reason),
    /// It is permitted, and does not go on for the sake of what else its packet holds.
    #[error("something else in the same packet is not permitted, and the packet is refused whole")]
    Together,
}

/// Why a list of operations cannot be enforced; the plan is then refused whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// The list is empty, which must never mean "anything".
    #[error("the list of permitted operations is empty")]
    Empty,
    /// An operation that the protocol does not have.
    #[error("the list names an operation that {name} does not have", name = .0.name)]
    Unknown(Protocol),
    /// A protocol that has a vocabulary, and that nothing reads.
    #[error("no inspector reads {name}", name = .0.name)]
    Unread(Protocol),
    /// A protocol whose clients have no roles.
    #[error("no inspector limits {name} by the role of its clients", name = .0.name)]
    NotByRole(Protocol),
    /// Two flows say that the same port speaks different protocols.
    #[error("the flows that share this connection speak different protocols")]
    TwoProtocols,
    /// A range that ends before it begins, or past what the field can hold.
    #[error("operation {index}: the range {first}-{last} of {field} is not one")]
    Range {
        /// Position in the list.
        index: RuleIndex,
        /// Which field.
        field: &'static str,
        /// As written.
        first: u32,
        /// As written.
        last: u32,
    },
    /// A word that the protocol does not have.
    #[error("operation {index}: `{word}` is not {kind}")]
    Word {
        /// Position in the list.
        index: RuleIndex,
        /// As written.
        word: String,
        /// What it should be, with its article: "a topic filter".
        kind: &'static str,
    },
    /// A list that must name something names nothing.
    #[error("operation {index}: the list of {field} is empty")]
    EmptyList {
        /// Position in the list.
        index: RuleIndex,
        /// Which field.
        field: &'static str,
    },
}

/// The permitted operations of flows that share a connection, ready to judge. What judges them is the protocol's own
/// ([`Rules::of`]).
#[derive(Debug)]
pub struct Rules {
    inspector: &'static dyn Inspector,
    judge: Box<dyn Judge>,
}

/// Compiled rules of one protocol.
pub trait Judge: Any + fmt::Debug + Send + Sync {
    /// Each rule in words: "read-holding-registers, units 1, addresses 0-199".
    fn texts(&self) -> &[String];

    /// Which answers belong to a request, where that is asked.
    fn set_answers(&mut self, _answers: Answers) {}

    /// The rule that comes closest to an operation, where judging does not find it by the way.
    fn nearest(&self, _operation: &Operation<'_>) -> Option<RuleIndex> {
        None
    }
}

impl Rules {
    /// Compiles a list; anything in it that is not understood refuses it whole.
    ///
    /// # Errors
    /// The list is empty, or an entry is not understood: it would never match, or match more than was meant.
    pub fn compile(operations: &Operations) -> Result<Self, RulesError> {
        Self::union([operations]).map(|(rules, _)| rules)
    }

    /// Compiles several flows' lists for one connection: what any of them, by itself, permits is permitted. Also gives
    /// for each rule which list it came from.
    ///
    /// # Errors
    /// All lists are empty, an entry is not understood, or the lists are of different protocols.
    pub fn union<'a>(
        lists: impl IntoIterator<Item = &'a Operations>,
    ) -> Result<(Self, Vec<usize>), RulesError> {
        Self::within(lists.into_iter().map(|operations| (operations, None)))
    }

    /// The same for lists of which some permit only what another list does too: that of the client's role. Both permit an operation whole,
    /// each by one of its entries. Rules are those of the first list.
    ///
    /// # Errors
    /// As [`Self::union`], or the protocol's clients have no roles.
    pub fn within<'a>(
        lists: impl IntoIterator<Item = (&'a Operations, Option<&'a Operations>)>,
    ) -> Result<(Self, Vec<usize>), RulesError> {
        let (mut filled, mut owners) = (Vec::new(), Vec::new());
        for (owner, (operations, role)) in lists.into_iter().enumerate() {
            if !operations.permitted.is_empty() {
                filled.push((operations, role));
            }
            owners.extend(std::iter::repeat_n(owner, operations.permitted.len()));
        }
        let (first, _) = filled.first().ok_or(RulesError::Empty)?;
        let protocol = first.protocol;
        let mut all = filled.iter().flat_map(|(list, role)| [Some(*list), *role]);
        if all.any(|list| list.is_some_and(|list| list.protocol != protocol)) {
            return Err(RulesError::TwoProtocols);
        }
        let inspector = protocols::of(protocol).ok_or(RulesError::Unread(protocol))?;
        let judge = if filled.iter().any(|(_, role)| role.is_some()) {
            inspector.compile_within(&filled)?
        } else {
            let lists: Vec<&Operations> = filled.iter().map(|(list, _)| *list).collect();
            inspector.compile(&lists)?
        };
        Ok((Self { inspector, judge }, owners))
    }

    /// Rules that permit nothing: to see what is asked, whatever the answer. `None`: nobody reads the protocol.
    pub fn nothing(protocol: Protocol) -> Option<Self> {
        let inspector = protocols::of(protocol)?;
        let judge = inspector.nothing();
        Some(Self { inspector, judge })
    }

    /// Which answers belong to a request, where that is asked.
    #[must_use]
    pub fn with_answers(mut self, answers: Answers) -> Self {
        self.judge.set_answers(answers);
        self
    }

    /// The protocol they speak of.
    pub fn protocol(&self) -> Protocol {
        self.inspector.protocol()
    }

    /// How it is read.
    pub(crate) fn inspector(&self) -> &'static dyn Inspector {
        self.inspector
    }

    /// The protocol's own rules; `None`: they are of another protocol.
    pub fn of<J: Judge>(&self) -> Option<&J> {
        let judge: &dyn Any = &*self.judge;
        judge.downcast_ref()
    }

    /// A rule in words: "read-holding-registers, units 1, addresses 0-199".
    pub fn rule(&self, index: RuleIndex) -> Option<&str> {
        self.judge.texts().get(index).map(String::as_str)
    }

    /// A verdict in words, with the rule that decided or came closest.
    pub fn explain(&self, operation: &Operation<'_>, verdict: Verdict) -> String {
        let named = |index: RuleIndex| {
            format!(
                "operation {} ({})",
                index + 1,
                self.rule(index).unwrap_or("unknown")
            )
        };
        match verdict {
            Verdict::Allow(index) => format!("permitted by {}", named(index)),
            Verdict::Upkeep => "needs no rule".to_owned(),
            Verdict::Refuse(refusal) => {
                if refusal.why == Objection::Together {
                    return format!("{}; by itself it would be permitted", refusal.why);
                }
                let nearest = refusal.nearest.or_else(|| self.nearest(operation));
                match nearest {
                    Some(index) => format!("{}; closest is {}", refusal.why, named(index)),
                    None => refusal.why.to_string(),
                }
            }
        }
    }

    /// The rule that comes closest, where judging did not find it by the way.
    pub fn nearest(&self, operation: &Operation<'_>) -> Option<RuleIndex> {
        self.judge.nearest(operation)
    }
}

/// A list of number ranges as written: "0-199, 300".
pub(crate) fn ranges_text(ranges: &[penstock_policy::terms::NumberRange]) -> String {
    let one = |range: &penstock_policy::terms::NumberRange| {
        if range.first == range.last {
            range.first.to_string()
        } else {
            format!("{}-{}", range.first, range.last)
        }
    };
    ranges.iter().map(one).collect::<Vec<_>>().join(", ")
}
