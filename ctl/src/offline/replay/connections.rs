//! A connection on each gateway's way: what it carried, with the rule that decided, and what else was seen on it.

use std::collections::BTreeMap;

use penstock_inspect::capture::flows::Unopened;
use penstock_inspect::replay::FlowReport;
use penstock_policy::terms::NumberRange;
use schemars::JsonSchema;
use serde::Serialize;

use super::clock;
use crate::output::{Page, Tone};

/// One connection as one gateway would have treated it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Connection {
    /// Who opened it.
    pub client: String,
    /// To whom.
    pub server: String,
    /// First packet, RFC 3339.
    pub first: String,
    /// Nothing was ever said on it: `refused` by its server, `unanswered`, or `silent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unopened: Option<String>,
    /// Its opening is not in the capture.
    pub midway: bool,
    /// And nothing tells who opened it: that `client` did is a guess.
    pub guessed: bool,
    /// Payload bytes that the capture lacks.
    pub missing_bytes: u64,
    /// Payload bytes that the gateway would have judged, and that could not be judged here.
    pub unread_bytes: u64,
    /// Bytes that a retransmission brought with other content.
    pub conflicting_bytes: u64,
    /// The gateway, if one stands between.
    pub gateway: Option<String>,
    /// Whether the connection as such passes.
    pub allowed: bool,
    /// By which rule, or why not.
    pub because: String,
    /// No rule permits it, or none any more; it passes because the zones only observe.
    pub observed: bool,
    /// The gateway would have ended it: it carries what cannot be read as the protocol, or outlasts the grant of remote access
    /// that opened it.
    pub ended: bool,
    /// Whether a gateway stands between is not known: an end lies on no side of any.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stranger: bool,
    /// Its operations.
    pub operations: Vec<Operation>,
    /// What enforcing would have changed of it beside refusing operations.
    pub deviations: Vec<Deviation>,
    /// What else was seen on it, with how often.
    pub notes: Vec<Noted>,
}

/// An operation of a connection.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Operation {
    /// In the field's words.
    pub operation: String,
    /// Whether it passes.
    pub allowed: bool,
    /// By which rule, or why not.
    pub because: String,
    /// How often.
    pub count: u64,
    /// The values that it wrote: `65535`, `0-1, 40`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<String>,
}

/// Something that is no operation, and that enforcing would not have let pass.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Deviation {
    /// What.
    pub what: String,
    /// What would have become of it: `withheld`, or the connection `ended`.
    pub effect: String,
    /// What to write at the flow to let it pass, where that is possible.
    pub option: Option<String>,
    /// How often.
    pub count: u64,
}

/// Something that is no operation.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Noted {
    /// What.
    pub what: String,
    /// How often.
    pub count: u64,
}

/// One entry for each gateway on the way.
pub(super) fn connections(flow: &FlowReport) -> impl Iterator<Item = Connection> + '_ {
    flow.treatments.iter().map(|treatment| {
        let mut notes: Vec<Noted> = treatment
            .notes
            .iter()
            .map(|(what, seen)| Noted {
                what: what.clone(),
                count: seen.count,
            })
            .collect();
        if treatment.further_operations > 0 {
            notes.push(Noted {
                what: "further operations".to_owned(),
                count: treatment.further_operations,
            });
        }
        if let Some(because) = &treatment.over {
            notes.push(Noted {
                what: format!(
                    "it goes on past the grant of remote access that opened it, and nothing of that was judged: {because}"
                ),
                count: 1,
            });
        }
        Connection {
            client: flow.client.clone(),
            server: flow.server.clone(),
            first: clock(flow.seen.first),
            unopened: flow.unopened.map(|how| {
                match how {
                    Unopened::Refused => "refused",
                    Unopened::Unanswered => "unanswered",
                    Unopened::Silent => "silent",
                }
                .to_owned()
            }),
            midway: flow.midway,
            guessed: flow.guessed,
            missing_bytes: flow.missing_bytes,
            unread_bytes: treatment.unjudged_bytes,
            conflicting_bytes: flow.conflicting_bytes,
            gateway: treatment.gateway.clone(),
            allowed: treatment.connection.allowed,
            because: treatment.connection.because.clone(),
            observed: treatment.observed,
            ended: treatment.ended || (treatment.over.is_some() && !treatment.observed),
            stranger: treatment.stranger,
            operations: treatment
                .operations
                .iter()
                .map(|judged| Operation {
                    operation: judged.operation.clone(),
                    allowed: judged.answer.allowed,
                    because: judged.answer.because.clone(),
                    count: judged.seen.count,
                    values: values(&judged.values),
                })
                .collect(),
            deviations: treatment
                .deviations
                .iter()
                .map(|deviation| Deviation {
                    what: deviation.what.clone(),
                    effect: deviation.effect.word().to_owned(),
                    option: deviation.remedy.map(str::to_owned),
                    count: deviation.seen.count,
                })
                .collect(),
            notes,
        }
    })
}

fn values(ranges: &[NumberRange]) -> Option<String> {
    let ranges: Vec<String> = ranges.iter().map(NumberRange::to_string).collect();
    (!ranges.is_empty()).then(|| ranges.join(", "))
}

/// What stands before the ends: what becomes of what they say.
pub(super) fn mark(page: &Page, allowed: bool, crosses: bool, doubtful: bool) -> String {
    if !allowed {
        page.paint(Tone::Bad, "✗ refused:")
    } else if !crosses {
        page.paint(Tone::Dim, "·")
    } else if doubtful {
        page.paint(Tone::Warn, "▲")
    } else {
        page.paint(Tone::Good, "✓")
    }
}

/// Where: " at gw-1".
pub(super) fn at(gateway: Option<&str>) -> String {
    gateway.map_or(String::new(), |gateway| format!(" at {gateway}"))
}

impl Deviation {
    pub(super) fn in_words(&self) -> String {
        let times = match self.count {
            1 => String::new(),
            count => format!(" ({count} times)"),
        };
        let option = match &self.option {
            Some(option) => format!("; `{option}` at the flow lets it pass"),
            None => String::new(),
        };
        format!("{} by the gateway: {}{times}{option}", self.effect, self.what)
    }
}

impl Noted {
    pub(super) fn in_words(&self) -> String {
        match self.count {
            1 => self.what.clone(),
            count => format!("{} ({count} times)", self.what),
        }
    }
}

impl Connection {
    /// It would not have passed, or not as it was.
    pub(super) fn is_stopped(&self) -> bool {
        !self.allowed || self.ended || !self.deviations.is_empty()
    }

    /// An operation of it would have been refused.
    pub(super) fn refuses(&self) -> bool {
        self.operations.iter().any(|operation| !operation.allowed)
    }

    /// As people read it: with all of its operations, or only those that would have been refused.
    pub(super) fn page(&self, page: &mut Page, with_allowed: bool) {
        page.gap();
        let doubtful = self.observed || self.ended || self.stranger || self.unread_bytes > 0;
        let crosses = self.gateway.is_some() || self.stranger;
        let mark = mark(page, self.allowed, crosses, doubtful);
        let (client, server) = (
            page.paint(Tone::Name, &self.client),
            page.paint(Tone::Name, &self.server),
        );
        let at = at(self.gateway.as_deref());
        page.line(format!("{mark} {client} → {server}{at}, {}", self.first));
        page.paragraph(2, Tone::Dim, &self.because);
        for deviation in &self.deviations {
            page.paragraph(2, Tone::Bad, &format!("✗ {}", deviation.in_words()));
        }
        self.operations(page, with_allowed);
        self.remarks(page);
    }

    /// Operations by the rule that decided, what is refused first.
    fn operations(&self, page: &mut Page, with_allowed: bool) {
        let mut by_answer: BTreeMap<(bool, &str), Vec<&Operation>> = BTreeMap::new();
        let shown = |operation: &&Operation| with_allowed || !operation.allowed;
        for operation in self.operations.iter().filter(shown) {
            let because = self.shortened(&operation.because);
            by_answer
                .entry((operation.allowed, because))
                .or_default()
                .push(operation);
        }
        for ((allowed, because), operations) in by_answer {
            // What already stands above for the whole connection is not said again.
            if because != self.because {
                let (tone, words) = if allowed {
                    (Tone::Good, format!("✓ {because}"))
                } else {
                    (Tone::Bad, format!("✗ refused: {because}"))
                };
                page.paragraph(4, tone, &words);
            }
            for operation in operations {
                let what = page.paint(Tone::Plain, &operation.operation);
                let values = match &operation.values {
                    Some(values) => format!(" = {values}"),
                    None => String::new(),
                };
                page.line(format!("    {:>7} × {what}{values}", operation.count));
            }
        }
    }

    /// A reason without the flow's name where the connection has just named it.
    fn shortened<'a>(&self, because: &'a str) -> &'a str {
        because
            .split_once(": ")
            .filter(|(flow, _)| {
                self.because
                    .strip_prefix(flow)
                    .is_some_and(|rest| rest.starts_with(", each operation"))
            })
            .map_or(because, |(_, rest)| rest)
    }

    /// What else there is to know.
    fn remarks(&self, page: &mut Page) {
        let mut also: Vec<String> = self.notes.iter().map(Noted::in_words).collect();
        match self.unopened.as_deref() {
            Some("refused") => also.push("its server refused it by a reset".to_owned()),
            Some("unanswered") => also.push("it was not answered".to_owned()),
            Some(_) => also.push("nothing was said on it".to_owned()),
            None => {}
        }
        if self.guessed {
            also.push(
                "who opened it is a guess: its opening is not in the capture, and neither the plant nor its ports tell".to_owned(),
            );
        } else if self.midway {
            also.push("its opening is not in the capture".to_owned());
        }
        if self.missing_bytes > 0 {
            also.push(format!(
                "{} payload bytes are not in the capture",
                self.missing_bytes
            ));
        }
        if self.conflicting_bytes > 0 {
            also.push(format!(
                "{} bytes were sent twice with other content",
                self.conflicting_bytes
            ));
        }
        for note in also {
            page.paragraph(4, Tone::Warn, &format!("▲ {note}"));
        }
    }
}
