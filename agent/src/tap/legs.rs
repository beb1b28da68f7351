//! The gateway's own connections to servers in the plain, behind TLS that ends here: nobody's talk, and nothing to declare.
//!
//! The tap sees what is received. Of such a connection these are the server's answers alone, since the requests are the gateway's own; of
//! a client that really speaks in the plain to the same port it hears the client, too. So an answer from such a port counts once its client
//! was heard, by its own port. Pure, and bounded.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use penstock_policy::plan::{Endpoint, Plan};

/// Clients that are remembered; of more the first is forgotten, and until it is heard again its answers are no talk.
const HEARD_MAX: usize = 256;

/// Where the gateway itself speaks in the plain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PlainLegs {
    clients: Vec<IpNet>,
    servers: Vec<IpNet>,
    port: u16,
}

/// The gateway's own connections, and the clients beside them.
#[derive(Debug, Clone, Default)]
pub struct OwnLegs {
    legs: Vec<PlainLegs>,
    heard: VecDeque<(SocketAddr, SocketAddr)>,
}

impl OwnLegs {
    /// Those of `plan`.
    pub fn of(plan: &Plan) -> Self {
        let networks = |ends: &[Endpoint]| ends.iter().map(|end| end.network).collect();
        let legs = plan.rules.iter().filter_map(|rule| {
            Some(PlainLegs {
                port: rule.plain_port()?,
                clients: networks(&rule.sources),
                servers: networks(&rule.destinations),
            })
        });
        Self {
            legs: legs.collect(),
            heard: VecDeque::new(),
        }
    }

    /// Goes on with those of another plan; who was heard is known still.
    pub fn replace(&mut self, other: Self) {
        self.legs = other.legs;
    }

    fn may_be(&self, client: SocketAddr, server: SocketAddr) -> bool {
        let within =
            |networks: &[IpNet], address: IpAddr| networks.iter().any(|network| network.contains(&address));
        let mut legs = self.legs.iter().filter(|leg| leg.port == server.port());
        legs.any(|leg| within(&leg.clients, client.ip()) && within(&leg.servers, server.ip()))
    }

    /// Whether a packet that was received belongs to a connection of the gateway's own.
    pub fn own(&mut self, from: SocketAddr, to: SocketAddr) -> bool {
        if self.legs.is_empty() {
            return false;
        }
        if self.may_be(from, to) {
            if !self.heard.contains(&(from, to)) {
                if self.heard.len() >= HEARD_MAX {
                    self.heard.pop_front();
                }
                self.heard.push_back((from, to));
            }
            return false;
        }
        self.may_be(to, from) && !self.heard.contains(&(to, from))
    }
}
