//! What a key of the source signed of its trail: a seal, or the identity key's word for one.

use serde_json::{Value, json};

use super::{Described, KindDescription, Writer};
use crate::audit::note::Note;
use crate::audit::seal::SealText;
use crate::tls::certificates_to_pem;
use crate::v1::{NamedAddress, SealEvent, Severity};

pub(super) const KIND: KindDescription = KindDescription {
    word: "seal",
    bit: 11,
    writer: Writer::Gateway,
    meaning: "a signature over the trail up to here, by which anybody can verify it later",
    severities: &[(Severity::Info, "each")],
};

fn text_of(event: &SealEvent) -> Option<SealText> {
    SealText::parse(&Note::parse(&event.note).ok()?.text)
}

impl Described for SealEvent {
    fn severity(&self) -> Severity {
        Severity::Info
    }

    fn texts(&self) -> Vec<&str> {
        Vec::new()
    }

    /// As it says of itself: whether it counts, a verifier says.
    fn sentence(&self, _: &[NamedAddress]) -> String {
        let Some(text) = text_of(self) else {
            return "a seal that cannot be read".to_owned();
        };
        let (epoch, sequence) = (text.head.epoch, text.head.next_sequence);
        if self.certificates.is_empty() {
            format!("seal {} of the trail up to {epoch}/{sequence}", text.number)
        } else {
            format!(
                "the identity key vouches for seal {} of the trail up to {epoch}/{sequence}",
                text.number
            )
        }
    }

    fn fields(&self) -> Value {
        let text = text_of(self);
        json!({
            "number": text.as_ref().map(|text| text.number),
            "epoch": text.as_ref().map(|text| text.head.epoch),
            "next_sequence": text.as_ref().map(|text| text.head.next_sequence),
            "by": if self.certificates.is_empty() { "seal-key" } else { "identity-key" },
            "note": String::from_utf8_lossy(&self.note),
            "certificates": certificates_to_pem(&self.certificates),
        })
    }
}
