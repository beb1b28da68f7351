//! What the person in front of the cabinet asks of the agent: a Unix socket, one question and one answer for each connection.
//!
//! ```text
//! penstock-agent confirm ─▶ {"said":"anna","ask":{"confirm":{"statement":"sha256:…"}}}\n
//!                        ◀─ {"done":"r8 is confirmed: it stays in force"}\n   or  {"refused":"…"}\n
//! ```
//!
//! - Who may ask: root, the agent's own user, and the members of the group that the configuration names. The socket's permission bits
//!   keep everybody else from it, and its peer's credentials, which the kernel vouches for, are looked at as well.
//! - Who asked is in the trail: the user by those credentials, and what a shared account says of itself only as "said to be"
//!   (IEC 62443-3-3 SR 1.1, SR 2.1, SR 2.8).
//! - Nobody can wear the agent out: few at a time, each within bounds of size and time; who may not ask holds no seat.
//! - Nothing is decided here. What is asked goes to the reconciler as a [`Command`](crate::reconcile::Command), and a release is
//!   named by the digest of its statement: what somebody saw is what they steer.
//!
//! Here stands what is said on the socket. Its two ends are `local/serve.rs` and `local/ask.rs`, who asks is `local/people.rs`, and
//! how this gateway stands to a change is `local/change.rs`.

use std::path::PathBuf;

use penstock_policy::ids::Digest;
use penstock_policy::overrides::Effect;
use penstock_policy::text::is_hidden;
use penstock_proto::withdrawn::FILE_BYTES_MAX;
use serde::{Deserialize, Serialize};

pub mod ask;
pub mod change;
pub mod people;
pub mod serve;

use self::change::Change;

/// The socket's name, where the configuration gives none: in the state folder.
pub const SOCKET: &str = "local.sock";
/// The longest question, bytes: one with the longest list of withdrawn keys. Only who may ask is heard for so long.
pub const REQUEST_BYTES_MAX: usize = FILE_BYTES_MAX + 64 * 1024;
/// The longest answer, bytes.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// The longest reason, bytes.
pub const REASON_BYTES_MAX: usize = 500;
/// The longest name that somebody gives, bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Where the socket is, and who may use it beside root and the agent's user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSettings {
    /// The socket.
    pub socket: PathBuf,
    /// The group, by name.
    pub group: Option<String>,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Who asks, by their own word.
    pub said: Option<String>,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// How it stands.
    Standing,
    /// The release of this statement, which is on trial, stays.
    Confirm {
        /// Which.
        statement: Digest,
    },
    /// The release of this statement, which is on trial, goes.
    Revert {
        /// Which.
        statement: Digest,
        /// Why.
        reason: Option<String>,
    },
    /// No release begins until the hold is released.
    Hold {
        /// Why.
        reason: String,
    },
    /// It is.
    ReleaseHold,
    /// The release of this statement, which was reverted, may come again.
    Clear {
        /// Which.
        statement: Digest,
    },
    /// What people in front of the gateway change of what it enforces, for a while.
    Override(OverrideQuestion),
    /// Keys no longer count.
    TakeWithdrawn {
        /// The file that says whose.
        list: String,
    },
    /// Other roots are trusted.
    TakeTrust {
        /// The file of bundles.
        bundles: String,
    },
}

/// What is asked of overrides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OverrideQuestion {
    /// A request to be signed; the answer is that file.
    Request {
        /// What is to change.
        effects: Vec<Effect>,
        /// For how long, seconds.
        seconds: u32,
        /// Why.
        reason: String,
        /// What a change management calls it.
        ticket: Option<String>,
    },
    /// It begins.
    Begin {
        /// The file, with its signatures.
        signed: String,
        /// The sealed code that opens it in their place.
        code: Option<TypedCode>,
    },
    /// It ends.
    End {
        /// Which; `None`: all.
        number: Option<Digest>,
    },
}

/// A code as somebody typed it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TypedCode(pub String);

/// Shows nothing of itself.
impl std::fmt::Debug for TypedCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TypedCode(…)")
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// How it stands.
    Standing(Box<LocalStanding>),
    /// It was done: what is so now, in a sentence.
    Done(String),
    /// Nothing was done: why, and what to do.
    Refused(String),
}

/// How this gateway stands, as the agent that runs knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalStanding {
    /// `spiffe://…`, by the policy in force.
    pub identity: Option<String>,
    /// What it has put in the kernel.
    pub in_kernel: Option<InKernel>,
    /// Whether somebody else changed the kernel's rules, and they are not put back.
    pub drift: bool,
    /// How it stands to a change.
    pub change: Change,
    /// What a person should know.
    pub faults: Vec<String>,
}

/// A policy in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InKernel {
    /// Its revision.
    pub revision: u64,
    /// Its plan.
    pub plan_digest: String,
    /// How many flows it permits.
    pub rules: usize,
}

/// Whether a text may stand for a name in the trail: short, and without what could pass for words of ours.
pub fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '.' | '-' | '_' | '\'' | '@');
    !text.trim().is_empty() && text.len() <= NAME_BYTES_MAX && text.chars().all(fits)
}

/// Whether a text may stand for a reason in the trail: one line of visible text.
pub fn is_reason(text: &str) -> bool {
    let hidden = |c: char| c == '\n' || c == '\t' || is_hidden(c);
    !text.trim().is_empty() && text.len() <= REASON_BYTES_MAX && !text.contains(hidden)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_question_is_one_line_and_one_with_more_than_its_words_is_refused() {
        let asked = Request {
            said: Some("anna".to_owned()),
            ask: Ask::Hold {
                reason: "pump 3 is\nopen".to_owned(),
            },
        };
        let line = serde_json::to_string(&asked).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), asked);
        for wrong in [
            r#"{"said":null,"ask":"standing","as":"root"}"#,
            r#"{"said":null,"ask":{"hold":{"reason":"x","force":true}}}"#,
            r#"{"ask":"everything"}"#,
        ] {
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_cannot_pass_for_our_words_and_a_reason_is_one_line() {
        assert!(is_name("Anna O'Neill") && is_name("anna@works.example") && is_name("Jürgen"));
        for wrong in [
            "",
            "  ",
            "anna) and root",
            "anna\nbert",
            "anna\u{202e}",
            &"a".repeat(65),
        ] {
            assert!(!is_name(wrong), "{wrong:?}");
        }
        assert!(is_reason("pump 3 is open (ticket 17)"));
        for wrong in ["", " ", "one\ntwo", "a\u{200b}b", &"a".repeat(501)] {
            assert!(!is_reason(wrong), "{wrong:?}");
        }
    }
}
