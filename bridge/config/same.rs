//! Whether two definitions say the same, wherever in the file each of them stands: what a reload goes by.

use super::{EventDef, EventRule, Expr, Sink, Source};

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        let Self { text, at: _ } = self;
        *text == other.text
    }
}

impl PartialEq for EventDef {
    fn eq(&self, other: &Self) -> bool {
        let Self { category, owner, version, compatibility, key, id, unknown_fields, topic, at: _ } = self;
        *category == other.category
            && *owner == other.owner
            && *version == other.version
            && *compatibility == other.compatibility
            && *key == other.key
            && *id == other.id
            && *unknown_fields == other.unknown_fields
            && *topic == other.topic
    }
}

impl PartialEq for EventRule {
    fn eq(&self, other: &Self) -> bool {
        let Self { when, event, map, at: _ } = self;
        *when == other.when && *event == other.event && *map == other.map
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            name,
            preset,
            scheme,
            secrets,
            verify_token,
            public_url,
            described,
            events,
            on_unmapped,
            on_invalid,
            deadline,
            max_steps,
            at: _,
        } = self;
        *name == other.name
            && *preset == other.preset
            && *scheme == other.scheme
            && *secrets == other.secrets
            && *verify_token == other.verify_token
            && *public_url == other.public_url
            && *described == other.described
            && *events == other.events
            && *on_unmapped == other.on_unmapped
            && *on_invalid == other.on_invalid
            && *deadline == other.deadline
            && *max_steps == other.max_steps
    }
}

impl PartialEq for Sink {
    fn eq(&self, other: &Self) -> bool {
        let Self { name, events, filter, map, purpose, guarantee, kind, at: _ } = self;
        *name == other.name
            && *events == other.events
            && *filter == other.filter
            && *map == other.map
            && *purpose == other.purpose
            && *guarantee == other.guarantee
            && *kind == other.kind
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::FakeEnvironment;
    use super::super::{Config, parse};

    const FILE: &str = "
events: { order: { category: commerce, owner: a@example.com, key: .id } }
sources:
  shop:
    preset: stripe
    secrets: [\"${SECRET}\"]
    events: [{ when: .a, event: order, map: . }]
sinks:
  rows: { type: postgres, url: \"postgres://db/x\", events: [order], table: t, where: .b }
";

    fn read(text: &str, secret: &str) -> Config {
        let environment = FakeEnvironment::new(&[("SECRET", secret)]);
        parse(Path::new("h.yaml"), text, &environment).unwrap().config
    }

    #[test]
    fn a_definition_that_only_moved_in_the_file_is_the_same() {
        let (one, other) = (read(FILE, "whsec_0123456789"), read(&format!("\n\n\n{FILE}"), "whsec_0123456789"));
        assert!(one.sources["shop"].at != other.sources["shop"].at, "it did move");
        assert!(one.sources == other.sources && one.sinks == other.sinks && one.events == other.events);
        assert_ne!(one.written.digest, other.written.digest, "of the text, whatever it means");
    }

    #[test]
    fn a_definition_that_says_something_else_is_another() {
        let one = read(FILE, "whsec_0123456789");
        assert!(one.sources != read(FILE, "whsec_9876543210").sources, "a secret counts, and is in no text");
        assert!(one.sources != read(&FILE.replace("map: .", "map: .x"), "whsec_0123456789").sources);
        assert!(one.sinks != read(&FILE.replace("where: .b", "where: .c"), "whsec_0123456789").sinks);
        assert!(one.events != read(&FILE.replace("key: .id", "key: .name"), "whsec_0123456789").events);
    }
}
