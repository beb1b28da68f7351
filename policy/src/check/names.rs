//! What a finding names, and whether people accepted it.
//!
//! A finding's sentence bears the names of all that it is about, as the document has them. They are read off it here: so every finding has
//! them without saying them twice, and an acceptance that lists exactly these names is of this finding and no other. A finding that says
//! more tomorrow (another zone on a path, another flow beside it) is no longer the one that was accepted.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Findings, Severity};
use crate::document::definitions::Defined;
use crate::model::{Acceptance, Plant};

/// Every kind, the narrowest first.
const KINDS: [Defined; 5] = [
    Defined::Flow,
    Defined::Conduit,
    Defined::Zone,
    Defined::Asset,
    Defined::Gateway,
];

/// The word that may stand before such a name.
fn kind_word(kind: Defined) -> &'static str {
    match kind {
        Defined::Flow => "flow",
        Defined::Conduit => "conduit",
        Defined::Zone => "zone",
        Defined::Asset => "asset",
        Defined::Gateway => "gateway",
    }
}

fn is_in(plant: &Plant, kind: Defined, name: &str) -> bool {
    match kind {
        Defined::Flow => name.split_once('/').is_some_and(|(conduit, flow)| {
            let conduit = conduit.parse().ok().and_then(|id| plant.conduits.get(&id));
            let flow = flow.parse().ok();
            conduit.zip(flow).is_some_and(|(conduit, flow)| {
                conduit.flows.contains_key(&flow) || conduit.frames.contains_key(&flow)
            })
        }),
        Defined::Conduit => name.parse().is_ok_and(|id| plant.conduits.contains_key(&id)),
        Defined::Zone => name.parse().is_ok_and(|id| plant.zones.contains_key(&id)),
        Defined::Asset => name.parse().is_ok_and(|id| plant.assets.contains_key(&id)),
        Defined::Gateway => name.parse().is_ok_and(|id| plant.gateways.contains_key(&id)),
    }
}

/// All that a finding names, in the order of its sentence, its gateway last; what is named twice stands once.
pub fn named(plant: &Plant, finding: &Finding) -> Vec<(Defined, String)> {
    let mut names: Vec<(Defined, String)> = Vec::new();
    let mut add = |kind, name: &str| {
        if !names
            .iter()
            .any(|(known, other)| (*known, other.as_str()) == (kind, name))
        {
            names.push((kind, name.to_owned()));
        }
    };
    let outside = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '/'));
    let mut before = "";
    for word in finding.words.split(outside) {
        // A sentence may end behind a name.
        let name = word.trim_matches(['.', '-', '/']);
        if name.is_empty() {
            continue;
        }
        let said = KINDS
            .into_iter()
            .find(|kind| kind_word(*kind) == before && is_in(plant, *kind, name));
        match said {
            Some(kind) => add(kind, name),
            None => KINDS
                .into_iter()
                .filter(|kind| is_in(plant, *kind, name))
                .for_each(|kind| add(kind, name)),
        }
        before = name.strip_suffix('s').unwrap_or(name);
    }
    if let Some(gateway) = &finding.gateway {
        add(Defined::Gateway, gateway.as_str());
    }
    names
}

/// The narrowest thing that a finding is about: where somebody would mend it.
pub fn main_subject(plant: &Plant, finding: &Finding) -> Option<(Defined, String)> {
    // Of equal kinds the one that the sentence names first.
    named(plant, finding)
        .into_iter()
        .min_by_key(|(kind, _)| KINDS.iter().position(|known| known == kind))
}

/// The acceptance of a finding, if people accepted it and that has not expired. An error is never accepted.
pub fn acceptance<'a>(plant: &'a Plant, finding: &Finding) -> Option<&'a Acceptance> {
    plant.accepted.get(entry(plant, finding)?)
}

/// Which entry it is.
fn entry(plant: &Plant, finding: &Finding) -> Option<usize> {
    if finding.severity == Severity::Error || plant.accepted.is_empty() {
        return None;
    }
    let names: BTreeSet<String> = named(plant, finding).into_iter().map(|(_, name)| name).collect();
    let says = |words: &String| finding.words.contains(words.as_str());
    plant.accepted.iter().position(|accepted| {
        let is_said = accepted.says.as_ref().is_none_or(says);
        !accepted.expired && accepted.code == finding.code && accepted.names == names && is_said
    })
}

/// Acceptances that no finding needs: what they were for is gone, or has become another finding. And those that are for several findings,
/// which name the same things and say something else of them: people saw one of them.
pub(super) fn accepted_without_finding(plant: &Plant, findings: &mut Findings) {
    let mut sentences: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
    for finding in &findings.all {
        if let Some(entry) = entry(plant, finding) {
            sentences.entry(entry).or_default().insert(&finding.words);
        }
    }
    let entries = plant.accepted.iter().enumerate();
    let entries = entries.filter(|(_, accepted)| !accepted.expired);
    let entries: Vec<(&Acceptance, usize)> = entries
        .map(|(at, accepted)| (accepted, sentences.get(&at).map_or(0, BTreeSet::len)))
        .collect();
    for (accepted, sentences) in entries {
        let about: Vec<&str> = accepted.names.iter().map(String::as_str).collect();
        if sentences > 1 {
            findings.add(
                Severity::Warning,
                "PC0192",
                format!(
                    "{} is accepted at {} by one entry, and {sentences} findings name just that",
                    accepted.code,
                    about.join(", ")
                ),
                "say in each entry which one it is for: `says`, with words of its sentence that the others do not have",
            );
        }
        if sentences > 0 {
            continue;
        }
        findings.add(
            Severity::Note,
            "PC0191",
            format!(
                "{} is accepted at {}, where nothing of the kind is found",
                accepted.code,
                about.join(", ")
            ),
            "take the entry out of `accepted`, or correct its `where`",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waterworks::{id, waterworks};

    #[test]
    fn an_entry_that_several_findings_fit_is_a_warning_until_it_says_which() {
        let mut plant = waterworks();
        let zones: Vec<String> = plant.zones.keys().take(2).map(ToString::to_string).collect();
        let entry = Acceptance {
            code: "PC0120".to_owned(),
            names: zones.iter().cloned().collect(),
            says: None,
            by: id("anna"),
            reason: "known".to_owned(),
            expires: "2027-06-30".to_owned(),
            expired: false,
        };
        let [one, other] = [(0, 1), (1, 0)].map(|(from, to)| {
            let name = |at: usize| zones.get(at).cloned().unwrap_or_default();
            format!("zone {} reaches zone {}", name(from), name(to))
        });
        let found = |plant: &Plant| {
            let mut findings = Findings::default();
            for words in [&one, &other] {
                findings.warning("PC0120", words.clone(), "mend it");
            }
            accepted_without_finding(plant, &mut findings);
            findings
                .all
                .into_iter()
                .map(|finding| finding.code)
                .skip(2)
                .collect::<Vec<_>>()
        };
        plant.accepted = vec![entry.clone()];
        assert_eq!(found(&plant), ["PC0192"]);
        let says = |words: &str| Acceptance {
            says: Some(words.to_owned()),
            ..entry.clone()
        };
        plant.accepted = vec![says(&one)];
        assert_eq!(found(&plant), [""; 0]);
        plant.accepted = vec![says(&one), says(&other), says("neither")];
        assert_eq!(found(&plant), ["PC0191"]);
    }
}
