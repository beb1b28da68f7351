//! An admin links an account of the identity provider with an operator, as they would make a token for them, and ends that.

use penstock_policy::ids::OperatorId;
use penstock_policy::text;
use penstock_proto::refusal::{Reason, Refusal};

use super::Oidc;
use super::account::{AccountRecord, Link, NamedAccount, key_of};
use crate::journal::Deed;
use crate::operators::{self, Role};
use crate::requests::{Asked, NamedRequest, Permit, Person, Requests, Wanted};
use crate::store::{Change, Expect};

/// Longest reason, bytes.
const REASON_MAX: usize = 500;

/// What is to be linked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkWish {
    pub(crate) id: String,
    pub(crate) operator: OperatorId,
    pub(crate) role: Role,
}

/// What comes of asking for it.
#[derive(Debug)]
pub(crate) enum LinkAnswer {
    /// It is linked.
    Linked(Box<NamedAccount>),
    /// A second person has to confirm it first.
    Waits(Box<NamedRequest>),
}

impl LinkWish {
    /// What it concerns, as the trail says it.
    pub(crate) fn target(&self) -> String {
        format!("operator/{} as {}", self.operator, self.role)
    }
}

impl Oidc {
    /// Accounts that wait to be linked, and those that are; the former first.
    pub(crate) async fn accounts(&self, now_ms: u64) -> Result<Vec<NamedAccount>, Refusal> {
        let mut all = self.all().await?;
        all.retain(|account| !account.record.is_over(now_ms));
        all.sort_by_key(|account| (account.record.link.is_some(), account.record.asked_ms));
        Ok(all)
    }

    async fn account(&self, id: &str, now_ms: u64) -> Result<NamedAccount, Refusal> {
        let accounts = self.accounts(now_ms).await?;
        accounts.into_iter().find(|account| account.id == id).ok_or_else(|| {
            Refusal::new(
                Reason::NotFound,
                format!(
                    "no account {} waits or is linked here: its holder signs in first (`penstock login --oidc`); see `penstock operators accounts`",
                    text::shortened(&text::printable(id), 64)
                ),
            )
        })
    }

    /// Links an account, if it may be done now.
    pub(crate) async fn link(
        &self,
        requests: &Requests,
        person: Person<'_>,
        wish: &LinkWish,
        deed: Deed<'_>,
        now_ms: u64,
    ) -> Result<LinkAnswer, Refusal> {
        let _one_at_a_time = self.0.linking.lock().await;
        let mut account = self.account(&wish.id, now_ms).await?;
        self.can_be_linked(&account, wish, now_ms).await?;
        let permit = match wish.role.confirms() {
            false => Permit::free(),
            true => {
                let wanted = Wanted::ProviderAccount {
                    account: wish.id.clone(),
                    issuer: account.record.issuer.clone(),
                    subject: account.record.subject.clone(),
                    shown: account.record.shown.clone(),
                    operator: wish.operator.clone(),
                    role: wish.role,
                };
                match requests.permit(person, wanted, deed, now_ms).await? {
                    Asked::Permitted(permit) => permit,
                    Asked::Waits(request) => return Ok(LinkAnswer::Waits(request)),
                }
            }
        };
        account.record.link = Some(Link {
            operator: wish.operator.clone(),
            role: wish.role,
            by: deed.operator().to_owned(),
            at_ms: now_ms,
        });
        let AccountRecord { issuer, subject, .. } = &account.record;
        let words = format!("account {} (`{subject}` of {issuer})", wish.id);
        let words = match permit.words() {
            "" => words,
            why => format!("{words}; {why}"),
        };
        let change = permit.used(Change::noted(deed.event(&wish.target(), &words)));
        let change = change.json(
            &key_of(&wish.id),
            Expect::Revision(account.revision),
            &account.record,
        )?;
        self.0.store.apply(change).await?;
        Ok(LinkAnswer::Linked(Box::new(account)))
    }

    /// One account is one operator's, and one operator's is one; of whoever is known the role stays.
    async fn can_be_linked(
        &self,
        account: &NamedAccount,
        wish: &LinkWish,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let taken = |words: String| Err(Refusal::new(Reason::AlreadyExists, words));
        if let Some(link) = account
            .record
            .link
            .as_ref()
            .filter(|link| link.operator != wish.operator)
        {
            return taken(format!(
                "account {} is linked with {} already; end that first: penstock operators unlink {}",
                wish.id, link.operator, wish.id
            ));
        }
        let other = self.accounts(now_ms).await?.into_iter().find(|other| {
            other.id != wish.id
                && other
                    .record
                    .link
                    .as_ref()
                    .is_some_and(|link| link.operator == wish.operator)
        });
        if let Some(other) = other {
            return taken(format!(
                "{} is linked with account {} already, and each name is one person's; end that first: penstock operators unlink {}",
                wish.operator, other.id, other.id
            ));
        }
        match operators::role_of(&self.0.store, &wish.operator).await? {
            Some(role) if role != wish.role => taken(format!(
                "{} is {role} here: a sign-in changes nobody's role; link the account with --role {role}",
                wish.operator
            )),
            _ => Ok(()),
        }
    }

    /// Ends a link, or turns an account away that waits.
    pub(crate) async fn unlink(
        &self,
        id: &str,
        reason: &str,
        deed: Deed<'_>,
        now_ms: u64,
    ) -> Result<NamedAccount, Refusal> {
        let reason = reason.trim();
        if reason.is_empty() || reason.len() > REASON_MAX {
            let what = format!("must be said, in at most {REASON_MAX} bytes: the trail keeps it");
            return Err(Refusal::new(Reason::BadRequest, format!("reason {what}")).field("reason", what));
        }
        let _one_at_a_time = self.0.linking.lock().await;
        let account = self.account(id, now_ms).await?;
        let target = match &account.record.link {
            Some(link) => format!("operator/{}", link.operator),
            None => format!("account/{id}"),
        };
        let AccountRecord { issuer, subject, .. } = &account.record;
        let words = format!("account {id} (`{subject}` of {issuer}): {reason}");
        let change = Change::noted(deed.event(&target, &words)).removed(&key_of(id), account.revision);
        self.0.store.apply(change).await?;
        Ok(account)
    }
}
