//! What a configuration may say and this version cannot do yet. `check` reads it all and warns; `run` refuses it by
//! name. Building one of these ends with the removal of its line from [`NOT_BUILT`], and of nothing else here.

/// Something that the file can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feature {
    IngestDedupe,
    EventsAll,
    SourcePreset,
    SinkHttp,
    SinkKafka,
    SinkPreset,
    Alerts,
}

/// Feature, and the work that it comes with.
const NOT_BUILT: &[(Feature, &str)] = &[
    (Feature::IngestDedupe, "deduplication at ingest"),
    (Feature::EventsAll, "several events from one request"),
    (Feature::SourcePreset, "the source catalogue"),
    (Feature::SinkHttp, "delivery over HTTP"),
    (Feature::SinkKafka, "delivery to Kafka"),
    (Feature::SinkPreset, "the sink catalogue"),
    (Feature::Alerts, "alerting"),
];

/// What to tell about `feature`, of which the user wrote `name`; `None` where it is built.
pub(super) fn message(feature: Feature, name: &str) -> Option<String> {
    let (_, work) = NOT_BUILT.iter().find(|(listed, _)| *listed == feature)?;
    Some(format!("{name} is not built yet, and `run` refuses it: it comes with {work}"))
}
