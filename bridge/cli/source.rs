//! `hookbridge source`: what can be asked of sources.

mod words;

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use self::words::{Described, described, in_short};
use super::{Common, Exit, no_such_source, read_input, report, table};
use crate::catalog;
use crate::config::units::show_duration;
use crate::config::{self, Config, EventRules, OnInvalid, OnUnmapped, Source};
use crate::ingest::vectors;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The sources of the configuration, or the presets of the catalogue
    #[command(after_help = "Examples:\n  hookbridge source list\n  hookbridge source list --presets --json")]
    List(ListArgs),
    /// What a source is, in words: its address, how its requests are known, what that does not cover, what they become
    #[command(after_help = "Examples:\n  hookbridge source show stripe\n  hookbridge source show mailgun --preset")]
    Show(ShowArgs),
    /// Verify recorded requests, each at its own time, and print every mismatch
    #[command(after_help = "Example:\n  hookbridge source test tests/vectors/stripe.json")]
    Test(TestArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// The presets of the catalogue, in place of the configuration's sources
    #[arg(long)]
    presets: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// The source, by its name in the configuration
    name: String,
    /// The name is a preset of the catalogue; no configuration is needed
    #[arg(long)]
    preset: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct TestArgs {
    /// Request vectors, as in tests/vectors; `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The preset to verify with, whatever the vectors name
    #[arg(long, value_name = "PRESET")]
    provider: Option<String>,
}

pub(super) fn source(common: &Common, command: &Command, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    match command {
        Command::List(args) if args.presets => presets(common, out),
        Command::List(_) => list(common, out, err),
        Command::Show(args) if args.preset => show_preset(common, &args.name, out, err),
        Command::Show(args) => show(common, &args.name, out, err),
        Command::Test(args) => test(args, out, err),
    }
}

fn load(common: &Common, err: &mut dyn Write) -> io::Result<Option<Config>> {
    match config::load(&common.config, &config::Process) {
        Ok(loaded) => Ok(Some(loaded.config)),
        Err(problems) => {
            writeln!(err, "{problems}")?;
            Ok(None)
        }
    }
}

// === list ===

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    preset: Option<&'a str>,
    path: String,
    public_url: Option<&'a str>,
    secrets: usize,
    rules: usize,
    signed: String,
}

fn list(common: &Common, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    let Some(config) = load(common, err)? else { return Ok(Exit::Config) };
    let listed: Vec<Listed<'_>> = config.sources.values().map(listed).collect();
    if common.json {
        serde_json::to_writer(&mut *out, &listed)?;
        return writeln!(out).map(|()| Exit::Fine);
    }
    if listed.is_empty() {
        writeln!(err, "there are no sources yet\n\nhint: `hookbridge source list --presets` lists what can be one")?;
        return Ok(Exit::Fine);
    }
    let rows = listed.iter().map(|one| {
        let rules = if one.rules == 0 { "the body says it".to_owned() } else { one.rules.to_string() };
        let preset = one.preset.unwrap_or("(its own)");
        [one.name.to_owned(), preset.to_owned(), one.path.clone(), one.secrets.to_string(), rules, one.signed.clone()]
    });
    table(out, ["SOURCE", "PRESET", "ADDRESS", "SECRETS", "RULES", "SIGNED"], rows)?;
    Ok(Exit::Fine)
}

fn listed(source: &Source) -> Listed<'_> {
    Listed {
        name: &source.name,
        preset: source.preset.as_deref(),
        path: format!("/hooks/{}", source.name),
        public_url: source.public_url.as_deref(),
        secrets: source.secrets.len(),
        rules: match &source.events {
            EventRules::Direct { .. } => 0,
            EventRules::Rules { rules, .. } => rules.len(),
        },
        signed: in_short(&source.scheme),
    }
}

#[derive(Serialize)]
struct ListedPreset {
    preset: &'static str,
    signed: String,
    ack_limit: Option<String>,
    handshake: bool,
    several_events: bool,
    samples: Vec<String>,
    docs: Option<String>,
}

fn presets(common: &Common, out: &mut dyn Write) -> io::Result<Exit> {
    let preset = |name: &'static str| {
        let scheme = catalog::preset(name).ok()?;
        Some(ListedPreset {
            preset: name,
            signed: in_short(&scheme),
            ack_limit: scheme.ack_limit.map(show_duration),
            handshake: !scheme.handshake.is_empty(),
            several_events: described(&scheme).several_events,
            samples: samples(Some(name)),
            docs: scheme.docs,
        })
    };
    let presets: Vec<ListedPreset> = catalog::preset_names().filter_map(preset).collect();
    if common.json {
        serde_json::to_writer(&mut *out, &presets)?;
        return writeln!(out).map(|()| Exit::Fine);
    }
    let rows = presets.iter().map(|one| {
        let waits = one.ack_limit.clone().unwrap_or_else(|| "not said".to_owned());
        let handshake = if one.handshake { "yes" } else { "no" };
        [one.preset.to_owned(), one.signed.clone(), waits, handshake.to_owned(), one.docs.clone().unwrap_or_default()]
    });
    table(out, ["PRESET", "SIGNED", "WAITS", "HANDSHAKE", "DESCRIBED AT"], rows)?;
    Ok(Exit::Fine)
}

/// The provider's names of a preset's sample events.
fn samples(preset: Option<&str>) -> Vec<String> {
    let samples = preset.and_then(|preset| catalog::samples(preset).ok()).unwrap_or_default();
    samples.into_iter().map(|sample| sample.event).collect()
}

// === show ===

#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    preset: Option<&'a str>,
    /// What a preset alone does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    configured: Option<Configured<'a>>,
    #[serde(flatten)]
    described: Described,
    samples: Vec<String>,
}

#[derive(Serialize)]
struct Configured<'a> {
    path: String,
    public_url: Option<&'a str>,
    listen: String,
    secrets: usize,
    deadline: String,
    rules: Vec<Rule<'a>>,
    all: bool,
    on_unmapped: &'static str,
    on_invalid: &'static str,
}

#[derive(Serialize)]
struct Rule<'a> {
    when: Option<&'a str>,
    event: &'a str,
}

fn show(common: &Common, name: &str, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    let Some(config) = load(common, err)? else { return Ok(Exit::Config) };
    let Some(source) = config.sources.get(name) else {
        let exit = no_such_source(&config, name, err)?;
        if catalog::preset_names().any(|preset| preset == name) {
            writeln!(err, "      there is a preset of that name: `hookbridge source show {name} --preset`")?;
        }
        return Ok(exit);
    };
    let (rules, all) = match &source.events {
        EventRules::Direct { event_type, .. } => (vec![Rule { when: None, event: event_type.text.trim() }], false),
        EventRules::Rules { rules, all } => {
            let rules = rules
                .iter()
                .map(|rule| Rule { when: rule.when.as_ref().map(|when| when.text.trim()), event: &rule.event });
            (rules.collect(), *all)
        }
    };
    let shown = Shown {
        name,
        preset: source.preset.as_deref(),
        configured: Some(Configured {
            path: format!("/hooks/{name}"),
            public_url: source.public_url.as_deref(),
            listen: config.ingest.listen.to_string(),
            secrets: source.secrets.len(),
            deadline: show_duration(source.deadline),
            rules,
            all,
            on_unmapped: match source.on_unmapped {
                OnUnmapped::Quarantine => "quarantine",
                OnUnmapped::Ignore => "ignore",
            },
            on_invalid: match source.on_invalid {
                OnInvalid::Quarantine => "quarantine",
                OnInvalid::Reject => "reject",
            },
        }),
        described: described(&source.scheme),
        samples: samples(source.preset.as_deref()),
    };
    let direct = matches!(source.events, EventRules::Direct { .. });
    tell(common, &shown, direct, out)
}

fn show_preset(common: &Common, name: &str, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    let scheme = match catalog::preset(name) {
        Ok(scheme) => scheme,
        Err(error) => {
            report(err, &error, Some("any other source can be described by `signature`: see docs/sources.md"))?;
            return Ok(Exit::Usage);
        }
    };
    let described = described(&scheme);
    let shown = Shown { name, preset: Some(name), configured: None, described, samples: samples(Some(name)) };
    tell(common, &shown, false, out)
}

fn tell(common: &Common, shown: &Shown<'_>, direct: bool, out: &mut dyn Write) -> io::Result<Exit> {
    if common.json {
        serde_json::to_writer(&mut *out, shown)?;
        return writeln!(out).map(|()| Exit::Fine);
    }
    let said = &shown.described;
    match (&shown.configured, shown.preset) {
        (None, _) => writeln!(out, "Preset {}", shown.name)?,
        (Some(_), Some(preset)) => writeln!(out, "Source {}, by the preset {preset}", shown.name)?,
        (Some(_), None) => writeln!(out, "Source {}, described in the configuration", shown.name)?,
    }
    if let Some(docs) = &said.docs {
        writeln!(out, "The provider's own page: {docs}")?;
    }
    if let Some(configured) = &shown.configured {
        tell_address(configured, out)?;
    }
    writeln!(out, "\nHow a request is known to be genuine")?;
    for way in &said.genuine {
        writeln!(out, "  - {way}")?;
    }
    if said.genuine.len() > 1 {
        writeln!(out, "  The first of these that a request carries decides.")?;
    }
    match shown.configured.as_ref().map(|configured| configured.secrets) {
        Some(1) => writeln!(out, "  The secret is never shown. A second one may live beside it while it is changed.")?,
        Some(count) => writeln!(out, "  {count} secrets are live, and any of them may match. They are never shown.")?,
        None => {}
    }
    if !said.not_covered.is_empty() {
        writeln!(out, "\nWhat that does not cover")?;
        said.not_covered.iter().try_for_each(|note| writeln!(out, "  - {note}"))?;
    }
    writeln!(out, "\nWhat is read of an event")?;
    for (what, places) in [("id", &said.event_id), ("type", &said.event_type), ("time", &said.event_time)] {
        let places = if places.is_empty() { "nothing says where".to_owned() } else { places.join(", else ") };
        writeln!(out, "  {what:<5} {places}")?;
    }
    if said.several_events {
        writeln!(out, "  One request may carry several events.")?;
    }
    if !said.handshakes.is_empty() {
        writeln!(out, "\nRequests that are no events")?;
        said.handshakes.iter().try_for_each(|handshake| writeln!(out, "  - {handshake}"))?;
    }
    if let Some(configured) = &shown.configured {
        tell_rules(configured, direct, out)?;
    }
    writeln!(out, "\nHow long an answer may take")?;
    match &said.ack_limit {
        Some(limit) => writeln!(out, "  The provider waits {limit}.")?,
        None => writeln!(out, "  The provider does not say how long it waits.")?,
    }
    if let Some(configured) = &shown.configured {
        writeln!(
            out,
            "  The bridge answers within {}, with a 503 where Kafka has not confirmed by then.",
            configured.deadline
        )?;
    }
    if !shown.samples.is_empty() {
        writeln!(out, "\nTest events: {}", shown.samples.join(", "))?;
    }
    if shown.configured.is_some() {
        writeln!(out, "Try it: hookbridge send {}", shown.name)?;
    }
    Ok(Exit::Fine)
}

fn tell_address(configured: &Configured<'_>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nThe address to paste at the provider")?;
    match configured.public_url {
        Some(url) => writeln!(out, "  {url}"),
        None => writeln!(
            out,
            "  https://<your public name>{}\n  The bridge listens on {}; what stands before it gives the name and TLS. Written as \
             `public_url`, it is shown here.",
            configured.path, configured.listen
        ),
    }
}

fn tell_rules(configured: &Configured<'_>, direct: bool, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nWhat becomes of it")?;
    if direct {
        let path = configured.rules.first().map_or("", |rule| rule.event);
        writeln!(out, "  Its type is the event that `{path}` of the body names.")?;
    } else {
        let which = if configured.all {
            "Every rule that is true makes an event"
        } else {
            "The first rule that is true makes the event"
        };
        writeln!(out, "  {which}:")?;
        for (at, rule) in configured.rules.iter().enumerate() {
            let when = rule
                .when
                .map_or_else(|| "always".to_owned(), |when| when.split_whitespace().collect::<Vec<_>>().join(" "));
            writeln!(out, "  {}. {when}  ->  {}", at + 1, rule.event)?;
        }
    }
    let unmapped = if configured.on_unmapped == "ignore" { "ignored" } else { "kept in quarantine" };
    let invalid = if configured.on_invalid == "reject" { "refused with a 422" } else { "kept in quarantine" };
    writeln!(out, "  What no rule takes is {unmapped}; what does not fit its schema is {invalid}.")
}

// === test ===

fn test(args: &TestArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    let hint = format!("`{}` should be a JSON list of request vectors", args.file.display());
    let text = match read_input(Some(&args.file)).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => {
            report(err, &error, Some(&hint))?;
            return Ok(Exit::Usage);
        }
        Err(error) => {
            report(err, &error, Some(&hint))?;
            return Ok(Exit::Usage);
        }
    };
    match vectors::run(&text, args.provider.as_deref(), out) {
        Ok(counts) => Ok(if counts.failed == 0 { Exit::Fine } else { Exit::Problems }),
        Err(error) => {
            report(err, &error, Some(&hint))?;
            Ok(Exit::Usage)
        }
    }
}
