//! What was asked on one connection, until it is answered: only what a server carried out is proposed as needed.
//!
//! A recording may hold one direction alone, or have holes. Where it shows nothing that the server sent, or lacks some of it, what was
//! asked counts as carried out, and is marked as not confirmed.

use std::collections::VecDeque;
use std::time::Duration;

use super::entry::{Failure, Lesson, Standing};
use crate::operation::Operation;
use crate::protocols::{self, Confirmation};

/// Something that was asked and is settled.
pub(super) struct Settled {
    pub(super) at: Duration,
    pub(super) lesson: Lesson,
    pub(super) standing: Standing,
}

#[derive(Debug)]
struct Waiting {
    at: Duration,
    lesson: Lesson,
    confirmation: Confirmation,
}

/// Operations of one connection in the order in which they were judged, the last ones of them.
#[derive(Debug)]
pub(super) struct Answers {
    /// `None`: it is settled, or there is nothing to propose for it.
    waiting: VecDeque<Option<Waiting>>,
    /// So many are kept; with none, all count at once.
    limit: usize,
    /// The server was heard.
    heard: bool,
}

impl Answers {
    pub(super) fn within(limit: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            limit,
            heard: false,
        }
    }

    /// Bytes of the server.
    pub(super) fn heard(&mut self) {
        self.heard = true;
    }

    /// An operation was judged; `None`: nothing is to be proposed for it, whatever becomes of it.
    pub(super) fn asked(
        &mut self,
        at: Duration,
        operation: Option<&Operation<'_>>,
        out: &mut dyn FnMut(Settled),
    ) {
        let waiting = operation.and_then(|operation| {
            let inspector = protocols::of(operation.protocol)?;
            Some(Waiting {
                at,
                lesson: inspector.learn(operation),
                confirmation: inspector.confirmed_by(operation),
            })
        });
        let keeps = |waiting: &Waiting| self.limit > 0 && waiting.confirmation != Confirmation::Nothing;
        let kept = match waiting {
            Some(waiting) if !keeps(&waiting) => {
                out(waiting.worked());
                None
            }
            other => other,
        };
        if self.limit == 0 {
            return;
        }
        if self.waiting.len() >= self.limit
            && let Some(first) = self.waiting.pop_front().flatten()
        {
            out(self.given_up(first));
        }
        self.waiting.push_back(kept);
    }

    /// The one after which `behind` more were judged is answered.
    pub(super) fn answered(&mut self, behind: u64, refused: bool, out: &mut dyn FnMut(Settled)) {
        let behind = usize::try_from(behind).unwrap_or(usize::MAX);
        let at = self
            .waiting
            .len()
            .checked_sub(1)
            .and_then(|last| last.checked_sub(behind));
        let Some(waiting) = at.and_then(|at| self.waiting.get_mut(at)).and_then(Option::take) else {
            return;
        };
        out(match refused {
            true => waiting.settled(Standing::Failed(Failure::Refused)),
            false => waiting.worked(),
        });
    }

    /// Bytes of the server are missing: what waits may have been answered there.
    pub(super) fn server_gap(&mut self, out: &mut dyn FnMut(Settled)) {
        self.heard = true;
        for waiting in self.waiting.iter_mut().filter_map(Option::take) {
            out(waiting.settled(Standing::Unconfirmed));
        }
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self, out: &mut dyn FnMut(Settled)) {
        for waiting in std::mem::take(&mut self.waiting).into_iter().flatten() {
            out(self.given_up(waiting));
        }
    }

    /// It was not answered, as far as the recording shows.
    fn given_up(&self, waiting: Waiting) -> Settled {
        let standing = match (waiting.confirmation, self.heard) {
            (Confirmation::Answer, true) => Standing::Failed(Failure::Unanswered),
            (Confirmation::Answer, false) => Standing::Unconfirmed,
            (Confirmation::NoRefusal | Confirmation::Nothing, _) => Standing::Worked,
        };
        waiting.settled(standing)
    }
}

impl Waiting {
    fn settled(self, standing: Standing) -> Settled {
        Settled {
            at: self.at,
            lesson: self.lesson,
            standing,
        }
    }

    fn worked(self) -> Settled {
        self.settled(Standing::Worked)
    }
}
