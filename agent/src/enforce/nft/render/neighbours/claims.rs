//! Claims about neighbours that are not so: the chains in which they are refused, or recorded where both sides observe.

use std::fmt::Write;

use super::super::lines::{log, within_limit};
use crate::enforce::nft::names::prefix;

/// Claims that are refused, by the letter in their log prefix.
const CLAIMS: [(&str, &str); 6] = [
    ("moved", prefix::MOVED),
    ("malformed", prefix::MALFORMED),
    ("forged", prefix::FORGED),
    ("unjoined", prefix::UNJOINED),
    ("advertised", prefix::ADVERTISED),
    ("bound", prefix::UNBOUND),
];

/// The chain of what is nobody's claim, and has no business on a closed side.
const STRANGER: &str = "stranger_refused";

/// The names of the chains.
pub(super) fn chains_of() -> impl Iterator<Item = String> {
    let of_claims = CLAIMS
        .iter()
        .flat_map(|(claim, _)| [format!("refused_{claim}"), format!("recorded_{claim}")]);
    of_claims.chain([STRANGER.to_owned()])
}

/// The chains with their rules.
pub(super) fn chains(script: &mut String, group: u16) {
    for (claim, letter) in CLAIMS {
        let _ = write!(
            script,
            "chain refused_{claim} {{
             counter name denied
             {limit} counter name denied_told {deny}
             drop
             }}
             chain recorded_{claim} {{
             counter name would_deny
             {limit} counter name would_deny_told {would_deny}
             }}
            ",
            limit = within_limit(),
            deny = log(&format!("{}{letter}", prefix::DENY), group),
            would_deny = log(&format!("{}{letter}", prefix::WOULD_DENY), group),
        );
    }
    let _ = write!(
        script,
        "chain {STRANGER} {{
         counter name denied
         {limit} counter name denied_told {deny}
         drop
         }}
        ",
        limit = within_limit(),
        deny = log(prefix::DENY, group),
    );
}
