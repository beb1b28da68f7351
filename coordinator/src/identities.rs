//! What admins decide of who counts: to suspend, to resume, to revoke, to retire (IEC 62443-3-3 SR 1.3, SR 1.4).
//!
//! Decisions are made one after the other. So of two admins who want each other out at the same time one stays, and with one admin
//! the way back in. Nobody decides about themselves: who is at a stolen laptop does not bring its owner out with it, and a mistake has a second
//! person who can undo it. On the coordinator's own machine an admin's token can be made at any time.
//!
//! An unused token of whoever is revoked ends with it. Not here: what follows for keys and connections (`subjects`).

use std::sync::Arc;

use penstock_policy::ids::{GatewayId, OperatorId};
use penstock_policy::text;
use penstock_proto::peer::Subject;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;
use tokio::sync::Mutex;

use crate::devices;
use crate::enrolment::{self, GATEWAY_PREFIX};
use crate::journal::Deed;
use crate::operators::{self, OperatorRecord, Role};
use crate::releases::Releases;
use crate::sessions::Fleet;
use crate::store::{Change, Store, StoreError};
use crate::subjects::{Decision, Standing, StandingChange, SubjectRecord, Subjects};
use crate::tickets::Tickets;

/// Longest reason and longest ticket, bytes.
const WORDS_MAX: usize = 500;

/// Decides.
#[derive(Clone)]
pub struct Identities {
    store: Store,
    subjects: Subjects,
    tickets: Tickets,
    fleet: Arc<Fleet>,
    releases: Releases,
    /// One decision at a time.
    deciding: Arc<Mutex<()>>,
}

/// A decision that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AskedChange {
    pub(crate) subject: Subject,
    pub(crate) change: StandingChange,
    /// Why, with the ticket if there is one.
    reason: String,
}

impl TryFrom<v1::ChangeStandingRequest> for AskedChange {
    type Error = Refusal;

    fn try_from(request: v1::ChangeStandingRequest) -> Result<Self, Refusal> {
        let bad = |field: &str, what: String| {
            Refusal::new(Reason::BadRequest, format!("{field} {what}")).field(field, what)
        };
        let change = asked_change(request.change).ok_or_else(|| {
            bad(
                "change",
                "must be said: suspend, resume, revoke, retire or revoke earlier".to_owned(),
            )
        })?;
        let subject: Subject = request
            .subject
            .parse()
            .map_err(|error: penstock_proto::peer::PeerError| bad("subject", error.to_string()))?;
        let fits = match (&subject, change) {
            (Subject::Gateway(_) | Subject::Operator(_), change) => change != StandingChange::RevokeEarlier,
            (Subject::Device(_), change) => {
                matches!(change, StandingChange::Revoke | StandingChange::RevokeEarlier)
            }
            (Subject::Coordinator(_), _) => false,
        };
        if !fits {
            let what = format!("cannot be: {} is for others than {subject}", word(change));
            return Err(bad("change", what));
        }
        if request.reason.trim().is_empty() {
            return Err(bad("reason", "must be said: the trail keeps it".to_owned()));
        }
        for (field, said) in [("reason", &request.reason), ("ticket", &request.ticket)] {
            if said.len() > WORDS_MAX {
                return Err(bad(field, format!("is longer than {WORDS_MAX} bytes")));
            }
        }
        let reason = text::bounded(request.reason.trim(), WORDS_MAX).to_owned();
        let reason = match request.ticket.trim() {
            "" => reason,
            ticket => format!("{reason} ({ticket})"),
        };
        Ok(Self {
            subject,
            change,
            reason,
        })
    }
}

/// The change that the wire names; `None`: it names none that is known.
pub(crate) fn asked_change(wire: i32) -> Option<StandingChange> {
    match v1::StandingChange::try_from(wire).ok()? {
        v1::StandingChange::Unspecified => None,
        v1::StandingChange::Suspend => Some(StandingChange::Suspend),
        v1::StandingChange::Resume => Some(StandingChange::Resume),
        v1::StandingChange::Revoke => Some(StandingChange::Revoke),
        v1::StandingChange::Retire => Some(StandingChange::Retire),
        v1::StandingChange::RevokeEarlier => Some(StandingChange::RevokeEarlier),
    }
}

fn word(change: StandingChange) -> &'static str {
    match change {
        StandingChange::Suspend => "suspend",
        StandingChange::Resume => "resume",
        StandingChange::Revoke => "revoke",
        StandingChange::Retire => "retire",
        StandingChange::RevokeEarlier => "revoke-earlier",
    }
}

impl Identities {
    /// By these records.
    pub fn new(
        store: Store,
        subjects: Subjects,
        (tickets, fleet): (Tickets, Arc<Fleet>),
        releases: Releases,
    ) -> Self {
        Self {
            store,
            subjects,
            tickets,
            fleet,
            releases,
            deciding: Arc::default(),
        }
    }

    /// Does what an operator decided. Answers with what is recorded by then.
    pub(crate) async fn change(
        &self,
        caller: &OperatorId,
        asked: &AskedChange,
        deed: Deed<'_>,
        now_ms: u64,
    ) -> Result<Arc<SubjectRecord>, Refusal> {
        let AskedChange {
            subject,
            change,
            reason,
        } = asked;
        let own = Subject::Operator(caller.clone());
        if *subject == own {
            return Err(Refusal::new(
                Reason::OwnStanding,
                format!(
                    "nobody decides about their own login; another admin has to {} {subject}",
                    word(*change)
                ),
            ));
        }
        self.known(subject).await?;
        let _one_at_a_time = self.deciding.lock().await;
        // Another admin may have decided about the caller since the call was let in.
        if self
            .subjects
            .record(&own)
            .is_some_and(|record| record.standing != Standing::Active)
        {
            return Err(Refusal::new(
                Reason::IdentityWithdrawn,
                format!("{own} no longer counts: another admin decided so meanwhile"),
            ));
        }
        self.keep_an_admin(subject, *change).await?;
        let decision = Decision {
            at_ms: now_ms,
            by: deed.operator(),
            reason,
        };
        if let (StandingChange::Resume, Subject::Gateway(gateway)) = (*change, subject)
            && self.is_active(subject)
        {
            self.one_user(gateway, deed, reason).await?;
            return self.recorded(subject);
        }
        loop {
            let step = self
                .subjects
                .changed(subject, *change, decision)
                .ok_or_else(|| self.does_not_fit(subject, *change))?;
            let noted = Change::noted(deed.event(&subject.to_string(), reason));
            let with_rest = self.with_rest(noted, subject, *change, now_ms).await?;
            match self.subjects.apply(with_rest, Some(step)).await {
                Err(StoreError::Conflict { .. }) => {}
                done => {
                    done?;
                    break;
                }
            }
        }
        if let (StandingChange::Revoke | StandingChange::Retire, Subject::Gateway(gateway)) =
            (*change, subject)
        {
            self.fleet.twin(gateway, None);
        }
        self.recorded(subject)
    }

    fn recorded(&self, subject: &Subject) -> Result<Arc<SubjectRecord>, Refusal> {
        self.subjects
            .record(subject)
            .ok_or_else(|| Refusal::new(Reason::Internal, format!("nothing is recorded of {subject}")))
    }

    fn is_active(&self, subject: &Subject) -> bool {
        let recorded = self.subjects.record(subject);
        recorded.is_none_or(|record| record.standing == Standing::Active)
    }

    /// The key of a gateway has one user, although it seemed to have two. Its sessions begin again: whoever comes first is the one.
    async fn one_user(&self, gateway: &GatewayId, deed: Deed<'_>, reason: &str) -> Result<(), Refusal> {
        let subject = Subject::Gateway(gateway.clone());
        loop {
            let key = self.subjects.record(&subject).and_then(|record| record.key);
            let words = format!("it has one user: {reason}");
            let noted = Change::noted(deed.event(&subject.to_string(), &words));
            let lifted = self.tickets.lift(noted, gateway, key).await?;
            let change = lifted.ok_or_else(|| self.does_not_fit(&subject, StandingChange::Resume))?;
            match self.store.apply(change).await {
                Err(StoreError::Conflict { .. }) => {}
                done => {
                    done?;
                    break;
                }
            }
        }
        self.fleet.twin(gateway, None);
        self.subjects.end_sessions(&subject);
        Ok(())
    }

    /// What ends with a key: an unused token, and, of an operator who is removed, their role. That they could confirm until now is
    /// remembered.
    async fn with_rest(
        &self,
        mut change: Change,
        subject: &Subject,
        asked: StandingChange,
        now_ms: u64,
    ) -> Result<Change, StoreError> {
        if let Subject::Operator(operator) = subject
            && asked != StandingChange::Resume
            && operators::role_of(&self.store, operator)
                .await?
                .is_some_and(Role::confirms)
            && self
                .subjects
                .record(subject)
                .is_none_or(|record| record.standing == Standing::Active)
        {
            change = operators::confirms_no_longer(&self.store, change, operator, now_ms).await?;
        }
        if matches!(asked, StandingChange::Revoke | StandingChange::Retire) {
            let token = enrolment::key_of(subject);
            if let Some(found) = self.store.get(&token).await? {
                change = change.removed(&token, found.revision);
            }
            if let Subject::Gateway(gateway) = subject {
                change = self.tickets.forget(change, gateway).await?;
            }
        }
        if let (StandingChange::Retire, Subject::Operator(operator)) = (asked, subject) {
            let key = format!("{}{operator}", operators::PREFIX);
            if let Some(found) = self.store.get(&key).await? {
                change = change.removed(&key, found.revision);
            }
        }
        Ok(change)
    }

    /// A name that nobody has is a slip of the pen, and whoever was meant still counts.
    async fn known(&self, subject: &Subject) -> Result<(), Refusal> {
        if self.subjects.record(subject).is_some() {
            return Ok(());
        }
        let recorded = match subject {
            Subject::Gateway(gateway) => Some(format!("{GATEWAY_PREFIX}{gateway}")),
            Subject::Operator(operator) => Some(format!("{}{operator}", operators::PREFIX)),
            Subject::Coordinator(_) | Subject::Device(_) => None,
        };
        for key in recorded.into_iter().chain([enrolment::key_of(subject)]) {
            if self.store.get(&key).await?.is_some() {
                return Ok(());
            }
        }
        // Its certificate may be older than its record.
        if let Subject::Device(asset) = subject {
            return devices::known(&self.releases, asset).await;
        }
        Err(Refusal::new(
            Reason::NotFound,
            format!("there is no {subject}: nothing was changed; see the list"),
        ))
    }

    /// Refuses what would leave no admin.
    async fn keep_an_admin(&self, subject: &Subject, change: StandingChange) -> Result<(), Refusal> {
        let Subject::Operator(operator) = subject else {
            return Ok(());
        };
        if change == StandingChange::Resume {
            return Ok(());
        }
        let operators = self.store.list_json::<OperatorRecord>(operators::PREFIX).await?;
        let stays = operators.iter().any(|(name, record, _)| {
            let is_other = name != operator.as_str() && record.role == Role::Admin;
            is_other
                && OperatorId::new(name.as_str()).is_ok_and(|id| {
                    let recorded = self.subjects.record(&Subject::Operator(id));
                    recorded.is_none_or(|record| record.standing == Standing::Active)
                })
        });
        if stays {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::LastAdmin,
            format!(
                "{operator} is the last admin who counts, and without one nobody could be let in; add another admin first"
            ),
        ))
    }

    fn does_not_fit(&self, subject: &Subject, change: StandingChange) -> Refusal {
        let standing = self
            .subjects
            .record(subject)
            .map_or(Standing::Active, |record| record.standing);
        let what = match change {
            StandingChange::Resume => {
                "only what is suspended, or a gateway whose key seems to have two users, can be resumed"
            }
            StandingChange::Suspend => "only what is active can be suspended",
            StandingChange::Revoke | StandingChange::Retire => "its key does not count any more",
            StandingChange::RevokeEarlier => "none of its keys counts",
        };
        Refusal::new(
            Reason::WrongStanding,
            format!(
                "{subject} is {}, so that there is nothing to {}: {what}",
                standing.as_str(),
                word(change)
            ),
        )
    }
}
