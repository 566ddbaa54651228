//! The signed timestamp of a request: where it stands, and whether now is near enough to it.

use http::{HeaderMap, HeaderName};

use super::entry::{ascii, parts};
use super::{Rejection, single};
use crate::catalog::{FutureTolerance, Signature, Timestamp, TimestampUnit};

/// The span of time in which a request is taken.
#[derive(Debug)]
pub(super) struct Window {
    header: HeaderName,
    prefix: Vec<u8>,
    separator: Option<u8>,
    /// Milliseconds of one unit.
    unit_ms: i64,
    past_ms: i64,
    /// `None`: unlimited.
    future_ms: Option<i64>,
}

impl Window {
    /// # Errors
    /// The separator, if it is not ASCII.
    pub(super) fn compile(timestamp: &Timestamp, header: HeaderName, signature: &Signature) -> Result<Self, char> {
        let same_header = timestamp.header.eq_ignore_ascii_case(&signature.header);
        let inherited = signature.separator.filter(|_| same_header);
        let millis = |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Ok(Self {
            header,
            prefix: timestamp.prefix.clone().into_bytes(),
            separator: timestamp.separator.or(inherited).map(ascii).transpose()?,
            unit_ms: unit_ms(timestamp.unit),
            past_ms: millis(timestamp.tolerance),
            future_ms: match timestamp.tolerance_future {
                None => Some(millis(timestamp.tolerance)),
                Some(FutureTolerance::Within(span)) => Some(millis(span)),
                Some(FutureTolerance::Unlimited) => None,
            },
        })
    }

    pub(super) fn header(&self) -> &HeaderName {
        &self.header
    }

    /// The timestamp's own text, which is what is signed, and the instant in milliseconds since the Unix epoch.
    /// The first entry with the prefix counts: it is the one that is signed, so that a second one changes nothing.
    pub(super) fn read<'a>(&self, headers: &'a HeaderMap) -> Result<(&'a [u8], i64), Rejection> {
        let value = single(headers, &self.header)?;
        let text = parts(value, self.separator)
            .find_map(|part| part.strip_prefix(self.prefix.as_slice()))
            .ok_or(Rejection::MalformedTimestamp)?;
        let at_ms = digits(text).and_then(|number| number.checked_mul(self.unit_ms));
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

pub(super) fn unit_ms(unit: TimestampUnit) -> i64 {
    match unit {
        TimestampUnit::S => 1_000,
        TimestampUnit::Ms => 1,
    }
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
}
