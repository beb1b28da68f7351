//! Which end of a logged packet is the client, where the packet does not prove it. Pure.
//!
//! The kernel's log shows a connection as connection tracking has it: whoever sent the first packet that was seen. Where
//! that was no opening (TCP without a SYN; any datagram), it is the server half the time.
//!
//! - A datagram that a server of the plan sends to its client is named as what it is.
//! - Of what would be denied otherwise, the end whose port belongs to a service, by the plan or by its well-known number, is
//!   taken for the server: learning wants the flow, not the packet. That is a guess, and its event says so.
//! - What was denied is never turned by a guess: who sends from a service's port must not be able to pose as its server.

use std::net::IpAddr;

use penstock_policy::document::services::services;
use penstock_policy::protocol::Carrier;

use super::nflog::{Content, KernelAction, LoggedPacket, Opener};

/// What is known of flows and their ports.
pub trait Flows {
    /// Whether a service of this IP protocol has this port.
    fn serves(&self, protocol: u8, port: u16) -> bool;
    /// Whether a rule of the plan in force permits a datagram.
    fn permits(&self, source: IpAddr, destination: IpAddr, port: u16) -> bool;
}

impl LoggedPacket {
    /// The packet as its client would have sent it.
    pub fn settled(mut self, flows: &impl Flows) -> Self {
        let own = std::mem::take(&mut self.own_port);
        let Content::Ip {
            source,
            destination,
            protocol,
            port,
            ..
        } = &mut self.content
        else {
            return self;
        };
        if own == 0 || destination.is_multicast() {
            return self;
        }
        let of_server = *protocol == 17
            && flows.permits(*destination, *source, own)
            && !flows.permits(*source, *destination, *port);
        self.opener = match self.logged {
            _ if of_server => Opener::ByPlan,
            KernelAction::WouldDeny if flows.serves(*protocol, *port) => Opener::Known,
            KernelAction::WouldDeny if flows.serves(*protocol, own) => Opener::ByPorts,
            KernelAction::WouldDeny if *protocol == 6 => Opener::Unknown,
            _ => Opener::Known,
        };
        if matches!(self.opener, Opener::ByPlan | Opener::ByPorts) {
            std::mem::swap(source, destination);
            std::mem::swap(&mut self.ingress, &mut self.egress);
            *port = own;
        }
        self
    }
}

/// Whether a service with a name has this port.
pub fn is_well_known(protocol: u8, port: u16) -> bool {
    let carrier = match protocol {
        6 => Carrier::Tcp,
        17 => Carrier::Udp,
        _ => return false,
    };
    services().any(|service| service.carrier == carrier && service.port == port)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows the named services, and one flow.
    struct OneFlow;

    impl Flows for OneFlow {
        fn serves(&self, protocol: u8, port: u16) -> bool {
            is_well_known(protocol, port)
        }

        fn permits(&self, source: IpAddr, destination: IpAddr, port: u16) -> bool {
            (source, destination, port) == (CLIENT, SERVER, 2222)
        }
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn seen(
        logged: KernelAction,
        protocol: u8,
        from: (IpAddr, u16),
        to: (IpAddr, u16),
    ) -> (LoggedPacket, IpAddr, u16) {
        let content = Content::Ip {
            source: from.0,
            destination: to.0,
            protocol,
            port: to.1,
            shape: crate::enforce::logged::nflog::PacketShape::Plain,
        };
        let packet = LoggedPacket {
            logged,
            flow: 0,
            ingress: 1,
            egress: 2,
            claim: None,
            content,
            own_port: from.1,
            opener: Opener::Known,
        }
        .settled(&OneFlow);
        let Content::Ip { source, port, .. } = packet.content else {
            panic!("not IP")
        };
        (packet, source, port)
    }

    #[test]
    fn what_a_server_sends_to_its_client_is_named_so_whatever_became_of_it() {
        for logged in [KernelAction::Deny, KernelAction::WouldDeny] {
            for port in [2222, 51_000] {
                let (packet, source, port) = seen(logged, 17, (SERVER, 2222), (CLIENT, port));
                assert_eq!((source, port, packet.opener), (CLIENT, 2222, Opener::ByPlan));
                assert_eq!((packet.ingress, packet.egress), (2, 1));
            }
        }
    }

    #[test]
    fn of_what_would_be_denied_the_end_with_a_services_port_is_taken_for_the_server() {
        let (packet, source, port) = seen(KernelAction::WouldDeny, 6, (SERVER, 44818), (CLIENT, 51_000));
        assert_eq!((source, port, packet.opener), (CLIENT, 44818, Opener::ByPorts));
        for (protocol, own_port, to, opener) in [
            (6, 0, 51_000, Opener::Known),
            (6, 51_000, 502, Opener::Known),
            (6, 7000, 51_000, Opener::Unknown),
            (17, 7000, 51_000, Opener::Known),
        ] {
            let (packet, source, port) = seen(
                KernelAction::WouldDeny,
                protocol,
                (SERVER, own_port),
                (CLIENT, to),
            );
            assert_eq!(
                (source, port, packet.opener),
                (SERVER, to, opener),
                "{own_port} {to}"
            );
        }
    }

    #[test]
    fn who_is_denied_does_not_pose_as_a_server_by_sending_from_a_services_port() {
        for (protocol, own_port) in [(17, 161), (6, 44818)] {
            let (packet, source, _) =
                seen(KernelAction::Deny, protocol, (SERVER, own_port), (CLIENT, 51_000));
            assert_eq!((source, packet.opener), (SERVER, Opener::Known));
        }
    }
}
