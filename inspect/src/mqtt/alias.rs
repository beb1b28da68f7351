//! MQTT 5 topic aliases of one direction (section 3.3.2.3.4), as the *receiver* knows them.
//!
//! What the receiver would do with an alias is what has to be judged: so an alias is set only by what was
//! forwarded. One that was set by a refused publication is known as refused: the sender
//! believes it means that topic, the receiver may remember an older one, and neither reading may pass.

use std::collections::HashMap;

use super::wire::MqttError;
use crate::connection::AliasLimits;

#[derive(Debug)]
struct AliasEntry {
    topic: Box<str>,
    forwarded: bool,
}

/// The aliases of one direction of one connection.
#[derive(Debug)]
pub struct Aliases {
    limits: AliasLimits,
    maximum: u16,
    entries: HashMap<u16, AliasEntry>,
    topic_bytes: usize,
}

/// What an alias without a topic stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolvedAlias<'a> {
    /// The topic.
    pub topic: &'a str,
    /// Whether the receiver knows it by this topic.
    pub forwarded: bool,
}

impl Aliases {
    /// None yet, and none permitted until the receiver says how many it takes.
    pub fn new(limits: AliasLimits) -> Self {
        Self {
            limits,
            maximum: 0,
            entries: HashMap::new(),
            topic_bytes: 0,
        }
    }

    /// The receiver takes aliases up to `maximum`.
    pub fn permit(&mut self, maximum: u16) {
        self.maximum = maximum;
    }

    /// The greatest alias that the receiver takes.
    pub fn maximum(&self) -> u16 {
        self.maximum
    }

    /// What they take of memory, bytes.
    pub fn memory(&self) -> usize {
        self.topic_bytes + self.entries.capacity() * (size_of::<(u16, AliasEntry)>() + 1)
    }

    /// Each alias with its topic, and whether the receiver knows it by that.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &str, bool)> {
        let entries = self.entries.iter();
        entries.map(|(alias, entry)| (*alias, &*entry.topic, entry.forwarded))
    }

    /// An alias that a publication names: within what the receiver takes.
    ///
    /// # Errors
    /// The alias is 0 or greater than was agreed.
    pub fn check(&self, alias: u16) -> Result<(), MqttError> {
        if alias == 0 || alias > self.maximum {
            Err(MqttError::Alias(alias))
        } else {
            Ok(())
        }
    }

    /// What `alias` stands for.
    ///
    /// # Errors
    /// The alias is out of range, or was never set.
    pub fn resolve(&self, alias: u16) -> Result<ResolvedAlias<'_>, MqttError> {
        self.check(alias)?;
        let entry = self.entries.get(&alias).ok_or(MqttError::Alias(alias))?;
        Ok(ResolvedAlias {
            topic: &entry.topic,
            forwarded: entry.forwarded,
        })
    }

    /// `alias` stands for `topic` from now on, for the receiver too if it was `forwarded`.
    ///
    /// # Errors
    /// The alias is out of range.
    pub fn set(&mut self, alias: u16, topic: &str, forwarded: bool) -> Result<(), MqttError> {
        self.check(alias)?;
        if let Some(entry) = self.entries.get_mut(&alias)
            && *entry.topic == *topic
        {
            entry.forwarded = forwarded;
            return Ok(());
        }
        let replaced = self.entries.get(&alias).map_or(0, |entry| entry.topic.len());
        let topic_bytes = self.topic_bytes - replaced + topic.len();
        let grows = replaced == 0 && !self.entries.contains_key(&alias);
        if topic_bytes > self.limits.topic_bytes_max {
            return Err(MqttError::TooLarge {
                bytes: topic_bytes,
                limit: self.limits.topic_bytes_max,
            });
        }
        if grows && self.entries.len() >= self.limits.aliases_max {
            return Err(MqttError::Alias(alias));
        }
        self.topic_bytes = topic_bytes;
        self.entries.insert(
            alias,
            AliasEntry {
                topic: topic.into(),
                forwarded,
            },
        );
        Ok(())
    }
}
