//! All attempts on the data path, wherever the test of each stands: what is tried, what must hold, and which test holds it.
//!
//! Frames and packets are tried here, in tables of their own (`table.rs`); what needs real servers, many connections or a
//! machine that is fed byte by byte stands where those are. Whoever finds one more adds the test, and its row here.

use std::path::Path;

/// An attempt.
struct Row {
    what: &'static str,
    must: &'static str,
    /// File and test.
    held_by: (&'static str, &'static str),
}

const fn row(what: &'static str, must: &'static str, file: &'static str, test: &'static str) -> Row {
    Row {
        what,
        must,
        held_by: (file, test),
    }
}

const ADDRESSES: &str = "tests/tests/attack/addresses.rs";
const GATEWAY: &str = "tests/tests/attack/gateway.rs";
const ICMP: &str = "tests/tests/attack/icmp.rs";
const LEARNING: &str = "tests/tests/attack/learning.rs";
const MODES: &str = "tests/tests/attack/modes.rs";
const NEIGHBOURS: &str = "tests/tests/attack/neighbours.rs";
const OVERRIDDEN: &str = "tests/tests/attack/overridden.rs";
const OUTSIDE: &str = "tests/tests/kernel/outside.rs";
const BRIDGE: &str = "tests/tests/kernel/bridge.rs";
const BURSTS: &str = "tests/tests/kernel/bursts.rs";
const INPUT: &str = "tests/tests/kernel/input.rs";
const TURNED: &str = "tests/tests/kernel/turned.rs";
const FLOWS: &str = "tests/tests/kernel/flows.rs";
const STRAYS: &str = "tests/tests/kernel/strays.rs";
const BYPASS: &str = "tests/tests/kernel/bypass.rs";
const LEGS: &str = "tests/tests/kernel/legs.rs";
const SWEEP: &str = "tests/tests/inspected/sweep.rs";
const LIFE: &str = "tests/tests/inspected/life.rs";
const VANISHED: &str = "tests/tests/inspected/vanished.rs";
const MQTTS: &str = "tests/tests/inspected/mqtts.rs";
const MQTT: &str = "tests/tests/inspected/mqtt.rs";
const RESTART: &str = "tests/tests/inspected/restart.rs";
const MEMORY: &str = "tests/tests/inspected/memory.rs";
const ROOM: &str = "agent/src/inspector/tests/room.rs";
const SEATS: &str = "agent/src/inspector/seats/tests.rs";
const STRANGERS: &str = "agent/src/inspector/tests/strangers.rs";
const PEERS_MODBUS: &str = "tests/tests/peers/modbus.rs";
const PEERS_MQTT: &str = "tests/tests/peers/mqtt.rs";
const PEERS_REVOKED: &str = "tests/tests/peers/revoked.rs";
const SMUGGLING: &str = "inspect/tests/suite/smuggling.rs";
const REVOKED: &str = "inspect/tests/suite/revoked.rs";
const TERMS: &str = "inspect/tests/suite/terms.rs";
const RESUMED: &str = "inspect/tests/suite/resumed.rs";
const ADMISSION: &str = "inspect/tests/suite/admission.rs";
const SUBSCRIPTIONS: &str = "inspect/tests/suite/subscriptions.rs";
const HOSTILE: &str = "tests/tests/bridge/hostile.rs";

/// Files of which every test is an attempt, and so has a row.
const WHOLE: [&str; 13] = [
    ADDRESSES,
    GATEWAY,
    ICMP,
    LEARNING,
    MODES,
    NEIGHBOURS,
    OVERRIDDEN,
    SWEEP,
    STRANGERS,
    PEERS_MODBUS,
    PEERS_MQTT,
    PEERS_REVOKED,
    HOSTILE,
];

#[rustfmt::skip] // One attempt, three lines.
const ATTEMPTS: &[Row] = &[
    // Frames and packets.
    row("packets of no flow, and under addresses of others, from each side", "they come out nowhere and are in the trail",
        ADDRESSES, "packets_of_no_flow_and_with_addresses_of_others_come_out_nowhere_and_are_in_the_trail"),
    row("undeclared packets beside zones that observe", "they pass between those alone",
        MODES, "undeclared_packets_pass_between_zones_that_observe_and_nowhere_else_whatever_lies_beside_them"),
    row("frames without addresses beside a zone that enforces", "they do not pass",
        MODES, "frames_without_addresses_do_not_pass_beside_a_zone_that_enforces"),
    row("errors of a declared router about what is observed", "they pass",
        MODES, "a_declared_router_beside_a_zone_that_enforces_may_send_errors_about_what_is_observed"),
    row("ICMP errors from any port, of any size, about any connection; redirects", "only the far end of a permitted connection may send one",
        ICMP, "an_icmp_error_crosses_only_about_a_permitted_connection_from_its_far_end_and_no_longer_than_its_rfc_says"),
    row("echo requests and errors to the gateway itself", "few a second are answered, and no error is believed",
        GATEWAY, "the_gateway_answers_few_echoes_a_second_and_takes_no_error_that_is_not_about_its_own_connections"),
    row("MAC addresses that are learned from frames that are then refused", "the bridge learns only whom the rules let in",
        LEARNING, "the_bridge_learns_only_whom_the_rules_let_in_and_a_known_mac_address_stays_on_its_side"),
    row("a declared MAC address from another port", "it is its asset's from the first frame on",
        LEARNING, "a_declared_mac_address_is_its_assets_alone_from_the_first_frame_on"),
    row("claims of neighbours while a connection runs", "real hosts find each other all the same",
        LEARNING, "real_hosts_find_each_other_again_and_again_while_a_connection_runs"),
    row("ARP and neighbour discovery that claim, ask and pad", "only ends of a flow and declared routers find each other",
        NEIGHBOURS, "neighbours_are_asked_for_and_answer_only_where_a_flow_joins_them_and_nobody_claims_what_is_anothers"),
    row("a host beside an end that an override observes", "it is refused as ever, and so are its claims",
        OVERRIDDEN, "an_override_that_observes_opens_the_ends_that_it_names_and_no_neighbour_check_of_their_sides"),
    row("another device at an end that an override observes", "it passes as what it is, recorded",
        OVERRIDDEN, "a_named_end_may_have_another_mac_address_than_it_is_declared_to_have_and_that_is_recorded"),
    row("tagged frames and foreign protocols", "they do not slip by",
        BRIDGE, "tagged_and_foreign_frames_do_not_slip_by"),
    row("fragments and headers that hide ports", "only fragments of an allowed flow pass",
        FLOWS, "fragments_of_an_allowed_flow_pass_and_headers_that_hide_ports_do_not"),
    row("frames by a port of the bridge that is not in the plan", "none gets across",
        OUTSIDE, "a_port_of_the_bridge_that_is_not_in_the_plan_gets_no_frame_across"),
    row("a guarded side's MAC address, by a port of the bridge that is not in the plan", "the bridge keeps it where it is",
        OUTSIDE, "a_port_of_the_bridge_that_is_not_in_the_plan_takes_no_mac_address_of_a_guarded_side"),
    row("the management network as a way into the plant", "it is not routed",
        OUTSIDE, "the_management_network_is_not_routed_into_the_plant_nor_the_plant_out_to_it"),
    row("the gateway's own ports, from everywhere", "only management's peers reach them",
        INPUT, "only_managements_peers_reach_the_gateway_and_its_own_connections_are_answered"),
    row("the gateway's own ports where no management is declared", "nobody reaches them",
        INPUT, "missing_management_opens_no_port_of_the_gateway_to_anyone_and_its_own_link_stands"),
    row("a server that opens from its declared port", "it gains nothing",
        TURNED, "a_server_that_opens_gains_nothing_by_its_declared_port"),
    row("a burst of undeclared connections that hides one among them", "each is reported, or counted as lost",
        BURSTS, "of_a_burst_beyond_all_bounds_each_packet_is_reported_or_counted_as_lost_while_observing"),
    row("a burst of denials that hides its sources", "each source is named",
        BURSTS, "every_source_of_2000_denials_in_one_burst_is_named"),
    // Past the inspector.
    row("packets of an inspected flow that go around the inspector", "nothing of it is forwarded while the inspector lives",
        BYPASS, "nothing_of_an_inspected_flow_is_forwarded_while_the_inspector_lives"),
    row("the inspector's own port", "nobody reaches it",
        BYPASS, "nobody_reaches_the_inspectors_own_port"),
    row("late copies and torn packets of a standing connection", "they go nowhere unread",
        STRAYS, "a_late_copy_or_a_torn_packet_of_a_standing_connection_goes_nowhere_unread_and_harms_nothing"),
    row("a leg's addresses from another side", "it is of no leg",
        STRAYS, "what_comes_from_another_side_is_of_no_leg_though_a_leg_has_its_addresses"),
    row("the sockets of a flow that was revoked", "they are dead in both directions",
        LEGS, "a_revoked_flow_is_dead_in_both_directions_though_the_inspector_keeps_its_sockets"),
    row("SYNs in the client's name, blindly", "no connection is held up",
        SWEEP, "a_blind_sweep_in_the_clients_name_holds_up_no_connection"),
    row("a stopped agent (SIGSTOP) as a way to hold up the process", "flows that may pass without it do",
        RESTART, "a_stopped_agent_holds_up_no_flow_that_may_pass_without_it_and_reads_again_when_it_goes_on"),
    // Budgets.
    row("all seats of the inspector, idle", "another client gets one of them, and health says so",
        ROOM, "a_client_that_holds_all_seats_loses_an_idle_one_to_another_client_and_health_says_so"),
    row("all seats, to be passed unread by a `pass` flow", "not for who takes the seats",
        ROOM, "a_flow_that_goes_on_without_the_inspector_passes_unread_but_not_for_who_takes_the_seats"),
    row("packets that are never whole, on many connections", "no more is held than may be in all",
        ROOM, "clients_that_leave_packets_unfinished_hold_no_more_than_may_be_held_in_all"),
    row("the same by two MQTT clients, under a limit of memory that the kernel keeps", "the agent lives, and serves others",
        MEMORY, "two_mqtt_clients_that_leave_packets_unfinished_do_not_get_the_agent_killed_for_its_memory"),
    row("the most held bytes", "the heaviest connection of the heaviest client ends first",
        SEATS, "the_heaviest_connection_of_the_heaviest_client_ends_when_too_much_is_held"),
    row("the seats of what must flow", "it keeps them",
        SEATS, "what_must_flow_gets_a_seat_before_what_need_not_and_keeps_it_once_it_worked"),
    row("any mixture of greedy and modest clients", "the bounds hold, and newcomers get in",
        SEATS, "seats_and_bytes_are_never_more_than_they_may_be_and_newcomers_beside_a_greedy_one_get_in"),
    row("more connections than there may be", "they are reset, and the others go on",
        LIFE, "beyond_the_limit_a_connection_is_reset_and_the_others_go_on"),
    row("requests without end to a server that takes none", "the connection ends and is told",
        LIFE, "a_client_that_floods_a_deaf_server_is_ended_and_told_and_others_go_on"),
    row("all file descriptors", "clients are reset at once, and told",
        VANISHED, "without_descriptors_clients_are_reset_at_once_and_told_and_with_them_all_is_as_before"),
    row("handshakes of strangers, with chains of many certificates", "no thread that carries connections computes them",
        STRANGERS, "no_thread_that_carries_connections_computes_a_strangers_handshake"),
    row("a client that is not the device of its address", "the broker hears nothing of it",
        MQTTS, "who_is_not_the_device_of_that_address_is_refused_before_the_broker_hears_of_it"),
    row("a broker that is not the flow's", "it is told nothing",
        MQTTS, "a_broker_that_is_not_the_flows_is_told_nothing"),
    // Modbus framings.
    row("any bytes, under a read-only rule, to pymodbus", "no register changes",
        PEERS_MODBUS, "with_a_read_only_rule_no_bytes_make_pymodbus_change_a_register"),
    row("any bytes, under a read-only rule, to umodbus", "no register changes",
        PEERS_MODBUS, "with_a_read_only_rule_no_bytes_make_umodbus_change_a_register"),
    row("any bytes, under a read-only rule, to libmodbus", "no register changes",
        PEERS_MODBUS, "with_a_read_only_rule_no_bytes_make_libmodbus_change_a_register"),
    row("any bytes and all open-ended functions, to a server that frames by the function", "no register changes",
        PEERS_MODBUS, "with_every_open_ended_function_permitted_no_bytes_make_libmodbus_with_its_own_exceptions_change_a_register"),
    row("a write inside the data of a permitted diagnostics request", "it is not carried out",
        PEERS_MODBUS, "one_permitted_diagnostics_request_carries_no_write"),
    row("what servers execute although no standard has it", "none of it gets through",
        PEERS_MODBUS, "stacks_differ_in_what_they_execute_and_the_inspector_lets_none_of_it_through"),
    row("permitted requests that one server reads as others", "no such server writes",
        SMUGGLING, "no_permitted_request_makes_a_server_that_goes_by_the_function_write_what_is_not"),
    row("a write in two halves behind a function that the server does not know", "the connection ends before the second",
        SMUGGLING, "a_write_in_two_halves_ends_the_connection_before_its_second_half"),
    row("an RTU frame with its check sum inside a request", "it is taken for the write that it is",
        SMUGGLING, "a_serial_frame_with_its_check_sum_is_a_write_too"),
    row("an answer that proves where the server stands, from before", "it proves nothing",
        SMUGGLING, "an_earlier_answer_proves_nothing"),
    // MQTT.
    row("any bytes, with one filter permitted, to mosquitto", "it delivers nothing else",
        PEERS_MQTT, "with_one_filter_permitted_no_bytes_make_mosquitto_deliver_anything_else"),
    row("forbidden filters between permitted ones in one SUBSCRIBE", "they are refused, and the others are subscribed",
        MQTT, "a_subscribe_with_one_forbidden_topic_brings_the_others"),
    row("SUBSCRIBEs that a broker never answers", "a bounded memory, and then the connection",
        SUBSCRIPTIONS, "a_broker_that_answers_nothing_costs_a_bounded_memory_and_then_the_connection"),
    row("the permissions of another flow's clients", "no flow lends them",
        ADMISSION, "an_operation_is_permitted_exactly_if_some_flow_alone_permits_it_and_the_clients_connect"),
    row("another client's session, to empty its queue", "nobody acknowledges what nobody receives",
        REVOKED, "a_delivery_that_nobody_receives_is_acknowledged_by_nobody"),
    row("the will of a client that a new policy cuts off", "the broker does not publish it",
        PEERS_REVOKED, "a_client_that_a_new_policy_cuts_off_leaves_nothing_that_mosquitto_publishes"),
    row("a publication that passes while its permission is revoked", "it is never completed",
        REVOKED, "a_publication_that_is_passing_is_judged_again_in_both_directions"),
    row("PUBREL for what is permitted no longer", "it is not released",
        REVOKED, "a_publication_at_qos_2_is_released_only_under_rules_that_permit_it"),
    row("PUBREL by another connection, for what the session published when it was permitted", "mosquitto does not publish it",
        PEERS_REVOKED, "mosquitto_releases_of_a_resumed_session_only_what_is_permitted_now"),
    row("a large publication around the moment of revocation", "it ends, and then its client is cut off without its will",
        REVOKED, "a_large_publication_that_is_still_permitted_ends_before_its_client_is_cut_off_without_its_will"),
    row("a cut within a large publication that is itself revoked", "none of it is published; its will may be, and the trail names it",
        REVOKED, "a_cut_within_a_large_publication_that_is_not_permitted_names_the_will_as_does_a_client_that_is_gone"),
    row("an answer of the gateway's own within a packet that began to pass while it was observed", "it waits for the packet's end",
        TERMS, "an_answer_of_the_gateways_own_never_stands_within_a_packet_that_began_to_pass_while_it_was_observed"),
    row("all seats of a client's own share, before its flow that passes without the inspector", "its next connection is reset, not passed",
        SEATS, "a_client_does_not_switch_the_inspection_of_its_flow_off_by_taking_all_of_its_own_share"),
    row("one client under many names, to have others' publications at QoS 2 forgotten", "only its own are",
        RESUMED, "a_client_with_many_names_does_not_make_the_gateway_forget_what_another_address_published"),
    // Bridges between brokers.
    row("publications beside the policy, by the broker that sends", "they go nowhere",
        HOSTILE, "what_a_hostile_sender_sends_beside_the_policy_is_acknowledged_and_goes_nowhere"),
    row("packets that no standard has", "the connection ends and nothing crosses",
        HOSTILE, "what_no_standard_has_ends_the_connection_and_nothing_of_it_crosses"),
    row("anything, by the broker that receives", "it can only end its own connection",
        HOSTILE, "a_hostile_receiver_can_only_end_its_own_connection"),
    row("a payload beyond the limit", "it holds up nothing",
        HOSTILE, "a_payload_beyond_the_limit_is_left_by_its_broker_and_holds_up_nothing"),
];

fn text_of(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The tests in a file's text.
fn tests_in(text: &str) -> Vec<&str> {
    let mut tests = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if !line.starts_with("#[test]") && !line.starts_with("#[tokio::test") {
            continue;
        }
        let head = lines.by_ref().find_map(|line| line.split_once("fn "));
        let name = head.and_then(|(_, rest)| rest.split(['(', '<']).next());
        tests.extend(name);
    }
    tests
}

#[test]
fn every_attempt_names_a_test_that_there_is_and_each_test_of_the_attackers_files_has_a_row() {
    for Row { what, must, held_by } in ATTEMPTS {
        let (file, test) = held_by;
        let text = text_of(file);
        assert!(
            tests_in(&text).contains(test),
            "{what}: no test {test} in {file} says that {must}"
        );
    }
    for file in WHOLE {
        for test in tests_in(&text_of(file)) {
            let listed = ATTEMPTS.iter().any(|row| row.held_by == (file, test));
            assert!(listed, "{test} in {file} has no row in {}", file!());
        }
    }
}
