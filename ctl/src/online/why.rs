//! `why`: what was refused lately to or by one asset, by the release in force then; who else may do it, whom to ask, and the
//! smallest flow that would permit it. For whoever is on shift: worst first, few at a time.
//!
//! What was refused comes from the coordinator's trail. Why is judged here again, by the documents of the release that the
//! event names; whether it would pass today, and what to write, by those of the current release.

mod flow;
mod gather;
mod report;

use std::collections::BTreeMap;

use penstock_policy::explain;
use penstock_policy::ids::{GatewayId, ZoneId};
use penstock_policy::model::Plant;
use penstock_policy::plan::Plan;
use penstock_policy::plan::opened_by;
use penstock_policy::verdict::Reason;
use penstock_proto::v1::{AuditClock, Decision, SearchAuditRequest};

use self::gather::{Group, Refusals};
pub use self::report::{Ask, Refused, Why};
use super::Online;
use super::releases::fetched_plant;
use crate::args;
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::loading::LoadedPlant;
use crate::offline::explain::{Asked, GatewayVerdict, told};
use crate::output::Output;
use crate::{times, words};

/// Newest records that are looked at, of each decision.
const RECORDS_MAX: u32 = 2_000;

/// Why no flow helps against a packet at the wrong place.
const MISPLACED: &str = "it came from, or went to, a side of the gateway where that address does not belong: no flow can \
                         permit it; look for a cable in the wrong port, a missing `behind`, or a forged address";

/// `penstock why`.
pub async fn why(out: &Output, context: Option<&str>, args: &args::Why) -> Result<Exit, Failure> {
    let now_ms = words::now_ms();
    times::stretch(Some(&args.since), None, now_ms)?;
    let mut online = Online::connect(context).await?;
    online.settle_zone().await;
    let (since_ms, _) = times::stretch(Some(&args.since), None, now_ms)?;
    let waiting = ask::waiting(out, "reading the trail");
    let mut refusals = Refusals::of(&args.subject);
    for decision in [Decision::Deny, Decision::WouldDeny] {
        let request = SearchAuditRequest {
            from_ms: since_ms,
            kinds: ["verdict", "operation"].map(str::to_owned).to_vec(),
            decision: decision.into(),
            text: args.subject.clone(),
            limit: RECORDS_MAX,
            newest_first: true,
            clock: AuditClock::Either.into(),
            ..SearchAuditRequest::default()
        };
        refusals.read(&mut online, request).await?;
    }
    let mut plants = Plants::default();
    let current = plants.of(&mut online, 0, out).await?;
    if let (Some(current), true) = (&current, refusals.is_empty()) {
        known(&current.plant, &args.subject)?;
    }
    let all = refusals.worst_first();
    let found = all.len();
    let mut shown = Vec::new();
    for group in all.into_iter().take(args.limit as usize) {
        let then = match group.revision {
            0 => None,
            revision => plants.of(&mut online, revision, out).await?,
        };
        shown.push(judged(group, then.as_ref(), current.as_ref(), now_ms));
    }
    drop(waiting);
    let nothing = shown.is_empty();
    out.show(&Why {
        subject: args.subject.clone(),
        since: words::instant(since_ms),
        since_ms,
        refused: shown,
        further: found.saturating_sub(args.limit as usize),
        cut: refusals.cut,
        current_revision: plants.current,
    })?;
    Ok(if nothing { Exit::Done } else { Exit::Findings })
}

/// The plants of releases, each read once.
#[derive(Default)]
struct Plants {
    read: BTreeMap<u64, Option<std::rc::Rc<LoadedPlant>>>,
    current: u64,
}

impl Plants {
    /// The plant of a release, 0 for the current one; `None` if there is none, or it cannot be read any more.
    async fn of(
        &mut self,
        online: &mut Online,
        revision: u64,
        out: &Output,
    ) -> Result<Option<std::rc::Rc<LoadedPlant>>, Failure> {
        if let Some(read) = self.read.get(&revision) {
            return Ok(read.clone());
        }
        let fetched = fetched_plant(online, revision, out).await?;
        let (number, plant) = fetched.map_or((revision, None), |(number, plant)| (number, Some(plant)));
        let plant = plant.map(std::rc::Rc::new);
        if revision == 0 {
            self.current = number;
        }
        self.read.insert(revision, plant.clone());
        self.read.insert(number, plant.clone());
        Ok(plant)
    }
}

/// Refuses what is neither an address nor an asset of the current release: a typing error must not read as "nothing".
fn known(plant: &Plant, subject: &str) -> Result<(), Failure> {
    crate::offline::explain::who(plant, subject).map(|_| ())
}

fn judged(
    group: Group,
    then: Option<&std::rc::Rc<LoadedPlant>>,
    current: Option<&std::rc::Rc<LoadedPlant>>,
    now_ms: u64,
) -> Refused {
    let asked = group.asked();
    let by = |loaded: &LoadedPlant| verdict(loaded, &group, asked.as_ref());
    let then = then.and_then(|loaded| by(loaded));
    let today = current.and_then(|loaded| by(loaded));
    let passes = |verdict: &GatewayVerdict| {
        let inside = verdict.operation.as_ref();
        // Of an operation whose words cannot be read back nobody knows.
        let allowed = inside.map_or(group.operation.is_none(), |operation| {
            operation.decision == "allow"
        });
        verdict.decision == "allow" && allowed
    };
    let hindrance = today.as_ref().and_then(|(_, hindrance)| hindrance.clone());
    let permitted_now = hindrance.is_none() && today.is_some_and(|(verdict, _)| passes(&verdict));
    let plant = current.map(|loaded| &loaded.plant);
    let (flow, no_flow) = match plant {
        _ if permitted_now => (None, None),
        _ if hindrance.is_some() => (None, hindrance),
        Some(plant) => match flow::smallest(plant, &group, asked.as_ref()) {
            Ok(flow) => (Some(flow), None),
            Err(why) => (None, Some(why)),
        },
        None => (None, None),
    };
    let ask = plant.filter(|_| !permitted_now).map(|plant| whom(plant, &group));
    let others = then.map_or_else(Vec::new, |(verdict, _)| verdict.others);
    report::refused(group, others, permitted_now, (flow, no_flow), ask, now_ms)
}

/// What a plant says of it at the gateway that refused it, by the interfaces at which it was seen.
/// Also what no flow would change about it: where it was seen, or a grant that opens it for a time.
fn verdict(
    loaded: &LoadedPlant,
    group: &Group,
    asked: Option<&Asked>,
) -> Option<(GatewayVerdict, Option<String>)> {
    let gateway = GatewayId::new(&group.gateway).ok()?;
    let plan = penstock_policy::compile::compile(&loaded.plant, &gateway).ok()?;
    let connection = group.connection(|address| side(&plan, address))?;
    let answer = explain::answer(&plan, connection);
    let misplaced = matches!(
        answer.verdict.reason,
        Reason::Misplaced { .. } | Reason::Unguarded { .. } | Reason::NotGuarded
    );
    let on = group.server_shown();
    let told = told(
        loaded,
        &answer,
        Some(&plan),
        asked.map(|asked| (asked, on.as_str())),
    );
    let hindrance = if misplaced {
        Some(MISPLACED.to_owned())
    } else if answer.granted.is_empty() {
        None
    } else {
        Some(format!(
            "it is permitted only during {}",
            opened_by(&answer.granted)
        ))
    };
    Some((told, hindrance))
}

/// The interface on whose side an address lives.
fn side(plan: &Plan, address: std::net::IpAddr) -> Option<String> {
    let side = plan.interfaces.iter().find(|side| side.holds(address))?;
    Some(side.name.clone())
}

/// Who answers for the two zones and the way between them, and who signs.
fn whom(plant: &Plant, group: &Group) -> Ask {
    let accountable = |zone: &Option<String>| {
        let id = ZoneId::new(zone.as_deref()?).ok()?;
        let who = plant.zones.get(&id)?.accountable.clone()?;
        Some(format!("{who} (zone {id})"))
    };
    let mut people: Vec<String> = Vec::new();
    // Who answers for the server has more to lose than who answers for the client.
    for who in [accountable(&group.to.zone), accountable(&group.from.zone)]
        .into_iter()
        .flatten()
    {
        if !people.contains(&who) {
            people.push(who);
        }
    }
    if let Some((id, conduit)) = flow::conduit_between(plant, group)
        && let Some(who) = &conduit.accountable
    {
        people.push(format!("{who} (conduit {id})"));
    }
    Ask {
        accountable: people,
        owner: plant.owner.as_ref().map(|owner| match &owner.contact {
            Some(contact) => format!("{}, {contact}", owner.organisation),
            None => owner.organisation.clone(),
        }),
        approvers: plant
            .approvers
            .people
            .iter()
            .map(|(name, person)| match &person.role {
                Some(role) => format!("{name} ({role})"),
                None => name.to_string(),
            })
            .collect(),
        threshold: plant.approvers.threshold,
    }
}
