//! (see lib.rs)

pub mod vectors;
pub mod verify;
