//! The configuration: one YAML file, read whole, every problem named at once.

mod model;
mod secret;
pub mod units;

pub use model::*;
pub use secret::Secret;
