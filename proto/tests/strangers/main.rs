//! What strangers can make us compute and hold: on each listener, and where we are the client of a hostile server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod computed;
mod held;
mod shown;
