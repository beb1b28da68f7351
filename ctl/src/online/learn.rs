//! `learn --from-gateways`: what gateways learned in observing zones and counted by their verdicts, put together over
//! gateways and time, and written as the same proposal as from captures.

pub(super) mod events;

use std::collections::BTreeSet;
use std::time::Duration;

use penstock_inspect::learn::Learned;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AuditClock, AuditRecord, Decision, SearchAuditRequest, Severity};

use super::Online;
use super::trail::{self, ReadBudget};
use crate::args;
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::loading;
use crate::offline::learn::propose;
use crate::offline::replay::{clock, plans};
use crate::output::Output;
use crate::{times, words};

/// All of it, as many records at once as a search gives.
const BUDGET: ReadBudget = ReadBudget {
    page: 100_000,
    records: usize::MAX,
    until: None,
};

/// What is put together.
#[derive(Debug, Default)]
struct GatheredTalks {
    learned: Learned,
    sources: BTreeSet<String>,
    records: u64,
    first_ms: Option<u64>,
    last_ms: u64,
    /// Packets that gateways missed while learning.
    missed: u64,
    /// Verdicts that were carried out and not told.
    untold: u64,
    /// Packets of what has no ports.
    portless: u64,
    /// Packets to multicast and broadcast addresses.
    to_groups: u64,
    /// Records that mean nothing.
    unusable: u64,
    /// Gateways that did not learn, and why.
    not_learning: BTreeSet<String>,
}

/// `penstock learn --from-gateways`.
pub(crate) async fn learn(out: &Output, context: Option<&str>, args: &args::Learn) -> Result<Exit, Failure> {
    let loaded = args
        .plant
        .as_ref()
        .map(|path| loading::load(path, out))
        .transpose()?;
    let plans = loaded.as_ref().map(plans).transpose()?;
    let now_ms = words::now_ms();
    let sources = if args.gateway.is_empty() {
        vec![String::new()]
    } else {
        args.gateway.clone()
    };
    let mut online = Online::connect(context).await?;
    online.settle_zone().await;
    let (since, until) = times::stretch(args.since.as_deref(), args.until.as_deref(), now_ms)?;
    let until = if until == 0 { now_ms } else { until };
    let waiting = ask::waiting(out, "reading the trail");
    let (mut gathered, mut cut) = (GatheredTalks::default(), Vec::new());
    for source in &sources {
        for (kinds, decision) in [
            (&["learned", "loss", "agent"][..], Decision::Unspecified),
            (&["verdict"][..], Decision::WouldDeny),
            (&["verdict"][..], Decision::Allow),
        ] {
            let request = SearchAuditRequest {
                source: source.clone(),
                from_ms: since,
                until_ms: until,
                kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
                severity_min: Severity::Unspecified.into(),
                decision: decision.into(),
                text: String::new(),
                limit: BUDGET.page,
                newest_first: false,
                // A gateway's clock alone does not say when: one that is wrong would keep all of it out.
                clock: AuditClock::Either.into(),
                ..SearchAuditRequest::default()
            };
            let mut take = |record, ms| {
                gathered.take(record, ms);
                Ok(())
            };
            let gaps = trail::read(&mut online, &request, BUDGET, &mut take).await?;
            cut.extend(gaps.in_words());
        }
    }
    drop(waiting);
    let answers = gathered.learned.turn_answers();
    gathered.remark(answers);
    if let Some(plans) = &plans {
        gathered.learned.leave_out(plans);
    }
    propose(out, args, loaded.as_ref(), &gathered.learned, &cut)
}

impl GatheredTalks {
    fn take(&mut self, record: AuditRecord, placed_ms: u64) {
        let event = record.event.unwrap_or_default();
        match event.kind {
            Some(Kind::Learned(learned)) if learned.binding.is_some() => match events::binding(&learned) {
                Some((address, macs)) => macs.for_each(|mac| self.learned.macs.add(address, mac)),
                None => self.unusable += 1,
            },
            Some(Kind::Learned(learned)) => match events::learned(learned) {
                Some((ends, talk)) => self.learned.add(ends, talk),
                None => self.unusable += 1,
            },
            Some(Kind::Verdict(verdict)) => match events::counted(&verdict) {
                Ok((ends, talk)) => self.learned.add(ends, talk),
                Err(events::NotCounted::Portless) => self.portless += verdict.count,
                Err(events::NotCounted::Group) => self.to_groups += verdict.count,
                Err(events::NotCounted::Unusable) => self.unusable += 1,
            },
            Some(Kind::Loss(loss)) if loss.cause == "tap-overrun" => self.missed += loss.events,
            Some(Kind::Loss(loss)) => self.untold += loss.events,
            Some(Kind::Agent(agent)) if agent.step == "not-learning" => {
                self.not_learning
                    .insert(format!("{}: {}", record.source, agent.message));
                return;
            }
            _ => return,
        }
        self.sources.insert(record.source);
        self.learned.days.add(Duration::from_millis(placed_ms));
        self.records += 1;
        self.first_ms = Some(self.first_ms.map_or(placed_ms, |first| first.min(placed_ms)));
        self.last_ms = self.last_ms.max(placed_ms);
    }

    /// Says in the proposal what it rests on, and what may lack.
    fn remark(&mut self, answers: u64) {
        let at = |ms: u64| clock(Duration::from_millis(ms));
        let sources: Vec<&str> = self.sources.iter().map(String::as_str).collect();
        let mut remarks = vec![match self.first_ms {
            Some(first) => format!(
                "Learned by {}: {} records, from {} to {}.",
                sources.join(", "),
                self.records,
                at(first),
                at(self.last_ms)
            ),
            None => "No gateway has learned or counted anything in this time.".to_owned(),
        }];
        for (count, what) in [
            (
                self.missed,
                "packets were missed by gateways that learned: the proposal may be incomplete",
            ),
            (
                self.untold,
                "events were lost to the trail: the proposal may be incomplete",
            ),
            (
                self.portless,
                "packets of ICMP and other protocols without ports were counted and are not proposed",
            ),
            (
                self.to_groups,
                "packets to multicast and broadcast addresses were counted and are not proposed: no flow can permit them",
            ),
            (
                answers,
                "packets were answers on connections whose beginning no gateway saw: they are not proposed as flows of their own",
            ),
            (
                self.unusable,
                "records were not understood: is this program older than the gateways?",
            ),
        ] {
            if count > 0 {
                remarks.push(format!("{count} {what}."));
            }
        }
        for why in &self.not_learning {
            remarks.push(format!("Operations were not learned at times by {why}"));
        }
        self.learned.remarks = remarks;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_proto::v1::{AuditEvent, VerdictEvent};

    fn counted(time_ms: u64, received_ms: u64) -> AuditRecord {
        let verdict = VerdictEvent {
            source: "10.1.0.5".into(),
            destination: "10.2.0.9".into(),
            protocol: 6,
            port: 502,
            count: 1,
            ..VerdictEvent::default()
        };
        AuditRecord {
            source: "gw-a".into(),
            received_ms,
            event: Some(AuditEvent {
                time_ms,
                kind: Some(Kind::Verdict(verdict)),
                ..AuditEvent::default()
            }),
            ..AuditRecord::default()
        }
    }

    #[test]
    fn a_gateway_whose_clock_is_wrong_is_learned_from_and_no_record_counts_twice() {
        let whole = (1_000, 2_000);
        let records = vec![
            counted(5, 1_200),
            counted(9_000, 1_900),
            // Found by either clock in both halves.
            counted(1_100, 1_800),
            // Delivered late: by its own clock it happened then.
            counted(1_300, 7_000),
        ];
        let mut gathered = GatheredTalks::default();
        for part in [(1_000, 1_500), (1_501, 2_000)] {
            trail::take_within(records.clone(), whole, part, &mut |record, ms| {
                gathered.take(record, ms);
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(gathered.records, 4);
        assert_eq!((gathered.first_ms, gathered.last_ms), (Some(1_200), 1_900));
    }
}
