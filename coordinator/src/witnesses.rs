//! External witnesses: somebody outside the plant who cosigns the head of the trails, after they verified that it begins with the one before
//! (<https://c2sp.org/tlog-witness>). So also a plant whose approvers, gateways and coordinator are all in one hand cannot rewrite its trails unnoticed.
//!
//! ```text
//! tree ─▶ checkpoint, signed by the trails' own key and by the coordinator's ─▶ POST add-checkpoint ─▶ 200: cosignature, verified, kept
//!                                                                                                  ├─▶ 409: the size that it knows; again from there
//!                                                                                                  └─▶ anything else, or nothing: health says so
//! ```
//!
//! A witness is sent sizes, roots and times, and nothing of what is in the trails. Off by default. Each is asked by a task of its own, one request at a time,
//! with bounds on time and size: a witness that lies, is slow or away delays nothing.
//!
//! ```text
//! trails.key   the Ed25519 key that signs checkpoints for witnesses (0600); witnesses take no other kind
//! trails.pub   by what whoever runs a witness knows the trails: give them this line
//! cosigned/    the newest head that each witness cosigned
//! ```
//!
//! Not here: the forms (`penstock_proto::audit::cosignature`).

mod settings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use penstock_policy::ids::Digest;
use penstock_policy::merkle::growing::TreeState;
use penstock_policy::text::sentence;
use penstock_proto::audit::cosignature::{log_key, request};
use penstock_proto::audit::note::{Note, NoteSignature};
use penstock_proto::audit::tree_head::TreeHead;
use penstock_proto::https::{Answer, Asking};
use penstock_proto::keys::{FileKey, Key, KeyError, KeyKind};
use penstock_proto::tls::certificates_from_pem;
use penstock_proto::tls::server::ServerCredentials;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use self::settings::check;
pub use self::settings::{WitnessFile, WitnessSettings};
use crate::clock;
use crate::files;
use crate::store::Store;

const KEY: &str = "trails.key";
const KEY_SHOWN: &str = "trails.pub";
const COSIGNED: &str = "cosigned";
/// The form of a request; witnesses ask for none.
const REQUEST_TYPE: &str = "text/plain; charset=utf-8";
/// Requests for one head: a witness that knows another size says so once.
const ATTEMPTS: usize = 3;
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Whom the trails are witnessed by.
#[derive(Debug, Clone)]
pub struct Witnesses {
    all: Arc<[WitnessSettings]>,
    folder: PathBuf,
    origin: String,
    store: Store,
    credentials: Arc<ServerCredentials>,
    /// Why a witness did not cosign, by its name.
    waits: watch::Sender<BTreeMap<String, String>>,
}

/// Why a head is not cosigned, in words.
type NotCosigned = String;

impl Witnesses {
    /// These, of the trails in `store`; what is kept lies in `folder`.
    pub fn new(
        all: &[WitnessSettings],
        folder: &Path,
        (origin, store): (String, Store),
        credentials: Arc<ServerCredentials>,
    ) -> Self {
        Self {
            all: all.into(),
            folder: folder.to_owned(),
            origin,
            store,
            credentials,
            waits: watch::Sender::new(BTreeMap::new()),
        }
    }

    /// Why a witness did not cosign the newest head; for health.
    pub(crate) fn waits(&self) -> watch::Receiver<BTreeMap<String, String>> {
        self.waits.subscribe()
    }

    /// The newest head that each witness cosigned.
    pub(crate) async fn cosigned(&self) -> Vec<Vec<u8>> {
        let all = self.clone();
        let read = move || -> Vec<Vec<u8>> {
            let notes = all.all.iter().filter_map(|witness| all.kept(witness));
            notes.map(|note| note.to_bytes()).collect()
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    /// Asks each of them until the coordinator stops.
    pub(crate) async fn follow(self, stopping: CancellationToken) {
        if self.all.is_empty() {
            return;
        }
        let key = loop {
            match self.own_key().await {
                Ok(key) => break key,
                Err(error) => {
                    let why = format!("the key of the trails cannot be used: {}", sentence(&error));
                    for witness in self.all.iter() {
                        self.says(witness, Some(why.clone()));
                    }
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(std::time::Duration::from_secs(60)) => {}
            }
        };
        let key = Arc::new(key);
        let asked = self.all.iter().map(|witness| {
            let (all, witness, key) = (self.clone(), witness.clone(), key.clone());
            async move { all.ask_again_and_again(&witness, &key).await }
        });
        let mut tasks: tokio::task::JoinSet<()> = asked.collect();
        tokio::select! {
            () = stopping.cancelled() => {}
            _ = tasks.join_next() => {}
        }
    }

    async fn ask_again_and_again(&self, witness: &WitnessSettings, key: &Key) {
        loop {
            let waits = self.ask(witness, key).await.err();
            self.says(witness, waits);
            tokio::time::sleep(witness.every).await;
        }
    }

    fn says(&self, witness: &WitnessSettings, waits: Option<NotCosigned>) {
        let name = witness.key.name();
        self.waits.send_if_modified(|all| {
            let before = match &waits {
                Some(why) => all.insert(name.to_owned(), why.clone()),
                None => all.remove(name),
            };
            let is_news = before != waits;
            if let Some(why) = waits.filter(|_| is_news) {
                tracing::warn!(witness = name, "the trails are not cosigned: {why}");
            }
            is_news
        });
    }

    /// Has the newest head cosigned, unless it is.
    async fn ask(&self, witness: &WitnessSettings, key: &Key) -> Result<(), NotCosigned> {
        let tree = self.store.tree().await.map_err(|error| sentence(&error))?;
        let kept = self.kept_head(witness).await;
        if tree.size == 0 || kept == Some(tree) {
            return Ok(());
        }
        let note = self.checkpoint(tree, key).map_err(|error| sentence(&error))?;
        let asking = asking(witness).await?;
        let mut old = kept.map_or(0, |kept| kept.size);
        for _ in 0..ATTEMPTS {
            let proof = self.store.consistency(old, tree.size).await;
            let Some(proof) = proof.map_err(|error| sentence(&error))? else {
                return Err(format!(
                    "it has cosigned {old} blocks, and there are {} here: the coordinator was restored from an older backup, or blocks were taken out",
                    tree.size
                ));
            };
            let answer = asking.send(&witness.address, REQUEST_TYPE, request(old, &proof, &note));
            let answer = answer.await.map_err(|error| sentence(&error))?;
            match judge(&answer, old)? {
                Verdict::From(size) => old = size,
                Verdict::Cosigned(lines) => {
                    let line = witness.key.of_answer(&note, &lines).ok_or_else(|| {
                        format!(
                            "its answer has no cosignature by the key of {}",
                            witness.key.name()
                        )
                    })?;
                    return self.keep(witness, note, line).await;
                }
            }
        }
        Err("it says another size each time that it is asked".to_owned())
    }

    fn checkpoint(&self, tree: TreeState, key: &Key) -> Result<Note, KeyError> {
        let head = TreeHead {
            origin: self.origin.clone(),
            tree,
            time_ms: clock::now_ms(),
        };
        let mut note = head.sign(&self.credentials.held())?;
        let own = NoteSignature::ed25519(&self.origin, key, &note.text)?;
        note.signatures.insert(0, own);
        Ok(note)
    }

    /// The key that signs for witnesses, made the first time.
    async fn own_key(&self) -> Result<Key, WitnessError> {
        let (folder, origin) = (self.folder.clone(), self.origin.clone());
        let opened = tokio::task::spawn_blocking(move || -> Result<Key, WitnessError> {
            let path = folder.join(KEY);
            let key = match FileKey::find(&path)? {
                Some(key) => key,
                None => {
                    let key = FileKey::generate(KeyKind::Ed25519)?;
                    key.create(&path)?;
                    key
                }
            };
            let key = Key::from(key);
            let public = NoteSignature::ed25519_public(&key).ok_or(WitnessError::Kind(path))?;
            let shown = format!("{}\n", log_key(&origin, &public));
            files::replace(&folder.join(KEY_SHOWN), shown.as_bytes())?;
            Ok(key)
        });
        opened.await.unwrap_or(Err(WitnessError::Interrupted))
    }

    fn file_of(&self, witness: &WitnessSettings) -> PathBuf {
        let name = Digest::of(witness.key.to_string().as_bytes()).to_string();
        let name = name.trim_start_matches("sha256:");
        let short = name.get(..16).unwrap_or(name);
        self.folder.join(COSIGNED).join(format!("{short}.note"))
    }

    /// What this witness cosigned last; `None`: nothing yet, or what is kept is something else.
    fn kept(&self, witness: &WitnessSettings) -> Option<Note> {
        let note = Note::parse(&files::read(&self.file_of(witness)).ok()?).ok()?;
        witness.key.cosigned(&note).map(|_| note)
    }

    async fn kept_head(&self, witness: &WitnessSettings) -> Option<TreeState> {
        let (all, witness) = (self.clone(), witness.clone());
        let read = tokio::task::spawn_blocking(move || all.kept(&witness));
        let note = read.await.ok().flatten()?;
        TreeHead::parse(&note.text).map(|head| head.tree)
    }

    async fn keep(
        &self,
        witness: &WitnessSettings,
        mut note: Note,
        line: NoteSignature,
    ) -> Result<(), NotCosigned> {
        note.signatures.push(line);
        let file = self.file_of(witness);
        let kept = tokio::task::spawn_blocking(move || {
            let folder = file.parent().map(files::private_folder);
            folder.unwrap_or(Ok(()))?;
            files::replace(&file, &note.to_bytes())
        });
        match kept.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(sentence(&error)),
            Err(_) => Err("its cosignature was not kept: the coordinator is stopping".to_owned()),
        }
    }
}

/// Why the trails' own key cannot be used.
#[derive(Debug, thiserror::Error)]
enum WitnessError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    File(#[from] files::FileError),
    #[error(
        "{0} does not hold an Ed25519 key, and witnesses take no other: remove it, and another one is made"
    )]
    Kind(PathBuf),
    #[error("the coordinator is stopping")]
    Interrupted,
}

/// What a witness answered.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It knows this size, from which it is asked again.
    From(u64),
    /// Lines, which count if they are its own.
    Cosigned(String),
}

/// Reads an answer to a request from this size.
fn judge(answer: &Answer, old: u64) -> Result<Verdict, NotCosigned> {
    let body = answer.body.get(..answer.body.len().min(ANSWER_BYTES_MAX));
    let text = String::from_utf8_lossy(body.unwrap_or_default()).into_owned();
    match answer.status.as_u16() {
        200 => Ok(Verdict::Cosigned(text)),
        409 => match text.strip_suffix('\n').and_then(|size| size.parse().ok()) {
            Some(size) if size != old => Ok(Verdict::From(size)),
            Some(_) => Err(format!("it has cosigned another tree of {old} blocks")),
            None => Err("it says that it knows another size, and not which".to_owned()),
        },
        404 => Err(format!(
            "it does not know these trails: give whoever runs it the line in {KEY_SHOWN}"
        )),
        403 => Err(format!(
            "it knows another key for these trails: give whoever runs it the line in {KEY_SHOWN}"
        )),
        422 => Err(
            "it says that the trails do not begin with what it cosigned: the coordinator was restored from an older backup, or blocks were taken out or altered"
                .to_owned(),
        ),
        status => Err(format!("it answers with {status}")),
    }
}

/// A client that believes the witness's web server, by the roots as they are now.
async fn asking(witness: &WitnessSettings) -> Result<Asking, NotCosigned> {
    let roots = match witness.roots.clone() {
        None => Vec::new(),
        Some(path) => {
            let read = tokio::task::spawn_blocking(move || {
                let bytes = files::read(&path).map_err(|error| sentence(&error))?;
                certificates_from_pem(&bytes, &path.display().to_string()).map_err(|error| sentence(&error))
            });
            read.await
                .unwrap_or_else(|_| Err("the coordinator is stopping".to_owned()))?
        }
    };
    Asking::trusting(&roots).map_err(|error| sentence(&error))
}

/// Why witnesses did not cosign, in one sentence; `None`: they did.
pub(crate) fn in_words(waits: &BTreeMap<String, String>) -> Option<String> {
    let each: Vec<String> = waits.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    (!each.is_empty()).then(|| {
        format!(
            "external witnesses did not cosign the newest head of the trails: {}",
            each.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::http::StatusCode;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn an_answer_is_what_the_protocol_says_and_anything_else_is_said_in_words() {
        assert_eq!(
            judge(&answer(200, "— w x\n"), 0).unwrap(),
            Verdict::Cosigned("— w x\n".to_owned())
        );
        assert_eq!(judge(&answer(409, "17\n"), 3).unwrap(), Verdict::From(17));
        for (status, body, words) in [
            (409, "3\n", "another tree of 3 blocks"),
            (409, "", "not which"),
            (409, "-1\n", "not which"),
            (404, "", "does not know these trails"),
            (403, "", "another key"),
            (422, "", "do not begin with"),
            (500, "", "500"),
            (302, "", "302"),
        ] {
            let why = judge(&answer(status, body), 3).unwrap_err();
            assert!(why.contains(words), "{status}: {why}");
        }
        // Of a body without end, the beginning is read.
        assert!(
            matches!(judge(&answer(200, &"x".repeat(1 << 20)), 0), Ok(Verdict::Cosigned(text)) if text.len() == ANSWER_BYTES_MAX)
        );
    }
}
