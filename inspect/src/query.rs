//! One operation as a person asks for it: "write-single-register 40 unit 1", "publish line4/a/temperature qos 1 retain".
//!
//! Events and refusals can be pasted as they are: "of unit 1", "at QoS 1, retained" read the same. What is asked is made into what
//! the protocol judges, so that it is judged by the very code that judges traffic. Which words there are, a protocol's folder
//! knows.

use std::fmt;

use crate::judge::{Rules, Verdict};
use crate::operation::{Operation, VALUES};
use crate::protocols;

/// An operation that is asked about.
#[derive(Debug)]
pub struct Query {
    operation: Operation<'static>,
    asked: Box<dyn Asked>,
    assumption: Option<&'static str>,
    doubt: Option<String>,
}

/// What is asked as its protocol judges it.
pub(crate) trait Asked: fmt::Debug {
    /// What `rules` say of it; `None` where they are of another protocol.
    fn judge(&self, rules: &Rules) -> Option<Verdict>;
}

/// Why nothing can be asked by some words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct QueryError {
    /// What is wrong with them.
    pub what: String,
    /// Why, where it is not said with that.
    pub because: Option<String>,
    /// What to write.
    pub help: String,
}

impl QueryError {
    pub(crate) fn new(what: String, help: &str) -> Self {
        Self {
            what,
            because: None,
            help: help.to_owned(),
        }
    }

    pub(crate) fn because(self, why: &impl fmt::Display) -> Self {
        Self {
            because: Some(why.to_string()),
            ..self
        }
    }
}

impl Query {
    pub(crate) fn new(operation: Operation<'static>, asked: impl Asked + 'static) -> Self {
        Self {
            operation,
            asked: Box::new(asked),
            assumption: None,
            doubt: None,
        }
    }

    /// The same; that was taken for granted, as it was not said.
    pub(crate) fn assuming(self, assumption: Option<&'static str>) -> Self {
        Self { assumption, ..self }
    }

    /// The same; of its numbers that is to be known.
    pub(crate) fn doubting(self, doubt: Option<String>) -> Self {
        Self { doubt, ..self }
    }

    /// Reads what a person typed, or an event says.
    ///
    /// # Errors
    /// No operation is named, or it cannot be asked so.
    pub fn read(text: &str) -> Result<Self, QueryError> {
        let words = words(text);
        let mut words = Words(&words);
        let Some(name) = words.next() else {
            let help = protocols::ALL.first().map_or("", |inspector| inspector.example());
            return Err(QueryError::new("no operation is named".to_owned(), help));
        };
        let mut readings = protocols::ALL
            .iter()
            .filter_map(|inspector| inspector.read(name, &mut words));
        readings.next().unwrap_or_else(|| Err(unknown(name)))
    }

    /// The operation.
    pub fn operation(&self) -> &Operation<'static> {
        &self.operation
    }

    /// What `rules` say of it; `None` where they are of another protocol.
    pub fn judge(&self, rules: &Rules) -> Option<Verdict> {
        self.asked.judge(rules)
    }

    /// What was taken for granted, as it was not said.
    pub fn assumption(&self) -> Option<&'static str> {
        self.assumption
    }

    /// What to know of its numbers, where they look like something else than they are taken for.
    pub fn doubt(&self) -> Option<&str> {
        self.doubt.as_deref()
    }

    /// As events say it, and on whom: "write-single-register 40 of unit 1 on plc-7", with the value that is written.
    pub fn said(&self, on: &str) -> String {
        let value = self.operation.numbers(VALUES);
        let value = value.map_or_else(String::new, |value| format!(" with value {value}"));
        format!("{} on {on}{value}", self.operation)
    }
}

/// The words behind an operation's name.
pub(crate) struct Words<'w>(&'w [String]);

impl<'w> Iterator for Words<'w> {
    type Item = &'w str;

    fn next(&mut self) -> Option<&'w str> {
        let (word, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(word)
    }
}

impl Words<'_> {
    /// The number that has to come next.
    pub(crate) fn number<T: std::str::FromStr>(&mut self, what: &str, help: &str) -> Result<T, QueryError> {
        let word = self.next();
        let number = word.and_then(|word| word.parse().ok());
        number.ok_or_else(|| QueryError::new(format!("`{}` is not {what}", word.unwrap_or("nothing")), help))
    }
}

/// The words of a text: at blanks, but not within double quotes; commas and the small words of events fall away.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, part) in text.replace('\u{2013}', "-").split('"').enumerate() {
        if number % 2 == 1 {
            words.push(part.to_owned());
            continue;
        }
        let small = |word: &&str| !matches!(*word, "" | "of" | "at" | "as" | "with" | "write");
        let plain = part
            .split_whitespace()
            .map(|word| word.trim_end_matches(',').trim_matches(['(', ')']))
            .filter(small);
        words.extend(plain.map(str::to_owned));
    }
    words
}

/// That no protocol has an operation of that name, and which there are.
fn unknown(name: &str) -> QueryError {
    let protocols: Vec<_> = protocols::ALL
        .iter()
        .map(|inspector| inspector.protocol())
        .collect();
    let titles: Vec<&str> = protocols.iter().map(|protocol| protocol.name).collect();
    let what = format!("`{name}` is not an operation of {}", titles.join(" or "));
    let mut groups = protocols.iter().flat_map(|protocol| protocol.groups);
    if groups.any(|group| group.name == name) {
        let help = format!("{name} is a group: ask for one of its functions");
        return QueryError::new(what, &help);
    }
    let known = protocols.iter().enumerate().map(|(at, protocol)| {
        let has = if at == 0 { " has" } else { "" };
        let names: Vec<&str> = protocol.operations.iter().map(|known| known.name).collect();
        format!("{}{has} {}", protocol.name, names.join(", "))
    });
    QueryError::new(what, &known.collect::<Vec<_>>().join("; "))
}
