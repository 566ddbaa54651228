//! Reads `schemas/<category>/<event_type>/<version>.avsc` and the shared types in `schemas/common/`.

mod others;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apache_avro::Schema;
use serde_json::Value;

use super::inline::{self, compact, full_name, inline};
use super::{EventSchema, Reference, shape};
use crate::causes::chain;
use crate::config::{EventDef, Location, SchemaVersion};

pub use self::others::others;

/// The folder of the types that events share.
pub const COMMON: &str = "common";

/// The root attribute in which a schema says which version of a shared type it means: `{"<full name>": <number>}`.
/// A type that is not named there is meant in its version 1.
pub const REFERENCES_ATTRIBUTE: &str = "hookbridge.references";

/// Bytes of one file. Registries take about as much; the largest of the taxonomy has 6 KiB.
pub const MAX_FILE: u64 = 1 << 20;

/// What is wrong with one file or folder.
#[derive(Debug)]
pub struct Problem {
    /// The file or folder.
    pub path: PathBuf,
    /// Where the configuration asks for it; `None` for a shared type.
    pub at: Option<Location>,
    pub error: Error,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), chain(&self.error))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot be read")]
    Read(#[source] io::Error),
    #[error("is larger than {MAX_FILE} bytes")]
    TooLarge,
    #[error("there is no such folder for the event `{event_type}`")]
    NoEventFolder { event_type: String, meant: Option<String> },
    #[error("the event `{event_type}` is in the category `{found}`, not `{configured}`")]
    WrongCategory { event_type: String, configured: String, found: String },
    #[error("a version's file is named by its number, from 1, without leading zeros")]
    NotAVersion,
    #[error("there is no version {version}; there {}", list(present))]
    NoSuchVersion { version: u32, present: Vec<u32> },
    #[error("there is no version of the event `{event_type}` in it")]
    NoVersions { event_type: String },
    #[error("is not JSON: {0}")]
    Json(serde_json::Error),
    #[error("{0}")]
    Types(inline::Error),
    #[error("is not an Avro schema: {0}")]
    Avro(Box<apache_avro::Error>),
    #[error("{0}")]
    Shape(shape::Error),
    #[error("the root must be a record")]
    NotARecord,
    #[error("the type is named `{found}`; by its place it should be `{expected}`")]
    WrongName { expected: String, found: String },
    #[error("`{name}` is defined by `{other}` already")]
    DefinedTwice { name: String, other: String },
    #[error("`{name}` is wanted in version {version}; there {}", list(present))]
    NoSharedVersion { name: String, version: u32, present: Vec<u32> },
    #[error("`{name}` is wanted in version {one} and in version {other}; one schema can hold one of them")]
    SharedVersions { name: String, one: u32, other: u32 },
}

impl Error {
    /// What to do about it, where that can be said.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read(error) if error.kind() == io::ErrorKind::NotFound => {
                Some("`schemas` of the configuration says where the schemas are".to_owned())
            }
            Self::NoEventFolder { meant: Some(meant), .. } => Some(format!("did you mean `{meant}`?")),
            Self::NoEventFolder { meant: None, .. } | Self::NoVersions { .. } => {
                Some("a schema is at <schemas>/<category>/<event_type>/<version>.avsc".to_owned())
            }
            Self::WrongCategory { found, .. } => Some(format!("write `category: {found}`, or move the folder")),
            Self::NotAVersion => {
                Some("name it 1.avsc, 2.avsc, …; a shared type campaign.avsc, campaign.2.avsc".to_owned())
            }
            Self::Types(inline::Error::UnknownType { .. }) => {
                Some(format!("a shared type is in {COMMON}/ and is named in full, namespace and all"))
            }
            _ => None,
        }
    }
}

fn list(versions: &[u32]) -> String {
    match versions {
        [] => "is none".to_owned(),
        [one] => format!("is {one}"),
        many => format!("are {}", many.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
    }
}

/// The schema of every configured event, in the order of their names; or everything that is wrong.
pub fn load(
    dir: &Path,
    events: &BTreeMap<String, EventDef>,
    topic_prefix: &str,
) -> Result<Vec<EventSchema>, Vec<Problem>> {
    let (shared, mut problems) = SharedTypes::load(dir);
    let folders = match event_folders(dir) {
        Ok(folders) => folders,
        Err(error) => {
            problems.push(Problem { path: dir.to_owned(), at: None, error: Error::Read(error) });
            return Err(problems);
        }
    };
    let mut schemas = Vec::with_capacity(events.len());
    for (event_type, definition) in events {
        let before = problems.len();
        let mut problem = |path: &Path, error| {
            problems.push(Problem { path: path.to_owned(), at: Some(definition.at.clone()), error });
        };
        let folder = dir.join(&definition.category).join(event_type);
        if !folders.iter().any(|(category, name)| *category == definition.category && name == event_type) {
            problem(&folder, missing_folder(event_type, &definition.category, &folders));
            continue;
        }
        let Some((version, path)) = choose_version(&folder, event_type, definition.version, &mut problem) else {
            continue;
        };
        match read(&path).and_then(|text| parse(&text, &shared)) {
            Ok(parsed) => {
                if let Err(error) = names_its_event(&parsed.schema, event_type) {
                    problem(&path, error);
                }
                if problems.len() == before {
                    let topic = format!("{topic_prefix}{}", definition.topic);
                    schemas.push(parsed.into_event(event_type, &definition.category, version, topic));
                }
            }
            Err(error) => problem(&path, error),
        }
    }
    if problems.is_empty() { Ok(schemas) } else { Err(problems) }
}

/// A schema's text, understood.
#[derive(Debug)]
pub struct Parsed {
    pub text: String,
    pub references: Vec<Reference>,
    pub inlined: String,
    pub schema: Schema,
}

impl Parsed {
    fn into_event(self, event_type: &str, category: &str, version: u32, topic: String) -> EventSchema {
        EventSchema {
            event_type: event_type.to_owned(),
            category: category.to_owned(),
            version,
            subject: format!("{topic}-value"),
            topic,
            text: self.text,
            references: self.references,
            inlined: self.inlined,
            schema: Arc::new(self.schema),
        }
    }
}

/// Reads a schema with the shared types that it names.
pub fn parse(text: &str, shared: &SharedTypes) -> Result<Parsed, Error> {
    let value: Value = serde_json::from_str(text).map_err(Error::Json)?;
    let mut chosen = BTreeMap::new();
    let references = shared.references(&value, &mut chosen, &mut Vec::new())?;
    let definitions =
        chosen.iter().filter_map(|(name, version)| Some((name.clone(), shared.get(name, *version)?.value.clone())));
    let inlined = inline(&value, &definitions.collect()).map_err(Error::Types)?.schema.to_string();
    let schema = Schema::parse_str(&inlined).map_err(|error| Error::Avro(Box::new(error)))?;
    shape::check(&schema).map_err(Error::Shape)?;
    Ok(Parsed { text: compact(text), references, inlined, schema })
}

/// A schema of our own records (receipts and the like), which needs no shared types: registered under its record's full
/// name, that of Confluent's RecordNameStrategy.
pub fn own(text: &str) -> Result<EventSchema, Error> {
    let parsed = parse(text, &SharedTypes::default())?;
    let mut schema = parsed.into_event("", "hookbridge", 1, String::new());
    schema.subject = schema.full_name();
    schema.event_type.clone_from(&schema.subject);
    Ok(schema)
}

/// The text of a schema's file.
pub fn read(path: &Path) -> Result<String, Error> {
    if std::fs::metadata(path).map_err(Error::Read)?.len() > MAX_FILE {
        return Err(Error::TooLarge);
    }
    std::fs::read_to_string(path).map_err(Error::Read)
}

/// The types in `schemas/common/`: `<type>.avsc` is version 1, `<type>.<n>.avsc` version n.
#[derive(Debug, Default)]
pub struct SharedTypes {
    by_name: BTreeMap<String, BTreeMap<u32, Shared>>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    text: String,
    value: Value,
}

impl SharedTypes {
    /// What can be read, and what is wrong with the rest. A folder without `common/` has none.
    #[must_use]
    pub fn load(dir: &Path) -> (Self, Vec<Problem>) {
        let (mut types, mut problems) = (Self::default(), Vec::new());
        let Ok(entries) = std::fs::read_dir(dir.join(COMMON)) else { return (types, problems) };
        let mut paths: Vec<_> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_schema(path)).collect();
        paths.sort();
        for path in paths {
            if let Err(error) = types.add(&path) {
                problems.push(Problem { path, at: None, error });
            }
        }
        // A shared type that is broken is everybody's trouble, whether or not an event uses it today.
        for shared in types.by_name.values().flat_map(BTreeMap::values) {
            if let Err(error) = parse(&shared.text, &types) {
                problems.push(Problem { path: shared.path.clone(), at: None, error });
            }
        }
        (types, problems)
    }

    fn add(&mut self, path: &Path) -> Result<(), Error> {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).ok_or(Error::NotAVersion)?;
        let (expected, version) = match stem.split_once('.') {
            None => (stem, 1),
            Some((name, version)) => (name, version_number(version).filter(|n| *n > 1).ok_or(Error::NotAVersion)?),
        };
        let text = read(path)?;
        let value: Value = serde_json::from_str(&text).map_err(Error::Json)?;
        let name = value.as_object().and_then(|definition| full_name(definition, None)).unwrap_or_default();
        if !same_name(simple_name(&name), expected) {
            return Err(Error::WrongName { expected: camel_case(expected), found: name });
        }
        let versions = self.by_name.entry(name.clone()).or_default();
        if let Some(other) = versions.get(&version) {
            let other = other.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            return Err(Error::DefinedTwice { name, other });
        }
        versions.insert(version, Shared { path: path.to_owned(), text: compact(&text), value });
        Ok(())
    }

    fn get(&self, name: &str, version: u32) -> Option<&Shared> {
        self.by_name.get(name)?.get(&version)
    }

    /// The references of `schema`; what they need in turn is in them. `chosen` gathers every type that is met.
    fn references(
        &self,
        schema: &Value,
        chosen: &mut BTreeMap<String, u32>,
        inside: &mut Vec<String>,
    ) -> Result<Vec<Reference>, Error> {
        // Which names are used does not hang on the version of what they mean.
        let any: HashMap<_, _> = self
            .by_name
            .iter()
            .filter_map(|(name, versions)| Some((name.clone(), versions.values().next()?.value.clone())))
            .collect();
        let mut references = Vec::new();
        for name in inline(schema, &any).map_err(Error::Types)?.direct {
            if inside.contains(&name) {
                return Err(Error::Shape(shape::Error::Recursive { name }));
            }
            let version = wanted_version(schema, &name);
            let shared = self.get(&name, version).ok_or_else(|| Error::NoSharedVersion {
                name: name.clone(),
                version,
                present: self.by_name.get(&name).into_iter().flat_map(BTreeMap::keys).copied().collect(),
            })?;
            if let Some(other) = chosen.insert(name.clone(), version).filter(|other| *other != version) {
                return Err(Error::SharedVersions { name, one: other, other: version });
            }
            inside.push(name.clone());
            let inner = self.references(&shared.value, chosen, inside)?;
            inside.pop();
            references.push(Reference {
                subject: name.clone(),
                name,
                version,
                text: shared.text.clone(),
                references: inner,
            });
        }
        Ok(references)
    }
}

fn wanted_version(schema: &Value, name: &str) -> u32 {
    let wanted = schema.get(REFERENCES_ATTRIBUTE).and_then(|versions| versions.get(name));
    wanted.and_then(Value::as_u64).and_then(|version| u32::try_from(version).ok()).unwrap_or(1)
}

/// Every (category, event type) that has a folder.
fn event_folders(dir: &Path) -> io::Result<Vec<(String, String)>> {
    let mut folders = Vec::new();
    for category in folder_names(dir)? {
        if category != COMMON {
            let names = folder_names(&dir.join(&category))?;
            folders.extend(names.into_iter().map(|name| (category.clone(), name)));
        }
    }
    Ok(folders)
}

fn folder_names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.path().is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn missing_folder(event_type: &str, category: &str, folders: &[(String, String)]) -> Error {
    if let Some((found, _)) = folders.iter().find(|(_, name)| name == event_type) {
        return Error::WrongCategory {
            event_type: event_type.to_owned(),
            configured: category.to_owned(),
            found: found.clone(),
        };
    }
    // Three slips are as far as a name can be off and still be meant.
    let meant = folders
        .iter()
        .map(|(_, name)| (strsim::damerau_levenshtein(name, event_type), name))
        .filter(|(distance, _)| *distance <= 3)
        .min();
    Error::NoEventFolder { event_type: event_type.to_owned(), meant: meant.map(|(_, name)| name.clone()) }
}

fn choose_version(
    folder: &Path,
    event_type: &str,
    wanted: SchemaVersion,
    problem: &mut impl FnMut(&Path, Error),
) -> Option<(u32, PathBuf)> {
    let mut present = BTreeMap::new();
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_schema(path)) {
                match path.file_stem().and_then(|stem| version_number(stem.to_str()?)) {
                    Some(version) => _ = present.insert(version, path),
                    None => problem(&path, Error::NotAVersion),
                }
            }
        }
        Err(error) => {
            problem(folder, Error::Read(error));
            return None;
        }
    }
    let version = match wanted {
        SchemaVersion::Number(version) => version,
        SchemaVersion::Latest => {
            let Some(highest) = present.keys().next_back() else {
                problem(folder, Error::NoVersions { event_type: event_type.to_owned() });
                return None;
            };
            *highest
        }
    };
    let path = present.remove(&version);
    if path.is_none() {
        problem(folder, Error::NoSuchVersion { version, present: present.into_keys().collect() });
    }
    path.map(|path| (version, path))
}

fn is_schema(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "avsc")
}

fn version_number(text: &str) -> Option<u32> {
    let number = text.parse().ok().filter(|number| *number > 0)?;
    // Not `01`, nor `+1`: two files must not be the same version.
    (u32::to_string(&number) == text).then_some(number)
}

fn names_its_event(schema: &Schema, event_type: &str) -> Result<(), Error> {
    let Schema::Record(record) = schema else { return Err(Error::NotARecord) };
    if same_name(record.name.name(), event_type) {
        Ok(())
    } else {
        Err(Error::WrongName { expected: camel_case(event_type), found: record.name.fullname(None) })
    }
}

/// `PurchaseCompleted` and `purchase_completed` are the same name, written as a type and as an event.
fn same_name(type_name: &str, snake: &str) -> bool {
    let letters = |text: &str| text.replace('_', "").to_ascii_lowercase();
    letters(type_name) == letters(snake)
}

fn simple_name(full_name: &str) -> &str {
    full_name.rsplit_once('.').map_or(full_name, |(_, name)| name)
}

fn camel_case(snake: &str) -> String {
    let mut out = String::with_capacity(snake.len());
    for word in snake.split('_') {
        let mut letters = word.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}

#[cfg(test)]
mod tests;
