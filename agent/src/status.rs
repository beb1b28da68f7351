//! What this machine knows of itself, from files and the kernel: it works while the agent runs, and when it does not.

mod approvers;

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use penstock_policy::plan::opened_by;
use penstock_policy::release::{days_ago, spoken};
use penstock_policy::text::sentence;
use penstock_proto::tls::times::instant;
use serde::Serialize;

use crate::bindings::{self, shown::Binding};
use crate::bridge::{self, report::BridgeState, report::SideState};
use crate::config::Config;
use crate::enforce::nft::readback::RulesetReader;
use crate::enforce::standing::{self, Note};
use crate::identity::{IdentityError, IdentityFolder};
use crate::known_time::{self, ClockState};
use crate::local::InKernel;
use crate::local::ask::{self, AskError};
use crate::local::change::{Change, hold_in_words, reverted_in_words};
use crate::policy_store::overrides::StoredOverrides;
use crate::tunnel::{self, shown::TunnelState};
use crate::{audit, boot, policy_store, store, withdrawn};

pub use self::approvers::Approvers;

/// How long after a change of rules its note may take: it is written a second later.
const NOTED_WITHIN: Duration = Duration::from_secs(3);

/// This machine is no gateway yet.
#[derive(Debug, thiserror::Error)]
#[error("this machine is not enrolled: get a token and run `penstock-agent enrol --token FILE`")]
pub struct NotEnrolled;

/// The state of a gateway as its disk shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// `spiffe://…`, once enrolled.
    pub identity: Option<String>,
    /// Where the key is held, and where the configuration wants it, if that is elsewhere; absent: there is no key.
    pub key: Option<String>,
    /// From when the certificate is valid, milliseconds since 1970.
    pub certificate_from_ms: Option<u64>,
    /// When the certificate expires, milliseconds since 1970.
    pub certificate_expires_ms: Option<u64>,
    /// The time by which the rest was read, milliseconds since 1970.
    pub time_ms: u64,
    /// How well that time is known to be right.
    pub clock: ClockState,
    /// Whether an agent runs on this state.
    pub running: bool,
    /// The policy last put in force.
    pub effective: Option<Policy>,
    /// Whether `effective` is what was last put in force. If not, the file that says it cannot be used, and the agent itself has
    /// another copy.
    pub effective_known: bool,
    /// The revision of the release that the gateway believes, which is the one last put in force.
    pub believed_revision: Option<u64>,
    /// Whose signatures it obeys.
    pub approvers: Option<Approvers>,
    /// What the kernel holds of it now.
    pub kernel: KernelRules,
    /// A newer one that was verified and stored, but not put in force for good.
    pub staged: Option<Policy>,
    /// How the gateway stands to a change: a trial, a hold, what was reverted.
    pub change: Change,
    /// What the agent that runs says it has put in the kernel; absent if none answers.
    pub in_kernel: Option<InKernel>,
    /// What the agent that runs reports to its coordinator.
    pub agent_faults: Vec<String>,
    /// Why an agent that runs said nothing.
    pub unanswered: Option<String>,
    /// The audit trail's position as last noted: epoch and next sequence.
    pub trail: Option<(u64, u64)>,
    /// How far it is proved; absent: it was never sealed.
    pub proof: Option<audit::sealer::Proof>,
    /// The bridges between brokers, as a running agent last left their state.
    pub bridges: Vec<BridgeState>,
    /// The tunnels to other gateways, likewise.
    pub tunnels: Vec<TunnelState>,
    /// Which MAC address is behind which address, likewise.
    pub bindings: Vec<Binding>,
    /// What cannot be used.
    pub faults: Vec<String>,
}

/// What the kernel holds, against what an agent noted that it left there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum KernelRules {
    /// The rules as they were left.
    AsLeft,
    /// No rules of ours: whatever is routed or bridged passes.
    Gone,
    /// The base rules of the boot: nothing crosses a guarded interface.
    Base,
    /// Other rules than were left.
    Changed,
    /// That cannot be told.
    Unknown {
        /// Why not.
        why: String,
    },
}

impl KernelRules {
    /// Looks at the kernel. `patience`: how long an agent that runs may take to note what it changed.
    fn look(state_folder: &Path, patience: Duration) -> Self {
        let began = Instant::now();
        loop {
            let held = match RulesetReader::open().and_then(|reader| reader.held()) {
                Ok(held) => held,
                Err(error) => {
                    let why = format!("the kernel's rules cannot be read (as root they can): {error}");
                    return Self::Unknown { why };
                }
            };
            if held.tables.is_empty() {
                return Self::Gone;
            }
            if held.is_base() {
                return Self::Base;
            }
            let note = Note::read(&state_folder.join(standing::FILE));
            if note.as_ref().is_some_and(|note| note.holds(&held)) {
                return Self::AsLeft;
            }
            if began.elapsed() >= patience {
                let why = "there are rules of penstock, but no record of what an agent left".to_owned();
                return note.map_or(Self::Unknown { why }, |_| Self::Changed);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn words(&self) -> String {
        match self {
            Self::AsLeft => "holds its rules, as the agent left them".to_owned(),
            Self::Gone => "HOLDS NO RULES of penstock: whatever is routed or bridged here passes; start the agent".to_owned(),
            Self::Base => "holds the base rules of the boot: nothing crosses a guarded interface until the agent runs".to_owned(),
            Self::Changed => "HOLDS OTHER RULES than the agent left: somebody changed them, or an agent was killed amid a change; start the agent, or send it SIGHUP".to_owned(),
            Self::Unknown { why } => format!("not known: {why}"),
        }
    }
}

/// A policy in a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Its revision.
    pub revision: u64,
    /// Its plan.
    pub plan_digest: String,
    /// Its release's eight words, to be compared by telephone with `penstock release known`.
    pub words: String,
    /// When that release was made, by its author's clock, milliseconds since 1970; 0: not known.
    pub made_ms: u64,
    /// How many flows it permits.
    pub rules: usize,
    /// The conduits among them that are open only during grants of remote access, each with its grants.
    pub limited: Vec<String>,
}

impl Policy {
    /// What is compared by telephone: which release it is, and how old.
    fn spoken(&self, now_ms: u64) -> String {
        match self.made_ms {
            0 => self.words.clone(),
            made => format!("{} (made {})", self.words, days_ago(made, now_ms)),
        }
    }
}

impl Status {
    /// Fails on a machine that is no gateway yet.
    ///
    /// # Errors
    /// There is no enrolment record that can be used.
    pub fn enrolled(&self) -> Result<(), NotEnrolled> {
        self.identity.as_ref().map(|_| ()).ok_or(NotEnrolled)
    }

    /// What is in force for good, by the disk.
    fn confirmed(&self, f: &mut fmt::Formatter<'_>, label: &str) -> fmt::Result {
        match (&self.effective, self.effective_known, self.believed_revision) {
            (None, false, Some(revision)) => {
                writeln!(
                    f,
                    "{label:<12} r{revision}; the file that holds it cannot be used, see below"
                )?;
            }
            (None, false, None) => writeln!(
                f,
                "{label:<12} not known: the file that says it cannot be used, see below"
            )?,
            (effective, _, _) => {
                writeln!(f, "{label:<12} {}", in_words(effective.as_ref()))?;
                if let Some(effective) = effective {
                    writeln!(f, "words        {}", effective.spoken(self.time_ms))?;
                }
            }
        }
        Ok(())
    }

    /// What is not in force, and why.
    fn waits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change {
            trial,
            shadow,
            held,
            hold,
            reverted,
            refused,
            overrides,
        } = &self.change;
        let on_trial = trial.as_ref().map(|trial| trial.revision);
        let shown = |policy: &Option<Policy>| policy.as_ref().map(|policy| policy.revision);
        let in_kernel = self.in_kernel.as_ref().map(|in_kernel| in_kernel.revision);
        let is_waiting = |revision| Some(revision) != on_trial && Some(revision) != in_kernel;
        if shown(&self.staged).is_some_and(is_waiting) {
            writeln!(f, "staged       {}", in_words(self.staged.as_ref()))?;
        }
        for lasting in overrides {
            writeln!(f, "override     {lasting}")?;
        }
        if let Some(shadow) = shadow {
            writeln!(f, "shadow       {shadow}")?;
        }
        if let Some(held) = held {
            writeln!(f, "held         {held}")?;
        }
        if let Some(hold) = hold {
            writeln!(f, "hold         {}", hold_in_words(hold))?;
        }
        for reverted in reverted {
            writeln!(f, "reverted     {}", reverted_in_words(reverted))?;
        }
        if let Some(refused) = refused {
            let (revision, code, message) = (refused.revision, &refused.code, &refused.message);
            writeln!(f, "refused      r{revision}: {message} ({code})")?;
        }
        Ok(())
    }
}

fn in_words(policy: Option<&Policy>) -> String {
    match policy {
        Some(policy) => format!(
            "r{}, {} flows, {}",
            policy.revision, policy.rules, policy.plan_digest
        ),
        None => "none".to_owned(),
    }
}

/// Reads the state that an agent of this configuration keeps, and asks it where it runs.
pub fn read(config: &Config) -> Status {
    let state_folder = config.state_folder.as_path();
    let asked = ask::standing(&config.local());
    // Who may ask the agent need not be able to read its files.
    let running = asked.is_ok() || store::is_locked(state_folder);
    let held = policy_store::peek(state_folder);
    let timepiece = config.timepiece();
    let now = timepiece.now();
    let mut change = Change::of_disk(&held, &boot::id(), now.boot);
    let mut overrides_fault = None;
    match policy_store::overrides::peek(state_folder) {
        StoredOverrides::Known(record) => change = change.with_overrides(record, &boot::id(), now),
        StoredOverrides::Unread(why) | StoredOverrides::Damaged(why) => {
            overrides_fault = Some(format!("whether anything is overridden is not known: {why}"));
        }
    }
    let (mut in_kernel, mut agent_faults, mut live_identity, mut unanswered) = (None, Vec::new(), None, None);
    match asked {
        Ok(standing) => {
            (change, in_kernel) = (standing.change, standing.in_kernel);
            // It has said what it knows of that.
            overrides_fault = None;
            (agent_faults, live_identity) = (standing.faults, standing.identity);
        }
        Err(AskError::NotThere(_)) if !running => {}
        Err(AskError::NotThere(socket)) => {
            unanswered = Some(format!(
                "there is no socket at {}, so that nobody can ask or steer it here; it is made within 30 s, or the agent's log and its \
                 fault `local-socket` in health say why not",
                socket.display()
            ));
        }
        Err(error) => unanswered = Some(sentence(&error)),
    }
    let policy = |policy: policy_store::StoredPolicy| Policy {
        revision: policy.mark.revision.0,
        plan_digest: policy.mark.plan.to_string(),
        words: spoken(&policy.statement),
        made_ms: policy.made_ms,
        rules: policy.plan.rules.len(),
        limited: policy
            .plan
            .grants
            .iter()
            .map(|(conduit, grants)| format!("{conduit} only during {}", opened_by(grants)))
            .collect(),
    };
    let mut faults: Vec<_> = held.faults.into_iter().map(|fault| fault.message).collect();
    faults.extend(overrides_fault);
    let folder = config.identity();
    let (mut identity, mut certificate_from_ms, mut certificate_expires_ms) = (None, None, None);
    let mut approvers = held.trust.as_ref().map(|trust| Approvers::from(&trust.approvers));
    match IdentityFolder::peek_enrolment(state_folder) {
        Ok(enrolment) => {
            approvers.get_or_insert_with(|| Approvers::from(&enrolment.approvers));
            identity = Some(format!(
                "spiffe://{}/gateway/{}",
                enrolment.plant, enrolment.gateway
            ));
            match folder.load(enrolment) {
                Ok(loaded) => {
                    // An agent that runs has said so itself.
                    let list = withdrawn::peek(state_folder).ok().flatten().filter(|_| !running);
                    faults.extend(list.and_then(|list| withdrawn::own::words(&loaded, &list)));
                    let span = loaded.validity_ms().ok();
                    certificate_from_ms = span.map(|(from, _)| from);
                    certificate_expires_ms = span.map(|(_, until)| until);
                }
                Err(error) => faults.push(error.to_string()),
            }
        }
        Err(IdentityError::NotEnrolled) => {}
        Err(error) => {
            identity = held
                .trust
                .as_ref()
                .map(|trust| format!("spiffe://{}/gateway/{}", trust.plant, trust.gateway));
            faults.push(error.to_string());
        }
    }
    let validity = certificate_from_ms.zip(certificate_expires_ms);
    let clock = known_time::peek(state_folder).judge(validity, (&boot::id(), timepiece.now()));
    let patience = if running { NOTED_WITHIN } else { Duration::ZERO };
    Status {
        identity: identity.or(live_identity),
        key: folder.key_in_words(),
        certificate_from_ms,
        certificate_expires_ms,
        time_ms: clock.shows_ms,
        clock,
        running,
        kernel: KernelRules::look(state_folder, patience),
        effective: held.effective.map(policy),
        effective_known: held.known,
        believed_revision: held
            .trust
            .as_ref()
            .map(|trust| trust.floor.0)
            .filter(|revision| *revision > 0),
        approvers,
        staged: held.staged.map(policy),
        change,
        in_kernel,
        agent_faults,
        unanswered,
        bridges: bridge::supervisor::read_states(&state_folder.join(bridge::FOLDER)),
        tunnels: tunnel::shown::read(&state_folder.join(tunnel::shown::FOLDER)),
        bindings: bindings::shown::read(&state_folder.join(bindings::shown::FOLDER)),
        trail: audit::mark::read(state_folder)
            .ok()
            .flatten()
            .map(|at| (at.epoch, at.sequence)),
        proof: audit::sealer::Proof::read(state_folder),
        faults,
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "identity     {}",
            self.identity.as_deref().unwrap_or("not enrolled")
        )?;
        if let Some(key) = &self.key {
            writeln!(f, "key          {key}")?;
        }
        if let (Some(from), Some(until)) = (self.certificate_from_ms, self.certificate_expires_ms) {
            let now = instant(self.time_ms);
            let wrong = if self.time_ms < from {
                format!(": not valid yet: this machine's clock shows {now}; is it behind?")
            } else if self.time_ms > until {
                format!(": expired: this machine's clock shows {now}; is it ahead?")
            } else {
                String::new()
            };
            writeln!(
                f,
                "certificate  from {} until {}{wrong}",
                instant(from),
                instant(until)
            )?;
        }
        writeln!(f, "clock        {}", self.clock)?;
        writeln!(
            f,
            "agent        {}",
            if self.running { "running" } else { "not running" }
        )?;
        let label = match (&self.kernel, &self.change.trial) {
            // The kernel holds the one on trial, or is about to.
            (_, Some(_)) => "confirmed",
            (KernelRules::AsLeft, None) => "in force",
            _ => "last policy",
        };
        // The agent that runs knows what it put in the kernel; the disk may not yet.
        let differs = |in_kernel: &&InKernel| {
            self.effective
                .as_ref()
                .is_none_or(|effective| effective.plan_digest != in_kernel.plan_digest)
        };
        let newer = self.in_kernel.as_ref().filter(|_| self.change.trial.is_none());
        if let Some(in_kernel) = newer.filter(differs) {
            writeln!(
                f,
                "{label:<12} r{}, {} flows, {}",
                in_kernel.revision, in_kernel.rules, in_kernel.plan_digest
            )?;
        } else {
            self.confirmed(f, label)?;
        }
        if let Some(trial) = &self.change.trial {
            writeln!(f, "on trial     r{}: {trial}", trial.revision)?;
            writeln!(f, "words        {}", spoken(&trial.statement))?;
        }
        if self.effective.is_some() || self.in_kernel.is_some() || !self.effective_known {
            writeln!(f, "kernel       {}", self.kernel.words())?;
        }
        for limited in self.effective.iter().flat_map(|policy| &policy.limited) {
            writeln!(f, "             conduit {limited}")?;
        }
        self.waits(f)?;
        match self.trail {
            Some((epoch, next)) => writeln!(f, "audit        epoch {epoch}, about {next} blocks written")?,
            None => writeln!(f, "audit        nothing yet")?,
        }
        if let Some(proof) = &self.proof {
            writeln!(f, "sealed       {}", proof.words(self.time_ms))?;
        }
        for bridge in &self.bridges {
            let side = |side: &SideState| match (&side.problem, side.connected) {
                (_, true) => format!("{} connected", side.broker),
                (Some(problem), false) => format!("{} not connected ({problem})", side.broker),
                (None, false) => format!("{} not connected", side.broker),
            };
            writeln!(
                f,
                "bridge       {}: from {}, to {}, {} messages wait",
                bridge.flow,
                side(&bridge.from),
                side(&bridge.to),
                bridge.backlog
            )?;
        }
        for tunnel in &self.tunnels {
            writeln!(f, "tunnel       {tunnel}")?;
        }
        bindings::shown::list(&self.bindings, f)?;
        if let Some(approvers) = &self.approvers {
            writeln!(f, "approvers    {} of these sign a release:", approvers.threshold)?;
            for (name, key) in &approvers.people {
                writeln!(f, "             {name} {key}")?;
            }
        }
        for fault in self.agent_faults.iter().chain(&self.faults) {
            writeln!(f, "fault        {fault}")?;
        }
        if let Some(why) = &self.unanswered {
            writeln!(f, "fault        the agent that runs was not asked: {why}")?;
        }
        if !self.effective_known {
            writeln!(
                f,
                "             The agent keeps two copies of this and uses the other one; it writes this one again when it starts."
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::policy_store::tests::offered;
    use crate::store::Store;

    fn read_files(folder: &Path) -> Status {
        read(&Config {
            state_folder: folder.to_owned(),
            ..Config::default()
        })
    }

    fn damage(folder: &Path, record: &str) {
        let path = folder.join("copies").join(record);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[24] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_is_in_force_is_never_said_to_be_none_or_another_because_one_of_its_two_copies_is_damaged() {
        for damaged in [
            None,
            Some("policy-a"),
            Some("policy-b"),
            Some("effective"),
            Some("trust"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let mut store = Store::open(folder.path());
            let mut newest = None;
            for revision in [1, 2] {
                let (trust, offer, statement) = offered(revision);
                newest = Some(statement);
                policy_store::stage(
                    &mut store,
                    None,
                    (&trust, &policy_store::journal::Order::default()),
                    &offer,
                )
                .unwrap();
                policy_store::set_effective(&mut store, statement, &trust).unwrap();
            }
            if let Some(record) = damaged {
                damage(folder.path(), record);
            }
            let status = read_files(folder.path());
            let text = status.to_string();
            assert_eq!(status.staged, None, "{damaged:?}: {text}");
            assert_eq!(
                status.faults.len(),
                usize::from(damaged.is_some()),
                "{damaged:?}: {text}"
            );
            assert!(text.contains("last policy  r2"), "{damaged:?}: {text}");
            // What is read out by telephone is shown exactly where it is known which release it is.
            let words = spoken(&newest.unwrap());
            assert_eq!(
                text.contains(&words),
                status.effective_known,
                "{damaged:?}: {text}"
            );
            assert_eq!(
                status.effective.is_some(),
                status.effective_known,
                "{damaged:?}: {text}"
            );
        }
    }
}
