//! The commands that look at a running system: `send` for every preset, `tail`, `topics plan` and `apply`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::Value;

use crate::cli::{Ran, run};
use crate::harness::bridge::{Bridge, Setup, command};
use crate::harness::services;

/// Presets whose requests carry several events: they can be sent, and not yet be taken.
const SEVERAL: [&str; 4] = ["hubspot", "meta", "segment", "sendgrid"];

/// Runs a command with the setup's configuration.
fn with(setup: &Setup, arguments: &[&str]) -> Ran {
    let file = setup.folder.join("hookbridge.yaml");
    run(&[arguments, &["--config", file.to_str().unwrap()]].concat(), b"")
}

fn presets() -> Vec<String> {
    let ran = run(&["source", "list", "--presets", "--json"], b"");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let listed: Vec<Value> = serde_json::from_str(&ran.out).expect("a list");
    listed.iter().map(|one| one["preset"].as_str().expect("a name").to_owned()).collect()
}

/// A source for each preset, every request of which is an order.
fn sources(presets: &[String]) -> String {
    let source = |name: &String| {
        let secret =
            if name == "standard-webhooks" { "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0" } else { "secret-of-the-tests" };
        format!(
            r#"
  of-{name}:
    preset: {name}
    secrets: [{secret}]
    public_url: https://hooks.example.com/hooks/of-{name}
    events: [{{ event: order_placed, map: '{{ customer_id: "{name}", placed_at: 1772600767089, total: "1.00", consent: {{}} }}' }}]
"#
        )
    };
    presets.iter().map(source).collect()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON, one a line")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_test_event_of_every_preset_is_accepted_and_tail_shows_it() {
    let taken: Vec<String> = presets().into_iter().filter(|name| !SEVERAL.contains(&name.as_str())).collect();
    assert!(taken.len() >= 10, "{taken:?}");
    let bridge = Bridge::start(Setup { more_sources: sources(&taken), ..Setup::new("commands") }).await;
    let setup = &bridge.setup;
    for name in &taken {
        let ran = with(setup, &["send", &format!("of-{name}"), "--json"]);
        assert_eq!(ran.code, Some(0), "{name}: {}{}", ran.out, ran.err);
        let answer: Value = serde_json::from_str(&ran.out).expect("the answer as it came");
        assert_eq!(answer["events"][0]["status"], "accepted", "{name}: {answer}");
    }

    for name in ["github", "slack"] {
        let ran = with(setup, &["send", &format!("of-{name}"), "--handshake"]);
        assert_eq!(ran.code, Some(0), "{name}: {}{}", ran.out, ran.err);
        assert!(ran.out.starts_with("200 OK: answered as the provider wants it: "), "{name}: {}", ran.out);
    }
    let ran = with(setup, &["send", "of-stripe", "--handshake"]);
    assert_eq!(ran.code, Some(2), "it has none: {}{}", ran.out, ran.err);
    // Another secret than the running bridge has.
    let other = std::fs::read_to_string(setup.folder.join("hookbridge.yaml")).unwrap();
    let file = setup.folder.join("other.yaml");
    std::fs::write(&file, other.replace("[secret-of-the-tests]", "[another-secret-than-it]")).unwrap();
    let ran = run(&["send", "of-slack", "--handshake", "--config", file.to_str().unwrap()], b"");
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("401") && ran.out.contains("the provider wants 200 OK: `challenge-"), "{}", ran.out);

    let ran = with(setup, &["tail", "order_placed", "--from-beginning", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let shown = lines(&ran.out);
    let mut customers: Vec<&str> = shown.iter().map(|line| line["data"]["customer_id"].as_str().unwrap()).collect();
    customers.sort_unstable();
    assert_eq!(customers, taken);
    assert!(shown.iter().all(|line| line["key"] == line["data"]["customer_id"] && line["event_id"].is_string()));

    let ran = with(setup, &["tail", "--source", "of-stripe", "--last", "5"]);
    assert_eq!((ran.code, ran.out.lines().count()), (Some(0), 1), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains(" order_placed id=evt_test-") && ran.out.contains(r#""total":1.0000"#), "{}", ran.out);

    let ran = with(setup, &["tail", "--since", "1h", "-n", "3"]);
    assert_eq!((ran.code, ran.out.lines().count()), (Some(0), 3), "{}{}", ran.out, ran.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_waits_for_what_comes_and_leaves_no_group_behind() {
    let bridge = Bridge::start(Setup::new("tailing")).await;
    let setup = &bridge.setup;
    let mut tail = Tailing::start(setup, &["tail", "-n", "2"]);
    tail.wait_for("waiting for events");
    let sent = with(setup, &["send", "shop", "--event", "order_placed", "--data", "data.customer_id=tailed"]);
    assert_eq!(sent.code, Some(0), "{}{}", sent.out, sent.err);
    let broken = with(setup, &["send", "shop", "--event", "order_placed", "--data", "data.total=\"a lot\""]);
    assert_eq!(broken.code, Some(1), "{}{}", broken.out, broken.err);
    assert!(
        broken.out.starts_with("quarantined (invalid): it is kept in ") && broken.out.contains("/total: "),
        "{}",
        broken.out
    );
    let (code, shown) = tail.end();
    assert_eq!((code, shown.lines().count()), (Some(0), 2), "{shown}");
    assert!(shown.contains(" order_placed id=test-") && shown.contains("key=tailed"), "{shown}");
    assert!(shown.contains(" quarantined(invalid) ") && shown.contains(r#""a lot""#), "{shown}");

    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &services().bootstrap).create().expect("a client");
    let groups = consumer.fetch_group_list(None, Duration::from_secs(10)).expect("the broker's groups");
    assert!(groups.groups().iter().all(|group| !group.name().contains("peek")), "a group was left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn send_says_what_became_of_it_and_what_to_do() {
    let setup = Setup { more_sources: sources(&["sendgrid".to_owned()]), ..Setup::new("sending") };
    setup.write();
    let nobody = with(&setup, &["send", "shop"]);
    assert_eq!(nobody.code, Some(69), "{}{}", nobody.out, nobody.err);
    assert!(nobody.err.contains("hint: is the bridge running?"), "{}", nobody.err);
    // The secret is no key of that preset; that it could not sign anyway comes first.
    let public = with(&setup, &["send", "of-sendgrid"]);
    assert_eq!(public.code, Some(2), "{}{}", public.out, public.err);
    assert!(public.err.contains("--private-key"), "{}", public.err);

    let bridge = Bridge::start(Setup::new("sending")).await;
    let setup = &bridge.setup;
    let accepted = with(setup, &["send", "shop", "--repeat", "2", "--count", "3"]);
    assert_eq!((accepted.code, accepted.out.lines().count()), (Some(0), 6), "{}{}", accepted.out, accepted.err);
    assert!(accepted.err.contains("6 sent: "), "{}", accepted.err);
    let own = with(setup, &["send", "leads", "--data", "email=Ana@example.com", "--data", "form_id=demo"]);
    assert_eq!(own.code, Some(0), "{}{}", own.out, own.err);
    assert!(own.out.starts_with("accepted: contact_added test-"), "{}", own.out);
    let strict = with(setup, &["send", "strict", "--event", "order_placed", "--data", "data.total=[]"]);
    assert_eq!(strict.code, Some(1), "{}{}", strict.out, strict.err);
    assert!(strict.out.starts_with("refused, 422"), "{}", strict.out);
    let ignored = with(setup, &["send", "payments", "--event", "charge.refunded"]);
    assert!(ignored.code == Some(0) && ignored.out.starts_with("ignored:"), "{}{}", ignored.out, ignored.err);
    let elsewhere = format!("http://127.0.0.1:{}/hooks/shop", bridge.port());
    let forged = with(setup, &["send", "payments", "--to", &elsewhere]);
    assert_eq!(forged.code, Some(1), "{}{}", forged.out, forged.err);
    assert!(forged.out.starts_with("refused, 401"), "{}", forged.out);
    for wrong in [&["send", "nobody"][..], &["send", "shop", "--event", "no_such"], &["send", "leads"]] {
        let ran = with(setup, wrong);
        assert_eq!(ran.code, Some(2), "{wrong:?}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains("hint: "), "{}", ran.err);
    }
}

#[test]
fn topics_are_planned_and_applied_and_only_ever_raised() {
    let mut setup = Setup { partitions: 2, ..Setup::new("topics") };
    setup.write();
    let planned = with(&setup, &["topics", "plan"]);
    assert_eq!(planned.code, Some(1), "{}{}", planned.out, planned.err);
    assert_eq!(planned.out.matches("+ create it: 2 partitions, 1 replica(s)").count(), 6, "{}", planned.out);
    let unasked = with(&setup, &["topics", "apply"]);
    assert_eq!(unasked.code, Some(2), "nobody confirms it: {}{}", unasked.out, unasked.err);
    let applied = with(&setup, &["topics", "apply", "--yes"]);
    assert_eq!(applied.code, Some(0), "{}{}", applied.out, applied.err);
    assert!(applied.err.contains("done: 7 changes"), "{}", applied.err);
    let nothing = with(&setup, &["topics", "plan"]);
    assert_eq!(nothing.code, Some(0), "{}{}", nothing.out, nothing.err);
    assert!(nothing.out.ends_with("7 topics, 7 as they should be: nothing to do\n"), "{}", nothing.out);

    // Somebody keeps one topic for less time than is configured, and compresses it: the one is mended, the other kept.
    let topic = setup.topic("events.order_placed");
    alter(
        &topic,
        &[("retention.ms", "60000"), ("compression.type", "zstd"), ("unclean.leader.election.enable", "true")],
    );
    setup.partitions = 5;
    setup.write();
    let planned = with(&setup, &["topics", "plan", "--json"]);
    assert_eq!(planned.code, Some(1), "{}{}", planned.out, planned.err);
    let plan: Value = serde_json::from_str(&planned.out).expect("one object");
    // The alteration has put the largest record back to its default as well.
    assert_eq!((&plan["changes"], &plan["problems"]), (&9.into(), &0.into()), "{plan}");
    let applied = with(&setup, &["topics", "apply", "--yes"]);
    assert_eq!(applied.code, Some(0), "{}{}", applied.out, applied.err);
    assert!(applied.out.contains("+ add partitions: 2 -> 5"), "{}", applied.out);
    assert!(applied.out.contains("~ set retention.ms: 60000 (1m) -> 2592000000 (30d)"), "{}", applied.out);
    assert_eq!(with(&setup, &["topics", "plan"]).code, Some(0));
    assert_eq!(setting(&topic, "compression.type"), "zstd");
    assert_eq!(setting(&topic, "unclean.leader.election.enable"), "false");

    setup.partitions = 3;
    setup.write();
    let fewer = with(&setup, &["topics", "plan"]);
    assert_eq!(fewer.code, Some(0), "nothing is taken away: {}{}", fewer.out, fewer.err);
    assert!(fewer.out.contains("it has 5 partitions, and 3 are configured"), "{}", fewer.out);
}

#[test]
fn a_kafka_that_is_not_there_is_unavailable() {
    let mut setup = Setup::new("nowhere");
    "127.0.0.1:1".clone_into(&mut setup.bootstrap);
    setup.write();
    for arguments in [
        &["topics", "plan"][..],
        &["topics", "apply", "--yes"],
        &["tail", "--last", "1"],
        &["quarantine", "list", "shop"],
        &["trace", "evt"],
    ] {
        let ran = with(&setup, arguments);
        assert_eq!(ran.code, Some(69), "{arguments:?}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains("127.0.0.1:1") && ran.err.contains("hint: "), "{}", ran.err);
    }
}

#[test]
fn a_source_is_shown_in_words_and_its_secret_never() {
    let setup = Setup::new("showing");
    setup.write();
    let listed = with(&setup, &["source", "list"]);
    assert_eq!((listed.code, listed.out.lines().count()), (Some(0), 5), "{}{}", listed.out, listed.err);
    for arguments in
        [&["source", "show", "payments"][..], &["source", "show", "payments", "--json"], &["source", "list", "--json"]]
    {
        let shown = with(&setup, arguments);
        assert_eq!(shown.code, Some(0), "{}{}", shown.out, shown.err);
        assert!(shown.out.contains("stripe") && shown.out.contains("/hooks/payments"), "{}", shown.out);
        assert!(!shown.out.contains("whsec_") && !shown.out.contains("payments-of-the-tests"), "{}", shown.out);
    }
    let unknown = with(&setup, &["source", "show", "github"]);
    assert_eq!(unknown.code, Some(2), "{}{}", unknown.out, unknown.err);
    assert!(unknown.err.contains("--preset"), "{}", unknown.err);
    assert_eq!(run(&["source", "show", "github", "--preset"], b"").code, Some(0));
}

/// A `tail` that runs.
struct Tailing {
    child: Child,
    err: BufReader<std::process::ChildStderr>,
}

impl Tailing {
    fn start(setup: &Setup, arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        command.arg("--config").arg(setup.folder.join("hookbridge.yaml"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the bridge's binary");
        let err = BufReader::new(child.stderr.take().expect("a pipe"));
        Self { child, err }
    }

    fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(self.err.read_line(&mut line).expect("standard error"), 0, "it ended without `{text}`");
        }
    }

    fn end(mut self) -> (Option<i32>, String) {
        let mut out = String::new();
        self.child.stdout.take().expect("a pipe").read_to_string(&mut out).expect("text");
        (self.child.wait().expect("it ends").code(), out)
    }
}

impl Drop for Tailing {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

fn admin() -> rdkafka::admin::AdminClient<rdkafka::client::DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &services().bootstrap).create().expect("an admin client")
}

fn blocking<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// What an operator does by Kafka's own tools. Whatever is not named goes back to its default.
pub(crate) fn alter(topic: &str, settings: &[(&str, &str)]) {
    use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
    let alter = AlterConfig::new(ResourceSpecifier::Topic(topic));
    let alter = settings.iter().fold(alter, |alter, (name, value)| alter.set(name, value));
    let answers = blocking(admin().alter_configs(&[alter], &AdminOptions::new())).expect("an answer");
    for answer in answers {
        answer.expect("it is altered");
    }
}

fn setting(topic: &str, name: &str) -> String {
    use rdkafka::admin::{AdminOptions, ResourceSpecifier};
    let topic = ResourceSpecifier::Topic(topic);
    let answers = blocking(admin().describe_configs(&[topic], &AdminOptions::new())).expect("an answer");
    let answer = answers.into_iter().next().expect("a topic").expect("its settings");
    answer.get(name).and_then(|entry| entry.value.clone()).expect("a value")
}
