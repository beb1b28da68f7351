//! What is known of one gateway: what it reported last and what its session found out, bounded in size whatever it sends.

mod bounds;

use std::collections::BTreeSet;

use penstock_policy::ids::{Digest, Revision, ZoneId};
use penstock_proto::audit::chain::SealFault;
use penstock_proto::convert::PolicyMark;
use penstock_proto::fault::{OF_OPEN, OF_SHOWING, flows_in_words};
use penstock_proto::v1;

use self::bounds::{bounded, bounded_fault, bounded_standing};
use crate::health::{GatewayEvidence, ReportedFault};
use crate::tickets::Twin;

/// Most faults or capabilities remembered of one gateway.
const ITEMS_MAX: usize = 32;

/// A release that a gateway refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRelease {
    /// Its number.
    pub revision: Revision,
    /// Digest of its statement; `None`: from software that does not report it.
    pub statement: Option<Digest>,
    /// Stable reason.
    pub code: String,
    /// The reason in words.
    pub message: String,
}

/// What a gateway says of its policy, as far as it decides what it is offered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldPolicy {
    /// What its kernel holds.
    pub effective: Option<PolicyMark>,
    /// What it verified and stored.
    pub staged: Option<PolicyMark>,
    /// The release that it verified last: number and digest of the statement.
    pub trusted: Option<(Revision, Digest)>,
}

impl HeldPolicy {
    /// Whether the gateway should be offered `wanted`, to be in force at once. That it has it staged is not enough: by an order that went
    /// no further it never puts it in force. One that is ahead would take nothing with a lower number; health says so.
    pub fn lacks(&self, wanted: &PolicyMark) -> bool {
        let is_ahead = |held: PolicyMark| held.revision > wanted.revision;
        let is_in_force = self
            .effective
            .is_some_and(|held| held.is(wanted) || is_ahead(held));
        !is_in_force && !self.staged.is_some_and(is_ahead)
    }

    /// The release that was reverted there by this report, and stays refused until a person clears it.
    pub(super) fn reverted(policy: &v1::PolicyState) -> Option<Digest> {
        let standing = policy.standing.as_ref()?;
        let is_reverted = matches!(standing.state, Some(v1::policy_standing::State::Reverted(_)));
        statement(&standing.statement_digest).filter(|_| is_reverted)
    }
}

impl From<&v1::PolicyState> for HeldPolicy {
    /// What is malformed counts as not reported.
    fn from(policy: &v1::PolicyState) -> Self {
        let read = |mark: &Option<v1::RevisionDigest>| mark.as_ref().and_then(|mark| mark.try_into().ok());
        let trusted = policy.trusted.as_ref();
        Self {
            effective: read(&policy.effective),
            staged: read(&policy.staged),
            trusted: trusted.and_then(|t| Some((Revision(t.revision), statement(&t.statement_digest)?))),
        }
    }
}

/// What a session learns of its gateway.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// It opened a session.
    Hello(Box<v1::Hello>),
    /// It reported its policy's state.
    Policy(Box<v1::PolicyState>),
    /// It reported its health.
    Report(Box<v1::HealthReport>),
    /// Something else came from it.
    Seen,
    /// It is sent this release.
    Offered(PolicyMark),
    /// What is wrong with its trail here; `None`: nothing any more.
    TrailFault(Option<String>),
    /// What does not fit among the seals of its trail, which is stored all the same; `None`: nothing any more.
    SealFault(Option<SealFault>),
    /// Its key has two users; `None`: as far as is known, one.
    Twin(Option<Twin>),
}

/// What is known of one gateway.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GatewayFacts {
    /// Its session stands.
    pub connected: bool,
    /// When it enrolled, milliseconds since 1970; 0: not that is known here.
    pub enrolled_ms: u64,
    /// When its certificate expires, milliseconds since 1970.
    pub certificate_expires_ms: u64,
    /// When anything came from it last, milliseconds since 1970.
    pub last_seen_ms: u64,
    /// When it reported its state last; `None`: not since this coordinator started.
    pub reported_ms: Option<u64>,
    /// Its software.
    pub software_version: String,
    /// Where it says that its key is held.
    pub key_held: i32,
    /// What it can enforce.
    pub capabilities: Vec<String>,
    /// What it was offered last, in this session.
    pub offered: Option<PolicyMark>,
    /// What it verified and stored.
    pub staged: Option<PolicyMark>,
    /// What its kernel holds.
    pub effective: Option<PolicyMark>,
    /// What it refused last.
    pub refused: Option<RefusedRelease>,
    /// The release that it verified last and whose approvers it believes: number and digest of the statement.
    pub trusted: Option<(Revision, Digest)>,
    /// The kernel's table against the plan.
    pub drift: i32,
    /// Its audit spool.
    pub spool: Option<v1::SpoolState>,
    /// What its data plane decided since its agent began.
    pub kernel: Option<v1::KernelCounters>,
    /// How well its clock is known to be right.
    pub time_quality: i32,
    /// Its tunnels, bounded.
    pub tunnels: Vec<v1::TunnelHealth>,
    /// Faults that it reported, bounded.
    pub faults: Vec<v1::Fault>,
    /// What is wrong with its trail here.
    pub trail_fault: Option<String>,
    /// What does not fit among the seals of its trail. It outlives the session and the coordinator's restart.
    pub seal_fault: Option<SealFault>,
    /// Its key has two users.
    pub twin: Option<Twin>,
    /// How it stands to the release that it was ordered last, bounded; `None`: its software knows no trials, or did not say.
    pub standing: Option<v1::PolicyStanding>,
    /// What it should have by what its last session was given, and whether it may put that in force.
    pub should_have: Option<(PolicyMark, bool)>,
}

/// The code under which a gateway reports, among its faults, for whom a grant of remote access opened a conduit, and until when.
const GRANTED: &str = "remote-access";
/// The fault by which a gateway foretells what enforcing would change.
const NOT_READY: &str = "not-ready-to-enforce";
/// The fault of a gateway whose key has two users.
pub const TWO_USERS: &str = "two-users";
/// The capability of agents that put a release on trial.
const TRIALS: &str = "trials";

impl GatewayFacts {
    /// Takes over what its session learned; `now_ms`: when, milliseconds since 1970.
    pub fn learn(&mut self, news: &News, now_ms: u64) {
        match news {
            News::Hello(hello) => {
                self.connected = true;
                self.offered = None;
                self.should_have = None;
                self.trail_fault = None;
                self.reported(now_ms);
                self.take_hello(hello);
            }
            News::Policy(policy) => {
                self.reported(now_ms);
                self.take_policy(policy);
            }
            News::Report(report) => {
                self.reported(now_ms);
                self.take_report(report);
            }
            News::Seen => self.last_seen_ms = now_ms,
            News::Offered(mark) => self.offered = Some(*mark),
            News::TrailFault(fault) => self.trail_fault.clone_from(fault),
            News::SealFault(fault) => self.seal_fault.clone_from(fault),
            News::Twin(twin) => self.twin.clone_from(twin),
        }
    }

    fn reported(&mut self, now_ms: u64) {
        self.last_seen_ms = now_ms;
        self.reported_ms = Some(now_ms);
    }

    /// For the judgement on health; `wanted` is what it should enforce.
    pub fn evidence(&self, wanted: Option<PolicyMark>) -> GatewayEvidence {
        let of_guarding = |fault: &&v1::Fault| !OF_SHOWING.contains(&fault.code.as_str());
        let guarding = self.faults.iter().filter(of_guarding);
        let (foretold, faults): (Vec<_>, Vec<_>) = guarding.partition(|fault| fault.code == NOT_READY);
        let (granted, faults): (Vec<_>, Vec<_>) = faults.into_iter().partition(|fault| fault.code == GRANTED);
        let mut faults: Vec<ReportedFault> = faults.into_iter().map(reported).collect();
        let own = self.trail_fault.iter().cloned();
        let own = own.chain(self.seal_fault.as_ref().map(unproved));
        let own = own.chain(self.twin.as_ref().map(Twin::fault));
        faults.extend(own.map(|words| ReportedFault {
            words,
            ..ReportedFault::default()
        }));
        GatewayEvidence {
            connected: self.connected,
            reported_ms: self.reported_ms,
            effective: self.effective,
            wanted,
            // A refusal of what is no longer wanted is history.
            refused: self
                .refused
                .as_ref()
                .filter(|refused| wanted.is_some_and(|wanted| wanted.revision == refused.revision))
                .map(|refused| {
                    (
                        refused.revision,
                        format!("{} ({})", refused.message, refused.code),
                    )
                }),
            drift: self.drift == i32::from(v1::Drift::Present),
            kernel_failed: self
                .faults
                .iter()
                .any(|fault| OF_OPEN.contains(&fault.code.as_str())),
            faults,
            granted: granted.iter().map(|fault| fault.message.clone()).collect(),
            rollout: self.standing.as_ref().and_then(rollout_in_words),
            withdrawn: None,
            foretold: foretold.iter().map(|fault| fault.message.clone()).collect(),
        }
    }

    /// Takes a reported policy state over; what is malformed counts as not reported.
    fn take_policy(&mut self, policy: &v1::PolicyState) {
        let held = HeldPolicy::from(policy);
        (self.effective, self.staged, self.trusted) = (held.effective, held.staged, held.trusted);
        self.standing = policy.standing.as_ref().map(bounded_standing);
        self.refused = policy.refused.as_ref().map(|refused| RefusedRelease {
            revision: Revision(refused.revision),
            statement: statement(&refused.statement_digest),
            code: bounded(&refused.code),
            message: bounded(&refused.message),
        });
    }

    /// Takes the first message of a session over.
    fn take_hello(&mut self, hello: &v1::Hello) {
        self.software_version = bounded(&hello.software_version);
        self.key_held = hello.key_held;
        self.capabilities = hello
            .capabilities
            .iter()
            .take(ITEMS_MAX)
            .map(|c| bounded(c))
            .collect();
        self.spool = hello.spool;
        if let Some(policy) = &hello.policy {
            self.take_policy(policy);
        }
    }

    /// Takes a health report over.
    fn take_report(&mut self, report: &v1::HealthReport) {
        if let Some(policy) = &report.policy {
            self.take_policy(policy);
        }
        self.drift = report.drift;
        self.spool = report.spool;
        self.kernel = report.kernel;
        self.time_quality = report.time_quality;
        self.tunnels = super::tunnels::taken(report);
        // Whether its key has two users is known here.
        let others = report.faults.iter().filter(|fault| fault.code != TWO_USERS);
        self.faults = others.take(ITEMS_MAX).map(bounded_fault).collect();
    }

    /// Whether two states of knowledge lead to the same judgement, but for their age.
    pub(super) fn same_judgement(&self, other: &Self) -> bool {
        self.connected == other.connected
            && self.reported_ms.is_some() == other.reported_ms.is_some()
            && self.effective == other.effective
            && self.refused == other.refused
            && self.trusted == other.trusted
            && self.drift == other.drift
            && self.faults == other.faults
            && self.trail_fault == other.trail_fault
            && self.seal_fault == other.seal_fault
            && self.twin == other.twin
            && self.staged == other.staged
            && self.offered == other.offered
            && self.same_standing(other)
    }

    /// Whether a rollout has nothing to learn from the one that it did not learn from the other. How much of a trial is over and
    /// what shadow counted is not: it changes all the time.
    pub(super) fn same_standing(&self, other: &Self) -> bool {
        use v1::policy_standing::State;
        let about = |facts: &Self| {
            let standing = facts.standing.as_ref()?;
            let state = standing.state.as_ref().map(|state| match state {
                State::Shadow(shadow) => (0, i32::from(shadow.cuts_must_flow), shadow.since_ms),
                State::Held(held) => (1, held.reason, held.until_ms),
                State::Trial(trial) => (2, i32::from(trial.confirmable), 0),
                State::Reverted(reverted) => (3, i32::from(reverted.ordered), reverted.at_ms),
            });
            Some((
                standing.order,
                standing.revision,
                standing.statement_digest.clone(),
                state,
            ))
        };
        let codes = |facts: &Self| -> BTreeSet<String> {
            facts.faults.iter().map(|fault| fault.code.clone()).collect()
        };
        self.connected == other.connected
            && (self.effective, self.staged) == (other.effective, other.staged)
            && self.refused == other.refused
            && about(self) == about(other)
            && self.drift == other.drift
            && codes(self) == codes(other)
    }

    /// Whether its agent puts a release on trial.
    pub fn knows_trials(&self) -> bool {
        self.capabilities.iter().any(|capability| capability == TRIALS)
    }

    /// Whether a release is on trial there.
    pub fn is_on_trial(&self) -> bool {
        let state = self
            .standing
            .as_ref()
            .and_then(|standing| standing.state.as_ref());
        matches!(state, Some(v1::policy_standing::State::Trial(_)))
    }
}

/// What does not fit among seals, in words, and what ends it.
pub(crate) fn unproved(fault: &SealFault) -> String {
    let end = match fault.needs_person {
        true => {
            "; it counts until somebody acknowledges the alarm (penstock alarms ack ZONE trail; ZONE is _plant where the gateway guards no zone; there are alarms once a release is in force)"
        }
        false => "",
    };
    format!("audit trail: {}{end}", fault.words)
}

/// The digest of a statement, where it is one.
fn statement(bytes: &[u8]) -> Option<Digest> {
    penstock_proto::convert::digest("statement_digest", bytes).ok()
}

/// A fault in words, with the zones that it concerns.
fn reported(fault: &v1::Fault) -> ReportedFault {
    let flows = flows_in_words(&fault.flows, fault.further_flows);
    // A name that is none here would leave a fault that concerns nobody.
    let zones: Option<BTreeSet<ZoneId>> = fault
        .zones
        .iter()
        .map(|zone| ZoneId::new(zone.as_str()).ok())
        .collect();
    ReportedFault {
        words: match fault.is_override() {
            // Its words say so.
            true => fault.message.clone(),
            false => format!("{}{flows} ({})", fault.message, fault.code),
        },
        zones: zones.unwrap_or_default(),
    }
}

/// What a rollout is at with a gateway, in words, and whether that is less than it should be.
fn rollout_in_words(standing: &v1::PolicyStanding) -> Option<(String, bool)> {
    use v1::policy_standing::State;
    let revision = Revision(standing.revision);
    let words = match standing.state.as_ref()? {
        State::Trial(trial) => format!(
            "is on trial with {revision}, and goes back by itself in {} unless it is confirmed",
            minutes(trial.left_ms)
        ),
        State::Held(held) => {
            let until = match held.until_ms {
                0 => String::new(),
                until_ms => format!(", until {} at the earliest", moment(until_ms)),
            };
            format!("does not activate {revision} yet: {}{until}", reason_of(held))
        }
        State::Reverted(reverted) => format!(
            "went back from {revision} ({}): {}; it refuses that release until a person clears it at the gateway",
            reverted.code, reverted.message
        ),
        State::Shadow(shadow) => {
            let cuts = match shadow.cuts_must_flow {
                true => "; a must-flow would be cut",
                false => "",
            };
            return Some((
                format!(
                    "judges live traffic by {revision} beside the policy in force: it would deny {} packets and {} operations, and end \
                     {} connections{cuts}",
                    counted(shadow.would_deny_packets),
                    counted(shadow.would_deny_operations),
                    counted(shadow.would_cut_connections),
                ),
                shadow.cuts_must_flow,
            ));
        }
    };
    Some((words, true))
}

fn reason_of(held: &v1::Held) -> String {
    if !held.message.is_empty() {
        return held.message.clone();
    }
    match held.reason() {
        v1::HoldReason::Window => "its window is closed",
        v1::HoldReason::Interlock => "the process does not report that it is safe to change",
        v1::HoldReason::Person => "a person holds it",
        v1::HoldReason::Clock => "its clock is not synchronised",
        v1::HoldReason::NotCleared => "too many releases that it reverted are not cleared",
        v1::HoldReason::Zone => "the time zone of its windows is not known to it",
        v1::HoldReason::NoSession => "it had no session in which its trial could be confirmed",
        v1::HoldReason::Unspecified => "it does not say why",
    }
    .to_owned()
}

/// A count that changes its words seldom, so that health is not another one at each report.
fn counted(count: u64) -> String {
    match count {
        0..100 => count.to_string(),
        _ => format!("over {}", 10_u64.saturating_pow(count.ilog10())),
    }
}

fn minutes(ms: u64) -> String {
    match ms / 60_000 {
        0 => "less than a minute".to_owned(),
        minutes => format!("{minutes} min"),
    }
}

/// A moment in the time of no place, which the reader can tell from their own.
fn moment(ms: u64) -> String {
    let stamp = i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    stamp.map_or_else(
        || "a time that no clock shows".to_owned(),
        |stamp| {
            stamp
                .to_zoned(jiff::tz::TimeZone::UTC)
                .strftime("%Y-%m-%d %H:%M UTC")
                .to_string()
        },
    )
}
