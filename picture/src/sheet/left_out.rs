//! What a sheet leaves out, in sentences.

use std::collections::BTreeSet;

use penstock_policy::ids::SiteId;

use crate::facts::{Facts, count, some_names};

/// How many names of what is left out are said.
const NAMED: usize = 6;

/// "2 sites have no zone of their own (a, b)." Such a site has no card.
pub(super) fn without_zones(facts: &Facts<'_>, but: Option<&SiteId>) -> Option<String> {
    let with: BTreeSet<&SiteId> = facts.site_of.values().copied().collect();
    let sites = facts.plant.sites.keys();
    let without: Vec<&SiteId> = sites
        .filter(|site| !with.contains(site) && Some(*site) != but)
        .collect();
    let names = some_names(without.iter().map(ToString::to_string), NAMED);
    match without.len() {
        0 => None,
        1 => Some(format!("One site has no zone of its own, and no card ({names}).")),
        more => Some(format!(
            "{more} sites have no zone of their own, and no card ({names})."
        )),
    }
}

/// "Not drawn: 3 zones that no conduit joins with it (a, b, c), and 7 conduits that neither begin nor end in it."
pub(super) fn not_drawn<T: ToString>(hidden: &[T], noun: &str, conduits: usize) -> Option<String> {
    let names = some_names(hidden.iter().map(ToString::to_string), NAMED);
    let hidden = count(hidden.len(), noun);
    let elsewhere = match conduits {
        1 => "1 conduit that neither begins nor ends in it".to_owned(),
        more => format!("{more} conduits that neither begin nor end in it"),
    };
    match (names.is_empty(), conduits) {
        (true, 0) => None,
        (true, _) => Some(format!("Not drawn one by one: {elsewhere}.")),
        (false, 0) => Some(format!(
            "Not drawn: {hidden} that no conduit joins with it ({names})."
        )),
        (false, _) => Some(format!(
            "Not drawn: {hidden} that no conduit joins with it ({names}), and {elsewhere}."
        )),
    }
}
