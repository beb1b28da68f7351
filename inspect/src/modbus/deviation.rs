//! What a Modbus stream does that is no request and that enforcing does not let pass.

use super::frame::FrameError;
use super::response::ResponseError;
use crate::connection::{Deviation, DeviationKind};

/// Something that Modbus does not foresee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ModbusDeviation {
    /// A stream that cannot be followed.
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
    /// Something that enforcing would have withheld passed while it was only observed.
    #[error(
        "what passed while the zones only observed may be half read by the server, which would take what follows for its end"
    )]
    Unproven,
}

impl From<ModbusDeviation> for Deviation {
    fn from(what: ModbusDeviation) -> Self {
        let (kind, consequence) = match what {
            ModbusDeviation::Frame(error) => return Self::unreadable(&error),
            ModbusDeviation::Response(_) => (
                DeviationKind::Misfit,
                "an answer that does not fit is withheld; the client gets exception 4 instead",
            ),
            ModbusDeviation::NoLonger(_) => (
                DeviationKind::Other,
                "what it read is withheld; the client gets exception 1 instead",
            ),
            ModbusDeviation::Identifiers { .. } => (
                DeviationKind::OtherIdentifiers,
                "an answer under other identifiers is withheld; `answers: in-order` at the flow lets it pass",
            ),
            ModbusDeviation::Unasked { .. } => (
                DeviationKind::Misfit,
                "an answer that nobody asked for is withheld",
            ),
            ModbusDeviation::Ambiguous(_) | ModbusDeviation::Unanswered(_) | ModbusDeviation::Unproven => (
                DeviationKind::Other,
                "where the server reads on is not certain, and the connection ends; a new one begins with certainty",
            ),
        };
        Self::of(kind, &what, consequence)
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
