//! Which files of a folder belong to a plant document: the same on disk, in a git revision and in a release.

/// Whether a file with this path below the document's folder, with `/` between its parts, belongs to the document: it ends
/// in `.yaml` or `.yml`, in either case, and no part of the path begins with a dot.
pub fn counts(path: &str) -> bool {
    let hidden = path
        .split('/')
        .any(|part| part.is_empty() || part.starts_with('.'));
    let ending = path.rsplit_once('.').map(|(_, ending)| ending);
    let is_yaml = |ending: &str| ending.eq_ignore_ascii_case("yaml") || ending.eq_ignore_ascii_case("yml");
    !hidden && ending.is_some_and(is_yaml)
}

#[cfg(test)]
mod tests {
    use super::counts;

    #[test]
    fn a_documents_files_end_in_yaml_in_either_case_and_none_of_their_folders_is_hidden() {
        for name in ["a.yaml", "zones/b.yml", "C.YAML", "d.e/f.Yml", "a..yaml"] {
            assert!(counts(name), "{name}");
        }
        for name in [
            "",
            ".yaml",
            ".a.yaml",
            ".git/a.yaml",
            "zones/.b.yml",
            "a.yaml~",
            "a.key",
            "yaml",
            "a.yaml.orig",
            "../a.yaml",
            "/a.yaml",
            "a//b.yaml",
            "./a.yaml",
        ] {
            assert!(!counts(name), "{name}");
        }
    }
}
