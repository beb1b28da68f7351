//! What is dropped on its way to the inspector, or from it: `stray`, which is counted, and `swept`, which is told as well.

use super::super::lines::{log, within_limit};
use crate::enforce::nft::names::prefix;

/// The chains.
pub(super) fn chains(group: u16) -> String {
    format!(
        "chain stray {{
         counter name stray
         drop
         }}
         chain swept {{
         counter name stray
         {within_limit} {swept}
         drop
         }}
        ",
        within_limit = within_limit(),
        swept = log(prefix::SWEPT, group),
    )
}
