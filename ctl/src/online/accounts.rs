//! `operators accounts`, `link`, `unlink`: whose account of the identity provider is which operator's.

use penstock_policy::ids::OperatorId;
use penstock_proto::v1::{
    LinkAccountRequest, ListAccountsRequest, ProviderAccount, Role, UnlinkAccountRequest,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::login::role_word;
use super::{Online, malformed, refused, requests};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// An account of the identity provider.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AccountLine {
    /// By what name it is linked.
    pub id: String,
    /// The provider.
    pub issuer: String,
    /// What the provider calls it (`sub`).
    pub subject: String,
    /// What the provider says that its holder is called; it proves nothing.
    pub shown: String,
    /// When it signed in first, milliseconds since 1970.
    pub asked_ms: u64,
    /// From which address.
    pub address: String,
    /// The operator whom it is linked with; absent: it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Who linked it; empty: nobody yet.
    pub linked_by: String,
    /// When, milliseconds since 1970.
    pub linked_ms: u64,
    /// When it got its last certificate, milliseconds since 1970; 0: none yet.
    pub signed_in_ms: u64,
}

impl From<ProviderAccount> for AccountLine {
    fn from(account: ProviderAccount) -> Self {
        Self {
            operator: (!account.operator.is_empty()).then_some(account.operator),
            id: account.id,
            issuer: account.issuer,
            subject: account.subject,
            shown: account.shown,
            asked_ms: account.asked_ms,
            address: account.address,
            linked_by: account.linked_by,
            linked_ms: account.linked_ms,
            signed_in_ms: account.signed_in_ms,
        }
    }
}

/// Accounts that signed in.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AccountList {
    /// Those that wait first.
    pub accounts: Vec<AccountLine>,
}

impl Report for AccountList {
    const SCHEMA: &'static str = "penstock.accounts/1";
    fn page(&self, page: &mut Page) {
        if self.accounts.is_empty() {
            page.line("no account of the identity provider signed in yet: penstock login --oidc");
            return;
        }
        let now_ms = words::now_ms();
        let rows: Vec<_> = self
            .accounts
            .iter()
            .map(|account| {
                let standing = match (&account.operator, account.signed_in_ms) {
                    (None, _) => (
                        Tone::Warn,
                        format!(
                            "○ waits to be linked since {} from {}",
                            words::relative(account.asked_ms, now_ms),
                            account.address
                        ),
                    ),
                    (Some(operator), 0) => (
                        Tone::Plain,
                        format!("● {operator}, by {}; not signed in yet", account.linked_by),
                    ),
                    (Some(operator), at_ms) => (
                        Tone::Good,
                        format!(
                            "● {operator}, by {}; signed in {}",
                            account.linked_by,
                            words::relative(at_ms, now_ms)
                        ),
                    ),
                };
                vec![
                    (Tone::Strong, account.id.clone()),
                    (Tone::Plain, account.subject.clone()),
                    (Tone::Dim, account.shown.clone()),
                    standing,
                ]
            })
            .collect();
        page.table(&["ACCOUNT", "SUBJECT", "SAYS IT IS", "OPERATOR"], &rows);
    }
}

/// What became of an account.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AccountChanged {
    /// The account.
    #[serde(flatten)]
    pub account: AccountLine,
    /// What follows.
    pub next: String,
}

impl Report for AccountChanged {
    const SCHEMA: &'static str = "penstock.account/1";
    fn page(&self, page: &mut Page) {
        let account = &self.account;
        page.line(format!(
            "{} account {} (`{}` of {})",
            page.paint(Tone::Good, "✓"),
            page.paint(Tone::Strong, &account.id),
            account.subject,
            account.issuer,
        ));
        page.line(format!("  {} {}", page.paint(Tone::Dim, "next,"), self.next));
    }
}

/// `penstock operators accounts`.
pub(super) async fn accounts(out: &Output, online: &mut Online) -> Result<(), Failure> {
    let answer = online.client.list_accounts(ListAccountsRequest {}).await;
    let accounts = answer.map_err(|status| refused(&status))?.into_inner().accounts;
    out.show(&AccountList {
        accounts: accounts.into_iter().map(AccountLine::from).collect(),
    })
}

/// `penstock operators link`.
pub(super) async fn link(
    out: &Output,
    online: &mut Online,
    (id, operator, role): (&str, &OperatorId, Role),
    wait: bool,
) -> Result<Exit, Failure> {
    let request = LinkAccountRequest {
        id: id.to_owned(),
        operator: operator.to_string(),
        role: role.into(),
    };
    let account = loop {
        let answer = online.client.link_account(request.clone()).await;
        let mut answer = answer.map_err(|status| refused(&status))?.into_inner();
        let Some(waits) = answer.waits.take() else {
            break answer.account.ok_or_else(|| malformed("it holds no account"))?;
        };
        if !requests::second_person(out, online, waits, wait).await? {
            return Ok(Exit::Findings);
        }
    };
    out.show(&AccountChanged {
        next: format!(
            "it is {operator}'s, {}: they sign in again, penstock login --oidc",
            role_word(account.role)
        ),
        account: account.into(),
    })?;
    Ok(Exit::Done)
}

/// `penstock operators unlink`.
pub(super) async fn unlink(out: &Output, online: &mut Online, id: &str, reason: &str) -> Result<(), Failure> {
    let request = UnlinkAccountRequest {
        id: id.to_owned(),
        reason: reason.to_owned(),
    };
    let answer = online.client.unlink_account(request).await;
    let account = answer.map_err(|status| refused(&status))?.into_inner();
    let next = match account.operator.as_str() {
        "" => "it waits no longer; if it signs in again, it waits again".to_owned(),
        operator => format!(
            "it gets no certificate any more, and what it got is not renewed; to end that at once: penstock operators revoke {operator}"
        ),
    };
    out.show(&AccountChanged {
        account: account.into(),
        next,
    })
}
