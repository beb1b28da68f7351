//! A plant that observes is learned from its gateway, and the proposal is what a recording of the same time gives.

use std::collections::BTreeSet;

use penstock_lab::{Lab, sandbox, wait_until};

use super::traffic::{everything, record};
use super::world::{BROKER, PATIENCE, PLC, PLC_V6, World};

const DESK: &str = "10.10.0.66";
/// What the desk gets: its maker's, and not one that a machine chose by itself.
const MAC: &str = "00:1d:9c:00:00:66";
const OTHER_MAC: &str = "00:1d:9c:00:00:67";

/// A proposal without what may differ: counts, times, and where it comes from.
fn essence(proposal: &str) -> Vec<String> {
    let lines = proposal
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    lines
        .map(|line| line.split(" # ").next().unwrap_or_default().trim_end().to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

/// The operations that a proposal would permit, each with its limits.
fn allowed(proposal: &str) -> BTreeSet<String> {
    let lines = essence(proposal).into_iter();
    lines.filter(|line| line.trim_start().starts_with("- ")).collect()
}

fn learned_and_enforced(lab: &Lab, routed: bool) {
    let world = World::new(lab, routed);
    world.give_desk(MAC);
    let mut agent = world.start_agent();
    world.release(&world.document("observe"));
    if !routed {
        // The desk asks who has the address that it wants once, at its first packet.
        wait_until("the copies of ARP of both ports", PATIENCE, || {
            let line = "learning, passively, which MAC addresses are behind which addresses";
            agent.log().matches(line).count() == 2
        })
        .unwrap_or_else(|error| panic!("{error}: {}", agent.log()));
    }
    let recording = world.path("office.pcap");
    let mut recorder = record(&world.gateway, "recorder", "office", &recording, &[]);
    everything(&world.desk, &world.path(""));
    let told = |server: &str| -> u64 {
        let records = world.trail("learned");
        let events = records.iter().map(|record| &record["event"]);
        let of_server = events.filter(|event| event["destination"] == server);
        of_server.map(|event| event["operations"].as_u64().unwrap()).sum()
    };
    for (server, operations) in [(BROKER, 4), (PLC, 6), (PLC_V6, 6)] {
        wait_until(server, PATIENCE, || told(server) >= operations)
            .unwrap_or_else(|error| panic!("{error}: {:#?}\n{}", world.trail("learned"), agent.log()));
    }
    wait_until("the desk's MAC address", PATIENCE, || {
        world.binding(DESK).is_some()
    })
    .unwrap_or_else(|error| panic!("{error}: {:#?}\n{}", world.trail("learned"), agent.log()));
    // UDP is not tapped: the kernel's verdicts tell of it, so nothing counts it twice.
    let by_verdict = |record: &serde_json::Value| {
        let event = &record["event"];
        event["destination"] == PLC && event["protocol"] == 17 && event["port"] == 161
    };
    wait_until("the verdict on UDP", PATIENCE, || {
        world.trail("verdict").iter().any(by_verdict)
    })
    .unwrap_or_else(|error| panic!("{error}: {:#?}", world.trail("verdict")));
    assert!(!world.trail("learned").iter().any(by_verdict));
    agent.terminate(PATIENCE).unwrap();
    // What the recorder has not read when it ends is lost; the subscription comes last.
    let last = b"works/filters/#";
    wait_until("the end of the recording", PATIENCE, || {
        let bytes = std::fs::read(&recording).unwrap();
        bytes.windows(last.len()).any(|window| window == last)
    })
    .unwrap();
    recorder.terminate(PATIENCE).unwrap();
    let mut agent = world.start_agent();
    wait_until("what was learned last", PATIENCE, || {
        world.gateway_seen()["connected"] == true
    })
    .unwrap();

    // The whole document: what gateways learned, and what the recording says.
    let key = world.key();
    let (live, offline) = (world.path("live.yaml"), world.path("offline.yaml"));
    let learn = |from: &[&str], out: &str| {
        let words = [&["learn"], from, &["--approver", &key, "-o", out]].concat();
        world.penstock("engineer", &words);
        std::fs::read_to_string(out).unwrap()
    };
    let by_recording = learn(&["--pcap", &recording], &offline);
    let by_gateways = learn(&["--from-gateways", "--since", "1h"], &live);
    assert_eq!(
        essence(&by_gateways),
        essence(&by_recording),
        "{by_gateways}\n{by_recording}"
    );
    assert!(
        by_gateways.contains(&format!(
            "address: \"{DESK}\", mac: \"{MAC}\", vendor: \"Rockwell Automation\" }}"
        )),
        "{by_gateways}"
    );
    let doubt = format!("  # No `mac` for {PLC}: ");
    assert!(
        by_gateways.contains(&doubt),
        "the broker has the same: {by_gateways}"
    );
    for expected in [
        "- read-holding-registers: { units: 1, addresses: [5-7, 10-29, 100-104] }",
        "- write-single-register: { units: 1, addresses: [40], values: [0] }",
        "- write-single-register: { units: 1, addresses: [44], values: [28] }",
        "- read-write-multiple-registers: { units: 1, addresses: [70], read_addresses: [0-1], values: [9] }",
        "- subscribe: { topics: [\"works/filters/#\"], qos: 2 }",
        "- publish: { topics: [\"works/report\"], qos: 0, retain: no }",
        "- connect: { client_ids: [\"desk-1\", \"desk-2\", \"desk-3\"] }",
    ] {
        assert!(
            allowed(&by_gateways).iter().any(|line| line.trim() == expected),
            "{expected} in\n{by_gateways}"
        );
    }
    assert!(by_gateways.contains("# Learned by gw-1: "), "{by_gateways}");
    let snmp = essence(&by_gateways)
        .iter()
        .filter(|line| line.ends_with("service: udp/161"))
        .count();
    assert_eq!(snmp, 1, "{by_gateways}");
    assert!(
        by_recording.contains("      # Datagrams 6 times, "),
        "{by_recording}"
    );
    // What no traffic tells, and the proposal asks for.
    let managed = "gw-1:\n    management: { interface: eth0, peers: [192.0.2.10] }\n";
    std::fs::write(&live, by_gateways.replace("gw-1:\n", managed)).unwrap();
    world.penstock("engineer", &["check", &live]);

    // Beside the plant: one more file, which says that it widens; enforcing with it, the same traffic passes.
    for enforcement in ["observe", "enforce"] {
        let plant = world.document(enforcement);
        let proposal = format!("{plant}/learned.yaml");
        let beside = |from: &[&str], out: &str| {
            world.penstock(
                "engineer",
                &[&["learn"], from, &["--plant", &plant, "-o", out]].concat(),
            );
            std::fs::read_to_string(out).unwrap()
        };
        // No file that is there is written over.
        let of_its_own = |name: &str| world.path(&format!("{name}-{enforcement}.yaml"));
        let by_recording = beside(&["--pcap", &recording], &of_its_own("offline"));
        let text = beside(&["--from-gateways"], &proposal);
        assert!(
            text.contains("# Everything below WIDENS") && text.contains("# widens: "),
            "{text}"
        );
        assert_eq!(essence(&text), essence(&by_recording), "{text}\n{by_recording}");
        world.penstock("engineer", &["check", &plant]);
        let replayed = world.penstock("engineer", &["replay", "--pcap", &recording, &plant]);
        assert_eq!(
            (&replayed["refused"], &replayed["unjudged"]),
            (&0.into(), &0.into())
        );
        assert!(replayed["allowed"].as_u64().unwrap() > 40, "{replayed}");
        let datagrams = serde_json::json!({ "allowed": 6, "refused": 0, "unjudged": 0 });
        assert_eq!(replayed["datagrams"], datagrams, "{replayed}");
        // With it there is nothing more to propose.
        let again = beside(&["--from-gateways"], &of_its_own("again"));
        assert!(allowed(&again).is_empty(), "{again}\n{text}");
    }
    // The plant's own assets have theirs as comments: what is known of an asset stands in one place.
    let mac = format!("#   desk: {{ mac: \"{MAC}\" }}\n");
    let beside = std::fs::read_to_string(world.path("again-observe.yaml")).unwrap();
    assert!(beside.contains(&mac), "{beside}");
    // Somebody else has its address.
    world.give_desk(OTHER_MAC);
    wait_until("the change in the trail", PATIENCE, || {
        drop(world.desk.run("ping", &["-c", "1", "-W", "1", PLC]));
        world
            .binding(DESK)
            .is_some_and(|binding| binding["previous_mac"] == MAC)
    })
    .unwrap_or_else(|error| panic!("{error}: {:#?}\n{}", world.trail("learned"), agent.log()));
    let changed = world.binding(DESK).unwrap();
    assert_eq!(
        (&changed["mac"], &changed["interface"]),
        (&OTHER_MAC.into(), &"office".into())
    );
    let said = world.agent_says(&["status"]);
    let line = said
        .lines()
        .find(|line| line.starts_with(&format!("mac          {DESK} ")));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(
        line.contains(OTHER_MAC) && line.ends_with(&format!("changed 1 times, {MAC} before")),
        "{line}"
    );
    assert!(agent.ended().is_none(), "{}", agent.log());
}

#[test]
fn what_a_routed_gateway_learns_is_what_a_recording_says_and_permits_just_that() {
    sandbox::test(
        "learning::what_a_routed_gateway_learns_is_what_a_recording_says_and_permits_just_that",
        |lab| learned_and_enforced(lab, true),
    )
    .unwrap();
}

#[test]
fn what_a_bridged_gateway_learns_is_what_a_recording_says_and_permits_just_that() {
    sandbox::test(
        "learning::what_a_bridged_gateway_learns_is_what_a_recording_says_and_permits_just_that",
        |lab| learned_and_enforced(lab, false),
    )
    .unwrap();
}
