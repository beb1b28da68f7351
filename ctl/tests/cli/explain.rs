//! `explain`: which rule decides about a connection or an operation, and what a code means.

use crate::said::{ends, json, penstock, works};

#[test]
fn explain_names_the_rule_and_its_line_or_what_came_closest() {
    let folder = works();
    let ask = |code, to: &str, service: &str, more: &[&str]| {
        let mut arguments = vec![
            "explain",
            "plant",
            "--from",
            "hmi-1",
            "--to",
            to,
            "--service",
            service,
        ];
        arguments.extend(more);
        ends(folder.path(), code, &arguments).out
    };
    let allowed = ask(0, "plc-7", "modbus-tcp", &[]);
    let text = std::fs::read_to_string(folder.path().join("plant/plant.yaml")).unwrap();
    let line = 1 + text.lines().position(|line| line.trim() == "polling:").unwrap();
    assert!(allowed.contains("✓ allowed at gw-works"), "{allowed}");
    assert!(
        allowed.contains(&format!(
            "by control-room-to-pumps/polling  flow 07ef476  plant/plant.yaml:{line}"
        )),
        "{allowed}"
    );
    assert!(allowed.contains("read-holding-registers (unit 1, addresses 0-199)"));
    let denied = ask(1, "plc-7", "tcp/503", &[]);
    assert!(
        denied.contains("✗ denied at gw-works") && denied.contains("port 503 is not 502"),
        "{denied}"
    );
    let told = json(&ask(1, "plc-7", "tcp/503", &["--output", "json"]));
    assert_eq!(
        (told["schema"].as_str(), told["decision"].as_str()),
        (Some("penstock.explain/1"), Some("deny"))
    );
    assert!(
        told["sentence"]
            .as_str()
            .unwrap()
            .contains("control-room-to-pumps/polling")
    );
    assert!(ask(2, "plc-8", "tcp/502", &[]).is_empty());
    let unknown = penstock(
        folder.path(),
        &[
            "explain",
            "plant",
            "--from",
            "hmi-1",
            "--to",
            "plc-8",
            "--service",
            "tcp/1",
        ],
    );
    assert!(unknown.err.contains("did you mean plc-7?"), "{}", unknown.err);
}

#[test]
fn explain_judges_one_operation_and_names_the_entry_that_decides() {
    let folder = works();
    let ask = |code, (from, to): (&str, &str), operation: &str, more: &[&str]| {
        let mut arguments = vec![
            "explain",
            "plant",
            "--from",
            from,
            "--to",
            to,
            "--operation",
            operation,
        ];
        arguments.extend(more);
        ends(folder.path(), code, &arguments).out
    };
    let steer = ("hmi-1", "plc-7");
    let permitted = ask(0, steer, "write-single-register 40 unit 1", &[]);
    for words in [
        "✓ write-single-register 40 of unit 1 on plc-7 with value 0 is permitted",
        "by write-single-register, units 1, addresses 40-41, values 0-1500  control-room-to-pumps/setpoints",
        "no value was given: judged with value 0",
    ] {
        assert!(permitted.contains(words), "{permitted}");
    }
    let refused = ask(1, steer, "write-single-register 40 unit 1 value 1501", &[]);
    for words in [
        "✗ write-single-register 40 of unit 1 on plc-7 with value 1501 is refused: the value is not within",
        "closest: write-single-register, units 1",
        "a refusal is answered as the protocol does",
    ] {
        assert!(refused.contains(words), "{refused}");
    }
    // The head says what becomes of the operation, not of the connection that would carry it.
    let place = |text: &str| refused.find(text).unwrap_or_else(|| panic!("{refused}"));
    assert!(place("✗ refused inside the connection at gw-works") < place("the value is not within"));
    assert!(place("the value is not within") < place("the connection itself passes"));
    assert!(!refused.contains("✓ allowed"), "{refused}");
    // Who may do it is named where somebody else may not.
    let other = ask(
        1,
        ("historian", "plc-7"),
        "write-single-register 40 unit 1 value 5",
        &[],
    );
    assert!(
        other.contains("permitted to others: hmi-1 (control-room-to-pumps/setpoints)"),
        "{other}"
    );
    let told = json(&ask(
        1,
        steer,
        "write-multiple-registers 40-41 unit 1",
        &["--output", "json"],
    ));
    assert_eq!(told["decision"], "deny");
    assert_eq!(told["gateways"][0]["decision"], "allow", "the connection stands");
    assert_eq!(told["gateways"][0]["operation"]["decision"], "deny");
    assert!(
        told["sentence"]
            .as_str()
            .unwrap()
            .contains("no rule permits the function")
    );
    assert!(ask(2, steer, "write-single-register 40", &[]).is_empty());

    // A bridge: nothing passes between the two, and the publication arrives all the same.
    let path = folder.path().join("plant/plant.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("service: mqtt\n"));
    // A bridge is its brokers' client by itself.
    let publications: String = text
        .lines()
        .filter(|line| !line.contains("- connect:"))
        .map(|line| format!("{line}\n"))
        .collect();
    let bridged = publications.replace("service: mqtt\n", "service: mqtt-bridge\n");
    std::fs::write(&path, bridged).unwrap();
    let up = ("plc-7", "historian");
    let carried = json(&ask(
        0,
        up,
        "publish works/filters/3/pressure qos 1",
        &["--output", "json"],
    ));
    assert_eq!(carried["decision"], "allow");
    assert_eq!(carried["gateways"][0]["decision"], "deny");
    assert_eq!(carried["bridges"][0]["operation"]["decision"], "allow");
    let kept = ask(1, up, "publish works/filters/3/pressure qos 1 retain", &[]);
    assert!(
        kept.contains("carries messages one way by the bridge control-room-to-pumps/telemetry"),
        "{kept}"
    );
    assert!(
        kept.contains("is refused: retained messages are not permitted"),
        "{kept}"
    );
}

#[test]
fn explain_tells_what_a_code_means_and_knows_which_are_none() {
    let folder = tempfile::tempdir().unwrap();
    assert!(
        ends(folder.path(), 0, &["explain", "ps0204"])
            .out
            .starts_with("PS0204 (error): ")
    );
    assert!(
        ends(folder.path(), 0, &["explain", "PC0120"])
            .out
            .starts_with("PC0120 (warning): ")
    );
    // It has both severities, and says the graver.
    assert!(
        ends(folder.path(), 0, &["explain", "PC0122"])
            .out
            .starts_with("PC0122 (error): ")
    );
    ends(folder.path(), 2, &["explain", "PS9999"]);
    ends(folder.path(), 2, &["explain", "PC9999"]);
}
