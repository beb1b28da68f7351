//! Runs a connection and writes down all that comes out of it.

use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::connection::{Connection, ConnectionLimits, DeviationKind, Mode, Output, Sender};
use penstock_inspect::judge::{OnRefusal, Rules};
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::modbus_tcp::ModbusOperation;
use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::NumberRange;

/// Everything that came out.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) to_server: Vec<u8>,
    pub(crate) to_client: Vec<u8>,
    /// Operations and verdicts in words.
    pub(crate) judged: Vec<String>,
    pub(crate) noted: Vec<String>,
    pub(crate) closed: Option<bool>,
    /// Deviations that were only told.
    pub(crate) foretold: usize,
    /// Observing, the stream was lost: where it is read again depends on how it is cut, and is not written down.
    pub(crate) lost: bool,
}

impl Record {
    pub(crate) fn take(&mut self, output: Output<'_>) {
        assert!(self.closed.is_none(), "output after the end");
        if self.lost
            && !matches!(
                output,
                Output::ToServer(_) | Output::ToClient(_) | Output::Close { .. }
            )
        {
            return;
        }
        match output {
            Output::ToServer(bytes) => self.to_server.extend_from_slice(bytes),
            Output::ToClient(bytes) => self.to_client.extend_from_slice(bytes),
            Output::Judged {
                operation,
                verdict,
                forwarded,
            } => {
                // What is told as allowed has gone on.
                assert!(forwarded || !verdict.allows(), "{operation}: {verdict:?}");
                self.judged.push(format!("{operation}: {verdict:?} {forwarded}"));
            }
            Output::Exception { asked, refusal } => self.judged.push(format!("{refusal} to {asked}")),
            Output::Deviation { what, effect, done } => {
                self.noted.push(format!("{what}: {}", effect.word()));
                self.foretold += usize::from(!done);
                self.lost = !done && what.kind() == DeviationKind::Unreadable;
            }
            Output::Resynchronised { .. } | Output::Answered { .. } => {}
            Output::Close { reset } => self.closed = Some(reset),
        }
    }
}

pub(crate) fn connection(operations: &Operations, mode: Mode, on_refusal: OnRefusal) -> Connection {
    let rules = Arc::new(Rules::compile(operations).unwrap());
    Connection::new(rules, mode, on_refusal, ConnectionLimits::default())
}

/// Feeds chunks in order, all at the same moment.
pub(crate) fn run(mut connection: Connection, chunks: &[(Sender, Vec<u8>)]) -> (Record, Connection) {
    let mut record = Record::default();
    for (from, bytes) in chunks {
        connection.feed(*from, Duration::ZERO, bytes, &mut |output| record.take(output));
    }
    (record, connection)
}

/// Cuts each chunk at the given places (taken modulo its length).
pub(crate) fn cut(chunks: &[(Sender, Vec<u8>)], cuts: &[usize]) -> Vec<(Sender, Vec<u8>)> {
    let mut out = Vec::new();
    for (from, bytes) in chunks {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        for pair in at.windows(2) {
            out.push((*from, bytes[pair[0]..pair[1]].to_vec()));
        }
    }
    out
}

pub(crate) fn range(first: u32, last: u32) -> NumberRange {
    NumberRange { first, last }
}

pub(crate) fn function(name: &str) -> ModbusOperation {
    ModbusOperation {
        function: name.to_owned(),
        units: None,
        addresses: None,
        read_addresses: None,
        values: None,
        sub_functions: None,
    }
}

pub(crate) fn modbus(list: Vec<ModbusOperation>) -> Operations {
    Operations::from(list)
}

pub(crate) fn publish(topics: &[&str], qos: (u32, u32), retain: bool) -> MqttOperation {
    MqttOperation::Publish {
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        qos: range(qos.0, qos.1),
        retain,
    }
}

pub(crate) fn subscribe(topics: &[&str]) -> MqttOperation {
    MqttOperation::Subscribe {
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        qos: range(0, 2),
    }
}

/// An MQTT connection (3.1.1 or 5) that another process left open, and whose CONNECT it had not seen.
pub(crate) fn resumed(rules: Arc<Rules>, mode: Mode, version: u8) -> Connection {
    let half = r#"{"held":"","payload":null,"queue":"","alias_maximum":65535,"aliases":{},"unreleased":[]}"#;
    let version = if version == 4 { "V311" } else { "V5" };
    let frozen = format!(
        r#"{{"format":1,"state":{{"mqtt":{{"stage":"open","version":"{version}","extended_authentication":true,"identity":null,"client":{half},"server":{half},"is_resumed":true}}}}}}"#
    );
    let limits = ConnectionLimits::default();
    Connection::thaw(
        frozen.as_bytes(),
        Duration::ZERO,
        rules,
        mode,
        OnRefusal::Answer,
        limits,
    )
    .unwrap()
}
