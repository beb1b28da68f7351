//! The account of the identity provider that a request is about.

use penstock_proto::v1::ProviderAccount;
use schemars::JsonSchema;
use serde::Serialize;

/// An account of the identity provider that is to be linked.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AccountAsked {
    /// Its name.
    pub id: String,
    /// The provider.
    pub issuer: String,
    /// What the provider calls it (`sub`).
    pub subject: String,
    /// What the provider says that its holder is called; it proves nothing.
    pub shown: String,
}

impl From<ProviderAccount> for AccountAsked {
    fn from(account: ProviderAccount) -> Self {
        Self {
            id: account.id,
            issuer: account.issuer,
            subject: account.subject,
            shown: account.shown,
        }
    }
}
