//! Something that happened to an agent: its steps, each with its severity and meaning.

use serde_json::{Value, json};

use super::words::behind;
use super::{Described, KindDescription, Writer};
use crate::v1::{AgentEvent, NamedAddress, Severity};

pub(super) const KIND: KindDescription = KindDescription {
    word: "agent",
    bit: 4,
    writer: Writer::Gateway,
    meaning: "something that happened to the agent itself; its steps are listed below",
    severities: &[
        (Severity::Alarm, "as its step says"),
        (Severity::Warning, "as its step says"),
        (Severity::Notice, "as its step says"),
        (Severity::Info, "as its step says"),
    ],
};

macro_rules! steps {
    ($($name:ident = $word:literal, $severity:ident, $meaning:literal;)*) => {
        /// What happened to an agent.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum AgentStep { $(#[doc = $meaning] $name,)* }

        impl AgentStep {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its word, in the trail.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// How grave it is; its writer may know that it is graver.
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// What it is, for people.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

steps! {
    Started = "started", Notice, "the agent started; with its version";
    Stopped = "stopped", Notice, "the agent ended, and what the kernel holds goes on being enforced; graver where it does not";
    Connected = "connected", Info, "the link to this coordinator stands";
    Disconnected = "disconnected", Info, "the link ended, and why";
    Renewed = "renewed", Info, "the gateway has a new certificate";
    CertificateChosen = "certificate-chosen", Notice, "another of the gateway's certificates is in use, because of its clock";
    CertificateRefused = "certificate-refused", Warning, "the coordinator did not accept the gateway's newest certificate";
    CertificateNames = "certificate-names", Warning, "the certificate does not name all servers whose TLS ends at this gateway";
    KeysWithdrawn = "keys-withdrawn", Notice, "keys that no longer count: whose, and how the gateway learned it";
    WithdrawnRefused = "withdrawn-refused", Warning, "a list of withdrawn keys was refused, and why; what the gateway knew before still counts";
    WithdrawnUnkept = "withdrawn-unkept", Alarm, "the list of withdrawn keys cannot be read from the disk, or not be kept there";
    TrustTaken = "trust-taken", Notice, "the root certificates that the gateway trusts are others now: which, and how it learned it";
    TrustRefused = "trust-refused", Alarm, "a trust bundle was refused, and why; the roots trusted before still count";
    RootRefused = "root-refused", Alarm, "an answer brought a root certificate that the gateway does not hold; it is not kept";
    IdentityWithdrawn = "identity-withdrawn", Alarm, "the gateway's own key no longer counts; its policy stays in force";
    CoordinatorRefuses = "coordinator-refuses", Warning, "the coordinator refuses this gateway for who it is, and why; its policy stays in force";
    KeyUnavailable = "key-unavailable", Alarm, "the TPM that holds the gateway's key does not sign, and why; its policy stays in force";
    KeyAvailable = "key-available", Notice, "the TPM that holds the gateway's key signs again";
    DiskSetBack = "disk-set-back", Alarm, "by the counter in its TPM, the gateway's disk was set back to an earlier state, or a part of it is lost; what it holds stays in force";
    DiskUnguarded = "disk-unguarded", Warning, "the TPM has no counter by which a disk that was set back would be noticed, or another one";
    DiskAccepted = "disk-accepted", Notice, "from now on the gateway's disk counts as its newest, and why";
    TwoUsers = "two-users", Alarm, "another machine, or a copy of this one, uses this gateway's key; its policy stays in force";
    KernelFailed = "kernel-failed", Alarm, "the kernel did not take a policy, or could not be asked";
    PolicyFinding = "policy-finding", Warning, "what a person should know of the policy in force, on this machine";
    OrderRefused = "order-refused", Warning, "the coordinator ordered what this gateway cannot understand, which widens nothing";
    StoredPolicyUnusable = "stored-policy-unusable", Alarm, "a policy that the gateway holds on its disk cannot be used";
    RulesStood = "rules-stood", Info, "the rules stood while no agent ran; graver where others changed the packet filter meanwhile";
    RulesRenewed = "rules-renewed", Info, "the rules stood, and were replaced in one step";
    RulesClosed = "rules-closed", Info, "the base rules let nothing cross from the boot until now";
    RulesUnfinished = "rules-unfinished", Notice, "an agent ended while it was changing rules; they have been replaced";
    RemoteAccessOpen = "remote-access-open", Notice, "a grant of remote access opened its conduit";
    RemoteAccessEnding = "remote-access-ending", Notice, "a grant of remote access ends soon";
    RemoteAccessClosed = "remote-access-closed", Notice, "a conduit of remote access is closed again";
    RemoteAccessFailed = "remote-access-failed", Alarm, "a conduit could not be opened or closed as its grant says";
    OverrideBegan = "override-began", Warning, "people in front of the gateway override what it enforces: what, for how long, by whom, why";
    OverrideEnded = "override-ended", Notice, "an override is over, and why";
    OverrideRefused = "override-refused", Warning, "an override was not permitted, and why";
    OverrideFailed = "override-failed", Alarm, "the kernel did not take the beginning or the end of an override; it is tried again";
    NotLearning = "not-learning", Notice, "the gateway does not learn from copies of packets, and why";
    TrailBegun = "trail-begun", Notice, "the first trail of this gateway";
    TrailLost = "trail-lost", Alarm, "the spool could not be used any more: a new epoch of the trail begins";
    TrailForked = "trail-forked", Alarm, "the coordinator holds another trail under this name: a new epoch begins";
    TrailAhead = "trail-ahead", Alarm, "the coordinator holds a trail under this name that cannot be followed";
    SpoolSetBack = "spool-set-back", Alarm, "by the head that the kernel holds since the boot, the gateway's audit spool was set back or altered while the machine ran";
    TrailsSeen = "trails-seen", Info, "how far the coordinator's trails went, by its signature; they begin with what this gateway saw of them before";
    TrailsRewritten = "trails-rewritten", Alarm, "the coordinator's trails do not begin with what this gateway saw of them before: something was taken out or altered there, or it was restored from a backup";
    LocalSocket = "local-socket", Warning, "nobody, or not everybody who may, can steer the gateway on site, and why";
    Interlock = "interlock", Notice, "what the process says of a change that waits for its word: safe, or not and why";
    TunnelUp = "tunnel-up", Info, "the tunnel to another gateway stands: to which, and where that is";
    TunnelDown = "tunnel-down", Warning, "the tunnel to another gateway does not stand, and why; nothing that belongs into it crosses in the clear";
    BridgeUp = "bridge-up", Info, "a bridge is connected to a broker";
    BridgeDown = "bridge-down", Warning, "a bridge is not connected to a broker, and why";
    BridgeProblem = "bridge-problem", Warning, "something is not as it should be with a broker that is connected";
    BridgeFull = "bridge-full", Warning, "a bridge takes no more messages, and why";
    BridgeRoom = "bridge-room", Notice, "a bridge has room again";
    BridgeLost = "bridge-lost", Alarm, "messages of a bridge will not arrive; a loss record says how many";
    BridgeSessionLost = "bridge-session-lost", Alarm, "a broker forgot what it kept for a bridge";
    BridgeDamaged = "bridge-damaged", Alarm, "messages of a bridge on the disk are damaged";
    BridgeRevoked = "bridge-revoked", Notice, "the policy no longer permits a bridge; its undelivered messages are removed";
}

impl AgentStep {
    /// The step of this word; `None` where this version does not know it.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|step| step.word() == word)
    }
}

impl AsRef<str> for AgentStep {
    fn as_ref(&self) -> &str {
        self.word()
    }
}

impl Described for AgentEvent {
    fn severity(&self) -> Severity {
        AgentStep::of_word(&self.step).map_or(Severity::Warning, AgentStep::severity)
    }

    fn texts(&self) -> Vec<&str> {
        vec![&self.step, &self.message]
    }

    fn sentence(&self, _: &[NamedAddress]) -> String {
        format!("agent {}{}", self.step, behind(": ", &self.message))
    }

    fn fields(&self) -> Value {
        match self.trails_head.is_empty() {
            true => json!({ "step": self.step, "message": self.message }),
            false => {
                let head = String::from_utf8_lossy(&self.trails_head);
                json!({ "step": self.step, "message": self.message, "trails_head": head })
            }
        }
    }
}
