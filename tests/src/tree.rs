//! The source tree as it is: its files as git knows them, with those that are about to be added.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the repository lies.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the tests lie in the repository")
        .to_path_buf()
}

/// Every file that the repository holds, as paths from its root.
pub fn files() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the repository's files");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git ls-files: {said}");
    let files: Vec<String> = String::from_utf8(output.stdout)
        .expect("paths are UTF-8")
        .lines()
        .filter(|file| root().join(file).is_file())
        .map(str::to_owned)
        .collect();
    assert!(files.len() > 20, "git knows only {} files here", files.len());
    files
}

/// What a file holds; `None` if that is not text.
pub fn text(file: &str) -> Option<String> {
    let bytes = std::fs::read(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    String::from_utf8(bytes).ok()
}
