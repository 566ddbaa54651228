//! Rounds in which the candidates take turns, and what is made of them.

use std::time::Duration;

use super::bare_copy::OFFSETS;
use super::measure::{self, Measured};
use super::world::World;
use crate::shared::{median, wait_for};

/// Calls under way at once, of both candidates.
pub(crate) const IN_FLIGHT: usize = 64;
/// Cores that nobody of ours used, above which a measurement is taken again.
const MAX_FOREIGN: f64 = 0.35;
const REPEATS: usize = 1;
/// What the receiver's answers take.
const LATENCIES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(5)];
/// Where the product's Postgres sink keeps its offsets.
pub(crate) const PRODUCT_OFFSETS: &str = "hookbridge_offsets";

/// Ratios, hookbridge to bare, within a round.
pub(crate) struct Limits {
    /// Records a second over HTTP: at least.
    pub(crate) http_rate: f64,
    /// CPU seconds a record over HTTP: at most.
    pub(crate) http_cpu: f64,
    /// Connections for each call that may be under way: at most.
    pub(crate) connections: f64,
    /// Rows a second: at least this, or as many as the next one says.
    pub(crate) copy_rate: f64,
    pub(crate) rows_per_second: f64,
}

pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) http: bool,
    pub(crate) postgres: bool,
    /// Whether a run that was disturbed is worth another.
    pub(crate) repeat: bool,
    pub(crate) limits: Limits,
}

/// The two candidates in one round: hookbridge, bare.
type Pair = [Measured; 2];

/// Measures, prints, and answers the exit code.
pub(crate) fn run(world: &World, plan: &Plan) -> i32 {
    let (count, preloaded) = (world.count, &world.preloaded);
    println!("{count} records of {} bytes, sent as {} bytes of JSON", preloaded.value_bytes, preloaded.body_bytes);
    let mut passed = true;
    if plan.http {
        passed &= http(world, plan);
    }
    if plan.postgres {
        passed &= postgres(world, plan);
    }
    i32::from(!passed)
}

fn http(world: &World, plan: &Plan) -> bool {
    let settings = format!("concurrency: {IN_FLIGHT}");
    let product = || world.http(&world.new_name("crm"), &settings);
    let bare = || world.bare_http(IN_FLIGHT);
    let mut pairs: Vec<Vec<Pair>> = LATENCIES.iter().map(|_| Vec::new()).collect();
    for round in 0..plan.rounds {
        for (&latency, pairs) in LATENCIES.iter().zip(&mut pairs) {
            let pair = in_turn(round, |candidate| {
                quietly(plan, || match candidate {
                    0 => measure::http(world, &product, latency, true),
                    _ => measure::http(world, &bare, latency, false),
                })
            });
            print_pair(round, &format!("HTTP, {} ms", latency.as_millis()), &pair);
            pairs.push(pair);
        }
    }
    println!("\nmedian ratios, hookbridge to bare:");
    let limits = &plan.limits;
    let mut passed = true;
    for (latency, pairs) in LATENCIES.iter().zip(&pairs) {
        let (rate, cpu) = (ratio(pairs, |m| m.rate), ratio(pairs, |m| m.cpu));
        let connections = pairs.iter().map(|[ours, _]| ours.connections).max().unwrap_or(0);
        let most = limits.connections * IN_FLIGHT as f64;
        let good = rate >= limits.http_rate && cpu <= limits.http_cpu && connections as f64 <= most;
        passed &= good;
        println!(
            "  HTTP, {} ms  rate {rate:.2}  CPU {cpu:.2}  connections {connections}   {}: rate ≥ {:.2}, CPU ≤ {:.2}, connections ≤ {most}",
            latency.as_millis(),
            word(good),
            limits.http_rate,
            limits.http_cpu,
        );
    }
    passed
}

fn postgres(world: &World, plan: &Plan) -> bool {
    let model = model(world);
    let product = || world.postgres(&world.new_name("warehouse"), "");
    let bare = || world.bare_copy(&world.new_name("bare"), &model);
    let mut pairs: Vec<Pair> = Vec::new();
    for round in 0..plan.rounds {
        let pair = in_turn(round, |candidate| {
            quietly(plan, || match candidate {
                0 => measure::postgres(world, &product, PRODUCT_OFFSETS),
                _ => measure::postgres(world, &bare, OFFSETS),
            })
        });
        print_pair(round, "Postgres", &pair);
        pairs.push(pair);
    }
    let limits = &plan.limits;
    let (rate, cpu) = (ratio(&pairs, |m| m.rate), ratio(&pairs, |m| m.cpu));
    let rows = median(pairs.iter().map(|[ours, _]| ours.rate).collect());
    let good = rate >= limits.copy_rate || rows >= limits.rows_per_second;
    println!(
        "\nmedian ratios, hookbridge to a bare COPY loop:\n  Postgres  rate {rate:.2} ({rows:.0} rows/s)  CPU {cpu:.2}   {}: rate ≥ {:.2} or {:.0} rows/s",
        word(good),
        limits.copy_rate,
        limits.rows_per_second
    );
    good
}

/// A row as the product writes it, in a table with the product's columns and index: what the bare loop goes by.
fn model(world: &World) -> String {
    let first = world.new_name("model");
    let copy = format!("{first}_row");
    let mut candidate = world.postgres(&first, "");
    let rows = format!("SELECT count(*) FROM {first}");
    wait_for("the product's first row", || {
        candidate.assert_alive();
        world.number(&rows).is_some_and(|rows| rows > 0)
    });
    drop(candidate);
    world.execute(&format!("CREATE TABLE {copy} (LIKE {first} INCLUDING ALL)"));
    world.execute(&format!("INSERT INTO {copy} SELECT * FROM {first} LIMIT 1; DROP TABLE {first}"));
    world.create_bare_offsets();
    copy
}

/// Both candidates, who goes first turning with each round.
fn in_turn(round: usize, mut measure: impl FnMut(usize) -> Measured) -> Pair {
    if round.is_multiple_of(2) {
        let ours = measure(0);
        [ours, measure(1)]
    } else {
        let bare = measure(1);
        [measure(0), bare]
    }
}

/// Measures again where something else used the machine, and keeps the quieter one.
fn quietly(plan: &Plan, measure: impl Fn() -> Measured) -> Measured {
    let mut best = measure();
    for _ in 0..REPEATS {
        if !plan.repeat || best.foreign <= MAX_FOREIGN {
            break;
        }
        let again = measure();
        if again.foreign < best.foreign {
            best = again;
        }
    }
    best
}

/// The median of the ratios within the rounds.
fn ratio(pairs: &[Pair], of: fn(&Measured) -> f64) -> f64 {
    median(pairs.iter().map(|[ours, bare]| of(ours) / of(bare)).collect())
}

fn word(good: bool) -> &'static str {
    if good { "holds" } else { "FAILS" }
}

fn print_pair(round: usize, what: &str, [ours, bare]: &Pair) {
    print!("round {}  {what:<10}", round + 1);
    print!("  rate {:>6.0} / {:>6.0} = {:.2}", ours.rate, bare.rate, ours.rate / bare.rate);
    print!("   CPU s/1M {:>5.1} / {:>5.1} = {:.2}", ours.cpu, bare.cpu, ours.cpu / bare.cpu);
    print!("   target {:.1} / {:.1}   broker {:.1} / {:.1}", ours.target, bare.target, ours.broker, bare.broker);
    print!("   connections {} / {}", ours.connections, bare.connections);
    print!("   MiB {:.0} / {:.0}", ours.peak_mib, bare.peak_mib);
    println!("   foreign {:.2} / {:.2}", ours.foreign, bare.foreign);
}

/// What one setting makes of the product's delivery, beside others: for choosing defaults.
pub(crate) fn sweep(world: &World, http: bool, postgres: bool) -> i32 {
    let print = |what: &str, measured: &Measured| {
        let Measured { rate, cpu, target, broker, connections, peak_mib, foreign } = measured;
        println!(
            "{what:<34}  rate {rate:>6.0}   CPU s/1M {cpu:>5.1}   target {target:>5.1}   broker {broker:>5.1}   connections {connections:>3}   MiB {peak_mib:>4.0}   foreign {foreign:.2}"
        );
    };
    for latency in LATENCIES.into_iter().filter(|_| http) {
        for concurrency in [1, 8, 16, 32, 64, 128, 256] {
            let setting = format!("concurrency: {concurrency}");
            let start = || world.http(&world.new_name("crm"), &setting);
            let measured = measure::http(world, &start, latency, true);
            print(&format!("HTTP, {} ms, {setting}", latency.as_millis()), &measured);
        }
    }
    for batch in [100, 500, 1_000, 2_000, 5_000, 10_000].into_iter().filter(|_| postgres) {
        let setting = format!("max_batch: {batch}");
        let start = || world.postgres(&world.new_name("warehouse"), &setting);
        print(&format!("Postgres, {setting}"), &measure::postgres(world, &start, PRODUCT_OFFSETS));
    }
    0
}
