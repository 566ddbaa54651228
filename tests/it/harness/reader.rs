//! What is in the topics, as Kafka's own Java client sees it, and what its values say, by way of the registry.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use super::Services;
use super::maven::Cache;
use super::process::run;

/// A record as the Java client found it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Record {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    #[serde(deserialize_with = "optional_bytes")]
    pub(crate) key: Option<Vec<u8>>,
    #[serde(deserialize_with = "optional_bytes")]
    pub(crate) value: Option<Vec<u8>>,
    #[serde(deserialize_with = "headers")]
    headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// The only header of that name, as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        let (_, value) = found.next()?;
        assert!(found.next().is_none(), "{}-{}@{}: {name} twice", self.topic, self.partition, self.offset);
        Some(std::str::from_utf8(value).expect("our headers are text"))
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Isolation {
    Committed,
    Uncommitted,
}

impl Services {
    /// Every record of the topics from their beginnings to their present ends; a topic that is not there has none.
    pub(crate) fn read(&self, topics: &[&str]) -> Vec<Record> {
        self.read_from(&self.bootstrap, Isolation::Committed, topics)
    }

    pub(crate) fn read_from(&self, bootstrap: &str, isolation: Isolation, topics: &[&str]) -> Vec<Record> {
        read(&self.cache, bootstrap, isolation, topics)
    }
}

/// Every record of the topics of these brokers, up to their present ends.
pub(crate) fn read(cache: &Cache, bootstrap: &str, isolation: Isolation, topics: &[&str]) -> Vec<Record> {
    let reader = cache.reader().expect("the reader, compiled");
    let kafka = cache.kafka().expect("Kafka's client");
    let isolation = match isolation {
        Isolation::Committed => "read_committed",
        Isolation::Uncommitted => "read_uncommitted",
    };
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=ERROR"]);
    command.arg("-cp").arg(format!("{}:{kafka}", reader.display()));
    let lines = run("the Java reader", command.args(["Reader", bootstrap, isolation]).args(topics));
    let lines = lines.unwrap_or_else(|error| panic!("{error}"));
    lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("the reader prints JSON"))
        .collect()
}

fn optional_bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| BASE64.decode(text).map_err(serde::de::Error::custom)).transpose()
}

fn headers<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, Vec<u8>)>, D::Error> {
    let pairs = Vec::<(String, Option<String>)>::deserialize(deserializer)?;
    let decode = |(name, value): (String, Option<String>)| Ok((name, BASE64.decode(value.unwrap_or_default())?));
    pairs.into_iter().map(decode).collect::<Result<_, base64::DecodeError>>().map_err(serde::de::Error::custom)
}
