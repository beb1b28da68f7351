//! Logins on this machine: which plant, who, where its coordinators are, and the key that proves it.
//!
//! ```text
//! $XDG_CONFIG_HOME/penstock/
//!   context                   the chosen one's name
//!   contexts/NAME.toml        plant, operator, coordinators
//!   contexts/NAME.key         private key, PKCS #8 PEM, 0600; born here, never sent
//!   contexts/NAME.crt         certificate chain, leaf first, PEM
//!   contexts/NAME.before.*    key and certificate of the login before, for where the new ones do not do
//!   contexts/NAME.roots       the plant's roots, PEM
//!   known/                    what this person verified of a plant's releases (`known.rs`)
//! ```

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use penstock_policy::ids::{OperatorId, PlantId, check_name};
use penstock_proto::audit::note::Note;
use penstock_proto::audit::tree_head::TreeHead;
use penstock_proto::bundle::{self, BundleError, SignedBundle, Trusted};
use penstock_proto::channel::Address;
use penstock_proto::keys::{self, FileKey, Key, KeyError};
use penstock_proto::peer::Subject;
use penstock_proto::tls::server::ServerCredentials;
use penstock_proto::tls::{Credentials, times};
use rcgen::PublicKeyData as _;
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
    /// What was seen of the coordinator's trails cannot be read.
    #[error(
        "{0} does not hold the head of a coordinator's trails any more, so that nothing tells whether they were rewritten since this login saw them: restore it, or move it away to begin without it"
    )]
    Tree(PathBuf),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Neither XDG_CONFIG_HOME nor HOME is set.
    #[error("neither XDG_CONFIG_HOME nor HOME says where logins are kept")]
    NoHome,
    /// Key or certificate.
    #[error("key or certificate of the login cannot be used")]
    Tls(#[from] penstock_proto::tls::TlsError),
    /// A trust bundle.
    #[error("the trust bundle that the coordinator sent is not used: {0}")]
    Trust(#[from] BundleError),
}

impl From<KeyError> for ContextError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::File {
                verb: "write" | "replace" | "remove" | "sync",
                path,
                source,
            } => Self::File(FileError::Write { path, source }),
            KeyError::File { path, source, .. } => Self::File(FileError::Read { path, source }),
            error => Self::Tls(error.into()),
        }
    }
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
            ContextError::Tree(_) => failure("tree-damaged"),
            ContextError::NoHome => failure("no-home"),
            ContextError::Trust(_) => Self::altered("trust-refused", error.to_string())
                .help("ask who changes the plant's roots; if nobody does, the coordinator is not to be trusted"),
            ContextError::Tls(source) => failure("context-damaged").caused_by(source).help("log in again"),
        }
    }
}

/// One step of keeping a renewed certificate.
type RenewalStep<'a> = Box<dyn FnOnce() -> Result<(), ContextError> + 'a>;

/// Where contexts are kept.
#[derive(Debug, Clone)]
pub struct Contexts {
    root: PathBuf,
}

/// A context with its name.
#[derive(Debug, Clone)]
pub struct NamedContext {
    /// Its name.
    pub name: String,
    /// What its file says.
    pub context: Context,
}

impl Contexts {
    /// By XDG_CONFIG_HOME, else HOME.
    pub(crate) fn open() -> Result<Self, ContextError> {
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
    pub(crate) fn choose(&self, name: &str) -> Result<(), ContextError> {
        self.load(name)?;
        files::replace(
            &self.root.join("context"),
            format!("{name}\n").as_bytes(),
            Mode::Shared,
        )?;
        Ok(())
    }

    /// The named one, else the chosen one, else the only one.
    pub(crate) fn find(&self, name: Option<&str>) -> Result<NamedContext, ContextError> {
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
        Ok(NamedContext {
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

    /// Key and certificate of a context, and those of the login before, in the order in which they are shown at `now_ms`: a
    /// certificate may have been issued while a clock was wrong.
    pub(crate) fn credentials(
        &self,
        named: &NamedContext,
        now_ms: u64,
    ) -> Result<Vec<Credentials>, ContextError> {
        let read = |end: &str| {
            Credentials::from_files(
                &self.file(&named.name, &format!("{end}crt")),
                &self.file(&named.name, &format!("{end}key")),
            )
        };
        let newest = read("");
        let ours = |credentials: &Credentials| {
            // A power cut between key and certificate leaves two that do not fit.
            ServerCredentials::new(credentials).is_ok()
                && credentials.identity().is_ok_and(|identity| {
                    identity.plant == named.context.plant
                        && identity.subject == Subject::Operator(named.context.operator.clone())
                })
        };
        let both = newest.as_ref().ok().cloned().into_iter().chain(read("before."));
        let all: Vec<Credentials> = both.filter(ours).collect();
        let spans: Vec<_> = all
            .iter()
            .map(|one| one.validity_ms().unwrap_or((0, 0)))
            .collect();
        let ordered: Vec<_> = times::order(&spans, now_ms)
            .into_iter()
            .filter_map(|index| all.get(index).cloned())
            .collect();
        match ordered.is_empty() {
            true => Ok(vec![newest?]),
            false => Ok(ordered),
        }
    }

    /// What is trusted: by the newest trust bundle that this login took, or by what it began with.
    pub(crate) fn trusted(&self, name: &str) -> Result<Trusted, ContextError> {
        let newest = files::read(&self.file(name, "trust"), FILE_BYTES_MAX).ok();
        let newest = newest.and_then(|bytes| bundle::from_json(std::str::from_utf8(&bytes).ok()?).ok());
        match newest.and_then(|bundles| bundles.last()?.trusted().ok()) {
            Some(trusted) => Ok(trusted),
            None => Ok(Trusted::first(&self.enrolled_roots(name)?)),
        }
    }

    /// Takes what is new in these trust bundles; whether anything was.
    pub(crate) fn take_trust(
        &self,
        named: &NamedContext,
        bundles: &[SignedBundle],
    ) -> Result<bool, ContextError> {
        let held = self.trusted(&named.name)?;
        let Some((_, newest)) = held.take_all(bundles, &named.context.plant)? else {
            return Ok(false);
        };
        let text = bundle::to_json(&[newest]);
        files::replace(&self.file(&named.name, "trust"), text.as_bytes(), Mode::Shared)?;
        Ok(true)
    }

    /// How far the coordinator's trails went when this login saw them last.
    pub(crate) fn seen_tree(&self, name: &str) -> Result<Option<TreeHead>, ContextError> {
        let file = self.file(name, "tree");
        // That it cannot be looked at is not that nothing was seen.
        let is_there = file.try_exists().map_err(|source| FileError::Read {
            path: file.clone(),
            source,
        })?;
        if !is_there {
            return Ok(None);
        }
        let note = files::read(&file, FILE_BYTES_MAX)?;
        let head = Note::parse(&note)
            .ok()
            .and_then(|note| TreeHead::parse(&note.text));
        head.map(Some).ok_or(ContextError::Tree(file))
    }

    /// Keeps a head that contradicts the one that was seen, beside it: both are signed, and prove it.
    pub(crate) fn keep_conflict(&self, name: &str, note: &[u8]) -> Result<PathBuf, ContextError> {
        let file = self.file(name, "tree.conflict");
        files::replace(&file, note, Mode::Shared)?;
        Ok(file)
    }

    /// Remembers that they go so far, by this signed head.
    pub(crate) fn keep_tree(&self, name: &str, note: &[u8]) -> Result<(), ContextError> {
        Ok(files::replace(&self.file(name, "tree"), note, Mode::Shared)?)
    }

    /// The plant's roots.
    pub(crate) fn roots(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, ContextError> {
        Ok(self.trusted(name)?.certificates())
    }

    /// Those that the login began with: they stay the same while bundles come.
    pub(crate) fn enrolled_roots(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, ContextError> {
        let path = self.file(name, "roots");
        let pem = files::read(&path, FILE_BYTES_MAX)?;
        Ok(penstock_proto::tls::certificates_from_pem(
            &pem,
            &path.display().to_string(),
        )?)
    }

    /// The private key that a login begun earlier left behind, so that it can be finished with the same one.
    pub(crate) fn pending_key(&self, name: &str) -> Result<Option<FileKey>, ContextError> {
        match FileKey::find(&self.file(name, "pending")) {
            // What cannot be used is made again.
            Err(KeyError::Form(_) | KeyError::Kind(_)) => Ok(None),
            other => Ok(other?),
        }
    }

    /// The login's own key, if it can be used.
    pub(crate) fn own_key(&self, name: &str) -> Option<FileKey> {
        FileKey::open_private(&self.file(name, "key")).ok()
    }

    /// Keeps the pending key of one login as that of another: whose login it is, was not known before.
    pub(crate) fn move_pending(&self, from: &str, to: &str) -> Result<(), ContextError> {
        if from == to {
            return Ok(());
        }
        check_name(to).map_err(|_| ContextError::Name(to.to_owned()))?;
        let (from, to) = (self.file(from, "pending"), self.file(to, "pending"));
        keys::copy(&from, &to)?;
        std::fs::remove_file(&from).map_err(|source| FileError::Write { path: from, source })?;
        Ok(())
    }

    /// Keeps a private key before it is first used.
    pub(crate) fn keep_pending_key(&self, name: &str, key: &FileKey) -> Result<(), ContextError> {
        check_name(name).map_err(|_| ContextError::Name(name.to_owned()))?;
        let folder = self.root.join("contexts");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| FileError::Write { path: folder, source })?;
        key.replace(&self.file(name, "pending"))?;
        Ok(())
    }

    /// Keeps key and certificate of a login that is made anew, if they are whole.
    fn keep_before(&self, name: &str) -> Result<(), ContextError> {
        let (crt, key) = (self.file(name, "crt"), self.file(name, "key"));
        let whole = Credentials::from_files(&crt, &key).is_ok_and(|old| ServerCredentials::new(&old).is_ok());
        if whole {
            keys::copy(&key, &self.file(name, "before.key"))?;
            let chain = files::read(&crt, FILE_BYTES_MAX)?;
            files::replace(&self.file(name, "before.crt"), &chain, Mode::Shared)?;
        }
        Ok(())
    }

    /// Whether the login's key is the one of these credentials, and not that of the login before.
    pub(crate) fn has_key_of(&self, name: &str, shown: &Credentials) -> bool {
        FileKey::open_private(&self.file(name, "key")).is_ok_and(|key| {
            Key::from(key).subject_public_key_info() == shown.key().subject_public_key_info()
        })
    }

    /// Keeps a renewed certificate, for the key that the login has. What was there before stays beside it.
    pub(crate) fn keep_renewed(&self, name: &str, chain_pem: &str) -> Result<(), ContextError> {
        self.renewal(name, chain_pem)
            .into_iter()
            .try_for_each(|step| step())
    }

    /// Its steps. After each of them, and between them, the login has a key with its certificate.
    fn renewal<'a>(&'a self, name: &'a str, chain_pem: &'a str) -> [RenewalStep<'a>; 3] {
        let (crt, key) = (self.file(name, "crt"), self.file(name, "key"));
        let (before_crt, before_key) = (self.file(name, "before.crt"), self.file(name, "before.key"));
        let old = crt.clone();
        [
            Box::new(move || Ok(keys::copy(&key, &before_key)?)),
            Box::new(move || {
                let chain = files::read(&old, FILE_BYTES_MAX)?;
                Ok(files::replace(&before_crt, &chain, Mode::Shared)?)
            }),
            Box::new(move || Ok(files::replace(&crt, chain_pem.as_bytes(), Mode::Shared)?)),
        ]
    }

    /// Completes a login: the pending key becomes the context's, and the context the chosen one.
    pub(crate) fn save(
        &self,
        name: &str,
        context: &Context,
        chain_pem: &str,
        roots_pem: &str,
    ) -> Result<(), ContextError> {
        let pending = self.file(name, "pending");
        self.keep_before(name)?;
        keys::copy(&pending, &self.file(name, "key"))?;
        files::replace(&self.file(name, "crt"), chain_pem.as_bytes(), Mode::Shared)?;
        // Bundles begin from the root that came with the login: from another one they begin anew, and its own stay. They go before it
        // comes: of a login that is killed between the two, none is left that another root began.
        let (roots, trust) = (self.file(name, "roots"), self.file(name, "trust"));
        let same = std::fs::read(&roots).is_ok_and(|old| old == roots_pem.as_bytes());
        for path in [trust, self.file(name, "tree")] {
            if !same && path.exists() {
                std::fs::remove_file(&path).map_err(|source| FileError::Write { path, source })?;
            }
        }
        files::replace(&roots, roots_pem.as_bytes(), Mode::Shared)?;
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

    /// Key and certificate of alice, valid in these years.
    fn issued(from: i32, until: i32) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        let uri = "spiffe://riverside/operator/alice".try_into().unwrap();
        params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        (key.serialize_pem(), params.self_signed(&key).unwrap().pem())
    }

    #[test]
    fn a_login_that_was_made_while_a_clock_was_wrong_or_is_half_written_leaves_the_one_before_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let contexts = Contexts::at(folder.path());
        let log_in = |(key, chain): &(String, String)| {
            let key = FileKey::from_pem(key.as_bytes(), "the key").unwrap();
            contexts.keep_pending_key("one", &key).unwrap();
            contexts.save("one", &context("alice"), chain, "roots").unwrap();
        };
        let begins = |now_ms| {
            let named = contexts.find(Some("one")).unwrap();
            let shown = contexts.credentials(&named, now_ms).unwrap();
            shown
                .iter()
                .map(|one| one.validity_ms().unwrap().0)
                .collect::<Vec<_>>()
        };
        let (in_2027, in_2071) = (1_800_000_000_000, 3_190_000_000_000);
        let (good, future) = (issued(2026, 2028), issued(2071, 2072));
        log_in(&good);
        log_in(&future);
        let (good_ms, future_ms) = (1_767_225_600_000, 3_187_296_000_000);
        assert_eq!(begins(in_2027), [good_ms, future_ms]);
        assert_eq!(begins(in_2071), [future_ms, good_ms]);
        // Another key, and not yet its certificate.
        std::fs::write(folder.path().join("contexts/one.key"), &issued(2026, 2028).0).unwrap();
        assert_eq!(begins(in_2027), [good_ms]);
        // Somebody else's login under the same name is not shown as this one's.
        let named = NamedContext {
            name: "one".to_owned(),
            context: context("bob"),
        };
        assert_eq!(contexts.credentials(&named, in_2027).unwrap().len(), 1);
    }

    #[test]
    fn a_renewal_that_is_killed_between_any_two_steps_leaves_a_login_that_works() {
        let now_ms = 1_800_000_000_000;
        let (key, old) = issued(2026, 2028);
        let pair = rcgen::KeyPair::from_pem(&key).unwrap();
        let mut params = rcgen::CertificateParams::default();
        let uri = "spiffe://riverside/operator/alice".try_into().unwrap();
        params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
        params.not_before = rcgen::date_time_ymd(2026, 6, 1);
        params.not_after = rcgen::date_time_ymd(2029, 1, 1);
        let new = params.self_signed(&pair).unwrap().pem();
        // A login of another key before this one lies there, too.
        let earlier = issued(2025, 2028);
        for steps in 0..=3 {
            let folder = tempfile::tempdir().unwrap();
            let contexts = Contexts::at(folder.path());
            for (key, chain) in [(&earlier.0, &earlier.1), (&key, &old)] {
                let key = FileKey::from_pem(key.as_bytes(), "the key").unwrap();
                contexts.keep_pending_key("one", &key).unwrap();
                contexts.save("one", &context("alice"), chain, "roots").unwrap();
            }
            for step in contexts.renewal("one", &new).into_iter().take(steps) {
                step().unwrap();
            }
            let named = contexts.find(Some("one")).unwrap();
            let usable = contexts.credentials(&named, now_ms).unwrap();
            let first = usable.first().unwrap();
            ServerCredentials::new(first).unwrap();
            let own = pair.subject_public_key_info();
            for one in &usable {
                let is_own = one.key().subject_public_key_info() == own;
                assert_eq!(contexts.has_key_of("one", one), is_own, "after {steps} steps");
            }
            let certified = penstock_proto::peer::certified_key(&first.chain()[0]);
            assert_eq!(certified, Some(own), "after {steps} steps");
            let until = first.validity_ms().unwrap().1;
            assert_eq!(until > 1_850_000_000_000, steps == 3, "after {steps} steps");
        }
    }

    #[test]
    fn a_new_key_below_the_same_root_leaves_the_trust_bundles_and_another_root_ends_them() {
        let folder = tempfile::tempdir().unwrap();
        let contexts = Contexts::at(folder.path());
        let trust = folder.path().join("contexts/one.trust");
        let log_in = |roots| {
            let key = FileKey::generate(keys::KeyKind::EcdsaP256).unwrap();
            contexts.keep_pending_key("one", &key).unwrap();
            contexts.save("one", &context("alice"), "chain", roots).unwrap();
            trust.exists()
        };
        log_in("one root");
        std::fs::write(&trust, "bundles").unwrap();
        assert!(log_in("one root"));
        assert!(!log_in("another root"));
    }

    #[test]
    fn the_only_login_needs_no_name_and_of_several_the_last_one_holds() {
        let folder = tempfile::tempdir().unwrap();
        let contexts = Contexts::at(folder.path());
        assert!(matches!(contexts.find(None), Err(ContextError::None)));
        for name in ["one", "two"] {
            let key = FileKey::generate(keys::KeyKind::EcdsaP256).unwrap();
            contexts.keep_pending_key(name, &key).unwrap();
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
        assert!(contexts.pending_key("one").unwrap().is_none());
    }
}
