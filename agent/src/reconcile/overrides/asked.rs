//! What people ask of overrides, and why it is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use penstock_policy::ids::Digest;
use penstock_policy::overrides::{
    BreakGlass, Code, Effect, Fit, OVERRIDE_FORMAT, Override, OverrideRefused, Signed, Warrant, fit,
    overridden,
};
use penstock_policy::release::Signature;
use penstock_policy::text::sentence;
use penstock_proto::event::AgentStep;
use tokio::sync::oneshot;

use super::Unknown;
use crate::audit::record;
use crate::kernel::Kernel;
use crate::overrides::{LASTING_MAX, NOTED_EVERY, in_words, short};
use crate::policy_store::StoredPolicy;
use crate::policy_store::overrides::{LastingOverride, OverrideEnd};
use crate::reconcile::{Reconciler, Workplace};

/// What is asked for.
#[derive(Debug)]
pub enum OverrideAsk {
    /// A form to be signed.
    Request {
        /// A random number, for this form alone.
        number: Digest,
        /// What it is to change.
        effects: Vec<Effect>,
        /// For how long, seconds.
        seconds: u32,
        /// Why.
        reason: String,
        /// What a change management calls it.
        ticket: Option<String>,
    },
    /// It begins.
    Begin {
        /// The form, with its signatures.
        signed: Signed,
        /// The code that opens it in their place.
        code: Option<Code>,
        /// Who asks.
        by: String,
    },
    /// It ends.
    End {
        /// Which; `None`: all.
        number: Option<Digest>,
        /// Who asks.
        by: String,
    },
}

/// Where the answer goes: a form, or what is so now.
pub type OverrideReply = oneshot::Sender<Result<String, NotOverridden>>;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum NotOverridden {
    /// By what is signed.
    #[error(transparent)]
    Refused(#[from] OverrideRefused),
    /// Nothing is in force for good.
    #[error("no policy is in force for good here: there is nothing that permits an override")]
    NoPolicy,
    /// The kernel holds something else than it should.
    #[error("the kernel does not hold the policy in force: see the faults in `penstock-agent status`")]
    NotInKernel,
    /// What was used before is not known.
    #[error("the gateway's record of overrides cannot be read, so that none begins: {0}")]
    NotKnown(String),
    /// There are as many as may be.
    #[error("{LASTING_MAX} overrides last already: end one of them first")]
    TooMany,
    /// The number is not one of ours.
    #[error(
        "this request was not made by the agent that runs, is older than a day, or was used: make another one with `penstock-agent \
         override request`, and have that one signed"
    )]
    UnknownNumber,
    /// A wrong code was typed just now.
    #[error("a wrong code was typed just now: try again in a few seconds")]
    Pausing,
    /// The disk does not take it.
    #[error("nothing was changed: the gateway's disk did not take it")]
    NotStored,
    /// The kernel does not take it.
    #[error("the kernel did not take it; the previous rules stay in force: {0}")]
    NotTaken(String),
    /// There is nothing to end.
    #[error("there is no such override; `penstock-agent override list` shows those that last")]
    NothingThere,
    /// The agent ends.
    #[error("nothing was changed: the agent is stopping")]
    Stopping,
}

impl NotOverridden {
    /// A stable word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(why) => why.code(),
            Self::NoPolicy => "no-policy",
            Self::NotInKernel => "not-in-kernel",
            Self::NotKnown(_) => "record-unread",
            Self::TooMany => "too-many",
            Self::UnknownNumber => "unknown-number",
            Self::Pausing => "pausing",
            Self::NotStored => "not-stored",
            Self::NotTaken(_) => "not-taken",
            Self::NothingThere => "nothing-there",
            Self::Stopping => "stopping",
        }
    }
}

impl<K: Kernel, W: Workplace> Reconciler<K, W> {
    /// Does what is asked, and says what came of it.
    pub(in crate::reconcile) async fn override_asked(
        &mut self,
        ask: OverrideAsk,
        reply: Option<OverrideReply>,
    ) {
        let done = self.overrides(ask).await;
        self.publish();
        // Who asked may be gone.
        let _ = reply.map(|reply| reply.send(done));
    }

    /// Does it.
    ///
    /// # Errors
    /// Nothing was changed, and why.
    pub async fn overrides(&mut self, ask: OverrideAsk) -> Result<String, NotOverridden> {
        match ask {
            OverrideAsk::Request {
                number,
                effects,
                seconds,
                reason,
                ticket,
            } => self.override_form((number, seconds), effects, (reason, ticket)),
            OverrideAsk::Begin { signed, code, by } => {
                let boot = self.keeping.timepiece.now().boot;
                if code.is_some() && self.overriding.refusals.is_pausing(boot) {
                    return Err(NotOverridden::Pausing);
                }
                let begun = self.begin_override(&signed, code.as_ref(), &by).await;
                match &begun {
                    Ok(_) if code.is_some() => self.overriding.refusals.code_was_right(),
                    Ok(_) => {}
                    Err(why) => {
                        let is_wrong_code = matches!(why, NotOverridden::Refused(OverrideRefused::WrongCode));
                        if self.overriding.refusals.refused(is_wrong_code, boot) {
                            let message = format!("{}: {}; by {by}", why.code(), sentence(why));
                            self.audit
                                .note(record::agent(AgentStep::OverrideRefused, &message));
                        }
                    }
                }
                begun
            }
            OverrideAsk::End { number, by } => self.end_overrides(number, &by).await,
        }
    }

    /// Records how many refusals there were that are not recorded by themselves.
    pub(super) fn note_unrecorded_refusals(&mut self) {
        let boot = self.keeping.timepiece.now().boot;
        if let Some(count) = self.overriding.refusals.unrecorded(boot) {
            let message =
                format!("{count} further attempts at an override were refused within a minute or so");
            self.audit
                .note(record::agent(AgentStep::OverrideRefused, &message));
        }
    }

    /// What permits overrides: the release that is in force for good, and the kernel holds what it should.
    fn permitting(&self) -> Result<StoredPolicy, NotOverridden> {
        match &self.overriding.unknown {
            Some(Unknown::Unread(why) | Unknown::Damaged(why)) => {
                return Err(NotOverridden::NotKnown(why.clone()));
            }
            None => {}
        }
        let policy = self.fallback.clone().ok_or(NotOverridden::NoPolicy)?;
        if self.effective.is_none() || self.in_doubt {
            return Err(NotOverridden::NotInKernel);
        }
        Ok(policy)
    }

    fn override_form(
        &mut self,
        (number, seconds): (Digest, u32),
        mut effects: Vec<Effect>,
        (reason, ticket): (String, Option<String>),
    ) -> Result<String, NotOverridden> {
        let policy = self.permitting()?;
        effects.sort_unstable();
        effects.dedup();
        let payload = Override {
            format: OVERRIDE_FORMAT.to_owned(),
            plant: policy.plan.plant.clone(),
            gateway: policy.plan.gateway.clone(),
            release: policy.statement,
            number,
            seconds,
            reason,
            ticket,
            effects,
        }
        .to_bytes();
        let release = (&*policy.plan, policy.statement);
        match BreakGlass::permits(release, &payload, Warrant::Signatures(&[]), &BTreeSet::new()) {
            // All but the signatures.
            Ok(_) | Err(OverrideRefused::TooFew(_)) => {}
            Err(why) => return Err(why.into()),
        }
        for effect in Override::from_bytes(&payload)
            .map_err(OverrideRefused::from)?
            .effects
        {
            match fit(&policy.plan, &effect) {
                Fit::Changes => {}
                Fit::Already => {
                    let why = format!("{effect} by the plan in force already");
                    return Err(OverrideRefused::NoEffect(why).into());
                }
                Fit::Nothing(why) => return Err(OverrideRefused::NoEffect(why).into()),
            }
        }
        let boot = self.keeping.timepiece.now().boot;
        self.overriding.numbers.give_out(number, boot);
        let signatures: Vec<Signature> = Vec::new();
        Ok(Signed { payload, signatures }.to_json())
    }

    async fn begin_override(
        &mut self,
        signed: &Signed,
        code: Option<&Code>,
        by: &str,
    ) -> Result<String, NotOverridden> {
        let policy = self.permitting()?;
        let now = self.keeping.timepiece.now();
        let warrant = code.map_or(Warrant::Signatures(&signed.signatures), Warrant::Code);
        let release = (&*policy.plan, policy.statement);
        let spent = &self.overriding.record.spent;
        let (asked, authority) = BreakGlass::permits(release, &signed.payload, warrant, spent)?;
        let number = asked.number;
        if !self.overriding.numbers.has(number, now.boot) {
            return Err(NotOverridden::UnknownNumber);
        }
        if self.overriding.record.lasting.len() >= LASTING_MAX {
            return Err(NotOverridden::TooMany);
        }
        let effective = self.effective.clone().ok_or(NotOverridden::NotInKernel)?;
        let mut all = self.overriding.effects();
        all.extend(asked.effects.iter().copied());
        let next = Arc::new(overridden(&effective.plan, &all));
        let checked = self.kernel.check(next).await;
        checked.map_err(|error| NotOverridden::NotTaken(error.message))?;
        let lasting = LastingOverride::begin(asked, authority, by.to_owned(), self.site.boot(), now);
        let before = self.overriding.record.clone();
        let mut record = before.clone();
        record.spent.extend(lasting.code);
        record.lasting.push(lasting.clone());
        if !self.write_overrides(record).await {
            return Err(NotOverridden::NotStored);
        }
        self.overriding.note_due = now.boot + NOTED_EVERY;
        self.bring_about_overrides().await;
        if let Some(fault) = self.overriding.fault.clone().filter(|_| !self.in_doubt) {
            // The kernel is as before: nothing began, and nothing was used.
            self.overriding.fault = None;
            self.overriding.record = before.clone();
            self.overriding.is_due = true;
            self.write_overrides(before).await;
            return Err(NotOverridden::NotTaken(fault.message));
        }
        self.overriding.numbers.take(number);
        self.note_began(&lasting, "began");
        let mut words = format!(
            "{} is in force for {} min: {}",
            short(number),
            lasting.left(now).as_secs().div_ceil(60),
            in_words(&lasting.asked.effects)
        );
        if self.in_doubt {
            words.push_str("; the kernel has not said yet that it holds it: `penstock-agent status` shows what comes of it");
        }
        Ok(words)
    }

    async fn end_overrides(&mut self, number: Option<Digest>, by: &str) -> Result<String, NotOverridden> {
        let mut ended = Vec::new();
        for lasting in &mut self.overriding.record.lasting {
            if lasting.ended.is_none() && number.is_none_or(|number| number == lasting.asked.number) {
                lasting.ended = Some(OverrideEnd {
                    code: "asked".to_owned(),
                    why: format!("{by} asked for it"),
                });
                ended.push(short(lasting.asked.number));
            }
        }
        if ended.is_empty() {
            return Err(NotOverridden::NothingThere);
        }
        self.overriding.is_due = true;
        self.keep_overrides().await;
        let words = format!("ended: {}", ended.join(", "));
        Ok(match &self.overriding.fault {
            None => words,
            Some(fault) => format!("{words}; but {}", fault.message),
        })
    }
}
