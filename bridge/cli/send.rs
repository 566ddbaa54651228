//! `hookbridge send`: a test event, signed as the source's provider would sign it.

use std::io::{self, Write};
use std::path::PathBuf;

use http::HeaderMap;
use tokio::runtime::Runtime;

use super::{Common, Exit, read_input, report};
use crate::clock;
use crate::config::{self, Config, Source};
use crate::dev::samples::{Kind, Samples};
use crate::ingest::verify::{self, Message};

pub(super) const EXAMPLES: &str = "\
Examples:
  hookbridge send storefront                              a sample of our own making
  hookbridge send storefront --file event.json            your own body
  hookbridge send stripe --file - --url https://hooks.example.com/hooks/stripe < event.json";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The source, by its name in the configuration
    source: String,
    /// The body to send; `-` for standard input. A sample of the preset's kind where left out
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The event's id, where the scheme carries it in a header
    #[arg(long)]
    id: Option<String>,
    /// Where to send it; the configuration's own `ingest.listen` where left out
    #[arg(long)]
    url: Option<String>,
}

pub(super) fn send(common: &Common, args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    let config = match config::load(&common.config, &config::Process) {
        Ok(loaded) => loaded.config,
        Err(problems) => {
            write!(err, "{problems}")?;
            return Ok(Exit::Config);
        }
    };
    let Some(source) = config.sources.get(&args.source) else {
        let names: Vec<_> = config.sources.keys().map(String::as_str).collect();
        writeln!(err, "error: there is no source `{}`\n\nhint: there are {}", args.source, names.join(", "))?;
        return Ok(Exit::Usage);
    };
    let (id, body) = match message(args, source) {
        Ok(message) => message,
        Err(error) => {
            report(err, &error, Some("name a body with `--file`, or `-` for standard input"))?;
            return Ok(Exit::Usage);
        }
    };
    let url = args.url.clone().unwrap_or_else(|| own_url(&config, &source.name));
    let (Some(secret), no_headers) = (source.secrets.first(), HeaderMap::new()) else {
        writeln!(err, "error: source `{}` has no secret to sign with", source.name)?;
        return Ok(Exit::Config);
    };
    let signed_url = source.public_url.as_deref().unwrap_or(&url);
    let message = Message {
        id: &id,
        now_ms: clock::now_ms(),
        method: "POST",
        url: signed_url,
        headers: &no_headers,
        body: &body,
    };
    let signed = match verify::sign(&source.scheme, secret, &message) {
        Ok(signed) => signed,
        Err(error) => {
            report(err, &error, None)?;
            return Ok(Exit::Config);
        }
    };
    let body = signed.body.into_owned();
    let request = reqwest::Client::new().post(&url).headers(signed.headers).header("content-type", "application/json");
    let answer = Runtime::new()?.block_on(async {
        let answer = request.body(body).send().await?;
        let status = answer.status();
        answer.bytes().await.map(|text| (status, text))
    });
    match answer {
        Ok((status, text)) => {
            writeln!(err, "{status}")?;
            out.write_all(&text)?;
            writeln!(out)?;
            Ok(if status.is_success() { Exit::Fine } else { Exit::Problems })
        }
        Err(error) => {
            report(err, &error, Some("is the bridge running? `--url` names another address"))?;
            Ok(Exit::Unavailable)
        }
    }
}

/// What is sent: id and body.
fn message(args: &Args, source: &Source) -> io::Result<(String, Vec<u8>)> {
    let now = clock::now_ms();
    if let Some(file) = &args.file {
        let id = args.id.clone().unwrap_or_else(|| format!("test-{now}"));
        return Ok((id, read_input(Some(file))?));
    }
    let kind = match source.preset.as_deref() {
        Some("standard-webhooks") => Kind::Purchase,
        Some("stripe") => Kind::Invoice,
        _ => return Err(io::Error::new(io::ErrorKind::NotFound, "there is no sample for a scheme of your own")),
    };
    let sample = Samples::new(now.unsigned_abs(), &format!("test-{now}")).next(kind, now);
    Ok((args.id.clone().unwrap_or(sample.id), sample.body))
}

/// The bridge's own address, from here: an unspecified address (`0.0.0.0`) is reached by loopback.
fn own_url(config: &Config, source: &str) -> String {
    let listen = config.ingest.listen;
    let host = if listen.ip().is_unspecified() { "127.0.0.1".to_owned() } else { listen.ip().to_string() };
    format!("http://{host}:{}/hooks/{source}", listen.port())
}
