//! The example file at the repository's root, which is the contract with the user: it is read whole, and means this.

use std::path::Path;
use std::time::Duration;

use super::*;

pub(super) const EXAMPLE: &str = include_str!("../../../hookbridge.example.yaml");

/// What the example takes from outside; each value can be searched for.
pub(super) const OUTSIDE: &[(&str, &str)] = &[
    ("STRIPE_WEBHOOK_SECRET", "whsec_hunter2-stripe-new"),
    ("STRIPE_WEBHOOK_SECRET_OLD", "whsec_hunter2-stripe-old"),
    ("STOREFRONT_SECRET", "whsec_hunter2-storefront"),
    ("POSTGRES_URL", "postgres://bridge:hunter2-postgres@db/warehouse"),
    ("CRM_SECRET", "whsec_hunter2-crm"),
    ("KLAVIYO_API_KEY", "hunter2-klaviyo"),
    ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/hunter2-slack"),
];

pub(super) fn outside() -> FakeEnvironment {
    FakeEnvironment::new(OUTSIDE).with_file("/etc/bridge/secrets/leads", "hunter2-of-the-leads\n")
}

pub(super) fn loaded() -> Loaded {
    let env = outside().with_file("/etc/bridge/hookbridge.yaml", EXAMPLE);
    load(Path::new("/etc/bridge/hookbridge.yaml"), &env).unwrap_or_else(|problems| panic!("{problems}"))
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn connections_and_limits_are_read() {
    let Config { instance, kafka, registry, ingest, admin, egress, schemas, .. } = loaded().config;
    assert_eq!(instance, "");

    assert_eq!(kafka.bootstrap_servers, "127.0.0.1:9092");
    assert!(kafka.create_topics);
    assert_eq!(kafka.topic_prefix, "");
    assert_eq!(kafka.topic_defaults.partitions, 12);
    assert_eq!((kafka.topic_defaults.replication_factor, kafka.topic_defaults.min_insync_replicas), (None, None));
    assert_eq!(kafka.topic_defaults.retention, seconds(30 * 86_400));
    assert!(kafka.librdkafka.is_empty());

    assert_eq!(registry.url, "http://127.0.0.1:8081");
    assert!(!registry.auto_register);
    assert_eq!(registry.cache, Path::new("/etc/bridge/var/registry"));
    assert!(registry.username.is_none() && registry.password.is_none());

    assert_eq!(ingest.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(ingest.max_body, 1 << 20);
    assert_eq!(ingest.deadline, Duration::from_millis(4500));
    assert_eq!(ingest.max_connections, 4096);
    assert_eq!(ingest.header_timeout, seconds(10));
    assert_eq!(ingest.body_timeout, seconds(15));
    assert_eq!(ingest.idle_timeout, seconds(60));
    assert_eq!((ingest.max_requests, ingest.max_buffered_bytes, ingest.min_body_rate), (8192, 64 << 20, 1024));
    assert_eq!((ingest.max_connection_requests, ingest.max_connection_age), (10_000, seconds(600)));
    assert!(!ingest.compressed_bodies);
    assert_eq!(ingest.max_in_flight_bytes, 64 << 20);
    assert_eq!(ingest.drain_timeout, seconds(25));
    assert_eq!(ingest.dedupe.max_entries, 2_000_000);
    assert_eq!(ingest.dedupe.scope, DedupeScope::Instance);

    assert_eq!(admin.listen.to_string(), "127.0.0.1:9000");
    assert!(egress.allow.is_empty());
    assert_eq!(schemas, Path::new("/etc/bridge/schemas"));
}

#[test]
fn events_are_read() {
    let events = loaded().config.events;
    assert_eq!(events.keys().collect::<Vec<_>>(), ["lead_captured", "purchase_completed", "subscription_renewed"]);

    let purchase = &events["purchase_completed"];
    assert_eq!(purchase.category, "commerce");
    assert_eq!(purchase.owner, "growth-data@example.com");
    assert_eq!(purchase.version, SchemaVersion::Latest);
    assert_eq!(purchase.compatibility, Compatibility::FullTransitive);
    assert_eq!(purchase.key.as_ref().unwrap().text, ".customer_id");
    assert_eq!(purchase.id.as_ref().unwrap().text, ".event_id");
    assert_eq!(purchase.unknown_fields, UnknownFields::Capture);
    assert_eq!(purchase.topic, "events.purchase_completed");

    let renewed = &events["subscription_renewed"];
    assert_eq!(renewed.version, SchemaVersion::Number(1));
    assert_eq!(renewed.compatibility, Compatibility::FullTransitive);
    assert_eq!(renewed.id, None);
    assert_eq!(renewed.unknown_fields, UnknownFields::Warn);
    assert_eq!(renewed.topic, "events.subscription_renewed");
}

#[test]
fn sources_are_read() {
    let sources = loaded().config.sources;
    let exposed = |source: &Source| source.secrets.iter().map(|secret| secret.expose().to_owned()).collect::<Vec<_>>();

    let stripe = &sources["stripe"];
    assert_eq!(stripe.preset.as_deref(), Some("stripe"));
    assert_eq!(stripe.scheme.signature[0].header.as_deref(), Some("stripe-signature"));
    assert_eq!(exposed(stripe), ["whsec_hunter2-stripe-new", "whsec_hunter2-stripe-old"]);
    assert_eq!((stripe.on_unmapped, stripe.on_invalid), (OnUnmapped::Ignore, OnInvalid::Quarantine));
    assert_eq!(stripe.deadline, Duration::from_millis(4500));
    let EventRules::Rules { rules, all: false } = &stripe.events else { panic!("rules") };
    assert_eq!(rules[0].event, "subscription_renewed");
    assert!(rules[0].when.as_ref().unwrap().text.ends_with(".billing_reason == \"subscription_cycle\""));
    assert!(
        rules[0].map.as_ref().unwrap().text.starts_with("(.data.object.currency | ascii_upcase) as $currency |\n{")
    );

    let storefront = &sources["storefront"];
    assert_eq!(storefront.scheme.signature[0].header.as_deref(), Some("webhook-signature"));
    let EventRules::Direct { event_type, payload } = &storefront.events else { panic!("direct") };
    assert_eq!((event_type.text.as_str(), payload.as_ref().unwrap().text.as_str()), (".type", ".data"));
    // The preset's own way to the event type stays.
    assert_eq!(storefront.scheme.event_type, [".type"]);
    assert_eq!(storefront.on_unmapped, OnUnmapped::Quarantine);

    let leads = &sources["leads"];
    assert_eq!(leads.preset, None);
    let signature = &leads.scheme.signature[0];
    assert_eq!(signature.prefix, "sha256=");
    assert_eq!(signature.signed, "{header:x-timestamp}.{body}");
    assert_eq!(signature.timestamp.as_ref().unwrap().tolerance, seconds(300));
    assert_eq!(leads.scheme.event_id, [".submission_id"]);
    assert_eq!(exposed(leads), ["hunter2-of-the-leads"]);
}

#[test]
fn sinks_are_read() {
    let sinks = loaded().config.sinks;

    let warehouse = &sinks["warehouse"];
    let SinkKind::Postgres(postgres) = &warehouse.kind else { panic!("postgres") };
    assert_eq!(postgres.url.expose(), "postgres://bridge:hunter2-postgres@db/warehouse");
    assert_eq!((postgres.table.as_str(), postgres.schema.as_str()), ("{event_type}", "public"));
    assert_eq!((postgres.ddl, postgres.max_batch), (Ddl::Evolve, 500));
    assert_eq!(warehouse.events, ["purchase_completed", "subscription_renewed"]);
    assert_eq!(warehouse.guarantee, Some(Guarantee::ExactlyOnce));
    assert_eq!(warehouse.purpose, Purpose::Unset);

    let analytics = &sinks["analytics"];
    assert!(matches!(&analytics.kind, SinkKind::Kafka { topic } if topic == "analytics.purchase_completed"));
    assert_eq!(analytics.map.as_ref().unwrap().text, "del(.email_sha256)");

    let crm = &sinks["crm"];
    let SinkKind::Http(http) = &crm.kind else { panic!("http") };
    assert_eq!(http.url, "https://crm.example.com/hooks");
    assert_eq!(http.standard_webhooks.as_ref().unwrap().expose(), "whsec_hunter2-crm");
    assert_eq!((http.concurrency, http.timeout), (32, seconds(10)));
    assert_eq!(http.pacing.rate_limit.unwrap().to_string(), "200/1s");
    assert_eq!((http.pacing.in_place, http.pacing.max_age), (seconds(30), seconds(86_400)));
    assert_eq!(http.pacing.dedupe_window, seconds(86_400));
    assert_eq!(crm.purpose, Purpose::Named("email_marketing".into()));
    assert_eq!(crm.filter.as_ref().unwrap().text, ".country == \"DE\"");

    let SinkKind::Preset(klaviyo) = &sinks["klaviyo"].kind else { panic!("a preset") };
    assert_eq!(klaviyo.preset, "klaviyo-events");
    assert_eq!(klaviyo.api_key.as_ref().unwrap().expose(), "hunter2-klaviyo");
    assert_eq!(klaviyo.base_url.as_deref(), Some("https://a.klaviyo.com"));
}

#[test]
fn alerts_are_read() {
    let alerts = loaded().config.alerts.unwrap();
    let drift = alerts.drift.unwrap();
    assert_eq!((drift.to.as_slice(), drift.min_count), (&["ops-slack".to_owned()][..], 5));
    assert_eq!(alerts.dead_letters.unwrap().over.to_string(), "10/5m");
    assert!(matches!(&alerts.receivers["ops-slack"], Receiver::Slack(url) if url.expose().ends_with("hunter2-slack")));
}

#[test]
fn the_example_passes_with_warnings_and_what_is_not_built_is_named() {
    let loaded = loaded();
    let paths = |problems: &[Problem]| problems.iter().map(|problem| problem.at.path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(&loaded.warnings), ["sources.stripe.events[0].map"]);
    assert_eq!(paths(&loaded.not_built), ["sinks.klaviyo.preset", "alerts"]);
    assert!(loaded.not_built.iter().all(|problem| problem.message.contains("`run` refuses it")));
}

#[test]
fn every_expression_is_handed_out_with_the_place_where_it_stands() {
    let config = loaded().config;
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let mut count = 0;
    for expr in config.expressions() {
        let first = expr.text.lines().next().unwrap();
        let line = &lines[expr.at.line - 1][expr.at.column - 1..];
        assert!(line.trim_start_matches('\'').starts_with(first), "{:?} is not at {:?}", first, expr.at);
        count += 1;
    }
    // Keys 3, ids 1; stripe 2, storefront 2, leads 1 and its event id; sinks 2.
    assert_eq!(count, 12);
    // A place within a block is a place in the file.
    let EventRules::Rules { rules, .. } = &config.sources["stripe"].events else { panic!("rules") };
    let map = rules[0].map.as_ref().unwrap();
    let line = map.text.lines().position(|line| line.contains("consent: {}")).unwrap() + 1;
    assert!(lines[map.place(line, 1).line - 1].contains("consent: {}"));
}

#[test]
fn the_example_explains_every_key() {
    for shape in reference::known_keys() {
        let key = shape.rsplit('.').next().unwrap().trim_end_matches("[]");
        assert!(key == "<name>" || EXAMPLE.contains(key), "`{shape}` is not in the example");
    }
}

#[test]
fn secrets_are_in_no_debug_output_and_in_no_problem() {
    let shown = format!("{:?}", loaded());
    assert!(!shown.contains("hunter2"), "{shown}");
    for (name, _) in OUTSIDE {
        // Every sink broken beside its secret, and this secret strayed into a place that cannot use it.
        let strayed = format!("partitions: \"${{{name}}}\"");
        let broken = EXAMPLE.replace("guarantee:", "guarante:").replace("partitions: 12", &strayed);
        let problems = parse(Path::new("/etc/bridge/hookbridge.yaml"), &broken, &outside()).unwrap_err();
        assert!(!format!("{problems} {problems:?}").contains("hunter2"), "{problems}");
    }
}
