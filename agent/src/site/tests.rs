#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use penstock_policy::ids::Revision;
use penstock_policy::plan::Capability;
use penstock_proto::v1::KernelCounters;

use super::*;
use crate::audit;
use crate::interlock::Asker;
use crate::kernel::{Holds, KernelError, ShadowReport};
use crate::reconcile::Standing;
use crate::timepiece::Timepiece;

const SECOND: Duration = Duration::from_secs(1);

/// A kernel that counts how often it is asked.
#[derive(Default)]
struct Counting(AtomicU64);

impl Kernel for Counting {
    fn capabilities(&self) -> std::collections::BTreeSet<Capability> {
        Default::default()
    }
    async fn check(&self, _: Arc<Plan>) -> Result<(), KernelError> {
        Ok(())
    }
    async fn apply(&self, _: Arc<Plan>, _: Revision) -> Result<Vec<String>, KernelError> {
        Ok(Vec::new())
    }
    async fn verify(&self) -> Result<Holds, KernelError> {
        Ok(Holds::AsApplied)
    }
    fn must_flows(&self) -> Vec<FlowRhythm> {
        let flow = |name: &str, usual, ago| FlowRhythm {
            name: name.to_owned(),
            usual,
            ago,
        };
        vec![
            flow("supply/polled", Some(SECOND), Some(Duration::ZERO)),
            flow("supply/never", None, None),
        ]
    }
    async fn counters(&self) -> Result<KernelCounters, KernelError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(KernelCounters::default())
    }
}

fn site() -> (Arc<GatewaySite<Counting>>, watch::Sender<LinkState>) {
    let (link, state) = watch::channel(LinkState::default());
    let (audit, _) = audit::queue();
    let identity = watch::channel(None).1;
    let (_, interlocks) = Asker::new(Arc::new(BTreeMap::new()), identity, audit, Timepiece::Host);
    let site = GatewaySite::new(Arc::new(Counting::default()), state, interlocks, false);
    (Arc::new(site), link)
}

fn view(statement: u8, state: StandingState) -> PolicyView {
    PolicyView {
        standing: Standing {
            release: Some((Revision(2), Digest([statement; 32]))),
            state,
            ..Standing::default()
        },
        ..PolicyView::default()
    }
}

fn shadow(would: u64) -> StandingState {
    StandingState::Shadow(Some(ShadowReport {
        since_ms: 5,
        would_deny_packets: would,
        ..ShadowReport::default()
    }))
}

#[test]
fn facts_are_the_session_that_stands_and_must_flows_by_the_boots_clock() {
    let (site, link) = site();
    assert_eq!(site.facts().session, None);
    link.send_replace(LinkState {
        opened: Some(7 * SECOND),
        answered: Some(8 * SECOND),
        ..LinkState::default()
    });
    let before = timepiece::since_boot();
    let facts = site.facts();
    assert_eq!((facts.session, facts.denials_max), (Some(7 * SECOND), None));
    assert_eq!(facts.answered, Some(8 * SECOND));
    let seen: Vec<_> = facts
        .must_flows
        .iter()
        .map(|flow| (flow.rhythm, flow.seen))
        .collect();
    let now = seen.first().unwrap().1.unwrap();
    assert!(before <= now && now <= timepiece::since_boot());
    assert_eq!(seen, [(Some(SECOND), Some(now)), (None, None)]);
}

#[test]
fn denials_are_bounded_by_what_the_shadow_of_the_same_release_foretold() {
    let (site, _link) = site();
    for second in 0..=90 {
        site.see(
            &view(1, shadow(u64::from(second))),
            2 * u64::from(second),
            SECOND * second,
        );
    }
    let facts = site.facts();
    assert_eq!((facts.denials, facts.denials_max), (120, Some(60 + 30 + 60)));
    // It is staged and held, and then on trial, and the figures stay.
    let trial = StandingState::Trial {
        began: SECOND,
        ends: 2 * SECOND,
        confirmable_since: None,
        flows: true,
    };
    site.see(&view(1, StandingState::Staged), 180, 91 * SECOND);
    site.see(&view(1, trial), 181, 92 * SECOND);
    assert_eq!(site.facts().denials_max, Some(150));
    site.see(&view(2, StandingState::Staged), 182, 93 * SECOND);
    let facts = site.facts();
    assert_eq!(
        (facts.denials, facts.denials_max),
        (0, None),
        "of another release nothing is known"
    );
}

#[tokio::test]
async fn counters_are_read_each_second_while_a_release_is_staged_or_on_trial_and_else_not_at_all() {
    let (site, _link) = site();
    let (view_in, policy) = watch::channel(view(1, StandingState::Settled));
    let stop = CancellationToken::new();
    let kernel = Arc::clone(&site.kernel);
    let task = tokio::spawn(site.run(policy, stop.clone()));
    let read = || kernel.0.load(Ordering::Relaxed);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(read(), 0);
    view_in.send_replace(view(1, StandingState::Staged));
    let began = std::time::Instant::now();
    while read() < 3 {
        assert!(began.elapsed() < 60 * SECOND, "{}", read());
        tokio::time::sleep(SECOND / 20).await;
    }
    assert!(began.elapsed() >= SECOND, "not more often than once a second");
    stop.cancel();
    task.await.unwrap();
    let is_idle = [StandingState::Settled, StandingState::Staged].map(|state| !changes(&view(1, state)));
    assert_eq!(is_idle, [true, false]);
}
