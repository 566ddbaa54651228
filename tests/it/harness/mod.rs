//! What every test stands on: the real Kafka, registry and Postgres, the real binary, and a reader that is not ours.

pub(crate) mod attack;
pub(crate) mod avro;
pub(crate) mod bridge;
pub(crate) mod gate;
pub(crate) mod http;
pub(crate) mod kafka;
pub(crate) mod maven;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod reader;
pub(crate) mod receiver;
pub(crate) mod registry;
pub(crate) mod senders;

use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use kafka::Kafka;
use maven::Cache;
use postgres::Postgres;
use process::progress;
use registry::Registry;

/// The services of this run, shared by its tests: nobody stops them. A test that needs a broker which is down starts
/// one of its own ([`own_kafka`]).
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) bootstrap: String,
    pub(crate) registry: String,
    pub(crate) postgres: String,
    cache: Cache,
    /// Held, not used: they end with the process.
    _started: (Option<Kafka>, Option<Registry>, Option<Postgres>),
}

static SERVICES: LazyLock<Result<Services, String>> = LazyLock::new(Services::start);

/// The services, started by whoever asks first.
pub(crate) fn services() -> &'static Services {
    SERVICES.as_ref().unwrap_or_else(|error| panic!("the tests' services do not start: {error}"))
}

/// A broker of the test's own, to be ended as the test likes.
pub(crate) fn own_kafka() -> Kafka {
    let classpath = services().cache.kafka().expect("Kafka is in the cache, the shared one runs from it");
    Kafka::start(&classpath).expect("a second broker")
}

impl Services {
    fn start() -> Result<Self, String> {
        progress("starting Kafka, the schema registry and Postgres");
        let cache = Cache::open()?;
        // What the reader needs, before the three start: downloads and compilers would only slow them.
        cache.reader()?;
        let kafka = given("KAFKA_BOOTSTRAP_SERVERS");
        let registry = given("SCHEMA_REGISTRY_URL");
        let postgres = given("POSTGRES_URL");
        let classpath = cache.kafka()?;
        let registry_folder = registry.is_none().then(|| cache.registry()).transpose()?;
        let postgres_folder = postgres.is_none().then(|| cache.postgres()).transpose()?;

        let (own_kafka, own_registry, own_postgres) = thread::scope(|scope| {
            let kafka =
                scope.spawn(|| kafka.is_none().then(|| timed("Kafka", || Kafka::start(&classpath))).transpose());
            let registry = scope
                .spawn(|| registry_folder.map(|folder| timed("Apicurio", || Registry::start(&folder))).transpose());
            let postgres = scope
                .spawn(|| postgres_folder.map(|folder| timed("Postgres", || Postgres::start(&folder))).transpose());
            (kafka.join(), registry.join(), postgres.join())
        });
        let own_kafka = own_kafka.expect("no panic")?;
        let own_registry = own_registry.expect("no panic")?;
        let own_postgres = own_postgres.expect("no panic")?;
        Ok(Self {
            bootstrap: kafka.or(own_kafka.as_ref().map(Kafka::bootstrap)).expect("given or started"),
            registry: registry.or(own_registry.as_ref().map(Registry::url)).expect("given or started"),
            postgres: postgres.or(own_postgres.as_ref().map(Postgres::url)).expect("given or started"),
            cache,
            _started: (own_kafka, own_registry, own_postgres),
        })
    }
}

/// An address that the environment gives; an empty one is none.
fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn timed<T>(name: &str, start: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let began = Instant::now();
    let started = start()?;
    progress(&format!("{name} is up after {:.1} s", began.elapsed().as_secs_f32()));
    Ok(started)
}

/// Eight letters that no other test, run or machine has.
pub(crate) fn random_name() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..8].to_owned()
}

/// Looks again until there is something, for as long as `bound`; then the test fails. The one place that waits by the
/// clock: for what sends no word when it has happened.
pub(crate) async fn eventually<T>(what: &str, bound: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    loop {
        ticks.tick().await;
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < bound, "waited {bound:?} for {what}");
    }
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// From `HOOKBRIDGE_TEST_SEED`, else a new one; printed, so that a failure can be had again.
    pub(crate) fn seeded(test: &str) -> Self {
        let given = given("HOOKBRIDGE_TEST_SEED").map(|seed| seed.parse().expect("HOOKBRIDGE_TEST_SEED is a number"));
        let seed = given.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
        progress(&format!("{test}: HOOKBRIDGE_TEST_SEED={seed}"));
        Self::from(seed)
    }

    pub(crate) fn from(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
