//! What a search asks for, checked; and whether an event is it.

use std::borrow::Cow;

use penstock_proto::event::EventKind;
use penstock_proto::v1::{AuditClock, AuditEvent, SearchAuditRequest};

use super::names::{Names, normal};
use crate::store::Clock;
use crate::summary::decision;

/// Events that a search gives if it does not say how many.
pub const LIMIT_DEFAULT: u32 = 100;
/// Most events of one answer; a search goes on behind its last one.
pub const LIMIT_MAX: u32 = 100_000;
/// Longest text to search for, bytes.
const TEXT_BYTES_MAX: usize = 256;
/// Names of one kind in one search.
const NAMES_MAX: usize = 64;

/// A search that was checked.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub(super) source: Option<String>,
    pub(super) from_ms: u64,
    pub(super) until_ms: u64,
    pub(super) clock: Clock,
    pub(super) kinds: u32,
    pub(super) severity_min: i32,
    pub(super) decision: i32,
    /// Only what was refused, or would have been.
    pub(super) refused: bool,
    /// Lower case; empty: any.
    pub(super) text: String,
    pub(super) limit: u32,
    pub(super) newest_first: bool,
    pub(super) sites: Vec<String>,
    pub(super) zones: Vec<String>,
    pub(super) conduits: Vec<String>,
    /// Addresses as [`normal`] writes them.
    pub(super) assets: Vec<String>,
    /// Lower case.
    pub(super) operations: Vec<String>,
    pub(super) values: Option<(u32, u32)>,
    pub(super) operators: Vec<String>,
    /// As it came; read when the search begins.
    pub(super) after: String,
    /// What the search is about, whatever its times, its limit and where it begins.
    pub(super) subject: SearchAuditRequest,
}

impl Filter {
    /// Whether it is of one of the kinds that are asked for. Seals are for verifiers, and shown to whoever asks for them.
    fn is_kind(&self, source: &str, event: &AuditEvent) -> bool {
        match self.kinds {
            0 => EventKind::of(event) != Some(EventKind::Seal),
            kinds => rightful(source, event).is_some_and(|kind| kinds & kind.bit() != 0),
        }
    }

    /// All events of these kinds.
    pub(crate) fn of_kinds(kinds: &[&str]) -> Self {
        let known = kinds.iter().filter_map(|kind| EventKind::of_word(kind));
        Self {
            kinds: known.fold(0, |kinds, kind| kinds | kind.bit()),
            ..Self::default()
        }
    }
}

/// A search that makes no sense: the field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the search cannot be done: {field} {what}")]
pub struct FilterError {
    /// Which field.
    pub field: &'static str,
    /// What is wrong.
    pub what: String,
}

fn fault(field: &'static str, what: impl Into<String>) -> FilterError {
    let what = what.into();
    FilterError { field, what }
}

impl TryFrom<SearchAuditRequest> for Filter {
    type Error = FilterError;
    fn try_from(request: SearchAuditRequest) -> Result<Self, FilterError> {
        let mut kinds = 0;
        for kind in &request.kinds {
            let known = EventKind::of_word(kind).ok_or_else(|| {
                let known: Vec<_> = EventKind::ALL.iter().map(|kind| kind.word()).collect();
                fault("kinds", format!("has `{kind}`; known are {}", known.join(", ")))
            })?;
            kinds |= known.bit();
        }
        if request.limit > LIMIT_MAX {
            return Err(fault(
                "limit",
                format!("is {}, at most {LIMIT_MAX}", request.limit),
            ));
        }
        if request.until_ms != 0 && request.until_ms < request.from_ms {
            return Err(fault("until_ms", "lies before from_ms"));
        }
        if request.text.len() > TEXT_BYTES_MAX {
            return Err(fault("text", format!("is longer than {TEXT_BYTES_MAX} bytes")));
        }
        if !(0..=3).contains(&request.decision) {
            return Err(fault("decision", "is unknown"));
        }
        if !(0..=4).contains(&request.severity_min) {
            return Err(fault("severity_min", "is unknown"));
        }
        let values = request.values.map(|values| (values.first, values.last));
        if values.is_some_and(|(first, last)| last < first) {
            return Err(fault("values", "ends before it begins"));
        }
        for (field, names) in [
            ("sites", &request.sites),
            ("zones", &request.zones),
            ("conduits", &request.conduits),
            ("assets", &request.assets),
            ("operations", &request.operations),
            ("operators", &request.operators),
        ] {
            if names.len() > NAMES_MAX {
                return Err(fault(field, format!("has {}, at most {NAMES_MAX}", names.len())));
            }
            if names
                .iter()
                .any(|name| name.trim().is_empty() || name.len() > TEXT_BYTES_MAX)
            {
                return Err(fault(
                    field,
                    format!("has one that is empty or longer than {TEXT_BYTES_MAX} bytes"),
                ));
            }
        }
        let clock = match AuditClock::try_from(request.clock) {
            Ok(AuditClock::Source) => Clock::Source,
            Ok(AuditClock::Received) => Clock::Received,
            Ok(AuditClock::Either) => Clock::Either,
            Err(_) => return Err(fault("clock", "is unknown")),
        };
        let subject = SearchAuditRequest {
            from_ms: 0,
            until_ms: 0,
            limit: 0,
            after: String::new(),
            ..request.clone()
        };
        let lower = |words: Vec<String>| words.iter().map(|word| word.to_lowercase()).collect();
        Ok(Self {
            clock,
            source: (!request.source.is_empty()).then_some(request.source),
            from_ms: request.from_ms,
            until_ms: request.until_ms,
            kinds,
            severity_min: request.severity_min,
            decision: request.decision,
            refused: false,
            text: request.text.to_lowercase(),
            limit: if request.limit == 0 {
                LIMIT_DEFAULT
            } else {
                request.limit
            },
            newest_first: request.newest_first,
            sites: request.sites,
            zones: request.zones,
            conduits: request.conduits,
            assets: request
                .assets
                .iter()
                .map(|asset| normal(asset).into_owned())
                .collect(),
            operations: lower(request.operations),
            values,
            operators: request.operators,
            after: request.after,
            subject,
        })
    }
}

/// The kind of `event`, if its source may write such; an older coordinator took others, too.
pub(super) fn rightful(source: &str, event: &AuditEvent) -> Option<EventKind> {
    EventKind::of(event).filter(|kind| kind.may_be_written_by(source))
}

/// The conduit of a flow, which names it before its stroke.
pub(super) fn conduit_of(flow: &str) -> &str {
    flow.split_once('/').map_or(flow, |(conduit, _)| conduit)
}

/// The conduits that an event is about: those of its flows; where it names none, those between the zones of its two ends.
pub(super) fn conduits<'e>(event: &'e AuditEvent, names: &'e Names) -> Vec<&'e str> {
    let flows = event.described().map(|event| event.flows()).unwrap_or_default();
    if flows.is_empty() {
        return names.conduits_between(event);
    }
    flows.into_iter().map(conduit_of).collect()
}

/// Whether one of `wanted` is there; of nothing that is wanted, anything is.
fn any<'n>(wanted: &[String], there: impl FnOnce() -> Vec<Cow<'n, str>>) -> bool {
    if wanted.is_empty() {
        return true;
    }
    let there = there();
    wanted
        .iter()
        .any(|wanted| there.iter().any(|there| there == wanted))
}

fn borrowed(texts: Vec<&str>) -> Vec<Cow<'_, str>> {
    texts.into_iter().map(Cow::Borrowed).collect()
}

impl Filter {
    /// The same, of what was refused or would have been.
    #[must_use]
    pub fn of_refusals(self) -> Self {
        Self {
            refused: true,
            ..self
        }
    }

    /// Whether an event of `source` that was received then is asked for, as far as that needs no names.
    pub(super) fn matches(&self, source: &str, received_ms: u64, event: &AuditEvent) -> bool {
        let within = |ms: u64| ms >= self.from_ms && (self.until_ms == 0 || ms <= self.until_ms);
        let in_time = match self.clock {
            Clock::Source => within(event.time_ms),
            Clock::Received => within(received_ms),
            Clock::Either => within(event.time_ms) || within(received_ms),
        };
        in_time
            && self.source.as_deref().is_none_or(|wanted| wanted == source)
            && self.is_kind(source, event)
            // Whoever asks for none gets also what no source should write.
            && (self.severity_min == 0 || event.severity >= self.severity_min)
            && self.decides(decision(event))
            && self.says(event)
    }

    fn decides(&self, decision: i32) -> bool {
        match self.decision {
            0 => !self.refused || decision >= 2,
            wanted => decision == wanted,
        }
    }

    /// Whether the operation, its values and who did it are those asked for.
    fn says(&self, event: &AuditEvent) -> bool {
        if self.operations.is_empty() && self.values.is_none() && self.operators.is_empty() {
            return true;
        }
        let Some(event) = event.described() else {
            return false;
        };
        let operation = || {
            let said = event.operation().unwrap_or_default().to_lowercase();
            let begins = |wanted: &String| {
                said.strip_prefix(wanted.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            };
            self.operations.iter().any(begins)
        };
        let value = |(first, last): (u32, u32)| {
            event
                .values()
                .is_some_and(|values| values.first <= last && values.last >= first)
        };
        (self.operations.is_empty() || operation())
            && self.values.is_none_or(value)
            && any(&self.operators, || {
                borrowed(event.operator().into_iter().collect())
            })
    }

    /// Whether the event is asked for by names, those of the release in force then, and by its text.
    pub(super) fn reads(&self, source: &str, event: &AuditEvent, names: &Names) -> bool {
        any(&self.sites, || borrowed(names.site(source).into_iter().collect()))
            && any(&self.zones, || borrowed(names.zones(event)))
            && any(&self.conduits, || borrowed(conduits(event, names)))
            && any(&self.assets, || names.assets(event))
            && self.reads_text(event, names)
    }

    /// Whether the text that is asked for stands in the event or in the names of its addresses.
    fn reads_text(&self, event: &AuditEvent, names: &Names) -> bool {
        if self.text.is_empty() {
            return true;
        }
        let own = event.described().map(|event| event.texts()).unwrap_or_default();
        let mut all = own.into_iter().chain(names.texts(event));
        all.any(|text| text.to_lowercase().contains(&self.text))
    }
}
