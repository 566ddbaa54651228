//! Topics, as the benches make, count and remove them.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::runtime::Runtime;

/// Of a look-up or a change that the broker is asked for.
pub(crate) const ASK: Duration = Duration::from_secs(10);

pub(crate) struct Kafka {
    pub(crate) bootstrap: String,
    runtime: Runtime,
}

impl Kafka {
    pub(crate) fn new(bootstrap: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { bootstrap: bootstrap.to_owned(), runtime }
    }

    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    pub(crate) fn consumer(&self) -> BaseConsumer {
        self.config().create().expect("a client")
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("a client")
    }

    /// Creates it on one broker.
    pub(crate) fn create_topic(&self, topic: &str, partitions: i32) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(ASK));
        let created = self.runtime.block_on(self.admin().create_topics([&new], &options));
        assert!(created.is_ok_and(|topics| topics.iter().all(Result::is_ok)), "topic {topic} cannot be created");
    }

    /// Asks for it and does not mind: a bench that ends leaves no more than a topic.
    pub(crate) fn delete_topics(&self, topics: &[String]) {
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let _ = self.runtime.block_on(self.admin().delete_topics(&topics, &AdminOptions::new()));
    }

    /// All topics whose name begins so.
    pub(crate) fn topics(&self, prefix: &str) -> Vec<String> {
        let metadata = self.consumer().fetch_metadata(None, ASK).expect("the broker's topics");
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        names.filter(|name| name.starts_with(prefix)).collect()
    }

    /// Records in a topic of which none was removed: the sum of its end offsets.
    pub(crate) fn records(&self, topic: &str, partitions: i32) -> u64 {
        let client = self.consumer();
        let end = |partition| client.fetch_watermarks(topic, partition, ASK).expect("a partition's end").1;
        (0..partitions).map(end).map(|end| u64::try_from(end).expect("an offset")).sum()
    }
}
