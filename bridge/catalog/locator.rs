//! Where something of an event stands: in a header of the request, or in its body.

use http::HeaderName;

/// Where the id, type or time of an event is found. Written `header:<name>`, or as jq on the body (`.data.id`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locator {
    Header(HeaderName),
    /// jq text; whoever evaluates it compiles it first.
    Jq(String),
}

/// Why a text names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocatorError {
    #[error("`{text}` names no header: a header's name follows `header:`")]
    Header { text: String },
    #[error("an empty text names no place: write `header:<name>` or jq such as `.id`")]
    Empty,
}

impl Locator {
    /// # Errors
    /// If the text is empty, or what follows `header:` cannot be a header's name.
    pub fn parse(text: &str) -> Result<Self, LocatorError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(LocatorError::Empty);
        }
        // jq has no word with a colon right after it, so that this prefix cannot take a program away.
        match text.strip_prefix("header:") {
            Some(name) => HeaderName::from_bytes(name.trim().as_bytes())
                .map(Self::Header)
                .map_err(|_| LocatorError::Header { text: text.to_owned() }),
            None => Ok(Self::Jq(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_header_or_jq() {
        assert_eq!(Locator::parse("header:Webhook-Id"), Ok(Locator::Header(HeaderName::from_static("webhook-id"))));
        assert_eq!(Locator::parse(" .data.id "), Ok(Locator::Jq(".data.id".into())));
        assert_eq!(Locator::parse(" "), Err(LocatorError::Empty));
        assert!(matches!(Locator::parse("header:no such"), Err(LocatorError::Header { .. })));
        assert!(matches!(Locator::parse("header:"), Err(LocatorError::Header { .. })));
    }
}
