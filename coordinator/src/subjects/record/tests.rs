#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn key(number: u8) -> Digest {
    Digest::of(&[number])
}

fn now(at_ms: u64) -> Decision<'static> {
    Decision {
        at_ms,
        by: "anna",
        reason: "because",
    }
}

/// What happens to one subject.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A certificate is asked for this key.
    Key(u8),
    Admin(StandingChange),
    /// The coordinator loses what it recorded since some step: a backup is restored.
    Restore(prop::sample::Index),
    /// Whoever holds one of the certificates that were issued connects.
    Connect(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let changes = [
        StandingChange::Suspend,
        StandingChange::Resume,
        StandingChange::Revoke,
        StandingChange::Retire,
        StandingChange::RevokeEarlier,
    ];
    prop_oneof![
        3 => (0_u8..5).prop_map(Step::Key),
        3 => prop::sample::select(changes.to_vec()).prop_map(Step::Admin),
        3 => any::<prop::sample::Index>().prop_map(Step::Connect),
        1 => any::<prop::sample::Index>().prop_map(Step::Restore),
    ]
}

/// Certificates of lives before this one. Without a loss these are all that were issued.
fn earlier(issued: &[(Epoch, Digest)], epoch: Epoch, restores: bool) -> Vec<(Epoch, Digest)> {
    let mut issued = issued.to_vec();
    issued.retain(|(of, _)| !restores || *of < epoch);
    issued
}

/// A history, checked at each step by a model that only knows what was decided.
fn live(steps: &[Step], restores: bool) -> Result<(), TestCaseError> {
    let mut record: Option<SubjectRecord> = None;
    let mut backups = vec![None];
    let mut issued: Vec<(Epoch, Digest)> = Vec::new();
    // Of which keys an admin decided that they never count again.
    let mut dead: BTreeMap<Digest, ()> = BTreeMap::new();
    let mut over: Vec<(Epoch, Digest)> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let before = record.clone();
        match step {
            Step::Key(number) => match SubjectRecord::with_key(record.as_ref(), key(*number), now(at as u64))
            {
                Ok(next) => {
                    let next = next.or(record.clone()).unwrap();
                    prop_assert_eq!(next.key, Some(key(*number)));
                    prop_assert!(!dead.contains_key(&key(*number)), "a withdrawn key enrolled");
                    if before.as_ref().is_some_and(|before| before.key != next.key) {
                        over.extend(earlier(&issued, next.epoch, restores));
                    }
                    issued.push((next.epoch, key(*number)));
                    record = Some(next);
                }
                Err(KeyRefused::Withdrawn) => prop_assert!(dead.contains_key(&key(*number))),
                Err(KeyRefused::Suspended) => {
                    prop_assert_eq!(before.as_ref().unwrap().standing, Standing::Suspended);
                }
            },
            Step::Admin(change) => {
                if let Some(next) = SubjectRecord::changed(record.as_ref(), *change, now(at as u64)) {
                    if matches!(change, StandingChange::Revoke | StandingChange::Retire) {
                        over.extend(earlier(&issued, next.epoch, restores));
                        let known = before.as_ref().map(|before| [before.key, before.before]);
                        dead.extend(known.into_iter().flatten().flatten().map(|key| (key, ())));
                    }
                    if *change == StandingChange::RevokeEarlier {
                        dead.extend(
                            before
                                .as_ref()
                                .and_then(|before| before.before)
                                .map(|key| (key, ())),
                        );
                    }
                    record = Some(next);
                }
            }
            Step::Restore(which) if restores => {
                record = which.get(&backups).clone();
                // What it forgot, it cannot hold against anybody.
                over.clear();
                dead.clear();
                dead.extend(
                    record
                        .iter()
                        .flat_map(|record| record.withdrawn.iter().map(|key| (*key, ()))),
                );
            }
            Step::Restore(_) => {}
            Step::Connect(which) if !issued.is_empty() => {
                let (epoch, key) = *which.get(&issued);
                let judgement = judge(record.as_ref(), epoch, key);
                if judgement == Judgement::Adopted {
                    let next = SubjectRecord::adopted(record.as_ref(), epoch, key, now(at as u64));
                    // Only upwards: nothing that was known is taken back.
                    let known = before.as_ref().filter(|before| before.key.is_some());
                    prop_assert!(known.is_none_or(|known| known.epoch < epoch));
                    prop_assert!(before.as_ref().is_none_or(|before| before.epoch <= epoch));
                    record = Some(next);
                }
                if over.contains(&(epoch, key)) {
                    prop_assert!(matches!(judgement, Judgement::Refused(_)), "{judgement:?}");
                }
            }
            Step::Connect(_) => {}
        }
        if let Some(record) = &record {
            prop_assert!(record.withdrawn.len() <= KEYS_MAX);
            let judged = |key| judge(Some(record), record.epoch, key);
            match (record.standing, record.key) {
                (Standing::Active, Some(key)) => prop_assert_eq!(judged(key), Judgement::Counts),
                (Standing::Active, None) => {}
                (_, known) => {
                    let one = known.unwrap_or(key(77));
                    prop_assert!(matches!(judged(one), Judgement::Refused(_)));
                }
            }
            // Of one life one key counts.
            if record.key.is_some() {
                let counts = (0..5).filter(|number| judged(key(*number)) == Judgement::Counts);
                prop_assert!(counts.count() <= 1);
            }
            if !restores {
                prop_assert!(before.is_none_or(|before| before.epoch <= record.epoch));
            }
        }
        backups.push(record.clone());
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_over_never_counts_again_and_the_key_that_counts_always_does(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        live(&steps, false)?;
    }

    #[test]
    fn a_coordinator_that_forgets_adopts_only_later_lives(steps in prop::collection::vec(step(), 1..60)) {
        live(&steps, true)?;
    }
}

#[test]
fn nobody_who_enrolled_before_there_were_records_is_locked_out() {
    assert_eq!(judge(None, Epoch(0), key(1)), Judgement::Adopted);
    let record = SubjectRecord::adopted(None, Epoch(0), key(1), now(1));
    assert_eq!(judge(Some(&record), Epoch(0), key(1)), Judgement::Counts);
    // The same key goes on in the same life, another one begins the next.
    assert_eq!(SubjectRecord::with_key(Some(&record), key(1), now(2)), Ok(None));
    let next = SubjectRecord::with_key(Some(&record), key(2), now(2))
        .unwrap()
        .unwrap();
    assert_eq!((next.epoch, next.before), (Epoch(1), Some(key(1))));
    assert_eq!(
        judge(Some(&next), Epoch(0), key(1)),
        Judgement::Refused(NotCounting::Over)
    );
}

#[test]
fn whoever_was_suspended_before_anybody_saw_their_key_counts_by_it_once_they_are_resumed() {
    let suspended = SubjectRecord::changed(None, StandingChange::Suspend, now(1)).unwrap();
    for epoch in [0, 1, 7] {
        let judged = judge(Some(&suspended), Epoch(epoch), key(1));
        assert_eq!(judged, Judgement::Refused(NotCounting::Suspended), "{epoch}");
    }
    let resumed = SubjectRecord::changed(Some(&suspended), StandingChange::Resume, now(2)).unwrap();
    assert_eq!(judge(Some(&resumed), Epoch(3), key(1)), Judgement::Adopted);
}

#[test]
fn a_key_that_nobody_saw_since_a_backup_was_restored_is_revoked_whatever_its_life() {
    let revoked = SubjectRecord::changed(None, StandingChange::Revoke, now(1)).unwrap();
    for epoch in [0, 1, 12] {
        let judged = judge(Some(&revoked), Epoch(epoch), key(1));
        assert_eq!(judged, Judgement::Refused(NotCounting::Over), "{epoch}");
    }
}

#[test]
fn an_admin_decides_only_what_fits() {
    use Standing::{Active, Retired, Revoked, Suspended};
    use StandingChange::{Resume, Retire, Revoke, RevokeEarlier, Suspend};
    let active = SubjectRecord::with_key(None, key(1), now(0)).unwrap().unwrap();
    for (first, then, stands) in [
        (None, Suspend, Some(Suspended)),
        (None, Resume, None),
        (None, Revoke, Some(Revoked)),
        (None, Retire, Some(Retired)),
        (None, RevokeEarlier, Some(Active)),
        (Some(Suspend), Suspend, None),
        (Some(Suspend), Resume, Some(Active)),
        (Some(Suspend), Revoke, Some(Revoked)),
        (Some(Suspend), Retire, Some(Retired)),
        (Some(Suspend), RevokeEarlier, None),
        (Some(Revoke), Suspend, None),
        (Some(Revoke), Resume, None),
        (Some(Revoke), Revoke, None),
        (Some(Revoke), Retire, Some(Retired)),
        (Some(Retire), Revoke, None),
        (Some(Retire), Retire, None),
    ] {
        let before = match first {
            Some(change) => SubjectRecord::changed(Some(&active), change, now(1)).unwrap(),
            None => active.clone(),
        };
        let after = SubjectRecord::changed(Some(&before), then, now(2));
        assert_eq!(after.map(|after| after.standing), stands, "{first:?}, {then:?}");
    }
}

#[test]
fn of_many_withdrawn_keys_the_newest_are_remembered() {
    let mut record = None;
    for number in 0..=u8::try_from(KEYS_MAX).unwrap() {
        let enrolled = SubjectRecord::with_key(record.as_ref(), key(number), now(0))
            .unwrap()
            .unwrap();
        record = SubjectRecord::changed(Some(&enrolled), StandingChange::Revoke, now(0));
    }
    let record = record.unwrap();
    assert_eq!(record.withdrawn.len(), KEYS_MAX);
    let again = |number| SubjectRecord::with_key(Some(&record), key(number), now(0));
    assert_eq!(again(1), Err(KeyRefused::Withdrawn));
    assert!(again(0).is_ok());
}

#[test]
fn another_role_begins_a_life_also_of_the_same_key_and_no_other_change_loses_a_role() {
    let [operator, engineer] = ["operator", "engineer"].map(|name| RoleName::new(name).unwrap());
    let given = |record: Option<&SubjectRecord>, number, role: Option<&RoleName>| {
        SubjectRecord::with_key_in_role(record, key(number), role, now(1)).unwrap()
    };
    let first = given(None, 1, Some(&operator)).unwrap();
    assert_eq!((first.epoch, first.role.as_ref()), (Epoch(1), Some(&operator)));
    assert_eq!(given(Some(&first), 1, Some(&operator)), None, "it goes on");
    // By the same key: the certificates of the role before are of a life that can be ended, and the key is not.
    let second = given(Some(&first), 1, Some(&engineer)).unwrap();
    assert_eq!(
        (second.epoch, second.key, second.before),
        (Epoch(2), Some(key(1)), None)
    );
    let ended = SubjectRecord::changed(Some(&second), StandingChange::RevokeEarlier, now(2)).unwrap();
    assert_eq!(judge(Some(&ended), Epoch(2), key(1)), Judgement::Counts);
    assert_eq!(
        judge(Some(&ended), Epoch(1), key(1)),
        Judgement::Refused(NotCounting::Over)
    );
    assert!(ended.withdrawn.is_empty());
    // A key that waits to be ended is still known after another role, and a new key keeps the role unless another is said.
    let third = SubjectRecord::with_key(Some(&ended), key(2), now(3))
        .unwrap()
        .unwrap();
    assert_eq!(
        (third.role.as_ref(), third.before),
        (Some(&engineer), Some(key(1)))
    );
    let fourth = given(Some(&third), 2, None).unwrap();
    assert_eq!((fourth.role.as_ref(), fourth.before), (None, Some(key(1))));
    let revoked = SubjectRecord::changed(Some(&third), StandingChange::Revoke, now(4)).unwrap();
    assert_eq!(revoked.role.as_ref(), Some(&engineer));
    assert_eq!(
        SubjectRecord::with_key_in_role(Some(&revoked), key(2), None, now(5)),
        Err(KeyRefused::Withdrawn)
    );
}

#[test]
fn a_record_from_before_there_were_roles_is_read_and_written_as_it_was() {
    let record = SubjectRecord::adopted(None, Epoch(0), key(1), now(1));
    let written = serde_json::to_string(&record).unwrap();
    assert!(!written.contains("role"), "{written}");
    assert_eq!(serde_json::from_str::<SubjectRecord>(&written).unwrap(), record);
}
