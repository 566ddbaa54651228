//! The Postgres sink against a real Postgres: every event once, whoever else writes and whatever breaks on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use apache_avro::Schema;
use apache_avro::types::Value;
use hookbridge::config::{self, Ddl, Secret};
use hookbridge::event::Identity;
use hookbridge::kafka::{NextOffset, TopicPartition};
use hookbridge::outcome::Outcome;
use hookbridge::sinks::postgres::Postgres;
use hookbridge::sinks::{Content, Delivery, Halt, Item, Progress, Shape};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::Client;

use crate::harness::postgres::Database;
use crate::harness::services;

const VERSION_1: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"customer_id","type":"string"},
    {"name":"quantity","type":["null","int"]}]}"#;

const VERSION_2: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"customer_id","type":"string"},
    {"name":"quantity","type":["null","long"]},
    {"name":"coupon","type":["null","string"]}]}"#;

async fn database() -> Database {
    Database::create(&services().postgres).await
}

fn sink(url: &str, ddl: Ddl) -> Postgres {
    let config = config::Postgres {
        url: Secret::new(url),
        table: "{event_type}".into(),
        schema: "public".into(),
        ddl,
        max_batch: 500,
    };
    Postgres::new("warehouse", &config).unwrap()
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition { topic: Arc::from("events.order"), partition }
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

fn some(value: Value) -> Value {
    Value::Union(1, Box::new(value))
}

/// An event with the identity `id`, at `offset`.
fn event(id: &str, offset: i64, schema_id: u32, schema: &str, fields: Vec<(&str, Value)>) -> Item {
    let identity = Identity { source: "shop".into(), id: id.into(), event_type: "order".into() };
    Item::Send(Box::new(Delivery {
        delivery_id: identity.delivery_id("warehouse"),
        identity,
        offset,
        received_at_ms: Some(1_767_225_600_000),
        occurred_at: None,
        schema_id,
        content: Content::Value {
            shape: Arc::new(Shape::new(&Schema::parse_str(schema).unwrap())),
            value: Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        },
    }))
}

fn order(offset: i64) -> Item {
    order_of(offset, "c")
}

fn order_of(offset: i64, customer: &str) -> Item {
    let fields = vec![("customer_id", text(customer)), ("quantity", some(Value::Int(1)))];
    event(&format!("e{offset}"), offset, 1, VERSION_1, fields)
}

fn orders(offsets: std::ops::Range<i64>) -> Vec<Item> {
    offsets.map(order).collect()
}

fn whole(items: &[Item]) -> Progress {
    Progress::whole(items.len())
}

/// Offsets of the rows that are there, in order.
async fn rows(client: &Client) -> Vec<i64> {
    let rows = client.query(r#"SELECT hb_offset FROM "order" ORDER BY hb_offset"#, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn next_offset(client: &Client, partition: i32) -> i64 {
    let query = "SELECT next_offset FROM hookbridge_offsets WHERE sink = 'warehouse' AND partition = $1";
    client.query_one(query, &[&partition]).await.unwrap().get(0)
}

async fn columns(client: &Client) -> Vec<(String, String)> {
    let query = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute \
        WHERE attrelid = '\"order\"'::regclass AND attnum > 0 AND attname NOT LIKE 'hb%' ORDER BY attnum";
    let rows = client.query(query, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn rows_and_offset_land_together_and_a_restart_goes_on_behind_them() {
    let database = database().await;
    let client = database.connect().await;
    let first = sink(&database.url, Ddl::Evolve);
    let mut row = first.claim(&at(0), None).await.unwrap();
    assert_eq!((row.next(), row.epoch()), (None, 1));
    let mut batch = orders(0..3);
    batch.push(Item::Pass { offset: 5 });
    assert_eq!(first.deliver(&mut row, &at(0), &batch).await, whole(&batch));
    assert_eq!(rows(&client).await, [0, 1, 2]);
    assert_eq!(next_offset(&client, 0).await, 6);

    let second = sink(&database.url, Ddl::Evolve);
    let row = second.claim(&at(0), None).await.unwrap();
    assert_eq!((row.next(), row.epoch()), (Some(NextOffset::stored(6)), 2));
}

#[tokio::test]
async fn a_partition_that_the_table_has_never_seen_starts_where_the_group_stands() {
    let database = database().await;
    let sink = sink(&database.url, Ddl::Evolve);
    let committed = Some(NextOffset::stored(42));
    assert_eq!(sink.claim(&at(0), committed).await.unwrap().next(), committed);
    assert_eq!(sink.claim(&at(0), Some(NextOffset::stored(99))).await.unwrap().next(), committed, "the table decides");
}

#[tokio::test]
async fn an_event_that_comes_again_has_one_row() {
    let database = database().await;
    let client = database.connect().await;
    let sink = sink(&database.url, Ddl::Evolve);
    let repeat = |offset| {
        event("same", offset, 1, VERSION_1, vec![("customer_id", text("c")), ("quantity", some(Value::Int(1)))])
    };
    for (partition, duplicates) in [(0, vec![1]), (1, vec![0, 1])] {
        let mut row = sink.claim(&at(partition), None).await.unwrap();
        let batch = [repeat(0), repeat(1), order(2 + i64::from(partition))];
        let progress = sink.deliver(&mut row, &at(partition), &batch).await;
        assert_eq!(progress, Progress { duplicates, ..whole(&batch) });
    }
    assert_eq!(rows(&client).await, [0, 2, 3]);
}

#[tokio::test]
async fn a_zombie_that_wakes_after_its_partition_was_taken_writes_nothing() {
    let database = database().await;
    let client = database.connect().await;
    let (zombie, owner) = (sink(&database.url, Ddl::Evolve), sink(&database.url, Ddl::Evolve));
    let mut old = zombie.claim(&at(0), None).await.unwrap();
    let mut new = owner.claim(&at(0), None).await.unwrap();
    let fenced = Progress { settled: 0, duplicates: vec![], halt: Some(Halt::Fenced) };
    assert_eq!(zombie.deliver(&mut old, &at(0), &orders(0..2)).await, fenced);
    let batch = orders(0..4);
    assert_eq!(owner.deliver(&mut new, &at(0), &batch).await, whole(&batch));
    assert_eq!(zombie.deliver(&mut old, &at(0), &orders(0..9)).await, fenced);
    assert_eq!(rows(&client).await, [0, 1, 2, 3]);
    assert_eq!(next_offset(&client, 0).await, 4);
}

#[tokio::test]
async fn of_two_that_race_for_a_partition_one_writes() {
    let database = database().await;
    let client = database.connect().await;
    let (left, right) = (sink(&database.url, Ddl::Evolve), sink(&database.url, Ddl::Evolve));
    let at = at(0);
    for round in 0..20 {
        let start = round * 10;
        let (first, second) = tokio::join!(left.claim(&at, None), right.claim(&at, None));
        let (mut first, mut second) = (first.unwrap(), second.unwrap());
        assert_ne!(first.epoch(), second.epoch());
        let batch = orders(start..start + 10);
        let (one, other) = tokio::join!(left.deliver(&mut first, &at, &batch), right.deliver(&mut second, &at, &batch));
        let winners = [one, other].iter().filter(|progress| **progress == whole(&batch)).count();
        assert_eq!(winners, 1);
        assert_eq!(rows(&client).await, (0..start + 10).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_offset_row_that_somebody_moved_fences_its_owner() {
    let database = database().await;
    let client = database.connect().await;
    let sink = sink(&database.url, Ddl::Evolve);
    let mut row = sink.claim(&at(0), Some(NextOffset::stored(5))).await.unwrap();
    client.batch_execute("UPDATE hookbridge_offsets SET next_offset = 2").await.unwrap();
    let fenced = Progress { settled: 0, duplicates: vec![], halt: Some(Halt::Fenced) };
    assert_eq!(sink.deliver(&mut row, &at(0), &orders(5..6)).await, fenced);
    assert_eq!(sink.claim(&at(0), None).await.unwrap().next(), Some(NextOffset::stored(2)));
}

#[tokio::test]
async fn a_claim_waits_for_a_transaction_that_a_stopped_bridge_left_open() {
    let database = database().await;
    let sink = sink(&database.url, Ddl::Evolve);
    sink.claim(&at(0), None).await.unwrap();
    let stopped = database.connect().await;
    stopped.batch_execute("BEGIN; UPDATE hookbridge_offsets SET next_offset = 9").await.unwrap();
    let watcher = database.connect().await;
    let claim = async { sink.claim(&at(0), None).await.unwrap() };
    let end = async {
        // The claim is seen to wait before the transaction ends.
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        while watcher.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::task::yield_now().await;
        }
        stopped.batch_execute("ROLLBACK").await.unwrap();
    };
    let (row, ()) = tokio::join!(claim, end);
    assert_eq!((row.next(), row.epoch()), (None, 2));
}

#[tokio::test]
async fn a_table_is_made_and_widened_from_the_schema() {
    let database = database().await;
    let client = database.connect().await;
    let sink = sink(&database.url, Ddl::Evolve);
    let mut row = sink.claim(&at(0), None).await.unwrap();
    let version_2 = |offset, quantity| {
        let coupon = some(text("WINTER"));
        let fields = vec![("customer_id", text("c")), ("quantity", some(Value::Long(quantity))), ("coupon", coupon)];
        event(&format!("e{offset}"), offset, 2, VERSION_2, fields)
    };
    sink.deliver(&mut row, &at(0), &orders(0..1)).await;
    let named = |columns: &[(&str, &str)]| -> Vec<(String, String)> {
        columns.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect()
    };
    assert_eq!(columns(&client).await, named(&[("customer_id", "text"), ("quantity", "integer")]));

    // Both versions in one batch, the older one behind the newer.
    let batch = [version_2(1, i64::MAX), order(2)];
    assert_eq!(sink.deliver(&mut row, &at(0), &batch).await, whole(&batch));
    let widened = [("customer_id", "text"), ("quantity", "bigint"), ("coupon", "text")];
    assert_eq!(columns(&client).await, named(&widened));
    let values = client.query(r#"SELECT quantity, coupon FROM "order" ORDER BY hb_offset"#, &[]).await.unwrap();
    let values: Vec<(i64, Option<String>)> = values.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(values, [(1, None), (i64::MAX, Some("WINTER".into())), (1, None)]);
}

#[tokio::test]
async fn every_type_arrives_exactly() {
    let database = database().await;
    let client = database.connect().await;
    let sink = sink(&database.url, Ddl::Evolve);
    let mut row = sink.claim(&at(0), None).await.unwrap();
    let schema = r#"{"type":"record","name":"Order","fields":[
        {"name":"total","type":{"type":"bytes","logicalType":"decimal","precision":38,"scale":2}},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
        {"name":"day","type":{"type":"int","logicalType":"date"}},
        {"name":"hour","type":{"type":"int","logicalType":"time-millis"}},
        {"name":"uid","type":{"type":"string","logicalType":"uuid"}},
        {"name":"ratio","type":"double"},
        {"name":"raw","type":"bytes"},
        {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["A","B"]}},
        {"name":"Mixed Case","type":["null","boolean"]},
        {"name":"consent","type":{"type":"map","values":"boolean"}}]}"#
        .replace("Mixed Case", "mixedCase");
    let total = 12_345_678_901_234_567_890_123_456_789_012_345_678_i128.to_be_bytes().to_vec();
    let fields = vec![
        ("total", Value::Decimal(total.into())),
        ("at", Value::TimestampMicros(1_767_225_600_123_456)),
        ("day", Value::Date(20_454)),
        ("hour", Value::TimeMillis(3_600_001)),
        ("uid", Value::Uuid("6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap())),
        ("ratio", Value::Double(0.1)),
        ("raw", Value::Bytes(vec![0, 255])),
        ("kind", Value::Enum(1, "B".into())),
        ("mixedCase", some(Value::Boolean(true))),
        ("consent", Value::Map([("ads".to_owned(), Value::Boolean(false))].into())),
    ];
    let batch = [event("e0", 0, 1, &schema, fields)];
    assert_eq!(sink.deliver(&mut row, &at(0), &batch).await, whole(&batch));
    let query = r#"SELECT to_json(o)::jsonb - 'hb_delivery_id' FROM (
        SELECT total::text, at AT TIME ZONE 'UTC' AS at, day, hour, uid, ratio, raw, kind, "mixedCase", consent,
        hb_delivery_id, hb_event_id, hb_source, hb_topic, hb_partition, hb_offset, hb_received_at AT TIME ZONE 'UTC' AS received
        FROM "order") o"#;
    let found = client.query_one(&format!("SELECT ({query})::text"), &[]).await.unwrap().get::<_, String>(0);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let expected = serde_json::json!({
        "total": "123456789012345678901234567890123456.78", "at": "2026-01-01T00:00:00.123456", "day": "2026-01-01",
        "hour": "01:00:00.001", "uid": "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "ratio": 0.1, "raw": "\\x00ff",
        "kind": "B", "mixedCase": true, "consent": {"ads": false},
        "hb_event_id": "e0", "hb_source": "shop", "hb_topic": "events.order", "hb_partition": 0, "hb_offset": 0,
        "received": "2026-01-01T00:00:00",
    });
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_value_that_the_database_refuses_holds_its_event_behind_everything_before_it() {
    let database = database().await;
    let client = database.connect().await;
    let sink = sink(&database.url, Ddl::Evolve);
    let mut row = sink.claim(&at(0), None).await.unwrap();
    let mut batch = orders(0..100);
    batch[37] = order_of(37, "a\0b");
    batch[61] = order_of(61, "c\0d");
    for attempt in 0..2 {
        let from = if attempt == 0 { 0 } else { 37 };
        let progress = sink.deliver(&mut row, &at(0), &batch[from..]).await;
        assert_eq!(progress.settled, 37 - from);
        let Some(Halt::Answer(Outcome::Rejected { reason })) = progress.halt else { panic!("{:?}", progress.halt) };
        assert!(reason.contains("22021") && !reason.contains("a\0b"), "{reason}");
        assert_eq!(rows(&client).await, (0..37).collect::<Vec<_>>());
        assert_eq!(next_offset(&client, 0).await, 37);
    }
    // Another partition does not wait for it.
    let mut other = sink.claim(&at(1), None).await.unwrap();
    let batch = orders(200..203);
    assert_eq!(sink.deliver(&mut other, &at(1), &batch).await, whole(&batch));
}

#[tokio::test]
async fn bridges_that_make_the_same_tables_at_once_do_not_fail() {
    let database = database().await;
    let client = database.connect().await;
    let mut tasks = tokio::task::JoinSet::new();
    for partition in 0..8 {
        let sink = sink(&database.url, Ddl::Evolve);
        tasks.spawn(async move {
            let mut row = sink.claim(&at(partition), None).await.unwrap();
            let batch = [order(i64::from(partition))];
            assert_eq!(sink.deliver(&mut row, &at(partition), &batch).await, whole(&batch));
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(rows(&client).await, (0..8).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_table_of_a_persons_own_is_left_alone_and_what_it_lacks_is_named() {
    let database = database().await;
    let client = database.connect().await;
    let sink = sink(&database.url, Ddl::Manual);
    let Err(Outcome::Misconfigured { reason }) = sink.claim(&at(0), None).await else { panic!("no offsets table") };
    let hint = reason.split_once("hint: ").unwrap().1;
    client.batch_execute(hint).await.unwrap();
    let mut row = sink.claim(&at(0), None).await.unwrap();

    client.batch_execute(r#"CREATE TABLE "order" (customer_id varchar(3), hb_delivery_id uuid UNIQUE)"#).await.unwrap();
    let progress = sink.deliver(&mut row, &at(0), &orders(0..1)).await;
    let Some(Halt::Answer(Outcome::Misconfigured { reason })) = progress.halt else { panic!("{:?}", progress.halt) };
    for missing in ["quantity", "hb_event_id", "hb_source", "hb_topic", "hb_partition", "hb_offset", "hb_received_at"] {
        assert!(reason.contains(&format!("column {missing} ")), "{reason}");
    }

    let mend = r#"ALTER TABLE "order" ADD quantity bigint, ADD hb_event_id text, ADD hb_source text, ADD hb_topic text,
        ADD hb_partition integer, ADD hb_offset bigint, ADD hb_received_at timestamptz"#;
    client.batch_execute(mend).await.unwrap();
    let batch = [order(0), order_of(1, "too long")];
    let progress = sink.deliver(&mut row, &at(0), &batch).await;
    assert_eq!(progress.settled, 1);
    assert!(matches!(progress.halt, Some(Halt::Answer(Outcome::Rejected { .. }))), "text is refused, never cut");
}

#[tokio::test]
async fn a_table_that_was_dropped_is_made_anew() {
    let database = database().await;
    let client = database.connect().await;
    let sink = sink(&database.url, Ddl::Evolve);
    let mut row = sink.claim(&at(0), None).await.unwrap();
    sink.deliver(&mut row, &at(0), &orders(0..1)).await;
    client.batch_execute(r#"DROP TABLE "order""#).await.unwrap();
    let progress = sink.deliver(&mut row, &at(0), &orders(1..2)).await;
    assert!(matches!(progress.halt, Some(Halt::Answer(Outcome::Misconfigured { .. }))), "{progress:?}");
    assert_eq!(sink.deliver(&mut row, &at(0), &orders(1..2)).await, whole(&orders(1..2)));
    assert_eq!(rows(&client).await, [1]);
}

#[tokio::test]
async fn a_database_that_is_wrong_is_told_from_one_that_is_away() {
    let admin = reqwest::Url::parse(&services().postgres).unwrap();
    let mut unknown = admin.clone();
    unknown.set_path("no_such_database");
    let claimed = sink(unknown.as_str(), Ddl::Evolve).claim(&at(0), None).await;
    assert!(matches!(&claimed, Err(Outcome::Misconfigured { reason }) if reason.contains("3D000")), "{claimed:?}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut away = admin;
    away.set_host(Some("127.0.0.1")).unwrap();
    away.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    drop(listener);
    let claimed = sink(away.as_str(), Ddl::Evolve).claim(&at(0), None).await;
    assert!(matches!(claimed, Err(Outcome::Transient { .. })), "{claimed:?}");
}

/// What the proxy does with the next COMMIT.
const PASS: u8 = 0;
/// The connection breaks before it reaches the server.
const CUT_BEFORE: u8 = 1;
/// The server has carried it out and its answer is lost.
const CUT_AFTER: u8 = 2;

/// A way to the database that can break at COMMIT; `mode` says how, once.
async fn breakable(url: &str, mode: Arc<AtomicU8>) -> String {
    let mut url = reqwest::Url::parse(url).unwrap();
    // The proxy has to read what it carries.
    url.set_query(Some("sslmode=disable"));
    let server = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5432));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect((server.0.as_str(), server.1)).await.unwrap();
            tokio::spawn(carry(client, server, Arc::clone(&mode)));
        }
    });
    url.into()
}

async fn carry(mut client: TcpStream, mut server: TcpStream, mode: Arc<AtomicU8>) {
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                let commit = up[..read].windows(7).any(|window| window == b"COMMIT\0");
                match if commit { mode.swap(PASS, Ordering::SeqCst) } else { PASS } {
                    CUT_BEFORE => return,
                    CUT_AFTER => {
                        server.write_all(&up[..read]).await.unwrap();
                        // The server answers once it has committed.
                        assert_ne!(server.read(&mut down).await.unwrap(), 0);
                        return;
                    }
                    _ => if server.write_all(&up[..read]).await.is_err() { return },
                }
            }
            read = server.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                if client.write_all(&down[..read]).await.is_err() { return }
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_before_commit_repeats_nothing_and_loses_nothing() {
    let database = database().await;
    let client = database.connect().await;
    let mode = Arc::new(AtomicU8::new(PASS));
    let sink = sink(&breakable(&database.url, Arc::clone(&mode)).await, Ddl::Evolve);
    let mut row = sink.claim(&at(0), None).await.unwrap();
    sink.deliver(&mut row, &at(0), &orders(0..1)).await;
    mode.store(CUT_BEFORE, Ordering::SeqCst);
    let batch = orders(1..5);
    let progress = sink.deliver(&mut row, &at(0), &batch).await;
    assert!(
        matches!(progress, Progress { settled: 0, halt: Some(Halt::Answer(Outcome::Transient { .. })), .. }),
        "{progress:?}"
    );
    assert_eq!(rows(&client).await, [0]);
    assert_eq!(sink.deliver(&mut row, &at(0), &batch).await, whole(&batch));
    assert_eq!(rows(&client).await, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_commit_without_an_answer_is_settled_by_the_offset_row() {
    let database = database().await;
    let client = database.connect().await;
    let mode = Arc::new(AtomicU8::new(PASS));
    let sink = sink(&breakable(&database.url, Arc::clone(&mode)).await, Ddl::Evolve);
    let mut row = sink.claim(&at(0), None).await.unwrap();
    sink.deliver(&mut row, &at(0), &orders(0..5)).await;
    for round in 1..4 {
        mode.store(CUT_AFTER, Ordering::SeqCst);
        let mut batch = orders(round * 5..round * 5 + 5);
        // The last is an event that has its row already, as is known only from the transaction in doubt.
        let fields = vec![("customer_id", text("c")), ("quantity", some(Value::Int(1)))];
        batch[4] = event("e0", round * 5 + 4, 1, VERSION_1, fields);
        let progress = sink.deliver(&mut row, &at(0), &batch).await;
        assert_eq!(progress, Progress { duplicates: vec![round * 5 + 4], ..whole(&batch) });
        assert_eq!(next_offset(&client, 0).await, round * 5 + 5);
    }
    assert_eq!(rows(&client).await, (0..5).chain(5..9).chain(10..14).chain(15..19).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_session_has_limits_so_that_nothing_waits_for_ever() {
    let database = database().await;
    let client = database.connect().await;
    let sink = sink(&database.url, Ddl::Evolve);
    let mut row = sink.claim(&at(0), None).await.unwrap();
    sink.deliver(&mut row, &at(0), &orders(0..1)).await;
    // Only the session itself can say.
    let spy = r#"CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            NEW.customer_id := concat_ws(' ', current_setting('lock_timeout'), current_setting('statement_timeout'),
                current_setting('idle_in_transaction_session_timeout'));
            RETURN NEW; END $$;
        CREATE TRIGGER spy BEFORE INSERT ON "order" FOR EACH ROW EXECUTE FUNCTION spy()"#;
    client.batch_execute(spy).await.unwrap();
    let batch = orders(1..2);
    assert_eq!(sink.deliver(&mut row, &at(0), &batch).await, whole(&batch));
    let query = r#"SELECT customer_id FROM "order" WHERE hb_offset = 1"#;
    assert_eq!(client.query_one(query, &[]).await.unwrap().get::<_, String>(0), "5s 20s 10s");
}

#[tokio::test]
async fn sessions_that_the_server_ends_are_opened_again() {
    let database = database().await;
    let client = database.connect().await;
    let sink = sink(&database.url, Ddl::Evolve);
    let mut row = sink.claim(&at(0), None).await.unwrap();
    for round in 0..3 {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
            WHERE application_name = 'hookbridge' AND datname = current_database()";
        client.query(end, &[]).await.unwrap();
        let batch = orders(round..round + 1);
        let mut progress = sink.deliver(&mut row, &at(0), &batch).await;
        // The end of an idle session may be seen only by the statement that meets it.
        if progress.settled == 0 {
            assert!(matches!(progress.halt, Some(Halt::Answer(Outcome::Transient { .. }))), "{progress:?}");
            progress = sink.deliver(&mut row, &at(0), &batch).await;
        }
        assert_eq!(progress, whole(&batch));
    }
    assert_eq!(rows(&client).await, [0, 1, 2]);
}
