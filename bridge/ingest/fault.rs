//! Why an authentic request, or an event of it, is no event that a topic may hold.

use serde::Serialize;

use super::answer::{Violations, Wrong};
use super::map::Failure;
use super::split;
use crate::schema::plan::Refused;

/// Bytes of the violations in a quarantine record's header: with the indices and the original headers they fit into the
/// 256 KiB that records have beside a body. A hundred take some 20 KiB; only pointers full of escapes take more.
const MAX_VIOLATIONS_BYTES: usize = 128 * 1024;
/// The reason of a request whose events are at fault for different ones.
const MIXED: &str = "mixed";

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

/// What is wrong with a request: each event that is at fault, by its place in the request.
pub(super) struct Faults<'f> {
    /// At least one, in order.
    pub(super) list: &'f [(usize, Fault)],
    /// How many events the request has; `None` where it could not be told.
    pub(super) events: Option<usize>,
}

impl Faults<'_> {
    /// The reason that all have, else `mixed`.
    pub(super) fn reason(&self) -> &'static str {
        let mut reasons = self.list.iter().map(|(_, fault)| fault.reason);
        let first = reasons.next().unwrap_or(MIXED);
        if reasons.all(|reason| reason == first) { first } else { MIXED }
    }

    /// The event's id, where there is no other event.
    pub(super) fn event_id(&self) -> Option<&str> {
        match self.list {
            [(_, fault)] if self.events == Some(1) => fault.event_id.as_deref(),
            _ => None,
        }
    }

    /// `[1,4]`.
    pub(super) fn failed_json(&self) -> Vec<u8> {
        let failed: Vec<usize> = self.list.iter().map(|(index, _)| *index).collect();
        // Numbers always serialize.
        serde_json::to_vec(&failed).unwrap_or_default()
    }

    /// `{"total": n, "violations": [...]}`, with as many as [`MAX_VIOLATIONS_BYTES`] hold.
    pub(super) fn violations_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Header<'a> {
            total: usize,
            violations: &'a [&'a Wrong],
        }
        let total = self.list.iter().map(|(_, fault)| fault.total).sum();
        let mut all: Vec<&Wrong> = self.list.iter().flat_map(|(_, fault)| &fault.wrongs).collect();
        loop {
            // Text and numbers always serialize.
            let json = serde_json::to_vec(&Header { total, violations: &all }).unwrap_or_default();
            if json.len() <= MAX_VIOLATIONS_BYTES || all.is_empty() {
                return json;
            }
            all.truncate(all.len() / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn faults(reasons: &[&'static str]) -> Vec<(usize, Fault)> {
        let fault = |(at, &reason): (usize, &&'static str)| {
            let mut fault = Fault { event_id: Some("id".to_owned()), ..Fault::new(reason, "what".to_owned()) };
            fault.of_event(Some(3 * at), 100);
            (3 * at, fault)
        };
        reasons.iter().enumerate().map(fault).collect()
    }

    fn violations(faults: &Faults<'_>) -> Value {
        serde_json::from_slice(&faults.violations_json()).unwrap()
    }

    #[test]
    fn a_quarantined_request_tells_which_events_are_at_fault_and_why() {
        let list = faults(&["invalid", "invalid", "null_key"]);
        let all = Faults { list: &list, events: Some(9) };
        assert_eq!((all.reason(), all.event_id(), all.failed_json()), ("mixed", None, b"[0,3,6]".to_vec()));
        let told = violations(&all);
        assert_eq!(told["total"], json!(3));
        let second = json!({"index": 3, "pointer": "", "reason": "invalid", "message": "what"});
        assert_eq!(told["violations"][1], second);

        assert_eq!(Faults { list: &list[..2], events: Some(9) }.reason(), "invalid");
        assert_eq!(Faults { list: &list[..1], events: Some(1) }.event_id(), Some("id"));
        assert_eq!(Faults { list: &list[..1], events: Some(2) }.event_id(), None, "the others are in the request too");
        assert_eq!(Faults { list: &list[..1], events: None }.event_id(), None);
    }

    #[test]
    fn the_violations_of_a_header_are_bounded_in_bytes_and_their_number_is_told() {
        let mut list = faults(&["invalid"; 100]);
        for (_, fault) in &mut list {
            fault.wrongs[0].pointer = "\u{1}".repeat(512);
        }
        let all = Faults { list: &list, events: Some(300) };
        assert!(all.violations_json().len() <= MAX_VIOLATIONS_BYTES);
        let told = violations(&all);
        assert_eq!(told["total"], json!(100));
        assert!(told["violations"].as_array().unwrap().len() > 20, "{told}");
    }

    #[test]
    fn results_of_one_event_are_at_fault_together_and_a_request_shows_so_many() {
        let [(_, first), (_, second)]: [_; 2] = faults(&["invalid", "null_key"]).try_into().unwrap();
        let mut both = first.and(second);
        assert_eq!((both.reason, both.total, both.wrongs.len()), ("invalid", 2, 2));
        both.of_event(Some(7), 1);
        assert_eq!((both.total, both.wrongs.len(), both.wrongs[0].index), (2, 1, Some(7)));
    }
}
