//! What a person should know of the data plane now, for health.

use std::sync::PoisonError;

use super::Enforcer;
use crate::enforce::ground::{needs, sysctl};
use crate::enforce::shape::structure::{self, Finding};
use crate::inspector::{self, Inspector};
use crate::observed::Condition;

impl Enforcer {
    /// That this machine does not have the interface by which the plan in force has it managed.
    pub fn missing_management(&self) -> Option<Finding> {
        let current = self.table.verdicts.current()?;
        structure::missing_management(&current.plan, sysctl::interface_exists)
    }

    /// What keeps packets from crossing now, or the inspector from its work.
    pub fn conditions(&self) -> Vec<Condition> {
        self.watching.current()
    }

    /// Whether a finding of an [`Enforcer::apply`] is among the conditions for as long as it is so.
    pub fn is_looked_at(code: &str) -> bool {
        needs::LOOKED_AT.contains(&code)
    }

    /// What enforcing would change of inspected connections between zones that observe.
    pub fn foretold(&self) -> Option<String> {
        self.inspector.as_deref().and_then(Inspector::foretold)
    }

    /// Why operations inside protocols cannot be inspected on this machine, or what failed in inspecting them.
    pub fn inspector_fault(&self) -> Option<String> {
        let failed = self.inspector.as_deref().and_then(Inspector::fault);
        self.inspector_fault.clone().or(failed)
    }

    /// That this gateway may have stood open of late.
    pub fn stood_open(&self) -> Option<Finding> {
        self.table.stood_open(crate::clock::now_ms())
    }

    /// How the kernel's tables differ from the plan and were left so.
    pub fn differs(&self) -> Option<Finding> {
        self.table
            .differs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What the inspector reset, or lets pass unread, of late for want of room.
    pub fn inspector_shortage(&self) -> Option<String> {
        self.inspector.as_ref()?.shortage()
    }

    /// What is wrong with the identity of this gateway under the policy in force.
    pub fn identity_fault(&self) -> Option<inspector::IdentityFault> {
        self.inspector.as_ref()?.identity_fault()
    }
}
