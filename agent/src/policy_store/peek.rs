//! What a person may know of the stored policies while the agent that runs holds the database: from the sealed copies alone.

use penstock_policy::release::Trust;

use super::journal::Journal;
use super::{EFFECTIVE, JOURNAL, RecordFault, SLOTS, StoredPolicies, StoredPolicy, TRUST, decode, digest_in};

/// The policy that was last in force, from the copies in files alone (while the agent holds the database). Where a copy that
/// would say it cannot be used, nothing is guessed: [`StoredPolicies::known`] is false then.
pub fn peek(folder: &std::path::Path) -> StoredPolicies {
    let mut held = StoredPolicies {
        known: true,
        ..StoredPolicies::default()
    };
    let mut read = |record| {
        let copy = crate::store::read_copy(folder, record);
        if let Some(message) = copy.fault {
            held.known &= copy.found.is_some();
            held.faults.push(RecordFault {
                record,
                message,
                unread: false,
            });
        }
        copy.found.map(|(_, bytes)| bytes)
    };
    let marked = digest_in(read(EFFECTIVE));
    let journal = read(JOURNAL);
    let slots = SLOTS.map(|slot| (slot, read(slot)));
    let trust = read(TRUST);
    let journal = match journal.map(|bytes| serde_json::from_slice::<Journal>(&bytes)) {
        Some(Ok(journal)) => Some(journal),
        Some(Err(error)) => {
            held.faults.push(RecordFault::unusable(JOURNAL, &error));
            None
        }
        // There is none, or its copy cannot be used.
        None => (!held.faults.iter().any(|fault| fault.record == JOURNAL)).then(Journal::default),
    };
    held.trust = trust.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let believed = held.trust.as_ref();
    let is_ours = |applying: &Trust| {
        believed.is_none_or(|trust| trust.plant == applying.plant && trust.gateway == applying.gateway)
    };
    // One of another plant or gateway is left over from before a new enrolment.
    held.journal = journal.map(|journal| match &journal.applying {
        Some(applying) if !is_ours(applying) => Journal::default(),
        _ => journal,
    });
    // The journal is written before the marks are.
    let before_trial = || {
        Some(
            held.journal
                .as_ref()?
                .trial
                .as_ref()?
                .previous
                .as_ref()?
                .statement,
        )
    };
    // What the gateway believes moves together with what is in force.
    let in_force = before_trial()
        .or(marked)
        .or_else(|| held.trust.as_ref().and_then(|trust| trust.current));
    for (slot, bytes) in slots {
        match bytes.map(|bytes| decode(&bytes)) {
            Some(Ok(policy)) if in_force == Some(policy.statement) => held.effective = Some(policy),
            Some(Ok(policy)) => held.staged = Some(policy),
            Some(Err(error)) => {
                held.known = false;
                held.faults.push(RecordFault::unusable(slot, &error));
            }
            None => {}
        }
    }
    if held.effective.is_some() {
        // Whatever else cannot be read, this one is in force.
        held.known = true;
    }
    let newer = |staged: &StoredPolicy| match &held.effective {
        Some(effective) => staged.mark.revision >= effective.mark.revision,
        None => held.known,
    };
    held.staged = held.staged.filter(newer);
    let journal = held.journal.as_ref();
    let was_reverted =
        |staged: &mut StoredPolicy| journal.is_some_and(|journal| journal.is_reverted(staged.statement));
    held.staged.take_if(was_reverted);
    held
}
