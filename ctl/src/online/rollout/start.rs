//! `rollout start`: the release's documents are compiled again here, the plan is judged for their gateways, and what will happen is
//! shown before anything is sent. The plan that was shown is the plan that is sent, also where it is the default.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use penstock_policy::compile::compile_all;
use penstock_policy::ids::{Digest, GatewayId};
use penstock_policy::plan::Capability;
use penstock_policy::rollout::{Fleet, RolloutPlan, default_plan, joined};
use penstock_proto::v1::{Because, Gateway, ListGatewaysRequest, StartRolloutRequest};

use super::view::RolloutView;
use super::{fetched_plant, say, show_now};
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::known::short;
use crate::offline::rollout::{self as plans, WaveLine};
use crate::online::releases::FetchedPlant;
use crate::online::{Online, refused};
use crate::output::{Output, Page, Tone};
use crate::words;

/// What an agent says that brings a release back by itself if nobody confirms it.
const TRIALS: &str = "trials";

/// What `rollout start` was asked.
pub(super) struct StartRequest<'a> {
    pub(super) revision: u64,
    pub(super) plan: Option<&'a Path>,
    pub(super) because: Because,
    pub(super) yes: bool,
}

/// The plant of a release, compiled here; 0: of the current one.
pub(super) async fn plant(out: &Output, online: &mut Online, revision: u64) -> Result<FetchedPlant, Failure> {
    fetched_plant(online, revision, out).await?.ok_or_else(|| {
        Failure::new(
            Exit::Refused,
            "NOT_FOUND",
            format!("there is no release r{revision} whose documents can be read here"),
        )
        .help("see: penstock release list")
    })
}

/// Releases that gateways hold now whose documents are read, at most: those in force before and those of rollouts that were not finished.
const HELD_MAX: usize = 4;

/// Whether a gateway may have a tunnel by what it said. One that did not say hello since the coordinator started said nothing.
fn may_tunnel(capabilities: &[String]) -> bool {
    let is_heard = !capabilities.is_empty();
    !is_heard
        || capabilities
            .iter()
            .any(|capability| capability == Capability::TUNNEL)
}

/// The gateways of a release, and which of them have to activate it together by what they hold now: the coordinator judges the same.
async fn fleet_of(
    out: &Output,
    online: &mut Online,
    fetched: &FetchedPlant,
    gateways: &[Gateway],
) -> Result<Fleet, Failure> {
    let fleet = plans::fleet(&fetched.loaded.plant)?;
    let may = |gateway: &&Gateway| may_tunnel(&gateway.capabilities);
    let held_by = gateways.iter().filter(may).filter_map(|gateway| {
        let name = GatewayId::new(gateway.name.as_str()).ok()?;
        let effective = gateway
            .policy
            .as_ref()
            .and_then(|policy| policy.effective.as_ref());
        Some((name, effective.map(|effective| effective.revision)))
    });
    let held_by: BTreeMap<GatewayId, Option<u64>> = held_by.collect();
    if held_by.is_empty() {
        return Ok(fleet);
    }
    let Ok(mut released) = compile_all(&fetched.loaded.plant) else {
        return Ok(fleet);
    };
    released.retain(|gateway, _| held_by.contains_key(gateway));
    let revisions: BTreeSet<u64> = held_by.values().flatten().copied().collect();
    let mut held = BTreeMap::new();
    for revision in revisions.into_iter().rev().take(HELD_MAX) {
        let Some(before) = fetched_plant(online, revision, out).await? else {
            continue;
        };
        let plans = compile_all(&before.loaded.plant).unwrap_or_default();
        held.extend(
            plans
                .into_iter()
                .filter(|(gateway, _)| held_by.get(gateway) == Some(&Some(revision))),
        );
    }
    Ok(fleet.joining(&joined(&held, &released)))
}

/// What will happen, in sentences.
fn sentences(
    release: &str,
    emergency: bool,
    (plan, waves): (&RolloutPlan, &[WaveLine]),
    without_trials: &[String],
) -> Vec<String> {
    let count = waves.iter().map(|wave| wave.gateways.len()).sum();
    let begins = match plan.start_ms.filter(|_| !emergency) {
        Some(start) => format!("from {} on", words::instant(start)),
        None => "from now on".to_owned(),
    };
    let shadow = match plan.shadow.as_seconds() {
        _ if emergency => {
            "It is an emergency: no gateway judges it in shadow first, no window is waited for, and no wave is looked at before the \
             next."
                .to_owned()
        }
        0 => "No gateway judges it in shadow first.".to_owned(),
        _ => format!(
            "Each first judges it on live traffic for {}, beside what it enforces.",
            plan.shadow
        ),
    };
    let mut said = vec![
        format!(
            "Release {release} is carried to {} in {}, {begins}.",
            words::count(count, "gateway"),
            words::count(waves.len(), "wave")
        ),
        shadow,
        format!(
            "Whoever activates it goes back by itself after {} unless it is confirmed over the new rules.",
            plan.trial
        ),
    ];
    if !without_trials.is_empty() {
        let names: Vec<&str> = without_trials.iter().map(String::as_str).collect();
        said.push(format!(
            "Not so {}: their agents know no trials, and do not come back by themselves.",
            words::some_of(&names)
        ));
    }
    said
}

/// `penstock rollout start`.
pub(super) async fn start(
    out: &Output,
    online: &mut Online,
    asked: StartRequest<'_>,
) -> Result<Exit, Failure> {
    let revision = asked.revision;
    online.settle_zone().await;
    let fetched = plant(out, online, revision).await?;
    let answer = online.client.list_gateways(ListGatewaysRequest {}).await;
    let gateways = answer.map_err(|status| refused(&status))?.into_inner().gateways;
    let fleet = fleet_of(out, online, &fetched, &gateways).await?;
    let plan = match asked.plan {
        None => default_plan(&fleet, plans::seed_of(&fetched.loaded.digest)),
        Some(file) => {
            let (plan, judged) = plans::judge(out, file, Some(&fleet))?;
            match plan {
                Some(plan) => {
                    if out.for_people() && judged.warnings > 0 {
                        out.text(&judged.drawn)?;
                    }
                    plan
                }
                None => {
                    out.show(&judged)?;
                    return Ok(Exit::Findings);
                }
            }
        }
    };
    let waves = plans::waves(&plan, Some(&fleet));
    let without_trials: Vec<String> = gateways
        .into_iter()
        .filter(|gateway| {
            let is_heard = !gateway.capabilities.is_empty();
            is_heard && !gateway.capabilities.iter().any(|capability| capability == TRIALS)
        })
        .map(|gateway| gateway.name)
        .filter(|name| waves.iter().any(|wave| wave.gateways.contains(name)))
        .collect();
    let release = format!("r{revision} ({})", short(&fetched.stated));
    let emergency = fetched.emergency;
    say(
        out,
        &sentences(&release, emergency, (&plan, &waves), &without_trials),
    )?;
    if out.for_people() {
        let mut page = Page::new(out.style);
        plans::waves_page(&waves, &mut page);
        if !emergency {
            let least = words::span(plans::seconds_min(&plan).saturating_mul(1000));
            let line = page.paint(
                Tone::Dim,
                &format!("  shadow and looking on take {least}, windows and trials more"),
            );
            page.line(line);
        }
        out.text(&page.finish())?;
    }
    ask::confirm(out, asked.yes, &format!("Start the rollout of {release}?"))?;
    let plan = serde_json::to_vec(&plan).map_err(|error| {
        Failure::local("internal", "the plan cannot be written as JSON").caused_by(&error)
    })?;
    let request = StartRolloutRequest {
        revision,
        statement_digest: fetched.stated.0.to_vec().into(),
        plan: plan.into(),
        because: Some(asked.because),
    };
    let answer = online.client.start_rollout(request).await;
    let view = RolloutView::of(answer.map_err(|status| refused(&status))?.into_inner())?;
    is_of(&view, revision, &fetched.stated)?;
    if out.for_people() {
        let mut page = Page::new(out.style);
        let done = page.paint(Tone::Good, "✓");
        page.line(format!("{done} rollout of {release} started"));
        out.text(&page.finish())?;
    }
    show_now(out, &view)?;
    out.remark(&format!("follow it with: penstock rollout watch {revision}"));
    Ok(Exit::Done)
}

fn is_of(view: &RolloutView, revision: u64, digest: &Digest) -> Result<(), Failure> {
    if view.revision == revision && view.statement_digest == digest.to_string() {
        return Ok(());
    }
    Err(Failure::altered(
        "digest-mismatch",
        format!("the coordinator's answer is about another release than r{revision}"),
    )
    .because(format!("sent: r{revision} {digest}"))
    .because(format!("answered: r{} {}", view.revision, view.statement_digest))
    .help("it is at fault or hostile: tell whoever runs it, and freeze the plant if it began to carry it"))
}

#[cfg(test)]
mod tests {
    use penstock_policy::rollout::{Fleet, default_plan};

    use super::*;

    #[test]
    fn a_gateway_that_was_not_heard_of_may_have_a_tunnel_and_one_whose_agent_knows_none_has_none() {
        let may = |said: &[&str]| may_tunnel(&said.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert!(may(&[]) && may(&["trials", Capability::TUNNEL]) && !may(&["trials"]));
    }

    #[test]
    fn what_will_happen_is_said_as_it_is_also_for_an_emergency_and_for_agents_that_know_no_trials() {
        let plan = default_plan(&Fleet::default(), 1);
        let wave = |names: &[&str]| WaveLine {
            name: "all".to_owned(),
            gateways: names.iter().map(|name| (*name).to_owned()).collect(),
            per_cell: 1,
            soak: "1h".to_owned(),
        };
        let waves = [wave(&["gw-a"]), wave(&["gw-b"])];
        let said = sentences("r4 (3fa9)", false, (&plan, &waves), &["gw-b".to_owned()]).join(" ");
        assert_eq!(
            said,
            "Release r4 (3fa9) is carried to 2 gateways in 2 waves, from now on. Each first judges it on live traffic for 1h, beside what \
             it enforces. Whoever activates it goes back by itself after 10m unless it is confirmed over the new rules. Not so gw-b: \
             their agents know no trials, and do not come back by themselves."
        );
        let urgent = sentences("r4 (3fa9)", true, (&plan, &waves), &[]).join(" ");
        assert!(
            urgent.contains("It is an emergency") && !urgent.contains("1h"),
            "{urgent}"
        );
    }
}
