//! What commands and views say of a zone is what the oracle decides (DESIGN, promises 11 and 12). The clause about undeclared
//! traffic is held against the oracle where it is made (`policy/neighbours`), and so are the words of `diff`; here, that the
//! picture, health and `check` say nothing else. In `events`, that each kind of event is described whole; in `wording`, how texts read.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod events;
mod wording;

use std::collections::BTreeMap;

use penstock_coordinator::health::{Boundary, GatewayEvidence, ZoneState, boundaries, judge};
use penstock_policy::arbitrary::plants;
use penstock_policy::check::check;
use penstock_policy::compile::compile_all;
use penstock_policy::ids::{Digest, Revision, ZoneId};
use penstock_policy::neighbours::neighbours;
use penstock_policy::terms::Enforcement;
use penstock_proto::convert::PolicyMark;
use proptest::prelude::*;

/// What health says of a zone whose gateways are all well.
fn health(zone: &ZoneId, boundary: &Boundary) -> (ZoneState, Vec<String>) {
    let mark = PolicyMark {
        revision: Revision(7),
        plan: Digest::of(b"plan"),
        statement: None,
    };
    let well = GatewayEvidence {
        connected: true,
        reported_ms: Some(1000),
        effective: Some(mark),
        wanted: Some(mark),
        refused: None,
        drift: false,
        kernel_failed: false,
        faults: Vec::new(),
        foretold: Vec::new(),
        granted: Vec::new(),
        rollout: None,
        withdrawn: None,
    };
    let gateways: BTreeMap<_, _> = boundary
        .gateways
        .iter()
        .map(|gateway| (gateway.clone(), well.clone()))
        .collect();
    let judged = judge(zone, boundary, &gateways, Some(Revision(7)), 1000, 1000);
    (judged.state, judged.reasons)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]
    #[test]
    fn picture_health_and_check_say_of_each_zone_what_its_undeclared_traffic_meets(plant in plants()) {
        let picture = penstock_picture::draw(&plant, None, &penstock_picture::View::Whole).svg;
        let findings = check(&plant, &compile_all(&plant).unwrap(), None);
        let boundaries = boundaries(&plant, &compile_all(&plant).unwrap());
        for (id, beside) in neighbours(&plant) {
            let zone = &plant.zones[&id];
            let clause = beside.undeclared(zone.enforcement);
            let (mode, state) = match zone.enforcement {
                Enforcement::Enforce => ("Enforced", ZoneState::Enforcing),
                Enforcement::Observe => ("Observed only", ZoneState::Observing),
            };
            let begins = format!("<title>Zone {id}: ");
            let title = picture.split(&begins).nth(1).and_then(|rest| rest.split("</title>").next());
            let words = format!(". {mode}: {clause}.");
            prop_assert!(title.is_some_and(|title| title.ends_with(&words)), "{:?} {}", title, words);
            let boundary = &boundaries[&id];
            if !boundary.gateways.is_empty() {
                let reasons = vec![format!("r7 is effective on every gateway at its boundary: {clause}")];
                prop_assert_eq!(health(&id, boundary), (state, reasons));
            }
            for finding in findings.iter().filter(|finding| finding.code == "PC0151") {
                let about = finding.words.starts_with(&format!("zone {id} "));
                prop_assert!(!about || finding.words.ends_with(&format!(": {clause}")), "{}", finding.words);
            }
        }
    }
}
