//! What must hold of the frames other than IP that a plan permits.

use std::collections::BTreeSet;

use super::requires;
use crate::plan::frames::{FRAME_ENTRIES_MAX, FRAME_RULES_MAX};
use crate::plan::{Capability, FrameRule, Plan};
use crate::terms::GatewayMode;

/// Only an agent that tells frames apart may take a plan that permits some; and each leads between sides that are one zone each.
pub(super) fn check(plan: &Plan) -> Result<(), String> {
    if plan.frames.is_empty() {
        return Ok(());
    }
    let needed = Capability::FRAMES;
    if !requires(plan, needed) {
        return Err(format!(
            "it permits frames other than IP, but the plan does not require `{needed}`"
        ));
    }
    if plan.mode != GatewayMode::Bridged {
        return Err("it permits frames other than IP at a gateway that routes".to_owned());
    }
    if plan.frames.len() > FRAME_RULES_MAX {
        return Err(format!(
            "it has {} rules for frames other than IP, at most {FRAME_RULES_MAX} are possible",
            plan.frames.len()
        ));
    }
    let entries: usize = plan.frames.iter().map(|rule| rule.frames.entries()).sum();
    if entries > FRAME_ENTRIES_MAX {
        return Err(format!(
            "its rules for frames other than IP list {entries} VLANs, MAC addresses and APPIDs, at most {FRAME_ENTRIES_MAX} are possible"
        ));
    }
    let mut names = BTreeSet::new();
    for rule in &plan.frames {
        let name = format!("{}/{}", rule.conduit, rule.flow);
        if let Some(fault) = fault(plan, rule) {
            return Err(format!("the frames {name} {fault}"));
        }
        if !names.insert((&rule.conduit, &rule.flow)) {
            return Err(format!("the frames {name} are there twice"));
        }
    }
    Ok(())
}

fn fault(plan: &Plan, rule: &FrameRule) -> Option<&'static str> {
    let ordered = |names: &[String]| !names.is_empty() && names.is_sorted_by(|a, b| a < b);
    if !ordered(&rule.from) || !ordered(&rule.to) {
        return Some("come from no side or go to none, or these are not in order");
    }
    if rule.from.iter().any(|name| rule.to.contains(name)) {
        return Some("come from the side that they go to");
    }
    let is_one_zone = |name: &String| {
        let mut sides = plan.interfaces.iter();
        sides.any(|side| side.name == *name && side.behind.is_empty())
    };
    if !rule.from.iter().chain(&rule.to).all(is_one_zone) {
        return Some("lead to a side that is not one zone alone");
    }
    if plan.grants.contains_key(&rule.conduit) {
        return Some("hang on a grant");
    }
    rule.frames.fault()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::compile::compile;
    use crate::terms::{EtherType, Frames};
    use crate::waterworks::{gateway, waterworks};

    /// The plan of a bridge with frames from the first of its sides to the second, and what is made of it.
    fn held(spoil: impl FnOnce(&mut Plan)) -> Result<Plan, String> {
        let mut plan = compile(&waterworks(), &gateway()).unwrap();
        plan.mode = GatewayMode::Bridged;
        plan.interfaces.iter_mut().for_each(|side| side.behind.clear());
        let side = |at: usize| vec![plan.interfaces[at].name.clone()];
        plan.frames = vec![FrameRule {
            conduit: plan.rules[0].conduit.clone(),
            flow: "goose".parse().unwrap(),
            from: side(0),
            to: side(1),
            both: false,
            frames: Frames {
                ether_type: "goose".parse::<EtherType>().unwrap(),
                vlans: vec![0, 10],
                destinations: Some(vec!["01:0c:cd:01:00:00/40".parse().unwrap()]),
                appids: None,
            },
        }];
        plan.requires.insert(Capability::of(Capability::FRAMES));
        spoil(&mut plan);
        Plan::from_bytes(&plan.to_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn frames_between_two_zones_of_a_bridge_are_read_as_they_were_written() {
        let plan = held(|_| ()).unwrap();
        assert_eq!(Plan::from_bytes(&plan.to_bytes()).unwrap(), plan);
        assert!(plan.frames[0].frames.destinations.is_some());
    }

    #[test]
    fn frames_that_could_mean_anything_or_nothing_are_refused() {
        type Spoil = (&'static str, fn(&mut Plan));
        let cases: [Spoil; 12] = [
            ("does not require `frames`", |plan| {
                plan.requires.remove(&Capability::of(Capability::FRAMES));
            }),
            ("gateway that routes", |plan| plan.mode = GatewayMode::Routed),
            ("from no side", |plan| plan.frames[0].from.clear()),
            ("not in order", |plan| {
                let twice = plan.frames[0].to[0].clone();
                plan.frames[0].to.push(twice);
            }),
            ("the side that they go to", |plan| {
                plan.frames[0].from = plan.frames[0].to.clone();
            }),
            ("not one zone alone", |plan| {
                plan.frames[0].to = vec!["eth77".to_owned()]
            }),
            ("not one zone alone", |plan| {
                let zone = plan.interfaces[2].zone.clone();
                plan.interfaces[0].behind.push(zone);
            }),
            ("there twice", |plan| plan.frames.push(plan.frames[0].clone())),
            ("no VLANs", |plan| plan.frames[0].frames.vlans.clear()),
            ("no VLANs", |plan| plan.frames[0].frames.vlans = vec![4095]),
            ("no MAC addresses", |plan| {
                plan.frames[0].frames.destinations = Some(Vec::new());
            }),
            ("no applications", |plan| {
                plan.frames[0].frames.appids = Some(Vec::new())
            }),
        ];
        for (why, spoil) in cases {
            let error = held(spoil).unwrap_err();
            assert!(error.contains(why), "{error:?} does not say {why:?}");
        }
    }

    #[test]
    fn no_spelling_of_a_plan_permits_ip_in_disguise() {
        let text = String::from_utf8(held(|_| ()).unwrap().to_bytes()).unwrap();
        assert!(text.contains("\"0x88b8\""));
        for number in ["0x0800", "0x8100", "0x86dd", "0x0806", "0x88a8", "0x0000"] {
            let spoilt = text.replace("0x88b8", number);
            assert!(Plan::from_bytes(spoilt.as_bytes()).is_err(), "{number}");
        }
    }
}
