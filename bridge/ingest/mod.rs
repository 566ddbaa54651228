//! HTTP → event.

pub mod map;
pub mod vectors;
pub mod verify;
