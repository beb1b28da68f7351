//! A default plan as a file for people: each value with its reason, each wave with the gateways that it chooses, counted.
//! [`ReadPlan`](super::ReadPlan) reads it back as the same plan.

use std::fmt::Write as _;

use super::defaults::REASONS;
use super::fleet::{Fleet, Member};
use super::plan::{RolloutPlan, Selector};
use super::waves::assign;

/// Columns of a comment.
const WIDTH: usize = 100;
/// Names that stand in a comment; further ones are counted.
const NAMES: usize = 6;

/// The plan as YAML with comments; `heading`: what it is for.
pub fn commented(plan: &RolloutPlan, fleet: &Fleet, heading: &str) -> String {
    let mut text = String::new();
    comment(&mut text, "", heading);
    let line = |text: &mut String, line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    line(&mut text, format!("format: {}", quoted(&plan.format)));
    comment(
        &mut text,
        "",
        "What percentages and the order within a wave are drawn with, so that anybody can draw them again.",
    );
    line(&mut text, format!("seed: {}", plan.seed));
    comment(
        &mut text,
        "",
        "Not before this moment; without it, as soon as somebody starts the rollout.",
    );
    let start = plan.start_ms.and_then(moment);
    line(
        &mut text,
        match start {
            Some(start) => format!("start: {}", quoted(&start)),
            None => "# start: 2027-06-30T02:00:00+02:00".to_owned(),
        },
    );
    let spans = [
        (
            "shadow",
            plan.shadow,
            "The release is judged on live traffic before the first gateway enforces it.",
        ),
        (
            "trial",
            plan.trial,
            "A gateway enforces it unconfirmed for so long, and then goes back by itself.",
        ),
        (
            "silence",
            plan.silence,
            "Out of reach for longer, a gateway counts as absent, or as failed if it had activated.",
        ),
        (
            "patience",
            plan.patience,
            "A wave waits so long for a gateway that is held, and then goes on without it.",
        ),
    ];
    for (key, span, what) in spans {
        comment(&mut text, "", &format!("{what}{}", reason(key)));
        line(&mut text, format!("{key}: {span}"));
    }
    comment(
        &mut text,
        "",
        &format!(
            "Failures halt the rollout when the one-sided 95 % lower bound of their rate exceeds this; a must-flow or a \
             management that is lost, and a crash, halt it at the first.{}",
            reason("gate.soft_rate")
        ),
    );
    line(&mut text, format!("gate:\n  soft_rate: {}", plan.gate.soft_rate));
    comment(
        &mut text,
        "",
        &format!(
            "Most gateways that were absent in their wave and change at the same time once they are back.{}",
            reason("converge.at_once")
        ),
    );
    line(
        &mut text,
        format!("converge:\n  at_once: {}", plan.converge.at_once),
    );
    comment(
        &mut text,
        "",
        "Who activates together, in this order; a gateway is in the first wave that chooses it. Of a redundant pair, one waits \
         for the other.",
    );
    comment(
        &mut text,
        "",
        &format!(
            "per_cell: most of one cell that change at the same time.{}",
            reason("per_cell")
        ),
    );
    comment(
        &mut text,
        "",
        &format!(
            "soak: how long to look on before the next wave.{}",
            reason("soak")
        ),
    );
    line(&mut text, "waves:".to_owned());
    let waves = assign(plan, fleet);
    for (number, wave) in (0_u16..).zip(&plan.waves) {
        let members = || {
            fleet
                .members()
                .iter()
                .zip(&waves)
                .filter(|(_, own)| **own == Some(number))
        };
        comment(
            &mut text,
            "  ",
            &chosen(members().map(|(member, _)| member), fleet.len()),
        );
        line(&mut text, format!("  - name: {}", quoted(&wave.name)));
        line(&mut text, format!("    gateways: {}", selector(&wave.gateways)));
        line(&mut text, format!("    per_cell: {}", wave.per_cell));
        line(&mut text, format!("    soak: {}", wave.soak));
    }
    text
}

/// Whom a wave chooses, counted, with some names.
fn chosen<'a>(members: impl Iterator<Item = &'a Member> + Clone, all: usize) -> String {
    let count = members.clone().count();
    let names: Vec<&str> = members.take(NAMES).map(|member| member.id.as_str()).collect();
    let mut words = format!("{count} of {all} gateways: {}", names.join(", "));
    if count > NAMES {
        let _ = write!(words, " and {} more", count - NAMES);
    }
    words
}

/// Why the default is what it is, behind what it does.
fn reason(key: &str) -> String {
    let found = REASONS.iter().find(|(own, _)| *own == key);
    found.map_or_else(String::new, |(_, why)| format!(" Default: {why}."))
}

/// A moment as it is written, in UTC.
fn moment(ms: u64) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?;
    Some(at.to_string())
}

fn selector(selector: &Selector) -> String {
    match selector {
        Selector::All => "all".to_owned(),
        Selector::Labels(labels) => {
            let labels: Vec<String> = labels
                .iter()
                .map(|(key, value)| format!("{}: {}", quoted(key), in_quotes(value)))
                .collect();
            format!("{{ labels: {{ {} }} }}", labels.join(", "))
        }
        Selector::Site(site) => format!("{{ site: {} }}", quoted(site)),
        Selector::Percent(percent) => format!("{{ percent: {percent} }}"),
        Selector::List(ids) => {
            let ids: Vec<String> = ids.iter().map(|id| quoted(id.as_str())).collect();
            format!("{{ list: [{}] }}", ids.join(", "))
        }
    }
}

/// A word, in quotes where somebody could take it for something else.
fn quoted(word: &str) -> String {
    let begins = word.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_plain = begins
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-./".contains(&byte));
    let is_meant = !matches!(
        word.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null"
    );
    if is_plain && is_meant {
        word.to_owned()
    } else {
        in_quotes(word)
    }
}

fn in_quotes(text: &str) -> String {
    // JSON's strings are YAML's.
    serde_json::to_string(text).unwrap_or_default()
}

/// A comment in lines of bounded width.
fn comment(text: &mut String, indent: &str, words: &str) {
    let mut line = format!("{indent}#");
    for word in words.split_whitespace() {
        if line.chars().count() + word.chars().count() >= WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = format!("{indent}#");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}
