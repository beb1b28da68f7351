//! What the inspector promises, as properties and examples.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod admission;
mod answers;
mod beyond_flows;
mod captures;
mod claimed;
mod conversations;
mod datagrams;
mod fragments;
mod frozen;
mod frozen_format;
mod granted;
mod judge_modbus;
mod kept;
mod last_metre;
mod learn_cases;
mod modbus_connection;
mod modbus_requests;
mod mqtt_connection;
mod mqtt_packets;
mod narrower;
mod observing;
mod odd_answers;
mod offline;
mod permitted_frames;
mod queries;
mod reassembly;
mod recorder;
mod recording;
mod resumed;
mod revoked;
mod sets;
mod smuggling;
mod subscriptions;
mod talks;
mod terms;
mod topics;
mod tshark;
mod unseen;
