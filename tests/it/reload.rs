//! Another configuration for a bridge that runs: no request is lost by it, it takes effect whole or not at all, and what
//! it does not change is left alone.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::harness::bridge::{Bridge, Receipt, Setup};
use crate::harness::gate::Gate;
use crate::harness::http::Connection;
use crate::harness::postgres::Database;
use crate::harness::process::progress;
use crate::harness::senders::{self, SHOP_KEY};
use crate::harness::{eventually, services};

/// New topics and their leaders, on two busy cores.
const RELOADED_WITHIN: Duration = Duration::from_secs(60);
const DELIVERED_WITHIN: Duration = Duration::from_secs(60);
const NEW_KEY: &[u8] = b"the-shop-has-another-key-by-now!";

/// A bridge whose configuration is changed while it runs.
struct Changing {
    bridge: Bridge,
    /// The configuration that it started with.
    yaml: String,
    reloads: AtomicUsize,
}

impl Changing {
    async fn start(setup: Setup) -> Self {
        Self { yaml: setup.yaml(), bridge: Bridge::start(setup).await, reloads: AtomicUsize::new(0) }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.bridge.setup.folder.join(name)
    }

    /// Writes another configuration, asks for a reload and waits until it has come to something: to `result`.
    async fn reload(&self, yaml: &str, result: &str) {
        let before = self.count(&[("result", result)]).await;
        fs::write(self.file("hookbridge.yaml"), yaml).unwrap();
        self.bridge.ask_to_reload();
        let all = self.reloads.fetch_add(1, Ordering::Relaxed) + 1;
        eventually("the reload to end", RELOADED_WITHIN, async || (self.count(&[]).await == all).then_some(())).await;
        assert_eq!(self.count(&[("result", result)]).await, before + 1, "{result}\n{}", self.bridge.log());
    }

    async fn count(&self, labels: &[(&str, &str)]) -> usize {
        let counted = self.bridge.metrics().await.sum("hookbridge_config_reloads_total", labels);
        format!("{counted}").parse().expect("a whole number")
    }

    /// Status and text of `/readyz`.
    async fn readyz(&self) -> (u16, String) {
        let answer = self.bridge.admin("/readyz").await.expect("the admin port answers");
        (answer.status, answer.text())
    }

    /// An order by a source that signs as the shop does, with the shop's key.
    async fn order(&self, source: &str, id: &str) -> u16 {
        self.order_by(SHOP_KEY, source, id).await
    }

    async fn order_by(&self, key: &[u8], source: &str, id: &str) -> u16 {
        let body = format!(r#"{{"type": "order_placed", "data": {{"customer_id": "{id}"}}}}"#);
        let request = senders::standard_by(key, source, id, senders::now(), body.as_bytes());
        self.bridge.post(&request).await.status
    }
}

/// `yaml` with one place of it replaced, which must be there.
fn with(yaml: &str, from: &str, to: &str) -> String {
    assert_eq!(yaml.matches(from).count(), 1, "{from:?} in\n{yaml}");
    yaml.replacen(from, to, 1)
}

fn with_source(yaml: &str, name: &str) -> String {
    let key = BASE64.encode(SHOP_KEY);
    let source = format!(
        "\nsources:\n  {name}:\n    preset: standard-webhooks\n    secrets: [whsec_{key}]\n    event_type: .type\n    payload: .data\n"
    );
    with(yaml, "\nsources:\n", &source)
}

// === Under load ===

const RELOADS: usize = 50;
const CONNECTIONS: usize = 16;
/// Answers between two reloads, so that each comes upon requests under way.
const BETWEEN: usize = 100;
const AT_LEAST_A_SECOND: u128 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_reloads_under_load_five_of_them_broken_fail_no_request() {
    let changing = Changing::start(Setup::new("reload-load")).await;
    let load = Load::start(changing.bridge.port());
    let began = Instant::now();
    for reload in 0..RELOADS {
        load.wait_for_more(BETWEEN).await;
        if let Some(yaml) = broken(&changing.yaml, reload) {
            changing.reload(&yaml, "refused").await;
            let (status, text) = changing.readyz().await;
            assert_eq!(status, 200, "the one before is in force: {text}");
            assert!(text.contains("degraded") && text.contains("the configuration on disk was refused: "), "{text}");
        } else {
            changing.reload(&sound(&changing.yaml, reload), "applied").await;
            assert!(!changing.readyz().await.1.contains("refused"));
        }
    }
    let receipts = load.stop().await;
    let took = began.elapsed();
    progress(&format!("reload: {} requests in {took:?}, through {RELOADS} reloads", receipts.len()));
    let a_second = receipts.len() as u128 * 1_000 / took.as_millis();
    assert!(a_second > AT_LEAST_A_SECOND, "{a_second} requests a second");
    assert_eq!(changing.count(&[("result", "applied")]).await, RELOADS - 5);
    assert_eq!(changing.count(&[("result", "refused")]).await, 5);

    let topic = changing.bridge.topic("events.order_placed");
    let records = services().read(&[&topic]);
    assert_eq!(records.len(), receipts.len(), "one record for each 2xx");
    let found: HashMap<_, _> =
        records.iter().map(|record| ((record.topic.clone(), record.partition, record.offset), record)).collect();
    for (id, place) in &receipts {
        assert_eq!(found[place].header("ce_id"), Some(id.as_str()));
    }
    let metrics = changing.bridge.metrics().await;
    let accepted = metrics.sum("hookbridge_events_accepted_total", &[("source", "shop")]);
    assert_eq!(format!("{accepted}"), receipts.len().to_string(), "the counters went on");
}

/// Five ways of being broken, each after some reloads that are not.
fn broken(yaml: &str, reload: usize) -> Option<String> {
    match reload {
        4 => Some(format!("{yaml}\n  - not: [yaml")),
        13 => Some(with(yaml, "topic_prefix", "topic_prefx")),
        22 => Some(with(yaml, ".type == \"invoice.paid\"", ".type == \"invoice.paid")),
        31 => Some(with(yaml, "form: .form_id", "form: $ENV.HOME")),
        40 => Some(with(yaml, "key: .customer_id", "key: .customer_id\n    version: 7")),
        _ => None,
    }
}

/// One of several that differ from each other in what a reload can change.
fn sound(yaml: &str, reload: usize) -> String {
    let key = BASE64.encode(NEW_KEY);
    match reload % 4 {
        0 => with_source(yaml, "extra"),
        1 => yaml.replace("secrets: [whsec_", &format!("secrets: [whsec_{key}, whsec_")),
        2 => with(yaml, "form: .form_id", "form: (.form_id // \"none\")"),
        _ => yaml.to_owned(),
    }
}

/// An event's id, and its topic, partition and offset.
type Accepted = (String, (String, i32, i64));

/// Senders over connections that are kept, each awaiting an answer before its next request.
struct Load {
    answered: Arc<AtomicUsize>,
    more: Arc<Notify>,
    stop: Arc<AtomicBool>,
    running: JoinSet<Vec<Accepted>>,
}

impl Load {
    fn start(port: u16) -> Self {
        let (answered, more) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = JoinSet::new();
        for sender in 0..CONNECTIONS {
            let (answered, more, stop) = (Arc::clone(&answered), Arc::clone(&more), Arc::clone(&stop));
            running.spawn(async move {
                let mut connection = Connection::open(port).await.expect("the bridge takes connections");
                let mut receipts = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let id = format!("evt_{sender}_{}", receipts.len());
                    let body = format!(r#"{{"type": "order_placed", "data": {{"customer_id": "{sender}"}}}}"#);
                    let request = senders::standard("shop", &id, body.as_bytes());
                    let answer = connection.send(&request).await.expect("an answer on the connection that was kept");
                    assert!(answer.is_success() && !answer.closes(), "{id}: {} {}", answer.status, answer.text());
                    let receipt = Receipt::of(&answer);
                    assert_eq!(receipt.status(), "accepted");
                    receipts.push((id, receipt.place()));
                    answered.fetch_add(1, Ordering::Relaxed);
                    more.notify_one();
                }
                receipts
            });
        }
        Self { answered, more, stop, running }
    }

    async fn wait_for_more(&self, answers: usize) {
        let until = self.answered.load(Ordering::Relaxed) + answers;
        let more = async {
            while self.answered.load(Ordering::Relaxed) < until {
                self.more.notified().await;
            }
        };
        tokio::time::timeout(RELOADED_WITHIN, more).await.expect("the senders are answered");
    }

    async fn stop(self) -> Vec<Accepted> {
        self.stop.store(true, Ordering::Relaxed);
        self.running.join_all().await.into_iter().flatten().collect()
    }
}

// === What a reload changes ===

#[tokio::test]
async fn a_secret_is_changed_by_two_reloads_and_no_request_is_refused_between() {
    let setup = Setup::new("reload-secret");
    let secret = |key: &[u8]| format!("whsec_{}\n", BASE64.encode(key));
    fs::write(setup.folder.join("first"), secret(SHOP_KEY)).unwrap();
    fs::write(setup.folder.join("second"), "").unwrap();
    let mut changing = Changing::start(setup).await;
    let one = format!("shop:\n    preset: standard-webhooks\n    secrets: [whsec_{}]", BASE64.encode(SHOP_KEY));
    let files = "shop:\n    preset: standard-webhooks\n    secrets: [\"${file:first}\", \"${file:second}\"]";
    changing.yaml = with(&changing.yaml, &one, files);
    let yaml = changing.yaml.clone();
    let answers = async |name: &str| {
        let old = changing.order_by(SHOP_KEY, "shop", &format!("{name}-old")).await;
        (old, changing.order_by(NEW_KEY, "shop", &format!("{name}-new")).await)
    };

    changing.reload(&yaml, "applied").await;
    assert_eq!(answers("before").await, (200, 401));
    // The file stays as it is: what it names is read again.
    fs::write(changing.file("second"), secret(NEW_KEY)).unwrap();
    changing.reload(&yaml, "applied").await;
    assert_eq!(answers("between").await, (200, 200));
    fs::write(changing.file("first"), "").unwrap();
    changing.reload(&yaml, "applied").await;
    assert_eq!(answers("after").await, (401, 200));
    assert!(changing.bridge.log().contains("changed shop"), "{}", changing.bridge.log());
}

#[tokio::test]
async fn sources_mappings_and_schemas_are_those_of_the_last_reload() {
    let setup = Setup::new("reload-sources");
    let schemas = setup.folder.join("schemas");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/schemas"), &schemas);
    let changing = Changing::start(setup).await;
    let bridge = &changing.bridge;
    assert_eq!(changing.order("added", "early").await, 401);
    assert_eq!(changing.order("strict", "once").await, 200);

    let place = format!("schemas: {}", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/schemas").display());
    let yaml = with(&changing.yaml, &place, "schemas: schemas");
    let yaml = with(&with_source(&yaml, "added"), "form: .form_id", "form: (\"was \" + .form_id)");
    let (start, end) = (yaml.find("  strict:").unwrap(), yaml.find("  payments:").unwrap());
    let yaml = format!("{}{}", &yaml[..start], &yaml[end..]);
    let first = fs::read_to_string(schemas.join("commerce/order_placed/1.avsc")).unwrap();
    let coupon = r#""fields": [ { "name": "coupon", "type": ["null", "string"], "default": null },"#;
    fs::write(
        schemas.join("commerce/order_placed/2.avsc"),
        with(&first, "\n  \"fields\": [", &format!("\n  {coupon}")),
    )
    .unwrap();
    changing.reload(&yaml, "applied").await;

    assert_eq!(changing.order("added", "late").await, 200);
    assert_eq!(changing.order("strict", "again").await, 401);
    assert!(bridge.metrics().await.sum("hookbridge_requests_total", &[("source", "strict")]) < 1.0);
    // `latest` is the highest file, as of now.
    let body = br#"{"type": "order_placed", "data": {"customer_id": "c", "coupon": "WINTER"}}"#;
    let receipt = Receipt::of(&bridge.post(&senders::standard("shop", "with-coupon", body)).await);
    assert_eq!((receipt.status(), &receipt.0["schema"]["version"]), ("accepted", &2.into()), "{}", receipt.0);
    let lead = br#"{"submission_id": "s1", "email": "a@example.com", "form_id": "spring"}"#;
    let lead = Receipt::of(&bridge.post(&senders::lead(lead)).await);
    assert_eq!(lead.status(), "accepted");
    let records = services().read(&[&bridge.topic("events.contact_added")]);
    let value = records[0].value.as_deref().unwrap();
    assert!(value.windows(10).any(|text| text == b"was spring"), "{value:?}");
    let log = bridge.log();
    for said in ["added added", "changed leads", "removed strict", "order_placed 1 to 2"] {
        assert!(log.contains(said), "{said}\n{log}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &to) } else { _ = fs::copy(entry.path(), to).unwrap() }
    }
}

#[tokio::test]
async fn sinks_come_change_and_go_and_one_that_is_as_it_was_keeps_its_partitions() {
    let database = Database::create(&services().postgres).await;
    let client = database.connect().await;
    let changing = Changing::start(Setup { database: Some(database.url.clone()), ..Setup::new("reload-sinks") }).await;
    let sink = |table: &str, filter: &str| {
        format!(
            "\n  archive:\n    type: postgres\n    url: {}\n    events: [order_placed]\n    table: {table}\n    ddl: evolve\n{filter}",
            database.url
        )
    };
    // From the first reload on with an event that no sink here takes, and so with every line below it moved.
    let yaml = &with(&changing.yaml, "\nevents:\n", NEW_EVENT);
    assert_eq!(changing.order("shop", "first").await, 200);
    until_row(&client, "order_placed", "first").await;
    let epochs = epochs(&client, "warehouse").await;
    assert!(!epochs.is_empty());

    // Added: it reads from the beginning.
    changing.reload(&format!("{yaml}{}", sink("archived", "")), "applied").await;
    until_row(&client, "archived", "first").await;

    // Changed: the one before ends, and the new one goes on where it was.
    let filtered = sink("archived", "    where: .customer_id != \"unwanted\"\n");
    changing.reload(&format!("{yaml}{filtered}"), "applied").await;
    for id in ["unwanted", "second"] {
        assert_eq!(changing.order("shop", id).await, 200);
        until_row(&client, "order_placed", id).await;
    }
    until_row(&client, "archived", "second").await;
    eventually("the unwanted one to be skipped", DELIVERED_WITHIN, async || {
        let labels = [("sink", "archive"), ("outcome", "skipped")];
        let skipped = changing.bridge.metrics().await.sum("hookbridge_settlements_total", &labels);
        (skipped > 0.0).then_some(())
    })
    .await;

    // Removed: it ends, and its series with it.
    changing.reload(yaml, "applied").await;
    eventually("the sink to end", DELIVERED_WITHIN, async || {
        let metrics = changing.bridge.metrics().await;
        (metrics.sum("hookbridge_sink_state", &[("sink", "archive")]) < 1.0).then_some(())
    })
    .await;
    assert_eq!(changing.order("shop", "third").await, 200);
    until_row(&client, "order_placed", "third").await;
    assert_eq!(ids(&client, "archived").await, ["first", "second"]);

    // An assignment, and nothing else, moves a partition's epoch.
    assert_eq!(self::epochs(&client, "warehouse").await, epochs, "a sink that nobody changed was left alone");
    let log = changing.bridge.log();
    for said in ["added archive", "changed archive", "removed archive", "names it no more"] {
        assert!(log.contains(said), "{said}\n{log}");
    }
}

async fn ids(client: &Client, table: &str) -> Vec<String> {
    let query = format!("SELECT hb_event_id FROM {table} ORDER BY hb_received_at");
    // The table is the sink's to make.
    client.query(&query, &[]).await.map(|rows| rows.iter().map(|row| row.get(0)).collect()).unwrap_or_default()
}

async fn until_row(client: &Client, table: &str, id: &str) {
    eventually(&format!("{id} to be in {table}"), DELIVERED_WITHIN, async || {
        ids(client, table).await.iter().any(|found| found == id).then_some(())
    })
    .await;
}

/// The epoch of each partition that a sink has claimed.
async fn epochs(client: &Client, sink: &str) -> Vec<(String, i32, i64)> {
    let query = "SELECT topic, partition, epoch FROM hookbridge_offsets WHERE sink = $1 ORDER BY topic, partition";
    let rows = client.query(query, &[&sink]).await.expect("the sinks' offsets");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

// === What is refused ===

#[tokio::test]
async fn a_file_that_wants_a_restart_is_refused_with_every_such_key_and_changes_nothing() {
    let changing = Changing::start(Setup::new("reload-kept")).await;
    let bridge = &changing.bridge;
    let yaml = with(&with_source(&changing.yaml, "added"), "max_body: 1MiB", "max_body: 2MiB");
    let yaml = with(&yaml, &format!("127.0.0.1:{}", bridge.setup.admin_port), "127.0.0.1:1");
    changing.reload(&yaml, "refused").await;
    let (status, text) = changing.readyz().await;
    assert_eq!(status, 200, "{text}");
    let log = bridge.log();
    for key in ["ingest.max_body", "admin.listen"] {
        assert!(text.contains(key), "{key}: {text}");
        let line = log.lines().find(|line| line.contains(key) && line.contains("hookbridge.yaml:"));
        assert!(line.is_some_and(|line| line.contains("restart to change it")), "{key}\n{log}");
    }
    assert_eq!(changing.order("added", "early").await, 401, "nothing of a refused file is in force");
    assert_eq!(changing.order("shop", "as-ever").await, 200);
    changing.reload(&with_source(&changing.yaml, "added"), "applied").await;
    assert_eq!(changing.order("added", "late").await, 200);
    assert!(!changing.readyz().await.1.contains("configuration"));
}

#[tokio::test]
async fn of_many_reloads_at_once_the_last_file_is_in_force_and_a_stop_waits_for_none() {
    let mut changing = Changing::start(Setup::new("reload-many")).await;
    for name in ["one", "two", "three"] {
        fs::write(changing.file("hookbridge.yaml"), with_source(&changing.yaml, name)).unwrap();
        changing.bridge.ask_to_reload();
    }
    eventually("the last of them", RELOADED_WITHIN, async || (changing.order("three", "a").await == 200).then_some(()))
        .await;
    assert_eq!([changing.order("one", "b").await, changing.order("two", "c").await], [401, 401]);
    assert!(changing.count(&[]).await <= 3);
    changing.bridge.ask_to_reload();
    changing.bridge.ask_to_stop();
    let status = changing.bridge.wait_ended(Duration::from_secs(25));
    assert_eq!(status.code(), Some(0), "{}", changing.bridge.log());
}

#[tokio::test]
async fn while_the_registry_is_down_a_new_schema_is_refused_and_a_secret_can_be_changed() {
    let url = reqwest::Url::parse(&services().registry).unwrap();
    let (host, port) = (url.host_str().unwrap(), url.port_or_known_default().unwrap());
    let gate = Gate::before(&format!("{host}:{port}")).await;
    let mut through = url.clone();
    through.set_port(Some(gate.port)).unwrap();
    let setup = Setup { registry: through.to_string().trim_end_matches('/').to_owned(), ..Setup::new("reload-down") };
    let changing = Changing::start(setup).await;
    gate.shut().await;

    let with_event = with(&changing.yaml, "\nevents:\n", NEW_EVENT);
    changing.reload(&with_event, "failed").await;
    let (status, text) = changing.readyz().await;
    assert!(status == 200 && text.contains("cannot be reached"), "{text}");
    let key = BASE64.encode(NEW_KEY);
    let yaml = changing.yaml.replace("secrets: [whsec_", &format!("secrets: [whsec_{key}, whsec_"));
    changing.reload(&yaml, "applied").await;
    assert_eq!(changing.order_by(NEW_KEY, "shop", "new-key").await, 200);

    gate.open().await;
    changing.reload(&with_event, "applied").await;
    let body = br#"{"type": "order_returned", "data": {"customer_id": "c"}}"#;
    let receipt = Receipt::of(&changing.bridge.post(&senders::standard("shop", "returned", body)).await);
    assert_eq!(receipt.status(), "accepted", "{}", receipt.0);
}

const NEW_EVENT: &str = "
events:
  order_returned:
    category: commerce
    owner: it@example.com
    key: .customer_id
";

// === What other instances write ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_a_reload_adds_is_followed_in_what_other_instances_write() {
    let setup = |name| Setup { more_ingest: "  dedupe: { scope: cluster, max_entries: 50000 }\n", ..Setup::new(name) };
    let one = setup("reload-follow-one");
    let mut other = setup("reload-follow-other");
    other.prefix.clone_from(&one.prefix);
    let one = Changing::start(one).await;
    let other = Changing::start(other).await;
    for changing in [&one, &other] {
        changing.reload(&with(&changing.yaml, "\nevents:\n", NEW_EVENT), "applied").await;
    }
    let body = br#"{"type": "order_returned", "data": {"customer_id": "c"}}"#;
    let request = senders::standard("shop", "returned", body);
    let first = Receipt::of(&one.bridge.post(&request).await);
    assert_eq!(first.status(), "accepted", "{}", first.0);
    eventually("the other to have read it", RELOADED_WITHIN, async || {
        (other.bridge.metrics().await.sum("hookbridge_dedupe_entries", &[]) > 0.5).then_some(())
    })
    .await;
    let again = Receipt::of(&other.bridge.post(&request).await);
    assert_eq!((again.status(), again.place()), ("duplicate", first.place()), "{}", again.0);
}

// === Asked for before anything stands ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_is_asked_for_while_the_file_is_read_comes_once_the_line_stands() {
    let setup = Setup::new("reload-early");
    let (file, pipe) = (setup.folder.join("early.yaml"), setup.folder.join("pipe"));
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("`mkfifo` starts");
    assert!(made.success());
    fs::rename(&pipe, &file).unwrap();
    let yaml = setup.yaml();
    let bridge = Bridge::start_with(setup, "early.yaml");
    // Opened once the bridge reads it, and then the bridge waits for what stands in it.
    let writing = {
        let file = file.clone();
        tokio::task::spawn_blocking(move || fs::File::options().write(true).open(file)).await.unwrap()
    };
    let mut writing = writing.unwrap();
    fs::write(&pipe, &yaml).unwrap();
    fs::rename(&pipe, &file).unwrap();
    bridge.ask_to_reload();
    std::io::Write::write_all(&mut writing, yaml.as_bytes()).unwrap();
    drop(writing);
    bridge.wait_ready().await;
    eventually("the reload", RELOADED_WITHIN, async || {
        let applied = bridge.metrics().await.sum("hookbridge_config_reloads_total", &[("result", "applied")]);
        (applied > 0.5).then_some(())
    })
    .await;
}
