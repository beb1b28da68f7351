//! Roles of a flow's clients, in model and plan.

use super::{BASE, load_text};
use crate::check::check;
use crate::compile::compile_all;
use crate::diff::{Effect, diff};
use crate::model::Plant;
use crate::plan::{Capability, Plan};
use crate::protocol::{RoleOperations, Roles};

/// The base plant whose TLS clients of `plc` have these keys beside `allow`.
fn plant(keys: &str) -> Plant {
    let read = "        service: modbus-tcp\n        allow: [{ read-coils: { units: 1, addresses: 0-9 } }]\n";
    let allow = "[{ read-only: { units: 1 } }, { write-single-coil: { units: 1, addresses: 3 } }]";
    let with = format!(
        "        service: modbus-tcp:802\n        tls: {{ server: plain, server_port: 502 }}\n        allow: {allow}\n{keys}"
    );
    assert!(BASE.contains(read));
    let loaded = load_text(&BASE.replacen(read, &with, 1));
    let said = loaded.diagnostics.render(crate::diagnostics::Style::Narrated);
    loaded.plant.unwrap_or_else(|| panic!("{said}"))
}

const ROLES: &str = "        roles:\n          engineer: any\n          operator: [{ read-coils: { units: 1, addresses: 0-4 } }]\n";

fn plan(plant: &Plant) -> Plan {
    compile_all(plant).unwrap().into_values().next().unwrap()
}

fn roles(plan: &mut Plan) -> &mut Roles {
    let rule = plan.rules.iter_mut().find(|rule| rule.roles.is_some()).unwrap();
    std::sync::Arc::make_mut(rule.roles.as_mut().unwrap())
}

#[test]
fn roles_reach_the_plan_with_the_capability_that_old_agents_lack_and_a_plan_without_them_has_the_bytes_that_it_had()
 {
    let mut with = plan(&plant(ROLES));
    assert!(with.requires.contains(&Capability::of(Capability::ROLES)));
    assert_eq!(roles(&mut with).of(None), None);
    let engineer = "engineer".parse().unwrap();
    assert_eq!(roles(&mut with).of(Some(&engineer)), Some(&RoleOperations::All));
    assert_eq!(Plan::from_bytes(&with.to_bytes()).unwrap(), with);
    let by_default = plan(&plant(&format!("{ROLES}        default_role: operator\n")));
    assert_ne!(by_default.to_bytes(), with.to_bytes());
    let without = String::from_utf8(plan(&plant("")).to_bytes()).unwrap();
    assert!(!without.contains("roles"), "{without}");
}

#[test]
fn a_plan_whose_roles_an_agent_could_leave_out_or_nobody_could_go_by_is_refused() {
    let refused = |spoil: &dyn Fn(&mut Plan)| {
        let mut spoilt = plan(&plant(ROLES));
        spoil(&mut spoilt);
        Plan::from_bytes(&spoilt.to_bytes()).unwrap_err().to_string()
    };
    let rule = |spoil: fn(&mut crate::plan::Rule)| {
        move |plan: &mut Plan| spoil(plan.rules.iter_mut().find(|rule| rule.roles.is_some()).unwrap())
    };
    for (spoil, because) in [
        (
            &(|plan: &mut Plan| plan.requires.retain(|one| one.0 != Capability::ROLES)) as &dyn Fn(&mut Plan),
            "does not require `roles`",
        ),
        (&rule(|rule| rule.tls = None), "no client shows a role"),
        (&rule(|rule| rule.operations = None), "lists no operations"),
        (
            &|plan: &mut Plan| roles(plan).default = Some("guest".parse().unwrap()),
            "is none of them",
        ),
        (
            &|plan: &mut Plan| roles(plan).by_role.clear(),
            "names none of them",
        ),
    ] {
        let said = refused(spoil);
        assert!(said.contains(because), "{because}: {said}");
    }
}

#[test]
fn the_checker_finds_roles_that_are_not_as_declared() {
    let plant = plant(ROLES);
    let codes = |spoil: &dyn Fn(&mut Plan)| {
        let mut plans = compile_all(&plant).unwrap();
        plans.values_mut().for_each(spoil);
        let findings = check(&plant, &plans, None);
        let codes = findings.iter().map(|finding| finding.code);
        codes
            .filter(|code| ["PC0113", "PC0116", "PC0117"].contains(code))
            .collect::<Vec<_>>()
    };
    assert_eq!(codes(&|_| ()), [""; 0]);
    let wider = codes(&|plan| {
        let operator = "operator".parse().unwrap();
        roles(plan).by_role.insert(operator, RoleOperations::All);
    });
    assert_eq!(wider, ["PC0113"]);
    let left_out = codes(&|plan| plan.requires.retain(|one| one.0 != Capability::ROLES));
    assert_eq!(left_out, ["PC0116", "PC0117"]);
}

#[test]
fn what_a_role_gains_or_loses_is_said_and_weighed() {
    let without = plant("");
    let first = plant(ROLES);
    for (before, after, effect, words) in [
        (
            &without,
            &first,
            Effect::Narrowed,
            "limited by role: engineer: all of it / operator: read-coils",
        ),
        (&first, &without, Effect::Widened, "roles no longer matter"),
        (
            &first,
            &plant(&format!("{ROLES}        default_role: operator\n")),
            Effect::Widened,
            "a client without a role may do read-coils",
        ),
        (
            &first,
            &plant(&ROLES.replace("0-4", "0-2")),
            Effect::Narrowed,
            "role operator: ",
        ),
        (
            &first,
            &plant(&ROLES.replace("engineer: any", "viewer: any")),
            Effect::Altered,
            "role engineer may do nothing any longer",
        ),
    ] {
        let diff = diff(Some(before), after).unwrap();
        let said = diff.to_string();
        assert!(said.contains(words), "{words}: {said}");
        assert_eq!(
            diff.changes
                .iter()
                .map(|change| change.effect)
                .collect::<Vec<_>>(),
            [effect],
            "{said}"
        );
    }
}
