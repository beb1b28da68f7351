//! What a replicated store rests on: servers that hold its log, and another coordinator that goes on when this one ends. Each can be missing for long
//! without anybody's noticing, until the next one is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use penstock_proto::v1::Fault;
use tokio::time::Instant;

/// How long a server may be behind or away before it is said: each is while it starts, or while they agree who leads.
const AWAY_MAX: Duration = Duration::from_secs(10);
/// How long nobody may stand by: a coordinator that is started again takes less.
const ALONE_MAX: Duration = Duration::from_secs(60);

/// What was heard of them so far.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Since when this coordinator has acted.
    since: Instant,
    /// When another one last said that it stands by.
    standby: Option<Instant>,
    /// Servers that do not have all of the log, and since when; of how many servers.
    away: BTreeMap<String, Instant>,
    servers: usize,
}

impl Cluster {
    /// Nothing was heard yet, `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            standby: None,
            away: BTreeMap::new(),
            servers: 1,
        }
    }

    /// Another coordinator stands by.
    pub(crate) fn stands_by(&mut self, now: Instant) {
        self.standby = Some(now);
    }

    /// Whether one said within this time that it stands by.
    pub(crate) fn is_relieved(&self, within: Duration, now: Instant) -> bool {
        self.standby
            .is_some_and(|at| now.saturating_duration_since(at) < within)
    }

    /// Which of so many servers do not have all of the log.
    pub(crate) fn servers(&mut self, servers: usize, away: &[String], now: Instant) {
        self.servers = servers;
        self.away.retain(|name, _| away.contains(name));
        for name in away {
            self.away.entry(name.clone()).or_insert(now);
        }
    }

    /// What a person should know. `long`: why the log is not made shorter.
    pub(crate) fn faults(&self, long: Option<&str>, now: Instant) -> Vec<Fault> {
        let mut faults = Vec::new();
        let alone = now.saturating_duration_since(self.standby.unwrap_or(self.since));
        if alone > ALONE_MAX {
            faults.push(Fault::new(
                "standby-none",
                "no other coordinator stands by: when this one ends, nobody goes on until it is started again".to_owned(),
            ));
        }
        let away: Vec<_> = self
            .away
            .iter()
            .filter(|(_, since)| now.saturating_duration_since(**since) > AWAY_MAX)
            .map(|(name, _)| name.as_str())
            .collect();
        if !away.is_empty() {
            faults.push(Fault::new(
                "store-servers",
                format!(
                    "{} of the {} servers that replicate the store {} all of its log: {}; once most of them are lost nothing can be written",
                    away.len(),
                    self.servers,
                    if away.len() == 1 { "does not have" } else { "do not have" },
                    away.join(", ")
                ),
            ));
        }
        faults.extend(long.map(|why| {
            Fault::new(
                "store-log",
                format!(
                    "the log of the replicated store cannot be made shorter, and grows on the servers until their disks are full: {why}; it is tried again within an hour"
                ),
            )
        }));
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(cluster: &Cluster, now: Instant) -> Vec<String> {
        cluster
            .faults(None, now)
            .into_iter()
            .map(|fault| fault.code)
            .collect()
    }

    #[test]
    fn who_acts_alone_for_a_minute_says_so_until_another_one_stands_by() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut cluster = Cluster::new(start);
        assert_eq!(codes(&cluster, at(60)), [""; 0]);
        assert_eq!(codes(&cluster, at(61)), ["standby-none"]);
        cluster.stands_by(at(70));
        assert_eq!(codes(&cluster, at(130)), [""; 0]);
        assert!(cluster.is_relieved(Duration::from_secs(10), at(79)));
        assert!(!cluster.is_relieved(Duration::from_secs(10), at(80)));
        assert_eq!(codes(&cluster, at(131)), ["standby-none"]);
    }

    #[test]
    fn a_server_that_stays_away_is_named_and_one_that_comes_back_in_time_is_not() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut cluster = Cluster::new(start);
        let away = ["nats-2".to_owned(), "nats-3".to_owned()];
        cluster.servers(3, &away, at(1));
        assert_eq!(codes(&cluster, at(11)), [""; 0]);
        cluster.servers(3, &away[1..], at(11));
        let faults = cluster.faults(Some("no room"), at(12));
        assert!(
            faults.len() == 2
                && (faults[1].code.as_str(), faults[1].message.contains(": no room;")) == ("store-log", true)
                && faults[0].code == "store-servers"
                && faults[0]
                    .message
                    .starts_with("1 of the 3 servers that replicate the store does not have")
                && faults[0].message.contains(": nats-3;"),
            "{faults:?}"
        );
        // Away again: from then on.
        cluster.servers(3, &[], at(13));
        cluster.servers(3, &away, at(14));
        assert_eq!(codes(&cluster, at(24)), [""; 0]);
        assert_eq!(codes(&cluster, at(25)), ["store-servers"]);
    }
}
