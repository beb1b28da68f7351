//! Where a record stands: `source/epoch/sequence/index`. The same record has the same position wherever it is read, so that a
//! reader that gets one twice knows it, and each copy can be held against the source's chain.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use penstock_policy::text;

/// A record's place in the trails.
///
/// ```
/// use penstock_proto::export::Position;
///
/// let position: Position = "coordinator/c1/1/17/0".parse().unwrap();
/// assert_eq!((position.source.as_str(), position.sequence), ("coordinator/c1", 17));
/// assert_eq!(position.to_string(), "coordinator/c1/1/17/0");
/// assert!("gw-a/1/17".parse::<Position>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// Gateway, or `coordinator/<name>`; of what an export says of itself, `export/<name>`.
    pub source: String,
    /// Number of the chain.
    pub epoch: u64,
    /// Block within the chain.
    pub sequence: u64,
    /// Event within the block.
    pub index: u32,
}

/// A text that is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a position: it has to be source/epoch/sequence/index, as each exported record has it")]
pub struct PositionError(String);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            epoch,
            sequence,
            index,
        } = self;
        write!(f, "{source}/{epoch}/{sequence}/{index}")
    }
}

impl FromStr for Position {
    type Err = PositionError;
    fn from_str(text: &str) -> Result<Self, PositionError> {
        let read = || {
            let mut parts = text.rsplitn(4, '/');
            let index = parts.next()?.parse().ok()?;
            let sequence = parts.next()?.parse().ok()?;
            let epoch = parts.next()?.parse().ok()?;
            let source = parts.next().filter(|source| !source.is_empty())?.to_owned();
            Some(Self {
                source,
                epoch,
                sequence,
                index,
            })
        };
        read().ok_or_else(|| PositionError(text::shortened(text, 200).into_owned()))
    }
}

impl PartialOrd for Position {
    /// Within one source, the order of its chain; two sources have none.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let place = |position: &Self| (position.epoch, position.sequence, position.index);
        (self.source == other.source).then(|| place(self).cmp(&place(other)))
    }
}
