//! The order of packets: which may come when, and what one changes for those that follow.

use super::{Mqtt, Stage};
use crate::connection::Sender;
use crate::mqtt::packet::{Packet, kind};
use crate::mqtt::wire::MqttError;

impl Mqtt {
    /// Whether a packet of that type may come now (3.1, 3.2, 4.12).
    pub(super) fn in_order(&self, from: Sender, kind: u8) -> Result<(), MqttError> {
        let fits = match (self.stage, from) {
            (Stage::Connect, Sender::Client) => kind == kind::CONNECT,
            (Stage::Connect, Sender::Server) => false,
            (Stage::ConnAck, Sender::Server) => {
                kind == kind::CONNACK || (kind == kind::AUTH && self.extended_authentication)
            }
            (_, Sender::Client) => {
                kind != kind::CONNECT && (kind != kind::AUTH || self.extended_authentication)
            }
            (Stage::Open, Sender::Server) => {
                kind != kind::CONNACK && (kind != kind::AUTH || self.extended_authentication)
            }
        };
        if fits { Ok(()) } else { Err(MqttError::Order(kind)) }
    }

    /// What a packet changes for those that follow.
    pub(super) fn advance(&mut self, from: Sender, packet: &Packet<'_>) {
        match (from, packet) {
            (Sender::Client, Packet::Connect(connect)) => {
                self.version = connect.version;
                self.extended_authentication = connect.extended_authentication;
                self.server.aliases.permit(connect.topic_alias_maximum);
                self.is_resumed = !connect.clean_start;
                self.is_session_untold = !connect.tells_session;
                self.stage = Stage::ConnAck;
            }
            (Sender::Server, Packet::ConnAck(answer)) => {
                self.client.aliases.permit(answer.topic_alias_maximum);
                self.stage = Stage::Open;
                if answer.code == 0 {
                    // Where the answer does not say it, what the client asked for counts.
                    let may_be_resumed = self.is_session_untold && self.is_resumed;
                    self.welcomed(answer.session_present || may_be_resumed);
                }
            }
            _ => {}
        }
    }
}
