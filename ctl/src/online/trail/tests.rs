#![allow(clippy::unwrap_used)]

use std::time::Duration;

use penstock_proto::v1::AuditEvent;

use super::*;

const WHOLE: (u64, u64) = (1_000, 9_999);

/// A trail with one record each 10 ms, and what was read of it.
struct FakeTrail {
    searches: usize,
    /// How long each search takes.
    takes: Duration,
    /// Whoever is in the coordinator's place: it always has as many records as it was asked for.
    floods: bool,
}

impl FakeTrail {
    fn search(&mut self, request: &SearchAuditRequest) -> Vec<AuditRecord> {
        self.searches += 1;
        let at = |received_ms| AuditRecord {
            received_ms,
            ..AuditRecord::default()
        };
        let limit = request.limit as usize;
        if self.floods {
            return (0..limit).map(|_| at(request.from_ms)).collect();
        }
        let all = (WHOLE.0..=WHOLE.1).step_by(10);
        let mut found: Vec<_> = all
            .filter(|ms| (request.from_ms..=request.until_ms).contains(ms))
            .map(at)
            .collect();
        if request.newest_first {
            found.reverse();
        }
        found.truncate(limit);
        found
    }

    async fn read(&mut self, budget: ReadBudget) -> (Vec<u64>, ReadGaps) {
        let request = SearchAuditRequest {
            from_ms: WHOLE.0,
            until_ms: WHOLE.1,
            limit: budget.page,
            newest_first: true,
            clock: AuditClock::Either.into(),
            ..SearchAuditRequest::default()
        };
        let mut taken = Vec::new();
        let mut search = async |part: SearchAuditRequest| {
            // The first one only asks since when there is anything.
            if part.limit > 1 && !self.takes.is_zero() {
                tokio::time::sleep(self.takes).await;
            }
            Ok(self.search(&part))
        };
        let mut take = |_, ms| {
            taken.push(ms);
            Ok(())
        };
        let gaps = read_by(&mut search, &request, budget, &mut take).await.unwrap();
        (taken, gaps)
    }
}

fn trail(takes: Duration, floods: bool) -> FakeTrail {
    FakeTrail {
        searches: 0,
        takes,
        floods,
    }
}

fn budget(records: usize, until: Option<Duration>) -> ReadBudget {
    ReadBudget {
        page: 50,
        records,
        until: until.map(|after| Instant::now() + after),
    }
}

/// How much of the time is named as not read.
fn unread(gaps: &ReadGaps) -> u64 {
    gaps.left.iter().map(|(from, until)| until - from + 1).sum()
}

#[tokio::test]
async fn each_record_is_read_once_in_parts_that_fit_an_answer() {
    let (mut taken, gaps) = trail(Duration::ZERO, false).read(budget(usize::MAX, None)).await;
    taken.sort_unstable();
    assert_eq!(taken, (WHOLE.0..=WHOLE.1).step_by(10).collect::<Vec<_>>());
    assert!(gaps.left.is_empty() && gaps.crowded.is_empty(), "{gaps:?}");
}

#[tokio::test]
async fn by_the_sources_clock_each_record_is_read_once_whenever_it_came() {
    // A source that was away, and one whose clock stands in 1970: all of it came in one moment, long after.
    let all: Vec<u64> = (0..5).chain((WHOLE.0..=WHOLE.1).step_by(10)).collect();
    let request = SearchAuditRequest {
        until_ms: WHOLE.1,
        limit: 50,
        clock: AuditClock::Source.into(),
        ..SearchAuditRequest::default()
    };
    let mut search = async |part: SearchAuditRequest| {
        let found = all
            .iter()
            .filter(|ms| (part.from_ms..=part.until_ms).contains(ms));
        let found = found.map(|time_ms| AuditRecord {
            received_ms: 1 << 40,
            event: Some(AuditEvent {
                time_ms: *time_ms,
                ..AuditEvent::default()
            }),
            ..AuditRecord::default()
        });
        Ok(found.take(part.limit as usize).collect())
    };
    let mut taken = Vec::new();
    let mut take = |_, ms| {
        taken.push(ms);
        Ok(())
    };
    let gaps = read_by(&mut search, &request, budget(usize::MAX, None), &mut take)
        .await
        .unwrap();
    taken.sort_unstable();
    assert_eq!(taken, all);
    assert!(gaps.left.is_empty() && gaps.crowded.is_empty(), "{gaps:?}");
}

#[tokio::test]
async fn of_more_records_than_the_budget_the_newest_are_read_and_the_time_before_is_named() {
    let (mut taken, gaps) = trail(Duration::ZERO, false).read(budget(120, None)).await;
    assert_eq!(taken.len(), 120);
    taken.sort_unstable();
    taken.dedup();
    let newest: Vec<u64> = (WHOLE.0..=WHOLE.1).step_by(10).skip(900 - 120).collect();
    assert_eq!(taken, newest);
    // What was not read lies in what is named.
    let before = WHOLE.0..newest.first().copied().unwrap();
    let named = |ms: u64| {
        gaps.left
            .iter()
            .any(|(from, until)| (*from..=*until).contains(&ms))
    };
    assert!(before.step_by(10).all(named), "{gaps:?}");
}

#[tokio::test]
async fn a_search_that_is_not_answered_in_time_is_named_with_all_that_was_left() {
    let begin = Instant::now();
    let mut slow = trail(Duration::from_secs(3_600), false);
    let (taken, gaps) = slow.read(budget(1_000, Some(Duration::from_millis(20)))).await;
    assert_eq!((taken.len(), unread(&gaps)), (0, WHOLE.1 - WHOLE.0 + 1));
    assert!(begin.elapsed() < Duration::from_secs(600));
}

#[tokio::test]
async fn whoever_has_more_records_for_each_millisecond_is_read_no_longer_than_the_budget_of_time() {
    let mut flood = trail(Duration::from_millis(10), true);
    let (taken, gaps) = flood.read(budget(1_000, Some(Duration::from_millis(300)))).await;
    assert!(taken.len() <= 1_000 && flood.searches <= 32, "{}", flood.searches);
    assert!(!gaps.in_words().is_empty());
}
