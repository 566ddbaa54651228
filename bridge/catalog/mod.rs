//! The catalogue: sources (and later sinks) described as data, one YAML file a provider.

mod source;

pub use source::*;
