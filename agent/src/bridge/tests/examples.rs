//! What once went wrong, machine by machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_inspect::mqtt::packet::kind;
use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::NumberRange;
use penstock_proto::backoff::Backoff;

use crate::bridge::connection::ConnectionError;
use crate::bridge::delivery::machine::{self as delivery, DeliveryMachine};
use crate::bridge::intake::machine::{self as intake, IntakeMachine};
use crate::bridge::keeper::machine::KeeperMachine;
use crate::bridge::keeper::{Ack, Answer, IntakeEntry, Question};
use crate::bridge::layout::{Message, QueueRecord, Snapshot};
use crate::bridge::packet::{Incoming, Publication, Welcome};
use crate::bridge::report::Notice;
use crate::bridge::rules::PublicationRules;
use crate::bridge::side::line::{Action, Goodbye, Moment};

mod waits;

fn rules() -> Arc<PublicationRules> {
    let permitted = MqttOperation::Publish {
        topics: vec!["works/#".to_owned()],
        qos: NumberRange { first: 0, last: 2 },
        retain: false,
    };
    Arc::new(PublicationRules::compile(&[permitted]).unwrap())
}

fn welcome(session_present: bool) -> Result<Welcome, ConnectionError> {
    Ok(Welcome {
        reason: 0,
        session_present,
        receive_maximum: 100,
        packet_bytes_max: usize::MAX,
        qos_max: 2,
        retain_available: true,
        keep_alive_s: None,
    })
}

fn begin() -> Moment {
    Moment {
        instant: Instant::now(),
        ms: 1_700_000_000_000,
    }
}

fn later(now: &mut Moment, seconds: u64) {
    now.instant += Duration::from_secs(seconds);
    now.ms += seconds * 1000;
}

fn message(seq: u64, qos: u8) -> Message {
    Message {
        seq,
        time_ms: 1,
        expires_ms: 0,
        origin: 0,
        qos,
        retain: false,
        topic: "works/a".to_owned(),
        payload: vec![],
    }
}

fn stands(finished: u64, next: u64) -> Answer {
    Answer::State(Snapshot {
        finished,
        next,
        ..Snapshot::default()
    })
}

/// A giving side that has just begun.
struct Giving {
    machine: DeliveryMachine,
    now: Moment,
}

impl Giving {
    fn new() -> Self {
        let now = begin();
        let machine = DeliveryMachine::new(rules(), false, 1, now.instant, Backoff::default());
        let mut giving = Self { machine, now };
        assert_eq!(
            giving.take(delivery::Fact::TimePassed),
            [Action::Connect { clean_start: false }]
        );
        giving
    }

    /// Takes a fact, does what is to be done, and says what that was; all that is sent is written.
    fn take(&mut self, fact: delivery::Fact<'_>) -> Vec<delivery::Action> {
        self.machine.take(fact, self.now);
        let mut actions = Vec::new();
        while let Some(action) = self.machine.action() {
            if matches!(action, Action::Send(_)) {
                self.machine.take(delivery::Fact::Written, self.now);
            }
            actions.push(action);
        }
        actions
    }

    fn opened(&mut self, session_present: bool) -> Vec<delivery::Action> {
        self.take(delivery::Fact::Opened {
            outcome: welcome(session_present),
            random: 1,
        })
    }

    fn answered(&mut self, answer: Answer) -> Vec<delivery::Action> {
        self.take(delivery::Fact::Own(delivery::QueueFact::Answered(answer)))
    }

    /// The connection breaks, and the next one stands.
    fn opened_again(&mut self, session_present: bool) -> Vec<delivery::Action> {
        self.take(delivery::Fact::Broke(ConnectionError::Closed));
        later(&mut self.now, 60);
        assert_eq!(
            self.take(delivery::Fact::TimePassed),
            [Action::Connect { clean_start: false }]
        );
        self.opened(session_present)
    }
}

#[test]
fn a_new_session_at_the_sending_broker_is_recorded_also_if_the_connection_breaks_at_once() {
    let mut now = begin();
    let mut machine = IntakeMachine::new(rules(), None, now.instant, Backoff::default());
    machine.take(intake::Fact::TimePassed, now);
    let open = |machine: &mut IntakeMachine, session_present, now| {
        let (outcome, random) = (welcome(session_present), 1);
        machine.take(intake::Fact::Opened { outcome, random }, now);
    };
    open(&mut machine, false, now);
    // Nothing was handed over yet.
    machine.take(intake::Fact::Broke(ConnectionError::Closed), now);
    assert!(!machine.has_entries());
    later(&mut now, 60);
    machine.take(intake::Fact::TimePassed, now);
    open(&mut machine, true, now);
    assert!(matches!(machine.hand_over()[..], [IntakeEntry::Forgot]));
}

#[test]
fn nothing_is_given_to_a_receiving_broker_with_a_new_session_that_the_disk_does_not_know_of() {
    let mut giving = Giving::new();
    assert_eq!(giving.opened(false), [Action::Own(Question::Forgot)]);
    let ended = giving.answered(Answer::NotForgotten);
    let goodbye = Goodbye {
        reason: 0,
        forget: false,
    };
    assert_eq!(ended[0], Action::Close(Some(goodbye)));
    assert!(matches!(&ended[1], Action::Report(Notice::Down(why)) if why.contains("cannot be recorded")));
    // By now the broker has the session of that connection.
    later(&mut giving.now, 60);
    giving.take(delivery::Fact::TimePassed);
    assert_eq!(giving.opened(true), [Action::Own(Question::Forgot)]);
    assert_eq!(giving.answered(Answer::Forgotten), [Action::Own(Question::State)]);
}

#[test]
fn messages_that_come_while_a_damaged_part_is_read_are_not_passed_over() {
    let mut giving = Giving::new();
    giving.opened(true);
    let read = |from| {
        Action::Own(Question::Read {
            from,
            bytes_max: delivery::READ_BYTES,
        })
    };
    assert!(giving.answered(stands(1, 4)).contains(&read(1)));
    // Five more are kept before it is heard that of the first three none can be read.
    giving.take(delivery::Fact::Own(delivery::QueueFact::Depth(9)));
    let actions = giving.answered(Answer::Read(vec![]));
    let lost = actions.iter().find_map(|action| match action {
        Action::Report(Notice::Lost { cause, count, .. }) => Some((*cause, *count)),
        _ => None,
    });
    assert_eq!(lost, Some(("bridge-damaged", 3)));
    assert!(actions.contains(&read(4)), "{actions:?}");
}

#[test]
fn what_is_done_behind_one_that_is_not_is_neither_given_nor_counted_as_lost_again() {
    let mut giving = Giving::new();
    giving.opened(true);
    giving.answered(stands(1, 5));
    let expired = Message {
        expires_ms: 2,
        ..message(3, 1)
    };
    let refused = Message {
        topic: "office/a".to_owned(),
        ..message(4, 1)
    };
    let messages = || {
        Answer::Read(vec![
            message(1, 1),
            message(2, 0),
            expired.clone(),
            refused.clone(),
        ])
    };
    let sent = |actions: &[delivery::Action]| {
        let bytes = actions.iter().filter_map(|action| match action {
            Action::Send(bytes) => Some(super::brokers::packets(bytes)),
            _ => None,
        });
        bytes.flatten().map(|packet| packet.qos).collect::<Vec<_>>()
    };
    let losses = |actions: &[delivery::Action]| {
        let lost = |action: &&delivery::Action| matches!(action, Action::Report(Notice::Lost { .. }));
        actions.iter().filter(lost).count()
    };
    let first = giving.answered(messages());
    assert_eq!((sent(&first), losses(&first)), (vec![1, 0], 2));
    giving.opened_again(true);
    giving.answered(stands(1, 5));
    let second = giving.answered(messages());
    assert_eq!((sent(&second), losses(&second)), (vec![1], 0));
    let acknowledged = giving.take(delivery::Fact::Packet(Incoming::Acknowledge {
        kind: kind::PUBACK,
        identifier: 2,
        reason: 0,
    }));
    assert_eq!(acknowledged, [Action::Own(Question::Finished(5))]);
}

#[test]
fn a_broker_that_takes_no_publication_at_all_is_reported_instead_of_waited_for() {
    let mut giving = Giving::new();
    let outcome = welcome(true).map(|welcome| Welcome {
        receive_maximum: 0,
        ..welcome
    });
    let actions = giving.take(delivery::Fact::Opened { outcome, random: 1 });
    assert!(
        matches!(&actions[1], Action::Report(Notice::Down(_))),
        "{actions:?}"
    );
}

#[test]
fn a_silent_broker_is_left_but_not_while_nobody_listens_to_it() {
    let mut now = begin();
    let mut machine = IntakeMachine::new(rules(), None, now.instant, Backoff::default());
    machine.take(intake::Fact::TimePassed, now);
    let (outcome, random) = (welcome(true), 1);
    machine.take(intake::Fact::Opened { outcome, random }, now);
    let large = vec![0; usize::try_from(intake::BATCH_BYTES).unwrap()];
    let publication = Publication {
        topic: "works/a",
        qos: 1,
        retain: false,
        identifier: 1,
        duplicate: false,
        expiry_s: None,
        payload: &large,
    };
    machine.take(intake::Fact::Packet(Incoming::Publish(publication)), now);
    assert!(!machine.listens());
    let closes = |machine: &mut IntakeMachine| {
        std::iter::from_fn(|| machine.action()).any(|action| matches!(action, Action::Close(_)))
    };
    for _ in 0..20 {
        later(&mut now, 15);
        machine.take(intake::Fact::TimePassed, now);
        assert!(!closes(&mut machine), "what is not listened to is not silent");
    }
    assert_eq!(machine.hand_over().len(), 1);
    for _ in 0..3 {
        later(&mut now, 15);
        machine.take(intake::Fact::TimePassed, now);
        assert!(!closes(&mut machine));
    }
    later(&mut now, 15);
    machine.take(intake::Fact::TimePassed, now);
    assert!(closes(&mut machine));
}

#[test]
fn what_was_refused_is_acknowledged_also_while_the_disk_takes_nothing() {
    let ack = Ack {
        kind: kind::PUBACK,
        identifier: 7,
    };
    let mut keeper = KeeperMachine::new(1);
    let entries = vec![
        IntakeEntry::Skip(ack),
        IntakeEntry::Keep {
            message: message(0, 0),
            ack: None,
            again: false,
        },
    ];
    keeper.take(entries, "connection", &BTreeMap::new());
    let commit = keeper.commit(&[], false);
    let (owed, shed, positions) = keeper.not_kept(commit, "full".to_owned(), Instant::now());
    assert_eq!(owed, [("connection", vec![ack])]);
    assert_eq!(shed.map(|shed| shed.count), Some(1));
    assert!(positions.is_empty() && !keeper.is_stuck());
}

#[test]
fn a_position_that_was_not_written_is_written_with_the_next_records() {
    let mut keeper = KeeperMachine::<()>::new(1);
    let commit = keeper.commit(&[Question::Finished(5)], true);
    assert_eq!(commit.positions, 1);
    let (_, _, positions) = keeper.not_kept(commit, "full".to_owned(), Instant::now());
    assert_eq!(positions.len(), 1);
    // Nor could these be written by themselves.
    let commit = keeper.commit(&[], true);
    assert_eq!(commit.positions, 1);
    assert!(keeper.kept(&commit, Instant::now()).is_empty());
    assert_eq!(keeper.commit(&[], true).positions, 0);
}

#[test]
fn a_position_that_was_not_written_does_not_count_as_written_after_a_commit_without_it() {
    let mut keeper = KeeperMachine::<()>::new(1);
    let commit = keeper.commit(&[Question::Finished(5)], true);
    let _ = keeper.not_kept(commit, "full".to_owned(), Instant::now());
    let read = Question::Read {
        from: 5,
        bytes_max: 1,
    };
    let empty = keeper.commit(&[read], false);
    assert!(empty.records.is_empty() && keeper.kept(&empty, Instant::now()).is_empty());
    assert_eq!(keeper.commit(&[], true).records, [QueueRecord::Finished(5)]);
}

#[test]
fn what_could_not_be_written_at_qos_0_is_given_over_the_next_connection_and_not_counted_as_done() {
    let mut giving = Giving::new();
    giving.opened(true);
    let messages = || Answer::Read(vec![message(1, 0), message(2, 0)]);
    giving.machine.take(
        delivery::Fact::Own(delivery::QueueFact::Answered(stands(1, 3))),
        giving.now,
    );
    giving.machine.take(
        delivery::Fact::Own(delivery::QueueFact::Answered(messages())),
        giving.now,
    );
    let mut asked = Vec::new();
    while let Some(action) = giving.machine.action() {
        match action {
            Action::Send(_) => {
                let broke = delivery::Fact::Broke(ConnectionError::Closed);
                giving.machine.take(broke, giving.now);
            }
            Action::Own(question) => asked.push(question),
            _ => {}
        }
    }
    assert!(!asked.contains(&Question::Finished(3)), "{asked:?}");
    later(&mut giving.now, 60);
    giving.take(delivery::Fact::TimePassed);
    giving.opened(true);
    giving.answered(stands(1, 3));
    let given = giving.answered(messages());
    assert!(matches!(given.first(), Some(Action::Send(_))), "{given:?}");
    assert!(given.contains(&Action::Own(Question::Finished(3))), "{given:?}");
}

#[test]
fn a_loss_is_reported_before_it_counts_as_done() {
    let mut giving = Giving::new();
    giving.opened(true);
    giving.answered(stands(1, 2));
    let expired = Message {
        expires_ms: 2,
        ..message(1, 1)
    };
    let actions = giving.answered(Answer::Read(vec![expired]));
    let at = |wanted: fn(&delivery::Action) -> bool| actions.iter().position(wanted);
    let lost = at(|action| matches!(action, Action::Report(Notice::Lost { .. })));
    let done = at(|action| *action == Action::Own(Question::Finished(2)));
    assert!(lost.is_some() && lost < done, "{actions:?}");
}

#[test]
fn a_message_under_the_packet_identifier_of_one_that_expired_on_its_way_or_that_is_not_it_is_not_taken_for_it()
 {
    let came = |ms, expires_ms, payload: &str| Message {
        time_ms: ms,
        expires_ms,
        origin: 3,
        qos: 2,
        payload: payload.into(),
        ..message(0, 2)
    };
    let taken = |message: Message, again| {
        let mut unreleased = BTreeMap::new();
        unreleased.insert(3, came(1_000, 61_000, "on").mark());
        let mut keeper = KeeperMachine::new(1);
        let entry = IntakeEntry::Keep {
            message,
            ack: None,
            again,
        };
        keeper.take(vec![entry], (), &unreleased);
        keeper.is_stuck()
    };
    // What came before comes again as it was.
    assert!(!taken(came(50_000, 61_000, "on"), true));
    assert!(!taken(came(62_000, 62_000, "on"), true));
    for (message, again) in [
        (came(50_000, 61_000, "off"), true),
        (came(50_000, 61_000, "on"), false),
        (came(70_000, 0, "on"), true),
    ] {
        assert!(taken(message.clone(), again), "{message:?}");
    }
}

#[test]
fn nothing_is_subscribed_to_in_a_new_session_that_the_disk_does_not_know_of() {
    let mut now = begin();
    let mut machine = IntakeMachine::new(rules(), None, now.instant, Backoff::default());
    machine.take(intake::Fact::TimePassed, now);
    let open = |machine: &mut IntakeMachine, session_present, now| {
        let (outcome, random) = (welcome(session_present), 1);
        machine.take(intake::Fact::Opened { outcome, random }, now);
    };
    let subscribes = |machine: &mut IntakeMachine| {
        std::iter::from_fn(|| machine.action()).any(|action| matches!(action, Action::Send(_)))
    };
    open(&mut machine, false, now);
    assert_eq!(machine.hand_over().len(), 1);
    assert!(!subscribes(&mut machine));
    // It was handed over, and nobody heard what became of it.
    machine.take(intake::Fact::Broke(ConnectionError::Closed), now);
    later(&mut now, 60);
    machine.take(intake::Fact::TimePassed, now);
    open(&mut machine, true, now);
    assert!(!subscribes(&mut machine));
    assert!(matches!(machine.hand_over()[..], [IntakeEntry::Forgot]));
    machine.take(intake::Fact::Own(intake::Durable(vec![])), now);
    assert!(subscribes(&mut machine));
}

#[test]
fn a_broker_that_releases_what_it_never_sent_or_loses_its_session_again_and_again_takes_no_room_on_disk() {
    let mut keeper = KeeperMachine::new(1);
    let release = IntakeEntry::Release(Ack {
        kind: kind::PUBCOMP,
        identifier: 9,
    });
    keeper.take(vec![IntakeEntry::Forgot, release], (), &BTreeMap::new());
    let mut commit = keeper.commit(&[Question::Forgot], false);
    commit.spare(&Snapshot::default(), false);
    assert!(commit.records.is_empty() && commit.positions == 0, "{commit:?}");
    let owed = keeper.kept(&commit, Instant::now());
    assert_eq!(owed.iter().map(|(_, acks)| acks.len()).collect::<Vec<_>>(), [1]);
    // What it received is forgotten on disk once; beyond the room for state its receipts are not kept.
    let mut commit = keeper.commit(&[Question::Received(4), Question::Forgot], false);
    commit.spare(&Snapshot::default(), false);
    assert_eq!(
        commit.records,
        [QueueRecord::Received(4), QueueRecord::ReceiverForgot]
    );
    let mut commit = keeper.commit(&[Question::Received(5), Question::Finished(3)], false);
    commit.spare(&Snapshot::default(), true);
    assert_eq!(
        (commit.records.as_slice(), commit.positions),
        (&[QueueRecord::Finished(3)][..], 1)
    );
}

#[test]
fn what_holds_no_message_counts_for_what_waits_too() {
    let release = |identifier| {
        IntakeEntry::Release(Ack {
            kind: kind::PUBCOMP,
            identifier,
        })
    };
    let mut keeper = KeeperMachine::new(1);
    keeper.take((1..=u16::MAX).map(release).collect(), (), &BTreeMap::new());
    assert!(keeper.is_full());
}
