//! What a flow may do inside its protocol, more or less than before.

use super::*;

#[test]
fn more_and_less_inside_the_protocol_are_told_apart() {
    let limits = |last| {
        said(|plant| {
            flow(plant, "control-room-to-pumps", "polling").operations =
                Some(Operations::from(vec![operation(
                    "read-holding-registers",
                    (0, last),
                )]));
        })
    };
    let wider = "flow control-room-to-pumps/polling widened: read-holding-registers: addresses 0-199 → 0-299: \
                 200-299 may also be read by historian and hmi-1 on plc-7\n";
    assert!(limits(299).starts_with(wider), "{}", limits(299));
    let narrower = "flow control-room-to-pumps/polling narrowed: read-holding-registers: addresses 0-199 → 0-99: \
                    100-199 may no longer be read by historian and hmi-1 on plc-7\n";
    assert!(limits(99).starts_with(narrower), "{}", limits(99));
    assert_eq!(limits(199), "Nothing changes.");
    let unlimited = said(|plant| flow(plant, "control-room-to-pumps", "polling").operations = None);
    assert!(
        unlimited.contains("polling widened: anything is permitted (before: only"),
        "{unlimited}"
    );
}

/// What is said when the polling flow's operations change from these to those.
fn operations_said(before: Operations, after: Operations) -> String {
    let mut old = waterworks();
    let mut new = waterworks();
    flow(&mut old, "control-room-to-pumps", "polling").operations = Some(before);
    flow(&mut new, "control-room-to-pumps", "polling").operations = Some(after);
    let text = diff(Some(&old), &new).unwrap().to_string();
    let line = text.lines().next().unwrap().to_owned();
    line.replace("flow control-room-to-pumps/polling ", "")
        .replace(" by historian and hmi-1 on plc-7", "")
}

#[test]
fn ranges_that_change_are_named_with_what_they_come_to() {
    let holding = |ranges: &[(u32, u32)]| {
        let each = ranges
            .iter()
            .map(|range| operation("read-holding-registers", *range));
        Operations::from(each.collect::<Vec<_>>())
    };
    let one = |change: fn(&mut crate::protocol::modbus_tcp::ModbusOperation)| {
        let mut write = operation("write-single-register", (40, 43));
        change(&mut write);
        Operations::from(vec![write])
    };
    for (before, after, said) in [
        (
            holding(&[(0, 199)]),
            holding(&[(100, 299)]),
            "altered: read-holding-registers: addresses 0-199 → 100-299: 0-99 may no longer be read, 200-299 may also be read",
        ),
        (
            holding(&[(0, 199)]),
            holding(&[(0, 99), (150, 199)]),
            "narrowed: may no longer read-holding-registers (unit 1, addresses 0-199)",
        ),
        (
            holding(&[(0, 199)]),
            holding(&[(0, 99), (100, 199)]),
            "narrowed: may no longer read-holding-registers (unit 1, addresses 0-199) in one request",
        ),
        (
            one(|_| ()),
            one(|write| write.values = Some(vec![NumberRange { first: 0, last: 1000 }])),
            "narrowed: write-single-register: values any → 0-1000: values 1001-65535 may no longer be written",
        ),
        (
            one(|_| ()),
            one(|write| write.units = Some(vec![NumberRange { first: 1, last: 2 }])),
            "widened: write-single-register: units 1 → 1-2: unit 2 may also be asked",
        ),
        (
            one(|_| ()),
            one(|write| write.addresses = None),
            "widened: write-single-register: addresses 40-43 → any: 0-39, 44-65535 may also be written",
        ),
        (
            one(|write| write.function = "read-write".to_owned()),
            one(|write| write.function = "read-only".to_owned()),
            "narrowed: may no longer read-write (unit 1, addresses 40-43)",
        ),
        (
            one(|write| write.function = "read-write".to_owned()),
            one(|write| {
                write.function = "read-write".to_owned();
                write.addresses = Some(vec![NumberRange { first: 41, last: 43 }]);
            }),
            "narrowed: read-write: addresses 40-43 → 41-43: 40 may no longer be read or written",
        ),
    ] {
        assert_eq!(operations_said(before, after), said);
    }
}

#[test]
fn topics_and_clients_that_change_are_named() {
    let list = |topics: &[&str]| topics.iter().map(|topic| publish(topic)).collect::<Vec<_>>();
    let connect = |ids: &[&str]| crate::protocol::mqtt::MqttOperation::Connect {
        client_ids: Some(ids.iter().map(|id| (*id).to_owned()).collect()),
        users: None,
    };
    let with = |topics: &[&str], connects: Option<&[&str]>| {
        let mut list = list(topics);
        list.extend(connects.map(connect));
        Operations::from(list)
    };
    for (before, after, said) in [
        (
            with(&["line4/#"], None),
            with(&["line4/+/pressure"], None),
            "narrowed: line4/# may no longer be published at QoS 0-1 beyond line4/+/pressure",
        ),
        (
            with(&["line4/a"], None),
            with(&["line4/+"], None),
            "widened: line4/+ may also be published at QoS 0-1 beyond line4/a",
        ),
        // Who may connect is limited as soon as one entry says so.
        (
            with(&["a"], None),
            with(&["a"], Some(&["pump"])),
            "narrowed: any client may no longer connect",
        ),
        (
            with(&["a"], Some(&["pump"])),
            with(&["a"], None),
            "widened: any client may also connect",
        ),
        (
            with(&["a"], Some(&["pump"])),
            with(&["a"], Some(&["pump", "fan"])),
            "widened: client pump or fan may also connect",
        ),
        (
            with(&["a", "b"], None),
            with(&["+"], None),
            "widened: + may also be published at QoS 0-1 beyond a, b",
        ),
    ] {
        assert_eq!(operations_said(before, after), said);
    }
}

#[test]
fn a_filter_covers_another_only_if_no_topic_tells_them_apart() {
    let topics = [
        "a", "a/b", "a/b/c", "b", "/", "/a", "a/", "$SYS", "$SYS/a", "a/$x",
    ];
    let filters = [
        "#", "+", "+/+", "+/#", "a", "a/#", "a/+", "a/+/#", "a/b", "a/b/#", "+/b", "$SYS/#", "$SYS/+", "/+",
        "a/",
    ];
    for outer in filters {
        for inner in filters {
            let told_apart = topics
                .iter()
                .find(|topic| matches(inner, topic) && !matches(outer, topic));
            if crate::protocol::mqtt::filter_covers(outer, inner) {
                assert_eq!(told_apart, None, "{outer} covers {inner}");
            }
        }
    }
    for (outer, inner) in [
        ("#", "a/+"),
        ("a/#", "a"),
        ("+/#", "+"),
        ("+/#", "#"),
        ("a/+", "a/b"),
        ("$SYS/#", "$SYS/+"),
    ] {
        assert!(
            crate::protocol::mqtt::filter_covers(outer, inner),
            "{outer} {inner}"
        );
    }
}

/// MQTT 5, section 4.7, word by word.
fn matches(filter: &str, topic: &str) -> bool {
    fn levels(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) => true,
            ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => levels(filter, topic),
            ([level, filter @ ..], [name, topic @ ..]) => level == name && levels(filter, topic),
            _ => false,
        }
    }
    let (filter, topic): (Vec<&str>, Vec<&str>) = (filter.split('/').collect(), topic.split('/').collect());
    if topic[0].starts_with('$') && matches!(filter[0], "#" | "+") {
        return false;
    }
    levels(&filter, &topic)
}

#[test]
fn tls_that_ends_before_a_server_in_the_plain_permits_other_things_than_what_passed_before() {
    let said = said(|plant| {
        let polling = flow(plant, "control-room-to-pumps", "polling");
        polling.tls = Some(crate::terms::Tls {
            plain_port: Some(502),
            ..Default::default()
        });
    });
    let line = "flow control-room-to-pumps/polling altered: TLS ends at the gateway, the last metre in the plain to the server's port 502";
    assert!(said.starts_with(line), "{said}");
}
