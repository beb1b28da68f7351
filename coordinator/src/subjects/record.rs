//! What is recorded of one subject, and who counts by it: pure rules, the one place of each.

use penstock_policy::ids::{Digest, RoleName};
use penstock_proto::peer::Epoch;
use serde::{Deserialize, Serialize};

/// Withdrawn keys that are remembered of one subject; more cost the oldest. Whoever has that one still needs a token to enrol.
pub const KEYS_MAX: usize = 64;
/// How far a life lies behind which nobody saw: a coordinator that was restored from a backup does not know how many there were.
pub(super) const UNSEEN_LIVES: u32 = 1_000;

/// How a subject stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Its key counts.
    Active,
    /// Its key counts again once an admin says so.
    Suspended,
    /// Its key was withdrawn.
    Revoked,
    /// It is there no longer.
    Retired,
}

impl Standing {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Active, Self::Suspended, Self::Revoked, Self::Retired];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
            Self::Retired => "retired",
        }
    }
}

/// What is recorded of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectRecord {
    /// The number of its life.
    pub epoch: Epoch,
    /// SHA-256 of the key that counts (subjectPublicKeyInfo). `None`: none does, or, of one that is active, it is not known yet.
    pub key: Option<Digest>,
    /// Whether it counts now.
    pub standing: Standing,
    /// Since when it stands so, milliseconds since 1970.
    pub since_ms: u64,
    /// Who decided it.
    pub by: String,
    /// And why.
    pub reason: String,
    /// The key of the life before, if another took its place.
    pub before: Option<Digest>,
    /// Keys that were withdrawn, the oldest first: none of them gets a certificate again.
    pub withdrawn: Vec<Digest>,
    /// The role that certificates of this life give a device; `None`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
}

/// What a certificate of a subject is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It counts.
    Counts,
    /// It counts, and nothing recorded says so: it is recorded from now on.
    Adopted,
    /// It does not, for this reason.
    Refused(NotCounting),
}

/// Why a certificate does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotCounting {
    /// The life that it belongs to is over.
    Over,
    /// Its key is not the one that counts in this life.
    OtherKey,
    /// The subject is suspended.
    Suspended,
}

/// Why a key gets no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRefused {
    /// It was withdrawn.
    Withdrawn,
    /// The subject is suspended.
    Suspended,
}

/// Who decided something, when and why.
#[derive(Debug, Clone, Copy)]
pub struct Decision<'a> {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Who.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
}

/// What an admin changes of how a subject stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandingChange {
    /// It does not count until it is resumed.
    Suspend,
    /// It counts again.
    Resume,
    /// Its key was lost or stolen, or is not to be trusted.
    Revoke,
    /// It is there no longer.
    Retire,
    /// Keys of its earlier lives: what the one that counts took the place of.
    RevokeEarlier,
}

/// What a certificate of this life with this key is worth, by what is recorded.
///
/// ```
/// use penstock_coordinator::subjects::{Judgement, judge};
/// use penstock_policy::ids::Digest;
/// use penstock_proto::peer::Epoch;
///
/// // A coordinator that was restored from an old backup locks nobody out.
/// assert_eq!(judge(None, Epoch(3), Digest::of(b"key")), Judgement::Adopted);
/// ```
pub fn judge(record: Option<&SubjectRecord>, epoch: Epoch, key: Digest) -> Judgement {
    let Some(record) = record else {
        return Judgement::Adopted;
    };
    if record.withdrawn.contains(&key) || epoch < record.epoch {
        return Judgement::Refused(NotCounting::Over);
    }
    match record.standing {
        Standing::Suspended => Judgement::Refused(NotCounting::Suspended),
        // It began a life somewhere of which this coordinator was not left the record.
        _ if epoch > record.epoch => Judgement::Adopted,
        Standing::Revoked | Standing::Retired => Judgement::Refused(NotCounting::Over),
        Standing::Active => match record.key {
            None => Judgement::Adopted,
            Some(counts) if counts == key => Judgement::Counts,
            Some(_) => Judgement::Refused(NotCounting::OtherKey),
        },
    }
}

impl SubjectRecord {
    fn active(epoch: Epoch, key: Option<Digest>, decision: Decision<'_>) -> Self {
        Self {
            epoch,
            key,
            standing: Standing::Active,
            since_ms: decision.at_ms,
            by: decision.by.to_owned(),
            reason: decision.reason.to_owned(),
            before: None,
            withdrawn: Vec::new(),
            role: None,
        }
    }

    /// What is recorded once a certificate was [adopted](Judgement::Adopted).
    pub fn adopted(record: Option<&Self>, epoch: Epoch, key: Digest, decision: Decision<'_>) -> Self {
        Self::after(record, Self::active(epoch, Some(key), decision))
    }

    /// What is recorded once a list that was lost says that the subject counts from this life on; `None`: that is known. Whether a key took the
    /// place of the one before nobody knows any more, so that whoever shows a certificate of that life is [adopted](Judgement::Adopted).
    pub fn learnt(record: Option<&Self>, from: Epoch, decision: Decision<'_>) -> Option<Self> {
        if record.is_some_and(|record| record.epoch >= from) {
            return None;
        }
        let mut next = Self::active(from, None, decision);
        if let Some(record) = record {
            next.withdrawn.clone_from(&record.withdrawn);
            next.withdraw(record.before);
            next.withdraw(record.key);
            if record.standing == Standing::Suspended {
                next.standing = Standing::Suspended;
            }
        }
        Some(next)
    }

    /// What stays of the record before.
    fn after(record: Option<&Self>, next: Self) -> Self {
        Self {
            before: record
                .and_then(|record| record.key)
                .filter(|key| Some(*key) != next.key),
            withdrawn: record.map(|record| record.withdrawn.clone()).unwrap_or_default(),
            role: record.and_then(|record| record.role.clone()),
            ..next
        }
    }

    /// What is recorded once a key got a certificate: the life goes on with the same key (`None`: nothing changes), and begins with another.
    ///
    /// # Errors
    /// The key was withdrawn, or the subject is suspended.
    pub fn with_key(
        record: Option<&Self>,
        key: Digest,
        decision: Decision<'_>,
    ) -> Result<Option<Self>, KeyRefused> {
        let Some(record) = record else {
            return Ok(Some(Self::active(Epoch::default().next(), Some(key), decision)));
        };
        if record.withdrawn.contains(&key) {
            return Err(KeyRefused::Withdrawn);
        }
        match record.standing {
            Standing::Suspended => Err(KeyRefused::Suspended),
            Standing::Active if record.key == Some(key) => Ok(None),
            Standing::Active | Standing::Revoked | Standing::Retired => {
                let next = Self::active(record.epoch.next(), Some(key), decision);
                Ok(Some(Self::after(Some(record), next)))
            }
        }
    }

    /// The same in a role, or in none. Another role than before begins a life too, also of the same key: so the certificates that gave the
    /// one before can be withdrawn.
    ///
    /// # Errors
    /// As [`Self::with_key`].
    pub fn with_key_in_role(
        record: Option<&Self>,
        key: Digest,
        role: Option<&RoleName>,
        decision: Decision<'_>,
    ) -> Result<Option<Self>, KeyRefused> {
        let has_other = record.is_some_and(|record| record.role.as_ref() != role);
        let next = match (Self::with_key(record, key, decision)?, record) {
            (None, Some(record)) if has_other => {
                let next = Self::active(record.epoch.next(), Some(key), decision);
                Some(Self {
                    before: record.before,
                    ..Self::after(Some(record), next)
                })
            }
            (next, _) => next,
        };
        Ok(next.map(|next| Self {
            role: role.cloned(),
            ..next
        }))
    }

    /// What is recorded once an admin decided so. `None`: it does not fit how the subject stands.
    pub fn changed(record: Option<&Self>, change: StandingChange, decision: Decision<'_>) -> Option<Self> {
        let unseen = Self::active(Epoch::default(), None, decision);
        let now = record.unwrap_or(&unseen);
        let standing = match (change, now.standing) {
            (StandingChange::Suspend, Standing::Active) => Standing::Suspended,
            (StandingChange::Resume, Standing::Suspended) => Standing::Active,
            (StandingChange::Revoke, Standing::Active | Standing::Suspended) => Standing::Revoked,
            (StandingChange::Retire, Standing::Active | Standing::Suspended | Standing::Revoked) => {
                Standing::Retired
            }
            (StandingChange::RevokeEarlier, Standing::Active) => Standing::Active,
            _ => return None,
        };
        let mut next = Self {
            standing,
            since_ms: decision.at_ms,
            by: decision.by.to_owned(),
            reason: decision.reason.to_owned(),
            ..now.clone()
        };
        match change {
            StandingChange::Suspend | StandingChange::Resume => {}
            StandingChange::RevokeEarlier => next.withdraw(now.before),
            StandingChange::Revoke | StandingChange::Retire => {
                let is_over = matches!(now.standing, Standing::Revoked | Standing::Retired);
                next.epoch = match now.key {
                    Some(_) => now.epoch.next(),
                    None if is_over => now.epoch,
                    None => Epoch(now.epoch.0.saturating_add(UNSEEN_LIVES)),
                };
                next.key = None;
                next.withdraw(now.before);
                next.withdraw(now.key);
            }
        }
        Some(next)
    }

    fn withdraw(&mut self, key: Option<Digest>) {
        self.before = None;
        if let Some(key) = key.filter(|key| !self.withdrawn.contains(key)) {
            self.withdrawn.push(key);
            let surplus = self.withdrawn.len().saturating_sub(KEYS_MAX);
            self.withdrawn.drain(..surplus);
        }
    }
}

/// ` in the role operator`, as the trail says it; nothing without one.
pub(crate) fn in_role(role: Option<&RoleName>) -> String {
    role.map(|role| format!(" in the role {role}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
