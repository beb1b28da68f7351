//! A certificate that was issued, or a peer that was refused for who it is.

use serde_json::{Value, json};

use super::words::behind;
use super::{Described, KindDescription, Writer};
use crate::v1::{IdentityEvent, NamedAddress, Severity};

pub(super) const KIND: KindDescription = KindDescription {
    word: "identity",
    bit: 10,
    writer: Writer::Coordinator,
    meaning: "a certificate was issued, or counts from now on; an operator signed in; or somebody was refused or turned away, or two use one key",
    severities: &[
        (
            Severity::Alarm,
            "two machines use the key of one gateway, or a coordinator learnt back from a gateway what it had lost",
        ),
        (
            Severity::Warning,
            "refused, or a list of withdrawn keys that is behind",
        ),
        (Severity::Notice, "issued, or adopted"),
        (Severity::Info, "an operator signed in"),
    ],
};

impl Described for IdentityEvent {
    fn severity(&self) -> Severity {
        match self.step.as_str() {
            "two-users" | "restored" => Severity::Alarm,
            "refused" | "ahead" => Severity::Warning,
            "signed-in" => Severity::Info,
            _ => Severity::Notice,
        }
    }

    fn texts(&self) -> Vec<&str> {
        vec![&self.step, &self.subject, &self.address, &self.message]
    }

    fn sentence(&self, _: &[NamedAddress]) -> String {
        let subject = &self.subject;
        let how = format!(
            "{}{}",
            behind(" from ", &self.address),
            behind(": ", &self.message)
        );
        match self.step.as_str() {
            "enrolled" => format!("{subject} was enrolled{how}"),
            "renewed" => format!("the certificate of {subject} was renewed{how}"),
            "refused" => format!("{subject} was refused{how}"),
            "signed-in" => format!("{subject} signed in{how}"),
            "authenticated" => format!("{subject} signed in through the identity provider{how}"),
            "unlinked" => {
                format!("{subject} of the identity provider signed in and is linked with no operator{how}")
            }
            "adopted" => format!("{subject} counts by its certificate, of which nothing was recorded{how}"),
            "ahead" => format!(
                "{subject} holds a list of withdrawn keys that goes further than this coordinator's{how}"
            ),
            "restored" => format!("{subject} gave back what was lost{how}"),
            "two-users" => format!("{subject} has two users{how}"),
            other => format!("identity of {subject}, {other}{how}"),
        }
    }

    fn operator(&self) -> Option<&str> {
        self.subject.strip_prefix("operator/")
    }

    fn fields(&self) -> Value {
        json!({ "step": self.step, "subject": self.subject, "address": self.address, "message": self.message })
    }
}
