//! What is done with a coordinator's authority while it is stopped: a key that a root elsewhere certified, and trust bundles. Each is held against
//! what gateways said of themselves: nobody is left behind without a person's reason for it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::{Digest, GatewayId};
use penstock_proto::bundle::Trusted;
use penstock_proto::peer::Subject;
use tokio::sync::watch;

use super::{AppError, CA_FOLDER, DataLock, STORE_FILE, remembered, turn};
use crate::ca::{Authority, CaError};
use crate::clock;
use crate::config::Config;
use crate::enrolment::GatewayRecord;
use crate::files;
use crate::health::own::CertificateFiles;
use crate::journal::Journal;
use crate::pkcs11::TokenError;
use crate::store::{Change, Store};
use crate::subjects::{self, Standing, SubjectRecord, Subjects};

/// How often the token is looked for.
const TOKEN_LOOK: Duration = Duration::from_secs(5);

/// The authority of a coordinator that is configured so.
pub(super) fn authority_of(config: &Config) -> Result<Authority, CaError> {
    Authority::load_with(
        &config.data.join(CA_FOLDER),
        config.plant.clone(),
        config.lifetimes,
        &config.keys,
    )
}

/// Where our own certificate, the issuing one (if there is one) and the plant's root are.
pub(super) fn certificate_files(config: &Config) -> CertificateFiles {
    let ca = config.data.join(CA_FOLDER);
    CertificateFiles {
        own: config.data.join("coordinator.pem"),
        issuing: Some(ca.join("issuing.pem")).filter(|file| file.exists()),
        root: ca.join("root.pem"),
    }
}

/// Looks for the token that holds the key by which is issued, and says what issues. A coordinator starts without its token: gateways and people
/// are let in, and nothing is issued until it is there. Why nothing is, from then on.
///
/// # Errors
/// The token is there, and holds another key than the certificate is for: whoever configured it has to decide.
pub(super) async fn issuing_key(
    authority: &Arc<Authority>,
) -> Result<watch::Receiver<Option<String>>, AppError> {
    let Some(token) = authority.token().cloned() else {
        tracing::info!("the key that issues is {}", authority.key_in_words());
        return Ok(watch::Sender::new(None).subscribe());
    };
    let looked = tokio::task::spawn_blocking({
        let token = token.clone();
        move || token.look_for()
    });
    match looked.await {
        Ok(Err(error @ TokenError::OtherKey { .. })) => return Err(CaError::from(error).into()),
        Ok(Ok(())) => tracing::info!("the key that issues is the {}", authority.key_in_words()),
        // It was logged, with the reason.
        _ => tracing::warn!("the coordinator starts without the {}", authority.key_in_words()),
    }
    Ok(token.fault())
}

/// Looks for the token every now and then, so that it is known that it is away before somebody needs it, and tells gateways what waited for its
/// signature when it is back.
pub(super) async fn follow_token(authority: Arc<Authority>, subjects: Subjects) {
    let Some(token) = authority.token().cloned() else {
        return;
    };
    let mut was_away = token.fault().borrow().is_some();
    loop {
        tokio::time::sleep(TOKEN_LOOK).await;
        let looks = token.clone();
        let is_there = tokio::task::spawn_blocking(move || looks.look_for().is_ok()).await;
        let is_away = !is_there.unwrap_or(false);
        if was_away && !is_away {
            subjects.list_again();
        }
        was_away = is_away;
    }
}

/// Makes the data folder of a plant whose root, with the certificate in this file, is kept elsewhere; answers the request (PKCS #10, DER)
/// that it has to sign.
///
/// # Errors
/// As [`super::init`]; or the root's certificate cannot be read.
pub fn init_under(config: &Config, root: &Path) -> Result<Vec<u8>, AppError> {
    files::private_folder(&config.data)?;
    let _lock = DataLock::take(&config.data)?;
    let ca = config.data.join(CA_FOLDER);
    files::private_folder(&ca)?;
    // A token that cannot be used is found out before there is an authority in the folder: the next attempt begins anew.
    let on_token = config.keys.first().map(Authority::request_on).transpose()?;
    Authority::begin_under(&ca, root)?;
    Store::open(&config.data.join(STORE_FILE))?;
    match on_token {
        Some((request, _)) => Ok(request),
        None => Ok(Authority::request(&ca)?),
    }
}

/// A request (PKCS #10, DER) for the key by which this coordinator is to issue next, also while it runs; and where that key is, for people.
///
/// # Errors
/// The key cannot be read, made or stored; or the token that is to hold it cannot be used.
pub fn issuing_request(config: &Config) -> Result<(Vec<u8>, String), AppError> {
    let Some(uri) = config.keys.first() else {
        let request = Authority::request(&config.data.join(CA_FOLDER))?;
        return Ok((request, "in a file of the data folder".to_owned()));
    };
    let (request, is_new) = Authority::request_on(uri)?;
    let was = match is_new {
        true => "was made there and cannot leave it",
        false => "was there already, and cannot leave it",
    };
    let place = format!(
        "the {} on the {}, which {was}",
        uri.key_in_words(),
        uri.token_in_words()
    );
    Ok((request, place))
}

/// Where the key that issues is, if it is on a token, for people.
///
/// # Errors
/// The authority cannot be read.
pub fn token_in_words(config: &Config) -> Result<Option<String>, AppError> {
    let authority = authority_of(config)?;
    Ok(authority.token().map(|token| token.in_words()))
}

/// Takes the certificate (PEM) that the root signed for that key into use, from the next start on.
///
/// # Errors
/// A coordinator runs on the folder, or the certificate cannot be used; or, without a reason to do it anyway (`because`), gateways do not trust
/// its root yet. What was in use then stays so.
pub async fn install_issuing(config: &Config, pem: &[u8], because: Option<&str>) -> Result<(), AppError> {
    let _lock = DataLock::take(&config.data)?;
    let ca = config.data.join(CA_FOLDER);
    let root = Authority::root_of(&ca, &config.plant, pem)?;
    let target = format!("below root {root}");
    // By the bundles alone: whoever installs the certificate of a new key may have lost the one before.
    let mut words = String::new();
    let since = Authority::trusted_since_in(&ca, root)?;
    if since > 0 {
        let lacks = |record: &GatewayRecord| record.trust.is_none_or(|held| held < since);
        let what = format!("do not hold trust bundle {since}, and would not know this coordinator any more");
        words = left_behind(config, (lacks, &what), because).await?;
    }
    noted(config, "install-issuing", (&target, &words), || {
        Authority::install(&ca, &config.plant, pem, &config.keys, clock::now_ms())
    })
    .await
}

/// Takes the trust bundles in this text, from the next start on: their roots count then, and gateways and people get them. What is trusted then.
///
/// # Errors
/// A coordinator runs on the folder, or the bundles cannot be used; or, without a reason to do it anyway (`because`), gateways have certificates
/// below a root that is dropped. What was trusted then still is.
pub async fn install_trust(config: &Config, text: &str, because: Option<&str>) -> Result<Trusted, AppError> {
    let _lock = DataLock::take(&config.data)?;
    let ca = config.data.join(CA_FOLDER);
    let authority = authority_of(config)?;
    let (trusted, bundles) = authority.with_bundles(text)?;
    let dropped = authority.roots().iter().any(|root| trusted.phase(root).is_none());
    let mut words = String::new();
    if dropped {
        let left: Vec<Digest> = trusted
            .certificates()
            .iter()
            .map(|root| Digest::of(root))
            .collect();
        let lacks = |record: &GatewayRecord| record.root.is_none_or(|root| !left.contains(&root));
        let what = "have a certificate below a root that is dropped, or never said which";
        words = left_behind(config, (lacks, what), because).await?;
    }
    let target = format!("trust bundle {}", trusted.number);
    noted(config, "install-trust", (&target, &words), || {
        Authority::keep_bundles(&ca, &bundles)
    })
    .await?;
    Ok(trusted)
}

/// Which roots are trusted, which one issues, and which gateways know them: lines for people.
///
/// # Errors
/// Authority or store cannot be read.
pub async fn authority_in_words(config: &Config) -> Result<String, AppError> {
    let authority = authority_of(config)?;
    let trusted = authority.trusted();
    let mut lines = format!(
        "issuing key: {}\ntrust bundle {}\n",
        authority.key_in_words(),
        trusted.number
    );
    for (root, phase) in &trusted.roots {
        let digest = Digest::of(root);
        let issues = match root == authority.root() {
            true => "; this coordinator issues below it",
            false => "",
        };
        lines += &format!("root {digest} {phase}{issues}\n");
    }
    for issuing in &trusted.withdrawn {
        lines += &format!("withdrawn {issuing}\n");
    }
    let store = turn::open_beside(config).await?;
    for (gateway, record) in remembered(&store).await? {
        let held = match record.trust {
            Some(number) => format!("trust bundle {number}"),
            None => "not known yet".to_owned(),
        };
        let root = record
            .root
            .map_or_else(String::new, |root| format!(", its certificate below root {root}"));
        lines += &format!("gateway {gateway}: {held}{root}\n");
    }
    Ok(lines)
}

/// Who is left behind and why it is done anyway, for the trail; empty: nobody is.
///
/// # Errors
/// Some are, and nobody said why.
async fn left_behind(
    config: &Config,
    (lacks, what): (impl Fn(&GatewayRecord) -> bool, &str),
    because: Option<&str>,
) -> Result<String, AppError> {
    const NAMED_MAX: usize = 16;
    let store = turn::open_beside(config).await?;
    let subjects = store.list_json::<SubjectRecord>(subjects::PREFIX).await?;
    let gone: BTreeSet<Subject> = subjects
        .into_iter()
        .filter(|(_, record, _)| matches!(record.standing, Standing::Revoked | Standing::Retired))
        .filter_map(|(name, ..)| name.parse().ok())
        .collect();
    let lacking: Vec<GatewayId> = remembered(&store)
        .await?
        .into_iter()
        .filter(|(gateway, record)| lacks(record) && !gone.contains(&Subject::Gateway(gateway.clone())))
        .map(|(gateway, _)| gateway)
        .collect();
    if lacking.is_empty() {
        return Ok(String::new());
    }
    let named: Vec<&str> = lacking.iter().take(NAMED_MAX).map(GatewayId::as_str).collect();
    let more = match lacking.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let words = format!("there are gateways that {what}: {}{more}", named.join(", "));
    match because {
        None => Err(AppError::NotReady(words)),
        Some(because) => Ok(format!("{words}. Done anyway: {because}")),
    }
}

/// Does something to the authority's files, which the trail has by then: a crash leaves an event too many, and none too few.
async fn noted(
    config: &Config,
    action: &str,
    (target, words): (&str, &str),
    does: impl FnOnce() -> Result<(), CaError>,
) -> Result<(), AppError> {
    let store = turn::open_beside(config).await?;
    let journal = Journal::new(store.clone(), &config.name);
    let deed = journal.deed("local", "", action);
    store.apply(Change::noted(deed.event(target, words))).await?;
    if let Err(error) = does() {
        deed.refused(target, &crate::chain(&error)).await?;
        return Err(error.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use penstock_proto::bundle::{Bundle, BundleRoot, Phase, SignedBundle};

    use super::*;
    use crate::ca::{IssuingTerms, OfflineRoot};
    use crate::config::ConfigFile;
    use crate::enrolment::update_gateway;
    use crate::store::Silent;

    #[tokio::test]
    async fn who_lost_the_issuing_key_is_told_too_whom_a_new_one_below_another_root_leaves_behind() {
        let (dir, now_ms) = (tempfile::tempdir().unwrap(), clock::now_ms());
        let file = ConfigFile::with_defaults(
            "water".parse().unwrap(),
            "c1".parse().unwrap(),
            dir.path().join("data"),
        );
        let config = file.check().unwrap();
        let (plant, ca) = (config.plant.clone(), config.data.join(CA_FOLDER));
        let [old, new] = ["old", "new"]
            .map(|name| OfflineRoot::create(&dir.path().join(name), plant.clone(), None, now_ms).unwrap());
        let signs = |root: &OfflineRoot, request: &[u8]| {
            let terms = IssuingTerms {
                coordinator: config.name.clone(),
                lifetime: Duration::from_secs(365 * 86_400),
                constrained: true,
            };
            root.sign(request, &terms, now_ms).unwrap().into_bytes()
        };
        let request = init_under(&config, &dir.path().join("old/root.pem")).unwrap();
        install_issuing(&config, &signs(&old, &request), None)
            .await
            .unwrap();
        let mut trusted = Trusted::first(&[old.certificate().clone()]);
        let mut bundles = Vec::new();
        for phases in [[Phase::Active, Phase::Next], [Phase::Retiring, Phase::Active]] {
            let roots = [&old, &new].into_iter().zip(phases);
            let roots = roots
                .map(|(root, phase)| BundleRoot::new(root.certificate(), phase))
                .collect();
            let bundle = Bundle::following(&trusted, &plant, now_ms, roots, []).unwrap();
            let mut signed = SignedBundle::unsigned(&bundle);
            old.sign_bundle(&mut signed).unwrap();
            trusted = signed.trusted().unwrap();
            bundles.push(signed);
        }
        Authority::keep_bundles(&ca, &bundles).unwrap();
        let store = Store::open(&config.data.join(STORE_FILE)).unwrap();
        for gateway in ["gw-1", "gw-2"] {
            let update = |record: &mut GatewayRecord| record.trust = (gateway == "gw-2").then_some(1);
            let change = Change::silent(Silent::Observed);
            update_gateway(&store, change, gateway, update).await.unwrap();
        }
        drop(store);
        let request = Authority::request(&ca).unwrap();
        std::fs::remove_file(ca.join("issuing.key")).unwrap();
        assert!(matches!(authority_of(&config), Err(CaError::NoIssuingKey(_))));
        let pem = signs(&new, &request);
        let refused = install_issuing(&config, &pem, None)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("trust bundle 1") && refused.contains("any more: gw-1"),
            "{refused}"
        );
        // With a reason, a lost key is no obstacle.
        install_issuing(&config, &pem, Some("gw-1 is scrapped"))
            .await
            .unwrap();
        assert_eq!(authority_of(&config).unwrap().root(), new.certificate());
    }
}
