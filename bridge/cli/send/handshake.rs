//! `hookbridge send SOURCE --handshake`: what a provider asks before it sends events, and whether the answer is the one
//! that it wants.

use std::io::{self, Write};

use http::StatusCode;
use tokio::runtime::Runtime;

use super::{Args, Common, Exit, Refusal, report, secret, unsigned};
use crate::catalog;
use crate::clock;
use crate::config::Source;
use crate::ingest::handshake::{Answer, Asked, Handshakes, ask};
use crate::ingest::verify::{Request, Verified};
use crate::sender::{Sender, Signed, Unsigned};

/// Asks for each of the source's handshakes.
pub(super) fn shake(
    common: &Common,
    args: &Args,
    source: &Source,
    (sender, url): (&Sender, &str),
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Exit> {
    let name = &source.name;
    if source.scheme.handshake.is_empty() {
        let hint = "its provider sends events without asking first: `hookbridge send` sends one";
        return Refusal::usage(format!("source `{name}` has no handshake"), hint).tell(err);
    }
    let runtime = Runtime::new()?;
    let mut exit = Exit::Fine;
    for written in &source.scheme.handshake {
        let round = match Round::new(args, source, written, url) {
            Ok(round) => round,
            Err(refusal) => return refusal.tell(err),
        };
        let answer = match runtime.block_on(sender.send(&round.method, &round.url, &round.signed)) {
            Ok(answer) => answer,
            Err(error) => {
                let hint = format!("is the bridge running? `hookbridge run` starts it; this was {url}");
                report(err, &error.without_url(), Some(&hint))?;
                return Ok(Exit::Unavailable);
            }
        };
        let (got, wanted) = (String::from_utf8_lossy(&answer.body), &round.wanted);
        let good = answer.status == wanted.status && got == wanted.body;
        if common.json {
            let told = serde_json::json!({
                "source": name, "answered": answer.status.as_u16(), "body": got,
                "wanted": wanted.status.as_u16(), "wanted_body": wanted.body, "good": good,
            });
            serde_json::to_writer(&mut *out, &told)?;
            writeln!(out)?;
        } else if good {
            writeln!(out, "{}: answered as the provider wants it: {}", answer.status, shown(&got))?;
        } else {
            writeln!(out, "{}: {}", answer.status, shown(&got))?;
            writeln!(out, "  the provider wants {}: {}", wanted.status, shown(&wanted.body))?;
        }
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            return Ok(Exit::Unavailable);
        }
        exit = if good { exit } else { Exit::Problems };
    }
    Ok(exit)
}

/// One handshake: what is sent, and what is to come back.
struct Round {
    method: String,
    url: String,
    signed: Signed,
    wanted: Answer,
}

impl Round {
    fn new(args: &Args, source: &Source, written: &catalog::Handshake, url: &str) -> Result<Self, Refusal> {
        let now_ms = clock::now_ms();
        let refused = |message: String| Refusal { exit: Exit::Config, message, hint: None };
        let broken = || refused(format!("the handshake of `{}` cannot be asked for: see its description", source.name));
        let word = format!("challenge-{now_ms}");
        let Asked { method, query, headers, body } =
            ask(written, source.verify_token.as_ref(), &word).ok_or_else(broken)?;
        let with_query = |address: &str| match (query.is_empty(), address.contains('?')) {
            (true, _) => address.to_owned(),
            (false, true) => format!("{address}&{query}"),
            (false, false) => format!("{address}?{query}"),
        };
        let url = with_query(url);
        let signed = if written.signed {
            let public = source.public_url.as_deref().map_or_else(|| url.clone(), with_query);
            let message = Unsigned { id: &word, now_ms, method: &method, url: &public, headers: &headers, body: &body };
            message.sign(&source.scheme, &secret(source, args)?).map_err(|error| unsigned(source, &error))?
        } else {
            Signed { headers, body: body.into() }
        };
        // As the bridge would, should it have the same configuration.
        let handshakes = Handshakes::compile(&source.scheme, &source.secrets, source.verify_token.as_ref());
        let handshakes = handshakes.map_err(|error| refused(error.to_string()))?;
        let request = Request { method: &method, url: &url, headers: &signed.headers, body: &signed.body };
        let wanted = if written.signed {
            handshakes.signed(&request, &Verified { secret_index: 0, timestamp_ms: None })
        } else {
            handshakes.unsigned(&request)
        };
        Ok(Self { wanted: wanted.ok_or_else(broken)?, method, url, signed })
    }
}

fn shown(body: &str) -> String {
    if body.is_empty() { "an empty body".to_owned() } else { format!("`{}`", body.trim_end()) }
}
