//! How exports of the trail stand, as they say it themselves, for health and metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_proto::tls::times::instant;
use penstock_proto::v1::Fault;
use tokio::sync::watch;

/// For how long health shows what an export did not bring.
const SHOWN_MS: u64 = 7 * 86_400_000;

/// One export.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Standing {
    /// Since when it waits, and why.
    waits: Option<(u64, String)>,
    /// What it did not bring the last time, and when that was found.
    short: Option<(u64, String)>,
}

/// All exports.
#[derive(Debug, Clone)]
pub(crate) struct Standings(Arc<watch::Sender<BTreeMap<String, Standing>>>);

impl Default for Standings {
    fn default() -> Self {
        Self(Arc::new(watch::channel(BTreeMap::new()).0))
    }
}

impl Standings {
    /// An export sends nothing at the moment.
    pub(crate) fn waits(&self, name: &str, now_ms: u64, why: String) {
        metrics::gauge!("penstock_export_waiting", "export" => name.to_owned()).set(1.0);
        self.change(name, |standing| {
            let since_ms = standing.waits.as_ref().map_or(now_ms, |(since_ms, _)| *since_ms);
            standing.waits = Some((since_ms, why));
        });
    }

    /// What it sent arrived.
    pub(crate) fn goes_on(&self, name: &str) {
        metrics::gauge!("penstock_export_waiting", "export" => name.to_owned()).set(0.0);
        self.change(name, |standing| standing.waits = None);
    }

    /// It does not bring something, for good.
    pub(crate) fn is_short(&self, name: &str, now_ms: u64, what: String) {
        self.change(name, |standing| standing.short = Some((now_ms, what)));
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Standing)) {
        self.0.send_if_modified(|all| {
            let held = all.entry(name.to_owned()).or_default();
            let before = held.clone();
            change(held);
            *held != before
        });
    }

    /// Learns of each change.
    pub(crate) fn watch(&self) -> ExportFaults {
        ExportFaults(self.0.subscribe())
    }
}

/// What a person should know of exports.
#[derive(Debug)]
pub(crate) struct ExportFaults(watch::Receiver<BTreeMap<String, Standing>>);

impl ExportFaults {
    /// By now.
    pub(crate) fn now(&mut self, now_ms: u64) -> Vec<Fault> {
        faults(&self.0.borrow_and_update(), now_ms)
    }

    /// Waits until there is something else to know; for ever, once there are no exports any more.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn faults(all: &BTreeMap<String, Standing>, now_ms: u64) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (name, standing) in all {
        if let Some((since_ms, why)) = &standing.waits {
            faults.push(Fault::new(
                "export-waits",
                format!(
                    "export {name} waits since {}: {why}; the trail stays stored here, and the export goes on where it stopped",
                    instant(*since_ms)
                ),
            ));
        }
        if let Some((at_ms, what)) = &standing.short
            && now_ms.saturating_sub(*at_ms) <= SHOWN_MS
        {
            faults.push(Fault::new(
                "export-short",
                format!("export {name} is incomplete: {what} ({})", instant(*at_ms)),
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn health_says_since_when_and_why_an_export_waits_and_for_a_week_what_it_did_not_bring() {
        let standings = Standings::default();
        let mut faults = standings.watch();
        assert_eq!(faults.now(0), []);
        standings.waits("siem", 1000, "connection refused".to_owned());
        standings.waits("siem", 5000, "no answer".to_owned());
        let codes = |faults: Vec<Fault>| faults.into_iter().map(|fault| fault.code).collect::<Vec<_>>();
        let said = faults.now(6000);
        assert!(
            said[0]
                .message
                .starts_with("export siem waits since 1970-01-01T00:00:01Z: no answer;"),
            "{said:?}"
        );
        standings.is_short(
            "siem",
            7000,
            "12 blocks were removed before they were exported".to_owned(),
        );
        standings.goes_on("siem");
        assert_eq!(codes(faults.now(8000)), ["export-short"]);
        assert_eq!(faults.now(7000 + SHOWN_MS + 1), []);
    }
}
