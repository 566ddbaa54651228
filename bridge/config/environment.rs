//! What a configuration file may ask of the machine: variables and files, as an argument, so that reading a
//! configuration is the same in a test as in production.

use std::env::{self, VarError};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Variables and files.
pub trait Environment {
    /// The value of an environment variable.
    ///
    /// # Errors
    /// `NotPresent` where it is not set, `NotUnicode` where it is set to something that is no text.
    fn variable(&self, name: &str) -> Result<String, VarError>;

    /// The bytes of a file, at most `limit` and one more (which tells that there are too many).
    ///
    /// # Errors
    /// Whatever the file system answers.
    fn read_file(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;
}

/// The process's own environment and the local file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Process;

impl Environment for Process {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        env::var(name)
    }

    fn read_file(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
