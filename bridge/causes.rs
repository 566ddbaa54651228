//! An error as one line, for logs and for messages that are one. Errors do not repeat their causes themselves.

use std::error::Error;

/// The error and its causes, the outermost first.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
