//! What a sink may answer, and what becomes of an event: values, not errors.

use std::time::Duration;

/// What one attempt came to, classed by what to do next and not by status code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The sink has it.
    Delivered,
    /// The sink asks for a pause; `after` where it said for how long.
    Throttled { after: Option<Duration> },
    /// It may pass later: a 5xx, a refused connection, a serialization failure.
    Transient { reason: String },
    /// This event will never pass.
    Rejected { reason: String },
    /// Nothing will pass until a person mends the sink: hold it, lose nothing.
    Misconfigured { reason: String },
    /// 401 or 403: it is the sink that has to be mended where other keys meet it too, else it is this event.
    Denied { reason: String },
    /// Sent, and no answer came: it may or may not have had its effect.
    Unknown { reason: String },
}

impl Outcome {
    /// The bounded name of the class, for metrics and logs.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Throttled { .. } => "throttled",
            Self::Transient { .. } => "transient",
            Self::Rejected { .. } => "rejected",
            Self::Misconfigured { .. } => "misconfigured",
            Self::Denied { .. } => "denied",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// What the sink said, for people; empty where the class says it all.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Delivered => "",
            Self::Throttled { .. } => "the sink asked for a pause",
            Self::Transient { reason }
            | Self::Rejected { reason }
            | Self::Misconfigured { reason }
            | Self::Denied { reason }
            | Self::Unknown { reason } => reason,
        }
    }
}

/// What a sink answered to several events that were sent together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answers {
    /// The same to all of them.
    All(Outcome),
    /// To each of them, in the order in which they were sent.
    Each(Vec<Outcome>),
}

impl Answers {
    /// The bounded name of the class, for metrics and logs: [`Outcome::class`], or `partial` where some have passed and
    /// some have not.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::All(outcome) => outcome.class(),
            Self::Each(outcomes) => match outcomes.split_first() {
                None => Outcome::Delivered.class(),
                Some((first, others)) if others.iter().all(|other| other.class() == first.class()) => first.class(),
                Some(_) => "partial",
            },
        }
    }
}

/// Every record ends in exactly one settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    Delivered,
    Skipped(SkipReason),
    /// The sink will never take it: it is a dead letter.
    Dead,
}

impl Settlement {
    /// The bounded name of the outcome, for metrics and receipts.
    #[must_use]
    pub fn outcome(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Skipped(_) => "skipped",
            Self::Dead => "dead",
        }
    }

    /// The bounded reason, empty for a delivery.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Delivered => "",
            Self::Skipped(reason) => reason.name(),
            Self::Dead => "rejected",
        }
    }
}

/// Why a record was left out on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// The event's own consent map does not say true for the sink's purpose.
    NoConsent,
    /// The sink's `where` expression was not true.
    Filtered,
    /// Another event type of the same topic, which the sink does not list under `events`.
    NotSubscribed,
    /// Its delivery id was settled before, or is parked.
    Duplicate,
}

impl SkipReason {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoConsent => "no_consent",
            Self::Filtered => "filtered",
            Self::NotSubscribed => "not_subscribed",
            Self::Duplicate => "duplicate",
        }
    }
}
