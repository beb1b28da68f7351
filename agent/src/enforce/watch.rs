//! What runs beside the table: loops that hear the kernel, and what is looked at each second, made into conditions for health.

pub(super) mod conditions;
pub(super) mod drift;
pub(super) mod looks;
pub(super) mod passage;
pub(super) mod routes;
pub(super) mod verdicts;
