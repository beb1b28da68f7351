//! What an operator can ask for, and the role that it needs: the table that `docs/roles.md` and the wire contract's comments repeat.

use crate::operators::Role;

/// What an operator can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // They are the methods of the service.
pub enum Action {
    WhoAmI,
    ListReleases,
    GetRelease,
    ListGateways,
    WatchHealth,
    SearchAudit,
    GetEvidence,
    ProveTrails,
    ProveEvent,
    TailAudit,
    CountAudit,
    ListDenials,
    ProposeRelease,
    ApproveRelease,
    RejectRelease,
    WithdrawRelease,
    CreateToken,
    SubmitBatch,
    IssueDevice,
    ListOperators,
    ListDevices,
    GetWithdrawn,
    GetTrust,
    SuspendIdentity,
    ResumeIdentity,
    RevokeIdentity,
    RetireIdentity,
    StartRollout,
    StopRollout,
    ResumeRollout,
    FreezeRollouts,
    ThawRollouts,
    WatchRollout,
    ListRollouts,
    ListRequests,
    ConfirmRequest,
    RejectRequest,
    RenewOperator,
    ListAccounts,
    LinkAccount,
    UnlinkAccount,
    WatchAlarms,
    AcknowledgeAlarm,
    ShelveAlarm,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 44] = [
        Self::WhoAmI,
        Self::ListReleases,
        Self::GetRelease,
        Self::ListGateways,
        Self::WatchHealth,
        Self::SearchAudit,
        Self::GetEvidence,
        Self::ProveTrails,
        Self::ProveEvent,
        Self::TailAudit,
        Self::CountAudit,
        Self::ListDenials,
        Self::ProposeRelease,
        Self::ApproveRelease,
        Self::RejectRelease,
        Self::WithdrawRelease,
        Self::CreateToken,
        Self::SubmitBatch,
        Self::IssueDevice,
        Self::ListOperators,
        Self::ListDevices,
        Self::GetWithdrawn,
        Self::GetTrust,
        Self::SuspendIdentity,
        Self::ResumeIdentity,
        Self::RevokeIdentity,
        Self::RetireIdentity,
        Self::StartRollout,
        Self::StopRollout,
        Self::ResumeRollout,
        Self::FreezeRollouts,
        Self::ThawRollouts,
        Self::WatchRollout,
        Self::ListRollouts,
        Self::ListRequests,
        Self::ConfirmRequest,
        Self::RejectRequest,
        Self::RenewOperator,
        Self::ListAccounts,
        Self::LinkAccount,
        Self::UnlinkAccount,
        Self::WatchAlarms,
        Self::AcknowledgeAlarm,
        Self::ShelveAlarm,
    ];

    /// The role that it needs.
    pub fn needs(self) -> Role {
        match self {
            Self::WhoAmI
            | Self::ListReleases
            | Self::GetRelease
            | Self::ListGateways
            | Self::WatchHealth
            | Self::SearchAudit
            | Self::GetEvidence
            | Self::ProveTrails
            | Self::ProveEvent
            | Self::TailAudit
            | Self::CountAudit
            | Self::ListDenials
            | Self::GetWithdrawn
            | Self::GetTrust
            | Self::WatchRollout
            | Self::ListRollouts
            | Self::WatchAlarms
            | Self::RenewOperator => Role::Viewer,
            Self::ProposeRelease | Self::WithdrawRelease | Self::StartRollout => Role::Engineer,
            // Whoever sees that something goes wrong stops it; what opens more than before takes another person.
            Self::StopRollout | Self::FreezeRollouts => Role::Engineer,
            // Whoever is there sees it; nothing that is enforced changes.
            Self::AcknowledgeAlarm | Self::ShelveAlarm => Role::Engineer,
            Self::ApproveRelease | Self::RejectRelease | Self::ResumeRollout | Self::ThawRollouts => {
                Role::Approver
            }
            Self::CreateToken
            | Self::SubmitBatch
            | Self::IssueDevice
            | Self::ListOperators
            | Self::ListDevices
            | Self::ListRequests
            | Self::ConfirmRequest
            | Self::RejectRequest
            | Self::ListAccounts
            | Self::LinkAccount
            | Self::UnlinkAccount
            | Self::SuspendIdentity
            | Self::ResumeIdentity
            | Self::RevokeIdentity
            | Self::RetireIdentity => Role::Admin,
        }
    }

    /// Another role that may do it, too.
    pub fn also(self) -> Option<Role> {
        let also = matches!(
            self,
            Self::StopRollout
                | Self::FreezeRollouts
                | Self::AcknowledgeAlarm
                | Self::ShelveAlarm
                | Self::ListRequests
                | Self::ConfirmRequest
                | Self::RejectRequest
        );
        also.then_some(Role::Approver)
    }

    /// Whether somebody with this role may.
    pub fn is_for(self, role: Role) -> bool {
        role.includes(self.needs()) || self.also().is_some_and(|also| role.includes(also))
    }

    /// Whether it is written down each time, so that it takes room in the store.
    pub fn is_recorded(self) -> bool {
        match self {
            Self::ProposeRelease
            | Self::ApproveRelease
            | Self::RejectRelease
            | Self::WithdrawRelease
            | Self::CreateToken
            | Self::SubmitBatch
            | Self::IssueDevice
            | Self::SuspendIdentity
            | Self::ResumeIdentity
            | Self::RevokeIdentity
            | Self::RetireIdentity
            | Self::StartRollout
            | Self::StopRollout
            | Self::ResumeRollout
            | Self::FreezeRollouts
            | Self::ThawRollouts
            | Self::ConfirmRequest
            | Self::RejectRequest
            | Self::LinkAccount
            | Self::UnlinkAccount
            | Self::AcknowledgeAlarm
            | Self::ShelveAlarm => true,
            Self::WhoAmI
            | Self::ListReleases
            | Self::GetRelease
            | Self::ListGateways
            | Self::WatchHealth
            | Self::SearchAudit
            | Self::GetEvidence
            | Self::ProveTrails
            | Self::ProveEvent
            | Self::TailAudit
            | Self::CountAudit
            | Self::ListDenials
            | Self::ListOperators
            | Self::ListDevices
            | Self::GetWithdrawn
            | Self::GetTrust
            | Self::WatchRollout
            | Self::ListRollouts
            | Self::ListRequests
            | Self::ListAccounts
            | Self::WatchAlarms
            | Self::RenewOperator => false,
        }
    }

    /// Its word in the trail.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WhoAmI => "who-am-i",
            Self::ListReleases => "list-releases",
            Self::GetRelease => "get-release",
            Self::ListGateways => "list-gateways",
            Self::WatchHealth => "watch-health",
            Self::SearchAudit => "search-audit",
            Self::GetEvidence => "get-evidence",
            Self::ProveTrails => "prove-trails",
            Self::ProveEvent => "prove-event",
            Self::TailAudit => "tail-audit",
            Self::CountAudit => "count-audit",
            Self::ListDenials => "list-denials",
            Self::ProposeRelease => "propose-release",
            Self::ApproveRelease => "approve-release",
            Self::RejectRelease => "reject-release",
            Self::WithdrawRelease => "withdraw-release",
            Self::CreateToken => "create-token",
            Self::SubmitBatch => "submit-batch",
            Self::IssueDevice => "issue-device",
            Self::ListOperators => "list-operators",
            Self::ListDevices => "list-devices",
            Self::GetWithdrawn => "get-withdrawn",
            Self::GetTrust => "get-trust",
            Self::SuspendIdentity => "suspend",
            Self::ResumeIdentity => "resume",
            Self::RevokeIdentity => "revoke",
            Self::RetireIdentity => "retire",
            Self::StartRollout => "start-rollout",
            Self::StopRollout => "stop-rollout",
            Self::ResumeRollout => "resume-rollout",
            Self::FreezeRollouts => "freeze-rollouts",
            Self::ThawRollouts => "thaw-rollouts",
            Self::WatchRollout => "watch-rollout",
            Self::ListRollouts => "list-rollouts",
            Self::ListRequests => "list-requests",
            Self::ConfirmRequest => "confirm-request",
            Self::RejectRequest => "reject-request",
            Self::RenewOperator => "renew-operator",
            Self::ListAccounts => "list-accounts",
            Self::LinkAccount => "link-account",
            Self::UnlinkAccount => "unlink-account",
            Self::WatchAlarms => "watch-alarms",
            Self::AcknowledgeAlarm => "acknowledge-alarm",
            Self::ShelveAlarm => "shelve-alarm",
        }
    }
}
