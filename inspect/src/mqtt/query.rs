//! An operation as a person asks for it: a publication, a subscription, its end, a connection.

use std::borrow::Cow;

use super::judge::MqttRules;
use super::operation::Operation;
use super::topic;
use crate::judge::{Rules, Verdict};
use crate::query::{Asked, Query, QueryError, Words};

/// How one is written.
pub(super) const EXAMPLE: &str = "for example: --operation \"publish line4/a/temperature qos 1 retain\", \"subscribe line4/#\", \
                                  \"connect pump-7 user operator\"";

impl Asked for Operation<'static> {
    fn judge(&self, rules: &Rules) -> Option<Verdict> {
        Some(rules.of::<MqttRules>()?.judge(self))
    }
}

/// Reads the words behind a verb; `None`: it is not one.
pub(super) fn read(verb: &str, words: &mut Words<'_>) -> Option<Result<Query, QueryError>> {
    let known = matches!(verb, "publish" | "subscribe" | "unsubscribe" | "connect");
    known.then(|| {
        let operation = operation(verb, words)?;
        Ok(Query::new(operation.clone().into(), operation))
    })
}

fn operation(verb: &str, words: &mut Words<'_>) -> Result<Operation<'static>, QueryError> {
    let refused = |why: String| QueryError::new(why, EXAMPLE);
    let subject = words
        .next()
        .ok_or_else(|| refused(format!("`{verb}` does not say what")))?
        .to_owned();
    let (mut qos, mut retain, mut user) = (0, false, None);
    while let Some(word) = words.next() {
        match (verb, word.to_ascii_lowercase().as_str()) {
            ("publish" | "subscribe", "qos") => qos = words.number("a quality of service", EXAMPLE)?,
            ("publish", "retain" | "retained") => retain = true,
            ("connect", "user") => user = words.next().map(|user| Cow::Owned(user.to_owned())),
            _ => return Err(refused(format!("`{word}` says nothing about `{verb}`"))),
        }
    }
    if qos > 2 {
        return Err(refused(format!(
            "{qos} is not a quality of service: it is 0, 1 or 2"
        )));
    }
    let checked = match verb {
        "publish" => topic::check_name(&subject),
        "subscribe" | "unsubscribe" => topic::check_filter(&subject),
        _ => Ok(()),
    };
    checked.map_err(|error| refused(format!("`{subject}` cannot be used there")).because(&error))?;
    let subject = Cow::Owned(subject);
    Ok(match verb {
        "publish" => Operation::Publish {
            topic: subject,
            qos,
            retain,
        },
        "subscribe" => Operation::Subscribe { filter: subject, qos },
        "unsubscribe" => Operation::Unsubscribe { filter: subject },
        _ => Operation::Connect {
            client_id: subject,
            user,
        },
    })
}
