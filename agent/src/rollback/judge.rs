//! Whether a disk is the newest of itself: the record on it, held against the TPM's counter and against the rest of the disk. Pure.
//!
//! A step writes the record, with the counter's next number, and then has the counter go up. So a record is even with the counter, or one ahead where a
//! step was broken off; a disk from before the last whole step is behind.

use serde::{Deserialize, Serialize};

/// How far the gateway had come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marks {
    /// The revision that was in force for good.
    pub revision: u64,
    /// The number of the list of withdrawn keys.
    pub withdrawn: u64,
    /// The trail: its epoch, and the sequence of its next block; absent: not known yet.
    pub trail: Option<(u64, u64)>,
}

impl Marks {
    /// As far as either of the two.
    #[must_use]
    pub fn up_to(self, other: Self) -> Self {
        Self {
            revision: self.revision.max(other.revision),
            withdrawn: self.withdrawn.max(other.withdrawn),
            trail: self.trail.max(other.trail),
        }
    }

    /// What of `now` has not come as far as this, in words.
    fn lacks(&self, now: &Self) -> Option<String> {
        let mut lacks = Vec::new();
        if now.revision < self.revision {
            lacks.push(format!(
                "r{} was in force, and it holds r{}",
                self.revision, now.revision
            ));
        }
        if now.withdrawn < self.withdrawn {
            let (was, is) = (self.withdrawn, now.withdrawn);
            lacks.push(format!(
                "the list of withdrawn keys had number {was}, and it holds {is}"
            ));
        }
        if let (Some((epoch, sequence)), Some(now)) = (self.trail, now.trail)
            && now < (epoch, sequence)
        {
            lacks.push(format!(
                "the trail had come to block {sequence} of epoch {epoch}, and it holds {} of {}",
                now.1, now.0
            ));
        }
        (!lacks.is_empty()).then(|| lacks.join("; "))
    }
}

/// A person took the disk for good as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// Why.
    pub reason: String,
}

/// The record on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRecord {
    /// The number that the counter has after the step which wrote this.
    pub counter: u64,
    /// How far the gateway had come then.
    pub marks: Marks,
    /// That is not in the trail yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Acceptance>,
}

impl StepRecord {
    /// The record of the next step, where the counter shows `counter`.
    pub fn next(&self, counter: u64, now: Marks) -> Self {
        Self {
            counter: counter.saturating_add(1),
            marks: self.marks.up_to(now),
            accepted: None,
        }
    }
}

/// What a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// The newest of itself.
    Newest,
    /// An older one than there was, in words.
    SetBack(String),
    /// Nothing tells how old it is, in words.
    Unguarded(String),
}

/// Judges a disk that has come as far as `now` and holds this record, by what the TPM's counter shows; `None`: there is none.
pub fn judge(noted: Option<&StepRecord>, counter: Option<u64>, now: &Marks) -> Judgement {
    match (noted, counter) {
        (None, None) => Judgement::Unguarded("no counter in the TPM was ever begun for it".to_owned()),
        (Some(_), None) => Judgement::Unguarded(
            "the TPM has no counter for it any more: it was cleared, or is another one".to_owned(),
        ),
        (None, Some(counter)) => Judgement::SetBack(format!(
            "the TPM's counter shows {counter}, and the disk has no record of it"
        )),
        (Some(noted), Some(counter)) if noted.counter < counter => Judgement::SetBack(format!(
            "the TPM's counter shows {counter}, and the disk is of the time when it showed {}",
            noted.counter
        )),
        (Some(noted), Some(counter)) if noted.counter > counter.saturating_add(1) => {
            Judgement::Unguarded(format!(
                "the TPM's counter shows {counter}, and the disk was written when it showed {}: it is another counter",
                noted.counter
            ))
        }
        (Some(noted), Some(_)) => match noted.marks.lacks(now) {
            Some(lacks) => Judgement::SetBack(lacks),
            None => Judgement::Newest,
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// What happens to a gateway.
    #[derive(Debug, Clone)]
    enum Event {
        /// It comes further.
        Goes(Marks),
        /// A step, which is killed after so many of its two parts.
        Step(u8),
        /// Somebody copies the disk.
        Copies,
        /// Somebody puts the copy back.
        SetsBack,
    }

    #[derive(Debug, Clone, PartialEq)]
    struct Disk {
        noted: StepRecord,
        now: Marks,
    }

    fn marks() -> impl Strategy<Value = Marks> {
        (0..3u64, 0..3u64, 0..3u64).prop_map(|(revision, withdrawn, sequence)| Marks {
            revision,
            withdrawn,
            trail: Some((0, sequence)),
        })
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => marks().prop_map(Event::Goes),
            4 => (0..3u8).prop_map(Event::Step),
            2 => Just(Event::Copies),
            1 => Just(Event::SetsBack),
        ]
    }

    fn sum(marks: Marks, more: Marks) -> Marks {
        let next = |trail: Option<(u64, u64)>| trail.unwrap_or_default().1;
        Marks {
            revision: marks.revision + more.revision,
            withdrawn: marks.withdrawn + more.withdrawn,
            trail: Some((1, next(marks.trail) + next(more.trail))),
        }
    }

    proptest! {
        #[test]
        fn a_disk_from_before_the_last_whole_step_is_named_and_one_that_was_only_killed_never_is(
            events in prop::collection::vec(event(), 1..40)
        ) {
            let noted = StepRecord { counter: 5, marks: Marks::default(), accepted: None };
            let mut disk = Disk { noted, now: sum(Marks::default(), Marks::default()) };
            let mut counter = 5;
            // The copy, and how many steps were whole when it was made.
            let (mut copied, mut whole) = ((disk.clone(), 0), 0);
            for event in events {
                match event {
                    Event::Goes(more) => disk.now = sum(disk.now, more),
                    Event::Step(parts) => {
                        if parts > 0 {
                            disk.noted = disk.noted.next(counter, disk.now);
                        }
                        if parts > 1 {
                            (counter, whole) = (counter + 1, whole + 1);
                        }
                    }
                    Event::Copies => copied = (disk.clone(), whole),
                    Event::SetsBack => {
                        let judged = judge(Some(&copied.0.noted), Some(counter), &copied.0.now);
                        // A copy of amid a step has the number that this step comes to.
                        let is_even = copied.0.noted.counter >= counter;
                        prop_assert_eq!(is_even, judged == Judgement::Newest, "{:?} {}", copied, counter);
                        prop_assert!(copied.1 == whole || copied.1 + 1 == whole || !is_even);
                    }
                }
                prop_assert_eq!(judge(Some(&disk.noted), Some(counter), &disk.now), Judgement::Newest);
            }
        }
    }

    #[test]
    fn one_file_that_is_older_than_the_record_is_named_for_what_it_is() {
        let marks = Marks {
            revision: 7,
            withdrawn: 3,
            trail: Some((1, 40)),
        };
        let noted = StepRecord {
            counter: 9,
            marks,
            accepted: None,
        };
        let older = |now: Marks| match judge(Some(&noted), Some(9), &now) {
            Judgement::SetBack(words) => words,
            other => format!("{other:?}"),
        };
        assert!(older(Marks { revision: 6, ..marks }).contains("r7 was in force, and it holds r6"));
        assert!(
            older(Marks {
                withdrawn: 2,
                ..marks
            })
            .contains("had number 3, and it holds 2")
        );
        assert!(
            older(Marks {
                trail: Some((1, 39)),
                ..marks
            })
            .contains("block 40 of epoch 1")
        );
        // A newer epoch, and a trail that is not open yet.
        for trail in [Some((2, 0)), None] {
            assert_eq!(older(Marks { trail, ..marks }), "Newest");
        }
    }

    #[test]
    fn a_counter_that_is_gone_or_another_one_guards_nothing_and_a_record_that_is_gone_is_a_setback() {
        let noted = StepRecord {
            counter: 9,
            marks: Marks::default(),
            accepted: None,
        };
        let now = Marks::default();
        for (noted, counter, is_setback) in [
            (None, None, false),
            (Some(&noted), None, false),
            (Some(&noted), Some(7), false),
            (None, Some(9), true),
            (Some(&noted), Some(10), true),
        ] {
            match judge(noted, counter, &now) {
                Judgement::SetBack(_) => assert!(is_setback),
                Judgement::Unguarded(_) => assert!(!is_setback),
                Judgement::Newest => unreachable!("neither is the newest"),
            }
        }
    }
}
