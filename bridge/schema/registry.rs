//! The client of a Confluent-compatible schema registry: ids of the schemas that we write, schemas of the ids that we
//! read.
//!
//! Calls go through schema_registry_converter. What was once known is known for ever: ids are immutable, so both
//! directions are kept on disk (`cache`), and a registry that is down stops only what is new.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_referenced_schema, get_schema_by_id, perform_sr_call, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{
    RegisteredReference, SchemaType, SrCall, SuppliedReference, SuppliedSchema,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{info, warn};

use super::answer::{Answer, causes};
use super::cache::{DiskCache, digest};
use super::inline::inline;
use super::writer::{SchemaError, WriterSchema};
use super::{EventSchema, Reference, files};
use crate::config;

/// From connecting to the last byte of the answer. A registry answers in milliseconds; waiting longer only delays
/// the moment at which the disk is asked, or the partition waits.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Of which connecting may take this much.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Writer schemas in memory, some tens of KiB each. A topic holds a handful; a bridge reads tens of topics.
const MAX_WRITERS: usize = 512;

/// Shared types that one schema may need in all, a call to the registry each.
const MAX_REFERENCES: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answered, or not as a registry does: the same call may pass later.
    #[error("the schema registry at {url} cannot be reached: {reason}")]
    Unreachable { url: String, reason: String },
    /// The registry understood, and said no: incompatible, invalid, not allowed.
    #[error("the schema registry refuses {what}: {message} (error code {code})")]
    Refused { what: String, code: u32, message: String },
    #[error(
        "version {version} of {event_type} is not registered under {subject}: run `hookbridge schema register`, or set `registry.auto_register`"
    )]
    NotRegistered { event_type: String, version: u32, subject: String },
    #[error("the schema registry knows no schema with the id {id}")]
    UnknownId { id: u32 },
    /// The schema behind an id is none that we may read with.
    #[error("the schema {id}: {reason}")]
    Unreadable { id: u32, reason: String },
    #[error("the registry's cache folder {path} cannot be used")]
    Cache {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A fault of ours.
    #[error("a schema of our own cannot be used: {reason}")]
    Own { reason: String },
    #[error("the registry's client cannot be made: {reason}")]
    Client { reason: String },
}

impl Error {
    /// Whether the same call may pass later without anybody doing anything to a schema.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// A schema as the registry has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    pub id: u32,
    /// The registry's own count under the subject, which need not be the file's number.
    pub version: u32,
}

/// A registry; cheap to clone, and shared by whoever reads or writes events.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    url: String,
    /// The url as it may be logged: without a login, should one be written into it.
    shown_url: String,
    auto_register: bool,
    settings: SrSettings,
    /// For what schema_registry_converter has no call for.
    http: reqwest::Client,
    username: Option<String>,
    password: Option<config::Secret>,
    disk: DiskCache,
    writers: Mutex<Writers>,
}

/// A writer schema as it is kept on disk: one piece, so that one file answers for all that it needs.
#[derive(Serialize, Deserialize)]
struct CachedSchema {
    schema: String,
}

impl Registry {
    /// A client that has not called anybody yet.
    ///
    /// # Errors
    /// The cache folder cannot be made or read, or the TLS library cannot be set up.
    pub fn new(settings: &config::Registry) -> Result<Self, Error> {
        let url = settings.url.trim_end_matches('/').to_owned();
        let disk = DiskCache::open(&settings.cache, &url)
            .map_err(|source| Error::Cache { path: settings.cache.clone(), source })?;
        let client = || reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT);
        let http = client().build().map_err(|error| Error::Client { reason: causes(&error) })?;
        let password = settings.password.clone();
        let mut builder = SrSettings::new_builder(url.clone());
        builder.set_timeout(CALL_TIMEOUT);
        if let Some(username) = &settings.username {
            builder.set_basic_authorization(username, password.as_ref().map(config::Secret::expose));
        }
        let sr_settings = builder.build_with(client()).map_err(|error| Error::Client { reason: causes(&error) })?;
        let inner = Inner {
            shown_url: without_login(&url),
            url,
            auto_register: settings.auto_register,
            settings: sr_settings,
            http,
            username: settings.username.clone(),
            password,
            disk,
            writers: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The registry's id of the schema that an event is written with.
    ///
    /// Found by content under its subject; where it is not there, registered if the configuration allows. Where the
    /// registry cannot be reached, the id that it gave before.
    pub async fn id_of(&self, schema: &EventSchema) -> Result<u32, Error> {
        self.id(schema, self.inner.auto_register).await
    }

    /// The same of a schema of our own records, under its record name, whatever the configuration says of registering.
    ///
    /// # Errors
    /// As [`Registry::id_of`]; [`Error::Own`] for a text that is no schema.
    pub async fn own_id(&self, text: &str) -> Result<u32, Error> {
        let schema = files::own(text).map_err(|error| Error::Own { reason: error.to_string() })?;
        self.id(&schema, true).await
    }

    async fn id(&self, schema: &EventSchema, register: bool) -> Result<u32, Error> {
        match self.lookup(schema).await {
            Ok(found) => {
                self.forget_if_replaced(schema, found).await;
                if let Some(found) = found {
                    self.remember(schema, found).await;
                    Ok(found.id)
                } else if register {
                    Ok(self.register(schema).await?.id)
                } else {
                    Err(Error::NotRegistered {
                        event_type: schema.event_type.clone(),
                        version: schema.version,
                        subject: schema.subject.clone(),
                    })
                }
            }
            Err(error) if error.is_transient() => match self.inner.disk.get::<Registered>(&content_key(schema)).await {
                Some(known) => {
                    warn!(%error, subject = schema.subject, id = known.id, "the schema's id is taken from the disk cache");
                    Ok(known.id)
                }
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Registers a schema, and before it the shared types that it names, each under its full name.
    /// What is registered already is found, not registered twice.
    pub async fn register(&self, schema: &EventSchema) -> Result<Registered, Error> {
        let references = schema.references.iter().map(supplied).collect();
        let post = SuppliedSchema::new(None, SchemaType::Avro, schema.text.clone()).with_references(references);
        let posted = post_schema(&self.inner.settings, schema.subject.clone(), post).await;
        let id = posted
            .map_err(|error| self.failed(&error, || format!("{} under {}", describe(schema), schema.subject)))?
            .id;
        // The answer to a registration has no version; looking the schema up does.
        let found = self.lookup(schema).await?.ok_or_else(|| Error::Refused {
            what: format!("{} under {}", describe(schema), schema.subject),
            code: 0,
            message: format!("it was registered with the id {id} and cannot be found again"),
        })?;
        info!(subject = schema.subject, id = found.id, version = found.version, "schema registered");
        self.forget_if_replaced(schema, Some(found)).await;
        self.remember(schema, found).await;
        Ok(found)
    }

    /// What the registry has under the schema's subject with exactly its content; `None` if it has not.
    pub async fn lookup(&self, schema: &EventSchema) -> Result<Option<Registered>, Error> {
        self.lookup_text(&schema.subject, &schema.text, &schema.references).await
    }

    /// The schema that a value was written with: from memory, the disk or the registry, in this order.
    pub async fn writer(&self, id: u32) -> Result<Arc<WriterSchema>, Error> {
        if let Some(writer) = self.writers().get(id) {
            return Ok(writer);
        }
        if let Some(cached) = self.inner.disk.get::<CachedSchema>(&id_key(id)).await {
            match WriterSchema::new(id, cached.schema) {
                Ok(writer) => return Ok(self.writers().put(writer)),
                // Written by another version of this program, perhaps: the registry decides.
                Err(error) => warn!(id, %error, "the cached schema cannot be read with"),
            }
        }
        let text = self.fetch(id).await?;
        let writer = WriterSchema::new(id, text.clone())
            .map_err(|error| Error::Unreadable { id, reason: schema_error(&error) })?;
        self.inner.disk.put(&id_key(id), &CachedSchema { schema: text }).await;
        Ok(self.writers().put(writer))
    }

    /// Asks whether the registry answers now. Any answer counts that is not a failure of its own: a login that may
    /// not read the global configuration has reached it all the same.
    pub async fn probe(&self) -> Result<(), Error> {
        let inner = &self.inner;
        let mut request = inner.http.get(format!("{}/config", inner.url));
        if let Some(username) = &inner.username {
            request = request.basic_auth(username, inner.password.as_ref().map(config::Secret::expose));
        }
        match request.send().await {
            Ok(answer) if answer.status().is_server_error() => Err(self.unreachable(answer.status().to_string())),
            Ok(_) => Ok(()),
            Err(error) => Err(self.unreachable(causes(&error.without_url()))),
        }
    }

    /// Where a schema of the registry is read: what `ce_dataschema` says.
    #[must_use]
    pub fn address_of(&self, id: u32) -> String {
        format!("{}/schemas/ids/{id}", self.inner.shown_url)
    }

    fn lookup_text<'a>(&'a self, subject: &'a str, text: &'a str, references: &'a [Reference]) -> Lookup<'a> {
        Box::pin(async move {
            let mut named = Vec::with_capacity(references.len());
            for reference in references {
                let found = self.lookup_text(&reference.subject, &reference.text, &reference.references).await?;
                let Some(found) = found else { return Ok(None) };
                named.push(json!({"name": reference.name, "subject": reference.subject, "version": found.version}));
            }
            let mut body = json!({"schema": text, "schemaType": "AVRO"});
            if !named.is_empty() {
                body["references"] = named.into();
            }
            match perform_sr_call(&self.inner.settings, SrCall::PostForVersion(subject, &body.to_string())).await {
                Ok(raw) => match (raw.id, raw.version) {
                    (Some(id), Some(version)) => Ok(Some(Registered { id, version })),
                    _ => Err(self.unreachable("its answer to a look-up has no id or no version".to_owned())),
                },
                Err(error) => match Answer::of(&error) {
                    Answer::Absent => Ok(None),
                    _ => Err(self.failed(&error, || format!("to look up {subject}"))),
                },
            }
        })
    }

    /// The schema's text from the registry, in one piece.
    async fn fetch(&self, id: u32) -> Result<String, Error> {
        let what = || format!("the schema {id}");
        let found = get_schema_by_id(id, &self.inner.settings).await.map_err(|error| match Answer::of(&error) {
            Answer::Absent => Error::UnknownId { id },
            _ => self.failed(&error, what),
        })?;
        let unreadable = |reason: String| Error::Unreadable { id, reason };
        if found.schema_type != SchemaType::Avro {
            return Err(unreadable(format!("is {:?}, not Avro", found.schema_type)));
        }
        let parse = |text: &str| {
            serde_json::from_str::<serde_json::Value>(text).map_err(|error| unreadable(format!("is not JSON: {error}")))
        };
        let mut shared = HashMap::new();
        let mut wanted: VecDeque<RegisteredReference> = found.references.into();
        while let Some(reference) = wanted.pop_front() {
            if shared.contains_key(&reference.name) {
                continue;
            }
            if shared.len() >= MAX_REFERENCES {
                return Err(unreadable(format!("needs more than {MAX_REFERENCES} other schemas")));
            }
            let part = get_referenced_schema(&self.inner.settings, &reference).await.map_err(|error| {
                self.failed(&error, || format!("version {} of {}", reference.version, reference.subject))
            })?;
            shared.insert(reference.name, parse(&part.schema)?);
            wanted.extend(part.references);
        }
        let inlined = inline(&parse(&found.schema)?, &shared).map_err(|error| unreadable(error.to_string()))?;
        Ok(inlined.schema.to_string())
    }

    /// Keeps what the registry said of a schema of ours, so that neither writing nor reading it asks again.
    async fn remember(&self, schema: &EventSchema, found: Registered) {
        self.inner.disk.put(&id_key(found.id), &CachedSchema { schema: schema.inlined.clone() }).await;
        self.inner.disk.put(&content_key(schema), &found).await;
    }

    /// Ids never change their meaning. Where a schema of ours has lost its id, or its id means another schema, this
    /// is not the registry that the cache was filled from, and events would be read under wrong schemas.
    async fn forget_if_replaced(&self, schema: &EventSchema, found: Option<Registered>) {
        let disk = &self.inner.disk;
        let known: Option<Registered> = disk.get(&content_key(schema)).await;
        let has_another_id = known.is_some_and(|known| found.is_none_or(|found| found.id != known.id));
        let means_another = match found {
            Some(found) => {
                let kept: Option<CachedSchema> = disk.get(&id_key(found.id)).await;
                kept.is_some_and(|kept| !same_shape(&kept.schema, schema))
            }
            None => false,
        };
        if has_another_id || means_another {
            warn!(
                url = self.inner.shown_url,
                subject = schema.subject,
                "the registry contradicts what it said before: it was replaced or reset, and its cache is emptied"
            );
            disk.clear().await;
            *self.writers() = Writers::default();
        }
    }

    fn failed(&self, error: &SRCError, what: impl Fn() -> String) -> Error {
        match Answer::of(error) {
            Answer::Unavailable => self.unreachable(causes(error)),
            Answer::Absent => Error::Refused { what: what(), code: 404, message: "it is not there".to_owned() },
            Answer::Refused { code, message } => Error::Refused { what: what(), code, message },
        }
    }

    fn unreachable(&self, reason: String) -> Error {
        Error::Unreachable { url: self.inner.shown_url.clone(), reason }
    }

    fn writers(&self) -> std::sync::MutexGuard<'_, Writers> {
        self.inner.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("url", &self.inner.shown_url).finish_non_exhaustive()
    }
}

type Lookup<'a> = Pin<Box<dyn Future<Output = Result<Option<Registered>, Error>> + Send + 'a>>;

/// The schemas in memory; past the limit the oldest goes, and is read from disk when it is met again.
#[derive(Default)]
struct Writers {
    by_id: BTreeMap<u32, Arc<WriterSchema>>,
    order: VecDeque<u32>,
}

impl Writers {
    fn get(&self, id: u32) -> Option<Arc<WriterSchema>> {
        self.by_id.get(&id).cloned()
    }

    fn put(&mut self, writer: WriterSchema) -> Arc<WriterSchema> {
        let id = writer.id;
        let writer = Arc::new(writer);
        if self.by_id.insert(id, Arc::clone(&writer)).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > MAX_WRITERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
        writer
    }
}

fn without_login(url: &str) -> String {
    let Ok(mut parsed) = reqwest::Url::parse(url) else { return "(not a url)".to_owned() };
    if parsed.username().is_empty() && parsed.password().is_none() {
        return url.to_owned();
    }
    // Neither fails for a url that has a login.
    let _ = parsed.set_username("");
    let _ = parsed.set_password(None);
    parsed.to_string()
}

fn schema_error(error: &SchemaError) -> String {
    match error {
        SchemaError::Avro(cause) => format!("{error}: {cause}"),
        SchemaError::Shape(_) => error.to_string(),
    }
}

fn describe(schema: &EventSchema) -> String {
    format!("version {} of {}", schema.version, schema.event_type)
}

fn supplied(reference: &Reference) -> SuppliedReference {
    SuppliedReference::new(reference.name.clone(), reference.subject.clone(), reference.text.clone())
        .with_references(reference.references.iter().map(supplied).collect())
}

/// Whether a cached text and our schema read the same bytes in the same way, as far as their canonical forms say.
fn same_shape(cached: &str, schema: &EventSchema) -> bool {
    apache_avro::Schema::parse_str(cached).is_ok_and(|cached| cached.canonical_form() == schema.schema.canonical_form())
}

fn id_key(id: u32) -> String {
    format!("id-{id}")
}

/// By subject and content: the text, and the texts of all that it needs.
fn content_key(schema: &EventSchema) -> String {
    format!("schema-{}", digest(&[&schema.subject, &schema.text, &schema.inlined]))
}

#[cfg(test)]
mod tests;
