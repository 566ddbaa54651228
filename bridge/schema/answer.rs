//! Reads the errors of schema_registry_converter: which of them mean no, and which mean not now.

use std::error::Error as StdError;

use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::RawError;

/// What an error of schema_registry_converter means.
pub(super) enum Answer {
    Absent,
    Refused { code: u32, message: String },
    Unavailable,
}

impl Answer {
    /// The registry's own error code, wherever it is in the chain of causes.
    /// The first digits of a Confluent code are the HTTP status; some answers carry the status alone.
    pub(super) fn of(error: &SRCError) -> Self {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        let mut status = None;
        while let Some(error) = cause {
            if let Some(of_call) = error.downcast_ref::<SRCError>() {
                status = status.or_else(|| http_status(&of_call.error));
            }
            if let Some(RawError { error_code, message, .. }) = error.downcast_ref::<RawError>() {
                return match error_code {
                    404 | 40401..=40403 => Self::Absent,
                    // No registry's error at all: a proxy's page, or another server. Only a login's is final.
                    0 => match status {
                        Some(status @ (401 | 403)) => {
                            Self::Refused { code: status, message: "the login is not accepted".to_owned() }
                        }
                        _ => Self::Unavailable,
                    },
                    429 | 42900..=42999 | 500..=599 | 50000..=59999 => Self::Unavailable,
                    code => Self::Refused { code: *code, message: message.clone() },
                };
            }
            cause = error.source();
        }
        Self::Unavailable
    }
}

/// schema_registry_converter keeps the HTTP status in its message only.
fn http_status(message: &str) -> Option<u32> {
    message.split_once("with status ")?.1.get(..3)?.parse().ok()
}

/// The error and its causes, once each: the libraries repeat theirs.
pub(super) fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.downcast_ref::<SRCError>().map_or_else(|| error.to_string(), |error| error.error.clone());
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        cause = error.source();
    }
    parts.join(": ")
}
