//! What was asked and what was answered, a line each, appended before the next thing happens.
//!
//! The judge reads the file and nothing of the sender's memory.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// One line. Times are microseconds since the ledger was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub(crate) enum Line {
    /// About to be sent.
    Intent {
        at: u64,
        /// Unique to this request; it comes back in the record's `traceparent`.
        trace: String,
        event: String,
        key: String,
        sequence: i64,
        /// [`fingerprint`] of what is sent.
        body: String,
        /// The bridge that is asked.
        to: String,
    },
    Outcome {
        at: u64,
        trace: String,
        answer: Answer,
    },
    /// The vendor was called, and is about to answer.
    Call {
        at: u64,
        /// `webhook-id`.
        id: String,
        key: String,
        sequence: i64,
        body: String,
        status: u16,
    },
    /// Something was broken on purpose, or mended.
    Fault {
        at: u64,
        what: String,
        hits: Hits,
    },
}

/// What a request came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// 2xx, and the place that it named.
    Accepted { duplicate: bool, partition: i32, offset: i64 },
    /// Any other status.
    Status(u16),
    /// No answer in time: nobody knows.
    Timeout,
    /// The connection broke after the request had begun: nobody knows.
    Cut,
    /// No connection: it was never sent.
    Refused,
}

/// What a fault is about: where recovery is to be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Hits {
    Bridge(String),
    Partition(i32),
    Everything,
    /// Ingest goes on; only the sink is hit.
    Sink,
}

/// Sixteen letters that stand for an event's content.
pub(crate) fn fingerprint(key: &str, sequence: i64, note: &str) -> String {
    let digest = hex::encode(Sha256::digest(format!("{key}\n{sequence}\n{note}")));
    digest[..16].to_owned()
}

#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    began: Instant,
    file: Mutex<BufWriter<File>>,
}

impl Ledger {
    pub(crate) fn create(path: &Path) -> Self {
        let file = File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path: path.to_owned(), began: Instant::now(), file: Mutex::new(BufWriter::new(file)) }
    }

    /// Microseconds since it was opened.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).expect("a run lasts minutes")
    }

    pub(crate) fn write(&self, line: &Line) {
        let text = serde_json::to_string(line).expect("a line is JSON");
        let mut file = self.file.lock().expect("nobody panics with it");
        writeln!(file, "{text}").expect("room for the ledger");
    }

    pub(crate) fn fault(&self, what: impl Into<String>, hits: Hits) {
        self.write(&Line::Fault { at: self.now(), what: what.into(), hits });
    }

    /// Every line, from the file.
    pub(crate) fn read(&self) -> Vec<Line> {
        self.file.lock().expect("nobody panics with it").flush().expect("room for the ledger");
        let file = File::open(&self.path).expect("the ledger is there");
        let lines = BufReader::new(file).lines();
        lines.map(|line| serde_json::from_str(&line.expect("text")).expect("what was written")).collect()
    }
}
