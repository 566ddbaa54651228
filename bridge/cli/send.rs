//! `hookbridge send`: test events, signed as the source's provider would sign them.

mod answer;
mod handshake;
mod message;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::{Interval, MissedTickBehavior, interval};

use self::answer::Outcome;
use self::message::Maker;
use super::{Common, Exit, no_such_source, read_input, report};
use crate::clock;
use crate::config::{self, Config, Secret, Source};
use crate::ingest::verify::{self, SignError};
use crate::sender::{Sender, Signed};

pub(super) const EXAMPLES: &str = "\
Examples:
  hookbridge send storefront                           a sample that the source takes
  hookbridge send stripe --event invoice.paid          one of its samples, by the provider's name
  hookbridge send stripe --data data.object.amount_paid=500
  hookbridge send leads --data email=ana@example.com   the fields, for a scheme of your own
  hookbridge send storefront --file event.json         your own body; `-` for standard input
  hookbridge send stripe --to https://hooks.example.com/hooks/stripe
  hookbridge send storefront --count 100 --rate 20     100 different events, 20 a second
  hookbridge send storefront --repeat 3                one request three times, as providers do
  hookbridge send slack --handshake                    what Slack asks when the address is entered

Exit codes: 0 accepted, 1 refused or quarantined, 69 the bridge cannot be reached or answers 503";

/// Requests of one command: enough to fill a screen for an hour, too few to be taken for a load test.
const MAX_COUNT: u32 = 100_000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The source, by its name in the configuration
    source: String,
    /// The sample to send, by the provider's name of the event (`hookbridge source show SOURCE` lists them), or an event
    /// of the configuration, made up from its schema
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    event: Option<String>,
    /// The body to send; `-` for standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Put a value at a place in the body; JSON, or else a text. May be repeated
    #[arg(long = "data", value_name = "PATH=VALUE", value_parser = message::change)]
    data: Vec<message::Change>,
    /// Ask what the provider asks before it sends events, and compare the answer with what it wants
    #[arg(long, conflicts_with_all = ["event", "file", "data", "headers", "id", "count", "rate", "repeat"])]
    handshake: bool,
    /// A header beside those that are signed. May be repeated
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = message::header)]
    headers: Vec<message::Header>,
    /// The event's id, in place of a new one
    #[arg(long, value_name = "ID", conflicts_with = "count")]
    id: Option<String>,
    /// Where to send it; the configuration's own `ingest.listen` where left out
    #[arg(long, value_name = "URL", alias = "url")]
    to: Option<String>,
    /// The private key, where the source holds only the public one (Ed25519, ECDSA, RSA): PEM, or as the scheme writes it
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    /// How many different events to send
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_COUNT)))]
    count: u32,
    /// Requests a second, at most; one after the other as fast as they are answered where left out
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// How often to send each request, unchanged, id and signature included
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_COUNT)))]
    repeat: u32,
}

pub(super) fn send(common: &Common, args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    let config = match config::load(&common.config, &config::Process) {
        Ok(loaded) => loaded.config,
        Err(problems) => {
            writeln!(err, "{problems}")?;
            return Ok(Exit::Config);
        }
    };
    let Some(source) = config.sources.get(&args.source) else { return no_such_source(&config, &args.source, err) };
    let url = args.to.clone().unwrap_or_else(|| own_url(&config, &source.name));
    let sender = match Sender::new(args.to.is_none()) {
        Ok(sender) => sender,
        Err(error) => {
            report(err, &error, None)?;
            return Ok(Exit::Problems);
        }
    };
    if args.handshake {
        return handshake::shake(common, args, source, (&sender, &url), out, err);
    }
    let secret = match secret(source, args) {
        Ok(secret) => secret,
        Err(refusal) => return refusal.tell(err),
    };
    let maker = match Maker::new(&config, &common.config, source, args) {
        Ok(maker) => maker,
        Err(refusal) => return refusal.tell(err),
    };
    let run = Run { common, args, source, secret: &secret, maker: &maker, url: &url, sender: &sender };
    Runtime::new()?.block_on(run.all(out, err))
}

/// Why nothing is sent, and what to do about it.
#[derive(Debug)]
struct Refusal {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Refusal {
    fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into(), hint: Some(hint.into()) }
    }

    fn tell(&self, err: &mut dyn Write) -> io::Result<Exit> {
        report(err, self, self.hint.as_deref())?;
        Ok(self.exit)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// What is signed with: the source's own secret, or the private half of the one that it holds.
fn secret(source: &Source, args: &Args) -> Result<Secret, Refusal> {
    if let Some(file) = &args.private_key {
        let text = read_input(Some(file)).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text"))
        });
        return match text {
            Ok(text) => Ok(Secret::new(text.trim())),
            Err(error) => Err(Refusal::usage(
                format!("the private key cannot be read: {error}"),
                "a private key is a PEM file, or one line as the scheme writes keys (`whsk_…`)",
            )),
        };
    }
    let Some(secret) = source.secrets.first() else {
        let message = format!("source `{}` has no secret to sign with", source.name);
        return Err(Refusal { exit: Exit::Config, message, hint: None });
    };
    match verify::needs_private_key(&source.scheme, secret) {
        Ok(true) => Err(Refusal::usage(
            format!(
                "requests of `{}` are signed with a private key, and the bridge has the public one only: it cannot sign",
                source.name
            ),
            "name the private key with `--private-key FILE`; only the provider has the real one, so for a test make a \
             pair of your own and give the source its public half",
        )),
        Ok(false) => Ok(secret.clone()),
        Err(error) => Err(unsigned(source, &error)),
    }
}

fn unsigned(source: &Source, error: &SignError) -> Refusal {
    let message = format!("a request of `{}` cannot be signed: {error}", source.name);
    Refusal { exit: Exit::Config, message, hint: Some("`hookbridge source show` says how it is signed".to_owned()) }
}

/// All requests of one command.
struct Run<'a> {
    common: &'a Common,
    args: &'a Args,
    source: &'a Source,
    secret: &'a Secret,
    maker: &'a Maker,
    url: &'a str,
    sender: &'a Sender,
}

impl Run<'_> {
    async fn all(&self, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
        let mut pace = self.args.rate.map(pace);
        let mut exit = Exit::Fine;
        let mut tally = answer::Tally::default();
        let many = self.args.count.saturating_mul(self.args.repeat) > 1;
        for number in 0..self.args.count {
            let signed = match self.signed(number) {
                Ok(signed) => signed,
                Err(refusal) => return refusal.tell(err),
            };
            for _ in 0..self.args.repeat {
                if let Some(pace) = &mut pace {
                    pace.tick().await;
                }
                let ended = match self.sender.post(self.url, &signed).await {
                    Ok(answer) => {
                        let outcome = Outcome::of(&answer, self.source);
                        self.tell(&answer.body, &outcome, many, out, err)?;
                        tally.count(&outcome);
                        outcome.exit
                    }
                    Err(error) => {
                        let hint = "is the bridge running? `hookbridge run` starts it, `--to` names another address";
                        report(err, &error.without_url(), Some(&format!("{hint}; this was {}", self.url)))?;
                        Exit::Unavailable
                    }
                };
                // A bridge that is not there, or cannot take anything now, is not asked a thousand times.
                if ended == Exit::Unavailable {
                    tally.tell(many, err)?;
                    return Ok(ended);
                }
                exit = if exit == Exit::Fine { ended } else { exit };
            }
        }
        tally.tell(many, err)?;
        Ok(exit)
    }

    fn signed(&self, number: u32) -> Result<Signed, Refusal> {
        let now_ms = clock::now_ms();
        let message = self.maker.make(number, now_ms)?;
        let url = self.source.public_url.as_deref().unwrap_or(self.url);
        message
            .unsigned(now_ms, url)
            .sign(&self.source.scheme, self.secret)
            .map_err(|error| unsigned(self.source, &error))
    }

    fn tell(
        &self,
        body: &[u8],
        outcome: &Outcome,
        many: bool,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> io::Result<()> {
        if self.common.json {
            out.write_all(body)?;
            return writeln!(out);
        }
        writeln!(out, "{}", outcome.headline)?;
        // Of many, only those that went wrong need more than a line.
        if !many || outcome.exit != Exit::Fine {
            outcome.details.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
        }
        if let Some(hint) = outcome.hint.as_ref().filter(|_| !many) {
            writeln!(err, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

fn rate(text: &str) -> Result<f64, String> {
    // The upper end is the timer's grain.
    let rate = text.parse::<f64>().ok().filter(|rate| (0.001..=1_000.0).contains(rate));
    rate.ok_or_else(|| "a number from 0.001 to 1000".to_owned())
}

fn pace(rate: f64) -> Interval {
    let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
    // A slow answer is no reason for a burst.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The bridge's own address, from here: an unspecified address (`0.0.0.0`) is reached by loopback.
fn own_url(config: &Config, source: &str) -> String {
    let mut listen = config.ingest.listen;
    if listen.ip().is_unspecified() {
        listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{listen}/hooks/{source}")
}
