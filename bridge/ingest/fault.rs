//! Why an authentic request, or an event of it, is no event that a topic may hold.

use super::answer::{Violations, Wrong};
use super::map::Failure;
use super::split;
use crate::schema::plan::Refused;

/// What is wrong, and how much of it there is.
#[derive(Debug)]
pub(super) struct Fault {
    /// Bounded: a name of ours.
    pub(super) reason: &'static str,
    /// The first hundred things that are wrong; at least one, until they are cut for the sake of a whole request.
    pub(super) wrongs: Vec<Wrong>,
    /// How many there are.
    pub(super) total: usize,
    /// Where it was known already.
    pub(super) event_id: Option<String>,
}

impl Fault {
    /// A fault of the whole event.
    fn new(reason: &'static str, message: String) -> Self {
        let wrongs = vec![Wrong { index: None, pointer: String::new(), reason, message }];
        Self { reason, wrongs, total: 1, event_id: None }
    }

    pub(super) fn unmapped() -> Self {
        Self::new("unmapped", "no rule of the source takes this request".to_owned())
    }

    pub(super) fn undefined(event_type: &str) -> Self {
        Self::new("unknown_event_type", format!("the event type `{event_type}` is not defined under `events:`"))
    }

    /// An event that no record can hold. Kafka would refuse it again whenever it came.
    pub(super) fn too_large(bytes: usize, limit: usize) -> Self {
        Self::new("event_too_large", format!("the event has {bytes} bytes as Avro, and {limit} are taken"))
    }

    pub(super) fn too_many_events() -> Self {
        let error = split::Error::TooMany;
        Self::new(error.reason(), error.to_string())
    }

    pub(super) fn of_mapping(failure: Failure) -> Self {
        Self::new(failure.reason.name(), failure.message)
    }

    pub(super) fn of_split(error: &split::Error) -> Self {
        Self::new(error.reason(), error.to_string())
    }

    pub(super) fn of_schema(refused: Refused, event_id: Option<String>) -> Self {
        let reason = match &refused {
            Refused::NotJson { .. } => "not_json",
            Refused::TooDeep { .. } => "too_deep",
            Refused::Invalid(_) => "invalid",
        };
        let violations = refused.into_violations();
        let wrongs = violations.first.into_iter().map(|violation| Wrong {
            index: None,
            pointer: violation.pointer,
            reason: violation.reason.name(),
            message: violation.message,
        });
        Self { reason, wrongs: wrongs.collect(), total: violations.total, event_id }
    }

    /// Of several results of one event, whatever is wrong with any of them; the first names the reason.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.wrongs.extend(other.wrongs);
        self.total += other.total;
        self
    }

    /// Notes which event of the request it is, and keeps only the first `most` wrongs.
    pub(super) fn of_event(&mut self, index: Option<usize>, most: usize) {
        self.wrongs.truncate(most);
        self.wrongs.iter_mut().for_each(|wrong| wrong.index = index);
    }

    /// Whether nothing could be read of it, so that it is not known whether it would be valid.
    pub(super) fn is_unreadable(&self) -> bool {
        matches!(self.reason, "not_json" | "too_deep" | "no_form_field")
    }

    /// Whether it is nobody's event, which `on_unmapped` decides about, rather than an invalid one.
    pub(super) fn is_unmapped(&self) -> bool {
        self.reason == "unmapped"
    }

    pub(super) fn violations(&self) -> Violations<'_> {
        Violations { violations: &self.wrongs, violations_total: self.total }
    }
}
