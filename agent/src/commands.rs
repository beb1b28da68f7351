//! Commands of `penstock-agent` that have more to do than to ask: who asks whom, overrides, and withdrawn keys. Nothing else of the library needs them.

pub mod asking;
pub mod overrides;
pub mod trust;
pub mod withdrawn;
