//! Topic names and topic filters (MQTT 5, sections 4.7 and 4.8): valid, matches, covers.
//!
//! *Covers* answers the question that a subscription poses: is every topic that the wanted filter matches
//! also matched by the permitted one? Topics that begin with `$` are matched by no filter that begins with a wildcard
//! (4.7.2), so `#` does not cover `$SYS/#`.

use super::wire::MqttError;

/// Checks a topic name: not empty, no wildcard.
///
/// ```
/// use penstock_inspect::mqtt::topic::check_name;
///
/// assert!(check_name("line4/7/pressure").is_ok());
/// assert!(check_name("line4/+/pressure").is_err());
/// ```
///
/// # Errors
/// The topic is empty, too long, or holds a wildcard or a null character.
pub fn check_name(topic: &str) -> Result<(), MqttError> {
    if topic.is_empty() || topic.contains(['+', '#', '\0']) {
        return Err(MqttError::TopicName);
    }
    Ok(())
}

/// Checks a topic filter, plain or shared.
///
/// ```
/// use penstock_inspect::mqtt::topic::check_filter;
///
/// assert!(check_filter("line4/+/pressure").is_ok());
/// assert!(check_filter("line4/#/pressure").is_err());
/// ```
///
/// # Errors
/// The text is not a topic filter (MQTT 5, section 4.7).
pub fn check_filter(filter: &str) -> Result<(), MqttError> {
    Subscription::parse(filter).map(|_| ())
}

fn check_plain(filter: &str) -> Result<(), MqttError> {
    let mut levels = filter.split('/').peekable();
    if filter.is_empty() || filter.contains('\0') {
        return Err(MqttError::TopicFilter);
    }
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        let wildcard = level.contains(['+', '#']);
        if wildcard && !(level == "+" || (level == "#" && last)) {
            return Err(MqttError::TopicFilter);
        }
    }
    Ok(())
}

/// What a client asks to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// The share name, if it is `$share/NAME/FILTER` (4.8.2).
    pub share: Option<&'a str>,
    /// The filter proper.
    pub filter: &'a str,
}

impl<'a> Subscription<'a> {
    /// Takes a filter apart, and checks it.
    ///
    /// # Errors
    /// The text is not a topic filter (MQTT 5, section 4.7).
    pub fn parse(filter: &'a str) -> Result<Self, MqttError> {
        let Some(shared) = filter.strip_prefix("$share/") else {
            if filter == "$share" {
                return Err(MqttError::TopicFilter);
            }
            check_plain(filter)?;
            return Ok(Self { share: None, filter });
        };
        let (share, inner) = shared.split_once('/').ok_or(MqttError::TopicFilter)?;
        if share.is_empty() || share.contains(['+', '#', '\0']) {
            return Err(MqttError::TopicFilter);
        }
        check_plain(inner)?;
        Ok(Self {
            share: Some(share),
            filter: inner,
        })
    }
}

/// Whether `filter` matches `topic`; both are valid.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = topic.split('/');
    let mut levels = filter.split('/');
    loop {
        match (levels.next(), names.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(level), Some(name)) if level == name => {}
            _ => return false,
        }
    }
}

/// Whether every topic that `wanted` matches is also matched by `permitted`; both are valid and not shared.
///
/// The empty name counts as a topic here, though no message has it (MQTT 5.0 4.7.3): `/#` matches it and `/+/#` does not.
pub fn covers(permitted: &str, wanted: &str) -> bool {
    if wanted.starts_with('$') && permitted.starts_with(['+', '#']) {
        return false;
    }
    // Every topic has a first level, so these two say the same.
    if wanted == "#" && permitted == "+/#" {
        return true;
    }
    let mut wanted = wanted.split('/');
    let mut permitted = permitted.split('/');
    loop {
        match (permitted.next(), wanted.next()) {
            (Some("#"), _) | (None, None) => return true,
            (_, Some("#")) => return false,
            (Some("+"), Some(_)) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}
