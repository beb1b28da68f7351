//! Commands of `penstock-agent` that have more to do than to ask: who asks whom, overrides, withdrawn keys, trust bundles, and the audit trail. Nothing else of the library needs them.

pub mod asking;
pub mod audit;
mod brought;
pub mod overrides;
pub mod trust;
pub mod withdrawn;
