//! Who names a protocol: its own files, and a short list of others with the reason.

use std::collections::BTreeSet;

use super::{code, is_test, none, rust_files};

/// Where a protocol is at home: its vocabulary, its folder, and the lists with a line for each.
const PROTOCOLS_OWN: &[&str] = &[
    "policy/src/protocol.rs",
    "policy/src/protocol/",
    "inspect/src/lib.rs",
    "inspect/src/modbus.rs",
    "inspect/src/modbus/",
    "inspect/src/mqtt.rs",
    "inspect/src/mqtt/",
    // A bridge between brokers, and the demonstration's plant with its programs, are of one protocol.
    "agent/src/bridge.rs",
    "agent/src/bridge/",
    // So is each form of the question to the process before a change.
    "agent/src/interlock.rs",
    "agent/src/interlock/",
    // What panels read, and what a broker is shown: a server, and a publisher, of one protocol each.
    "agent/src/panel/",
    "agent/src/scada.rs",
    "agent/src/scada/",
    "ctl/src/demo.rs",
    "ctl/src/demo/",
];

/// Who else names a protocol, and why.
const NAMES_PROTOCOLS: &[(&str, &str)] = &[
    (
        "policy/src/document/services.rs",
        "services that are known and not read",
    ),
    (
        "policy/src/document/grammar.rs",
        "a condition's keys, `modbus` and `mqtt`: who is asked",
    ),
    ("policy/src/validate/interlock.rs", "the same"),
    (
        "policy/src/check/change_control.rs",
        "whether a flow on the way permits the question",
    ),
    ("policy/src/plan.rs", "bridges: what they carry"),
    ("policy/src/plan/well_formed.rs", "bridges"),
    ("policy/src/compile.rs", "bridges"),
    ("policy/src/explain.rs", "bridges"),
    ("policy/src/check/faithful.rs", "bridges"),
    ("policy/src/check/history.rs", "bridges"),
    (
        "policy/src/validate/inside.rs",
        "bridges, and TLS that ends at a gateway",
    ),
    ("policy/src/arbitrary/flow.rs", "bridges"),
    ("agent/src/enforce.rs", "the bridge's capability"),
    (
        "inspect/src/learn/claims.rs",
        "by which protocols machines say what they are",
    ),
    (
        "inspect/src/learn/document/names.rs",
        "what known programs call themselves for each connection",
    ),
    (
        "agent/src/config/credentials.rs",
        "the bridge's users and passwords",
    ),
    ("agent/src/config/scada.rs", "the user at the SCADA's broker"),
    ("coordinator/src/scada/line.rs", "the plant's own broker"),
    ("coordinator/src/scada/settings.rs", "the same"),
    ("policy/src/waterworks.rs", "the example plant"),
    ("policy/src/diagnostics/codes.rs", "texts with examples"),
    ("policy/src/check/codes.rs", "texts with examples"),
    ("ctl/src/args.rs", "texts with examples"),
    ("ctl/src/offline/explain.rs", "texts with examples"),
    ("ctl/src/offline/init.rs", "texts with examples"),
];

/// Adding a protocol is a file, a folder, and a line in each list; whoever else tells protocols apart has to be found and changed.
#[test]
fn only_its_own_files_name_a_protocol() {
    let words = ["modbus", "mqtt"];
    let crates = ["policy", "inspect", "agent", "ctl", "coordinator", "picture"];
    let names = |text: &str| {
        let lines = (1..).zip(code(text).lines());
        let said = lines.filter(|(_, line)| !line.trim_start().starts_with("//"));
        said.filter(|(_, line)| words.iter().any(|word| line.to_lowercase().contains(word)))
            .map(|(number, line)| format!("{number}: {}", line.trim()))
            .collect::<Vec<_>>()
    };
    let (mut faults, mut seen) = (Vec::new(), BTreeSet::new());
    for (file, text) in rust_files() {
        let of_crate = crates.iter().any(|of| file.starts_with(&format!("{of}/src/")));
        let mut exempt = PROTOCOLS_OWN.iter();
        if !of_crate || is_test(&file) || exempt.any(|own| file.starts_with(own)) {
            continue;
        }
        let found = names(&text);
        match NAMES_PROTOCOLS.iter().find(|(known, _)| *known == file) {
            Some((known, _)) if !found.is_empty() => drop(seen.insert(*known)),
            Some(_) => {}
            None => faults.extend(found.iter().map(|line| format!("{file}:{line}"))),
        }
    }
    let known = NAMES_PROTOCOLS.iter().map(|(file, _)| *file);
    let idle = known.filter(|file| !seen.contains(file));
    faults.extend(idle.map(|file| format!("{file} names no protocol any more: take it off the list")));
    none(faults);
}
