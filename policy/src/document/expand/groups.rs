//! Groups: assets and zones that are named together, and the three places where a group stands for its members.
//!
//! A group is a list under a name. Templates add to it, so that what a station has for the centre is said with the station:
//! `groups: { station-zones: zone:$(station).control }`. Where a group is written, its members stand: as `source` and
//! `destination` of a flow as they are, `behind` an interface as zones. A group holds no group.

use std::collections::{BTreeMap, HashMap};

use super::Budget;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::limits::{GROUP_MEMBERS_MAX, LIST_ITEMS_MAX};
use crate::document::node::{Entry, Kind, Node, excerpt};
use crate::document::read::wrong_shape;
use crate::document::suggest;
use crate::ids::check_name;

/// How a group is written where its members are meant.
const PREFIX: &str = "group:";
/// How a zone is written among members.
const ZONE: &str = "zone:";

/// Where a group stands for its members.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Use {
    /// An end of a flow.
    End,
    /// Behind an interface.
    Behind,
}

/// The members of all groups.
pub(super) struct Members {
    groups: BTreeMap<String, Vec<Member>>,
    /// Where each member of a group was named first.
    named: HashMap<(String, String), Place>,
}

struct Member {
    text: String,
    place: Place,
}

impl Members {
    /// What the document itself says of groups.
    pub(super) fn of(things: Vec<Entry>, faults: &mut Faults) -> Self {
        let mut members = Self {
            groups: BTreeMap::new(),
            named: HashMap::new(),
        };
        for thing in things {
            let value = thing.value.clone();
            members.add(&thing, value, faults);
        }
        members
    }

    /// Adds to a group.
    pub(super) fn add(&mut self, group: &Entry, more: Node, faults: &mut Faults) {
        if let Err(error) = check_name(&group.key) {
            faults.add(Fault::new(Code::BadName, group.key_place, error.to_string()));
            return;
        }
        let items = match more.kind {
            Kind::List(items) if items.is_empty() => {
                faults.add(
                    Fault::new(Code::EmptyList, more.place, "the list is empty")
                        .label("nothing in it")
                        .help("an empty group stands for nothing: fill it, or remove the key"),
                );
                return;
            }
            Kind::List(items) => items,
            kind => vec![Node {
                place: more.place,
                kind,
            }],
        };
        for item in items {
            let Kind::Scalar { text, .. } = &item.kind else {
                wrong_shape(&item, "an asset or `zone:NAME`", faults);
                continue;
            };
            if item.is_null() || text.starts_with(PREFIX) {
                faults.add(
                    Fault::new(
                        Code::GroupUnfit,
                        item.place,
                        format!("{} is not a member of a group", item.describe()),
                    )
                    .label("expected: an asset, or `zone:NAME`")
                    .help("a group holds no group: name what is in it"),
                );
                continue;
            }
            let key = (group.key.clone(), text.clone());
            if let Some(first) = self.named.get(&key) {
                faults.add(
                    Fault::new(
                        Code::RepeatedItem,
                        item.place,
                        format!("`{}` is twice in the group `{}`", excerpt(text), group.key),
                    )
                    .label("again here")
                    .related(*first, "first here")
                    .help("remove one of the two, or correct it"),
                );
                continue;
            }
            self.named.insert(key, item.place);
            let members = self.groups.entry(group.key.clone()).or_default();
            if members.len() == GROUP_MEMBERS_MAX {
                faults.add(
                    Fault::new(
                        Code::TooLarge,
                        item.place,
                        format!(
                            "the group `{}` has more than {GROUP_MEMBERS_MAX} members",
                            group.key
                        ),
                    )
                    .label("one too many")
                    .help("name the whole zone with `zone:NAME`, or divide the group"),
                );
                return;
            }
            members.push(Member {
                text: text.clone(),
                place: item.place,
            });
        }
    }

    /// Puts members in the place of their groups, all over the document.
    pub(super) fn put(&self, entries: &mut [Entry], budget: &mut Budget, faults: &mut Faults) {
        for entry in entries {
            match entry.key.as_str() {
                "gateways" => {
                    for gateway in things(&mut entry.value) {
                        for interface in things_under(&mut gateway.value, "interfaces") {
                            self.put_under(&mut interface.value, "behind", Use::Behind, budget, faults);
                        }
                    }
                }
                "conduits" => {
                    for conduit in things(&mut entry.value) {
                        for flow in things_under(&mut conduit.value, "flows") {
                            for end in ["source", "destination"] {
                                self.put_under(&mut flow.value, end, Use::End, budget, faults);
                            }
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn put_under(&self, node: &mut Node, key: &str, used: Use, budget: &mut Budget, faults: &mut Faults) {
        let Some(value) = things(node).iter_mut().find(|entry| entry.key == key) else {
            return;
        };
        let value = &mut value.value;
        let place = value.place;
        // As many as may be written there by hand; of zones behind an interface, as many as a group holds.
        let most = match used {
            Use::End => LIST_ITEMS_MAX,
            Use::Behind => GROUP_MEMBERS_MAX,
        };
        let too_many = |faults: &mut Faults| {
            let message = format!("with its groups the list has more than {most} items");
            faults.add(
                Fault::new(Code::TooLarge, place, message)
                    .label("too many")
                    .help("name the whole zone with `zone:NAME`, or divide the list"),
            );
        };
        if let Some(name) = group_named(value) {
            let name = name.to_owned();
            let items = self.members(&name, place, used, budget, faults);
            if items.as_ref().is_some_and(|items| items.len() > most) {
                too_many(faults);
            }
            value.kind = items.map_or(Kind::Broken, Kind::List);
            return;
        }
        let Kind::List(items) = &mut value.kind else {
            return;
        };
        if !items.iter().any(|item| group_named(item).is_some()) {
            return;
        }
        let mut all = Vec::new();
        for item in std::mem::take(items) {
            if all.len() > most {
                break;
            }
            match group_named(&item).map(str::to_owned) {
                None => all.push(item),
                Some(name) => {
                    all.extend(
                        self.members(&name, item.place, used, budget, faults)
                            .unwrap_or_default(),
                    );
                }
            }
        }
        if all.len() > most {
            too_many(faults);
        }
        *items = all;
    }

    /// The members of a group as they stand in its place.
    fn members(
        &self,
        name: &str,
        place: Place,
        used: Use,
        budget: &mut Budget,
        faults: &mut Faults,
    ) -> Option<Vec<Node>> {
        let Some(members) = self.groups.get(name) else {
            faults.add(
                Fault::new(
                    Code::UnknownName,
                    place,
                    format!("there is no group `{}`", excerpt(name)),
                )
                .label("unknown group")
                .help(suggest::help(name, self.groups.keys().map(String::as_str))),
            );
            return None;
        };
        let mut nodes = Vec::new();
        for member in members {
            let text = match used {
                Use::End => member.text.as_str(),
                Use::Behind => match member.text.strip_prefix(ZONE) {
                    Some(zone) => zone,
                    None => {
                        faults.add(
                            Fault::new(
                                Code::GroupUnfit,
                                place,
                                format!(
                                    "the group `{name}` holds the asset `{}`, and only zones lie behind an interface",
                                    excerpt(&member.text)
                                ),
                            )
                            .label("a group of zones is expected")
                            .related(member.place, "the asset")
                            .help("name its zone in the group, `zone:NAME`, or another group here"),
                        );
                        return None;
                    }
                },
            };
            if budget.take(text.len()).is_none() {
                let message = format!(
                    "with the group `{name}` the document is larger, written out, than {}",
                    crate::document::limits::in_words()
                );
                faults.add(
                    Fault::new(Code::TooLarge, place, message).help("name the whole zone with `zone:NAME`"),
                );
                return None;
            }
            nodes.push(Node {
                place,
                kind: Kind::Scalar {
                    text: text.to_owned(),
                    plain: true,
                },
            });
        }
        Some(nodes)
    }
}

/// The group that a value names.
fn group_named(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Scalar { text, .. } => text.strip_prefix(PREFIX),
        _ => None,
    }
}

fn things(node: &mut Node) -> &mut [Entry] {
    match &mut node.kind {
        Kind::Mapping(entries) => entries,
        _ => &mut [],
    }
}

fn things_under<'a>(node: &'a mut Node, key: &str) -> &'a mut [Entry] {
    things(node)
        .iter_mut()
        .find(|entry| entry.key == key)
        .map_or(&mut [], |entry| things(&mut entry.value))
}
