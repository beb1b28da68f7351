//! How inspected connections end, and the words for it.

use std::borrow::Cow;
use std::io::{Error, ErrorKind};

use penstock_inspect::connection::Sender;
use penstock_inspect::protocols;

use super::super::handshake;
use super::Session;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ConnectionEnd {
    /// Both sides ended it.
    Finished,
    /// A side reset it.
    Lost(Sender),
    /// A side no longer answers: its machine or the way to it is down.
    Vanished(Sender),
    /// The inspector ended it for what was sent.
    Refused,
    /// The policy no longer permits it.
    Revoked,
    /// The key of a side no longer counts.
    Withdrawn(Sender),
    /// The policy no longer permits it, and what the agent before left of it cannot be read.
    Unreadable,
    /// The policy now limits operations of a connection that was not followed from its beginning.
    Unfollowed,
    /// The agent stops, and the connection is inside TLS.
    Stopped,
    /// Others want its seat.
    Crowded,
    /// Too much is held, most of it for this client.
    Heavy,
}

impl ConnectionEnd {
    /// The end that an error on one side's socket means.
    pub(super) fn by(side: Sender, error: &Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                Self::Vanished(side)
            }
            _ => Self::Lost(side),
        }
    }

    /// As it stands in the trail.
    pub(in super::super) fn words(self) -> Cow<'static, str> {
        let words = match self {
            Self::Finished => "connection ended",
            Self::Lost(Sender::Client) => "connection reset by the client",
            Self::Lost(Sender::Server) => "connection reset by the server",
            Self::Vanished(Sender::Client) => {
                "connection reset: the client no longer answers; its machine or the way to it is down"
            }
            Self::Vanished(Sender::Server) => {
                "connection reset: the server no longer answers; its machine or the way to it is down"
            }
            Self::Refused => "connection ended by the gateway after a refusal",
            Self::Revoked => "connection reset: the policy no longer permits it",
            Self::Withdrawn(Sender::Client) => "connection reset: the client's key was withdrawn",
            Self::Withdrawn(Sender::Server) => "connection reset: the server's key was withdrawn",
            Self::Unreadable => {
                return protocols::without_leave(
                    "connection reset: the policy no longer permits it, and it was not followed to here",
                )
                .into();
            }
            Self::Unfollowed => {
                return protocols::without_leave(
                    "connection ended: the policy now limits its operations, and it was not followed without a gap from its beginning",
                ).into();
            }
            Self::Crowded => {
                "connection reset: all seats of the inspector are taken, and this client held the most of them in this flow, or sent no complete request on it (inspect.connections_max in agent.toml)"
            }
            Self::Heavy => {
                "connection reset: the inspector holds as many bytes of unfinished packets as it may, this client's connections \
                 held the most of them, and this one the most of those (inspect.held_bytes_max in agent.toml)"
            }
            Self::Stopped => {
                "connection closed cleanly: the agent is stopping, and connections inside TLS cannot be handed over; the client has to reconnect"
            }
        };
        words.into()
    }
}

impl Session {
    /// How it ended, in words.
    pub(in super::super) fn last_words(&self, end: ConnectionEnd) -> String {
        let because = match end {
            ConnectionEnd::Lost(Sender::Client) => self.client.leg.failure().map(handshake::client_failed),
            ConnectionEnd::Lost(Sender::Server) => self.server.leg.failure().map(handshake::server_failed),
            _ => None,
        };
        because.map_or_else(
            || end.words().into_owned(),
            |because| format!("connection reset: {because}"),
        )
    }
}
