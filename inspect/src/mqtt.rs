//! MQTT 3.1.1 and 5 as the OASIS standards write them, and nothing else; and 3.1, which many PLCs speak, as 3.1.1 ([`connect`]).
//!
//! - [`wire`]: integers, strings and their rules.
//! - [`properties`]: MQTT 5 properties: which packet may carry which, how often, with which values.
//! - [`packet`]: fixed header and the packets that carry no operation.
//! - [`connect`], [`publish`], [`subscribe`]: the packets that do.
//! - [`topic`]: topic names and filters: valid, matches, covers.
//! - [`alias`]: MQTT 5 topic aliases of one direction.
//! - [`operation`]: what a packet does, in the field's words.
//! - [`judge`]: which rule permits it; `objection`: what stands against it; `refusal`: what a refusal looks like on the wire.
//! - [`deviation`]: what a stream does that is no operation and is not let be.
//! - `query`, `learn`: how an operation is asked about, and what is proposed for one.
//! - `machine`: one connection, from bytes to what becomes of them.
//!
//! Nothing is repaired or normalised. A packet either has the shape that the standard gives it in that version and
//! direction, or it is an error that names the rule. The payload of a publication is never held.

pub mod alias;
pub mod connect;
pub mod deviation;
pub mod judge;
mod learn;
pub(crate) mod machine;
pub(crate) mod objection;
pub mod operation;
pub mod packet;
pub mod properties;
pub mod publish;
mod query;
pub(crate) mod refusal;
pub mod subscribe;
pub mod topic;
mod version;
pub mod wire;

use std::fmt;
use std::time::Duration;

use penstock_policy::protocol::mqtt::{MQTT, MqttOperation};
use penstock_policy::protocol::{Operations, Protocol};
use serde_json::value::RawValue;

use self::judge::MqttRules;
use self::machine::{FrozenMqtt, Mqtt};
use crate::connection::{ConnectionLimits, Sender};
use crate::connection::frozen::{ThawError, read};
use crate::connection::machine::{Machine, Terms};
use crate::judge::{Judge, Rules, RulesError};
use crate::learn::{EntryKey, EntrySeen, Lesson};
use crate::operation::Operation as AnyOperation;
use crate::protocols::{Confirmation, Inspector};
use crate::query::{Query, QueryError, Words};

pub use connect::Connect;
pub use deviation::MqttDeviation;
pub use operation::Operation;
pub use packet::Packet;
pub use version::Version;
pub use publish::Publish;
pub use wire::MqttError;

/// How MQTT is read.
#[derive(Debug)]
pub(crate) struct MqttInspector;

pub(crate) const INSPECTOR: &dyn Inspector = &MqttInspector;

impl Inspector for MqttInspector {
    fn protocol(&self) -> Protocol {
        MQTT
    }

    fn compile(&self, lists: &[&Operations]) -> Result<Box<dyn Judge>, RulesError> {
        let read = |operations: &&Operations| MqttOperation::list(operations);
        let lists: Option<Vec<Vec<MqttOperation>>> = lists.iter().map(read).collect();
        let lists = lists.ok_or(RulesError::Unknown(MQTT))?;
        let lists: Vec<&[MqttOperation]> = lists.iter().map(Vec::as_slice).collect();
        Ok(Box::new(MqttRules::union(&lists)?))
    }

    fn nothing(&self) -> Box<dyn Judge> {
        Box::new(MqttRules::nothing())
    }

    fn machine(&self, terms: Terms) -> Box<dyn Machine> {
        Box::new(Mqtt::new(terms))
    }

    fn frozen_as(&self) -> &'static str {
        "mqtt"
    }

    fn thaw(&self, terms: Terms, frozen: &RawValue, _now: Duration) -> Result<Box<dyn Machine>, ThawError> {
        Ok(Box::new(Mqtt::thaw(terms, read(frozen)?)?))
    }

    fn unsent(&self, frozen: &RawValue) -> Result<[Vec<u8>; 2], ThawError> {
        read::<FrozenMqtt>(frozen)?.unsent().ok_or(ThawError::Refused)
    }

    fn frozen_bytes_max(&self, limits: &ConnectionLimits) -> usize {
        machine::frozen_bytes_max(limits)
    }

    fn left_behind(&self) -> Option<&'static str> {
        Some("an MQTT broker may publish the client's will")
    }

    fn show(&self, operation: &AnyOperation<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        operation::show(operation, f)
    }

    fn read(&self, name: &str, words: &mut Words<'_>) -> Option<Result<Query, QueryError>> {
        query::read(name, words)
    }

    fn example(&self) -> &'static str {
        query::EXAMPLE
    }

    fn wider_than(&self, operation: &AnyOperation<'_>) -> Option<&'static str> {
        let unnamed = operation.name == "connect" && operation.fact(operation::USERS).is_none();
        unnamed.then_some("it named no user, which an entry cannot ask for: this client may name any")
    }

    fn learn(&self, operation: &AnyOperation<'_>) -> Lesson {
        learn::lesson(operation)
    }

    fn confirmed_by(&self, operation: &AnyOperation<'_>) -> Confirmation {
        learn::confirmed_by(operation)
    }

    fn is_opened_by(&self, bytes: &[u8]) -> bool {
        let Ok(Some(header)) = packet::Header::decode(Sender::Client, bytes) else {
            return false;
        };
        let body = bytes.get(header.header_bytes..);
        let body = body.and_then(|body| body.get(..header.remaining));
        header.kind == packet::kind::CONNECT && body.is_some_and(|body| Connect::decode(body).is_ok())
    }

    fn permits(&self, rules: &Rules, key: &EntryKey, seen: &EntrySeen) -> bool {
        rules.of().is_some_and(|rules| learn::permits(rules, key, seen))
    }
}
