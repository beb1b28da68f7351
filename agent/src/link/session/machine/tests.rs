#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

fn codes(codes: &[&str]) -> BTreeSet<String> {
    codes.iter().map(|code| (*code).to_owned()).collect()
}

fn at(sequence: u64) -> Position {
    Position { epoch: 1, sequence }
}

fn block(sequence: u64) -> AuditBlock {
    AuditBlock {
        epoch: 1,
        sequence,
        previous_digest: vec![0; 32].into(),
        body: vec![0; 1000].into(),
    }
}

fn ack(next_sequence: u64) -> Option<Inbound> {
    Some(Inbound::AuditAck(AuditAck {
        epoch: 1,
        next_sequence,
        digest: vec![0; 32].into(),
        witness: None,
        trails: None,
    }))
}

/// A machine with a trail of so many blocks, whose session began.
fn talking(blocks: u64, now: Instant) -> SessionMachine {
    let mut machine = SessionMachine::new(Hello::default(), at(blocks), now);
    assert!(matches!(machine.outgoing(now), Some(Outbound::Hello(_))));
    let welcome = Welcome {
        coordinator: "c-1".to_owned(),
        health_interval_ms: 10_000,
        ..Welcome::default()
    };
    machine.received(Some(Inbound::Welcome(welcome)), now).unwrap();
    assert_eq!(
        machine.action(now),
        Some(Action::Connected {
            coordinator: "c-1".to_owned(),
            time_ms: 0,
            ticket: Bytes::new(),
            twin: None,
            asks_withdrawn: false,
            asks_trust: false,
        })
    );
    assert_eq!(machine.action(now), Some(Action::Report));
    machine.reported(HealthReport::default(), now, 7);
    assert!(matches!(machine.action(now), Some(Action::Resume(_))));
    machine.resumed(Some(at(0)));
    machine
}

/// Does what the machine asks of the trail, and takes what goes out; the sequences of the blocks.
fn pump(machine: &mut SessionMachine, blocks: u64, now: Instant) -> Vec<u64> {
    let mut sent = Vec::new();
    loop {
        while let Some(action) = machine.action(now) {
            match action {
                Action::Read { from, count_max, .. } => {
                    let until = blocks.min(from.sequence + count_max as u64);
                    machine.read(Some((from.sequence..until).map(block).collect()), now);
                }
                Action::Report => machine.reported(HealthReport::default(), now, 7),
                _ => {}
            }
        }
        match machine.outgoing(now) {
            Some(Outbound::Audit(block)) => sent.push(block.sequence),
            Some(_) => {}
            None => return sent,
        }
    }
}

#[test]
fn a_coordinator_that_says_nothing_or_something_else_than_welcome_loses_the_session() {
    let now = Instant::now();
    let mut silent = SessionMachine::new(Hello::default(), at(0), now);
    silent.outgoing(now);
    assert_eq!(silent.wake(now + WELCOME_TIMEOUT / 2, codes(&[])), Ok(()));
    assert_eq!(silent.deadline(), now + WELCOME_TIMEOUT);
    assert_eq!(
        silent.wake(now + WELCOME_TIMEOUT, codes(&[])),
        Err(SessionFault::NoWelcome)
    );
    for message in [None, ack(1), Some(Inbound::Offer(PolicyOffer::default()))] {
        let mut machine = SessionMachine::new(Hello::default(), at(0), now);
        assert_eq!(machine.received(message, now), Err(SessionFault::NoWelcome));
        assert_eq!(machine.lived(now + LOOK), Duration::ZERO);
    }
    for message in [None, Some(Inbound::Welcome(Welcome::default()))] {
        let mut machine = talking(0, now);
        assert!(matches!(
            machine.received(message, now),
            Err(SessionFault::Protocol(_))
        ));
    }
}

#[test]
fn state_and_health_go_out_before_blocks_and_the_newest_of_each_alone() {
    let now = Instant::now();
    let mut machine = talking(100, now);
    assert!(matches!(machine.action(now), Some(Action::Read { .. })));
    machine.read(Some((0..7).map(block).collect()), now);
    for revision in [1, 2] {
        let refused = penstock_proto::v1::Refusal {
            revision,
            ..Default::default()
        };
        let state = PolicyState {
            refused: Some(refused),
            ..PolicyState::default()
        };
        machine.policy_changed(state, now);
    }
    let Some(Outbound::Policy(state)) = machine.outgoing(now) else {
        panic!("the policy's state waits")
    };
    assert_eq!(state.refused.unwrap().revision, 2);
    assert!(matches!(machine.outgoing(now), Some(Outbound::Health(_))));
    assert!(matches!(machine.outgoing(now), Some(Outbound::Audit(block)) if block.sequence == 0));
}

#[test]
fn of_offers_that_nobody_took_the_newest_is_handed_on() {
    let now = Instant::now();
    let mut machine = talking(0, now);
    for index in [1, 2] {
        let offer = PolicyOffer {
            leaf_index: index,
            ..PolicyOffer::default()
        };
        machine.received(Some(Inbound::Offer(offer)), now).unwrap();
    }
    let Some(Action::Offer(offer)) = machine.action(now) else {
        panic!("an offer came")
    };
    assert_eq!(offer.leaf_index, 2);
    assert_eq!(machine.action(now), None);
}

#[test]
fn of_orders_and_of_what_is_asked_of_a_trial_the_newest_is_handed_on_and_one_thing_at_a_time() {
    let now = Instant::now();
    let mut machine = talking(0, now);
    let order = |number| Order {
        number,
        ..Order::default()
    };
    let confirm = |byte: u8| ConfirmTrial {
        statement_digest: vec![byte; 32].into(),
    };
    for number in 1..1000 {
        machine
            .received(Some(Inbound::Order(order(number))), now)
            .unwrap();
        let revert = Inbound::Revert(RevertTrial::default());
        machine.received(Some(revert), now).unwrap();
        machine.received(Some(Inbound::Confirm(confirm(1))), now).unwrap();
    }
    assert_eq!(machine.action(now), Some(Action::Order(order(999))));
    assert_eq!(
        machine.action(now),
        Some(Action::Obey(Asked::Confirm(confirm(1))))
    );
    machine.received(Some(Inbound::Confirm(confirm(2))), now).unwrap();
    assert_eq!(machine.action(now), None, "one is being done");
    machine.obeyed();
    assert_eq!(
        machine.action(now),
        Some(Action::Obey(Asked::Confirm(confirm(2))))
    );
    // An order from before an offer is not obeyed after it; one that comes behind it is.
    machine.received(Some(Inbound::Order(order(1000))), now).unwrap();
    let offer = PolicyOffer::default;
    machine.received(Some(Inbound::Offer(offer())), now).unwrap();
    assert_eq!(machine.action(now), Some(Action::Offer(offer())));
    assert_eq!(machine.action(now), None);
    machine.received(Some(Inbound::Offer(offer())), now).unwrap();
    machine.received(Some(Inbound::Order(order(1001))), now).unwrap();
    assert_eq!(machine.action(now), Some(Action::Offer(offer())));
    assert_eq!(machine.action(now), Some(Action::Order(order(1001))));
}

#[test]
fn of_a_flood_of_orders_a_few_are_obeyed_and_the_newest_within_seconds() {
    let began = Instant::now();
    let mut machine = talking(0, began);
    let mut obeyed = Vec::new();
    let mut now = began;
    for number in 1..=60_000 {
        let order = Order {
            number,
            ..Order::default()
        };
        machine.received(Some(Inbound::Order(order)), now).unwrap();
        machine.wake(now, codes(&[])).unwrap();
        while let Some(action) = machine.action(now) {
            match action {
                Action::Order(order) => obeyed.push(order.number),
                Action::Report => machine.reported(HealthReport::default(), now, 7),
                other => panic!("{other:?}"),
            }
        }
        machine.outgoing(now);
        now += Duration::from_millis(1);
    }
    assert!(
        obeyed.len() <= 8 + 6 && obeyed.starts_with(&[1, 2, 3, 4, 5, 6, 7, 8]),
        "{obeyed:?}"
    );
    let ends = now + ORDERS_EACH;
    while obeyed.last() != Some(&60_000) {
        now = machine.deadline();
        assert!(now <= ends, "{obeyed:?}");
        machine.wake(now, codes(&[])).unwrap();
        while let Some(action) = machine.action(now) {
            match action {
                Action::Order(order) => obeyed.push(order.number),
                Action::Report => machine.reported(HealthReport::default(), now, 7),
                other => panic!("{other:?}"),
            }
        }
        machine.outgoing(now);
    }
}

#[test]
fn of_a_flood_of_offers_a_few_are_looked_at_and_the_newest_and_its_order_within_seconds() {
    let began = Instant::now();
    let mut machine = talking(0, began);
    let mut now = began;
    let mut seen = Vec::new();
    let mut see = |machine: &mut SessionMachine, now| {
        while let Some(action) = machine.action(now) {
            match action {
                Action::Offer(offer) => seen.push((offer.leaf_index, false)),
                Action::Order(order) => seen.push((order.number, true)),
                Action::Report => machine.reported(HealthReport::default(), now, 7),
                other => panic!("{other:?}"),
            }
        }
        machine.outgoing(now);
        seen.clone()
    };
    for leaf_index in 1..=30_000 {
        let offer = PolicyOffer {
            leaf_index,
            ..PolicyOffer::default()
        };
        machine.received(Some(Inbound::Offer(offer)), now).unwrap();
        machine.wake(now, codes(&[])).unwrap();
        see(&mut machine, now);
        now += Duration::from_millis(1);
    }
    assert!(see(&mut machine, now).len() <= 16 + 6);
    // What follows the last one is obeyed after it, and not before.
    let order = Order {
        number: 30_001,
        ..Order::default()
    };
    machine.received(Some(Inbound::Order(order)), now).unwrap();
    let ends = now + OFFERS_EACH;
    while !see(&mut machine, now).ends_with(&[(30_000, false), (30_001, true)]) {
        now = machine.deadline();
        assert!(now <= ends);
        machine.wake(now, codes(&[])).unwrap();
    }
}

#[test]
fn a_coordinator_that_takes_nothing_is_given_up_after_the_time_to_send_and_one_that_acknowledges_nothing_after_its_own()
 {
    let began = Instant::now();
    let mut stuck = talking(0, began);
    stuck.outgoing(began);
    let mut waits = None;
    let (fault, now) = loop {
        let now = stuck.deadline();
        if let Err(fault) = stuck.wake(now, codes(&[])) {
            break (fault, now);
        }
        // Later reports take the place of the one that waits.
        while stuck.action(now) == Some(Action::Report) {
            stuck.reported(HealthReport::default(), now, 7);
            waits.get_or_insert(now);
        }
        assert!(now < began + 10 * SEND_TIMEOUT);
    };
    assert_eq!(
        (fault, Some(now)),
        (SessionFault::Stuck, waits.map(|at| at + SEND_TIMEOUT))
    );

    let mut mute = talking(3, began);
    assert_eq!(pump(&mut mute, 3, began), [0, 1, 2]);
    let mut now = began;
    let fault = loop {
        now = mute.deadline().max(now);
        if let Err(fault) = mute.wake(now, codes(&[])) {
            break fault;
        }
        pump(&mut mute, 3, now);
        assert!(now < began + 2 * ACK_TIMEOUT);
    };
    assert_eq!(fault, SessionFault::NoAck);
    assert!(now >= began + ACK_TIMEOUT && now <= began + ACK_TIMEOUT + LOOK);
}

#[test]
fn an_acknowledgement_that_says_nothing_new_is_a_sign_of_life() {
    let began = Instant::now();
    let mut machine = talking(3, began);
    pump(&mut machine, 3, began);
    for second in 1..200 {
        let now = began + Duration::from_secs(second);
        machine.received(ack(0), now).unwrap();
        machine.wake(now, codes(&[])).unwrap();
        pump(&mut machine, 3, now);
    }
    assert_eq!(machine.received(ack(3), began), Ok(()));
    assert_eq!(machine.action(began), Some(Action::Acknowledge(at(3))));
}

#[test]
fn a_spool_that_is_out_of_order_is_asked_again_each_second_and_holds_up_nothing_else() {
    let began = Instant::now();
    let mut machine = talking(0, began);
    machine.resumed(None);
    machine.outgoing(began);
    let (mut asked, mut reports) = (0, 0);
    let mut now = began;
    while now < began + Duration::from_secs(30) {
        now = machine.deadline();
        machine.wake(now, codes(&[])).unwrap();
        while let Some(action) = machine.action(now) {
            match action {
                Action::Resume(_) => {
                    asked += 1;
                    machine.resumed(None);
                }
                Action::Report => machine.reported(HealthReport::default(), now, 7),
                other => panic!("{other:?}"),
            }
        }
        reports += usize::from(matches!(machine.outgoing(now), Some(Outbound::Health(_))));
    }
    assert!((29..=31).contains(&asked), "{asked}");
    assert!(reports >= 2, "{reports}");
}

#[test]
fn a_fault_that_begins_or_ends_is_reported_at_once() {
    let now = Instant::now();
    let mut machine = talking(0, now);
    machine.outgoing(now);
    let later = now + LOOK;
    machine.wake(now, codes(&[])).unwrap();
    assert_eq!(machine.action(later), None);
    machine.wake(later, codes(&["no-forwarding"])).unwrap();
    assert_eq!(machine.action(later), Some(Action::Report));
    machine.reported(HealthReport::default(), later, 7);
    machine.wake(later, codes(&["no-forwarding"])).unwrap();
    assert_eq!(machine.action(later), None);
    machine.wake(later, codes(&[])).unwrap();
    assert_eq!(machine.action(later), Some(Action::Report));
}

#[test]
fn a_block_that_comes_while_the_trail_was_all_sent_goes_out_without_waiting_for_a_look() {
    let now = Instant::now();
    let mut machine = talking(2, now);
    assert_eq!(pump(&mut machine, 2, now), [0, 1]);
    assert_eq!(pump(&mut machine, 3, now), [0_u64; 0]);
    machine.trail_reaches(at(3));
    assert_eq!(pump(&mut machine, 3, now), [2]);
}

#[test]
fn each_list_of_withdrawn_keys_is_handed_on_in_turn_and_of_a_flood_few_are_looked_at() {
    let list = |number: u8| WithdrawnList {
        payload: vec![number].into(),
        ..WithdrawnList::default()
    };
    let now = Instant::now();
    let mut machine = talking(0, now);
    let taken = |machine: &mut SessionMachine, now| {
        let mut lists = Vec::new();
        while let Some(action) = machine.action(now) {
            if let Action::Withdrawn(list) = action {
                lists.extend(list.payload.to_vec());
            }
        }
        lists
    };
    taken(&mut machine, now);
    for number in 0..=u8::MAX {
        machine
            .received(Some(Inbound::Withdrawn(list(number))), now)
            .unwrap();
        let looked_at = u32::from(number) < LISTS_AT_ONCE;
        assert_eq!(
            taken(&mut machine, now),
            if looked_at { vec![number] } else { vec![] }
        );
    }
    // The newest waits its turn.
    let later = machine.deadline();
    assert!(later <= now + LISTS_EACH, "{:?}", later - now);
    assert_eq!(taken(&mut machine, now + LISTS_EACH), [u8::MAX]);
}

proptest! {
    #[test]
    fn whatever_comes_in_whatever_order_nothing_is_acknowledged_that_was_not_sent_and_the_machine_never_spins(
        steps in proptest::collection::vec((0u8..12, 0u64..40), 1..300),
    ) {
        let mut now = Instant::now();
        let mut machine = talking(20, now);
        let mut sent = 0;
        for (kind, number) in steps {
            match kind {
                0 => now += Duration::from_millis(number * 50),
                1 => { let _ = machine.received(ack(number), now); }
                2 => machine.policy_changed(PolicyState::default(), now),
                3 => machine.trail_reaches(at(20 + number)),
                4 => { let _ = machine.received(Some(Inbound::Offer(PolicyOffer::default())), now); }
                5 => if let Some(Outbound::Audit(block)) = machine.outgoing(now) {
                    prop_assert_eq!(block.sequence, sent, "in order, each once");
                    sent += 1;
                },
                6 => if let Err(fault) = machine.wake(now, codes(&[])) {
                    prop_assert!(matches!(fault, SessionFault::NoAck | SessionFault::Stuck));
                    return Ok(());
                } else {
                    prop_assert!(machine.deadline() > now || machine.action(now).is_some());
                },
                7 => { let _ = machine.received(Some(Inbound::Order(Order::default())), now); }
                8 => { let _ = machine.received(Some(Inbound::Revert(RevertTrial::default())), now); }
                9 => machine.obeyed(),
                10 => { let _ = machine.received(Some(Inbound::Withdrawn(WithdrawnList::default())), now); }
                _ => {
                    let mut actions = 0;
                    while let Some(action) = machine.action(now) {
                        actions += 1;
                        prop_assert!(actions < 10, "it asks for ever");
                        match action {
                            Action::Acknowledge(to) => prop_assert!(to.sequence <= sent),
                            Action::Read { from, count_max, .. } => {
                                let until = from.sequence + (count_max as u64).min(number);
                                machine.read(Some((from.sequence..until).map(block).collect()), now);
                            }
                            Action::Report => machine.reported(HealthReport::default(), now, number),
                            Action::Resume(_) => machine.resumed(Some(at(0))),
                            Action::Connected { .. } | Action::Offer(_) | Action::Order(_) | Action::Obey(_)
                            | Action::Withdrawn(_)
                            | Action::Trust(_) => {}
                        }
                    }
                }
            }
            prop_assert!(machine.blocks.len() <= READ_BLOCKS_MAX);
        }
    }
}
