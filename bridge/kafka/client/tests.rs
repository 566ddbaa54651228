use std::sync::Mutex;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::*;
use crate::config::kafka_properties;

fn kafka(properties: &[(&str, &str)]) -> config::Kafka {
    config::Kafka::for_tests("127.0.0.1:1", properties)
}

#[test]
fn the_user_may_tune_a_timeout_but_not_take_a_promise_back() {
    let client = Client::new(
        &kafka(&[("socket.timeout.ms", "4000"), ("acks", "1"), ("isolation.level", "read_uncommitted")]),
        "test",
    )
    .unwrap();
    let producer = client.producer_config(Limits::default(), Tuning::default());
    assert_eq!(producer.get("socket.timeout.ms"), Some("4000"));
    assert_eq!(producer.get("acks"), Some("all"));
    assert_eq!(client.consumer_config("g").get("isolation.level"), Some("read_committed"));
}

#[test]
fn librdkafka_takes_every_setting_of_ours() {
    let client = Client::new(&kafka(&[]), "test").unwrap();
    client.producer_config(Limits::default(), Tuning::default()).create_native_config().unwrap();
    client.consumer_config("g").create_native_config().unwrap();
    client.transactional_config("t").create_native_config().unwrap();
}

#[test]
fn the_timeouts_of_a_transaction_are_the_same_whatever_the_user_tunes() {
    let client = Client::new(
        &kafka(&[("socket.timeout.ms", "4000"), ("retry.backoff.ms", "1"), ("message.timeout.ms", "9000")]),
        "test",
    )
    .unwrap();
    let producer = client.producer_config(Limits::default(), Tuning::default());
    assert_eq!(producer.get("message.timeout.ms"), Some("9000"), "of ingest alone");
    let config = client.transactional_config("hookbridge.crm.0");
    let transaction = TRANSACTION_TIMEOUT.as_millis().to_string();
    assert_eq!(config.get("transaction.timeout.ms"), Some(transaction.as_str()));
    assert_eq!(config.get("socket.timeout.ms"), Some(transaction.as_str()));
    assert_eq!(config.get("retry.backoff.ms"), Some("100"));
    assert_eq!(config.get("message.timeout.ms"), Some("10000"));
    assert_eq!(config.get("transactional.id"), Some("hookbridge.crm.0"));
}

/// Keeps what librdkafka says.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl ClientContext for Heard {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.lock().unwrap().push(format!("{facility}: {message}"));
    }

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Heard {}

impl ProducerContext for Heard {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// A call hands over one line, and the first need not be a warning.
fn hear(producer: &BaseProducer<Heard>) {
    (0..20).for_each(|_| producer.poll(Duration::ZERO));
}

fn warnings(heard: &Heard) -> Vec<String> {
    heard.0.lock().unwrap().iter().filter(|line| line.starts_with("CONFWARN")).cloned().collect()
}

#[test]
fn no_client_is_given_what_only_another_kind_knows() {
    let text = ["compression.type", "compression.codec"];
    let tuned: Vec<(&str, &str)> = kafka_properties::allowed()
        .filter(|name| Role::Producer.knows(name) != Role::Consumer.knows(name))
        .map(|name| match name {
            name if text.contains(&name) => (name, "lz4"),
            name if name.contains(".bytes") => (name, "9000000"),
            "fetch.wait.max.ms" => ("fetch.wait.max.ms", "500"), // below the time that a socket has
            name => (name, "9000"),
        })
        .collect();
    let client = Client::new(&kafka(&tuned), "test").unwrap();
    let plain: BaseProducer<Heard> = client.plain_config().create_with_context(Heard::default()).unwrap();
    let config = client.producer_config(Limits::default(), Tuning::default());
    let producer: BaseProducer<Heard> = config.create_with_context(Heard::default()).unwrap();
    for producer in [plain, producer] {
        hear(&producer);
        assert_eq!(warnings(producer.client().context()), Vec::<String>::new());
    }
    let consumer: BaseConsumer<Heard> = client.consumer_config("g").create_with_context(Heard::default()).unwrap();
    consumer.poll(Duration::ZERO);
    assert_eq!(warnings(consumer.context()), Vec::<String>::new());

    // And that they would speak up.
    let mut wrong = client.plain_config();
    wrong.set("session.timeout.ms", "9000");
    let wrong: BaseProducer<Heard> = wrong.create_with_context(Heard::default()).unwrap();
    hear(&wrong);
    assert_eq!(warnings(wrong.client().context()).len(), 1);
}

#[test]
fn a_value_that_no_client_takes_is_found_at_once() {
    for name in ["session.timeout.ms", "batch.size"] {
        let error = Client::new(&kafka(&[(name, "hunter2")]), "test").unwrap_err();
        assert!(matches!(&error, Error::Property { name: found, .. } if found == name), "{error:?}");
    }
}

#[test]
fn a_refused_property_is_named_and_its_value_is_not() {
    let error = Client::new(&kafka(&[("socket.timeout.ms", "hunter2")]), "test").unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("socket.timeout.ms"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn an_old_librdkafka_is_refused() {
    assert!(matches!(refuse_old(0x0205_00ff, "2.5.0"), Err(Error::TooOld { .. })));
    assert!(refuse_old(0x020c_01ff, "2.12.1").is_ok());
}
