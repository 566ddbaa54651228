//! `sources`: who may send, how it is verified, and what its requests become.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{edges, names};
use crate::catalog::{self, Signature, SourceScheme};
use crate::config::not_built::{self, Feature};
use crate::config::problem::nearest;
use crate::config::reader::{Field, Map, quoted_list};
use crate::config::scheme::{described, described_part, keys_of};
use crate::config::units::show_duration;
use crate::config::{
    EventDef, EventRule, EventRules, Expr, Location, MAX_SECRETS, OnInvalid, OnUnmapped, Secret, Source,
};

/// Bytes below which a secret can be guessed (NIST SP 800-107 wants 112 bits in an HMAC key).
const SHORT_SECRET: usize = 14;
/// What a provider's patience is cut by, so that our 503 arrives before it hangs up.
const ACK_MARGIN: Duration = Duration::from_secs(1);

pub(super) fn sources(
    field: &Field<'_>,
    events: &BTreeMap<String, EventDef>,
    deadline: Duration,
) -> BTreeMap<String, Source> {
    let events: Vec<&str> = events.keys().map(String::as_str).collect();
    let source = |(name, field): (&str, Field<'_>)| {
        names::check(&field, name);
        (name.to_owned(), field.map(|map| source(name, map, &events, deadline)))
    };
    field.named().into_iter().map(source).collect()
}

/// Steps that the expressions for one event may take together: four times what one of them may. A rule of the usual
/// sort takes under a hundred.
const MAX_STEPS: u64 = 200_000;

fn source(name: &str, map: &mut Map<'_>, events: &[&str], deadline: Duration) -> Source {
    let description = description(map);
    let secrets = secrets(map, &description);
    let public_url = map.field("public_url").parsed_unseen(edges::http_url);
    let signs_url = description
        .scheme
        .signature
        .iter()
        .any(|signature| ["{url}", "{url:"].iter().any(|url| signature.signed.contains(url)));
    if signs_url && !map.field("public_url").is_written() {
        map.field("public_url").error("is missing: the address that the provider calls is part of what it signs");
    }
    Source {
        name: name.to_owned(),
        secrets,
        verify_token: verify_token(map, &description.scheme),
        public_url,
        described: description.exprs,
        events: event_rules(map, events),
        max_steps: map.field("max_steps").number_or(MAX_STEPS, &(10_000..=10_000_000)),
        on_unmapped: map.field("on_unmapped").choice_or(
            OnUnmapped::Quarantine,
            &[("quarantine", OnUnmapped::Quarantine), ("ignore", OnUnmapped::Ignore)],
        ),
        on_invalid: map
            .field("on_invalid")
            .choice_or(OnInvalid::Quarantine, &[("quarantine", OnInvalid::Quarantine), ("reject", OnInvalid::Reject)]),
        deadline: effective_deadline(map, description.scheme.ack_limit, deadline),
        preset: description.preset,
        scheme: description.scheme,
        at: map.holder().location(),
    }
}

/// What a provider shows that asks for the address without a signature.
fn verify_token(map: &mut Map<'_>, scheme: &SourceScheme) -> Option<Secret> {
    let field = map.field("verify_token");
    let is_asked_for = scheme.handshake.iter().any(|handshake| handshake.verify_token.is_some());
    if is_asked_for && !field.is_written() {
        field.error_with_hint(
            "is missing: the provider shows it when the address is entered there",
            "write `verify_token: \"${NAME}\"` and set the variable",
        );
    }
    field.text().map(Secret::new)
}

/// The file's deadline or the source's own, cut to what the provider waits for.
fn effective_deadline(map: &mut Map<'_>, ack_limit: Option<Duration>, deadline: Duration) -> Duration {
    let field = map.field("deadline");
    let own = edges::deadline(&field);
    let asked = own.unwrap_or(deadline);
    // Half of it, where there is no second to spare.
    let Some(longest) = ack_limit.map(|limit| limit.saturating_sub(ACK_MARGIN).max(limit / 2)) else { return asked };
    if own.is_some_and(|own| own > longest) {
        field.warning(
            format!(
                "is cut to {}: the provider waits no longer, and must have our 503 by then",
                show_duration(longest)
            ),
            "leave it out, or write less",
        );
    }
    asked.min(longest)
}

// === The description of what the provider sends ===

struct Description {
    preset: Option<String>,
    scheme: SourceScheme,
    /// The jq texts among what this file writes.
    exprs: Vec<Expr>,
    /// False where it could not be read, or its preset is not known: nothing is said of what it lacks then.
    complete: bool,
}

fn description(map: &mut Map<'_>) -> Description {
    let preset_field = map.field("preset");
    let preset = preset_field.text();
    let found = preset.as_deref().map(|name| (name, catalog::preset(name).ok()));
    let mut complete = true;
    let mut scheme = SourceScheme::default();
    match found {
        Some((_, Some(described))) => scheme = described,
        Some((name, None)) => {
            complete = false;
            unknown_preset(&preset_field, name);
        }
        None => complete = !preset_field.is_written(),
    }
    complete &= lay_over(map, &mut scheme);
    let exprs = ["event_id", "event_time"].into_iter().flat_map(|key| exprs(&map.field(key))).collect();
    if complete && preset.is_none() && scheme.signature.is_empty() {
        map.holder().error_with_hint(
            "nothing says how its requests are verified",
            "name a `preset`, or describe its `signature`",
        );
        complete = false;
    }
    Description { preset, scheme, exprs, complete }
}

fn unknown_preset(field: &Field<'_>, name: &str) {
    let known: Vec<&str> = catalog::preset_names().collect();
    let hint = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the catalogue has {}; any other source can be described by `signature`", quoted_list(&known)),
    };
    if let Some(message) = not_built::message(Feature::SourcePreset, &format!("the preset {}", field.quoted())) {
        field.not_built(message, Some(hint));
    } else {
        field.error_with_hint(format!("there is no preset {}", field.quoted()), hint);
    }
}

/// Lays what the source writes of its description over the preset's; false where it could not be read.
fn lay_over(map: &mut Map<'_>, scheme: &mut SourceScheme) -> bool {
    // At a source, `event_type` says that the event types are the bridge's own: see `event_rules`.
    let keys: Vec<&'static str> =
        keys_of::<SourceScheme>().iter().copied().filter(|key| !["signature", "event_type"].contains(key)).collect();
    let written: Vec<&'static str> = keys.iter().copied().filter(|key| map.field(key).is_written()).collect();
    let written_here = described_part::<SourceScheme>(map.holder(), Some(&keys));
    let mut sound = written_here.is_some();
    if let Some(written_here) = written_here {
        // Every field by name, so that one which the catalogue learns cannot be forgotten here.
        let SourceScheme {
            signature: _,
            min_version,
            tolerance,
            body_required,
            replay_key,
            handshake,
            split,
            event_id,
            event_type: _,
            event_time,
            ack_limit,
            docs,
        } = written_here;
        let is_written = |key| written.contains(&key);
        replace(&mut scheme.min_version, min_version, is_written("min_version"));
        replace(&mut scheme.tolerance, tolerance, is_written("tolerance"));
        replace(&mut scheme.body_required, body_required, is_written("body_required"));
        replace(&mut scheme.replay_key, replay_key, is_written("replay_key"));
        replace(&mut scheme.handshake, handshake, is_written("handshake"));
        replace(&mut scheme.split, split, is_written("split"));
        replace(&mut scheme.event_id, event_id, is_written("event_id"));
        replace(&mut scheme.event_time, event_time, is_written("event_time"));
        replace(&mut scheme.ack_limit, ack_limit, is_written("ack_limit"));
        replace(&mut scheme.docs, docs, is_written("docs"));
    }
    let signature = map.field("signature");
    if signature.is_written() {
        let entries = if signature.is_list() { signature.items() } else { vec![signature.clone()] };
        if entries.is_empty() {
            signature.error("is an empty list: nothing would be verified");
        }
        // All are read, so that the problems of all are found.
        let read: Vec<Option<Signature>> = entries.iter().map(described).collect();
        sound &= !read.is_empty() && read.iter().all(Option::is_some);
        scheme.signature = read.into_iter().flatten().collect();
    }
    sound
}

fn replace<T>(place: &mut T, written: T, is_written: bool) {
    if is_written {
        *place = written;
    }
}

/// The jq among one or several ways to find something; the others begin with `header:`.
fn exprs(field: &Field<'_>) -> Vec<Expr> {
    let ways = if field.is_list() { field.items() } else { vec![field.clone()] };
    let is_jq = |way: &Field<'_>| way.written_text().is_some_and(|text| !text.starts_with("header:"));
    ways.iter().filter(|way| is_jq(way)).filter_map(Field::expr).collect()
}

// === Secrets ===

/// In order, without the empty ones: `${NEXT_SECRET:-}` may be empty until there is one.
fn secrets(map: &mut Map<'_>, description: &Description) -> Vec<Secret> {
    let field = map.field("secrets");
    let mut unread = false;
    let mut secrets = Vec::new();
    for item in field.items() {
        match item.text_or_empty() {
            None => unread = true,
            Some(text) if text.is_empty() => {}
            Some(text) => {
                look_at(&item, &text);
                secrets.push(Secret::new(text));
            }
        }
    }
    if secrets.len() > MAX_SECRETS {
        field.error(format!("holds more than {MAX_SECRETS} secrets"));
    }
    let needed = description.complete && !description.scheme.signature.is_empty();
    if needed && secrets.is_empty() && !unread && (field.is_list() || !field.is_written()) {
        let message = if field.is_written() {
            "holds no secret, or empty ones only: nothing could be verified"
        } else {
            "is missing: nothing could be verified"
        };
        field.error_with_hint(message, "write `secrets: [\"${NAME}\"]` and set the variable");
    }
    secrets
}

/// Warns of what a person would not have wanted. The secret's text is not shown.
fn look_at(field: &Field<'_>, secret: &str) {
    if secret.trim().len() < secret.len() {
        field
            .warning("begins or ends with white space", "white space is part of the key: take it off if it slipped in");
    } else if secret.len() < SHORT_SECRET {
        field.warning(
            format!("is shorter than {SHORT_SECRET} bytes and can be guessed"),
            "let a random generator make it, for example `openssl rand -hex 32`",
        );
    }
}

// === What a request becomes ===

fn event_rules(map: &mut Map<'_>, events: &[&str]) -> EventRules {
    let rules = map.field("events");
    let all = map.field("all");
    let event_type = map.field("event_type");
    let payload = map.field("payload");
    match (event_type.is_written(), rules.is_written()) {
        (true, true) => event_type.error_with_hint(
            "stands beside `events`",
            "either the body says what it is (`event_type`, `payload`), or rules do (`events`)",
        ),
        (false, false) => map.holder().error_with_hint(
            "nothing says what its requests become",
            "write rules under `events`, or `event_type: .type` and `payload: .data` where the body says it",
        ),
        _ => {}
    }
    if !event_type.is_written() && payload.is_written() {
        payload.error_with_hint("is of no use without `event_type`", "under `events`, a rule's `map` makes the event");
    }
    if all.is_written() && !rules.is_written() {
        all.error("is of no use without `events`");
    }
    let all = all.flag_or(false);
    if event_type.is_written() {
        let event_type = event_type.expr().unwrap_or(Expr { text: String::new(), at: event_type.location() });
        return EventRules::Direct { event_type, payload: payload.expr() };
    }
    let items = rules.items();
    if rules.is_list() && items.is_empty() {
        rules.error("is an empty list: no request would become an event");
    }
    let mut taken_by: Option<usize> = None;
    let mut read = Vec::new();
    for (at, item) in items.iter().enumerate() {
        if let (Some(earlier), false) = (taken_by, all) {
            item.warning(
                format!("is never reached: rule [{earlier}] has no `when` and takes every request"),
                "put the rule without `when` last",
            );
        }
        let rule = item.map(|map| rule(map, events));
        if rule.when.is_none() {
            taken_by = taken_by.or(Some(at));
        }
        read.push(rule);
    }
    EventRules::Rules { rules: read, all }
}

fn rule(map: &mut Map<'_>, events: &[&str]) -> EventRule {
    let event = names::reference(&map.required("event"), "event", "events", events);
    let mapping = map.field("map");
    let expr = mapping.expr();
    if let Some(place) = expr.as_ref().and_then(literal_consent) {
        mapping.warning_at(
            place,
            "writes a consent that is always empty: every sink with a purpose will skip these events",
            "take it from the request, for example `consent: (.consent // {})`",
        );
    }
    EventRule {
        when: map.field("when").expr(),
        event: event.unwrap_or_default(),
        map: expr,
        at: map.holder().location(),
    }
}

/// Where a mapping writes `consent: {}`.
fn literal_consent(expr: &Expr) -> Option<Location> {
    const KEY: &str = "consent";
    expr.text.match_indices(KEY).find_map(|(at, _)| {
        let before = expr.text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_ascii_alphanumeric() || "_.$".contains(c)) {
            return None;
        }
        let rest = expr.text[at + KEY.len()..].trim_start_matches('"').trim_start();
        let rest = rest.strip_prefix(':')?.trim_start().strip_prefix('{')?.trim_start();
        rest.starts_with('}').then(|| {
            let before = &expr.text[..at];
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
            // In a block every line starts at the same column; elsewhere only the first line's is known.
            expr.place(line, column)
        })
    })
}
