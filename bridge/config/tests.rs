//! Tests of the whole reading, and what stands for the machine in them.

use std::collections::BTreeMap;
use std::env::VarError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

mod example;
mod fuzz;
mod mistakes;
mod reference;

/// Variables and files that exist in a test only.
#[derive(Default)]
pub(super) struct FakeEnvironment {
    variables: BTreeMap<String, String>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl FakeEnvironment {
    pub(super) fn new(variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { variables, files: BTreeMap::new() }
    }

    pub(super) fn with_file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.insert(path.into(), content.as_ref().to_vec());
        self
    }
}

impl Environment for FakeEnvironment {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        self.variables.get(name).cloned().ok_or(VarError::NotPresent)
    }

    fn read_file(&self, path: &Path, _: u64) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Kafka {
    /// Where tests of clients find their cluster. Nothing is created: each test makes its own topics.
    pub(crate) fn for_tests(bootstrap: &str, properties: &[(&str, &str)]) -> Self {
        Self {
            bootstrap_servers: bootstrap.to_owned(),
            create_topics: false,
            topic_prefix: String::new(),
            topic_defaults: TopicDefaults {
                partitions: 1,
                replication_factor: None,
                min_insync_replicas: None,
                retention: Duration::from_secs(60),
            },
            librdkafka: properties.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect(),
        }
    }
}
