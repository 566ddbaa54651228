//! The description of a source in words, for a person who has never read about signatures. Pure.

use serde::Serialize;

use crate::catalog::{Algorithm, Covers, Encoding, FutureTolerance, Handshake, Locator, Signature, SourceScheme};
use crate::config::units::show_duration;

/// What a description says, sentence by sentence.
#[derive(Debug, Serialize)]
pub(super) struct Described {
    /// The ways of signing, the preferred first.
    pub(super) genuine: Vec<String>,
    /// What no signature covers: as trustworthy as the connection.
    pub(super) not_covered: Vec<String>,
    pub(super) event_id: Vec<String>,
    pub(super) event_type: Vec<String>,
    pub(super) event_time: Vec<String>,
    pub(super) several_events: bool,
    pub(super) handshakes: Vec<String>,
    pub(super) ack_limit: Option<String>,
    pub(super) docs: Option<String>,
}

pub(super) fn described(scheme: &SourceScheme) -> Described {
    let ways = scheme.ways().unwrap_or_default();
    Described {
        genuine: ways.iter().map(way).collect(),
        not_covered: not_covered(scheme, &ways),
        event_id: scheme.event_id.iter().map(|text| place(text)).collect(),
        event_type: scheme.event_type.iter().map(|text| place(text)).collect(),
        event_time: scheme.event_time.iter().map(|text| place(text)).collect(),
        several_events: scheme.split.is_some(),
        handshakes: scheme.handshake.iter().map(handshake).collect(),
        ack_limit: scheme.ack_limit.map(show_duration),
        docs: scheme.docs.clone(),
    }
}

/// In a few words, for a table: what is signed, and by what.
pub(super) fn in_short(scheme: &SourceScheme) -> String {
    let ways = scheme.ways().unwrap_or_default();
    let Some(first) = ways.first() else { return "nothing".to_owned() };
    let algorithm = algorithm(first.algorithm);
    if first.algorithm.is_token() {
        return format!("nothing ({algorithm})");
    }
    let parts: Vec<_> = parts(&first.signed).into_iter().filter(|part| !part.starts_with('"')).collect();
    format!("{} ({algorithm})", parts.join(", "))
}

fn algorithm(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::HmacSha1 => "HMAC-SHA1",
        Algorithm::HmacSha256 => "HMAC-SHA256",
        Algorithm::HmacSha512 => "HMAC-SHA512",
        Algorithm::Sha256 => "SHA-256",
        Algorithm::Ed25519 => "Ed25519",
        Algorithm::EcdsaP256 => "ECDSA P-256",
        Algorithm::RsaSha256 => "RSA-SHA256",
        Algorithm::Equals => "a token",
        Algorithm::Basic => "user and password",
        Algorithm::Bearer => "a bearer token",
    }
}

/// One way of signing, whole.
fn way(signature: &Signature) -> String {
    let stands = match (&signature.header, &signature.body) {
        (Some(header), _) => format!("header `{header}`"),
        (None, Some(path)) => format!("`{path}` in the body"),
        (None, None) => "nowhere".to_owned(),
    };
    let version = signature.version.as_ref().map(|version| format!("{version}: ")).unwrap_or_default();
    let name = algorithm(signature.algorithm);
    if signature.algorithm.is_token() {
        return format!("{version}{stands} shows the secret itself ({name}); nothing is signed");
    }
    let written = match signature.encoding {
        Some(Encoding::Base64) => " in base64",
        Some(Encoding::Hex | Encoding::HexLower) => " in hex",
        None => "",
    };
    let prefix = match (signature.prefix.as_str(), signature.separator) {
        ("", _) => String::new(),
        (prefix, None) => format!(", after `{prefix}`"),
        (prefix, Some(_)) => format!(", in an entry that begins with `{prefix}`"),
    };
    let key = match signature.algorithm {
        Algorithm::Sha256 => "",
        algorithm if algorithm.has_key_pair() => ", checked with the public key that is the secret here",
        _ => ", keyed with the secret",
    };
    let prefixed = match signature.key.prefix.as_str() {
        "" => String::new(),
        prefix => format!(" (`{prefix}…`)"),
    };
    let signed = parts(&signature.signed).join(" + ");
    let age = signature.timestamp.as_ref().map(|timestamp| {
        let old = show_duration(timestamp.tolerance);
        match timestamp.tolerance_future {
            Some(FutureTolerance::Unlimited) => format!("; a timestamp older than {old} is refused"),
            Some(FutureTolerance::Within(span)) => {
                format!("; a timestamp older than {old}, or more than {} ahead, is refused", show_duration(span))
            }
            None => format!("; a timestamp more than {old} old or ahead is refused"),
        }
    });
    let when: Vec<_> = signature.when.iter().map(|(name, value)| format!(" where `{name}` is `{value}`")).collect();
    format!(
        "{version}{stands} holds {name}{written}{prefix}{when}{key}{prefixed}, over: {signed}{age}",
        when = when.concat(),
        age = age.unwrap_or_default()
    )
}

/// What is signed, part by part; what stands between them in quotes.
fn parts(signed: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = signed;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let from = &rest[at..];
        if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
            literal.push_str(&from[..1]);
            rest = after;
            continue;
        }
        // The description was compiled: each brace has its other half.
        let Some((name, after)) = from[1..].split_once('}') else { break };
        if !literal.is_empty() {
            parts.push(format!("\"{}\"", std::mem::take(&mut literal)));
        }
        parts.push(part(name));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(format!("\"{literal}\""));
    }
    parts
}

fn part(name: &str) -> String {
    match name.split_once(':') {
        Some(("body", path)) => format!("`{path}` of the body"),
        Some(("header", header)) => format!("header `{header}`"),
        Some(("url", _)) => "the address, some of its escapes decoded".to_owned(),
        _ => match name {
            "url" => "the address".to_owned(),
            other => format!("the {other}"),
        },
    }
}

/// What a signature leaves open, each with what that means.
fn not_covered(scheme: &SourceScheme, ways: &[Signature]) -> Vec<String> {
    let mut notes = Vec::new();
    let tokens = ways.iter().filter(|way| way.algorithm.is_token()).count();
    if tokens > 0 {
        notes.push(
            "Nothing of the request is signed: whoever has seen one, or knows the secret, can send anything."
                .to_owned(),
        );
    }
    let signed: Vec<&Signature> = ways.iter().filter(|way| !way.algorithm.is_token()).collect();
    for way in signed.iter().filter(|way| way.covers == Covers::Parts) {
        let named: Vec<_> = parts(&way.signed).into_iter().filter(|part| !part.starts_with('"')).collect();
        let only = named.join(" and ");
        let note = format!("Of a request that is signed over {only}, the rest is as trustworthy as the connection.");
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    let outside = headers_outside(scheme, &signed);
    if !outside.is_empty() {
        notes.push(format!(
            "Not signed, though the event is read from it: {}. Whoever can change a request on its way could change it.",
            outside.join(", ")
        ));
    }
    if signed.iter().any(|way| way.timestamp.is_none()) {
        let versions: Vec<_> =
            signed.iter().filter(|way| way.timestamp.is_none()).filter_map(|way| way.version.as_deref()).collect();
        let of = if versions.is_empty() { String::new() } else { format!(" in {}", versions.join(" and ")) };
        notes.push(format!(
            "No time is signed{of}: a request that was recorded can be sent again, and only its event id tells."
        ));
    }
    if signed.iter().any(|way| way.algorithm == Algorithm::Sha256) {
        notes.push(
            "A plain SHA-256 can be extended by whoever has seen a request; what is appended is no JSON and ends in \
             quarantine."
                .to_owned(),
        );
    }
    notes
}

/// Headers that the event is read from and no way signs, with what they hold.
fn headers_outside(scheme: &SourceScheme, signed: &[&Signature]) -> Vec<String> {
    let asked = [("id", &scheme.event_id), ("type", &scheme.event_type), ("time", &scheme.event_time)];
    let mut outside = Vec::new();
    for (what, places) in asked {
        for text in places {
            let Ok(Locator::Header(name)) = Locator::parse(text) else { continue };
            let is_signed = |way: &&Signature| {
                let is_timestamp = way.timestamp.as_ref().and_then(|stamp| stamp.header.as_deref());
                way.signed.to_ascii_lowercase().contains(&format!("{{header:{name}}}"))
                    || is_timestamp.is_some_and(|stamp| stamp.eq_ignore_ascii_case(name.as_str()))
            };
            if !signed.iter().any(is_signed) {
                outside.push(format!("header `{name}` (the {what})"));
            }
        }
    }
    outside
}

fn place(text: &str) -> String {
    match Locator::parse(text) {
        Ok(Locator::Header(name)) => format!("header `{name}`"),
        // A composed id may stand in several lines.
        _ => format!("`{}` of the body", text.split_whitespace().collect::<Vec<_>>().join(" ")),
    }
}

fn handshake(handshake: &Handshake) -> String {
    let known: Vec<_> = handshake.when.iter().map(|(place, value)| format!("{place} is `{value}`")).collect();
    let mut said = format!("A request where {}", known.join(" and "));
    said.push_str(if handshake.signed { ", signed as events are," } else { ", which nobody signs," });
    let answer = match (&handshake.text, handshake.json.is_empty()) {
        (Some(text), _) if text.is_empty() => " is answered with an empty 200".to_owned(),
        (Some(text), _) => format!(" is answered with `{text}`"),
        (None, true) => " is answered with a 200".to_owned(),
        (None, false) => {
            let names: Vec<_> = handshake.json.keys().map(String::as_str).collect();
            format!(" is answered with {}", names.join(" and "))
        }
    };
    said.push_str(&answer);
    if handshake.verify_token.is_some() {
        said.push_str(", if it shows the source's `verify_token`");
    }
    said.push_str("; it is no event.");
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{preset, preset_names};

    fn of(name: &str) -> Described {
        described(&preset(name).unwrap())
    }

    #[test]
    fn a_way_of_signing_is_one_sentence() {
        assert_eq!(
            of("stripe").genuine,
            ["header `stripe-signature` holds HMAC-SHA256 in hex, in an entry that begins with `v1=`, keyed with the \
              secret, over: the timestamp + \".\" + the body; a timestamp older than 5m is refused"]
        );
        assert_eq!(
            of("sendgrid").genuine,
            [
                "header `x-twilio-email-event-webhook-signature` holds ECDSA P-256 in base64, checked with the public key \
              that is the secret here, over: the timestamp + the body; a timestamp older than 25h, or more than 5m ahead, is \
              refused"
            ]
        );
    }

    #[test]
    fn what_is_not_signed_is_said() {
        let notes = |name: &str| of(name).not_covered.join("\n");
        assert!(notes("mailgun").contains("signed over the timestamp and `.signature.token` of the body, the rest"));
        assert!(notes("segment").contains("signed over `.[0]` of the body, the rest"));
        let github = notes("github");
        assert!(github.contains("header `x-github-delivery` (the id), header `x-github-event` (the type)"), "{github}");
        assert!(notes("shopify").contains("header `x-shopify-topic` (the type)"));
        assert!(notes("hubspot").contains("No time is signed in v2 and v1"), "{}", notes("hubspot"));
        assert_eq!((notes("stripe"), notes("standard-webhooks")), (String::new(), String::new()));
        let token: SourceScheme =
            serde_json::from_str(r#"{"signature": {"algorithm": "bearer", "header": "authorization"}}"#).unwrap();
        let token = described(&token);
        assert!(token.not_covered.join("").starts_with("Nothing of the request is signed"));
        assert!(token.genuine[0].contains("nothing is signed"));
    }

    #[test]
    fn every_preset_can_be_described() {
        for name in preset_names() {
            let said = of(name);
            assert!(!said.genuine.is_empty() && !said.event_id.is_empty() && !said.event_type.is_empty(), "{name}");
            assert!(!in_short(&preset(name).unwrap()).is_empty());
        }
        assert_eq!(in_short(&preset("square").unwrap()), "the address, the body (HMAC-SHA256)");
        assert!(of("meta").handshakes[0].contains("if it shows the source's `verify_token`"));
    }
}
