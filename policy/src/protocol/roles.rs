//! What clients may do by the role that their certificate gives them, of what their flow permits at all (Modbus/TCP Security, role-based
//! client authorization).
//!
//! A role only takes away: an operation passes where the flow permits it *and* the client's role does, each by one entry that holds it
//! whole. A role that the flow does not name may do nothing, and so may a client without one where the flow has no default for it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Operations;
use crate::ids::RoleName;

/// The roles that a flow tells apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roles {
    /// What each may do; never empty in a plan that is obeyed.
    pub by_role: BTreeMap<RoleName, RoleOperations>,
    /// The role of a client whose certificate names none; `None`: such a client may do nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<RoleName>,
}

/// What one role may do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoleOperations {
    /// All that the flow permits.
    All,
    /// Only these, as far as the flow permits them.
    Only(Operations),
}

impl Roles {
    /// Roles that one flow tells apart at most.
    pub const ROLES_MAX: usize = 32;
    /// Entries of one role at most.
    pub const ENTRIES_MAX: usize = 128;

    /// What a client may do whose certificate names this role, or none; `None`: nothing.
    pub fn of(&self, role: Option<&RoleName>) -> Option<&RoleOperations> {
        self.by_role.get(role.or(self.default.as_ref())?)
    }

    /// The lists of those that may not do everything.
    pub fn lists(&self) -> impl Iterator<Item = &Operations> {
        self.by_role.values().filter_map(|operations| match operations {
            RoleOperations::All => None,
            RoleOperations::Only(list) => Some(list),
        })
    }

    /// Why nobody could go by them, if so.
    pub fn fault(&self) -> Option<String> {
        let is_default_named = self
            .default
            .as_ref()
            .is_none_or(|role| self.by_role.contains_key(role));
        if self.by_role.is_empty() {
            return Some("names none of them".to_owned());
        }
        if self.by_role.len() > Self::ROLES_MAX {
            return Some(format!("names more than {} of them", Self::ROLES_MAX));
        }
        if !is_default_named {
            return Some("the role of clients without one is none of them".to_owned());
        }
        self.lists().find_map(|list| match list.permitted.len() {
            0 => Some("one of them lists no operation".to_owned()),
            1..=Self::ENTRIES_MAX => None,
            _ => Some(format!(
                "one of them lists more than {} operations",
                Self::ENTRIES_MAX
            )),
        })
    }
}

impl fmt::Display for RoleOperations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all of it"),
            Self::Only(list) => f.write_str(&list.phrases().join("; ")),
        }
    }
}

impl fmt::Display for Roles {
    /// `by role: engineer: all of it / operator: read-only (unit 1); without a role as operator`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles: Vec<String> = self
            .by_role
            .iter()
            .map(|(role, operations)| format!("{role}: {operations}"))
            .collect();
        write!(f, "by role: {}", roles.join(" / "))?;
        match &self.default {
            Some(role) => write!(f, "; without a role as {role}"),
            None => f.write_str("; without a role nothing"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::protocol::Permitted;
    use crate::protocol::modbus_tcp::MODBUS_TCP;

    fn role(name: &str) -> RoleName {
        RoleName::new(name).unwrap()
    }

    fn roles(default: Option<&str>) -> Roles {
        let read_only = Permitted {
            operation: "read-only".to_owned(),
            limits: BTreeMap::new(),
        };
        let only = RoleOperations::Only(Operations::of(MODBUS_TCP, [read_only]));
        Roles {
            by_role: BTreeMap::from([(role("engineer"), RoleOperations::All), (role("operator"), only)]),
            default: default.map(role),
        }
    }

    #[test]
    fn who_has_no_role_is_given_the_default_and_who_has_an_unknown_one_is_not() {
        let by_default = roles(Some("operator"));
        assert_eq!(by_default.of(None), by_default.of(Some(&role("operator"))));
        assert_eq!(by_default.of(Some(&role("engineer"))), Some(&RoleOperations::All));
        assert_eq!(by_default.of(Some(&role("guest"))), None);
        assert_eq!(roles(None).of(None), None);
    }

    #[test]
    fn roles_that_nobody_could_go_by_have_a_fault() {
        assert_eq!(roles(Some("operator")).fault(), None);
        assert_eq!(roles(None).fault(), None);
        let fault = |spoil: fn(&mut Roles)| {
            let mut roles = roles(None);
            spoil(&mut roles);
            roles.fault().unwrap()
        };
        assert!(fault(|roles| roles.by_role.clear()).contains("none of them"));
        assert!(fault(|roles| roles.default = Some(role("guest"))).contains("without one"));
        assert!(
            fault(|roles| {
                let empty = RoleOperations::Only(Operations::of(MODBUS_TCP, Vec::<Permitted>::new()));
                roles.by_role.insert(role("operator"), empty);
            })
            .contains("lists no operation")
        );
        assert!(
            fault(|roles| {
                let more = (0..Roles::ROLES_MAX).map(|n| (role(&format!("r{n}")), RoleOperations::All));
                roles.by_role.extend(more);
            })
            .contains("more than 32")
        );
        assert!(
            fault(|roles| {
                for list in roles.by_role.values_mut() {
                    if let RoleOperations::Only(list) = list {
                        let first = list.permitted.first().cloned().unwrap();
                        list.permitted
                            .extend(std::iter::repeat_n(first, Roles::ENTRIES_MAX));
                    }
                }
            })
            .contains("more than 128 operations")
        );
    }

    #[test]
    fn roles_are_read_as_they_were_written_and_nothing_else_beside_them() {
        for default in [None, Some("operator")] {
            let written = serde_json::to_string(&roles(default)).unwrap();
            assert_eq!(serde_json::from_str::<Roles>(&written).unwrap(), roles(default));
            let more = written.replacen('{', "{\"other\":1,", 1);
            assert!(serde_json::from_str::<Roles>(&more).is_err());
        }
    }
}
