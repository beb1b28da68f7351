//! A rollout plan as a file: YAML, read as strictly as a plant document, and judged with the lines that it was written on.
//!
//! On the wire and in a store a plan is JSON ([`RolloutPlan`]); this is how people write it. Read as the plant document is: no
//! anchors, no tags, no second spelling of a number, unknown keys refused with the nearest that exists, and all faults at once. How
//! a default plan is written is [`written`](super::written)'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::fleet::Fleet;
use super::judge::{Problem, own_problems, problems};
use super::plan::{Converge, GateLimits, RolloutPlan, Selector, Span, Wave};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::{Place, Sources};
use crate::diagnostics::{Diagnostics, SourceFile};
use crate::document::limits::DOCUMENT_BYTES_MAX;
use crate::document::names::LabelKey;
use crate::document::node::{Entry, Kind, Node, excerpt};
use crate::document::parse::parse;
use crate::document::read::{At, Field, List, Table, Term, read_at, record, scalar, wrong_shape};
use crate::document::scalars::{Number, Text};
use crate::document::suggest;
use crate::document::times::Moment;
use crate::ids::{GatewayId, SiteId};

/// Most gateways that one cell may have in flight, and that may come at once: more than any plant has.
const COUNT_MAX: u32 = 1_000_000;
/// How the choice of a wave's gateways is written.
const CHOICES: [&str; 5] = ["all", "labels", "site", "percent", "list"];

record! {
    /// How a release is carried to its gateways (`penstock-rollout/1`).
    WrittenPlan "a rollout plan" {
        /// `penstock-rollout/1`.
        required format: Text,
        /// A whole number with which percentages are drawn, so that anybody can draw them again.
        required seed: Seed,
        /// Not before this moment, RFC 3339 with its offset; default: as soon as it is started.
        optional start: Moment,
        /// How long the release is judged on live traffic before the first gateway enforces it, such as `1h`.
        required shadow: Span,
        /// How long a gateway enforces it unconfirmed before it goes back by itself, such as `10m`.
        required trial: Span,
        /// How long a gateway may be out of reach before it counts as absent, or as failed if it had activated, such as `5m`.
        required silence: Span,
        /// How long a wave waits for a gateway that is held before it goes on without it, such as `8d`.
        required patience: Span,
        /// When failures stop the rollout.
        required gate: WrittenGate,
        /// How those come after that a wave went on without.
        required converge: WrittenConverge,
        /// Who activates together, in their order.
        required waves: Waves,
    }
}

record! {
    /// When failures stop the rollout. Hard events always do, at the first.
    WrittenGate "a gate" {
        /// Halted when the one-sided 95 % lower bound of the rate of failures exceeds this, such as `0.02`.
        required soft_rate: Rate,
    }
}

record! {
    /// How those come after that a wave went on without.
    WrittenConverge "how absent gateways come after" {
        /// Most of them that are activated and not confirmed at the same time.
        required at_once: Number<0, COUNT_MAX>,
    }
}

record! {
    /// Gateways that may activate together.
    WrittenWave "a wave" {
        /// Its name, unique in the plan.
        required name: Text,
        /// Who: `all`, or one of `{ labels: … }`, `{ site: … }`, `{ percent: … }`, `{ list: […] }`.
        required gateways: Selector,
        /// Most gateways of one cell that are activated and not confirmed at the same time.
        required per_cell: Number<0, COUNT_MAX>,
        /// How long to look on after the last one confirmed, before the next wave, such as `1h`.
        required soak: Span,
    }
}

/// What percentages are drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seed(u64);

impl Term for Seed {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "a whole number", faults)?;
        let is_plain =
            text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
        let number = text.parse().ok().filter(|_| is_plain).map(Self);
        if number.is_none() {
            faults.add(
                Fault::new(
                    Code::NotANumber,
                    node.place,
                    format!("`{}` is not a whole number below 2^64", excerpt(text)),
                )
                .label("expected: a whole number")
                .help("write it in plain decimal digits"),
            );
        }
        number
    }

    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 0 })
    }
}

/// A part of one: `0.02`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate(f64);

impl Term for Rate {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "a rate such as 0.02", faults)?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = match text.split_once('.') {
            Some((whole, part)) => digits(whole) && digits(part),
            None => digits(text),
        };
        let rate = text.parse().ok().filter(|_| is_plain).map(Self);
        if rate.is_none() {
            faults.add(
                Fault::new(
                    Code::NotANumber,
                    node.place,
                    format!("`{}` is not a rate", excerpt(text)),
                )
                .label("expected: a rate such as 0.02")
                .help("write it in plain decimal digits: `0.02` is 2 %"),
            );
        }
        rate
    }

    fn schema() -> Value {
        json!({ "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 })
    }
}

impl Term for Selector {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        const EXPECTED: &str = "`all`, or one of labels, site, percent and list";
        match &node.kind {
            Kind::Scalar { text, .. } if text == "all" => Some(Self::All),
            Kind::Mapping(entries) => match entries.as_slice() {
                [one] => choice(one, faults),
                _ => {
                    faults.add(
                        Fault::new(
                            Code::WrongShape,
                            node.place,
                            "a wave chooses its gateways in one way",
                        )
                        .label(format!("expected: {EXPECTED}"))
                        .help("write one of the keys, and a wave of its own for each other"),
                    );
                    None
                }
            },
            Kind::Scalar { text, .. } if !node.is_null() => {
                faults.add(
                    Fault::new(
                        Code::NotOneOf,
                        node.place,
                        format!("`{}` chooses no gateways", excerpt(text)),
                    )
                    .label(format!("expected: {EXPECTED}"))
                    .help(format!(
                        "`all`, or for one gateway `{{ list: [{}] }}`",
                        excerpt(text)
                    )),
                );
                None
            }
            _ => {
                wrong_shape(node, EXPECTED, faults);
                None
            }
        }
    }

    fn schema() -> Value {
        let one = |key: &str, schema: Value| json!({ "type": "object", "additionalProperties": false, "required": [key], "properties": { key: schema } });
        json!({ "anyOf": [
            { "const": "all" },
            one("labels", Table::<LabelKey, Text>::schema()),
            one("site", SiteId::schema()),
            one("percent", Number::<0, 100>::schema()),
            one("list", List::<GatewayId>::schema()),
        ] })
    }
}

fn choice(entry: &Entry, faults: &mut Faults) -> Option<Selector> {
    match entry.key.as_str() {
        "labels" => {
            let labels = Table::<LabelKey, Text>::read(&entry.value, faults)?;
            let known = labels
                .readable()
                .map(|(key, _, value)| (key.0.clone(), value.0.clone()));
            let read: BTreeMap<String, String> = known.collect();
            // One that could not be read must not choose more gateways by being left out.
            (read.len() == labels.0.len()).then_some(Selector::Labels(read))
        }
        "site" => SiteId::read(&entry.value, faults).map(|site| Selector::Site(site.to_string())),
        "percent" => {
            Number::<0, 1_000>::read(&entry.value, faults).map(|percent| Selector::Percent(percent.0))
        }
        "list" => {
            let before = faults.errors();
            let list = List::<GatewayId>::read(&entry.value, faults)?;
            let names = list.0.into_iter().map(|item| item.value).collect();
            (faults.errors() == before).then_some(Selector::List(names))
        }
        other => {
            faults.add(
                Fault::new(
                    Code::UnknownKey,
                    entry.key_place,
                    format!("`{}` is not a way to choose gateways", excerpt(other)),
                )
                .label("unknown key")
                .help(suggest::help(other, CHOICES.into_iter())),
            );
            None
        }
    }
}

/// The waves, in their order; two of the same name are the judge's matter.
#[derive(Debug, Clone)]
pub(crate) struct Waves(Vec<At<WrittenWave>>);

impl Term for Waves {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let Kind::List(nodes) = &node.kind else {
            wrong_shape(node, "a list of waves", faults);
            return None;
        };
        Some(Self(
            nodes.iter().filter_map(|node| read_at(node, faults)).collect(),
        ))
    }

    fn schema() -> Value {
        json!({ "type": "array", "minItems": 1, "items": WrittenWave::schema() })
    }
}

/// Where the values of a plan stand.
#[derive(Debug, Clone, Default)]
struct Places {
    keys: BTreeMap<&'static str, Place>,
    waves: Vec<BTreeMap<&'static str, Place>>,
}

impl Places {
    /// Where a problem is to be shown: at its key, else at its wave, else at the list of waves.
    fn of(&self, problem: &Problem) -> Option<Place> {
        let Some(wave) = problem.wave else {
            return self.keys.get(problem.at.as_str()).copied();
        };
        let places = self.waves.get(usize::from(wave));
        let key = ["gateways", "per_cell", "soak"]
            .into_iter()
            .find(|key| problem.at.ends_with(&format!(".{key}")))
            .unwrap_or("name");
        places
            .and_then(|places| places.get(key))
            .or_else(|| self.keys.get("waves"))
            .copied()
    }
}

/// A plan that was read from text, with the places of its values.
#[derive(Debug)]
pub struct ReadPlan {
    plan: Option<RolloutPlan>,
    places: Places,
    sources: Arc<Sources>,
    faults: Faults,
}

impl ReadPlan {
    /// Reads a plan. What is wrong with it comes with [`ReadPlan::judged`], all at once.
    ///
    /// ```
    /// use penstock_policy::diagnostics::SourceFile;
    /// use penstock_policy::rollout::ReadPlan;
    ///
    /// let file = SourceFile::new("plan.yaml", "format: penstock-rollout/1\nwavs: []\n");
    /// let (plan, diagnostics) = ReadPlan::of(&file).judged(None);
    /// assert!(plan.is_none());
    /// let help: Vec<_> = diagnostics.iter().filter_map(|one| one.help.clone()).collect();
    /// assert!(help.contains(&"did you mean `waves`?".to_owned()), "{help:?}");
    /// ```
    pub fn of(file: &SourceFile) -> Self {
        let sources = Arc::new(Sources::new(std::slice::from_ref(file)));
        let mut faults = Faults::default();
        let read = read(&sources, &mut faults);
        let (plan, places) = match read {
            Some((plan, places)) => (Some(plan), places),
            None => (None, Places::default()),
        };
        Self {
            plan: plan.filter(|_| faults.errors() == 0),
            places,
            sources,
            faults,
        }
    }

    /// What was read, before it is judged.
    #[cfg(test)]
    pub(super) fn as_read(&self) -> Option<&RolloutPlan> {
        self.plan.as_ref()
    }

    /// The plan if there is no error, and all that is wrong or doubtful: for these gateways, or whatever gateways it is for.
    pub fn judged(self, fleet: Option<&Fleet>) -> (Option<RolloutPlan>, Diagnostics) {
        let Self {
            plan,
            places,
            sources,
            mut faults,
        } = self;
        if let Some(plan) = &plan {
            let found = fleet.map_or_else(|| own_problems(plan), |fleet| problems(plan, fleet));
            for problem in found {
                let code = match problem.is_error {
                    true => Code::RolloutPlanUnfit,
                    false => Code::RolloutPlanDoubtful,
                };
                let place = places.of(&problem);
                faults.add(Fault::new(
                    code,
                    place,
                    format!("`{}`: {}", problem.at, problem.words),
                ));
            }
        }
        let plan = plan.filter(|_| faults.errors() == 0);
        (plan, faults.finish(sources))
    }
}

fn read(sources: &Sources, faults: &mut Faults) -> Option<(RolloutPlan, Places)> {
    let file = sources.files.first()?;
    if file.text.len() > DOCUMENT_BYTES_MAX {
        let message = format!(
            "the plan has {} bytes, at most {DOCUMENT_BYTES_MAX} are read",
            file.text.len()
        );
        faults.add(
            Fault::new(Code::TooLarge, None, message).help("choose gateways by label, site or percentage"),
        );
        return None;
    }
    if let Some(secret) = &file.secret {
        let place = Place::new(0, secret.at, secret.at);
        let message = format!("{} stands here, and no rollout plan holds one", secret.what);
        faults.add(
            Fault::new(Code::SecretInText, place, message)
                .help("name another file; nothing of this one was read or shown"),
        );
        return None;
    }
    let mut nodes = 0;
    let before = faults.errors();
    let Some(root) = parse(0, &file.text, &mut nodes, faults) else {
        if faults.errors() == before {
            faults.add(
                Fault::new(
                    Code::EmptyDocument,
                    None,
                    "there is no rollout plan in what was read",
                )
                .help("`penstock rollout plan` writes one"),
            );
        }
        return None;
    };
    let written = WrittenPlan::read(&root, faults)?;
    let mut places = Places::default();
    let plan = plan(written, &mut places)?;
    Some((plan, places))
}

/// The value of a field, whose place is noted under its key.
fn noted<T: Clone>(
    field: &Field<T>,
    key: &'static str,
    places: &mut BTreeMap<&'static str, Place>,
) -> Option<T> {
    let at = field.get()?;
    places.insert(key, at.place);
    Some(at.value.clone())
}

fn plan(written: WrittenPlan, places: &mut Places) -> Option<RolloutPlan> {
    let keys = &mut places.keys;
    let gate = noted(&written.gate, "gate", keys)?;
    let converge = noted(&written.converge, "converge", keys)?;
    let waves = noted(&written.waves, "waves", keys)?;
    let start = noted(&written.start, "start", keys);
    let mut plan = RolloutPlan {
        format: noted(&written.format, "format", keys)?.0,
        seed: noted(&written.seed, "seed", keys)?.0,
        start_ms: start.map(|moment| moment.ms()),
        shadow: noted(&written.shadow, "shadow", keys)?,
        trial: noted(&written.trial, "trial", keys)?,
        silence: noted(&written.silence, "silence", keys)?,
        patience: noted(&written.patience, "patience", keys)?,
        gate: GateLimits {
            soft_rate: noted(&gate.soft_rate, "gate.soft_rate", keys)?.0,
        },
        converge: Converge {
            at_once: noted(&converge.at_once, "converge.at_once", keys)?.0,
        },
        waves: Vec::new(),
    };
    for written in waves.0 {
        let mut own = BTreeMap::new();
        own.insert("name", written.place);
        let wave = written.value;
        plan.waves.push(Wave {
            name: noted(&wave.name, "name", &mut own)?.0,
            gateways: noted(&wave.gateways, "gateways", &mut own)?,
            per_cell: noted(&wave.per_cell, "per_cell", &mut own)?.0,
            soak: noted(&wave.soak, "soak", &mut own)?,
        });
        places.waves.push(own);
    }
    Some(plan)
}
