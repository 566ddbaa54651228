//! What a configuration may say and this version cannot do yet. `check` reads it all and warns; `run` refuses it by
//! name. Building one of these ends with the removal of its line from [`NOT_BUILT`], and of nothing else here.

/// Something that the file can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feature {
    SourcePreset,
    SinkPreset,
    Alerts,
}

/// Feature, and what is to be said of it.
const NOT_BUILT: &[(Feature, &str)] = &[
    (Feature::SourcePreset, "is not in the catalogue of this version"),
    (Feature::SinkPreset, "is not in the catalogue of this version"),
    (Feature::Alerts, "is not built yet: it comes with alerting"),
];

/// What to tell about `feature`, of which the user wrote `name`; `None` where it is built.
pub(super) fn message(feature: Feature, name: &str) -> Option<String> {
    let (_, what) = NOT_BUILT.iter().find(|(listed, _)| *listed == feature)?;
    Some(format!("{name} {what}; `run` refuses it"))
}
