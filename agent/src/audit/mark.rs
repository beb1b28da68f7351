//! `spool.mark`: a position that was durable, kept beside the log so that a log which lost it is found out.
//!
//! One line of text: the form, the epoch, the sequence. It only ever names what is durable, so that one that is old or
//! missing costs the detection of a loss, and never raises a false alarm.

use std::path::Path;

use super::layout::Position;
use crate::durable::{self, FileError};

const FILE: &str = "spool.mark";
const FORM: &str = "penstock-spool-mark/1";
const BYTES_MAX: u64 = 256;

/// How far the trail in `folder` had come when it was last noted; one that makes no sense is none.
///
/// # Errors
/// The file cannot be read.
pub fn read(folder: &Path) -> Result<Option<Position>, FileError> {
    let Some(bytes) = durable::read(&folder.join(FILE), BYTES_MAX)? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut words = text.split_whitespace();
    let form = words.next();
    let mut number = || words.next()?.parse::<u64>().ok();
    Ok((form == Some(FORM))
        .then(|| {
            Some(Position {
                epoch: number()?,
                sequence: number()?,
            })
        })
        .flatten())
}

/// Notes `at`, which must be durable.
pub(super) fn write(folder: &Path, at: Position) -> Result<(), FileError> {
    let text = format!("{FORM} {} {}\n", at.epoch, at.sequence);
    durable::replace(&folder.join(FILE), text.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_mark_that_was_written_when_the_form_was_made_is_read_and_written_the_same_today() {
        let folder = tempfile::tempdir().unwrap();
        let at = Position {
            epoch: 2,
            sequence: 5,
        };
        write(folder.path(), at).unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(std::fs::read(&path).unwrap(), b"penstock-spool-mark/1 2 5\n");
        assert_eq!(read(folder.path()).unwrap(), Some(at));
    }
}
