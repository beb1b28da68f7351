//! `why`: what was refused lately to or by one asset, by the release in force then; who else may do it, whom to ask, and the
//! smallest flow that would permit it. For whoever is on shift: worst first, few at a time.
//!
//! What was refused comes from the coordinator's trail. Why is judged here again, by the documents of the release that the
//! event names; whether it would pass today, and what to write, by those of the current release.

mod flow;
mod gather;
mod report;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use penstock_policy::explain;
use penstock_policy::ids::{GatewayId, ZoneId};
use penstock_policy::model::Plant;
use penstock_policy::plan::{Grant, Plan, opened_by};
use penstock_policy::verdict::{Reason, matching};
use penstock_proto::v1::{AuditClock, Decision, SearchAuditRequest};

pub(super) use self::gather::{Group, Refusals, Subject};
pub use self::report::{Ask, Refused, Why};
use super::Online;
use super::releases::{FetchedPlant, fetched_plant};
use super::trail;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::offline::explain::{GatewayVerdict, told};
use crate::output::Output;
use crate::{args, ask, times, words};

/// Newest records that are looked at, of each decision.
const RECORDS_MAX: u32 = 2_000;

/// Why no flow helps against a packet at the wrong place.
const MISPLACED: &str = "it came from, or went to, a side of the gateway where that address does not belong: no flow can \
                         permit it; look for a cable in the wrong port, a missing `behind`, or a forged address";

/// Why no flow helps against what is not IP.
const BESIDE_IP: &str =
    "it is not IP: no flow can permit it; `frames` of a conduit may, across a bridged gateway";

/// `penstock why`.
pub(crate) async fn why(out: &Output, context: Option<&str>, args: &args::Why) -> Result<Exit, Failure> {
    let now_ms = words::now_ms();
    times::stretch(Some(&args.since), None, now_ms)?;
    let mut online = Online::connect(context).await?;
    online.settle_zone().await;
    let (since_ms, _) = times::stretch(Some(&args.since), None, now_ms)?;
    let waiting = ask::waiting(out, "reading the trail");
    // As events write it: an IPv6 address has many spellings.
    let subject = gather::normal(&args.subject);
    let mut refusals = Refusals::of(Subject::Asset(subject.clone()));
    for decision in [Decision::Deny, Decision::WouldDeny] {
        let request = SearchAuditRequest {
            from_ms: since_ms,
            kinds: ["verdict", "operation"].map(str::to_owned).to_vec(),
            decision: decision.into(),
            assets: vec![subject.clone()],
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
        known(&current.fetched.loaded.plant, &subject)?;
    }
    let all = refusals.worst_first();
    let found = all.len();
    let mut shown = Vec::new();
    for group in all.into_iter().take(args.limit as usize) {
        let then = match group.revision {
            0 => None,
            revision => plants.of(&mut online, revision, out).await?,
        };
        shown.push(judged(group, then.as_deref(), current.as_deref(), now_ms));
    }
    drop(waiting);
    // Of what was not looked at nobody knows that it is nothing.
    let nothing = shown.is_empty() && !refusals.cut;
    out.show(&Why {
        subject,
        since: words::instant(since_ms),
        since_ms,
        refused: shown,
        further: found.saturating_sub(args.limit as usize),
        cut: refusals.cut,
        current_revision: current.as_ref().map_or(0, |current| current.fetched.revision),
        current_verified: current.is_some_and(|current| current.fetched.verified),
    })?;
    Ok(if nothing { Exit::Done } else { Exit::Findings })
}

/// A release that was fetched, and the plans of its gateways, each compiled once.
pub(super) struct Judging {
    fetched: FetchedPlant,
    plans: RefCell<BTreeMap<GatewayId, Option<Rc<Plan>>>>,
}

impl Judging {
    pub(super) fn of(fetched: FetchedPlant) -> Self {
        Self {
            fetched,
            plans: RefCell::default(),
        }
    }

    pub(super) fn plant(&self) -> &Plant {
        &self.fetched.loaded.plant
    }

    pub(super) fn revision(&self) -> u64 {
        self.fetched.revision
    }

    /// It is the release that this person verified last; else all of it is the coordinator's word.
    pub(super) fn is_verified(&self) -> bool {
        self.fetched.verified
    }

    fn plan(&self, gateway: &str) -> Option<Rc<Plan>> {
        let gateway = GatewayId::new(gateway).ok()?;
        let plant = &self.fetched.loaded.plant;
        let mut plans = self.plans.borrow_mut();
        let compiled = plans.entry(gateway.clone()).or_insert_with(|| {
            penstock_policy::compile::compile(plant, &gateway)
                .ok()
                .map(Rc::new)
        });
        compiled.clone()
    }
}

/// The releases that are asked about, each read once.
#[derive(Default)]
pub(super) struct Plants {
    read: BTreeMap<u64, Option<Rc<Judging>>>,
}

impl Plants {
    /// A release, 0 for the current one; `None` if there is none, or it cannot be read any more.
    pub(super) async fn of(
        &mut self,
        online: &mut Online,
        revision: u64,
        out: &Output,
    ) -> Result<Option<Rc<Judging>>, Failure> {
        if let Some(read) = self.read.get(&revision) {
            return Ok(read.clone());
        }
        let fetched = fetched_plant(online, revision, out).await?;
        let number = fetched.as_ref().map_or(revision, |fetched| fetched.revision);
        let judging = fetched.map(|fetched| Rc::new(Judging::of(fetched)));
        self.read.insert(revision, judging.clone());
        self.read.insert(number, judging.clone());
        Ok(judging)
    }
}

/// Refuses what is neither an address nor an asset of the current release: a typing error must not read as "nothing".
fn known(plant: &Plant, subject: &str) -> Result<(), Failure> {
    let gateway = GatewayId::new(subject)
        .ok()
        .and_then(|id| plant.gateways.get(&id));
    if let Some(gateway) = gateway {
        let own: Vec<String> = flow::own_addresses(gateway).map(|own| own.to_string()).collect();
        let failure = Failure::usage(format!("{subject} is a gateway: ask by one of its addresses"));
        return Err(match own.is_empty() {
            true => failure,
            false => failure.help(format!("it has {}", own.join(", "))),
        });
    }
    crate::offline::explain::who(plant, subject).map(|_| ())
}

/// Something that was refused, with what the release in force then says of it, and the current one.
pub(super) fn judged(
    group: Group,
    then: Option<&Judging>,
    current: Option<&Judging>,
    now_ms: u64,
) -> Refused {
    let plant = current.map(|current| &current.fetched.loaded.plant);
    let then = then.and_then(|release| verdict(release, &group, group.last_ms));
    let today = current.and_then(|release| verdict(release, &group, now_ms));
    let itself = plant.and_then(|plant| flow::a_gateway_itself(plant, &group));
    let beside_ip = group.is_beside_ip().then(|| BESIDE_IP.to_owned());
    let hindrance = beside_ip.or(itself).or_else(|| today.as_ref()?.hindrance.clone());
    let permitted_now = hindrance.is_none() && today.is_some_and(|today| today.passes);
    let (flow, no_flow) = match plant {
        _ if permitted_now => (None, None),
        _ if hindrance.is_some() => (None, hindrance),
        Some(plant) => {
            let asked = group.asked(group.values.map(|values| values.first));
            match flow::smallest(plant, &group, asked.as_ref()) {
                Ok(flow) => (Some(flow), None),
                Err(why) => (None, Some(why)),
            }
        }
        None => (None, None),
    };
    let ask = plant.filter(|_| !permitted_now).map(|plant| whom(plant, &group));
    let others = then.map_or_else(Vec::new, |then| then.told.others);
    report::refused(group, others, permitted_now, (flow, no_flow), ask, now_ms)
}

/// What a release says of something that was refused.
pub(super) struct ReleaseJudgement {
    pub(super) told: GatewayVerdict,
    /// What no flow would change about it: where it was seen, or a grant that opens it for a time.
    hindrance: Option<String>,
    /// It permits all of it.
    passes: bool,
}

/// What a release says of it at the gateway that refused it, by the interfaces at which it was seen, as of a moment.
pub(super) fn verdict(release: &Judging, group: &Group, at_ms: u64) -> Option<ReleaseJudgement> {
    let plan = release.plan(&group.gateway)?;
    if plan.grants.is_empty() {
        return by_plan(release, group, &plan);
    }
    let judged = by_plan(release, group, &plan.at(Some(at_ms)))?;
    if judged.passes || judged.hindrance.is_some() {
        return Some(judged);
    }
    // What grants limit is opened by one more grant, never by a conduit that stands open.
    let opened = plan.opening(plan.grants.keys().cloned().collect());
    if !by_plan(release, group, &opened)?.passes {
        return Some(judged);
    }
    let connection = group.connection(|address| side(&plan, address))?;
    let grants: BTreeSet<&Grant> = matching(&opened, &connection)
        .flat_map(|rule| plan.grants_of(&rule.conduit))
        .collect();
    let grants: Vec<Grant> = grants.into_iter().cloned().collect();
    Some(ReleaseJudgement {
        hindrance: Some(format!("it is permitted only during {}", opened_by(&grants))),
        ..judged
    })
}

fn by_plan(release: &Judging, group: &Group, plan: &Plan) -> Option<ReleaseJudgement> {
    let connection = group.connection(|address| side(plan, address))?;
    let answer = explain::answer(plan, connection);
    let on = group.server_shown();
    let told = |value: Option<u32>| {
        let asked = group.asked(value);
        let asked = asked.as_ref().map(|asked| (asked, on.as_str()));
        told(&release.fetched.loaded, &answer, Some(plan), asked)
    };
    let hindrance = match answer.verdict.reason {
        Reason::Misplaced { .. } | Reason::Unguarded { .. } | Reason::NotGuarded => {
            Some(MISPLACED.to_owned())
        }
        _ if answer.granted.is_empty() => None,
        _ => Some(format!(
            "it is permitted only during {}",
            opened_by(&answer.granted)
        )),
    };
    let allows = |verdict: &GatewayVerdict| {
        // Of an operation whose words cannot be read back nobody knows.
        let inside = verdict.operation.as_ref();
        inside.map_or(group.operation.is_none(), |operation| {
            operation.decision == "allow"
        })
    };
    let values = trail::telling_values(plan, &answer.connection, group.values.as_ref());
    let (first, further) = match values.split_first() {
        None => (told(None), &[][..]),
        Some((first, further)) => (told(Some(*first)), further),
    };
    let passes = first.decision == "allow"
        && allows(&first)
        && further.iter().all(|value| allows(&told(Some(*value))));
    Some(ReleaseJudgement {
        told: first,
        hindrance,
        passes,
    })
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
