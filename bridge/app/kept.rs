//! What a process keeps to from its start to its end: sockets that are open, and clients that are connected. A reload that
//! would change it is refused, so that the file and the process never disagree in silence.

use std::path::Path;

use crate::config::{Admin, Config, Ingest, Kafka, Location, Problem, Registry};

/// A problem for every such key in which `new` differs, where `file` writes it, sorted by line.
pub(super) fn problems(running: &Config, new: &Config, file: &Path) -> Vec<Problem> {
    let problem = |key: String| {
        let message = "is not what this process was started with, and cannot change while it runs";
        Problem::error(file, place(new, key), message).with_hint("restart to change it")
    };
    let mut problems: Vec<Problem> = differences(running, new).into_iter().map(problem).collect();
    problems.sort_by_key(|problem| (problem.at.line, problem.at.column));
    problems
}

/// Where the key stands, or the section that would hold it.
fn place(config: &Config, key: String) -> Location {
    let mut holder = key.as_str();
    loop {
        if let Some(at) = config.written.places.get(holder) {
            return Location { path: key, ..at.clone() };
        }
        match holder.rsplit_once('.') {
            Some((above, _)) => holder = above,
            None => return Location { path: key, ..Location::default() },
        }
    }
}

/// The keys, by their paths. What a reload can change is named and left out, so that a new key has to be thought of.
fn differences(running: &Config, new: &Config) -> Vec<String> {
    let Kafka { bootstrap_servers, create_topics: _, topic_prefix, topic_defaults: _, librdkafka } = &running.kafka;
    let Registry { url, auto_register, cache, username, password } = &running.registry;
    let Ingest {
        listen,
        max_body,
        // Each source has its own of it.
        deadline: _,
        max_connections,
        header_timeout,
        body_timeout,
        idle_timeout,
        max_in_flight_bytes,
        max_requests,
        max_buffered_bytes,
        min_body_rate,
        max_connection_requests,
        max_connection_age,
        compressed_bodies,
        drain_timeout,
        dedupe,
    } = &running.ingest;
    let Admin { listen: admin_listen } = &running.admin;
    let keys = [
        ("instance", running.instance == new.instance),
        ("kafka.bootstrap_servers", *bootstrap_servers == new.kafka.bootstrap_servers),
        ("kafka.topic_prefix", *topic_prefix == new.kafka.topic_prefix),
        ("registry.url", *url == new.registry.url),
        ("registry.auto_register", *auto_register == new.registry.auto_register),
        ("registry.cache", *cache == new.registry.cache),
        ("registry.username", *username == new.registry.username),
        ("registry.password", *password == new.registry.password),
        ("ingest.listen", *listen == new.ingest.listen),
        ("ingest.max_body", *max_body == new.ingest.max_body),
        ("ingest.max_connections", *max_connections == new.ingest.max_connections),
        ("ingest.header_timeout", *header_timeout == new.ingest.header_timeout),
        ("ingest.body_timeout", *body_timeout == new.ingest.body_timeout),
        ("ingest.idle_timeout", *idle_timeout == new.ingest.idle_timeout),
        ("ingest.max_in_flight_bytes", *max_in_flight_bytes == new.ingest.max_in_flight_bytes),
        ("ingest.max_requests", *max_requests == new.ingest.max_requests),
        ("ingest.max_buffered_bytes", *max_buffered_bytes == new.ingest.max_buffered_bytes),
        ("ingest.min_body_rate", *min_body_rate == new.ingest.min_body_rate),
        ("ingest.max_connection_requests", *max_connection_requests == new.ingest.max_connection_requests),
        ("ingest.max_connection_age", *max_connection_age == new.ingest.max_connection_age),
        ("ingest.compressed_bodies", *compressed_bodies == new.ingest.compressed_bodies),
        ("ingest.drain_timeout", *drain_timeout == new.ingest.drain_timeout),
        ("ingest.dedupe", *dedupe == new.ingest.dedupe),
        ("admin.listen", *admin_listen == new.admin.listen),
    ];
    let keys = keys.iter().filter(|(_, same)| !same).map(|(key, _)| (*key).to_owned());
    let properties =
        librdkafka.keys().chain(new.kafka.librdkafka.keys().filter(|name| !librdkafka.contains_key(*name)));
    let properties = properties.filter(|name| librdkafka.get(*name) != new.kafka.librdkafka.get(*name));
    keys.chain(properties.map(|name| format!("kafka.librdkafka.{name}"))).collect()
}

#[cfg(test)]
mod tests {
    use std::env::VarError;
    use std::io;

    use super::*;
    use crate::config::{Environment, parse};

    /// No variables and no files.
    struct Nothing;

    impl Environment for Nothing {
        fn variable(&self, _: &str) -> Result<String, VarError> {
            Err(VarError::NotPresent)
        }

        fn read_file(&self, _: &Path, _: u64) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn told(running: &str, new: &str) -> Vec<String> {
        let file = Path::new("h.yaml");
        let read = |text| parse(file, text, &Nothing).unwrap().config;
        problems(&read(running), &read(new), file).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_key_that_needs_a_restart_is_named_at_once_with_its_place() {
        let running = "ingest: { listen: 127.0.0.1:8080 }\nregistry: { url: http://a, username: me, password: old }\n";
        let new = "ingest:\n  listen: 127.0.0.1:8081\n  max_body: 2MiB\nkafka:\n  librdkafka: { client.rack: b }\n\
                   registry: { url: http://a, username: me, password: new }\n";
        let message = "is not what this process was started with, and cannot change while it runs\n  \
                       hint: restart to change it";
        let expected = [
            "h.yaml:2:11: ingest.listen",
            "h.yaml:3:13: ingest.max_body",
            "h.yaml:5:30: kafka.librdkafka.client.rack",
            "h.yaml:6:52: registry.password",
        ];
        assert_eq!(told(running, new), expected.map(|place| format!("{place}: {message}")));
        let told = told(new, "instance: b\n");
        assert!(told.iter().any(|line| line.starts_with("h.yaml: ingest.listen")), "a default of now: {told:?}");
        assert!(!told.concat().contains("new"), "no secret is shown: {told:?}");
    }

    #[test]
    fn a_password_of_kafka_needs_a_restart_and_is_not_shown() {
        let file = |password| format!("kafka:\n  librdkafka: {{ sasl.username: me, sasl.password: {password} }}\n");
        let told = told(&file("old-secret"), &file("new-secret"));
        let place = "h.yaml:2:51: kafka.librdkafka.sasl.password: is not what this process was started with";
        assert!(told.len() == 1 && told[0].starts_with(place), "{told:?}");
        assert!(told[0].ends_with("restart to change it") && !told[0].contains("-secret"), "{told:?}");
    }

    #[test]
    fn what_a_reload_can_change_is_not_named() {
        let new = "ingest: { deadline: 3s }\nkafka: { create_topics: true, topic_defaults: { partitions: 3 } }\n\
                   egress: { allow: [127.0.0.0/8] }\nschemas: elsewhere\n";
        assert_eq!(told("ingest: {}\n", new), [""; 0]);
    }
}
