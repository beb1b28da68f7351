//! The next plan judged on live traffic beside the one in force: what it would change, as a report.
//!
//! The kernel's half is a table of its own (`table::shadow`, `nft::render`), that of inspected connections a second reader of each
//! ([`crate::inspector`]). Both count by the number of the flow in force; here are the words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_policy::ids::Revision;
use penstock_policy::plan::{Observing, Plan, Rule};
use penstock_policy::terms::GatewayMode;

use super::table::shadow::ShadowReading;
use super::{EnforceError, Enforcer, make_policy};
use crate::enforce::nft::readback::shadow::{ByFlow, ShadowCounts};
use crate::inspector::{InspectedShadowCounts, InspectionPolicy, Inspector};
use crate::kernel::ShadowReport;

/// How many flows a report names, ...
const FLOWS_MAX: usize = 16;
/// ... and how many a sentence.
const NAMED_MAX: usize = 4;
/// What stands for a flow where none carries the packet: both its zones observe, or the gateway's interfaces are none of the plan's.
const UNDECLARED: &str = "undeclared traffic";
/// What stands for a flow on its way to the gateway itself.
const MANAGEMENT: &str = "access to the gateway itself";

impl Enforcer {
    /// Judges live traffic by this plan too, beside the one in force, and changes nothing that passes; `None`: by no other, also where
    /// an agent before asked for one.
    ///
    /// # Errors
    /// The plan does not fit the kernel's tables, its operations cannot be read, or the kernel (or `nft`) rejects it: then there is no
    /// shadow. Or the shadow that is there could not be removed. What is in force is as before.
    pub async fn shadow(&self, next: Option<(Arc<Plan>, Revision)>) -> Result<(), EnforceError> {
        let Some((plan, revision)) = next else {
            self.shadow_inspected(None).await;
            return self.table.shadow(None).await.map(|_| ());
        };
        // What cannot be read is known before anything is begun.
        let policy = make_policy(Arc::clone(&plan), revision).await?;
        let judged = self.table.shadow(Some(Arc::clone(&plan))).await?;
        let policy = match judged.filter(|judged| !Arc::ptr_eq(judged, &plan)) {
            Some(judged) => make_policy(judged, revision).await?,
            None => policy,
        };
        self.shadow_inspected(Some(policy)).await;
        Ok(())
    }

    /// Takes it away at the end of the agent: it would cost time and tell nobody.
    pub(super) async fn end_shadow(&self) {
        if let Err(error) = self.shadow(None).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the table of the next plan, which changes nothing, stays in the kernel until an agent starts"
            );
        }
    }

    async fn shadow_inspected(&self, next: Option<Arc<InspectionPolicy>>) {
        if let Some(inspector) = &self.inspector {
            inspector.shadow(next).await;
        }
    }

    /// What the shadow came to so far. Where what is in force changed since the last time, it begins again. `None`: there is none, or it
    /// cannot be read now.
    pub async fn shadowed(&self) -> Option<ShadowReport> {
        match self.read_shadow().await {
            Ok(report) => report,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "what the next plan would refuse could not be read"
                );
                None
            }
        }
    }

    async fn read_shadow(&self) -> Result<Option<ShadowReport>, EnforceError> {
        let Some(reading) = self.table.shadowed().await? else {
            return Ok(None);
        };
        if reading.counts.is_none() && self.inspector.is_some() {
            // Both halves count from the same moment on. Which revision it is makes no difference to what is counted.
            let policy = make_policy(Arc::clone(&reading.judged), Revision(0)).await?;
            self.shadow_inspected(Some(policy)).await;
        }
        let inspected = self.inspector.as_deref().and_then(Inspector::shadowed);
        Ok(Some(report(&reading, inspected.unwrap_or_default())))
    }
}

/// What was counted, in the words of the policy in force.
fn report(reading: &ShadowReading, inspected: InspectedShadowCounts) -> ShadowReport {
    let ShadowCounts {
        judged,
        would_deny,
        would_deny_input,
        refused,
        unread,
        cut,
        reset,
    } = reading.counts.clone().unwrap_or_default();
    let names = Names::of(reading.in_force.as_deref());
    let concerned = [&refused, &cut, &inspected.refused, &inspected.cut];
    let concerned: BTreeSet<u32> = concerned.into_iter().flat_map(BTreeMap::keys).copied().collect();
    let (must, other): (Vec<_>, Vec<_>) = concerned.into_iter().partition(|flow| names.is_must(*flow));
    let cuts_must_flow = !must.is_empty();
    let mut flows: Vec<String> = must
        .into_iter()
        .chain(other)
        .map(|flow| names.name(flow))
        .collect();
    // Numbers that no flow in force has are all undeclared.
    let mut named = BTreeSet::new();
    flows.retain(|name| named.insert(name.clone()));
    if would_deny_input > 0 {
        flows.push(MANAGEMENT.to_owned());
    }
    let further = flows.len().saturating_sub(FLOWS_MAX);
    flows.truncate(FLOWS_MAX);
    ShadowReport {
        since_ms: reading.since_ms,
        since_boot: reading.since_boot,
        judged_packets: judged,
        would_deny_packets: would_deny.saturating_add(would_deny_input),
        would_deny_operations: sum(&inspected.refused),
        would_cut_connections: sum(&cut).saturating_add(sum(&inspected.cut)),
        flows,
        further_flows: u32::try_from(further).unwrap_or(u32::MAX),
        cuts_must_flow,
        not_judged: not_judged(reading, &names, &unread, [&reset, &inspected.reset]),
    }
}

fn sum(counts: &ByFlow) -> u64 {
    counts.values().fold(0, |all, count| all.saturating_add(*count))
}

/// What this shadow says nothing of.
fn not_judged(reading: &ShadowReading, names: &Names<'_>, unread: &ByFlow, resets: [&ByFlow; 2]) -> String {
    let mut words = Vec::new();
    let flows: BTreeSet<u32> = resets
        .iter()
        .copied()
        .chain([unread])
        .flat_map(BTreeMap::keys)
        .copied()
        .collect();
    if !flows.is_empty() {
        let connections = resets.into_iter().map(sum).fold(0, u64::saturating_add);
        let mut sentence = format!(
            "the operations of {}: they are read only once this release is in force",
            names.list(flows.into_iter())
        );
        if connections > 0 {
            sentence += &format!(
                " (connections that stand then are reset, so that they are read from their beginning: {connections} so far)"
            );
        }
        words.push(sentence);
    }
    if reading.moves_sides {
        words.push(
            "by which port of the bridge frames come in: this release has other addresses or zones on its sides".to_owned(),
        );
    }
    let bound = |plan: &Plan| plan.bound.clone();
    let is_other = reading.in_force.as_deref().map(bound).unwrap_or_default() != reading.judged.bound;
    if let Some(of) = unknown_senders(&reading.judged).filter(|_| is_other) {
        words.push(format!(
            "from which MAC addresses {of} come: this release holds addresses to other ones than now, and whatever has one of these addresses \
             and another MAC address is cut off then, also from flows that must flow"
        ));
    }
    if let Some(old) = reading.in_force.as_deref() {
        words.extend(frames_not_judged(old, &reading.judged).map(str::to_owned));
    }
    let bridges = |plan: &Plan| plan.bridges.clone();
    if reading.in_force.as_deref().map(bridges).unwrap_or_default() != reading.judged.bridges {
        words.push(
            "messages that this gateway hands from one broker to another: this release changes its bridges"
                .to_owned(),
        );
    }
    words.join("; ")
}

/// What of frames other than IP changes with a release: a shadow sees none of them.
fn frames_not_judged(old: &Plan, new: &Plan) -> Option<&'static str> {
    // By whatever name.
    let permits = |plan: &Plan| -> BTreeSet<String> {
        let rules = plan.frames.iter();
        rules
            .map(|rule| format!("{:?}", (&rule.from, &rule.to, rule.both, &rule.frames)))
            .collect()
    };
    let open = |plan: &Plan| -> BTreeSet<String> {
        let sides = plan.interfaces.iter();
        let open = sides.filter(|side| side.observing == Observing::Everything);
        open.map(|side| side.name.clone()).collect()
    };
    match new.mode {
        GatewayMode::Bridged if !open(old).is_subset(&open(new)) => Some(
            "frames other than IP: where this release enforces and zones observe now, it drops those that no `frames` name; the trail says which \
             passed (would-deny)",
        ),
        GatewayMode::Bridged if permits(old) != permits(new) => Some(
            "frames other than IP: this release lets other ones cross than now, and drops those that it no longer names",
        ),
        _ => None,
    }
}

/// Of which packets a shadow does not ask from which MAC address they come; `None`: there are none.
fn unknown_senders(judged: &Plan) -> Option<&'static str> {
    let is_read = judged.rules.iter().any(Rule::is_carried);
    match judged.mode {
        GatewayMode::Bridged => Some("packets"),
        GatewayMode::Routed if is_read || judged.management.is_some() => {
            Some("packets of inspected flows and packets to the gateway itself")
        }
        GatewayMode::Routed => None,
    }
}

/// The flows in force by number.
struct Names<'a>(BTreeMap<u32, &'a Rule>);

impl<'a> Names<'a> {
    fn of(plan: Option<&'a Plan>) -> Self {
        let rules = plan.into_iter().flat_map(|plan| &plan.rules);
        Self(rules.map(|rule| (rule.id.0, rule)).collect())
    }

    fn is_must(&self, flow: u32) -> bool {
        self.0.get(&flow).is_some_and(|rule| rule.must_flow)
    }

    fn name(&self, flow: u32) -> String {
        match self.0.get(&flow) {
            Some(rule) => format!("{}/{}", rule.conduit, rule.flow),
            None => UNDECLARED.to_owned(),
        }
    }

    /// A few of them, in words.
    fn list(&self, flows: impl Iterator<Item = u32>) -> String {
        let names: BTreeSet<String> = flows.map(|flow| self.name(flow)).collect();
        let more = names.len().saturating_sub(NAMED_MAX);
        let mut named: Vec<String> = names.into_iter().take(NAMED_MAX).collect();
        if more > 0 {
            named.push(format!("{more} more"));
        }
        named.join(", ")
    }
}
