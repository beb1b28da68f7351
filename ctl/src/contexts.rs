//! Logins on this machine: which plant, who, where its coordinators are, and the key that proves it.
//!
//! ```text
//! $XDG_CONFIG_HOME/penstock/
//!   context                   the chosen one's name
//!   contexts/NAME.toml        plant, operator, coordinators
//!   contexts/NAME.key         private key, PKCS #8 PEM, 0600; born here, never sent
//!   contexts/NAME.crt         certificate chain, leaf first, PEM
//!   contexts/NAME.roots       the plant's roots, PEM
//!   known/                    what this person verified of a plant's releases (`known.rs`)
//! ```

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use penstock_policy::ids::{OperatorId, PlantId, check_name};
use penstock_proto::channel::Address;
use penstock_proto::tls::Credentials;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::files::{self, FileError, Mode};

const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a context's file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The plant.
    pub plant: PlantId,
    /// Who is logged in: the author of what is proposed.
    pub operator: OperatorId,
    /// Where to find coordinators.
    pub coordinators: Vec<Address>,
}

/// Why a context cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// There is none.
    #[error("you are not logged in to a coordinator on this machine")]
    None,
    /// Several, and none is chosen.
    #[error("there are several logins ({0}), and none is chosen")]
    Several(String),
    /// No such.
    #[error("there is no login `{name}`; there are: {known}")]
    Unknown {
        /// The one that was asked for.
        name: String,
        /// Those there are.
        known: String,
    },
    /// Not a name.
    #[error("`{0}` cannot be the name of a login: use a-z, 0-9, `.` and `-`")]
    Name(String),
    /// Its file holds something else.
    #[error("{path} is not the file of a login")]
    Form {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: toml::de::Error,
    },
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Neither XDG_CONFIG_HOME nor HOME is set.
    #[error("neither XDG_CONFIG_HOME nor HOME says where logins are kept")]
    NoHome,
    /// Key or certificate.
    #[error("key or certificate of the login cannot be used")]
    Tls(#[from] penstock_proto::tls::TlsError),
}

impl From<ContextError> for Failure {
    fn from(error: ContextError) -> Self {
        let failure = |code| Self::local(code, error.to_string());
        match &error {
            ContextError::None => failure("no-context")
                .help("ask an administrator for a token (penstock operators add NAME --role ROLE -o FILE), then: penstock login --token FILE"),
            ContextError::Several(_) => failure("no-context")
                .help("choose one with `penstock context use NAME`, or name it with --context NAME"),
            ContextError::Unknown { .. } => failure("unknown-context"),
            ContextError::Name(_) => failure("bad-name"),
            ContextError::Form { source, .. } => failure("context-damaged").caused_by(source).help("log in again"),
            ContextError::File(_) => failure("context-unreadable")
                .caused_by(&error)
                .help("log in again if the files were lost"),
            ContextError::NoHome => failure("no-home"),
            ContextError::Tls(source) => failure("context-damaged").caused_by(source).help("log in again"),
        }
    }
}

/// Where contexts are kept.
#[derive(Debug, Clone)]
pub struct Contexts {
    root: PathBuf,
}

/// A context with its name.
#[derive(Debug, Clone)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// What its file says.
    pub context: Context,
}

impl Contexts {
    /// By XDG_CONFIG_HOME, else HOME.
    pub fn open() -> Result<Self, ContextError> {
        let set = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let base = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
        Ok(Self {
            root: base.ok_or(ContextError::NoHome)?.join("penstock"),
        })
    }

    /// In this folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder of all that is kept for this person.
    pub fn root(&self) -> &std::path::Path {
        &self.root
    }

    fn file(&self, name: &str, end: &str) -> PathBuf {
        self.root.join("contexts").join(format!("{name}.{end}"))
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join("contexts"));
        let mut names: Vec<String> = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                entry
                    .file_name()
                    .to_str()?
                    .strip_suffix(".toml")
                    .map(str::to_owned)
            })
            .filter(|name| check_name(name).is_ok())
            .collect();
        names.sort();
        names
    }

    /// The name that was chosen, if any.
    pub fn chosen(&self) -> Option<String> {
        let bytes = files::read(&self.root.join("context"), 1024).ok()?;
        Some(String::from_utf8(bytes).ok()?.trim().to_owned()).filter(|name| check_name(name).is_ok())
    }

    /// Chooses one.
    pub fn choose(&self, name: &str) -> Result<(), ContextError> {
        self.load(name)?;
        files::replace(
            &self.root.join("context"),
            format!("{name}\n").as_bytes(),
            Mode::Shared,
        )?;
        Ok(())
    }

    /// The named one, else the chosen one, else the only one.
    pub fn find(&self, name: Option<&str>) -> Result<Named, ContextError> {
        let names = self.names();
        let name = match (
            name.map(str::to_owned).or_else(|| self.chosen()),
            names.as_slice(),
        ) {
            (Some(name), _) => name,
            (None, []) => return Err(ContextError::None),
            (None, [only]) => only.clone(),
            (None, several) => return Err(ContextError::Several(several.join(", "))),
        };
        Ok(Named {
            context: self.load(&name)?,
            name,
        })
    }

    fn load(&self, name: &str) -> Result<Context, ContextError> {
        check_name(name).map_err(|_| ContextError::Name(name.to_owned()))?;
        let path = self.file(name, "toml");
        if !path.exists() {
            let known = self.names();
            if known.is_empty() {
                return Err(ContextError::None);
            }
            return Err(ContextError::Unknown {
                name: name.to_owned(),
                known: known.join(", "),
            });
        }
        let bytes = files::read(&path, FILE_BYTES_MAX)?;
        toml::from_str(&String::from_utf8_lossy(&bytes)).map_err(|source| ContextError::Form { path, source })
    }

    /// Key and certificate of a context.
    pub fn credentials(&self, name: &str) -> Result<Credentials, ContextError> {
        Ok(Credentials::from_files(
            &self.file(name, "crt"),
            &self.file(name, "key"),
        )?)
    }

    /// The plant's roots.
    pub fn roots(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, ContextError> {
        let path = self.file(name, "roots");
        let pem = files::read(&path, FILE_BYTES_MAX)?;
        Ok(penstock_proto::tls::certificates_from_pem(
            &pem,
            &path.display().to_string(),
        )?)
    }

    /// The private key that a login begun earlier left behind, so that it can be finished with the same one.
    pub fn pending_key(&self, name: &str) -> Result<Option<String>, ContextError> {
        let path = self.file(name, "pending");
        if !path.exists() {
            return Ok(None);
        }
        Ok(String::from_utf8(files::read(&path, FILE_BYTES_MAX)?).ok())
    }

    /// Keeps a private key before it is first used.
    pub fn keep_pending_key(&self, name: &str, pem: &str) -> Result<(), ContextError> {
        check_name(name).map_err(|_| ContextError::Name(name.to_owned()))?;
        let folder = self.root.join("contexts");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| FileError::Write { path: folder, source })?;
        files::replace(&self.file(name, "pending"), pem.as_bytes(), Mode::Secret)?;
        Ok(())
    }

    /// Completes a login: the pending key becomes the context's, and the context the chosen one.
    pub fn save(
        &self,
        name: &str,
        context: &Context,
        chain_pem: &str,
        roots_pem: &str,
    ) -> Result<(), ContextError> {
        let pending = self.file(name, "pending");
        let key = files::read(&pending, FILE_BYTES_MAX)?;
        files::replace(&self.file(name, "key"), &key, Mode::Secret)?;
        files::replace(&self.file(name, "crt"), chain_pem.as_bytes(), Mode::Shared)?;
        files::replace(&self.file(name, "roots"), roots_pem.as_bytes(), Mode::Shared)?;
        // Strings and lists of strings cannot fail to be TOML.
        let text = toml::to_string(context).unwrap_or_default();
        files::replace(&self.file(name, "toml"), text.as_bytes(), Mode::Shared)?;
        std::fs::remove_file(&pending).map_err(|source| FileError::Write {
            path: pending,
            source,
        })?;
        self.choose(name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn context(operator: &str) -> Context {
        Context {
            plant: PlantId::new("riverside").unwrap(),
            operator: OperatorId::new(operator).unwrap(),
            coordinators: vec!["127.0.0.1:7643".parse().unwrap()],
        }
    }

    #[test]
    fn the_only_login_needs_no_name_and_of_several_the_last_one_holds() {
        let folder = tempfile::tempdir().unwrap();
        let contexts = Contexts::at(folder.path());
        assert!(matches!(contexts.find(None), Err(ContextError::None)));
        for name in ["one", "two"] {
            contexts.keep_pending_key(name, "key").unwrap();
            contexts.save(name, &context(name), "chain", "roots").unwrap();
        }
        assert_eq!(contexts.names(), ["one", "two"]);
        assert_eq!(contexts.find(None).unwrap().name, "two");
        assert_eq!(contexts.find(Some("one")).unwrap().context, context("one"));
        contexts.choose("one").unwrap();
        assert_eq!(contexts.find(None).unwrap().name, "one");
        assert!(matches!(
            contexts.find(Some("three")),
            Err(ContextError::Unknown { .. })
        ));
        assert!(matches!(
            contexts.find(Some("../one")),
            Err(ContextError::Name(_))
        ));
        assert_eq!(contexts.pending_key("one").unwrap(), None);
    }
}
