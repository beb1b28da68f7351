//! How long a side waits between two connections, and for the disk.

use super::*;

#[test]
fn a_broker_that_ends_each_connection_after_one_message_is_given_the_next_as_soon_as_it_may() {
    let mut giving = Giving::new();
    for seq in 1..20 {
        giving.opened(true);
        giving.answered(stands(seq, 30));
        giving.answered(Answer::Read(vec![message(seq, 1)]));
        let identifier = u16::try_from(seq + 1).unwrap();
        giving.take(delivery::Fact::Packet(Incoming::Acknowledge {
            kind: kind::PUBACK,
            identifier,
            reason: 0,
        }));
        giving.take(delivery::Fact::Broke(ConnectionError::Closed));
        later(&mut giving.now, 1);
        let next = giving.take(delivery::Fact::TimePassed);
        assert_eq!(next, [Action::Connect { clean_start: false }], "after {seq}");
    }
    // Where nothing works it waits longer.
    giving.opened(true);
    giving.take(delivery::Fact::Broke(ConnectionError::Closed));
    later(&mut giving.now, 1);
    assert_eq!(giving.take(delivery::Fact::TimePassed), []);
}

#[test]
fn a_broker_with_a_new_session_is_subscribed_to_also_while_a_full_disk_cannot_say_so() {
    let mut now = begin();
    let mut machine = IntakeMachine::new(rules(), None, now.instant, Backoff::default());
    machine.take(intake::Fact::TimePassed, now);
    let (outcome, random) = (welcome(false), 1);
    machine.take(intake::Fact::Opened { outcome, random }, now);
    assert_eq!(machine.hand_over().len(), 1);
    let subscribes = |machine: &mut IntakeMachine| {
        std::iter::from_fn(|| machine.action()).any(|action| matches!(action, Action::Send(_)))
    };
    assert!(!subscribes(&mut machine));
    // Else the broker would keep nothing for the bridge, for as long as there is no room.
    now.instant = machine.deadline().unwrap();
    machine.take(intake::Fact::TimePassed, now);
    assert!(subscribes(&mut machine));
    assert!(machine.deadline() > Some(now.instant));
    // Once, also if the disk takes it later.
    machine.take(intake::Fact::Own(intake::Durable(vec![])), now);
    assert!(!subscribes(&mut machine));
}
