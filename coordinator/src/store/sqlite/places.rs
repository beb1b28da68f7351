//! Places in the order in which blocks came: a cursor is the number of the block that it stands behind.

use crate::store::StoreError;
use crate::store::trail::Cursor;

/// Behind the block of this number.
pub(super) fn cursor(number: i64) -> Cursor {
    Cursor::new(number.to_be_bytes().to_vec())
}

/// The number of the block that a cursor stands behind.
pub(super) fn number(cursor: &Cursor) -> Result<i64, StoreError> {
    let form = cursor.form().try_into().map_err(|_| StoreError::ForeignCursor)?;
    Ok(i64::from_be_bytes(form))
}
