//! The catalogue: sources (and later sinks) described as data, one YAML file a provider.
//! A preset is the same description that a private source writes in its own section; docs/sources.md explains it.

mod locator;
mod sample;
mod signature;
mod source;

use std::path::Path;

use crate::config;
pub use locator::{Locator, LocatorError};
pub use sample::{Occasion, Sample, samples};
pub use signature::*;
pub use source::*;

/// The presets, in the order of their names: name, YAML.
const SOURCES: &[(&str, &str)] = &[
    ("github", include_str!("sources/github.yaml")),
    ("hubspot", include_str!("sources/hubspot.yaml")),
    ("mailgun", include_str!("sources/mailgun.yaml")),
    ("meta", include_str!("sources/meta.yaml")),
    ("paddle", include_str!("sources/paddle.yaml")),
    ("segment", include_str!("sources/segment.yaml")),
    ("sendgrid", include_str!("sources/sendgrid.yaml")),
    ("shopify", include_str!("sources/shopify.yaml")),
    ("slack", include_str!("sources/slack.yaml")),
    ("square", include_str!("sources/square.yaml")),
    ("standard-webhooks", include_str!("sources/standard-webhooks.yaml")),
    ("stripe", include_str!("sources/stripe.yaml")),
    ("typeform", include_str!("sources/typeform.yaml")),
    ("zendesk", include_str!("sources/zendesk.yaml")),
];

/// Why there is no such preset.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no preset `{name}`; there are {}", preset_names().collect::<Vec<_>>().join(", "))]
    UnknownPreset { name: String },
    /// Unreachable in a release: the tests read every file of the catalogue.
    #[error("preset `{name}` does not describe a source")]
    NotASource {
        name: &'static str,
        #[source]
        source: config::Problems,
    },
    /// Likewise.
    #[error("the samples of preset `{name}` cannot be read")]
    NoSamples {
        name: &'static str,
        #[source]
        source: serde_json::Error,
    },
}

/// The names of all presets, sorted.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().map(|(name, _)| *name)
}

/// Reads a preset. Meant for start and reload: it parses each time.
///
/// # Errors
/// [`Error::UnknownPreset`], whose text lists the names that there are.
pub fn preset(name: &str) -> Result<SourceScheme, Error> {
    let Some(&(name, text)) = SOURCES.iter().find(|(known, _)| *known == name) else {
        return Err(Error::UnknownPreset { name: name.to_owned() });
    };
    config::description(Path::new(name), text).map_err(|source| Error::NotASource { name, source })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::expr::{Json, Program};

    #[test]
    fn every_file_of_the_catalogue_is_listed_and_describes_a_source() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bridge/catalog/sources");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(files, preset_names().map(str::to_owned).collect());
        for name in preset_names() {
            let scheme = preset(name).unwrap();
            assert!(!scheme.signature.is_empty() && scheme.docs.is_some(), "{name}");
            for text in scheme.event_id.iter().chain(&scheme.event_type).chain(&scheme.event_time) {
                if let Locator::Jq(text) = Locator::parse(text).unwrap() {
                    Program::compile(&text).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
                }
            }
            assert!(!scheme.event_id.is_empty() && !scheme.event_type.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_description_says_what_it_is_or_is_refused() {
        for text in [
            "event_id: !tag x",
            "event_id: &a x",
            "event_idd: x",
            "ack_limit: 3",
            "event_id: [",
            "",
            "--- a\n--- b\n",
            "docs: \"${HOME}\"",
        ] {
            assert!(config::description::<SourceScheme>(Path::new("x"), text).is_err(), "{text}");
        }
        let one_or_many: SourceScheme =
            config::description(Path::new("x"), "event_id: [.a, .b]\nevent_time: .c").unwrap();
        assert_eq!((one_or_many.event_id, one_or_many.event_time), (vec![".a".into(), ".b".into()], vec![".c".into()]));
    }

    #[test]
    fn ids_are_composed_where_a_provider_has_none_of_its_own() {
        let id = |name: &str, event: &str| {
            let text = preset(name).unwrap().event_id.remove(0);
            Program::compile(&text).unwrap().scalar(&Json::new(event.as_bytes()).unwrap()).unwrap()
        };
        let event = r#"{"eventId":1,"subscriptionId":12,"portalId":62515,"occurredAt":1564113600000,"objectId":123}"#;
        assert_eq!(id("hubspot", event).as_deref(), Some("62515:12:1:123:1564113600000"));
        assert_eq!(id("hubspot", r#"{"vid":1}"#), None);
    }

    #[test]
    fn an_unknown_preset_is_answered_with_the_names_that_there_are() {
        let message = preset("strip").unwrap_err().to_string();
        let names = preset_names().collect::<Vec<_>>().join(", ");
        assert_eq!(message, format!("there is no preset `strip`; there are {names}"));
        assert!(names.starts_with("github, hubspot") && preset_names().is_sorted(), "{names}");
    }
}
