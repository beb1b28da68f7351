//! A toy: lines of text that ask a box with numbered points and named programs. It stands in for any protocol to come.

use super::Protocol;
use super::vocabulary::{
    Aspect, Carried, Carrier, Effect, Kind, Limit, Member, Operation, Phrase, Placeholder, Refusals, Session,
    Spelling, Takes, Vocabulary,
};
use crate::terms::OnRefusal;

/// The toy.
pub const TOY: Protocol = Protocol(&VOCABULARY);

pub(super) static VOCABULARY: Vocabulary = Vocabulary {
    word: "toy-lines",
    name: "Toy",
    services: &[Carried::plain("toy-lines", Carrier::Tcp, 7070, "a toy of lines")],
    limits: &[&POINTS, &VALUES, &PROGRAMS],
    operations: &OPERATIONS,
    groups: &[],
    numbered: None,
    members: |name| {
        let known = (0..).zip(&OPERATIONS);
        let own = known.filter(|(_, operation)| operation.name == name);
        own.map(|(code, operation)| Member {
            code,
            aspects: operation.limits.iter().map(|takes| takes.bounds).collect(),
            fixed: None,
        })
        .collect()
    },
    spelling: Spelling::Key,
    session: None::<Session>,
    refusals: Refusals {
        words: &[
            OnRefusal::Answer,
            OnRefusal::Disconnect,
            OnRefusal::Reset,
            OnRefusal::Drop,
        ],
        otherwise: "a refused line cannot be acknowledged as though it had been done",
        help: "write `answer`: the client gets the line `ERR refused`",
    },
    matches_answers: false,
    has_roles: false,
    example: "`allow: [{ get: { points: 0-9 } }]`",
    placeholder: Placeholder {
        entry: "get: { points: 0 }",
        replace: "line: put what it is for in place of that point",
    },
};

static POINTS: Limit = Limit {
    name: "points",
    kind: Kind::Numbers {
        last: 999,
        hint: |_| None,
        doubt: |_, _| None,
    },
    help: "Points, 0–999, or `any`.",
    phrase: Phrase::bracketed("points "),
};
static VALUES: Limit = Limit {
    name: "values",
    kind: Kind::Numbers {
        last: 100,
        hint: |_| None,
        doubt: |_, _| None,
    },
    help: "Values that may be set, 0–100, or `any`.",
    phrase: Phrase::bracketed("values "),
};
static PROGRAMS: Limit = Limit {
    name: "programs",
    kind: Kind::Texts,
    help: "Programs, one or a list.",
    phrase: Phrase::behind("", " or "),
};

static READ: Aspect = aspect("read", "points", &[&POINTS], "read");
static SET: Aspect = aspect("set", "points", &[&POINTS], "set");
static VALUE: Aspect = aspect("value", "values", &[&VALUES], "set");
static LOADED: Aspect = aspect("program", "programs", &[&PROGRAMS], "loaded");

const fn aspect(
    id: &'static str,
    name: &'static str,
    by: &'static [&'static Limit],
    done: &'static str,
) -> Aspect {
    Aspect {
        id,
        by,
        name,
        nouns: ["", ""],
        done,
        after: "",
        spans: false,
    }
}

static OPERATIONS: [Operation; 3] = [
    Operation {
        name: "get",
        effect: Effect::Read,
        limits: &[Takes::required(&POINTS, &READ, "write `points: 0-9`")],
        help: "Reads a point.",
    },
    Operation {
        name: "set",
        effect: Effect::Write,
        limits: &[
            Takes::required(&POINTS, &SET, "write `points: 0-9`"),
            Takes::optional(&VALUES, &VALUE),
        ],
        help: "Sets a point.",
    },
    Operation {
        name: "load",
        effect: Effect::Program,
        limits: &[Takes::optional(&PROGRAMS, &LOADED)],
        help: "Loads a program.",
    },
];
