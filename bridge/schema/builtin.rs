//! A registry in memory for `hookbridge dev`: the part of the Confluent API that `kcat` and Python's deserializers
//! read with, and that our own client registers by. It takes a request's parts and gives an answer's; serving it over
//! HTTP is the caller's.
//!
//! It follows Confluent's "Schema Registry API Reference", errors included. It checks that a schema can be read, but
//! not that it is compatible, and says so: its compatibility level is `NONE`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::inline::inline;
use super::{EventSchema, Reference, shape};

/// Versions under all subjects together. The taxonomy registers about thirty.
pub const MAX_VERSIONS: usize = 4096;

/// Bytes of a request's body, and so of a schema.
pub const MAX_BODY: usize = 1 << 20;

/// Schemas that one may need in all.
const MAX_REFERENCES: usize = 64;

/// What the API answers instead of a result: Confluent's code and message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("Subject '{0}' not found.")]
    SubjectNotFound(String),
    #[error("Version {0} not found.")]
    VersionNotFound(String),
    #[error("Schema not found")]
    SchemaNotFound,
    #[error("Invalid schema: {0}")]
    InvalidSchema(String),
    #[error("The specified version '{0}' is not a valid version id.")]
    InvalidVersion(String),
    #[error("The request's body is not understood: {0}")]
    InvalidBody(String),
    #[error("The request's body is larger than {MAX_BODY} bytes")]
    TooLarge,
    #[error("This registry in memory holds {MAX_VERSIONS} versions and no more")]
    Full,
    #[error("HTTP 404 Not Found")]
    NoSuchPath,
    #[error("HTTP 405 Method Not Allowed")]
    NoSuchMethod,
}

impl Error {
    /// Confluent's error code; its first three digits are the HTTP status.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::SubjectNotFound(_) => 40401,
            Self::VersionNotFound(_) => 40402,
            Self::SchemaNotFound => 40403,
            Self::InvalidSchema(_) => 42201,
            Self::InvalidVersion(_) => 42202,
            Self::InvalidBody(_) => 400,
            Self::TooLarge => 413,
            Self::Full => 50701,
            Self::NoSuchPath => 404,
            Self::NoSuchMethod => 405,
        }
    }

    #[must_use]
    pub fn status(&self) -> u16 {
        let code = self.code();
        u16::try_from(if code > 999 { code / 100 } else { code }).unwrap_or(500)
    }
}

/// What a schema names that is registered elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedVersion {
    pub name: String,
    pub subject: String,
    pub version: u32,
}

/// A schema under a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub subject: String,
    pub version: u32,
    pub id: u32,
    pub text: String,
    pub references: Vec<NamedVersion>,
}

/// The registry.
#[derive(Debug, Default)]
pub struct Builtin {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By id, which counts from 1.
    schemas: Vec<Stored>,
    /// The same content has the same id under every subject.
    by_content: HashMap<String, u32>,
    /// Ids by version, which counts from 1.
    subjects: BTreeMap<String, Vec<u32>>,
}

#[derive(Debug)]
struct Stored {
    text: String,
    references: Vec<NamedVersion>,
}

/// The body of a look-up or a registration.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Posted {
    schema: String,
    #[serde(default)]
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<NamedVersion>,
}

impl Builtin {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers an event's schema and the shared types that it names.
    pub fn register_event(&self, schema: &EventSchema) -> Result<Version, Error> {
        let references = schema.references.iter().map(|one| self.register_reference(one)).collect::<Result<_, _>>()?;
        self.register(&schema.subject, &schema.text, references)
    }

    fn register_reference(&self, reference: &Reference) -> Result<NamedVersion, Error> {
        let inner = reference.references.iter().map(|one| self.register_reference(one)).collect::<Result<_, _>>()?;
        let version = self.register(&reference.subject, &reference.text, inner)?.version;
        Ok(NamedVersion { name: reference.name.clone(), subject: reference.subject.clone(), version })
    }

    /// Puts a schema under a subject; one that is there already keeps its id and version.
    pub fn register(&self, subject: &str, text: &str, references: Vec<NamedVersion>) -> Result<Version, Error> {
        let content = content(text, &references)?;
        let mut state = self.state();
        if let Some(found) = state.find(subject, &content) {
            return Ok(found);
        }
        state.check(text, &references)?;
        if state.subjects.values().map(Vec::len).sum::<usize>() >= MAX_VERSIONS {
            return Err(Error::Full);
        }
        let id = match state.by_content.get(&content) {
            Some(id) => *id,
            None => state.store(content, Stored { text: text.to_owned(), references }),
        };
        let versions = state.subjects.entry(subject.to_owned()).or_default();
        versions.push(id);
        let version = u32::try_from(versions.len()).unwrap_or(u32::MAX);
        state.version(subject, version)
    }

    /// The schema with exactly this content under a subject.
    pub fn lookup(&self, subject: &str, text: &str, references: &[NamedVersion]) -> Result<Version, Error> {
        let content = content(text, references)?;
        let state = self.state();
        state.versions(subject)?;
        state.find(subject, &content).ok_or(Error::SchemaNotFound)
    }

    /// A schema's text and references.
    pub fn by_id(&self, id: u32) -> Result<(String, Vec<NamedVersion>), Error> {
        let state = self.state();
        let stored = state.stored(id)?;
        Ok((stored.text.clone(), stored.references.clone()))
    }

    pub fn by_subject_version(&self, subject: &str, version: u32) -> Result<Version, Error> {
        self.state().version(subject, version)
    }

    /// The highest version under a subject.
    pub fn latest(&self, subject: &str) -> Result<Version, Error> {
        let state = self.state();
        let last = state.versions(subject)?.len();
        state.version(subject, u32::try_from(last).unwrap_or(u32::MAX))
    }

    #[must_use]
    pub fn subjects(&self) -> Vec<String> {
        self.state().subjects.keys().cloned().collect()
    }

    /// Answers a request of the Confluent API: status and JSON body. `path` is the request's target, query included.
    #[must_use]
    pub fn answer(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let (status, json) = match self.route(method, path, body) {
            Ok(json) => (200, json),
            Err(error) => (error.status(), json!({"error_code": error.code(), "message": error.to_string()})),
        };
        (status, json.to_string().into_bytes())
    }

    fn route(&self, method: &str, path: &str, body: &[u8]) -> Result<Value, Error> {
        let path = path.split_once('?').map_or(path, |(path, _query)| path);
        let segments: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(percent_decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (method, segments.as_slice()) {
            ("GET", []) => Ok(json!({})),
            ("GET", ["config"]) => Ok(json!({"compatibilityLevel": "NONE"})),
            ("GET", ["mode"]) => Ok(json!({"mode": "READWRITE"})),
            ("GET", ["schemas", "types"]) => Ok(json!(["AVRO"])),
            ("GET", ["schemas", "ids", id]) => {
                let (text, references) = self.by_id(schema_id(id)?)?;
                Ok(with_references(json!({"schema": text}), &references))
            }
            ("GET", ["schemas", "ids", id, "versions"]) => {
                let found = self.state().places(schema_id(id)?)?;
                Ok(found
                    .into_iter()
                    .map(|(subject, version)| json!({"subject": subject, "version": version}))
                    .collect())
            }
            ("GET", ["subjects"]) => Ok(json!(self.subjects())),
            ("GET", ["subjects", subject, "versions"]) => {
                let versions = self.state().versions(subject)?.len();
                Ok((1..=versions).collect())
            }
            ("GET", ["subjects", subject, "versions", version]) => {
                let found = match *version {
                    "latest" | "-1" => self.latest(subject)?,
                    number => self.by_subject_version(subject, version_number(number)?)?,
                };
                Ok(found.to_json())
            }
            ("POST", ["subjects", subject]) => {
                let posted = posted(body)?;
                Ok(self.lookup(subject, &posted.schema, &posted.references)?.to_json())
            }
            ("POST", ["subjects", subject, "versions"]) => {
                let posted = posted(body)?;
                Ok(json!({"id": self.register(subject, &posted.schema, posted.references)?.id}))
            }
            ("GET" | "POST", _) => Err(Error::NoSuchPath),
            _ => Err(Error::NoSuchMethod),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn versions(&self, subject: &str) -> Result<&[u32], Error> {
        self.subjects.get(subject).map(Vec::as_slice).ok_or_else(|| Error::SubjectNotFound(subject.to_owned()))
    }

    fn stored(&self, id: u32) -> Result<&Stored, Error> {
        index(id).and_then(|at| self.schemas.get(at)).ok_or(Error::SchemaNotFound)
    }

    fn version(&self, subject: &str, version: u32) -> Result<Version, Error> {
        let ids = self.versions(subject)?;
        let at = index(version).ok_or_else(|| Error::InvalidVersion(version.to_string()))?;
        let id = *ids.get(at).ok_or_else(|| Error::VersionNotFound(version.to_string()))?;
        let stored = self.stored(id)?;
        let (text, references) = (stored.text.clone(), stored.references.clone());
        Ok(Version { subject: subject.to_owned(), version, id, text, references })
    }

    fn find(&self, subject: &str, content: &str) -> Option<Version> {
        let id = self.by_content.get(content)?;
        let at = self.subjects.get(subject)?.iter().position(|known| known == id)?;
        self.version(subject, u32::try_from(at + 1).ok()?).ok()
    }

    fn places(&self, id: u32) -> Result<Vec<(String, usize)>, Error> {
        self.stored(id)?;
        let of_subject = |(subject, ids): (&String, &Vec<u32>)| {
            ids.iter().position(|known| *known == id).map(|at| (subject.clone(), at + 1))
        };
        Ok(self.subjects.iter().filter_map(of_subject).collect())
    }

    fn store(&mut self, content: String, stored: Stored) -> u32 {
        self.schemas.push(stored);
        let id = u32::try_from(self.schemas.len()).unwrap_or(u32::MAX);
        self.by_content.insert(content, id);
        id
    }

    /// Whether the schema can be read, with all that it names.
    fn check(&self, text: &str, references: &[NamedVersion]) -> Result<(), Error> {
        let mut shared = HashMap::new();
        let mut wanted = references.to_vec();
        while let Some(reference) = wanted.pop() {
            if shared.len() >= MAX_REFERENCES {
                return Err(Error::InvalidSchema(format!("it needs more than {MAX_REFERENCES} others")));
            }
            let found = self.version(&reference.subject, reference.version)?;
            shared.insert(reference.name, json_of(&found.text)?);
            wanted.extend(found.references);
        }
        let invalid = |reason: String| Error::InvalidSchema(reason);
        let inlined = inline(&json_of(text)?, &shared).map_err(|error| invalid(error.to_string()))?;
        let schema = apache_avro::Schema::parse_str(&inlined.schema.to_string());
        let schema = schema.map_err(|error| invalid(error.to_string()))?;
        shape::check(&schema).map_err(|error| invalid(error.to_string()))
    }
}

impl Version {
    fn to_json(&self) -> Value {
        let plain = json!({"subject": self.subject, "version": self.version, "id": self.id, "schema": self.text});
        with_references(plain, &self.references)
    }
}

/// Confluent leaves an empty list of references out, and old readers take none.
fn with_references(mut answer: Value, references: &[NamedVersion]) -> Value {
    if !references.is_empty() {
        answer["references"] = json!(references);
    }
    answer
}

fn posted(body: &[u8]) -> Result<Posted, Error> {
    if body.len() > MAX_BODY {
        return Err(Error::TooLarge);
    }
    let posted: Posted = serde_json::from_slice(body).map_err(|error| Error::InvalidBody(error.to_string()))?;
    match posted.schema_type.as_deref() {
        None | Some("AVRO") => Ok(posted),
        Some(other) => Err(Error::InvalidSchema(format!("this registry takes AVRO only, not {other}"))),
    }
}

/// What makes two schemas the same: their JSON, however it is laid out, and what they name.
fn content(text: &str, references: &[NamedVersion]) -> Result<String, Error> {
    Ok(json!([json_of(text)?, references]).to_string())
}

fn json_of(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| Error::InvalidSchema(error.to_string()))
}

/// Ids and versions count from 1.
fn index(number: u32) -> Option<usize> {
    usize::try_from(number.checked_sub(1)?).ok()
}

fn schema_id(text: &str) -> Result<u32, Error> {
    text.parse().map_err(|_| Error::SchemaNotFound)
}

fn version_number(text: &str) -> Result<u32, Error> {
    text.parse().map_err(|_| Error::InvalidVersion(text.to_owned()))
}

/// RFC 3986, section 2.1. What is no escape stays as it is.
fn percent_decode(segment: &str) -> String {
    let bytes = segment.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = (*byte == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        if let Some(decoded) = escaped.and_then(|digits| hex::decode(digits).ok()) {
            out.extend(decoded);
            at += 3;
        } else {
            out.push(*byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;
