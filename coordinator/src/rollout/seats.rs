//! What is decided and known of one gateway. What is decided ([`Mark`], [`Strike`]) is stored, one letter each; what is known is
//! learned again after a restart, when each gateway says hello.

use super::facts::Standing;

/// How far this rollout is with a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mark {
    /// Its turn is yet to come.
    Waiting,
    /// Its wave went on without it; it comes after.
    Absent,
    /// It may activate.
    Opened,
    /// It may no longer, and has not said yet that it knows.
    Withdrawing,
    /// It activated, and is not confirmed.
    Trial,
    /// It may have activated, and is silent: a failure.
    Silent,
    /// It was held when it was heard last, and is silent: it may have activated.
    Unknown,
    /// It enforces the release, confirmed.
    Confirmed,
    /// Confirmed, and silent since, within its wave: a failure.
    ConfirmedSilent,
    /// It went back for a reason that stops the rollout.
    RevertedHard,
    /// It went back: a failure.
    RevertedSoft,
    /// It was brought back, or left unconfirmed while the rollout was halted: no failure.
    BroughtBack,
    /// It refuses the release, and never activated it.
    Refused,
}

const LETTERS: [(Mark, char); 13] = [
    (Mark::Waiting, 'w'),
    (Mark::Absent, 'a'),
    (Mark::Opened, 'o'),
    (Mark::Withdrawing, 'd'),
    (Mark::Trial, 't'),
    (Mark::Silent, 's'),
    (Mark::Unknown, 'u'),
    (Mark::Confirmed, 'c'),
    (Mark::ConfirmedSilent, 'q'),
    (Mark::RevertedHard, 'h'),
    (Mark::RevertedSoft, 'r'),
    (Mark::BroughtBack, 'b'),
    (Mark::Refused, 'x'),
];

impl Mark {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        LETTERS.iter().map(|(mark, _)| *mark)
    }

    /// The letter that it is stored as.
    pub(super) fn letter(self) -> char {
        LETTERS
            .iter()
            .find(|(mark, _)| *mark == self)
            .map_or('?', |(_, letter)| *letter)
    }

    /// What a letter stands for.
    pub(super) fn of(letter: char) -> Option<Self> {
        LETTERS
            .iter()
            .find(|(_, known)| *known == letter)
            .map(|(mark, _)| *mark)
    }

    /// Stable word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Absent => "absent",
            Self::Opened => "opened",
            Self::Withdrawing => "withdrawing",
            Self::Trial => "trial",
            Self::Silent => "silent",
            Self::Unknown => "unknown",
            Self::Confirmed => "confirmed",
            Self::ConfirmedSilent => "confirmed-silent",
            Self::RevertedHard => "reverted-hard",
            Self::RevertedSoft => "reverted",
            Self::BroughtBack => "brought-back",
            Self::Refused => "refused",
        }
    }

    /// What became of gateways by it, behind their names and a colon.
    pub fn became(self) -> &'static str {
        match self {
            Self::Waiting => "waiting for a turn",
            Self::Absent => "to come later",
            Self::Opened => "may activate",
            Self::Withdrawing => "may no longer activate",
            Self::Trial => "on trial",
            Self::Silent => "silent, may have activated",
            Self::Unknown => "silent, held when last heard",
            Self::Confirmed => "confirmed",
            Self::ConfirmedSilent => "silent after confirmation",
            Self::RevertedHard => "went back, which stops the rollout",
            Self::RevertedSoft => "went back",
            Self::BroughtBack => "brought back",
            Self::Refused => "refused the release",
        }
    }

    /// The rollout decided it, where others are what a gateway reported or how long it was silent.
    pub fn is_decided(self) -> bool {
        matches!(
            self,
            Self::Waiting | Self::Absent | Self::Opened | Self::Withdrawing
        )
    }

    /// It may activate, or activated, and that is not over: a wave waits for it.
    pub fn is_in_flight(self) -> bool {
        matches!(self, Self::Opened | Self::Withdrawing | Self::Trial)
    }

    /// It may be enforcing the release without being confirmed, as far as is known: the other of its pair has to wait.
    pub fn may_be_unconfirmed(self) -> bool {
        self.is_in_flight() || matches!(self, Self::Silent | Self::Unknown)
    }

    /// It enforces the release, confirmed.
    pub fn is_confirmed(self) -> bool {
        matches!(self, Self::Confirmed | Self::ConfirmedSilent)
    }

    /// It went back.
    pub fn is_back(self) -> bool {
        matches!(self, Self::RevertedHard | Self::RevertedSoft | Self::BroughtBack)
    }

    /// It counts among those that activated.
    pub fn counts(self) -> bool {
        self.is_confirmed()
            || matches!(
                self,
                Self::Trial | Self::Silent | Self::RevertedHard | Self::RevertedSoft
            )
    }

    /// It counts as a failure.
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Silent | Self::ConfirmedSilent | Self::RevertedHard | Self::RevertedSoft
        )
    }
}

/// What was reported of a gateway since it activated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Strike {
    #[default]
    None,
    Soft,
    Hard,
}

/// One gateway.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub(super) wave: u16,
    pub(super) mark: Mark,
    pub(super) strike: Strike,
    pub(super) is_connected: bool,
    /// Another rollout may have it unconfirmed.
    pub(super) is_elsewhere: bool,
    pub(super) heard: Standing,
    /// When its mark changed, by the rollout's own clock.
    pub(super) marked_at: u64,
    /// When its session opened or ended, by the rollout's own clock.
    pub(super) linked_at: u64,
    /// Since when it judges live traffic by the release, by the rollout's own clock; `None`: it does not report that it does.
    pub(super) judges_since: Option<u64>,
    /// From this order on it knows what it may no longer do.
    pub(super) withdrawn_by: u64,
}

impl Seat {
    pub(super) fn new(wave: u16, mark: Mark, own_ms: u64) -> Self {
        Self {
            wave,
            mark,
            strike: Strike::None,
            is_connected: false,
            is_elsewhere: false,
            heard: Standing::Unheard,
            marked_at: own_ms,
            linked_at: own_ms,
            judges_since: None,
            withdrawn_by: 0,
        }
    }

    pub(super) fn set(&mut self, mark: Mark, own_ms: u64) {
        if self.mark != mark {
            self.mark = mark;
            self.marked_at = own_ms;
        }
    }

    pub(super) fn link(&mut self, is_connected: bool, own_ms: u64) {
        if self.is_connected != is_connected {
            self.is_connected = is_connected;
            self.linked_at = own_ms;
        }
    }

    /// A failure, by how it ended or by what was reported of it since.
    pub(super) fn failed(&self) -> bool {
        self.mark.is_failure() || (self.mark.counts() && self.strike > Strike::None)
    }
}
