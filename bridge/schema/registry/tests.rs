//! Against the built-in registry behind a real socket.

use std::convert::Infallible;
use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::super::builtin::Builtin;
use super::super::{decode, taxonomy, wire};
use super::*;

/// What the server says whatever it is asked.
type Canned = Option<(u16, &'static str)>;

#[derive(Default)]
struct Script {
    registry: Builtin,
    canned: Mutex<Canned>,
    requests: Mutex<Vec<String>>,
}

struct Server {
    address: SocketAddr,
    script: Arc<Script>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        Self::at("127.0.0.1:0", Arc::default()).await
    }

    async fn at(address: &str, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(listener, Arc::clone(&script)));
        Self { address, script, task }
    }

    /// Nobody listens any more; what was registered is kept for another start.
    async fn stop(self) -> (String, Arc<Script>) {
        self.task.abort();
        let _ = self.task.await;
        (self.address.to_string(), self.script)
    }

    fn say(&self, canned: Canned) {
        *self.script.canned.lock().unwrap() = canned;
    }

    fn requests(&self) -> usize {
        self.script.requests.lock().unwrap().len()
    }

    fn client(&self, cache: &TempDir) -> Registry {
        client(&self.address.to_string(), cache, false)
    }
}

fn client(address: &str, cache: &TempDir, auto_register: bool) -> Registry {
    Registry::new(&config::Registry {
        url: format!("http://{address}/apis/ccompat/v7/"),
        auto_register,
        cache: cache.path().to_owned(),
        username: Some("bridge".into()),
        password: Some(config::Secret::new("secret")),
    })
    .unwrap()
}

async fn serve(listener: TcpListener, script: Arc<Script>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let script = Arc::clone(&script);
        let service = service_fn(move |request| respond(Arc::clone(&script), request));
        // One request a connection, so that a stopped server leaves none behind.
        let mut connection = hyper::server::conn::http1::Builder::new();
        connection.keep_alive(false);
        tokio::spawn(async move { connection.serve_connection(TokioIo::new(stream), service).await });
    }
}

async fn respond(script: Arc<Script>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(parts.headers["authorization"], "Basic YnJpZGdlOnNlY3JldA==");
    let target = parts.uri.to_string();
    let path = target.strip_prefix("/apis/ccompat/v7").unwrap();
    script.requests.lock().unwrap().push(format!("{} {path}", parts.method));
    let canned = *script.canned.lock().unwrap();
    let (status, answer) = match canned {
        Some((status, text)) => (status, text.as_bytes().to_vec()),
        None => script.registry.answer(parts.method.as_str(), path, &body),
    };
    Ok(Response::builder().status(status).body(Full::new(answer.into())).unwrap())
}

fn purchase() -> EventSchema {
    taxonomy::one("commerce", "purchase_completed", 1)
}

#[tokio::test]
async fn a_schema_that_is_not_registered_stays_so_until_somebody_registers_it() {
    let (server, cache) = (Server::start().await, tempfile::tempdir().unwrap());
    let registry = server.client(&cache);
    let error = registry.id_of(&purchase()).await.unwrap_err();
    assert!(matches!(error, Error::NotRegistered { .. }) && !error.is_transient());
    assert!(error.to_string().contains("hookbridge schema register"), "{error}");
    assert!(server.script.registry.subjects().is_empty());

    let registered = registry.register(&purchase()).await.unwrap();
    assert_eq!(registered.version, 1);
    assert_eq!(registry.id_of(&purchase()).await.unwrap(), registered.id);
    assert_eq!(registry.register(&purchase()).await.unwrap(), registered);
    let subjects = server.script.registry.subjects();
    assert!(subjects.contains(&"events.purchase_completed-value".to_owned()));
    assert!(subjects.contains(&"hookbridge.common.Campaign".to_owned()));
}

#[tokio::test]
async fn auto_register_registers_the_whole_taxonomy_and_every_schema_is_read_back() {
    let (server, cache) = (Server::start().await, tempfile::tempdir().unwrap());
    let registry = client(&server.address.to_string(), &cache, true);
    // Another client, with no cache, so that nothing but the registry's answer is read.
    let elsewhere = tempfile::tempdir().unwrap();
    let reader = server.client(&elsewhere);
    for schema in taxonomy::all() {
        let id = registry.id_of(&schema).await.unwrap();
        let writer = reader.writer(id).await.unwrap();
        assert_eq!(writer.id, id);
        assert_eq!(writer.schema.canonical_form(), schema.schema.canonical_form());
    }
}

#[tokio::test]
async fn a_registry_that_is_down_stops_nothing_that_was_known() {
    let (server, cache) = (Server::start().await, tempfile::tempdir().unwrap());
    let id = client(&server.address.to_string(), &cache, true).id_of(&purchase()).await.unwrap();
    let (address, script) = server.stop().await;

    // A new process: nothing in memory, nobody at the other end.
    let restarted = client(&address, &cache, true);
    assert!(restarted.probe().await.is_err());
    assert_eq!(restarted.id_of(&purchase()).await.unwrap(), id);
    assert_eq!(restarted.writer(id).await.unwrap().schema.canonical_form(), purchase().schema.canonical_form());

    let unknown = restarted.id_of(&taxonomy::one("identity", "lead_captured", 1)).await.unwrap_err();
    assert!(matches!(unknown, Error::Unreachable { .. }) && unknown.is_transient());
    assert!(restarted.writer(4711).await.unwrap_err().is_transient());

    let server = Server::at(&address, script).await;
    assert!(restarted.probe().await.is_ok());
    assert!(restarted.id_of(&taxonomy::one("identity", "lead_captured", 1)).await.is_ok());
    assert!(matches!(restarted.writer(4711).await.unwrap_err(), Error::UnknownId { id: 4711 }));
    drop(server);
}

#[tokio::test]
async fn a_writer_schema_is_fetched_once_and_survives_a_damaged_cache() {
    let (server, cache) = (Server::start().await, tempfile::tempdir().unwrap());
    let id = server.script.registry.register_event(&purchase()).unwrap().id;
    let registry = server.client(&cache);
    registry.writer(id).await.unwrap();
    let asked = server.requests();
    registry.writer(id).await.unwrap();
    server.client(&cache).writer(id).await.unwrap();
    assert_eq!(server.requests(), asked);

    for folder in std::fs::read_dir(cache.path()).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let half = std::fs::metadata(&path).unwrap().len() / 2;
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(half).unwrap();
        }
    }
    server.client(&cache).writer(id).await.unwrap();
    assert!(server.requests() > asked);
    let (address, _) = server.stop().await;
    client(&address, &cache, false).writer(id).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_was_replaced_is_noticed_and_its_old_ids_are_forgotten() {
    let (server, cache) = (Server::start().await, tempfile::tempdir().unwrap());
    let registry = client(&server.address.to_string(), &cache, true);
    let old = registry.id_of(&purchase()).await.unwrap();
    registry.writer(old).await.unwrap();
    let (address, _) = server.stop().await;

    // An empty registry at the same url gives the same ids to other schemas.
    let server = Server::at(&address, Arc::default()).await;
    for schema in taxonomy::all().iter().filter(|schema| schema.event_type != "purchase_completed") {
        registry.id_of(schema).await.unwrap();
    }
    assert_ne!(registry.id_of(&purchase()).await.unwrap(), old);
    let reader = server.client(&tempfile::tempdir().unwrap());
    let (remembered, real) = (registry.writer(old).await.unwrap(), reader.writer(old).await.unwrap());
    assert_eq!(remembered.schema.canonical_form(), real.schema.canonical_form());
}

#[tokio::test]
async fn no_is_told_from_not_now() {
    let (server, cache) = (Server::start().await, tempfile::tempdir().unwrap());
    let registry = server.client(&cache);
    let answered = async |canned| {
        server.say(Some(canned));
        registry.register(&purchase()).await.unwrap_err()
    };
    let incompatible = answered((409, r#"{"error_code": 409, "message": "READER_FIELD_MISSING_DEFAULT_VALUE"}"#)).await;
    assert!(matches!(&incompatible, Error::Refused { code: 409, message, .. } if message.contains("READER_FIELD")));
    let denied = answered((401, "<html>who are you?</html>")).await;
    assert!(matches!(denied, Error::Refused { code: 401, .. }), "{denied}");
    for later in [
        (503, "upstream"),
        (500, r#"{"error_code": 50003, "message": "forwarding failed"}"#),
        (429, r#"{"error_code": 429, "message": "slow down"}"#),
        (200, "<html>a proxy's page</html>"),
        (404, "<html>no such page</html>"),
    ] {
        let error = answered(later).await;
        assert!(error.is_transient(), "{later:?}: {error}");
        assert!(!error.to_string().contains("secret"));
    }
}

#[tokio::test]
async fn a_schema_that_could_exhaust_us_is_not_read_with() {
    let (server, cache) = (Server::start().await, tempfile::tempdir().unwrap());
    let registry = server.client(&cache);
    server.say(Some((200, r#"{"schema": "{\"type\": \"record\", \"name\": \"N\", \"fields\": [{\"name\": \"n\", \"type\": [\"null\", \"N\"]}]}"}"#)));
    let error = registry.writer(1).await.unwrap_err();
    assert!(matches!(&error, Error::Unreadable { id: 1, reason } if reason.contains("contains itself")), "{error}");
    assert!(!error.is_transient());
    server.say(Some((200, r#"{"schema": "syntax = \"proto3\";", "schemaType": "PROTOBUF"}"#)));
    assert!(matches!(registry.writer(2).await.unwrap_err(), Error::Unreadable { id: 2, .. }));
}

#[tokio::test]
async fn framed_bytes_are_read_under_the_schema_that_they_name() {
    use apache_avro::types::Value;
    let (server, cache) = (Server::start().await, tempfile::tempdir().unwrap());
    let text = r#"{"type":"record","name":"E","fields":[{"name":"n","type":"long"}]}"#;
    let id = server.script.registry.register("e-value", text, Vec::new()).unwrap().id;
    let decoder = decode::Decoder::new(server.client(&cache));
    let mut framed = Vec::new();
    wire::frame(id, &mut framed);
    framed.push(14);
    let read = decoder.decode(&framed).await.unwrap();
    assert_eq!(read.value, Value::Record(vec![("n".into(), Value::Long(7))]));
    assert_eq!(read.writer.id, id);

    framed.push(0);
    let error = decoder.decode(&framed).await.unwrap_err();
    assert!(matches!(error, decode::Error::Datum { .. }) && !error.is_transient());
    assert!(matches!(decoder.decode(b"{}").await.unwrap_err(), decode::Error::Frame(_)));
    let (_, _) = server.stop().await;
    wire::frame(99, &mut framed);
    let elsewhere = decoder.decode(&wire::header(99)).await.unwrap_err();
    assert!(elsewhere.is_transient(), "{elsewhere}");
}

#[test]
fn the_oldest_schema_leaves_a_full_memory() {
    let mut writers = Writers::default();
    for id in 0..=u32::try_from(MAX_WRITERS).unwrap() {
        writers.put(WriterSchema::new(id, "\"int\"".into()).unwrap());
    }
    assert_eq!((writers.by_id.len(), writers.order.len()), (MAX_WRITERS, MAX_WRITERS));
    assert!(writers.get(0).is_none() && writers.get(1).is_some());
}

#[tokio::test]
async fn a_login_in_the_url_is_not_shown() {
    let cache = tempfile::tempdir().unwrap();
    let settings = config::Registry {
        url: "http://bridge:hunter2@127.0.0.1:1/".into(),
        auto_register: false,
        cache: cache.path().to_owned(),
        username: None,
        password: None,
    };
    let registry = Registry::new(&settings).unwrap();
    let error = registry.id_of(&purchase()).await.unwrap_err();
    let probed = registry.probe().await.unwrap_err();
    let shown = format!("{registry:?} {error} {error:?} {probed} {probed:?}");
    assert!(shown.contains("127.0.0.1:1") && !shown.contains("hunter2"), "{shown}");
}
