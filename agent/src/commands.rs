//! Commands of `penstock-agent` that have more to do than to ask: who asks whom, overrides, withdrawn keys, and trust bundles. Nothing else of the library needs them.

pub mod asking;
mod brought;
pub mod overrides;
pub mod trust;
pub mod withdrawn;
