//! Clients that could take over another one's session.

use super::{id, with_brokers};
use crate::check::{Severity, check};
use crate::compile::compile_all;
use crate::protocol::Permitted;
use crate::protocol::mqtt::MqttOperation;
use crate::waterworks::messages;

#[test]
fn a_flow_whose_clients_may_take_over_another_clients_session_is_found() {
    let found = |connect: Option<MqttOperation>| {
        let mut plant = with_brokers(messages);
        let flows = &mut plant.conduits.get_mut(&id("telemetry")).unwrap().flows;
        if let Some(list) = &mut flows.get_mut(&id("upwards")).unwrap().operations {
            list.permitted.extend(connect.map(Permitted::from));
        }
        let findings = check(&plant, &compile_all(&plant).unwrap(), None);
        let about = findings.into_iter().filter(|finding| finding.code == "PC0120");
        about
            .map(|finding| (finding.severity, finding.words))
            .collect::<Vec<_>>()
    };
    let connect = |client_ids: Option<&str>, users: Option<&str>| {
        let listed = |name: Option<&str>| name.map(|name| vec![name.to_owned()]);
        Some(MqttOperation::Connect {
            client_ids: listed(client_ids),
            users: listed(users),
        })
    };
    let warning = (
        Severity::Warning,
        "flow telemetry/upwards lets its clients connect under any identifier, also under another client's, whose \
         session the broker then hands over"
            .to_owned(),
    );
    assert_eq!(found(None), std::slice::from_ref(&warning));
    // A user says nothing of the session that is taken.
    assert_eq!(found(connect(None, Some("operator"))), [warning]);
    assert_eq!(found(connect(Some("pump-1"), None)), []);
}
