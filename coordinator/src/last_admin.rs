//! Whether anybody will still be able to let somebody in: the last admin's certificate, before and after its end.
//!
//! A login is renewed by whatever its owner does in the last third of its life. An admin who does nothing for so long is missed here before nobody is
//! left; afterwards a token is made on the coordinator's own machine.

use std::time::Duration;

use penstock_policy::ids::OperatorId;
use penstock_proto::peer::Subject;
use penstock_proto::tls::times::instant;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use crate::clock;
use crate::operators::{self, OperatorRecord, Role};
use crate::store::{RecordChange, Store, StoreError};
use crate::subjects::{Standing, Subjects};

/// How long before its end it is said.
const LEFT_MS: u64 = 14 * 86_400_000;
/// How often it is looked.
const LOOK: Duration = Duration::from_secs(60);

/// What is said of the admins who count, each with the end of their certificate (0: it is not known); `None`: nothing.
fn note(admins: &[(String, u64)], now_ms: u64) -> Option<String> {
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
    let admins: Vec<(String, u64)> = operators
        .into_iter()
        .filter(|(name, record, _)| {
            record.role == Role::Admin
                && OperatorId::new(name.as_str()).is_ok_and(|operator| {
                    let subject = subjects.record(&Subject::Operator(operator));
                    subject.is_none_or(|subject| subject.standing == Standing::Active)
                })
        })
        .map(|(name, record, _)| (name, record.certificate_expires_ms))
        .collect();
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

    #[test]
    fn a_plant_whose_last_admins_certificate_ends_soon_says_so_before_and_after() {
        let (now_ms, day_ms) = (1_800_000_000_000, 86_400_000);
        let said = |ends: &[u64]| {
            let admins: Vec<_> = ends
                .iter()
                .map(|until_ms| ("ada".to_owned(), *until_ms))
                .collect();
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
