//! Plant documents from disk or from git: the files with their bytes, before anything is made of them.
//!
//! Each file has two names: the one by which a person finds it, and the one relative to the document's root,
//! which goes into releases and so must not depend on where somebody keeps their files.

use std::path::{Path, PathBuf};
use std::process::Command;

use penstock_policy::document::limits;
use penstock_policy::ids::Digest;
use penstock_policy::release;

use crate::failure::Failure;
use crate::files;

/// Most files of a document.
pub const FILES_MAX: usize = limits::FILES_MAX;
/// Largest document, all files together, bytes.
pub const BYTES_MAX: u64 = limits::DOCUMENT_BYTES_MAX as u64;
/// How deep folders may lie in one another.
const DEPTH_MAX: usize = 8;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Relative to the document's root, with `/`.
    pub name: String,
    /// As a person finds it.
    pub shown: String,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// The files of a document, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// Sorted by name, never empty.
    pub files: Vec<File>,
}

/// Why there is no document to read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    /// A file or folder.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// One of the files.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// Nothing there.
    #[error("{0} holds no plant document: no file that ends in .yaml or .yml")]
    Empty(PathBuf),
    /// Too many files, too deep, or too large.
    #[error("{path} is too large for a plant document: {what}")]
    TooLarge {
        /// The folder.
        path: PathBuf,
        /// Which limit.
        what: String,
    },
    /// git refused or is not there.
    #[error("git cannot show {path} at {revision}: {why}")]
    Git {
        /// The document.
        path: PathBuf,
        /// The revision.
        revision: String,
        /// What git said.
        why: String,
    },
}

impl From<DocumentsError> for Failure {
    fn from(error: DocumentsError) -> Self {
        let message = error.to_string();
        match error {
            DocumentsError::File(error) => error.into(),
            DocumentsError::Read { source, .. } => Self::local("document-unreadable", message)
                .caused_by(&source)
                .help("name a YAML file, or a folder of them; `penstock init DIR` writes one to start from"),
            DocumentsError::Empty(_) => Self::local("document-empty", message)
                .help("`penstock init DIR` writes a plant document to start from"),
            DocumentsError::TooLarge { .. } => Self::local("document-too-large", message),
            DocumentsError::Git { .. } => Self::local("git-failed", message),
        }
    }
}

impl Documents {
    /// From a file or a folder.
    pub fn read(path: &Path) -> Result<Self, DocumentsError> {
        let failed = |source| DocumentsError::Read {
            path: path.to_owned(),
            source,
        };
        if !std::fs::metadata(path).map_err(failed)?.is_dir() {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let content = files::read(path, BYTES_MAX)?;
            return Ok(Self {
                files: vec![File {
                    name,
                    shown: path.display().to_string(),
                    content,
                }],
            });
        }
        let mut names = Vec::new();
        walk(path, path, 0, &mut names)?;
        names.sort();
        let mut left = BYTES_MAX;
        let mut read = Vec::new();
        for name in names {
            let full = path.join(&name);
            let content = files::read(&full, left)?;
            left -= content.len() as u64;
            read.push(File {
                name,
                shown: full.display().to_string(),
                content,
            });
        }
        Self::of(path, read)
    }

    /// From a revision of the git repository that `path` lies in.
    pub fn read_git(path: &Path, revision: &str) -> Result<Self, DocumentsError> {
        let git = Git { path, revision };
        // What begins with a dash would be taken for an option.
        if revision.starts_with('-') {
            return Err(git.failed("this is no revision"));
        }
        let is_folder = path.is_dir();
        let folder = if is_folder {
            path
        } else {
            path.parent().unwrap_or(Path::new(""))
        };
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let mut read = Vec::new();
        if is_folder {
            let listed = git.run(
                folder,
                &["ls-tree", "-r", "-z", "--name-only", revision, "--", "."],
            )?;
            for name in listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
                let name = String::from_utf8_lossy(name).into_owned();
                if is_document(Path::new(&name)) {
                    let content = git.run(folder, &["show", &format!("{revision}:./{name}")])?;
                    read.push(File {
                        shown: format!("{revision}:{name}"),
                        name,
                        content,
                    });
                }
                if read.len() > FILES_MAX {
                    return Err(too_many(path));
                }
            }
            read.sort_by(|a, b| a.name.cmp(&b.name));
        } else {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let content = git.run(folder, &["show", &format!("{revision}:./{name}")])?;
            read.push(File {
                shown: format!("{revision}:{name}"),
                name,
                content,
            });
        }
        Self::of(path, read)
    }

    /// From files that came with a release; `origin` names where.
    pub fn received(origin: &str, received: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let mut files: Vec<File> = received
            .into_iter()
            .map(|(name, content)| File {
                shown: format!("{origin}:{name}"),
                name,
                content,
            })
            .collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Self { files }
    }

    fn of(path: &Path, files: Vec<File>) -> Result<Self, DocumentsError> {
        if files.is_empty() {
            return Err(DocumentsError::Empty(path.to_owned()));
        }
        Ok(Self { files })
    }

    /// The digest that a release states.
    pub fn digest(&self) -> Digest {
        let files: Vec<release::DocumentFile<'_>> = self
            .files
            .iter()
            .map(|file| release::DocumentFile {
                name: &file.name,
                content: &file.content,
            })
            .collect();
        release::document_digest(&files)
    }
}

fn is_document(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "yaml" || end == "yml")
}

fn too_many(path: &Path) -> DocumentsError {
    DocumentsError::TooLarge {
        path: path.to_owned(),
        what: format!("more than {FILES_MAX} files"),
    }
}

/// Collects names of YAML files below `root`, without hidden ones.
fn walk(root: &Path, folder: &Path, depth: usize, names: &mut Vec<String>) -> Result<(), DocumentsError> {
    let failed = |source| DocumentsError::Read {
        path: folder.to_owned(),
        source,
    };
    if depth > DEPTH_MAX {
        return Err(DocumentsError::TooLarge {
            path: root.to_owned(),
            what: format!("folders lie more than {DEPTH_MAX} deep"),
        });
    }
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        let kind = std::fs::metadata(&path).map_err(|source| DocumentsError::Read {
            path: path.clone(),
            source,
        })?;
        if kind.is_dir() {
            walk(root, &path, depth + 1, names)?;
        } else if is_document(&path) {
            let relative = path.strip_prefix(root).unwrap_or(&path);
            let parts: Vec<_> = relative
                .components()
                .map(|c| c.as_os_str().to_string_lossy())
                .collect();
            names.push(parts.join("/"));
        }
        if names.len() > FILES_MAX {
            return Err(too_many(root));
        }
    }
    Ok(())
}

/// git, asked about one document at one revision.
struct Git<'a> {
    path: &'a Path,
    revision: &'a str,
}

impl Git<'_> {
    fn failed(&self, why: impl Into<String>) -> DocumentsError {
        DocumentsError::Git {
            path: self.path.to_owned(),
            revision: self.revision.to_owned(),
            why: why.into(),
        }
    }

    fn run(&self, folder: &Path, arguments: &[&str]) -> Result<Vec<u8>, DocumentsError> {
        let output = Command::new("git")
            .arg("-C")
            .arg(folder)
            .args(arguments)
            .output()
            .map_err(|error| self.failed(format!("it cannot be started ({error})")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(self.failed(said.lines().next().unwrap_or("it failed without a word")));
        }
        if output.stdout.len() as u64 > BYTES_MAX {
            return Err(DocumentsError::TooLarge {
                path: self.path.to_owned(),
                what: format!("more than {BYTES_MAX} bytes"),
            });
        }
        Ok(output.stdout)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_folder_is_its_yaml_files_by_name_wherever_it_lies() {
        let one = tempfile::tempdir().unwrap();
        let two = tempfile::tempdir().unwrap();
        for folder in [one.path(), two.path()] {
            std::fs::create_dir_all(folder.join("zones")).unwrap();
            std::fs::write(folder.join("zones/b.yml"), "b").unwrap();
            std::fs::write(folder.join("a.yaml"), "a").unwrap();
            std::fs::write(folder.join("a.key"), "secret").unwrap();
            std::fs::write(folder.join(".hidden.yaml"), "h").unwrap();
        }
        let read = Documents::read(one.path()).unwrap();
        let names: Vec<_> = read.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a.yaml", "zones/b.yml"]);
        assert_eq!(read.digest(), Documents::read(two.path()).unwrap().digest());
    }

    #[test]
    fn a_folder_without_documents_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            Documents::read(folder.path()),
            Err(DocumentsError::Empty(_))
        ));
        assert!(matches!(
            Documents::read(&folder.path().join("no")),
            Err(DocumentsError::Read { .. })
        ));
    }
}
