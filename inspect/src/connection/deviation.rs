//! What a stream does that its protocol does not foresee, and what enforcing makes of it.
//!
//! Beside refusing operations this is all by which an enforced stream differs from what was sent. A stream that is
//! only observed passes as it is; then a deviation foretells what enforcing would change.

use crate::modbus::frame::FrameError;
use crate::modbus::response::ResponseError;
use crate::mqtt::machine::Revocation;
use crate::mqtt::wire::MqttError;

/// What enforcing does about a deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// The packet does not reach its receiver.
    Withheld,
    /// The connection ends.
    Ended,
}

impl Effect {
    /// As a word: what is done to it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Withheld => "withheld",
            Self::Ended => "ended",
        }
    }
}

/// Something that enforcing does not let pass and that is no operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Deviation {
    /// A Modbus stream that cannot be followed.
    #[error("{0}")]
    Frame(FrameError),
    /// An answer that does not fit its request; the client gets an exception instead.
    #[error("{0}")]
    Response(ResponseError),
    /// The answer to a request that the policy no longer permits.
    #[error(
        "the answer to function {0}, which was asked before the policy changed and is no longer permitted"
    )]
    NoLonger(u8),
    /// An answer that fits the one request in flight, under other identifiers.
    #[error("an answer carries {} than the request that it follows", other(*.transaction, *.unit))]
    Identifiers {
        /// Another transaction identifier.
        transaction: bool,
        /// Another unit identifier.
        unit: bool,
    },
    /// An answer to nothing that was asked.
    #[error("an answer to transaction {transaction} of unit {unit}, which nobody asked")]
    Unasked {
        /// Transaction identifier.
        transaction: u16,
        /// Unit identifier.
        unit: u8,
    },
    /// A server that goes by the function may stand elsewhere in the stream, and would read this function there; `None`: it
    /// may stand anywhere.
    #[error("{}", ambiguous(*.0))]
    Ambiguous(Option<u8>),
    /// A request of whose length servers may think otherwise was not answered.
    #[error("function {0}, on whose length servers do not agree, was not answered before the next request")]
    Unanswered(u8),
    /// An MQTT packet that is wrong.
    #[error("{0}")]
    Packet(MqttError),
    /// A side ended within a packet. Its beginning does not go on.
    #[error("a packet is not whole when its sender ends the connection")]
    CutShort,
    /// A packet had gone on in part while it was only observed, and cannot be withheld any more.
    #[error("a packet that was on its way when enforcement began is refused")]
    HalfThrough,
    /// More refusals wait to be told than the limit, since a peer takes nothing or the broker does not answer.
    #[error("a peer takes nothing or answers nothing, and too much waits for it")]
    Overflow,
    /// The policy no longer permits something that this client has.
    #[error("{}", .0.words())]
    Revoked(Revocation),
    /// PUBREL for what an earlier connection of its session published, of a client that may publish nothing at QoS 2 any more.
    #[error(
        "a publication of an earlier connection (packet identifier {0}) is to be released, by a client that may publish nothing \
         at QoS 2"
    )]
    Release(u16),
    /// The client's will stays with the broker, although the policy no longer permits it.
    #[error(
        "the broker may publish this client's will, which the policy no longer permits: the connection ends within a large publication, where the broker cannot be informed"
    )]
    WillRemains,
    /// A will that was not seen stays with the broker.
    #[error(
        "the broker may publish a will of this client, which the gateway never saw: its CONNECT was before the connection was \
         read, and it ends where the broker cannot be informed"
    )]
    WillUnknown,
}

impl Deviation {
    /// What enforcing does about it, as the reason of a denial.
    pub fn consequence(&self) -> &'static str {
        match self {
            Self::Frame(_) | Self::Packet(_) => {
                "what cannot be read as the protocol is not forwarded, and the connection ends"
            }
            Self::Response(_) => {
                "an answer that does not fit is withheld; the client gets exception 4 instead"
            }
            Self::NoLonger(_) => "what it read is withheld; the client gets exception 1 instead",
            Self::Identifiers { .. } => {
                "an answer under other identifiers is withheld; `answers: in-order` at the flow lets it pass"
            }
            Self::Unasked { .. } => "an answer that nobody asked for is withheld",
            Self::Ambiguous(_) | Self::Unanswered(_) => {
                "where the server reads on is not certain, and the connection ends; a new one begins with certainty"
            }
            Self::CutShort => "a packet that is not whole is withheld",
            Self::HalfThrough => "its rest is not forwarded, and the connection is reset",
            Self::Overflow => "nothing more is kept for it, and the connection ends",
            Self::Revoked(_) => {
                "the connection ends; the broker does not publish a will that is not permitted"
            }
            Self::Release(_) => {
                "it is not released; the client is answered that nothing of that identifier is known"
            }
            Self::WillRemains | Self::WillUnknown => "the connection is reset",
        }
    }

    /// The option of a flow that would let it pass.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Identifiers { .. } => Some("answers: in-order"),
            _ => None,
        }
    }
}

fn ambiguous(code: Option<u8>) -> String {
    match code {
        Some(code) => format!(
            "after a function that it did not carry out, the server may read function {code} out of this request, which \
             is not what it says"
        ),
        None => "the server refused many functions on whose length servers do not agree".to_owned(),
    }
}

fn other(transaction: bool, unit: bool) -> &'static str {
    match (transaction, unit) {
        (true, true) => "another transaction and another unit identifier",
        (true, false) => "another transaction identifier",
        (false, _) => "another unit identifier",
    }
}
