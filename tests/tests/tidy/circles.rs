//! Rooms that lie beside each other do not need each other in a circle; those that still do are listed, with the reason.
//!
//! A room is a module with all below it. What a file uses is read from its paths (`crate::`, `super::`, `self::`, and its imports),
//! through re-exports. A room and the parts within it are one: parts may use what their room offers.

use std::collections::{BTreeMap, BTreeSet};

use super::{code, is_test, none, rust_files};

/// The circles that remain: the folder, the rooms in it, and why.
const CIRCLES: &[(&str, &str, &str)] = &[
    (
        "agent/src/enforce",
        "error ground",
        "why a plan is not in force names what the ground fails by, and the ground fails for reasons of the others too",
    ),
    (
        "agent/src/inspector",
        "seats session",
        "who wants a seat learns why it was taken away, by the word of a session for how it ended",
    ),
    (
        "inspect/src",
        "connection follow judge learn operation protocols query replay",
        "an inspector speaks of all that a protocol has, and each of these asks the list of inspectors for its part of it",
    ),
    (
        "inspect/src/capture",
        "carriers fragments link",
        "a packet is in a frame or in another packet, and what was in fragments is a packet again",
    ),
    (
        "lab/src",
        "daemon namespace",
        "a namespace starts daemons, and asks them for what listens in it",
    ),
    (
        "policy/src",
        "document validate",
        "the way in reads a document and has it judged, by the records that were read",
    ),
    (
        "policy/src/diff",
        "gateway granted record",
        "a record's fields are compared in one way, those of gateways and grants in their own",
    ),
    (
        "policy/src/document",
        "read scalars",
        "a term may be a scalar, and the keys of a record are judged as scalars are",
    ),
    (
        "policy/src/release",
        "chain verify",
        "an offer is verified by its chain, and each link of a chain as a release is",
    ),
    (
        "proto/src",
        "audit event",
        "what a seal says is described as each event is, and who verifies a trail asks which events its source may write",
    ),
];

/// A module: where it lies in its crate.
type Module = Vec<String>;

/// What a file says of others.
#[derive(Default)]
struct Source {
    /// Paths that it names anywhere.
    named: Vec<Vec<String>>,
    /// Its imports, by the name that they have in it.
    imported: BTreeMap<String, Vec<String>>,
}

/// One crate's files.
struct Tree(BTreeMap<Module, Source>);

fn tokens(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in code(text).lines() {
        let mut word = String::new();
        for letter in line.split("//").next().unwrap_or_default().chars() {
            if letter.is_alphanumeric() || letter == '_' {
                word.push(letter);
                continue;
            }
            if !word.is_empty() {
                found.push(std::mem::take(&mut word));
            }
            match found.last_mut() {
                Some(last) if letter == ':' && last == ":" => *last = "::".to_owned(),
                _ if !letter.is_whitespace() => found.push(letter.to_string()),
                _ => {}
            }
        }
        if !word.is_empty() {
            found.push(word);
        }
    }
    found
}

/// Reads a path, or a tree of them, that begins at the first token; how many tokens it took.
fn paths(tokens: &[String], before: &[String], found: &mut Vec<(Vec<String>, String)>) -> usize {
    let mut path = before.to_vec();
    let mut at = 0;
    loop {
        if tokens[at] == "{" {
            at += 1;
            while tokens[at] != "}" {
                at += paths(&tokens[at..], &path, found);
                at += usize::from(tokens[at] == ",");
            }
            return at + 1;
        }
        if tokens[at] != "self" || path.is_empty() {
            path.push(tokens[at].clone());
        }
        at += 1;
        if tokens.get(at).is_none_or(|next| next != "::") || at + 1 == tokens.len() {
            break;
        }
        at += 1;
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if tokens.get(at).is_some_and(|next| next == "as") {
        name = tokens[at + 1].clone();
        at += 2;
    }
    found.push((path, name));
    at
}

fn source(text: &str) -> Source {
    let tokens = tokens(text);
    let mut source = Source::default();
    let mut at = 0;
    while at < tokens.len() {
        let mut found = Vec::new();
        let begins = at == 0 || tokens[at - 1] != "::";
        if tokens[at] == "use" && begins {
            at += 1 + paths(&tokens[at + 1..], &[], &mut found);
            source.named.extend(found.iter().map(|(path, _)| path.clone()));
            source
                .imported
                .extend(found.into_iter().map(|(path, name)| (name, path)));
            continue;
        }
        let is_way = tokens.get(at + 1).is_some_and(|next| next == "::");
        if begins && is_way && matches!(tokens[at].as_str(), "crate" | "super" | "self") {
            at += paths(&tokens[at..], &[], &mut found);
            source.named.extend(found.into_iter().map(|(path, _)| path));
            continue;
        }
        at += 1;
    }
    source
}

/// The parts of a room that only tests are built with.
fn parts_of_tests(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().zip(text.lines().skip(1));
    let tests = lines.filter(|(line, _)| *line == "#[cfg(test)]");
    tests.filter_map(|(_, next)| next.split_once("mod ")?.1.strip_suffix(';'))
}

impl Tree {
    fn of(folder: &str, files: &[(String, String)]) -> Self {
        let mut tree = BTreeMap::new();
        let mut of_tests = Vec::new();
        for (file, text) in files {
            let Some(within) = file.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) else {
                continue;
            };
            if is_test(file) {
                continue;
            }
            let within = within.trim_end_matches(".rs");
            let module = match within {
                "lib" | "main" => Module::new(),
                _ => within.split('/').map(str::to_owned).collect(),
            };
            for part in parts_of_tests(text) {
                of_tests.push([module.as_slice(), &[part.to_owned()]].concat());
            }
            let Source { named, imported } = source(text);
            let known: &mut Source = tree.entry(module).or_default();
            known.named.extend(named);
            known.imported.extend(imported);
        }
        // What only tests are built with may know anything.
        tree.retain(|module: &Module, _| !of_tests.iter().any(|part| module.starts_with(part)));
        Self(tree)
    }

    /// The module in which what `path` names from `from` stands; `None`: in another crate, or it goes round.
    fn place(&self, from: &[String], path: &[String], depth: usize) -> Option<Module> {
        let (mut at, mut rest) = match path.first()?.as_str() {
            "crate" => (Module::new(), &path[1..]),
            "self" => (from.to_vec(), &path[1..]),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                (from.get(..from.len().checked_sub(ups)?)?.to_vec(), &path[ups..])
            }
            first => {
                let child = [from, &[first.to_owned()]].concat();
                self.0.get(&child)?;
                (from.to_vec(), path)
            }
        };
        while let Some(name) = rest.first() {
            let child = [at.as_slice(), std::slice::from_ref(name)].concat();
            if self.0.contains_key(&child) {
                (at, rest) = (child, &rest[1..]);
                continue;
            }
            let meant = self.0.get(&at).and_then(|source| source.imported.get(name));
            if let Some(meant) = meant.filter(|meant| depth < 8 && meant.as_slice() != path) {
                return self.place(&at, &[meant, &rest[1..]].concat(), depth + 1);
            }
            break;
        }
        Some(at)
    }

    /// For each folder, which of its rooms use which.
    fn uses(&self) -> BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> {
        let mut uses: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (module, source) in &self.0 {
            for path in &source.named {
                let Some(place) = self.place(module, path, 0) else {
                    continue;
                };
                let common = module.iter().zip(&place).take_while(|(a, b)| a == b).count();
                if let (Some(user), Some(used)) = (module.get(common), place.get(common)) {
                    let rooms = uses.entry(module[..common].to_vec()).or_default();
                    rooms.entry(user.clone()).or_default().insert(used.clone());
                }
            }
        }
        uses
    }
}

fn reached<'a>(uses: &'a BTreeMap<String, BTreeSet<String>>, from: &'a str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut next = vec![from];
    while let Some(room) = next.pop() {
        for used in uses.get(room).into_iter().flatten() {
            if found.insert(used.as_str()) {
                next.push(used);
            }
        }
    }
    found
}

#[test]
fn rooms_beside_each_other_need_each_other_in_no_circle_but_those_listed() {
    let files = rust_files();
    let mut circles: BTreeSet<(String, String)> = BTreeSet::new();
    for of in [
        "policy",
        "inspect",
        "proto",
        "agent",
        "coordinator",
        "picture",
        "lab",
        "ctl",
    ] {
        let root = format!("{of}/src");
        let tree = Tree::of(&root, &files);
        assert!(tree.0.len() > 3, "{of} has hardly a file");
        for (folder, uses) in tree.uses() {
            for room in uses.keys() {
                let circle: Vec<&str> = reached(&uses, room)
                    .into_iter()
                    .filter(|other| reached(&uses, other).contains(room.as_str()))
                    .collect();
                if circle.len() > 1 {
                    let folder = [std::slice::from_ref(&root), folder.as_slice()]
                        .concat()
                        .join("/");
                    circles.insert((folder, circle.join(" ")));
                }
            }
        }
    }
    let listed: BTreeSet<(String, String)> = CIRCLES
        .iter()
        .map(|(folder, rooms, _)| ((*folder).to_owned(), (*rooms).to_owned()))
        .collect();
    let mut faults: Vec<String> = Vec::new();
    for (folder, rooms) in circles.difference(&listed) {
        faults.push(format!(
            "{folder}: these rooms need each other in a circle: {rooms}"
        ));
    }
    for (folder, rooms) in listed.difference(&circles) {
        faults.push(format!(
            "{folder}: {rooms} are no circle any more: take them off the list"
        ));
    }
    none(faults);
}

#[test]
fn a_circle_is_found_through_what_a_folder_offers_of_its_parts() {
    let file = |name: &str, text: &str| (format!("toy/src/{name}.rs"), text.to_owned());
    let files = [
        file("lib", "mod a; mod b;"),
        file("a", "mod part; pub use self::part::{Thing, Other as Else};"),
        file("a/part", "use crate::b::Whole; // crate::c::Remark"),
        file("b", "fn whole() { crate::a::Else::new() }"),
    ];
    let uses = Tree::of("toy/src", &files).uses();
    let rooms = &uses[&Module::new()];
    assert_eq!(reached(rooms, "a"), BTreeSet::from(["a", "b"]));
    assert_eq!(reached(rooms, "b"), BTreeSet::from(["a", "b"]));
}
