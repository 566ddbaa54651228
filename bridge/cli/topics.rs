//! `hookbridge topics`: what the configuration needs of Kafka's topics against what is there.

use std::io::{self, BufRead as _, IsTerminal as _, Write};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{Common, Exit, report};
use crate::app::start::{max_record, topic_plans};
use crate::config::{self, Config};
use crate::kafka::preflight::Finding;
use crate::kafka::{Admin, Change, Client, Difference, Error, TopicPlan};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show what would be created or changed, and what breaks the promise; nothing is touched
    #[command(after_help = "\
Examples:
  hookbridge topics plan
  hookbridge topics plan --json

Exit codes: 0 nothing to do, 1 there are changes or problems, 69 Kafka cannot be reached, \
78 configuration")]
    Plan,
    /// Create and change what the plan shows, and wait until the cluster shows it
    #[command(after_help = "\
Partitions are added and settings raised; nothing is ever taken away or made less.

Examples:
  hookbridge topics apply          shows the plan and asks
  hookbridge topics apply --yes    for scripts

Exit codes: 0 all is as it should be, 1 problems are left or nobody said yes, 69 Kafka cannot be \
reached, 78 configuration")]
    Apply(ApplyArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ApplyArgs {
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) fn topics(common: &Common, command: &Command, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    if let Some(exit) = super::check::logging(common, "error", err)? {
        return Ok(exit);
    }
    let config = match config::load(&common.config, &config::Process) {
        Ok(loaded) => loaded.config,
        Err(problems) => {
            writeln!(err, "{problems}")?;
            return Ok(Exit::Config);
        }
    };
    let admin = Client::new(&config.kafka, "hookbridge-topics").and_then(|client| client.admin());
    let admin = match admin {
        Ok(admin) => admin,
        Err(error) => return failed(&error, err),
    };
    let runtime = Runtime::new()?;
    let plans = topic_plans(&config);
    let work = Work { common, admin: &admin, plans: &plans, max_record: max_record(&config) };
    let exit = runtime.block_on(async {
        match command {
            Command::Plan => work.plan(out, err).await,
            Command::Apply(args) => work.apply(args, &config, out, err).await,
        }
    });
    runtime.shutdown_background();
    exit
}

fn failed(error: &Error, err: &mut dyn Write) -> io::Result<Exit> {
    let (exit, hint) = match error {
        Error::Unreachable { .. } => (Exit::Unavailable, Some("`kafka.bootstrap_servers` says where it is looked for")),
        Error::NoLeader { .. } | Error::NotSeen { .. } => {
            (Exit::Unavailable, Some("run it again: what was done is kept, and only the rest is done"))
        }
        Error::Property { .. } | Error::Start { .. } => (Exit::Config, None),
        Error::Topic { .. } => (Exit::Problems, Some("what was done before it is kept; the rest was not begun")),
        _ => (Exit::Problems, None),
    };
    report(err, error, hint).map(|()| exit)
}

struct Work<'a> {
    common: &'a Common,
    admin: &'a Admin,
    plans: &'a [TopicPlan],
    max_record: usize,
}

impl Work<'_> {
    async fn plan(&self, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
        let found = match self.admin.difference(self.plans, self.max_record).await {
            Ok(found) => found,
            Err(error) => return failed(&error, err),
        };
        self.show(&found, out)?;
        if found.changes() > 0 && !self.common.json {
            writeln!(err, "\nhint: `hookbridge topics apply` carries it out")?;
        }
        Ok(if found.changes() == 0 && found.problems().next().is_none() { Exit::Fine } else { Exit::Problems })
    }

    async fn apply(
        &self,
        args: &ApplyArgs,
        config: &Config,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> io::Result<Exit> {
        let found = match self.admin.difference(self.plans, self.max_record).await {
            Ok(found) => found,
            Err(error) => return failed(&error, err),
        };
        self.show(&found, out)?;
        let settled = if found.problems().next().is_none() { Exit::Fine } else { Exit::Problems };
        if found.changes() == 0 {
            return Ok(settled);
        }
        out.flush()?;
        if !args.yes {
            if !io::stdin().is_terminal() {
                writeln!(err, "error: nobody is there to be asked\n\nhint: `--yes` carries it out without a question")?;
                return Ok(Exit::Usage);
            }
            write!(err, "\nCarry out {} on {}? [y/N] ", changes(found.changes()), config.kafka.bootstrap_servers)?;
            err.flush()?;
            let mut answer = String::new();
            io::stdin().lock().read_line(&mut answer)?;
            if !matches!(answer.trim(), "y" | "Y" | "yes") {
                writeln!(err, "nothing was changed")?;
                return Ok(Exit::Problems);
            }
        }
        if let Err(error) = self.admin.apply(self.plans, self.max_record, &found).await {
            return failed(&error, err);
        }
        writeln!(err, "done: {}, and the cluster shows it", changes(found.changes()))?;
        Ok(settled)
    }

    fn show(&self, found: &Difference, out: &mut dyn Write) -> io::Result<()> {
        if self.common.json {
            serde_json::to_writer(&mut *out, &as_json(found))?;
            return writeln!(out);
        }
        for warning in &found.warnings {
            writeln!(out, "cluster\n  warning: {} ({})", warning.what, warning.hint)?;
        }
        let mut sound = 0;
        for topic in &found.topics {
            if topic.changes.is_empty() && topic.problems.is_empty() && topic.warnings.is_empty() {
                sound += 1;
                continue;
            }
            writeln!(out, "{}", topic.topic)?;
            for change in &topic.changes {
                let mark = if matches!(change, Change::Set { .. }) { '~' } else { '+' };
                writeln!(out, "  {mark} {change}")?;
            }
            for problem in &topic.problems {
                writeln!(out, "  ! problem: {} ({})", problem.what, problem.hint)?;
            }
            for warning in &topic.warnings {
                writeln!(out, "  warning: {} ({})", warning.what, warning.hint)?;
            }
        }
        let problems = found.problems().count();
        let what = match (found.changes(), problems) {
            (0, 0) => "nothing to do".to_owned(),
            (count, 0) => format!("{} to make", changes(count)),
            (count, problems) => format!("{} to make, {problems} problem(s) that no change mends", changes(count)),
        };
        writeln!(out, "{} topics, {sound} as they should be: {what}", found.topics.len())
    }
}

fn changes(count: usize) -> String {
    if count == 1 { "1 change".to_owned() } else { format!("{count} changes") }
}

fn as_json(found: &Difference) -> Value {
    let findings = |all: &[Finding]| -> Value {
        all.iter().map(|finding| json!({ "message": finding.what, "hint": finding.hint })).collect()
    };
    let change = |change: &Change| match change {
        Change::Create { partitions, replication, settings } => {
            let settings: serde_json::Map<_, _> =
                settings.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            json!({ "change": "create", "partitions": partitions, "replication": replication, "settings": settings })
        }
        Change::AddPartitions { from, to } => json!({ "change": "add_partitions", "from": from, "to": to }),
        Change::Set { setting, from, to } => json!({ "change": "set", "setting": setting, "from": from, "to": to }),
    };
    let topics: Vec<Value> = found
        .topics
        .iter()
        .map(|topic| {
            json!({
                "topic": topic.topic,
                "changes": topic.changes.iter().map(change).collect::<Vec<_>>(),
                "problems": findings(&topic.problems),
                "warnings": findings(&topic.warnings),
            })
        })
        .collect();
    json!({
        "cluster": { "brokers": found.brokers, "warnings": findings(&found.warnings) },
        "topics": topics,
        "changes": found.changes(),
        "problems": found.problems().count(),
    })
}
