//! What a plant document may cost at most, before anything in it is believed.

/// Bytes of all files together: what the smallest message carries that a document travels in, too.
pub const DOCUMENT_BYTES_MAX: usize = 12 * 1024 * 1024;
/// Files of one document.
pub const FILES_MAX: usize = 1000;
/// Nesting of lists and mappings. The grammar's deepest place is 9 deep.
pub const DEPTH_MAX: usize = 16;
/// Keys, values, lists and mappings of all files together.
pub const NODES_MAX: usize = 2_000_000;
/// Characters of one text or key. The longest are the certificates of a few authorities.
pub const TEXT_LENGTH_MAX: usize = 16_384;
/// Items of one list. What has more members is named by its zone, not one by one.
pub const LIST_ITEMS_MAX: usize = 1000;
/// Zones around one zone.
pub const ZONE_DEPTH_MAX: usize = 16;
