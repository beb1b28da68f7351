#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use penstock_inspect::connection::Sender;
use penstock_inspect::mqtt::packet::Header;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A broker that keeps what is retained, and an account of what it was sent.
struct World {
    machine: ScadaMachine,
    now: Instant,
    connected: bool,
    retained: std::collections::BTreeMap<String, Vec<u8>>,
    /// Identifiers that wait for an acknowledgement.
    owed: Vec<u16>,
    published: Vec<(Instant, Vec<u8>)>,
    connects: bool,
}

fn document(state: u8, count: u8) -> Document {
    Document {
        text: vec![state, count],
        key: vec![state],
    }
}

fn welcome() -> Welcome {
    Welcome {
        reason: 0,
        session_present: false,
        receive_maximum: 1,
        packet_bytes_max: 1000,
        qos_max: 2,
        retain_available: true,
        keep_alive_s: None,
    }
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            machine: ScadaMachine::new(
                Topics::of("penstock", "p", "g"),
                now,
                Backoff::between(SECOND, SECOND),
            ),
            now,
            connected: false,
            retained: std::collections::BTreeMap::new(),
            owed: Vec::new(),
            published: Vec::new(),
            connects: true,
        }
    }

    fn take(&mut self, fact: Fact<'_>) {
        let moment = Moment {
            instant: self.now,
            ms: 0,
        };
        self.machine.take(fact, moment);
        self.act();
    }

    fn act(&mut self) {
        while let Some(action) = self.machine.action() {
            match action {
                Action::Connect { clean_start } => {
                    assert!(clean_start);
                    let outcome = if self.connects {
                        self.connected = true;
                        Ok(welcome())
                    } else {
                        Err(ConnectionError::Closed)
                    };
                    self.take(Fact::Opened { outcome, random: 0 });
                }
                Action::Send(bytes) => self.hear(&bytes),
                Action::Close(goodbye) => self.left(goodbye.is_none_or(|goodbye| goodbye.reason != 0)),
                Action::Report(_) => {}
                Action::Own(nothing) => match nothing {},
            }
        }
    }

    /// The connection is over: without a goodbye the broker publishes the will.
    fn left(&mut self, by_will: bool) {
        if std::mem::take(&mut self.connected) && by_will {
            self.retained
                .insert("penstock/p/gateway/g/online".to_owned(), OFFLINE.to_vec());
        }
        self.owed.clear();
    }

    fn hear(&mut self, mut bytes: &[u8]) {
        while let Some(header) = Header::decode(Sender::Client, bytes).unwrap() {
            let body = &bytes[header.header_bytes..header.header_bytes + header.remaining];
            if header.kind == kind::PUBLISH {
                let Packet::Publish(said) = packet::read(header, body).unwrap() else {
                    panic!("it is a publication");
                };
                assert!(said.retain);
                self.retained.insert(said.topic.to_owned(), said.payload.to_vec());
                if said.qos > 0 {
                    self.owed.push(said.identifier);
                    assert_eq!(self.owed.len(), 1, "one is under way at a time");
                }
                if said.topic.ends_with("/health") {
                    self.published.push((self.now, said.payload.to_vec()));
                }
            }
            bytes = &bytes[header.header_bytes + header.remaining..];
        }
    }

    fn acknowledge(&mut self, reason: u8) {
        for identifier in std::mem::take(&mut self.owed) {
            let kind = kind::PUBACK;
            self.take(Fact::Packet(Packet::Acknowledge {
                kind,
                identifier,
                reason,
            }));
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.take(Fact::TimePassed);
    }

    fn held(&self, topic: &str) -> Option<&[u8]> {
        let held = self.retained.get(&format!("penstock/p/gateway/g/{topic}"));
        held.map(Vec::as_slice)
    }
}

#[test]
fn online_is_said_first_and_then_each_new_state_at_once_and_counts_with_the_next_refresh() {
    let mut world = World::new();
    world.take(Fact::Own(document(1, 0)));
    assert_eq!((world.held("online"), world.held("health")), (Some(ONLINE), None));
    world.acknowledge(0);
    assert_eq!(world.held("health"), Some(&[1, 0][..]));
    world.acknowledge(0);
    world.take(Fact::Own(document(1, 9)));
    world.pass(5 * SECOND);
    assert_eq!(world.held("health"), Some(&[1, 0][..]), "counts alone wait");
    world.take(Fact::Own(document(2, 9)));
    assert_eq!(world.held("health"), Some(&[2, 9][..]));
    // Not acknowledged: newer ones wait, and only the newest goes.
    for state in 3..9 {
        world.take(Fact::Own(document(state, 0)));
        world.pass(SECOND);
    }
    assert_eq!(world.published.len(), 2);
    world.acknowledge(0);
    assert_eq!(world.held("health"), Some(&[8, 0][..]));
    world.acknowledge(0);
    world.take(Fact::Own(document(8, 77)));
    world.pass(REFRESH);
    assert_eq!(world.held("health"), Some(&[8, 77][..]));
}

#[test]
fn a_stop_says_offline_a_refusal_leaves_it_to_the_will_and_a_silent_broker_is_left() {
    let mut world = World::new();
    world.take(Fact::Own(document(1, 0)));
    world.acknowledge(0);
    world.take(Fact::Stopping { forget: true });
    assert_eq!(world.held("online"), Some(OFFLINE));
    assert!(world.machine.is_over());

    let mut world = World::new();
    world.take(Fact::Own(document(1, 0)));
    world.acknowledge(0x87);
    assert!(!world.connected);
    assert_eq!(world.held("online"), Some(OFFLINE));

    let mut world = World::new();
    world.take(Fact::Own(document(1, 0)));
    world.pass(ACKNOWLEDGED_WITHIN);
    assert_eq!(world.held("online"), Some(OFFLINE));
    world.pass(SECOND);
    assert_eq!(world.held("online"), Some(ONLINE), "it comes again");
}

proptest! {
    #[test]
    fn whatever_happens_a_broker_that_answers_ends_up_with_the_newest_state(
        events in prop::collection::vec((0_u8..6, 0_u8..4), 0..120),
    ) {
        let mut world = World::new();
        let mut newest = document(0, 0);
        world.take(Fact::Own(newest.clone()));
        for (event, value) in events {
            match event {
                0 => {
                    newest = document(value, value);
                    world.take(Fact::Own(newest.clone()));
                }
                1 => world.acknowledge(if value == 3 { 0x97 } else { 0 }),
                2 => world.pass(SECOND * u32::from(value) * 5),
                3 if world.connected => {
                    world.left(true);
                    world.take(Fact::Broke(ConnectionError::Closed));
                }
                4 => world.connects = value != 0,
                _ => world.pass(SECOND / 3),
            }
        }
        world.connects = true;
        for _ in 0..40 {
            world.pass(SECOND);
            world.acknowledge(0);
        }
        prop_assert_eq!(world.held("online"), Some(ONLINE));
        prop_assert_eq!(world.held("health"), Some(newest.text.as_slice()));
    }
}
