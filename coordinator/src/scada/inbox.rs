//! What comes from the broker: acknowledgements, as somebody there wrote them. Who they are is what they say.

use serde::Deserialize;

use crate::alarms::AlarmKey;

/// Longest message that is read, bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 2048;
/// Longest name and reason, bytes.
const NAME_BYTES_MAX: usize = 64;
const REASON_BYTES_MAX: usize = 512;

/// An acknowledgement by topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    pub(crate) key: AlarmKey,
    /// As whom; nothing proves it.
    pub(crate) user: String,
    pub(crate) reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    user: String,
    #[serde(default)]
    reason: String,
}

/// What a message says; `None`: it is no acknowledgement.
pub(super) fn acknowledgement(key: AlarmKey, payload: &[u8]) -> Option<Acknowledgement> {
    if payload.len() > MESSAGE_BYTES_MAX {
        return None;
    }
    let wire: Wire = serde_json::from_slice(payload).ok()?;
    let (user, reason) = (wire.user.trim(), wire.reason.trim());
    let is_plain = |text: &str| !text.chars().any(char::is_control);
    let fits = (1..=NAME_BYTES_MAX).contains(&user.len()) && reason.len() <= REASON_BYTES_MAX;
    (fits && is_plain(user) && is_plain(reason)).then(|| Acknowledgement {
        key,
        user: user.to_owned(),
        reason: reason.to_owned(),
    })
}
