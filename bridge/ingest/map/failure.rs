//! Why a request cannot become events, as values.

use crate::expr::{self, Limit};

/// Why a request goes to quarantine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub reason: Reason,
    /// Of the event that failed, where that was known: one that is defined, except for [`Reason::UnknownEventType`],
    /// where it is the sender's word and no label.
    pub event_type: Option<String>,
    /// For people, and without what the event holds.
    pub message: String,
    /// The mapped event, where it came that far: what its schema says of it tells more than a missing key.
    pub json: Option<String>,
}

/// The bounded names of failures, for metrics and headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    NotJson,
    NullEventType,
    UnknownEventType,
    ExpressionFailed,
    ExpressionStopped,
    OverBudget,
    TooManyResults,
    NullId,
    InvalidId,
    NullKey,
    InvalidKey,
}

impl Reason {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NullEventType => "null_event_type",
            Self::UnknownEventType => "unknown_event_type",
            Self::ExpressionFailed => "expression_failed",
            Self::ExpressionStopped => "expression_stopped",
            Self::OverBudget => "over_budget",
            Self::TooManyResults => "too_many_results",
            Self::NullId => "null_id",
            Self::InvalidId => "invalid_id",
            Self::NullKey => "null_key",
            Self::InvalidKey => "invalid_key",
        }
    }

    fn of(error: &expr::Error) -> Self {
        match error {
            expr::Error::NotJson(_) => Self::NotJson,
            expr::Error::Limit(Limit::Results | Limit::ResultBytes) => Self::TooManyResults,
            expr::Error::Limit(Limit::Event) => Self::OverBudget,
            expr::Error::Limit(_) => Self::ExpressionStopped,
            expr::Error::Failed { .. } | expr::Error::NotScalar(_) => Self::ExpressionFailed,
        }
    }
}

impl Failure {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, event_type: None, message: message.into(), json: None }
    }

    pub(super) fn expression(what: &str, error: &expr::Error) -> Self {
        Self::new(Reason::of(error), format!("{what}: {error}"))
    }
}
