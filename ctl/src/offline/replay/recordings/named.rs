//! Which recordings a command line names: files as a shell lists them, patterns that no shell has expanded, and which of the names is
//! the plant's.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Endings of plant documents.
const DOCUMENT_ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// The plant among `paths`, and the recordings: the plant is a folder or ends in `.yaml`; where only one thing is named, it is that.
pub(in crate::offline::replay) fn parted(
    mut paths: Vec<PathBuf>,
) -> Result<(PathBuf, Vec<PathBuf>), Failure> {
    let is_document = |path: &Path| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        path.is_dir() || ending.is_some_and(|ending| DOCUMENT_ENDINGS.contains(&ending))
    };
    let mut plants = (0..paths.len()).filter(|at| paths.get(*at).is_some_and(|path| is_document(path)));
    let at = match (plants.next(), plants.next()) {
        (Some(at), None) => at,
        (None, _) if paths.len() == 1 => 0,
        (None, _) => {
            return Err(Failure::usage(
                "no plant is named: none of the names ends in `.yaml`, or is a folder",
            )
            .help("write `penstock replay PLANT RECORDING...`"));
        }
        (Some(_), Some(_)) => {
            return Err(
                Failure::usage("more than one plant is named, and a recording is judged by one")
                    .help("name one folder or file that ends in `.yaml`"),
            );
        }
    };
    let plant = paths.remove(at);
    Ok((plant, paths))
}

/// The files that are named: a name with `*` or `?` that is no file stands for those in its folder that it matches.
pub(in crate::offline::replay) fn expanded(files: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut all = Vec::new();
    for file in files {
        let pattern = file.file_name().and_then(|name| name.to_str());
        let Some(pattern) = pattern.filter(|name| name.contains(['*', '?']) && !file.exists()) else {
            all.push(file.clone());
            continue;
        };
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let shown = file.display();
        let listed = std::fs::read_dir(folder.unwrap_or(Path::new("."))).map_err(|error| {
            Failure::local(
                "capture-unreadable",
                format!("the captures {shown} cannot be listed"),
            )
            .because(error.to_string())
        })?;
        let names = listed.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut found: Vec<PathBuf> = names
            .filter(|name| matches(pattern, name))
            .map(|name| file.with_file_name(name))
            .collect();
        if found.is_empty() {
            return Err(
                Failure::local("capture-unreadable", format!("no file matches {shown}"))
                    .help("look with `ls` whether the folder and the pattern are right"),
            );
        }
        found.sort();
        all.extend(found);
    }
    // Who is named twice was recorded once.
    let mut once = std::collections::BTreeSet::new();
    all.retain(|file| once.insert(file.clone()));
    Ok(all)
}

/// Whether a name fits a pattern, as a shell would say; a name that begins with a dot does not fit a `*`.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Where the last `*` stands, and what it has taken so far: only that one is tried again.
    let (mut at, mut place, mut star) = (0, 0, None);
    while place < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, place));
                at += 1;
            }
            Some('?') => (at, place) = (at + 1, place + 1),
            Some(letter) if name.get(place) == Some(letter) => (at, place) = (at + 1, place + 1),
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    (at, place) = (star_at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_pattern_matches_as_in_a_shell() {
        for (pattern, name, fits) in [
            ("*.pcap", "monday.pcap", true),
            ("*.pcap", "monday.pcapng", false),
            ("day-?.pcap*", "day-1.pcapng", true),
            ("day-?.pcap*", "day-10.pcapng", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("*", ".hidden", false),
            ("?", "", false),
            ("**", "", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn the_plant_is_found_wherever_it_stands_among_recordings() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let (plant, rest) = parted(paths(&["b.pcap", "c.pcap", "plant.yaml"])).unwrap();
        assert_eq!((plant, rest), ("plant.yaml".into(), paths(&["b.pcap", "c.pcap"])));
        assert_eq!(parted(paths(&["nowhere"])).unwrap().0, PathBuf::from("nowhere"));
        assert!(parted(paths(&["a.pcap", "b.pcap"])).is_err());
        assert!(parted(paths(&["a.yaml", "b.yaml"])).is_err());
    }
}
