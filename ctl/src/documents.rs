//! Plant documents from disk or from git: the files with their bytes, before anything is made of them.
//!
//! Each file has two names: the one by which a person finds it, and the one relative to the document's root,
//! which goes into releases and so must not depend on where somebody keeps their files.
//!
//! Which files count is one rule ([`gather`], [`counts`]), whether they lie on [`disk`] or in a revision of a [`git`] repository:
//! else `diff --against` would compare a document with another one than `check` has read.

mod disk;
mod git;
#[cfg(test)]
mod tests;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use penstock_policy::document::files::counts;
use penstock_policy::document::limits;
use penstock_policy::ids::Digest;
use penstock_policy::release;

use self::disk::Disk;
use self::git::Git;
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
    /// It has the name of a document's file and is none.
    #[error("{path} {what}, so the document cannot be read as a whole")]
    NotAFile {
        /// Which.
        path: PathBuf,
        /// What it is instead.
        what: String,
    },
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
            DocumentsError::NotAFile { .. } => Self::local("document-unreadable", message)
                .help("move it out of the folder, or give it a name that does not end in .yaml or .yml"),
            DocumentsError::TooLarge { .. } => Self::local("document-too-large", message),
            DocumentsError::Git { .. } => Self::local("git-failed", message),
        }
    }
}

impl Documents {
    /// From a file or a folder.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn read(path: &Path) -> Result<Self, DocumentsError> {
        gather(&Disk, path.to_owned(), path, |name, place| match name {
            "" => place.display().to_string(),
            name => path.join(name).display().to_string(),
        })
    }

    /// From standard input, as one file.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn from_stdin() -> Result<Self, DocumentsError> {
        let path = Path::new("standard input");
        let mut content = Vec::new();
        let read = std::io::stdin()
            .lock()
            .take(BYTES_MAX + 1)
            .read_to_end(&mut content);
        read.map_err(|source| DocumentsError::Read {
            path: path.to_owned(),
            source,
        })?;
        if content.len() as u64 > BYTES_MAX {
            return Err(DocumentsError::TooLarge {
                path: path.to_owned(),
                what: limits::in_words(),
            });
        }
        Ok(Self {
            files: vec![File {
                name: "plant.yaml".to_owned(),
                shown: "<stdin>".to_owned(),
                content,
            }],
        })
    }

    /// From a revision of the git repository that `path` lies in, by the same rules.
    ///
    /// # Errors
    /// Why it cannot be read, or git cannot show it.
    pub fn read_git(path: &Path, revision: &str) -> Result<Self, DocumentsError> {
        let (git, place) = Git::open(path, revision)?;
        gather(&git, place, path, |name, _| match name {
            "" => format!("{revision}:{}", own_name(path)),
            name => format!("{revision}:{name}"),
        })
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

/// What lies in a folder, by its name's bytes.
type Entries<Place> = Vec<(Vec<u8>, Place)>;

/// Where files lie: on disk, or in a revision of a git repository. Links are followed.
trait Tree {
    /// How something in it is found again.
    type Place;

    /// What lies directly in a folder, with its name; in any order.
    fn entries(&self, folder: &Self::Place) -> Result<Entries<Self::Place>, DocumentsError>;

    /// What it is.
    fn kind(&self, place: &Self::Place) -> Result<Kind, DocumentsError>;

    /// The bytes of a file, if they are at most `max`.
    fn content(&self, place: &Self::Place, max: u64) -> Result<Vec<u8>, DocumentsError>;
}

/// What a name in a folder stands for, links followed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    /// Something else, in words.
    Other(String),
}

/// The files of the document at `root`: the one reader, wherever it lies.
///
/// A file that is named itself is read whatever its name. Of a folder count all regular files in it, and in its folders, that
/// [`counts`] says by their name. What has such a name and is no file, or cannot be found, is refused rather than left
/// out: part of a document could permit less or more than all of it.
fn gather<T: Tree>(
    tree: &T,
    root: T::Place,
    path: &Path,
    shown: impl Fn(&str, &T::Place) -> String,
) -> Result<Documents, DocumentsError> {
    if tree.kind(&root)? != Kind::Folder {
        let content = part(tree, &root, path, BYTES_MAX)?;
        let shown = shown("", &root);
        let name = own_name(path);
        return Ok(Documents {
            files: vec![File { name, shown, content }],
        });
    }
    let mut found = Vec::new();
    walk(tree, &root, path, "", 0, &mut found)?;
    if found.is_empty() {
        return Err(DocumentsError::Empty(path.to_owned()));
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut left = BYTES_MAX;
    let mut files = Vec::new();
    for (name, place) in found {
        let content = part(tree, &place, path, left)?;
        left -= content.len() as u64;
        let shown = shown(&name, &place);
        files.push(File { name, shown, content });
    }
    Ok(Documents { files })
}

/// One file of the document at `path`. What is too large is the document: a file may be of any size that is left of it.
fn part<T: Tree>(tree: &T, place: &T::Place, path: &Path, left: u64) -> Result<Vec<u8>, DocumentsError> {
    tree.content(place, left).map_err(|error| match error {
        DocumentsError::TooLarge { .. } | DocumentsError::File(files::FileError::TooLarge { .. }) => {
            DocumentsError::TooLarge {
                path: path.to_owned(),
                what: limits::in_words(),
            }
        }
        other => other,
    })
}

fn walk<T: Tree>(
    tree: &T,
    folder: &T::Place,
    root: &Path,
    prefix: &str,
    depth: usize,
    found: &mut Vec<(String, T::Place)>,
) -> Result<(), DocumentsError> {
    let too_large = |what: String| DocumentsError::TooLarge {
        path: root.to_owned(),
        what,
    };
    if depth > DEPTH_MAX {
        return Err(too_large(format!("folders lie more than {DEPTH_MAX} deep")));
    }
    for (name, place) in tree.entries(folder)? {
        if name.starts_with(b".") {
            continue;
        }
        let readable = String::from_utf8_lossy(&name);
        let full = format!("{prefix}{readable}");
        let refused = |what: String| DocumentsError::NotAFile {
            path: root.join(&full),
            what,
        };
        let kind = tree.kind(&place)?;
        let belongs = kind == Kind::Folder || counts(&readable);
        if belongs && std::str::from_utf8(&name).is_err() {
            return Err(refused("has a name that is not UTF-8".to_owned()));
        }
        match kind {
            Kind::Folder => walk(tree, &place, root, &format!("{full}/"), depth + 1, found)?,
            _ if !belongs => {}
            Kind::File => found.push((full, place)),
            Kind::Other(what) => return Err(refused(what)),
        }
        if found.len() > FILES_MAX {
            return Err(too_large(limits::in_words()));
        }
    }
    Ok(())
}

/// The last part of a path.
fn own_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
