//! A module's tokens: found, logged in at, and asked for signatures, by the one thread that calls the module.
//!
//! A session that fails for whatever reason is given up with everything else of the module, which is initialised anew: that is how a token
//! that was taken away is found again where it is plugged in next. A PIN that a token refused is not shown to it again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, SHA384, digest};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{AttributeType, ObjectHandle};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use penstock_proto::keys::{KeyKind, passphrase_in};

use super::error::TokenError;
use super::objects::{self, TokenPublicKey};
use super::uri::KeyUri;

/// What a module has, and what is open of it.
pub(super) struct Tokens {
    module: PathBuf,
    context: Option<Pkcs11>,
    open: HashMap<KeyUri, OpenKey>,
    /// By a token's serial number, the digest of the PIN that it refused.
    refused: HashMap<String, Vec<u8>>,
}

/// A key that can be asked for signatures.
pub(super) struct OpenKey {
    session: Session,
    handle: ObjectHandle,
    /// Its public half.
    pub(super) public: TokenPublicKey,
}

fn failed(uri: &KeyUri, what: &'static str) -> impl Fn(Error) -> TokenError {
    let token = uri.token_in_words();
    move |error| TokenError::Failed {
        token: token.clone(),
        what,
        why: error.to_string(),
    }
}

fn not_loaded(module: &Path, error: &Error) -> TokenError {
    TokenError::Module {
        path: module.to_owned(),
        why: error.to_string(),
    }
}

/// A module before it is initialised: no token is looked for.
fn load(module: &Path) -> Result<Pkcs11, TokenError> {
    Pkcs11::new(module).map_err(|error| not_loaded(module, &error))
}

impl KeyUri {
    /// Whether the module is there and can be loaded. Nothing is asked of it: who checks a configuration may have no token at hand.
    ///
    /// # Errors
    /// It is not, or it is no PKCS #11 module.
    pub fn load_module(&self) -> Result<(), TokenError> {
        load(&self.module).map(drop)
    }
}

impl Tokens {
    pub(super) fn of(module: PathBuf) -> Self {
        Self {
            module,
            context: None,
            open: HashMap::new(),
            refused: HashMap::new(),
        }
    }

    /// The key's public half, from a token that is there.
    pub(super) fn public(&mut self, uri: &KeyUri) -> Result<TokenPublicKey, TokenError> {
        self.with(uri, |key| {
            // Of a token that was taken away, what is read here fails.
            key.session.get_session_info()?;
            key.session.get_attributes(key.handle, &[AttributeType::Class])?;
            Ok(key.public.clone())
        })
    }

    /// The same, from what is open already, if it is.
    pub(super) fn key(&mut self, uri: &KeyUri) -> Result<TokenPublicKey, TokenError> {
        match self.open.get(uri) {
            Some(key) => Ok(key.public.clone()),
            None => self.public(uri),
        }
    }

    /// What the key signs of a message.
    pub(super) fn sign(&mut self, uri: &KeyUri, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let raw = self.with(uri, |key| key.sign(message))?;
        match raw.as_slice() {
            // Ed25519's is as it should be.
            whole
                if self
                    .open
                    .get(uri)
                    .is_some_and(|key| key.public.kind == KeyKind::Ed25519) =>
            {
                Ok(whole.to_vec())
            }
            raw => objects::ecdsa_der(raw).ok_or_else(|| TokenError::Failed {
                token: uri.token_in_words(),
                what: "sign",
                why: format!("its signature has {} bytes", raw.len()),
            }),
        }
    }

    /// Makes the key on the token: it never leaves it.
    pub(super) fn make(&mut self, uri: &KeyUri) -> Result<(), TokenError> {
        let (slot, info) = self.token(uri)?;
        let context = self.context()?;
        let session = context
            .open_rw_session(slot)
            .map_err(failed(uri, "open a session"))?;
        self.log_in(&session, &info, uri)?;
        let id = match &uri.id {
            Some(id) => id.clone(),
            None => session
                .generate_random_vec(16)
                .map_err(failed(uri, "give random numbers"))?,
        };
        objects::make(&session, uri, &id).map_err(failed(uri, "make a key"))?;
        self.open.remove(uri);
        Ok(())
    }

    /// Does something with the key; once more from the beginning, where what was open had gone.
    fn with<T>(
        &mut self,
        uri: &KeyUri,
        does: impl Fn(&OpenKey) -> Result<T, Error>,
    ) -> Result<T, TokenError> {
        if let Some(open) = self.open.get(uri) {
            match does(open) {
                Ok(done) => return Ok(done),
                Err(error) => {
                    tracing::debug!(%error, token = uri.token_in_words(), "the session with the token is opened again");
                    self.close();
                }
            }
        }
        let is_fresh = self.context.is_none();
        let mut done = self.found(uri, &does);
        if let (false, Err(TokenError::Absent { .. } | TokenError::Failed { .. })) = (is_fresh, &done) {
            // What the module believes of its slots may be old.
            self.close();
            done = self.found(uri, &does);
        }
        if done.is_err() && self.open.is_empty() {
            self.close();
        }
        done
    }

    fn found<T>(
        &mut self,
        uri: &KeyUri,
        does: impl Fn(&OpenKey) -> Result<T, Error>,
    ) -> Result<T, TokenError> {
        let key = self.find(uri)?;
        let done = does(&key).map_err(failed(uri, "use its key"))?;
        self.open.insert(uri.clone(), key);
        Ok(done)
    }

    fn close(&mut self) {
        self.open.clear();
        if let Some(context) = self.context.take() {
            let _ = context.finalize();
        }
    }

    fn context(&mut self) -> Result<Pkcs11, TokenError> {
        if let Some(context) = &self.context {
            return Ok(context.clone());
        }
        let context = load(&self.module)?;
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(not_loaded(&self.module, &error)),
        }
        self.context = Some(context.clone());
        Ok(context)
    }

    /// The slot of the token that is meant.
    fn token(&mut self, uri: &KeyUri) -> Result<(Slot, TokenInfo), TokenError> {
        let context = self.context()?;
        let slots = context
            .get_slots_with_token()
            .map_err(failed(uri, "be looked for"))?;
        let known: Vec<(Slot, TokenInfo)> = slots
            .into_iter()
            .filter_map(|slot| Some((slot, context.get_token_info(slot).ok()?)))
            .filter(|(_, info)| info.token_initialized())
            .collect();
        let is =
            |wish: &Option<String>, value: &str| wish.as_deref().is_none_or(|wish| wish == value.trim_end());
        let meant = |slot: &Slot, info: &TokenInfo| {
            is(&uri.token, info.label())
                && is(&uri.serial, info.serial_number())
                && is(&uri.manufacturer, info.manufacturer_id())
                && is(&uri.model, info.model())
                && uri.slot.is_none_or(|wish| wish == slot.id())
        };
        let (mut found, others): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|(slot, info)| meant(slot, info));
        match (found.pop(), found.len()) {
            (Some(found), 0) => Ok(found),
            (Some(_), more) => Err(TokenError::Several {
                token: uri.token_in_words(),
                count: more + 1,
            }),
            (None, _) => Err(TokenError::Absent {
                token: uri.token_in_words(),
                path: self.module.clone(),
                others: match others.as_slice() {
                    [] => "no token".to_owned(),
                    others => {
                        let named = others.iter().take(8);
                        let labels: Vec<_> = named
                            .map(|(_, info)| format!("'{}'", info.label().trim_end()))
                            .collect();
                        labels.join(", ")
                    }
                },
            }),
        }
    }

    fn find(&mut self, uri: &KeyUri) -> Result<OpenKey, TokenError> {
        let (slot, info) = self.token(uri)?;
        let context = self.context()?;
        let session = context
            .open_ro_session(slot)
            .map_err(failed(uri, "open a session"))?;
        self.log_in(&session, &info, uri)?;
        let (handle, public) = objects::key(&session, uri)?;
        Ok(OpenKey {
            session,
            handle,
            public,
        })
    }

    fn log_in(&mut self, session: &Session, info: &TokenInfo, uri: &KeyUri) -> Result<(), TokenError> {
        let token = uri.token_in_words();
        let state = session
            .get_session_info()
            .map_err(failed(uri, "say who is logged in"))?;
        if !info.login_required()
            || matches!(state.session_state(), SessionState::RoUser | SessionState::RwUser)
        {
            return Ok(());
        }
        let Some(file) = &uri.pin else {
            return Err(TokenError::NoPin(token));
        };
        if info.user_pin_locked() {
            return Err(TokenError::PinLocked(token));
        }
        let pin = passphrase_in(file).map_err(|error| TokenError::PinFile {
            token: token.clone(),
            why: crate::chain(&error),
        })?;
        let shown = digest(&SHA256, pin.as_bytes()).as_ref().to_vec();
        let refused = || TokenError::PinRefused {
            token: token.clone(),
            file: file.clone(),
        };
        let serial = info.serial_number().to_owned();
        if self.refused.get(&serial) == Some(&shown) {
            return Err(refused());
        }
        if info.user_pin_final_try() {
            return Err(TokenError::PinLastTry(token));
        }
        match session.login(UserType::User, Some(&AuthPin::new(pin.as_str().into()))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                self.refused.remove(&serial);
                Ok(())
            }
            Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
                self.refused.insert(serial, shown);
                Err(refused())
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(TokenError::PinLocked(token)),
            Err(error) => Err(failed(uri, "let the coordinator log in")(error)),
        }
    }
}

impl OpenKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let (hash, with_hash) = match self.public.kind {
            KeyKind::EcdsaP256 => (&SHA256, Mechanism::EcdsaSha256),
            KeyKind::EcdsaP384 => (&SHA384, Mechanism::EcdsaSha384),
            KeyKind::Ed25519 => {
                let pure = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519));
                return self.session.sign(&pure, self.handle, message);
            }
        };
        let hashed = digest(hash, message);
        match self.session.sign(&Mechanism::Ecdsa, self.handle, hashed.as_ref()) {
            // Some sign only what they hashed themselves.
            Err(Error::Pkcs11(RvError::MechanismInvalid, _)) => {
                self.session.sign(&with_hash, self.handle, message)
            }
            signed => signed,
        }
    }
}
