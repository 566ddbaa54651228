//! The signed timestamp of a request: where it stands, and whether now is near enough to it.

use super::Rejection;
use super::entry::{ascii, parts};
use super::place::{Place, Seen};
use crate::calendar::parse_date_time;
use crate::catalog::{FutureTolerance, Signature, Timestamp, TimestampUnit};

/// The span of time in which a request is taken.
#[derive(Debug)]
pub(super) struct Window {
    place: Place,
    prefix: Vec<u8>,
    separator: Option<u8>,
    unit: TimestampUnit,
    past_ms: i64,
    /// `None`: unlimited.
    future_ms: Option<i64>,
}

impl Window {
    /// # Errors
    /// The separator, if it is not ASCII.
    pub(super) fn compile(timestamp: &Timestamp, place: Place, signature: &Signature) -> Result<Self, char> {
        let inherited = signature.separator.filter(|_| shares_place(timestamp, signature));
        let millis = |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Ok(Self {
            place,
            prefix: timestamp.prefix.clone().into_bytes(),
            separator: timestamp.separator.or(inherited).map(ascii).transpose()?,
            unit: timestamp.unit,
            past_ms: millis(timestamp.tolerance),
            future_ms: match timestamp.tolerance_future {
                None => Some(millis(timestamp.tolerance)),
                Some(FutureTolerance::Within(span)) => Some(millis(span)),
                Some(FutureTolerance::Unlimited) => None,
            },
        })
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The timestamp's own text, which is what is signed, and the instant in milliseconds since the Unix epoch.
    /// The first entry with the prefix counts: it is the one that is signed, so that a second one changes nothing.
    pub(super) fn read<'a>(&self, seen: &'a Seen<'_>) -> Result<(&'a [u8], i64), Rejection> {
        let value = seen.at(&self.place)?;
        let text = parts(value, self.separator)
            .find_map(|part| part.strip_prefix(self.prefix.as_slice()))
            .ok_or(Rejection::MalformedTimestamp)?;
        let at_ms = match self.unit {
            TimestampUnit::S => digits(text).and_then(|seconds| seconds.checked_mul(1_000)),
            TimestampUnit::Ms => digits(text),
            TimestampUnit::Rfc3339 => rfc3339(text),
        };
        Ok((text, at_ms.ok_or(Rejection::MalformedTimestamp)?))
    }

    /// Both limits are included.
    pub(super) fn check(&self, at_ms: i64, now_ms: i64) -> Result<(), Rejection> {
        if now_ms.saturating_sub(at_ms) > self.past_ms {
            return Err(Rejection::StaleTimestamp);
        }
        match self.future_ms {
            Some(limit) if at_ms.saturating_sub(now_ms) > limit => Err(Rejection::FutureTimestamp),
            _ => Ok(()),
        }
    }
}

/// Whether the timestamp is an entry beside the signature.
pub(super) fn shares_place(timestamp: &Timestamp, signature: &Signature) -> bool {
    match (&timestamp.header, &signature.header) {
        (Some(header), Some(other)) => header.eq_ignore_ascii_case(other),
        _ => timestamp.body.is_some() && timestamp.body == signature.body,
    }
}

/// Milliseconds since the Unix epoch; finer digits are cut off.
fn rfc3339(text: &[u8]) -> Option<i64> {
    let (seconds, nanos) = parse_date_time(std::str::from_utf8(text).ok()?, true)?;
    Some(seconds * 1_000 + nanos / 1_000_000)
}

/// Digits and nothing else: no sign, no blank, no fraction, no exponent, which libraries read in different ways.
fn digits(text: &[u8]) -> Option<i64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0i64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_digits_only() {
        assert_eq!(digits(b"1614265330"), Some(1_614_265_330));
        assert_eq!(digits(b"0"), Some(0));
        for text in ["", "-1", "+1", " 1", "1 ", "1.5", "1e3", "0x1", "1_000", "\u{661}", "9223372036854775808"] {
            assert_eq!(digits(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn an_instant_as_text_has_an_offset() {
        assert_eq!(rfc3339(b"2026-01-01T00:00:00Z"), Some(1_767_225_600_000));
        assert_eq!(rfc3339(b"2026-01-01T01:00:00.1239+01:00"), Some(1_767_225_600_123));
        for text in ["", "2026-01-01", "2026-01-01T00:00:00", "1767225600", "2026-01-01T00:00:00Z ", "\u{e9}"] {
            assert_eq!(rfc3339(text.as_bytes()), None, "{text:?}");
        }
    }
}
