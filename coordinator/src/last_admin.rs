//! Whether anybody will still be able to let somebody in: the last admin's certificate, before and after its end.
//!
//! A login is renewed by whatever its owner does in the last third of its life. An admin who does nothing for so long is missed here before nobody is
//! left; afterwards a token is made on the coordinator's own machine. Where only admins are left whose keys came by the identity provider, nobody could
//! let anybody in while that is away: that is said, too, as long as it is so.

use std::time::Duration;

use penstock_policy::ids::OperatorId;
use penstock_proto::peer::Subject;
use penstock_proto::tls::times::instant;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use crate::clock;
use crate::oidc;
use crate::operators::{self, OperatorRecord, Role};
use crate::store::{RecordChange, Store, StoreError};
use crate::subjects::{Standing, Subjects};

/// How long before its end it is said.
const LEFT_MS: u64 = 14 * 86_400_000;
/// How often it is looked.
const LOOK: Duration = Duration::from_secs(60);

/// An admin who counts.
struct CountingAdmin {
    name: String,
    /// When their certificate ends, milliseconds since 1970; 0: it is not known.
    until_ms: u64,
    /// Their key came by the identity provider.
    by_provider: bool,
}

/// What is said of the admins who count; `None`: nothing.
fn note(admins: &[CountingAdmin], now_ms: u64) -> Option<String> {
    let has = |by_provider: bool| {
        let holds = |admin: &CountingAdmin| admin.until_ms == 0 || admin.until_ms > now_ms;
        admins
            .iter()
            .any(|admin| admin.by_provider == by_provider && holds(admin))
    };
    if has(true) && !has(false) {
        let words = "every admin signs in through the identity provider: while it cannot be asked, nobody can let anybody in; let one of them have a \
                     login by a token (`penstock operators add NAME --role admin`), or keep in mind that `penstock-coordinator token` makes one on the \
                     coordinator's own machine";
        return Some(words.to_owned());
    }
    let counted: Vec<_> = admins
        .iter()
        .filter(|admin| !admin.by_provider || !has(false))
        .map(|admin| (admin.name.clone(), admin.until_ms))
        .collect();
    note_of_ends(&counted, now_ms)
}

/// The same of the ends of their certificates.
fn note_of_ends(admins: &[(String, u64)], now_ms: u64) -> Option<String> {
    if admins.iter().any(|(_, until_ms)| *until_ms == 0) {
        return None;
    }
    let (last, until_ms) = admins.iter().max_by_key(|(_, until_ms)| *until_ms)?;
    let until = instant(*until_ms);
    if *until_ms <= now_ms {
        Some(format!(
            "nobody can let anybody in: the certificate of the last admin, {last}, ended at {until}; make a token on the coordinator's own machine: \
             `penstock-coordinator token`"
        ))
    } else if until_ms - now_ms <= LEFT_MS {
        Some(format!(
            "the certificate of the last admin, {last}, ends at {until}, and nobody could let anybody in after that; whatever {last} does with `penstock` \
             in its last third renews it, or now: `penstock login --renew`"
        ))
    } else {
        None
    }
}

async fn look(store: &Store, subjects: &Subjects) -> Result<Option<String>, StoreError> {
    let operators = store.list_json::<OperatorRecord>(operators::PREFIX).await?;
    let mut admins = Vec::new();
    for (name, record, _) in operators {
        let Ok(operator) = OperatorId::new(name.as_str()) else {
            continue;
        };
        let subject = subjects.record(&Subject::Operator(operator.clone()));
        let counts = subject
            .as_ref()
            .is_none_or(|subject| subject.standing == Standing::Active);
        if record.role != Role::Admin || !counts {
            continue;
        }
        let key = subject.and_then(|subject| subject.key);
        let signed_in = oidc::signed_in(store, &operator).await?;
        admins.push(CountingAdmin {
            name,
            until_ms: record.certificate_expires_ms,
            by_provider: signed_in.is_some_and(|(signed_in, _)| Some(signed_in.key) == key),
        });
    }
    Ok(note(&admins, clock::now_ms()))
}

/// Waits until a record of an operator changed; also one that was missed.
async fn operators_change(changes: &mut broadcast::Receiver<RecordChange>) {
    loop {
        match changes.recv().await {
            Ok(change) if !change.key.contains(operators::PREFIX) => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            // The store was closed: nothing changes any more.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Adds to the notes of the plant what is said of its admins, until nobody wants to know.
pub(crate) async fn follow(
    store: Store,
    subjects: Subjects,
    mut others: watch::Receiver<Vec<String>>,
    notes: watch::Sender<Vec<String>>,
) {
    let mut own = None;
    let mut changes = store.watch();
    loop {
        match look(&store, &subjects).await {
            Ok(now) => own = now,
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "cannot see how long admins' certificates hold; it is tried again");
            }
        }
        let now: Vec<String> = others
            .borrow_and_update()
            .iter()
            .cloned()
            .chain(own.clone())
            .collect();
        notes.send_if_modified(|held| {
            let is_other = *held != now;
            *held = now;
            is_other
        });
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = operators_change(&mut changes) => {}
            changed = others.changed() => if changed.is_err() { return },
            () = notes.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin(until_ms: u64, by_provider: bool) -> CountingAdmin {
        CountingAdmin {
            name: "ada".to_owned(),
            until_ms,
            by_provider,
        }
    }

    #[test]
    fn a_plant_whose_admins_all_depend_on_the_identity_provider_says_so() {
        let (now_ms, day_ms) = (1_800_000_000_000, 86_400_000);
        let said = |admins: &[CountingAdmin]| note(admins, now_ms).unwrap_or_default();
        let provided = || admin(now_ms + day_ms / 2, true);
        for admins in [vec![provided()], vec![provided(), admin(now_ms - 1, false)]] {
            assert!(said(&admins).contains("through the identity provider"));
        }
        assert_eq!(said(&[provided(), admin(now_ms + 15 * day_ms, false)]), "");
        let soon = said(&[provided(), admin(now_ms + 3 * day_ms, false)]);
        assert!(soon.contains("penstock login --renew"), "{soon}");
        // Nobody at all is left: a token on the coordinator's machine.
        let none = said(&[admin(now_ms - 1, true), admin(now_ms - 1, false)]);
        assert!(none.contains("ended at"), "{none}");
    }

    #[test]
    fn a_plant_whose_last_admins_certificate_ends_soon_says_so_before_and_after() {
        let (now_ms, day_ms) = (1_800_000_000_000, 86_400_000);
        let said = |ends: &[u64]| {
            let admins: Vec<_> = ends.iter().map(|until_ms| admin(*until_ms, false)).collect();
            note(&admins, now_ms).unwrap_or_default()
        };
        assert_eq!(said(&[]), "", "none has logged in yet");
        assert_eq!(said(&[now_ms + 15 * day_ms]), "");
        assert_eq!(
            said(&[now_ms - 1, now_ms + 15 * day_ms]),
            "",
            "another holds longer"
        );
        assert_eq!(said(&[0, now_ms - 1]), "", "older software did not write it down");
        for ends in [&[now_ms + 13 * day_ms][..], &[now_ms - 1, now_ms + 13 * day_ms]] {
            assert!(said(ends).contains("penstock login --renew"), "{ends:?}");
        }
        assert!(said(&[now_ms - 1]).contains("penstock-coordinator token"));
    }
}
