//! The payload of Sparkplug B, as its public specification describes it; of its fields those that a node of plain metrics needs.

/// A message.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Payload {
    #[prost(uint64, optional, tag = "1")]
    pub(super) timestamp: Option<u64>,
    #[prost(message, repeated, tag = "2")]
    pub(super) metrics: Vec<Metric>,
    #[prost(uint64, optional, tag = "3")]
    pub(super) seq: Option<u64>,
}

/// A metric with its value.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Metric {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(uint64, optional, tag = "3")]
    pub(super) timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    pub(super) datatype: Option<u32>,
    #[prost(oneof = "Wire", tags = "10, 11, 14, 15")]
    pub(super) value: Option<Wire>,
}

/// A value on the wire.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Wire {
    #[prost(uint32, tag = "10")]
    Int(u32),
    #[prost(uint64, tag = "11")]
    Long(u64),
    #[prost(bool, tag = "14")]
    Boolean(bool),
    #[prost(string, tag = "15")]
    String(String),
}

/// A value with its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Int64(u64),
    UInt32(u32),
    Boolean(bool),
    String(String),
}

impl Metric {
    pub(super) fn new(name: &str, value: &Value, timestamp: Option<u64>) -> Self {
        // The numbers of the specification's data types.
        let (datatype, value) = match value {
            Value::Int64(number) => (4, Wire::Long(*number)),
            Value::UInt32(number) => (7, Wire::Int(*number)),
            Value::Boolean(flag) => (11, Wire::Boolean(*flag)),
            Value::String(text) => (12, Wire::String(text.clone())),
        };
        Self {
            name: Some(name.to_owned()),
            timestamp,
            datatype: Some(datatype),
            value: Some(value),
        }
    }

    pub(super) fn is_true(&self) -> bool {
        self.value == Some(Wire::Boolean(true))
    }
}
