//! Connections that gateways counted by packets alone, seen from the wrong end: a verdict tells where a packet went, and of a connection
//! that stood before, the first packet may be an answer.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::talk::{Ends, Learned, PortCarrier, Talk};
use crate::capture::direction::is_service;

impl Learned {
    /// Leaves out what only answers the other end, by what that end opens to a service of its peer; how many packets they were. What
    /// goes to no service's port, and answers nothing known, is marked: who opened it is a guess.
    pub fn turn_answers(&mut self) -> u64 {
        let serving: BTreeSet<(IpAddr, IpAddr)> = self
            .talks
            .iter()
            .filter(|(ends, talk)| !is_in_doubt(ends, talk))
            .map(|(ends, _)| (ends.client, ends.server.ip()))
            .collect();
        let mut answers = 0;
        let packets = |talk: &Talk| talk.packets.map_or(0, |packets| packets.count);
        self.take(|ends, talk| {
            let answers_other = is_in_doubt(ends, talk) && serving.contains(&(ends.server.ip(), ends.client));
            answers += if answers_other { packets(talk) } else { 0 };
            answers_other
        });
        for (_, talk) in self
            .talks
            .iter_mut()
            .filter(|(ends, talk)| is_in_doubt(ends, talk))
        {
            talk.guessed = packets(talk);
        }
        answers
    }
}

/// Whether only verdicts tell of a connection, and its port is no service's.
fn is_in_doubt(ends: &Ends, talk: &Talk) -> bool {
    ends.carrier == PortCarrier::Tcp
        && talk.connections.count == 0
        && talk.packets.is_some()
        && !talk.is_read()
        && !is_service(ends.server.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;
    use crate::replay::Occurrences;

    fn counted(client: &str, server: &str, learned: &mut Learned) {
        let ends = Ends {
            client: client.parse().unwrap(),
            server: server.parse().unwrap(),
            carrier: PortCarrier::Tcp,
        };
        let mut talk = Talk::new(Duration::ZERO, None);
        talk.packets = Some(Occurrences {
            count: 7,
            ..Occurrences::once(Duration::ZERO)
        });
        learned.add(ends, talk);
    }

    #[test]
    fn answers_that_gateways_counted_are_no_flow_of_their_own() {
        let mut learned = Learned::default();
        counted("10.1.0.5", "10.2.0.9:44818", &mut learned);
        counted("10.2.0.9", "10.1.0.5:49152", &mut learned);
        counted("10.2.0.8", "10.1.0.5:49153", &mut learned);
        assert_eq!(learned.turn_answers(), 7);
        let left: Vec<(String, u64)> = learned
            .talks
            .iter()
            .map(|(ends, talk)| (ends.server.to_string(), talk.guessed))
            .collect();
        let expected = [("10.2.0.9:44818", 0), ("10.1.0.5:49153", 7)];
        assert_eq!(
            left,
            expected.map(|(server, guessed)| (server.to_owned(), guessed))
        );
    }
}
