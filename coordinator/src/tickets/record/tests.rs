#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn key(number: u8) -> Digest {
    Digest::of(&[number])
}

fn from(who: usize) -> Origin {
    Origin {
        address: format!("10.0.0.{who}"),
        at_ms: 1,
    }
}

/// What happens to the users of one key, and to the coordinator's record of it.
#[derive(Debug, Clone)]
enum Step {
    /// A user says hello; whatever session it had is over. `lost`: the store takes nothing.
    Hello { user: Index, lost: bool },
    /// Its disk takes the ticket that it was given.
    Stores(Index),
    /// It says that it holds what is on its disk, and the coordinator lives, or does not, until that is written.
    Acknowledges { user: Index, lost: bool },
    /// Its session breaks off, or it is killed.
    Breaks(Index),
    /// The record is backed up.
    BacksUp,
    /// The coordinator is restored from that.
    Restores,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let user = any::<Index>;
    let step = prop_oneof![
        3 => (user(), prop::bool::weighted(0.1)).prop_map(|(user, lost)| Step::Hello { user, lost }),
        3 => user().prop_map(Step::Stores),
        3 => (user(), prop::bool::weighted(0.2)).prop_map(|(user, lost)| Step::Acknowledges { user, lost }),
        2 => user().prop_map(Step::Breaks),
        1 => Just(Step::BacksUp),
        1 => Just(Step::Restores),
    ];
    prop::collection::vec(step, 0..60)
}

#[derive(Debug, Clone, Default)]
struct User {
    disk: Option<Ticket>,
    /// What it was given in the session that stands.
    given: Option<Ticket>,
    /// It holds what it was given.
    stored: bool,
    /// What is on its disk came there after it was copied.
    is_own: bool,
}

#[derive(Debug, Default)]
struct World {
    users: Vec<User>,
    record: Option<TicketRecord>,
    backup: Option<TicketRecord>,
    drawn: u64,
    /// Who held a ticket last of which the coordinator knows, and which no other was a copy of.
    last: Option<usize>,
    /// Two users were said to be there.
    alarm: bool,
    /// Another one than `last` came after it, and there was no alarm.
    missed: bool,
}

impl World {
    fn of(users: usize) -> Self {
        Self {
            users: vec![User::default(); users],
            ..Self::default()
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Hello { user, lost } => self.hello(user.index(self.users.len()), *lost),
            Step::Stores(user) => {
                let user = user.get_mut(&mut self.users);
                if user.given.is_some() {
                    user.is_own |= user.given != user.disk;
                    (user.disk, user.stored) = (user.given, true);
                }
            }
            Step::Acknowledges { user, lost } => {
                let at = user.index(self.users.len());
                let user = &self.users[at];
                if let Some(given) = user.given.filter(|_| user.stored && !lost)
                    && let Some(record) = held(self.record.as_ref(), key(1), given, from(at))
                {
                    self.record = Some(record);
                    self.holds(at);
                }
            }
            Step::Breaks(user) => {
                let user = user.get_mut(&mut self.users);
                (user.given, user.stored) = (None, false);
            }
            Step::BacksUp => self.backup = self.record.clone(),
            Step::Restores => self.record = self.backup.clone(),
        }
    }

    /// The coordinator knows what is on a user's disk.
    fn holds(&mut self, at: usize) {
        if self.users[at].is_own {
            self.last = Some(at);
        }
    }

    fn hello(&mut self, at: usize, lost: bool) {
        let shown = self.users[at].disk.map_or(Shown::Nothing, Shown::Ticket);
        self.users[at].given = None;
        self.users[at].stored = false;
        let alarmed = self.alarm;
        match meaning(self.record.as_ref(), key(1), shown, from(at)) {
            Meaning::Same { record: Some(_), .. } if lost => {}
            Meaning::Same { next, record } => {
                self.drawn += 1;
                self.users[at].given = Some(Ticket {
                    number: next,
                    random: self.drawn,
                });
                if record.is_some() {
                    self.record = record;
                    self.holds(at);
                }
            }
            Meaning::Found(_) if lost => self.alarm = true,
            Meaning::Found(record) => (self.record, self.alarm) = (Some(record), true),
            Meaning::Known(_) => assert!(alarmed),
        }
        self.missed |= !self.alarm && self.last.is_some_and(|last| last != at);
    }
}

proptest! {
    #[test]
    fn a_gateway_alone_is_never_two_whatever_breaks_off_and_whatever_is_restored(steps in steps()) {
        let mut world = World::of(1);
        for step in &steps {
            world.take(step);
            prop_assert!(!world.alarm, "{step:?}: {world:?}");
        }
    }

    #[test]
    fn who_comes_after_another_held_a_ticket_is_noticed_at_once_and_that_is_never_forgotten(
        before in steps(),
        after in steps(),
    ) {
        let mut world = World::of(1);
        before.iter().for_each(|step| world.take(step));
        // A copy of what is on the disk.
        let copy = User { disk: world.users[0].disk, ..User::default() };
        world.users[0].is_own = false;
        world.users.push(copy);
        world.last = None;
        for step in after.iter().filter(|step| !matches!(step, Step::Restores)) {
            world.take(step);
            prop_assert!(!world.missed, "{step:?}: {world:?}");
        }
    }
}

fn ticket(number: u64) -> Ticket {
    Ticket {
        number,
        random: number * 10,
    }
}

fn recorded(number: u64) -> TicketRecord {
    held(None, key(1), ticket(number), from(1)).unwrap()
}

#[test]
fn what_a_second_user_shows_is_named() {
    for (shown, why) in [
        (Shown::Nothing, Mismatch::Missing),
        (Shown::Unknown, Mismatch::Unknown),
        (Shown::Ticket(ticket(4)), Mismatch::Earlier),
        (Shown::Ticket(Ticket { number: 5, random: 1 }), Mismatch::Earlier),
    ] {
        let found = meaning(Some(&recorded(5)), key(1), shown, from(2));
        let Meaning::Found(record) = found else {
            panic!("{shown:?}: {found:?}")
        };
        let twin = record.twin.clone().unwrap();
        assert_eq!((twin.noticed, twin.other, twin.why), (from(2), from(1), why));
        // Nobody gets a ticket by which they could become the one.
        let known = meaning(Some(&record), key(1), Shown::Ticket(ticket(5)), from(1));
        assert!(matches!(known, Meaning::Known(_)), "{known:?}");
        assert_eq!(held(Some(&record), key(1), ticket(6), from(2)), None);
    }
}

#[test]
fn another_key_begins_without_a_ticket_and_one_user_by_a_persons_word_with_whatever_comes() {
    let same = |next| Meaning::Same { next, record: None };
    // Nothing is recorded, and a ticket is shown: it is what is held.
    let first = meaning(None, key(1), Shown::Ticket(ticket(5)), from(1));
    let record = Some(recorded(5));
    assert_eq!(first, Meaning::Same { next: 6, record });
    let other = meaning(Some(&recorded(5)), key(2), Shown::Nothing, from(1));
    assert_eq!(other, same(1));
    let Meaning::Found(found) = meaning(Some(&recorded(5)), key(1), Shown::Nothing, from(2)) else {
        panic!("two users")
    };
    let open = lifted(&found).unwrap();
    assert_eq!(lifted(&open), None);
    for (shown, next) in [
        (Shown::Nothing, 6),
        (Shown::Unknown, 6),
        (Shown::Ticket(ticket(3)), 6),
        (Shown::Ticket(ticket(9)), 10),
    ] {
        assert_eq!(meaning(Some(&open), key(1), shown, from(3)), same(next));
    }
    // The first that holds one is the one from then on.
    let one = held(Some(&open), key(1), ticket(6), from(3)).unwrap();
    let second = meaning(Some(&one), key(1), Shown::Ticket(ticket(5)), from(1));
    assert!(matches!(second, Meaning::Found(_)), "{second:?}");
}
