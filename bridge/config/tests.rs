//! Tests of the whole reading, and what stands for the machine in them.

use std::collections::BTreeMap;
use std::env::VarError;
use std::io;
use std::path::{Path, PathBuf};

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
