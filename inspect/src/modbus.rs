//! Modbus/TCP as the standard writes it, and nothing else (MODBUS Application Protocol V1.1b3, MODBUS
//! Messaging on TCP/IP V1.0b).
//!
//! - [`frame`]: MBAP header, one ADU off a stream.
//! - [`framings`]: how servers that go by the function cut the same bytes.
//! - [`request`]: what a client asks for, every length and quantity checked.
//! - [`response`]: whether an answer fits its request.
//! - [`transactions`]: which requests wait for an answer.
//! - [`operation`]: what a request does, in the field's words.
//! - [`judge`]: which rule permits it; [`objection`]: what stands against it; `refusal`: what a refusal looks like on the wire.
//! - [`deviation`]: what a stream does that is no request and does not go on.
//! - `query`, `learn`: how a request is asked about, and what is proposed for one.
//! - `machine`: one connection, from bytes to what becomes of them.
//!
//! Nothing is repaired or normalised: a request either has exactly the shape the standard gives it, or it is
//! an error that names the field. So what a destination executes is what was judged.

pub mod deviation;
pub mod frame;
pub mod framings;
pub mod judge;
mod learn;
pub(crate) mod machine;
pub mod objection;
pub mod operation;
mod query;
pub(crate) mod refusal;
pub mod request;
pub mod response;
pub mod transactions;

use std::fmt;
use std::time::Duration;

use penstock_policy::protocol::modbus_tcp::{MODBUS_TCP, ModbusOperation};
use penstock_policy::protocol::{Operations, Protocol};
use serde_json::value::RawValue;

use self::machine::{FrozenModbus, Modbus};
use crate::connection::ConnectionLimits;
use crate::connection::frozen::{ThawError, read};
use crate::connection::machine::{Machine, Terms};
use crate::judge::{Judge, Rules, RulesError};
use crate::learn::{EntryKey, EntrySeen, Lesson};
use crate::operation::Operation;
use crate::protocols::{Confirmation, Inspector};
use crate::query::{Query, QueryError, Words};

pub use deviation::ModbusDeviation;
pub use frame::{Frame, FrameError};
pub use judge::ModbusRules;
pub use operation::Span;
pub use request::{Request, RequestError};

/// How Modbus/TCP is read.
#[derive(Debug)]
pub(crate) struct ModbusTcp;

pub(crate) const INSPECTOR: &dyn Inspector = &ModbusTcp;

impl Inspector for ModbusTcp {
    fn protocol(&self) -> Protocol {
        MODBUS_TCP
    }

    fn compile(&self, lists: &[&Operations]) -> Result<Box<dyn Judge>, RulesError> {
        let all = lists.iter().flat_map(|operations| &operations.permitted);
        let all: Vec<ModbusOperation> = all.map(ModbusOperation::of).collect();
        Ok(Box::new(ModbusRules::compile(&all)?))
    }

    fn compile_within(
        &self,
        lists: &[(&Operations, Option<&Operations>)],
    ) -> Result<Box<dyn Judge>, RulesError> {
        let all = |list: &Operations| list.permitted.iter().map(ModbusOperation::of).collect::<Vec<_>>();
        let lists: Vec<_> = lists.iter().map(|(list, role)| (all(list), role.map(all))).collect();
        Ok(Box::new(ModbusRules::compile_within(&lists)?))
    }

    fn nothing(&self) -> Box<dyn Judge> {
        Box::new(ModbusRules::nothing())
    }

    fn machine(&self, terms: Terms) -> Box<dyn Machine> {
        Box::new(Modbus::new(terms))
    }

    fn frozen_as(&self) -> &'static str {
        "modbus"
    }

    fn thaw(&self, terms: Terms, frozen: &RawValue, now: Duration) -> Result<Box<dyn Machine>, ThawError> {
        Ok(Box::new(Modbus::thaw(terms, read(frozen)?, now)?))
    }

    fn unsent(&self, frozen: &RawValue) -> Result<[Vec<u8>; 2], ThawError> {
        Ok(read::<FrozenModbus>(frozen)?.unsent())
    }

    fn frozen_bytes_max(&self, limits: &ConnectionLimits) -> usize {
        machine::frozen_bytes_max(limits)
    }

    fn show(&self, operation: &Operation<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        operation::show(operation, f)
    }

    fn read(&self, name: &str, words: &mut Words<'_>) -> Option<Result<Query, QueryError>> {
        query::read(name, words)
    }

    fn example(&self) -> &'static str {
        query::EXAMPLE
    }

    fn learn(&self, operation: &Operation<'_>) -> Lesson {
        learn::lesson(operation)
    }

    fn confirmed_by(&self, operation: &Operation<'_>) -> Confirmation {
        learn::confirmed_by(operation)
    }

    fn is_opened_by(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while let Ok(Some(frame)) = frame::next(rest) {
            if Request::decode(frame.unit, frame.pdu).is_err() {
                return false;
            }
            rest = rest.get(frame.adu_bytes..).unwrap_or_default();
        }
        // Whole requests of a known function, and nothing else.
        rest.is_empty() && bytes.get(7).is_some_and(|code| *code <= 43)
    }

    fn permits(&self, rules: &Rules, key: &EntryKey, seen: &EntrySeen) -> bool {
        rules.of().is_some_and(|rules| learn::permits(rules, key, seen))
    }
}
