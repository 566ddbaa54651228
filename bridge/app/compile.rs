//! Everything that can be known before a socket opens: the configuration's schemas, plans, signatures and expressions,
//! compiled. `check` stops here; `run` goes on from here, at its start and at every reload.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::causes::chain;
use crate::config::{self, Config, Environment, Expr, Location, Problem, Purpose, Severity, Sink, Source};
use crate::expr::{self, Program};
use crate::ingest::handshake::Handshakes;
use crate::ingest::map::{self, Mapper};
use crate::ingest::split::Splitter;
use crate::ingest::verify::Verifier;
use crate::schema::plan::Plan;
use crate::schema::{EventSchema, files};

/// The configuration with everything in it compiled.
#[derive(Debug)]
pub struct Compiled {
    pub config: Config,
    /// By event type.
    pub events: BTreeMap<String, CompiledEvent>,
    pub sources: Vec<CompiledSource>,
    pub sinks: Vec<CompiledSink>,
}

#[derive(Debug)]
pub struct CompiledEvent {
    pub schema: EventSchema,
    pub plan: Arc<Plan>,
}

#[derive(Debug)]
pub struct CompiledSource {
    pub config: Source,
    pub verifier: Verifier,
    pub handshakes: Handshakes,
    pub splitter: Option<Splitter>,
    pub mapper: Mapper,
}

#[derive(Debug)]
pub struct CompiledSink {
    pub config: Sink,
    pub filter: Option<Arc<Program>>,
    pub map: Option<Arc<Program>>,
    /// Makes a batch's body.
    pub batch_body: Option<Arc<Program>>,
    /// Reads the answer to a batch.
    pub batch_failed: Option<Arc<Program>>,
}

/// Reads the file and compiles it, for `run` and its like: what this version cannot do is refused, warnings are logged.
///
/// # Errors
/// Every problem found, sorted by line.
pub fn read(file: &Path, env: &dyn Environment) -> Result<Compiled, Vec<Problem>> {
    let loaded = config::load(file, env).map_err(|problems| everything(&problems))?;
    for warning in &loaded.warnings {
        tracing::warn!(line = warning.at.line, path = %warning.at.path, "{}", warning.message);
    }
    if !loaded.not_built.is_empty() {
        // What `check` warns of is in the way now.
        let refusals = loaded.not_built.into_iter().map(|problem| Problem { severity: Severity::Error, ..problem });
        return Err(refusals.collect());
    }
    compile(loaded.config, &loaded.file)
}

/// What is wrong with a file that could not be read, its expressions included.
#[must_use]
pub fn everything(problems: &config::Problems) -> Vec<Problem> {
    let mut found = Found { file: &problems.file, problems: problems.all.clone() };
    for expr in &problems.expressions {
        if let Err(problems) = Program::compile(&expr.text) {
            found.expression(expr, problems);
        }
    }
    found.problems.sort_by_key(|problem| (problem.at.line, problem.at.column));
    found.problems
}

/// Compiles all of it, or names every problem. `file` is what the configuration is called in messages.
///
/// # Errors
/// Every problem found, sorted by line.
pub fn compile(config: Config, file: &Path) -> Result<Compiled, Vec<Problem>> {
    let mut found = Found { file, problems: Vec::new() };
    let events = events(&config, &mut found);
    let sources = sources(&config, &mut found);
    let sinks = sinks(&config, &events, &mut found);
    if found.problems.is_empty() {
        return Ok(Compiled { config, events, sources, sinks });
    }
    found.problems.sort_by_key(|problem| (problem.at.line, problem.at.column));
    Err(found.problems)
}

/// The problems found so far.
struct Found<'a> {
    file: &'a Path,
    problems: Vec<Problem>,
}

impl Found<'_> {
    fn error(&mut self, at: &Location, error: &(dyn std::error::Error + 'static)) {
        self.say(at, chain(error), None);
    }

    fn say(&mut self, at: &Location, message: String, hint: Option<String>) {
        let mut problem = Problem::error(self.file, at.clone(), message);
        problem.hint = hint;
        self.problems.push(problem);
    }

    /// What is wrong with an expression, at its place in the file.
    fn expression(&mut self, expr: &Expr, problems: Vec<expr::Problem>) {
        for problem in problems {
            self.say(&expr.place(problem.line, problem.column), problem.message, None);
        }
    }
}

fn events(config: &Config, found: &mut Found<'_>) -> BTreeMap<String, CompiledEvent> {
    let schemas = files::load(&config.schemas, &config.events, &config.kafka.topic_prefix).unwrap_or_else(|problems| {
        for problem in problems {
            found.say(&problem.at.clone().unwrap_or_default(), problem.to_string(), problem.error.hint());
        }
        Vec::new()
    });
    let mut events = BTreeMap::new();
    for schema in schemas {
        let Some(definition) = config.events.get(&schema.event_type) else { continue };
        match Plan::compile(&schema.inlined, definition.unknown_fields) {
            Ok(plan) => {
                events.insert(schema.event_type.clone(), CompiledEvent { schema, plan: Arc::new(plan) });
            }
            Err(error) => found.error(&definition.at, &error),
        }
    }
    events
}

fn sources(config: &Config, found: &mut Found<'_>) -> Vec<CompiledSource> {
    let mut sources = Vec::new();
    for source in config.sources.values() {
        let verifier = Verifier::compile(&source.scheme, &source.secrets, source.public_url.as_deref())
            .map_err(|error| found.error(&source.at, &error));
        let handshakes = Handshakes::compile(&source.scheme, &source.secrets, source.verify_token.as_ref())
            .map_err(|error| found.error(&source.at, &error));
        let splitter = source.scheme.split.as_ref().map(Splitter::compile).transpose();
        let splitter =
            splitter.map_err(|problems| problems.iter().for_each(|problem| found.error(&source.at, problem)));
        let mapper = Mapper::compile(source, &config.events).map_err(|errors| {
            for error in errors {
                // The place says the path already.
                let (at, message) = match error {
                    map::Error::Program { at, message } => (at, message),
                    map::Error::UnknownEvent { at, event } => (at, format!("there is no event `{event}`")),
                };
                found.say(&at, message, None);
            }
        });
        if let (Ok(verifier), Ok(handshakes), Ok(splitter), Ok(mapper)) = (verifier, handshakes, splitter, mapper) {
            sources.push(CompiledSource { config: source.clone(), verifier, handshakes, splitter, mapper });
        }
    }
    sources
}

fn sinks(config: &Config, events: &BTreeMap<String, CompiledEvent>, found: &mut Found<'_>) -> Vec<CompiledSink> {
    let mut sinks = Vec::new();
    for sink in config.sinks.values() {
        if let Purpose::Named(purpose) = &sink.purpose {
            let schemas = sink.events.iter().filter_map(|event| events.get(event)).map(|event| &event.schema);
            for schema in schemas.filter(|schema| !schema.has_field("consent")) {
                found.say(
                    &sink.at,
                    format!(
                        "the schema of `{}` has no `consent`, which the purpose `{purpose}` needs",
                        schema.event_type
                    ),
                    Some("add a `consent` map to the schema, or leave the event out of this sink".to_owned()),
                );
            }
        }
        let filter = program(sink.filter.as_ref(), found);
        let map = program(sink.map.as_ref(), found);
        let batch_body = program(sink.batch_body(), found);
        let batch_failed = program(sink.batch_failed(), found);
        sinks.push(CompiledSink { config: sink.clone(), filter, map, batch_body, batch_failed });
    }
    sinks
}

fn program(expr: Option<&Expr>, found: &mut Found<'_>) -> Option<Arc<Program>> {
    let expr = expr?;
    Program::compile(&expr.text).map(Arc::new).map_err(|problems| found.expression(expr, problems)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_expressions_are_told_beside_other_mistakes_in_the_order_of_the_lines() {
        let text = "
kafka: { bootstrap_servers: nowhere }
events:
  bought: { category: c, owner: o, key: .customer_id | nonsense }
sinks:
  crm: { type: http, url: \"https://x.example\", events: [sold], purpose: p, where: .country == , map: \"{a: now}\" }
";
        let problems = config::parse(Path::new("h.yaml"), text, &config::Process).unwrap_err();
        let told: Vec<(usize, String)> =
            everything(&problems).into_iter().map(|problem| (problem.at.line, problem.at.path)).collect();
        let places = [
            (2, "kafka.bootstrap_servers"),
            (4, "events.bought.key"),
            (6, "sinks.crm.events[0]"),
            (6, "sinks.crm.where"),
            (6, "sinks.crm.map"),
        ];
        assert_eq!(told, places.map(|(line, path)| (line, path.to_owned())));
    }
}
