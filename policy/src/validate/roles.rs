//! Roles of a flow's clients: where their certificates are shown, what each role may do of what the flow permits, and as what a client
//! without a role counts.

use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::grammar::{self, Allow};
use crate::document::operations;
use crate::document::read::{At, Field};
use crate::ids::{FlowName, RoleName};
use crate::protocol::{Operations, Permitted, Protocol, RoleOperations, Roles};
use crate::words;

/// The roles that the flow tells apart: `Some(None)` if it says nothing of roles, `None` if that cannot be told. `ends_tls`: its
/// clients' TLS ends at the gateway.
pub(super) fn roles(
    name: &FlowName,
    flow: &grammar::Flow,
    permitted: Option<&Operations>,
    ends_tls: bool,
    faults: &mut Faults,
) -> Option<Option<Roles>> {
    let (table, place) = match (&flow.roles, &flow.default_role) {
        (Field::Faulty, _) | (_, Field::Faulty) => return None,
        (Field::Absent, Field::Absent) => return Some(None),
        (Field::Absent, Field::Given(At { place, .. })) => {
            let message = format!("the flow `{name}` has a default role, and tells no roles apart");
            unfit(
                *place,
                message,
                "without effect",
                "remove the key, or name the `roles`",
                faults,
            );
            return None;
        }
        (Field::Given(At { value, place }), _) => (value, *place),
    };
    let before = faults.errors();
    let with_roles = words::and(
        Protocol::all()
            .filter(|protocol| protocol.has_roles)
            .map(|protocol| format!("`{}`", protocol.word)),
    );
    let Some(permitted) = permitted.filter(|permitted| permitted.protocol.has_roles) else {
        unfit(
            place,
            format!("the flow `{name}` is not limited to operations that a role could choose from"),
            "without effect",
            &format!(
                "roles belong to flows of {with_roles} that list operations under `allow`; list them, or remove the key"
            ),
            faults,
        );
        return None;
    };
    if !ends_tls {
        unfit(
            place,
            format!(
                "no client of the flow `{name}` shows a certificate to the gateway, and a role stands in one"
            ),
            "without effect",
            &format!(
                "end the clients' TLS here, as in `service: {}:PORT`, `tls: {{ server: plain, server_port: PORT }}`; or remove the key",
                permitted.protocol.word
            ),
            faults,
        );
    }
    if table.0.len() > Roles::ROLES_MAX {
        let message = format!("the flow `{name}` tells {} roles apart", table.0.len());
        let help = format!("name at most {} roles", Roles::ROLES_MAX);
        unfit(place, message, "too many", &help, faults);
    }
    let mut by_role = std::collections::BTreeMap::new();
    for (role, _, allow) in table.readable() {
        let operations = match allow {
            Allow::Any => RoleOperations::All,
            Allow::Operations(entries) => {
                let Some(list) = operations::read(permitted.protocol, entries, faults) else {
                    continue;
                };
                if entries.len() > Roles::ENTRIES_MAX
                    && let Some(entry) = entries.get(Roles::ENTRIES_MAX)
                {
                    let message = format!("the role `{role}` lists {} operations", entries.len());
                    let help = format!(
                        "list at most {} operations, or a group of them",
                        Roles::ENTRIES_MAX
                    );
                    unfit(entry.place, message, "too many", &help, faults);
                }
                for (entry, listed) in entries.iter().zip(&list.permitted) {
                    beyond(role, listed, permitted, entry.place, faults);
                }
                RoleOperations::Only(list)
            }
        };
        by_role.insert(role.clone(), operations);
    }
    let default = flow.default_role.get();
    if let Some(At { value: role, place }) = default
        && !table.0.contains_key(role)
    {
        faults.add(
            Fault::new(
                Code::UnknownRole,
                *place,
                format!("the flow `{name}` has no role `{role}` for clients without one"),
            )
            .label("not among its roles")
            .help(crate::document::suggest::help(
                role.as_str(),
                table.0.keys().map(RoleName::as_str),
            )),
        );
    }
    (faults.errors() == before).then(|| {
        Some(Roles {
            by_role,
            default: default.map(|at| at.value.clone()),
        })
    })
}

/// What the flow permits nothing of, no role can use.
fn beyond(role: &RoleName, listed: &Permitted, permitted: &Operations, place: Place, faults: &mut Faults) {
    let codes = |name: &str| {
        (permitted.protocol.members)(name)
            .into_iter()
            .map(|member| member.code)
    };
    let mut wanted = codes(&listed.operation);
    let overlaps = |code: u32| {
        let mut all = permitted
            .permitted
            .iter()
            .flat_map(|entry| codes(&entry.operation));
        all.any(|other| other == code)
    };
    if !wanted.any(overlaps) {
        faults.add(
            Fault::new(
                Code::RoleBeyondFlow,
                place,
                format!(
                    "the role `{role}` lists `{}`, of which its flow allows nothing",
                    listed.operation
                ),
            )
            .label("without effect")
            .help("a role chooses from the flow's `allow`: add the operation there, or remove it here"),
        );
    }
}

fn unfit(place: Place, message: String, label: &str, help: &str, faults: &mut Faults) {
    faults.add(
        Fault::new(Code::RolesUnfit, place, message)
            .label(label)
            .help(help),
    );
}
