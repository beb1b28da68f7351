//! How long a side waits between two connections.

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
