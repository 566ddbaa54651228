//! Which librdkafka properties a user may pass through under `kafka.librdkafka`.
//!
//! An allow-list, because passing anything through is running code: `plugin.library.paths` loads a library,
//! `sasl.kerberos.kinit.cmd` is a shell command, `sasl.oauthbearer.token.endpoint.url` calls any address.
//! The names are those of librdkafka 2.12's CONFIGURATION.md.

use super::problem::nearest;

/// What every client knows: TLS, SASL, timeouts of the connection, buffers, and how brokers are found.
const COMMON: &[&str] = &[
    // TLS.
    "security.protocol",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.key.location",
    "ssl.key.pem",
    "ssl.key.password",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.crl.location",
    "ssl.cipher.suites",
    "ssl.curves.list",
    "ssl.sigalgs.list",
    "ssl.endpoint.identification.algorithm",
    "enable.ssl.certificate.verification",
    // SASL PLAIN and SCRAM.
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    // Connections, and how brokers are found.
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.send.buffer.bytes",
    "socket.receive.buffer.bytes",
    "connections.max.idle.ms",
    "reconnect.backoff.ms",
    "reconnect.backoff.max.ms",
    "broker.address.family",
    "broker.address.ttl",
    "client.dns.lookup",
    "client.rack",
    "topic.metadata.refresh.interval.ms",
    "metadata.max.age.ms",
    "metadata.recovery.strategy",
    "metadata.recovery.rebootstrap.trigger.ms",
    "retry.backoff.ms",
    "retry.backoff.max.ms",
];

/// What only producers know.
const PRODUCING: &[&str] = &[
    "queue.buffering.max.messages",
    "queue.buffering.max.kbytes",
    "batch.num.messages",
    "batch.size",
    "compression.type",
    "compression.codec",
    // Of the records of ingest; those of a transaction keep to its own.
    "message.timeout.ms",
];

/// What only consumers know.
const CONSUMING: &[&str] = &[
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "fetch.wait.max.ms",
    "fetch.min.bytes",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "max.partition.fetch.bytes",
    "fetch.error.backoff.ms",
    "fetch.queue.backoff.ms",
    "queued.min.messages",
    "queued.max.messages.kbytes",
];

const NO_LOSS: &str = "a 2xx means that all in-sync replicas have the event";
const TRANSACTIONS: &str = "the timeouts of a transaction are set together, each below the next";
const OFFSETS: &str = "offsets are committed when records are settled, and not before";
const GROUPS: &str = "each sink has one group of its own, whose rebalances it must see";
const KEYS: &str = "the same key goes where Java's clients put it, in the order of acknowledgements";

/// Properties that hookbridge sets itself, and the promise that rests on each.
const OURS: &[(&str, &str)] = &[
    ("bootstrap.servers", "write `kafka.bootstrap_servers`"),
    ("metadata.broker.list", "write `kafka.bootstrap_servers`"),
    ("acks", NO_LOSS),
    ("request.required.acks", NO_LOSS),
    ("request.timeout.ms", TRANSACTIONS),
    ("enable.idempotence", NO_LOSS),
    ("enable.gapless.guarantee", NO_LOSS),
    ("retries", NO_LOSS),
    ("message.send.max.retries", NO_LOSS),
    ("delivery.report.only.error", NO_LOSS),
    ("max.in.flight", KEYS),
    ("max.in.flight.requests.per.connection", KEYS),
    ("queuing.strategy", KEYS),
    ("partitioner", KEYS),
    ("linger.ms", "batches follow the load: no wait when idle, more when busy"),
    ("queue.buffering.max.ms", "batches follow the load: no wait when idle, more when busy"),
    ("message.max.bytes", "it follows from `ingest.max_body`"),
    ("receive.message.max.bytes", "it follows from `ingest.max_body`"),
    ("socket.timeout.ms", TRANSACTIONS),
    ("delivery.timeout.ms", TRANSACTIONS),
    ("transaction.timeout.ms", TRANSACTIONS),
    ("transactional.id", "it names the sink and the instance's slot: write `instance`"),
    ("isolation.level", "sinks read committed records only"),
    ("enable.auto.commit", OFFSETS),
    ("auto.commit.interval.ms", OFFSETS),
    ("enable.auto.offset.store", OFFSETS),
    ("offset.store.method", OFFSETS),
    ("auto.offset.reset", OFFSETS),
    ("enable.partition.eof", OFFSETS),
    ("group.id", GROUPS),
    ("group.instance.id", GROUPS),
    ("group.protocol", GROUPS),
    ("group.protocol.type", GROUPS),
    ("partition.assignment.strategy", GROUPS),
    ("max.poll.interval.ms", GROUPS),
    ("allow.auto.create.topics", "topics are never created by accident: write `kafka.create_topics`"),
    ("client.id", "it names the process and what it does"),
    ("statistics.interval.ms", "the metrics rest on it"),
    ("log_level", "logs follow the process's own settings"),
];

/// Properties that would let the file run a program, load a library, or call an address.
const DANGEROUS: &[(&str, &str)] = &[
    ("plugin.library.paths", "it loads libraries"),
    ("sasl.kerberos.kinit.cmd", "it is a shell command"),
    ("ssl.engine.location", "it loads a library"),
    ("ssl.providers", "it loads libraries"),
    ("sasl.oauthbearer.token.endpoint.url", "it calls an address that no rule of ours has looked at"),
    ("debug", "it writes what the connection carries, passwords too, into the log"),
];

/// What a librdkafka client is for. Given a property of another kind's it logs a warning at each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Metadata and administration.
    Plain,
    Producer,
    Consumer,
}

impl Role {
    /// Whether a client of this kind has a use for the property.
    #[must_use]
    pub fn knows(self, name: &str) -> bool {
        match self {
            Self::Plain => !PRODUCING.contains(&name) && !CONSUMING.contains(&name),
            Self::Producer => !CONSUMING.contains(&name),
            Self::Consumer => !PRODUCING.contains(&name),
        }
    }
}

/// Every property that may be passed through.
pub fn allowed() -> impl Iterator<Item = &'static str> {
    COMMON.iter().chain(PRODUCING).chain(CONSUMING).copied()
}

/// Why a property is not passed through.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub message: String,
    pub hint: Option<String>,
}

/// Whether a property of this name may be passed through.
///
/// # Errors
/// The reason why not, with a hint where there is one.
pub fn allow(name: &str) -> Result<(), Refusal> {
    if allowed().any(|known| known == name) {
        return Ok(());
    }
    let find = |table: &[(&str, &'static str)]| table.iter().find(|(known, _)| *known == name).map(|(_, why)| *why);
    if let Some(why) = find(OURS) {
        return Err(Refusal { message: format!("`{name}` is set by hookbridge itself"), hint: Some(why.to_owned()) });
    }
    if let Some(why) = find(DANGEROUS) {
        return Err(Refusal { message: format!("`{name}` is never passed through: {why}"), hint: None });
    }
    let hint = match nearest(name, allowed()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "docs/configuration.md lists those that are passed through".to_owned(),
    };
    Err(Refusal { message: format!("`{name}` is not passed through"), hint: Some(hint) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_property_stands_in_two_lists() {
        let mut seen = BTreeSet::new();
        let tables = OURS.iter().chain(DANGEROUS).map(|(name, _)| *name);
        for name in allowed().chain(tables) {
            assert!(seen.insert(name), "{name} stands twice");
        }
    }

    #[test]
    fn what_is_not_allowed_is_refused_with_the_reason() {
        assert_eq!(allow("sasl.password"), Ok(()));
        assert_eq!(allow("acks").unwrap_err().message, "`acks` is set by hookbridge itself");
        assert_eq!(
            allow("plugin.library.paths").unwrap_err().message,
            "`plugin.library.paths` is never passed through: it loads libraries"
        );
        assert_eq!(allow("sasl.pasword").unwrap_err().hint.unwrap(), "did you mean `sasl.password`?");
        // What was never heard of is refused as well: an allow-list, not a deny-list.
        assert_eq!(allow("x.y").unwrap_err().message, "`x.y` is not passed through");
    }
}
