//! The source's word for when an event happened, as RFC 3339.

use crate::calendar::{self, Rfc3339};

/// Numbers above it are milliseconds: in seconds it is the year 5138, in milliseconds March 1973.
const MILLISECONDS_FROM: f64 = 100_000_000_000.0;
/// 9999-12-31T23:59:59.999Z, the last instant that RFC 3339 can write, in milliseconds.
const LAST: f64 = 253_402_300_799_999.0;

/// Bytes of the longest RFC 3339 text that is kept, which has nanoseconds and an offset: it becomes a header.
const LONGEST: usize = "2025-12-31T23:59:59.999999999+00:00".len();

/// RFC 3339 text is kept as it is; a number is seconds, or milliseconds where seconds would be far in the future.
/// Anything else is no time.
pub(in crate::ingest) fn rfc3339(word: &str) -> Option<String> {
    if is_rfc3339(word) {
        return Some(word.to_owned());
    }
    let number: f64 = word
        .parse()
        .ok()
        .filter(|number: &f64| word.bytes().all(|b| b.is_ascii_digit() || b == b'.') && number.is_finite())?;
    let milliseconds = if number < MILLISECONDS_FROM { number * 1000.0 } else { number };
    #[allow(clippy::cast_possible_truncation, reason = "within the calendar")]
    (milliseconds <= LAST).then(|| format(milliseconds.round() as i64))
}

/// Whole seconds without a fraction.
fn format(milliseconds: i64) -> String {
    let text = Rfc3339::from_ms(milliseconds);
    match text.as_str().strip_suffix(".000Z") {
        Some(whole) => format!("{whole}Z"),
        None => text.to_string(),
    }
}

/// With a T: CloudEvents readers need not take the blank that RFC 3339 lets people write for it.
fn is_rfc3339(text: &str) -> bool {
    text.len() <= LONGEST && !text.contains(' ') && calendar::parse_date_time(text, true).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_or_counted() {
        for (word, time) in [
            ("1767225590", Some("2025-12-31T23:59:50Z")),
            ("1767225590123", Some("2025-12-31T23:59:50.123Z")),
            ("1767225590.5", Some("2025-12-31T23:59:50.500Z")),
            ("0", Some("1970-01-01T00:00:00Z")),
            ("951782400", Some("2000-02-29T00:00:00Z")),
            ("4107542400", Some("2100-03-01T00:00:00Z")),
            ("2025-12-31T23:59:50Z", Some("2025-12-31T23:59:50Z")),
            ("2025-12-31T23:59:50.123456+02:00", Some("2025-12-31T23:59:50.123456+02:00")),
            ("2025-12-31", None),
            ("2025-13-31T23:59:50Z", None),
            ("2025-02-29T23:59:50Z", None),
            ("2025-12-31 23:59:50Z", None),
            ("2025-12-31T23:59:50.1234567890+00:00", None),
            ("2025-12-31T24:59:50Z", None),
            ("2025-12-31T23:59:50", None),
            ("2025-12-31T23:59:50.Z", None),
            ("2025-12-31T23:59:50+0200", None),
            ("99999999999999999999", None),
            ("-1", None),
            ("inf", None),
            ("1e9", None),
            ("Wed, 31 Dec 2025", None),
            ("", None),
        ] {
            assert_eq!(rfc3339(word).as_deref(), time, "{word}");
        }
    }
}
