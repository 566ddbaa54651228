//! One run of one row: services, bridges, load, faults, rest, evidence, verdict.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::cluster::Cluster;
use crate::deployment::{Bridge, Place};
use crate::evidence;
use crate::harness::maven::Cache;
use crate::harness::postgres::{Database, Postgres};
use crate::harness::process::{folder, progress};
use crate::harness::registry::Registry;
use crate::harness::{Random, random_name};
use crate::judge::{Evidence, Written, judge};
use crate::ledger::Ledger;
use crate::options::Options;
use crate::receiver::Receiver;
use crate::results::Outcome;
use crate::rows::Row;
use crate::sender::{Load, Sending};
use crate::victims::{STOPS_WITHIN, Victims};

/// A producer gives a record up after thirty seconds.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// For what a run has left, after everything was mended: a group that lost a member takes its session's time; a sink that
/// was denied looks again within a minute, and then has the load of minutes to bring at its vendor's own speed: 18,000
/// events at sixteen calls of 0.14 s are 160 s, on a machine that has nothing else to do.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(600);

/// Before the first fault, for the consumers to have their partitions.
const CALM: Duration = Duration::from_secs(2);

const KEYS: u32 = 200;

/// What all runs share.
pub(crate) struct Rig {
    cache: Cache,
    cluster: Cluster,
    registry: Registry,
    postgres: Postgres,
}

impl Rig {
    pub(crate) fn start() -> Result<Self, String> {
        let cache = Cache::open()?;
        cache.reader()?;
        cache.operator()?;
        let (registry, postgres) = (cache.registry()?, cache.postgres()?);
        progress("starting three brokers, the registry and Postgres");
        let (cluster, registry, postgres) = std::thread::scope(|scope| {
            let cluster = scope.spawn(|| Cluster::start(&cache));
            let registry = scope.spawn(|| Registry::start(&registry));
            let postgres = scope.spawn(|| Postgres::start(&postgres));
            (cluster.join(), registry.join(), postgres.join())
        });
        let (cluster, registry) = (cluster.expect("no panic")?, registry.expect("no panic")?);
        progress("they are up");
        Ok(Self { cache, cluster, registry, postgres: postgres.expect("no panic")? })
    }

    /// A row once, with the chances of `seed`.
    pub(crate) async fn run(&mut self, row: Row, seed: u64, options: &Options) -> Outcome {
        let began = Instant::now();
        let database = Database::create(&self.postgres.url()).await;
        let ledger = Arc::new(Ledger::create(&folder("ledger").join("ledger.jsonl")));
        let vendor =
            if options.http || row.wants_a_vendor() { Some(Receiver::start(Arc::clone(&ledger)).await) } else { None };
        let place = Place {
            bootstrap: if row.wants_a_proxy() { self.cluster.proxied_bootstrap() } else { self.cluster.bootstrap() },
            registry: self.registry.url(),
            database: database.url.clone(),
            prefix: format!("{}-{}.", row.name().to_lowercase(), random_name()),
            vendor: vendor.as_ref().map(|vendor| vendor.port),
            session: row.session(),
            copies: options.kafka || row.wants_copies(),
            bug: options.bug.clone(),
        };
        let mut bridges: Vec<Bridge> = ["a", "b"].map(|name| Bridge::start(name, &place)).into();
        for bridge in &bridges {
            bridge.wait_ready().await;
        }
        let client = database.connect().await;
        evidence::watch_offsets(&client).await;
        // Copies come on top of the rate of requests.
        let rate = if row.copies() > 1 { (options.rate / 10).max(5) } else { options.rate };
        let ports = bridges.iter().map(|bridge| (bridge.name.clone(), bridge.ingest_port)).collect();
        let keys = KEYS.min(rate * 2);
        let sending = Sending::start(&Load { rate, keys, copies: row.copies(), ports, seed }, &ledger);
        sleep_until(Instant::now() + CALM).await;

        let mut victims = Victims {
            row,
            cache: &self.cache,
            cluster: &mut self.cluster,
            bridges: &mut bridges,
            place: &place,
            database: database.connect().await,
            ledger: Arc::clone(&ledger),
            random: Random::from(seed),
            until: Instant::now() + options.seconds,
            vendor: vendor.clone(),
            seen: Vec::new(),
            hanging: 0,
        };
        let mut stuck = Vec::new();
        if let Err(error) = victims.torment().await {
            stuck.push(error);
        }
        victims.heal().await;
        if let Err(error) = sending.finish().await {
            stuck.push(error);
        }
        victims.settle(SETTLED_WITHIN).await;
        stuck.append(&mut victims.seen);
        let hanging = victims.hanging;

        let healed = Instant::now();
        // The nemesis ends sessions, ours among them.
        let client = database.connect().await;
        let committed = evidence::committed(&self.cache, &place).await;
        let ends = committed.iter().fold(HashMap::new(), |mut ends: HashMap<i32, i64>, record| {
            let end = ends.entry(record.partition).or_default();
            *end = (*end).max(record.offset + 1);
            ends
        });
        if !catch_up(&client, &place, &ends).await {
            stuck.push(format!("the sink has not settled the topic after {CAUGHT_UP_WITHIN:?}"));
        }
        if let Some(vendor) = &vendor
            && !vendor_has(vendor, &committed, row == Row::F18).await
        {
            stuck.push(format!("the vendor has not been given all after {CAUGHT_UP_WITHIN:?}"));
        }
        if place.copies && !evidence::copies_have_all(&self.cache, &place, &committed, CAUGHT_UP_WITHIN).await {
            stuck.push(format!("the Kafka sink has not copied all after {CAUGHT_UP_WITHIN:?}"));
        }
        let catch_up = healed.elapsed();
        let counted = if row.spares_the_bridges() { evidence::counters(&bridges).await } else { None };
        let memory = (self.cluster.resident_bytes(), bridges.iter().map(Bridge::resident_bytes).max());
        for bridge in &mut bridges {
            match bridge.stop(STOPS_WITHIN) {
                Ok(Some(0)) => {}
                Ok(code) => stuck.push(format!("bridge {} ended with {code:?}\n{}", bridge.name, bridge.tail())),
                Err(error) => stuck.push(error),
            }
        }
        let group = evidence::group_offsets(&self.cache, &place);
        if group.is_empty() && !place.transactional_sinks().is_empty() {
            stuck.push("no offset that a group has committed was seen".to_owned());
        }
        let evidence = Evidence {
            ledger: ledger.read(),
            committed,
            uncommitted: evidence::uncommitted(&self.cache, &place),
            rows: evidence::rows(&client).await,
            offsets: evidence::offsets(&client).await,
            dead: vendor.as_ref().map(|_| evidence::dead(&self.cache, &place)),
            copies: if place.copies { Some(evidence::copies(&self.cache, &place).await) } else { None },
            group,
            repeats_no_call: row.repeats_no_call(),
            counted,
            stuck,
        };
        let verdict = judge(&evidence);
        Outcome {
            catch_up_ms: u64::try_from(catch_up.as_millis()).expect("minutes"),
            took_s: began.elapsed().as_secs(),
            hanging,
            brokers_mib: memory.0 >> 20,
            bridge_mib: memory.1.unwrap_or_default() >> 20,
            ..Outcome::new(row, seed, options, verdict, counted)
        }
    }
}

/// Waits until the vendor took what the topic holds, but for what it refuses.
async fn vendor_has(vendor: &Receiver, committed: &[Written], picky: bool) -> bool {
    let deadline = Instant::now() + CAUGHT_UP_WITHIN;
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    while !vendor.has_all(committed.iter().map(|record| (record.key.as_str(), record.sequence)), picky) {
        if Instant::now() > deadline {
            return false;
        }
        ticks.tick().await;
    }
    true
}

/// Waits until the sink has settled what the topic holds.
async fn catch_up(database: &tokio_postgres::Client, place: &Place, ends: &HashMap<i32, i64>) -> bool {
    let topic = place.topic();
    let deadline = Instant::now() + CAUGHT_UP_WITHIN;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    while !evidence::has_caught_up(database, &topic, ends).await {
        if Instant::now() > deadline {
            return false;
        }
        ticks.tick().await;
    }
    true
}
