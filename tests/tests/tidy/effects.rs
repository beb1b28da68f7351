//! What the coordinator does to its state has an event in its own trail, written with it. The type of a change asks for one, or for
//! a reason why there is none; here stands who gives a reason, so that a new one is a decision.

use std::collections::BTreeMap;

use super::{code, is_test, none, rust_files};

/// Who changes state without an event, how often, and what it is.
const SILENT: &[(&str, &str, usize)] = &[
    // The probe that asks whether the store takes a write.
    ("coordinator/src/health/own.rs", "Observed", 1),
    // Older software made a release current in two steps, and ended between them.
    ("coordinator/src/releases.rs", "Derived", 1),
    // A store that was made before there were links.
    ("coordinator/src/releases/history.rs", "Derived", 1),
    // How much of a rollout's own time has passed.
    ("coordinator/src/rollout/run/store.rs", "Observed", 1),
    // What whoever has no release gets, where every release goes to all at once or none was carried: the approval has its event.
    ("coordinator/src/rollout/run/store.rs", "Derived", 1),
    // How far trails have aged.
    ("coordinator/src/retention.rs", "Observed", 1),
    // How far an export of the trail came.
    ("coordinator/src/export/place.rs", "Observed", 1),
    // How far the list of withdrawn keys goes that a gateway holds.
    ("coordinator/src/subjects/list.rs", "Observed", 1),
    // When a gateway was last connected, and which trust bundle it holds.
    ("coordinator/src/sessions/answers.rs", "Observed", 2),
    // Which ticket a gateway holds by now.
    ("coordinator/src/tickets.rs", "Observed", 1),
    // By what tickets are known as ours.
    ("coordinator/src/tickets.rs", "Derived", 1),
];

/// Ways to write past a change, for tests and tools.
const PAST: &[&str] = &[".put_if(", ".delete_if(", ".append_own(", "Silent::Prepared"];

#[test]
fn nothing_that_the_coordinator_does_to_its_state_comes_without_an_event_but_for_what_is_listed() {
    let (mut found, mut faults) = (BTreeMap::new(), Vec::new());
    for (file, text) in rust_files() {
        let own = file.starts_with("coordinator/src/") && !is_test(&file);
        if !own || file == "coordinator/src/store.rs" || file.starts_with("coordinator/src/store/") {
            continue;
        }
        for (number, line) in code(&text).lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            if let Some(past) = PAST.iter().find(|past| line.contains(**past)) {
                faults.push(format!("{file}:{}: {past} writes without an event", number + 1));
            }
            for part in line.split("Silent::").skip(1) {
                let why: String = part.chars().take_while(char::is_ascii_alphanumeric).collect();
                *found.entry((file.clone(), why)).or_insert(0) += 1;
            }
        }
    }
    none(faults);
    let listed: BTreeMap<_, _> = SILENT
        .iter()
        .map(|(file, why, times)| (((*file).to_owned(), (*why).to_owned()), *times))
        .collect();
    assert_eq!(found, listed);
}
