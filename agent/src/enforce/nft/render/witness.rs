//! The text of `table inet penstock_witness`: one chain that no packet meets, whose comment is the newest sealed head of the trail, as long as the machine runs.
//!
//! A table of its own: the kernel takes a comment only when it creates an object, and no chain of the tables that judge is replaced for that. This one is
//! removed and added in one transaction, which no packet notices.

use crate::enforce::nft::names::{TABLE_WITNESS, WITNESS_HEAD};

/// The script that puts this head in place of the one before. A head with other characters than the trail's names is left out.
pub(in crate::enforce) fn witness(head: &str) -> String {
    let is_plain = |one: char| one.is_ascii_alphanumeric() || " +/=".contains(one);
    let head: String = head.chars().filter(|one| is_plain(*one)).collect();
    let removed = remove_witness();
    format!("{removed}table inet {TABLE_WITNESS} {{ chain {WITNESS_HEAD} {{ comment \"{head}\"; }}; }}\n")
}

/// The script that removes it, and succeeds where there is none.
pub(in crate::enforce) fn remove_witness() -> String {
    // Adding first makes the deletion succeed where there is no table.
    format!("add table inet {TABLE_WITNESS}\ndelete table inet {TABLE_WITNESS}\n")
}
