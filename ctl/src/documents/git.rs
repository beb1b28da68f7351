//! Documents in a revision of the git repository that they lie in.
//!
//! Which repository that is, the document's path alone says: what git leaves in the environment of a hook, or of an alias, is
//! about another question and is not passed on. Links are followed within the revision; one that leads out of the repository
//! is refused where it could belong to the document, since what it held at that revision nobody recorded.

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use penstock_policy::document::files::counts;

use super::{DocumentsError, Entries, Kind, Tree, own_name};

/// What `git rev-parse --local-env-vars` lists.
const ENVIRONMENT: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR",
    "GIT_INTERNAL_SUPER_PREFIX",
];

/// One revision of a repository.
pub(super) struct Git<'a> {
    path: &'a Path,
    revision: &'a str,
    /// Where git is started: the document's folder, or the one that it lies in.
    folder: PathBuf,
    /// The root of the working tree.
    top: PathBuf,
    /// The revision's root folder, as an object's name.
    tree: String,
}

/// Something in it.
pub(super) struct GitPlace {
    /// From the root of the repository, without a slash at its end.
    path: Vec<u8>,
    found: GitObject,
}

enum GitObject {
    /// A file, with its bytes.
    Blob(String, u64),
    Tree(String),
    /// A link that leads out of the repository.
    Outside(String),
    /// Something else, in words.
    Other(String),
}

impl<'a> Git<'a> {
    /// Finds the repository and the revision; also the document's place in it.
    pub(super) fn open(path: &'a Path, revision: &'a str) -> Result<(Self, GitPlace), DocumentsError> {
        let is_folder = path.is_dir();
        let folder = match path.parent() {
            _ if is_folder => path,
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut git = Self {
            path,
            revision,
            folder: folder.to_owned(),
            top: PathBuf::new(),
            tree: String::new(),
        };
        git.top = PathBuf::from(git.line(&["rev-parse", "--show-toplevel"])?);
        let prefix = git.line(&["rev-parse", "--show-prefix"])?;
        let verified = |what: &str| git.line(&["rev-parse", "--verify", "--quiet", "--end-of-options", what]);
        git.tree = verified(revision)
            .and_then(|object| verified(&format!("{object}^{{tree}}")))
            .map_err(|_| git.failed("the repository knows no such revision"))?;
        let mut at = prefix.trim_end_matches('/').as_bytes().to_vec();
        if !is_folder {
            let name = path.file_name().unwrap_or_default().as_bytes();
            at = below(&at, name);
        }
        let found = match at.as_slice() {
            [] => GitObject::Tree(git.tree.clone()),
            at => git.followed(at)?,
        };
        match found {
            GitObject::Blob(..) | GitObject::Tree(_) => Ok((git, GitPlace { path: at, found })),
            GitObject::Outside(target) => Err(git.failed(outside(&target))),
            GitObject::Other(what) => Err(git.failed(format!("{} {what}", own_name(path)))),
        }
    }

    fn failed(&self, why: impl Into<String>) -> DocumentsError {
        DocumentsError::Git {
            path: self.path.to_owned(),
            revision: self.revision.to_owned(),
            why: why.into(),
        }
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, DocumentsError> {
        let mut command = Command::new("git");
        for name in ENVIRONMENT {
            command.env_remove(name);
        }
        let started = command
            .arg("-C")
            .arg(&self.folder)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let output = started.and_then(|mut git| {
            // At most one name: less than a pipe holds.
            if let Some(mut pipe) = git.stdin.take() {
                pipe.write_all(input)?;
            }
            git.wait_with_output()
        });
        let Output {
            status,
            stdout,
            stderr,
        } = output.map_err(|error| self.failed(format!("it cannot be run ({error})")))?;
        if !status.success() {
            let said = String::from_utf8_lossy(&stderr);
            return Err(self.failed(said.lines().next().unwrap_or("it failed without a word")));
        }
        Ok(stdout)
    }

    /// The one line that git answers.
    fn line(&self, arguments: &[&str]) -> Result<String, DocumentsError> {
        let line = String::from_utf8(self.run(arguments, b"")?)
            .map_err(|_| self.failed("the repository's path is not UTF-8"))?;
        Ok(line.strip_suffix('\n').unwrap_or(&line).to_owned())
    }

    /// A file whose object's name and size stand in `fields` from `at` on.
    fn blob(&self, fields: &[&str], at: usize) -> Result<GitObject, DocumentsError> {
        let object = fields.get(at).map(|object| (*object).to_owned());
        let bytes = fields.get(at + 1).and_then(|bytes| bytes.parse().ok());
        let found = object
            .zip(bytes)
            .map(|(object, bytes)| GitObject::Blob(object, bytes));
        found.ok_or_else(|| self.failed("its list of files is not understood"))
    }

    /// What lies at a path from the root of the repository, links followed.
    fn followed(&self, path: &[u8]) -> Result<GitObject, DocumentsError> {
        if path.contains(&b'\n') {
            return Ok(GitObject::Other("has a line break in its name".to_owned()));
        }
        let asked = [self.tree.as_bytes(), b":", path, b"\n"].concat();
        let answer = self.run(
            &[
                "cat-file",
                "--batch-check=%(objecttype) %(objectname) %(objectsize)",
                "--follow-symlinks",
            ],
            &asked,
        )?;
        let answer = String::from_utf8_lossy(&answer);
        let (first, rest) = answer.split_once('\n').unwrap_or((&answer, ""));
        let fields: Vec<&str> = first.split(' ').collect();
        Ok(match *fields.first().unwrap_or(&"") {
            "blob" => self.blob(&fields, 1)?,
            "tree" => GitObject::Tree((*fields.get(1).unwrap_or(&"")).to_owned()),
            "symlink" => GitObject::Outside(rest.trim_end_matches('\n').to_owned()),
            "dangling" | "notdir" => {
                GitObject::Other("is a link to a file that is not in that revision".to_owned())
            }
            "loop" => GitObject::Other("is a link that leads back to itself".to_owned()),
            "commit" => GitObject::Other(SUBMODULE.to_owned()),
            _ => GitObject::Other("is not in that revision".to_owned()),
        })
    }
}

const SUBMODULE: &str = "is a submodule, whose files another repository holds";

/// The path of what lies in a folder, from the root of the repository.
fn below(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder {
        [] => name.to_vec(),
        folder => [folder, b"/", name].concat(),
    }
}

fn outside(target: &str) -> String {
    format!("is a link to {target}, outside of the repository: what it held at that revision is not recorded")
}

impl Tree for Git<'_> {
    type Place = GitPlace;

    fn entries(&self, folder: &GitPlace) -> Result<Entries<GitPlace>, DocumentsError> {
        let GitObject::Tree(tree) = &folder.found else {
            return Ok(Vec::new());
        };
        let listed = self.run(&["ls-tree", "-z", "-l", "--full-tree", tree], b"")?;
        let mut entries = Vec::new();
        // Each: mode, type, name of the object, size (padded), tab, name.
        for line in listed.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
            let mut halves = line.splitn(2, |byte| *byte == b'\t');
            let (Some(what), Some(name)) = (halves.next(), halves.next()) else {
                return Err(self.failed("its list of files is not understood"));
            };
            let path = below(&folder.path, name);
            let what = String::from_utf8_lossy(what);
            let fields: Vec<&str> = what.split_ascii_whitespace().collect();
            let found = match fields.as_slice() {
                // Hidden names are not asked about.
                ["120000", ..] if !name.starts_with(b".") => self.followed(&path)?,
                [_, "blob", ..] => self.blob(&fields, 2)?,
                [_, "tree", object, ..] => GitObject::Tree((*object).to_owned()),
                _ => GitObject::Other(SUBMODULE.to_owned()),
            };
            entries.push((name.to_vec(), GitPlace { path, found }));
        }
        Ok(entries)
    }

    fn kind(&self, place: &GitPlace) -> Result<Kind, DocumentsError> {
        let shown = String::from_utf8_lossy(&place.path);
        match &place.found {
            GitObject::Blob(..) => Ok(Kind::File),
            GitObject::Tree(_) => Ok(Kind::Folder),
            GitObject::Other(what) if what == SUBMODULE => Err(self.failed(format!("{shown} {what}"))),
            GitObject::Other(what) => Ok(Kind::Other(what.clone())),
            // It may have been a folder with documents: git cannot tell, but the working tree tells what it is now.
            GitObject::Outside(target) => {
                let folder = self.top.join(shown.as_ref());
                let is_folder = folder.parent().is_some_and(|around| around.join(target).is_dir());
                match is_folder || counts(&own_name(&folder)) {
                    true => Err(self.failed(format!("{shown} {}", outside(target)))),
                    false => Ok(Kind::Other(outside(target))),
                }
            }
        }
    }

    fn content(&self, place: &GitPlace, max: u64) -> Result<Vec<u8>, DocumentsError> {
        let GitObject::Blob(object, bytes) = &place.found else {
            return Err(self.failed("it is not a file"));
        };
        if *bytes > max {
            return Err(DocumentsError::TooLarge {
                path: self.path.to_owned(),
                what: format!("more than {} bytes at {}", super::BYTES_MAX, self.revision),
            });
        }
        self.run(&["cat-file", "blob", object], b"")
    }
}
