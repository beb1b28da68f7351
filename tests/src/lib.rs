//! What the tests share that read the repository itself: which files it holds.

pub mod tree;
