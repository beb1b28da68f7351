//! What a plant document may cost at most, before anything in it is believed.

/// Bytes of all files together: the limit that a large plant meets. Every other one is derived from it or cannot be met before
/// it: that of values below, of the message in which a document travels, of the file in which a person's machine keeps it.
pub const DOCUMENT_BYTES_MAX: usize = 12 * 1024 * 1024;
/// Files of one document.
pub const FILES_MAX: usize = 1000;

/// The limit in words, wherever a document is refused by it.
pub fn in_words() -> String {
    format!(
        "a plant document has at most {} MiB, in at most {FILES_MAX} files",
        DOCUMENT_BYTES_MAX >> 20
    )
}
/// Nesting of lists and mappings. The grammar's deepest place is 9 deep.
pub const DEPTH_MAX: usize = 16;
/// Keys, values, lists and mappings of all files together: against files that are made to cost memory. The densest that a
/// plant can say, lists of ports and of short names, have four bytes for each.
pub const NODES_MAX: usize = DOCUMENT_BYTES_MAX / 3;
/// Characters of one text or key. The longest are the certificates of a few authorities.
pub const TEXT_LENGTH_MAX: usize = 16_384;
/// Items of one list. What has more members is named by its zone, not one by one.
pub const LIST_ITEMS_MAX: usize = 1000;
/// Zones around one zone.
pub const ZONE_DEPTH_MAX: usize = 16;
/// Stations of one document.
pub const STATIONS_MAX: usize = 10_000;
/// Members of one group.
pub const GROUP_MEMBERS_MAX: usize = 10_000;
