//! What runs came to: a line of JSON each, outside the repository, so that a command that was stopped goes on where it was;
//! and the published page, whose tables are made of these lines and of nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::judge::{Counted, Figures, Finding, Verdict};
use crate::options::Options;
use crate::rows::Row;

/// Findings that are kept of a run: the first ones tell what it is.
const MAX_FINDINGS: usize = 20;

/// Between these two lines the page is written by `--page`.
const BEGIN: &str = "<!-- the results, written by `cargo test --test faults -- --page` -->";
const END: &str = "<!-- the end of the results -->";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) row: String,
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    pub(crate) rate: u32,
    #[serde(default)]
    pub(crate) bug: Option<String>,
    /// The last commit that touched the bridge.
    pub(crate) commit: String,
    pub(crate) figures: Figures,
    pub(crate) counted: Option<Counted>,
    pub(crate) found: usize,
    pub(crate) findings: Vec<Finding>,
    pub(crate) catch_up_ms: u64,
    pub(crate) took_s: u64,
    /// Partitions in which Kafka had left a transaction open for ever.
    #[serde(default)]
    pub(crate) hanging: usize,
    /// Resident, the three together, and the larger bridge.
    pub(crate) brokers_mib: u64,
    pub(crate) bridge_mib: u64,
}

impl Outcome {
    pub(crate) fn new(row: Row, seed: u64, options: &Options, verdict: Verdict, counted: Option<Counted>) -> Self {
        let found = verdict.findings.len();
        Self {
            row: name(row, options),
            seed,
            seconds: options.seconds.as_secs(),
            rate: options.rate,
            bug: options.bug.clone(),
            commit: commit(),
            figures: verdict.figures,
            counted,
            found,
            findings: verdict.findings.into_iter().take(MAX_FINDINGS).collect(),
            catch_up_ms: 0,
            took_s: 0,
            hanging: 0,
            brokers_mib: 0,
            bridge_mib: 0,
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.found == 0
    }

    pub(crate) fn line(&self) -> String {
        let Figures { events, requests, unknown, records, doubles, rows, lost, doubled, .. } = &self.figures;
        let Figures { calls, repeated_calls, dead, copies, .. } = &self.figures;
        let Figures { longest_wait_ms, recovery_ms, ack_p50_us, ack_p99_us, faults, .. } = &self.figures;
        let verdict = if self.is_good() { "good".to_owned() } else { format!("{} FINDINGS", self.found) };
        let mut line = format!(
            "{} seed {}: {verdict}; {faults} faults, {events} events in {requests} requests ({unknown} unknown), \
             {records} records ({doubles:?}), {rows} rows, {calls} calls ({repeated_calls} repeated), {dead} dead, \
             {copies} copies, {lost} lost, {doubled} doubled; recovery {recovery_ms} ms, \
             longest wait {longest_wait_ms} ms, caught up in {} ms, {} hanging, ack p50 {ack_p50_us} us p99 {ack_p99_us} us, {:?}; \
             brokers {} MiB, a bridge {} MiB; {} s",
            self.row,
            self.seed,
            self.catch_up_ms,
            self.hanging,
            self.counted,
            self.brokers_mib,
            self.bridge_mib,
            self.took_s
        );
        for Finding { kind, what } in &self.findings {
            let _ = write!(line, "\n    {kind}: {what}");
        }
        line
    }
}

/// A row's name, with what was added to it.
fn name(row: Row, options: &Options) -> String {
    let http = if options.http && !row.wants_a_vendor() { "+http" } else { "" };
    let kafka = if options.kafka && !row.wants_copies() { "+kafka" } else { "" };
    format!("{}{http}{kafka}", row.name())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// The last commit that touched what is tested, with a `+` where it was changed since.
fn commit() -> String {
    let product = ["--", "bridge", "schemas", "Cargo.toml", "Cargo.lock"];
    let log = [&["log", "-1", "--format=%h"][..], &product].concat();
    let Some(commit) = git(&log).filter(|commit| !commit.is_empty()) else { return "unknown".to_owned() };
    let changed = git(&[&["status", "--porcelain"][..], &product].concat()).is_some_and(|changes| !changes.is_empty());
    if changed { format!("{commit}+") } else { commit }
}

/// The results so far.
#[derive(Debug)]
pub(crate) struct Results {
    path: PathBuf,
    pub(crate) all: Vec<Outcome>,
}

impl Results {
    pub(crate) fn open() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("faults.jsonl");
        let text = fs::read_to_string(&path).unwrap_or_default();
        // A line that was cut off in the middle, or is of another form, is a run to be done again.
        let all = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Self { path, all }
    }

    /// Whether this very run is there already.
    pub(crate) fn has(&self, row: Row, seed: u64, options: &Options) -> bool {
        let commit = commit();
        self.all.iter().any(|outcome| {
            (&*outcome.row, outcome.seed, outcome.seconds, outcome.rate)
                == (&*name(row, options), seed, options.seconds.as_secs(), options.rate)
                && outcome.bug == options.bug
                && outcome.commit == commit
        })
    }

    pub(crate) fn add(&mut self, outcome: Outcome) -> Result<(), String> {
        let line = serde_json::to_string(&outcome).map_err(|error| error.to_string())?;
        let appended =
            File::options().create(true).append(true).open(&self.path).and_then(|mut file| writeln!(file, "{line}"));
        appended.map_err(|error| format!("{}: {error}", self.path.display()))?;
        self.all.push(outcome);
        Ok(())
    }

    /// Writes the tables into `docs/faults.md`.
    pub(crate) fn write_page(&self) -> Result<(), String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
        let page = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let (before, rest) = page.split_once(BEGIN).ok_or("docs/faults.md has no place for the results")?;
        let (_, after) = rest.split_once(END).ok_or("docs/faults.md has no end of the results")?;
        let page = format!("{before}{BEGIN}\n\n{}\n{END}{after}", self.tables());
        fs::write(&path, page).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn tables(&self) -> String {
        let mut text = String::from(
            "| row | fault | runs (s each) | faults | events | unknown | lost | doubled | recovery, longest (ms) | caught up, longest (ms) | left hanging by Kafka | findings | seeds | commit |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for row in Row::ALL {
            let of_one = |run: &Outcome| (run.row.clone(), run.seconds, run.commit.clone());
            for ((name, seconds, commit), runs) in by(&self.of(row), of_one) {
                let sum = |of: fn(&Figures) -> usize| runs.iter().map(|run| of(&run.figures)).sum::<usize>();
                let most = |of: fn(&Outcome) -> u64| runs.iter().map(|run| of(run)).max().unwrap_or_default();
                let (found, seeds) = (runs.iter().map(|run| run.found).sum::<usize>(), seeds(&runs));
                let _ = writeln!(
                    text,
                    "| {name} | {} | {} ({seconds}) | {} | {} | {} | {} | {} | {} | {} | {} | {found} | {seeds} | {commit} |",
                    row.what(),
                    runs.len(),
                    sum(|figures| figures.faults),
                    sum(|figures| figures.events),
                    sum(|figures| figures.unknown),
                    sum(|figures| figures.lost),
                    sum(|figures| figures.doubled),
                    most(|run| run.figures.recovery_ms),
                    most(|run| run.catch_up_ms),
                    runs.iter().map(|run| run.hanging).sum::<usize>(),
                );
            }
        }
        text.push_str("\n### Duplicates in the topic\n\n");
        text.push_str(
            "| row | events | requests | recognised | records | of two bridges at once | of one bridge, after an uncertain report or a kill | of librdkafka itself | uncertain reports |\n\
             |---|---|---|---|---|---|---|---|---|\n",
        );
        for row in Row::ALL {
            let runs = self.of(row);
            if runs.is_empty() {
                continue;
            }
            let sum = |of: fn(&Figures) -> usize| runs.iter().map(|run| of(&run.figures)).sum::<usize>();
            let counted = |of: fn(&Counted) -> u64| {
                let all: Option<Vec<u64>> = runs.iter().map(|run| run.counted.as_ref().map(of)).collect();
                all.map_or("not counted".to_owned(), |all| all.iter().sum::<u64>().to_string())
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                row.name(),
                sum(|figures| figures.events),
                sum(|figures| figures.requests),
                counted(|counted| counted.deduplicated),
                sum(|figures| figures.records),
                sum(|figures| figures.doubles.two_bridges),
                sum(|figures| figures.doubles.same_bridge),
                sum(|figures| figures.doubles.library),
                counted(|counted| counted.uncertain),
            );
        }
        self.vendor(&mut text);
        self.copies(&mut text);
        self.seeded_bugs(&mut text);
        text
    }

    fn copies(&self, text: &mut String) {
        text.push_str(
            "\n### The copies of a Kafka sink\n\n| row | events | copies | aborted copies | lost | doubled |\n\
             |---|---|---|---|---|---|\n",
        );
        for row in Row::ALL {
            let runs: Vec<&Outcome> = self.of(row).into_iter().filter(|run| run.figures.copies > 0).collect();
            if runs.is_empty() {
                continue;
            }
            let sum = |of: fn(&Figures) -> usize| runs.iter().map(|run| of(&run.figures)).sum::<usize>();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                row.name(),
                sum(|figures| figures.events),
                sum(|figures| figures.copies),
                sum(|figures| figures.aborted_copies),
                sum(|figures| figures.lost),
                sum(|figures| figures.doubled),
            );
        }
    }

    fn vendor(&self, text: &mut String) {
        text.push_str(
            "\n### The vendor\n\n| row | events | calls | repeated, with the same `webhook-id` | dead letters | lost | doubled |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for row in Row::ALL {
            let runs: Vec<&Outcome> = self.of(row).into_iter().filter(|run| run.figures.calls > 0).collect();
            if runs.is_empty() {
                continue;
            }
            let sum = |of: fn(&Figures) -> usize| runs.iter().map(|run| of(&run.figures)).sum::<usize>();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                row.name(),
                sum(|figures| figures.events),
                sum(|figures| figures.calls),
                sum(|figures| figures.repeated_calls),
                sum(|figures| figures.dead),
                sum(|figures| figures.lost),
                sum(|figures| figures.doubled),
            );
        }
    }

    fn seeded_bugs(&self, text: &mut String) {
        text.push_str("\n### Seeded bugs\n\n| bug | row | runs | found out in | as |\n|---|---|---|---|---|\n");
        let seeded: Vec<&Outcome> = self.all.iter().filter(|run| run.bug.is_some()).collect();
        let groups = by(&seeded, |run| (run.bug.clone().unwrap_or_default(), run.row.clone()));
        for ((bug, row), runs) in groups {
            let found = runs.iter().filter(|run| !run.is_good()).count();
            let mut kinds: Vec<&str> =
                runs.iter().flat_map(|run| &run.findings).map(|finding| &*finding.kind).collect();
            kinds.sort_unstable();
            kinds.dedup();
            let _ = writeln!(text, "| {bug} | {row} | {} | {found} | {} |", runs.len(), kinds.join(", "));
        }
    }

    /// The published runs of a row, with an HTTP sink and without: those that have no seeded bug.
    fn of(&self, row: Row) -> Vec<&Outcome> {
        let is_of = |run: &&Outcome| run.bug.is_none() && run.row.split('+').next() == Some(row.name());
        self.all.iter().filter(is_of).collect()
    }
}

fn by<'a, K: Ord>(runs: &[&'a Outcome], key: impl Fn(&Outcome) -> K) -> BTreeMap<K, Vec<&'a Outcome>> {
    let mut groups: BTreeMap<K, Vec<&Outcome>> = BTreeMap::new();
    for run in runs {
        groups.entry(key(run)).or_default().push(run);
    }
    groups
}

fn seeds(runs: &[&Outcome]) -> String {
    let mut seeds: Vec<u64> = runs.iter().map(|run| run.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    seeds.join(" ")
}
