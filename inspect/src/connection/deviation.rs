//! What a stream does that its protocol does not foresee, and what enforcing makes of it.
//!
//! Beside refusing operations this is all by which an enforced stream differs from what was sent. A stream that is
//! only observed passes as it is; then a deviation foretells what enforcing would change. Which there are, a protocol says in its
//! folder; those here any stream can have.

use std::borrow::Cow;
use std::fmt;

/// What enforcing does about a deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// The packet does not reach its receiver.
    Withheld,
    /// The connection ends.
    Ended,
}

impl Effect {
    /// As a word: what is done to it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Withheld => "withheld",
            Self::Ended => "ended",
        }
    }
}

/// What a deviation says of the stream, or of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviationKind {
    /// It cannot be read as its protocol.
    Unreadable,
    /// The server answers under other identifiers than it was asked: [`Deviation::remedy`].
    OtherIdentifiers,
    /// The server answers what was not asked, or otherwise than it was asked.
    Misfit,
    /// Anything else.
    Other,
}

/// Something that enforcing does not let pass and that is no operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deviation {
    kind: DeviationKind,
    words: Cow<'static, str>,
    consequence: &'static str,
}

impl Deviation {
    /// A side ended within a packet. Its beginning does not go on.
    pub const CUT_SHORT: Self = Self::other(
        "a packet is not whole when its sender ends the connection",
        "a packet that is not whole is withheld",
    );
    /// A packet had gone on in part while it was only observed, and cannot be withheld any more.
    pub const HALF_THROUGH: Self = Self::other(
        "a packet that was on its way when enforcement began is refused",
        "its rest is not forwarded, and the connection is reset",
    );
    /// More refusals wait to be told than the limit, since a peer takes nothing or the server does not answer.
    pub const OVERFLOW: Self = Self::other(
        "a peer takes nothing or answers nothing, and too much waits for it",
        "nothing more is kept for it, and the connection ends",
    );

    const fn other(words: &'static str, consequence: &'static str) -> Self {
        Self {
            kind: DeviationKind::Other,
            words: Cow::Borrowed(words),
            consequence,
        }
    }

    /// A stream that cannot be read as its protocol.
    pub(crate) fn unreadable(why: &impl fmt::Display) -> Self {
        Self::of(
            DeviationKind::Unreadable,
            why,
            "what cannot be read as the protocol is not forwarded, and the connection ends",
        )
    }

    /// One of a protocol's own, and what enforcing does about it.
    pub(crate) fn of(kind: DeviationKind, words: &impl fmt::Display, consequence: &'static str) -> Self {
        Self {
            kind,
            words: words.to_string().into(),
            consequence,
        }
    }

    /// What it says of the stream.
    pub fn kind(&self) -> DeviationKind {
        self.kind
    }

    /// What enforcing does about it, as the reason of a denial.
    pub fn consequence(&self) -> &'static str {
        self.consequence
    }

    /// The option of a flow that would let it pass.
    pub fn remedy(&self) -> Option<&'static str> {
        (self.kind == DeviationKind::OtherIdentifiers).then_some("answers: in-order")
    }
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}
