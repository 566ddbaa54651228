use super::*;
use crate::config::{Compatibility, EventDef, EventRule, Expr, Location, SchemaVersion, UnknownFields};

/// A source as its YAML would say it, and the events that it may make.
struct Given {
    scheme: SourceScheme,
    rules: EventRules,
    events: BTreeMap<String, EventDef>,
}

fn expr(text: &str) -> Expr {
    Expr { text: text.into(), at: Location { line: 10, column: 5, path: "sources.shop".into() } }
}

fn event(key: Option<&str>, id: Option<&str>) -> EventDef {
    EventDef {
        category: "commerce".into(),
        owner: "shop@example.com".into(),
        version: SchemaVersion::Latest,
        compatibility: Compatibility::FullTransitive,
        key: key.map(expr),
        id: id.map(expr),
        unknown_fields: UnknownFields::Reject,
        topic: "events.x".into(),
        at: Location::default(),
    }
}

impl Given {
    fn new(rules: EventRules) -> Self {
        let events = [("bought", event(Some(".customer"), None)), ("seen", event(None, Some(".view")))];
        let events = events.into_iter().map(|(name, def)| (name.to_owned(), def)).collect();
        let scheme = SourceScheme {
            event_id: vec!["header:webhook-id".into(), ".id".into()],
            event_time: vec![".created".into()],
            ..SourceScheme::default()
        };
        Self { scheme, rules, events }
    }

    fn direct(payload: Option<&str>) -> Self {
        Self::new(EventRules::Direct { event_type: expr(".type"), payload: payload.map(expr) })
    }

    /// Rules of `when`, event and `map`, each left out where empty.
    fn rules(all: bool, rules: &[(&str, &str, &str)]) -> Self {
        let optional = |text: &str| (!text.is_empty()).then(|| expr(text));
        let rule = |(when, event, map): &(&str, &str, &str)| EventRule {
            when: optional(when),
            event: (*event).to_owned(),
            map: optional(map),
            at: Location::default(),
        };
        Self::new(EventRules::Rules { rules: rules.iter().map(rule).collect(), all })
    }

    fn compile(&self) -> Result<Mapper, Vec<Error>> {
        let at = Location { line: 3, column: 1, path: "sources.shop".into() };
        Mapper::of(&at, &self.scheme, &self.rules, &self.events)
    }

    /// Maps a body and compares: each event as `type id key time json`, `unmapped`, or the failure's reason.
    #[track_caller]
    fn check(&self, headers: &[(&'static str, &'static str)], body: &str, expected: &[&str]) {
        let mapper = self.compile().expect("a sound configuration");
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let said: Vec<String> = match mapper.map(&headers, body.as_bytes()) {
            Mapping::Events(events) => events
                .iter()
                .map(|it| {
                    let time = it.time.as_deref().unwrap_or("-");
                    format!("{} {} {} {time} {}", it.event_type, it.id, it.key, it.json)
                })
                .collect(),
            Mapping::Unmapped => vec!["unmapped".into()],
            Mapping::Failed(failure) => {
                let event_type = failure.event_type.as_deref().unwrap_or("-");
                vec![format!("{} {event_type}: {}", failure.reason.name(), failure.message)]
            }
        };
        assert_eq!(said, expected, "{body}");
    }
}

#[test]
fn type_and_data_may_stand_in_the_body() {
    let given = Given::direct(Some(".data"));
    given.check(
        &[("webhook-id", "msg_1")],
        r#"{"type":"bought","created":1767225590,"data":{"customer": 12.10}}"#,
        &[r#"bought msg_1 12.10 2025-12-31T23:59:50Z {"customer": 12.10}"#],
    );
    given.check(&[], r#"{"id":"b1","type":"seen","data":{"view":7}}"#, &[r#"seen 7 7 - {"view":7}"#]);
    given.check(
        &[],
        r#"{"id":"b1","type":"gone","data":{}}"#,
        &["unknown_event_type gone: there is no event `gone` under `events:`"],
    );
    given.check(&[], r#"{"id":"b1","data":{}}"#, &["null_event_type -: the event type is missing or null"]);
    given.check(
        &[],
        r#"{"type":"bought","data":{"customer":1}}"#,
        &["null_id bought: the id is missing, null or empty"],
    );
    Given::direct(None).check(
        &[("webhook-id", "m")],
        r#"{"type":"bought","customer":"c"}"#,
        &[r#"bought m c - {"type":"bought","customer":"c"}"#],
    );
}

#[test]
fn a_body_that_is_not_json_is_a_failure() {
    for given in [Given::direct(Some(".data")), Given::rules(false, &[("", "seen", "")])] {
        given.check(&[], "{\"type\":", &["not_json -: the request's body: the event is not JSON"]);
        given.check(&[], "", &["not_json -: the request's body: the event is not JSON"]);
    }
}

#[test]
fn the_data_is_a_slice_of_the_body() {
    let body = r#"{"type":"bought","data":{"customer":"c"}}"#;
    let headers = [("webhook-id".parse().unwrap(), "m".parse().unwrap())].into_iter().collect();
    for given in [Given::direct(Some(".data")), Given::rules(false, &[("", "bought", ".data")])] {
        match given.compile().unwrap().map(&headers, body.as_bytes()) {
            Mapping::Events(events) => assert!(matches!(events[0].json, Cow::Borrowed(_))),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_first_matching_rule_wins() {
    let given = Given::rules(
        false,
        &[
            (".type == \"order\"", "bought", "{customer: .who}"),
            (".type == \"order\" or .type == \"view\"", "seen", "{view: .id, by: .who}"),
        ],
    );
    given.check(&[], r#"{"id":"1","type":"order","who":"ana"}"#, &[r#"bought 1 ana - {"customer":"ana"}"#]);
    given.check(&[], r#"{"id":"2","type":"view","who":"ana"}"#, &[r#"seen 2 2 - {"view":"2","by":"ana"}"#]);
    given.check(&[], r#"{"id":"3","type":"ping"}"#, &["unmapped"]);
}

#[test]
fn all_takes_every_rule_and_several_results_get_an_ordinal() {
    let twice = "(.items[] | {customer: .})";
    let first = Given::rules(false, &[("", "bought", twice), ("", "seen", "{view: 1}")]);
    first.check(
        &[("webhook-id", "m")],
        r#"{"items":["a","b"]}"#,
        &[r#"bought m a - {"customer":"a"}"#, r#"bought m#bought.2 b - {"customer":"b"}"#],
    );
    first.check(&[("webhook-id", "m")], r#"{"items":[]}"#, &["unmapped"]);
    let all = Given::rules(true, &[("", "bought", twice), ("", "seen", "{view: 1}"), ("", "bought", "{customer: 9}")]);
    all.check(
        &[("webhook-id", "m")],
        r#"{"items":["a"]}"#,
        &[
            r#"bought m#bought.1 a - {"customer":"a"}"#,
            r#"seen 1#seen.1 1#seen.1 - {"view":1}"#,
            r#"bought m#bought.2 9 - {"customer":9}"#,
        ],
    );
    let many = format!(r#"{{"items":[{}0]}}"#, "0,".repeat(1_500));
    first.check(
        &[("webhook-id", "m")],
        &many,
        &["too_many_results bought: map: the program was stopped: it gives more than 1000 results"],
    );
}

#[test]
fn an_event_is_known_by_its_bare_id_its_type_and_its_ordinal() {
    let rules =
        [("", "bought", "(.items[] | {customer: .})"), ("", "seen", "{view: .id}"), ("", "bought", "{customer: 1}")];
    let headers = [("webhook-id".parse().unwrap(), "m#bought.1".parse().unwrap())].into_iter().collect();
    for (all, expected) in [
        (false, &["m#bought.1 bought 1", "m#bought.1 bought 2"][..]),
        (true, &["m#bought.1 bought 1", "m#bought.1 bought 2", "v seen 1", "m#bought.1 bought 3"]),
    ] {
        let mapper = Given::rules(all, &rules).compile().unwrap();
        let Mapping::Events(events) = mapper.map(&headers, br#"{"id":"v","items":["a","b"]}"#) else {
            panic!("events")
        };
        let known: Vec<_> =
            events.iter().map(|it| format!("{} {} {}", it.bare_id(), it.event_type, it.ordinal)).collect();
        assert_eq!(known, expected);
        let ids: std::collections::HashSet<_> = events.iter().map(|it| &it.id).collect();
        assert_eq!(ids.len(), events.len(), "{ids:?}");
    }
}

#[test]
fn the_rules_of_a_source_share_a_budget() {
    let work = "[range(2000) | . * 2] | {customer: length}";
    let given = Given::rules(true, &[("", "bought", work); 5]);
    let mut mapper = given.compile().unwrap();
    let headers = [("webhook-id".parse().unwrap(), "m".parse().unwrap())].into_iter().collect();
    let events = |mapping| if let Mapping::Events(events) = mapping { Ok(events.len()) } else { Err(mapping) };
    assert_eq!(events(mapper.map(&headers, b"{}")), Ok(5));
    mapper.max_steps = 20_000;
    let Mapping::Failed(failure) = mapper.map(&headers, b"{}") else { panic!("a failure") };
    assert_eq!(failure.reason.name(), "over_budget", "{failure}");
    // Each event has its own, and a large one more of it.
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(20_000));
    assert_eq!(events(mapper.map(&headers, large.as_bytes())), Ok(5));
}

#[test]
fn a_rule_that_fails_is_a_failure_and_not_a_no() {
    let given = Given::rules(false, &[(".type | startswith(\"a\")", "bought", "{customer: (.n + \"x\")}")]);
    given.check(&[], r#"{"id":"1"}"#, &["expression_failed bought: when: null where a string is wanted"]);
    given.check(
        &[],
        r#"{"id":"1","type":"a","n":1}"#,
        &["expression_failed bought: map: number + string cannot be calculated"],
    );
    let endless = Given::rules(false, &[("", "bought", "[.[] as $a | .[] as $b | .[] as $c | .[] as $d | 1]")]);
    let body = format!("[{}0]", "0,".repeat(100));
    endless.check(&[], &body, &[
        "expression_stopped bought: map: the program was stopped: it takes more than 50000 steps and 2 for each byte of \
         the event",
    ]);
}

#[test]
fn ids_and_keys_that_cannot_serve_are_failures() {
    let given = Given::direct(None);
    let id = [("webhook-id", "m")];
    given.check(&id, r#"{"type":"bought","customer":null}"#, &["null_key bought: the key is missing, null or empty"]);
    given.check(&id, r#"{"type":"bought","customer":""}"#, &["null_key bought: the key is missing, null or empty"]);
    given.check(&id, r#"{"type":"bought","customer":{}}"#, &["invalid_key bought: the key is an object"]);
    given.check(&id, r#"{"type":"seen","view":[]}"#, &["invalid_id seen: the id is an array"]);
    given.check(&id, r#"{"type":"seen","view":"a\u0000b"}"#, &["invalid_id seen: the id holds a control character"]);
    let long = "x".repeat(MAX_KEY + 1);
    given.check(
        &id,
        &format!(r#"{{"type":"bought","customer":"{long}"}}"#),
        &["invalid_key bought: the key is longer than 1024 bytes"],
    );
    given.check(
        &id,
        r#"{"type":"bought","customer":"a\"b"}"#,
        &[r#"bought m a"b - {"type":"bought","customer":"a\"b"}"#],
    );
}

#[test]
fn the_first_place_that_says_something_gives_the_id() {
    let given = Given::direct(None);
    given.check(
        &[("webhook-id", "h")],
        r#"{"type":"bought","customer":1,"id":"b"}"#,
        &[r#"bought h 1 - {"type":"bought","customer":1,"id":"b"}"#],
    );
    given.check(
        &[("webhook-id", "")],
        r#"{"type":"bought","customer":1,"id":"b"}"#,
        &[r#"bought b 1 - {"type":"bought","customer":1,"id":"b"}"#],
    );
}

#[test]
fn every_problem_is_named_at_its_place() {
    let mut given = Given::rules(false, &[(".a |", "bought", ".b |\n  now"), ("", "nowhere", "")]);
    given.scheme.event_id = vec!["header:a b".into(), "env".into()];
    given.events.insert("bought".into(), event(Some("while(true; .)"), None));
    let errors = given.compile().expect_err("a broken configuration");
    let said: Vec<_> =
        errors.iter().map(|error| format!("{}:{} {error}", error.at().line, error.at().column)).collect();
    for (place, word) in [
        ("3:1", "`header:a b` names no header"),
        ("3:1", "`env` is not allowed"),
        ("10:9", "expected"),
        ("11:7", "`now` is not allowed"),
        ("0:0", "no event `nowhere`"),
        ("10:5", "`while` is not allowed"),
    ] {
        assert!(said.iter().any(|text| text.starts_with(place) && text.contains(word)), "{place} {word}: {said:#?}");
    }
    assert_eq!(said.len(), 6, "{said:#?}");
}

#[test]
fn stripes_invoice_becomes_a_renewal() {
    // The example configuration's rule, on a sample of the shape that Stripe sends.
    let map = "
        (.data.object.currency | ascii_upcase) as $currency |
        { customer_id: .data.object.customer, occurred_at: (.created | todate),
          amount: (.data.object.amount_paid | minor_units($currency)), currency: $currency,
          email_sha256: (.data.object.customer_email | normalize_email | sha256), consent: {} }";
    let when = ".type == \"invoice.paid\" and .data.object.billing_reason == \"subscription_cycle\"";
    let mut given = Given::rules(false, &[(when, "renewed", map)]);
    given.events.insert("renewed".into(), event(Some(".customer_id"), None));
    let body = |email: &str, reason: &str| {
        format!(
            r#"{{"id":"evt_1","object":"event","type":"invoice.paid","created":1767225590,"data":{{"object":{{
                "id":"in_1","amount_paid":17493,"billing_reason":"{reason}","currency":"eur","customer":"cus_1",
                "customer_email":{email},"lines":{{"data":[{{"amount":14700,"quantity":3}}]}}}}}}}}"#
        )
    };
    given.check(
        &[],
        &body("\" Ana@Example.com\"", "subscription_cycle"),
        &[concat!(
            r#"renewed evt_1 cus_1 2025-12-31T23:59:50Z {"customer_id":"cus_1","occurred_at":"2025-12-31T23:59:50Z","#,
            r#""amount":"174.93","currency":"EUR","#,
            r#""email_sha256":"8e43ca37701228e74983efdbd0cff5c16b3b1e5d4e29a7c05626d4d25a018e11","consent":{}}"#
        )],
    );
    given.check(
        &[],
        &body("null", "subscription_cycle"),
        &[concat!(
            r#"renewed evt_1 cus_1 2025-12-31T23:59:50Z {"customer_id":"cus_1","occurred_at":"2025-12-31T23:59:50Z","#,
            r#""amount":"174.93","currency":"EUR","email_sha256":null,"consent":{}}"#
        )],
    );
    given.check(&[], &body("null", "manual"), &["unmapped"]);
}

/// A preset, headers, a body; the id, the type and the time.
type Case<'a> = (&'a str, &'a [(&'static str, &'a str)], &'a str, [Option<&'a str>; 3]);

/// The id, type and time that a preset finds in a request, or in one event of it.
fn identified(preset: &str, headers: &[(&'static str, &str)], body: &str) -> [Option<String>; 3] {
    let scheme = crate::catalog::preset(preset).unwrap();
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect();
    let find = |ids: &[String]| {
        let mut given = Given::rules(false, &[("", "plain", "")]);
        given.events.insert("plain".to_owned(), event(None, None));
        given.scheme =
            SourceScheme { event_id: ids.to_vec(), event_time: scheme.event_time.clone(), ..Default::default() };
        match given.compile().unwrap().map(&headers, body.as_bytes()) {
            Mapping::Events(events) => events.first().map(|found| (found.bare_id().to_owned(), found.time.clone())),
            Mapping::Unmapped | Mapping::Failed(_) => None,
        }
    };
    let found = find(&scheme.event_id);
    let event_type = find(&scheme.event_type).map(|(event_type, _)| event_type);
    let (id, time) = found.unzip();
    [id, event_type, time.flatten()]
}

#[test]
fn every_preset_finds_the_id_the_type_and_the_time_of_its_events() {
    const AT: &str = "2026-01-01T00:00:00Z";
    let new = &[("shopify-event-id", "e"), ("shopify-topic", "t"), ("shopify-triggered-at", AT)];
    let both = [("x-shopify-event-id", "e"), ("x-shopify-webhook-id", "w"), ("x-shopify-topic", "t")];
    let svix = [("svix-id", "m")];
    let (github, zendesk) =
        ([("x-github-delivery", "d"), ("x-github-event", "star")], [("x-zendesk-webhook-invocation-id", "i")]);
    let cases: &[Case<'_>] = &[
        ("github", &github, r#"{"action": "created"}"#, [Some("d"), Some("star"), None]),
        ("github", &[], "{}", [None, None, None]),
        ("shopify", new, "{}", [Some("e"), Some("t"), Some(AT)]),
        ("shopify", &both, "{}", [Some("e"), Some("t"), None]),
        ("shopify", &both[1..], "{}", [Some("w"), Some("t"), None]),
        (
            "stripe",
            &[],
            r#"{"id": "evt_1", "type": "invoice.paid", "created": 1767225600}"#,
            [Some("evt_1"), Some("invoice.paid"), Some(AT)],
        ),
        ("stripe", &[], r#"{"id": null, "type": "x", "created": "soon"}"#, [None, Some("x"), None]),
        (
            "hubspot",
            &[],
            r#"{"eventId": 1, "subscriptionId": 2, "portalId": 3, "objectId": 4, "occurredAt": 1767225600000, "subscriptionType": "contact.creation", "attemptNumber": 7}"#,
            [Some("3:2:1:4:1767225600000"), Some("contact.creation"), Some(AT)],
        ),
        ("hubspot", &[], r#"{"subscriptionType": "contact.creation"}"#, [None, Some("contact.creation"), None]),
        (
            "slack",
            &[],
            r#"{"event_id": "Ev1", "type": "event_callback", "event": {"type": "message"}, "event_time": 1767225600}"#,
            [Some("Ev1"), Some("message"), Some(AT)],
        ),
        (
            "slack",
            &[],
            r#"{"event_id": "Ev1", "type": "app_rate_limited"}"#,
            [Some("Ev1"), Some("app_rate_limited"), None],
        ),
        (
            "segment",
            &[],
            r#"{"messageId": "m", "type": "track", "event": "Order Completed", "timestamp": "2026-01-01T00:00:00Z"}"#,
            [Some("m"), Some("track"), Some(AT)],
        ),
        (
            "sendgrid",
            &[],
            r#"{"sg_event_id": "s", "event": "open", "timestamp": 1767225600}"#,
            [Some("s"), Some("open"), Some(AT)],
        ),
        (
            "typeform",
            &[],
            r#"{"event_id": "f", "event_type": "form_response", "form_response": {"submitted_at": "2026-01-01T00:00:00Z"}}"#,
            [Some("f"), Some("form_response"), Some(AT)],
        ),
        (
            "square",
            &[],
            r#"{"event_id": "q", "type": "payment.updated", "created_at": "2026-01-01T00:00:00Z"}"#,
            [Some("q"), Some("payment.updated"), Some(AT)],
        ),
        (
            "paddle",
            &[],
            r#"{"event_id": "p", "event_type": "transaction.completed", "occurred_at": "2026-01-01T00:00:00Z", "notification_id": "n"}"#,
            [Some("p"), Some("transaction.completed"), Some(AT)],
        ),
        (
            "zendesk",
            &zendesk,
            r#"{"zendesk_event_version": "2022-11-06", "id": "z", "type": "zen:event-type:ticket.created", "time": "2026-01-01T00:00:00Z"}"#,
            [Some("z"), Some("zen:event-type:ticket.created"), Some(AT)],
        ),
        (
            "zendesk",
            &zendesk,
            r#"{"id": "a ticket's", "subject": "of the user's own making"}"#,
            [Some("i"), None, None],
        ),
        (
            "mailgun",
            &[],
            r#"{"signature": {}, "event-data": {"id": "g", "event": "failed", "timestamp": 1767225600.25}}"#,
            [Some("g"), Some("failed"), Some("2026-01-01T00:00:00.250Z")],
        ),
        (
            "standard-webhooks",
            &[("webhook-id", "m")],
            r#"{"type": "a.b", "timestamp": "2026-01-01T00:00:00Z"}"#,
            [Some("m"), Some("a.b"), Some(AT)],
        ),
        ("standard-webhooks", &svix, "{}", [Some("m"), None, None]),
        (
            "meta",
            &[],
            r#"{"field": "leadgen", "value": {"leadgen_id": "9", "created_time": 1767225600}}"#,
            [Some("9"), Some("leadgen"), Some(AT)],
        ),
        (
            "meta",
            &[],
            r#"{"field": "messages", "value": {"messages": [{"id": "w1"}, {"id": "w2"}]}, "parent": {"time": 1767225600}}"#,
            [Some("w1,w2"), Some("messages"), Some(AT)],
        ),
        (
            "meta",
            &[],
            r#"{"field": "messages", "value": {"statuses": [{"id": "w1", "status": "read"}]}}"#,
            [Some("w1:read"), Some("messages"), None],
        ),
        ("meta", &[], r#"{"message": {"mid": "m1"}, "timestamp": 1767225600000}"#, [Some("m1"), None, Some(AT)]),
    ];
    for (preset, headers, body, expected) in cases {
        assert_eq!(identified(preset, headers, body), expected.map(|text| text.map(str::to_owned)), "{preset}: {body}");
    }
    let covered: std::collections::BTreeSet<&str> = cases.iter().map(|(preset, ..)| *preset).collect();
    assert!(crate::catalog::preset_names().all(|name| covered.contains(name)), "{covered:?}");
}
