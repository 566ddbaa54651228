//! Quantities as people write them: durations (`4500ms`, `30s`, `24h`, `30d`), sizes (`512KiB`, `1MiB`) and rates
//! (`200/s`, `10/5m`).
//!
//! The messages do not repeat the text that was read: whether it may be shown is for the caller to know.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Reads a duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
///
/// # Errors
/// A clause that says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let number: u64 =
        number.parse().map_err(|_| "is not a duration such as `4500ms`, `30s`, `5m`, `24h`, `30d`".to_owned())?;
    duration_of(number, unit)
}

fn duration_of(number: u64, unit: &str) -> Result<Duration, String> {
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("needs a unit: `ms`, `s`, `m`, `h` or `d`".to_owned()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| "is too long".to_owned())
}

/// Reads a size in bytes: a whole number and one of `B`, `KiB`, `MiB`, `GiB`, or `KB`, `MB`, `GB` (powers of ten).
///
/// # Errors
/// A clause that says what was expected.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let number: usize = number.parse().map_err(|_| "is not a size such as `512KiB`, `1MiB`, `2GiB`".to_owned())?;
    let bytes = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err("needs a unit: `B`, `KiB`, `MiB`, `GiB`, `KB`, `MB` or `GB`".to_owned()),
    };
    number.checked_mul(bytes).ok_or_else(|| "is too large".to_owned())
}

/// So many in so long a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub count: NonZeroU32,
    /// Longer than nothing.
    pub per: Duration,
}

/// Reads a rate: a whole number, `/`, and a duration whose number may be left out: `200/s`, `10/5m`.
///
/// # Errors
/// A clause that says what was expected.
pub fn parse_rate(text: &str) -> Result<Rate, String> {
    let wrong = || "is not a rate such as `200/s` or `10/5m`".to_owned();
    let (count, per) = text.split_once('/').ok_or_else(wrong)?;
    let count = plain_digits(count.trim()).parse().map_err(|_| wrong())?;
    let (number, unit) = split(per.trim());
    let number = if number.is_empty() { 1 } else { number.parse().map_err(|_| wrong())? };
    let per = duration_of(number, unit)?;
    if per.is_zero() { Err(wrong()) } else { Ok(Rate { count, per }) }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, show_duration(self.per))
    }
}

/// A duration as a person would write it, in the largest unit that loses nothing.
pub(crate) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.into_iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// A size as a person would write it, in the largest unit that loses nothing.
pub(super) fn show_size(bytes: usize) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// The digits of a number that may be grouped with `_`.
pub(super) fn plain_digits(text: &str) -> String {
    text.chars().filter(|&c| c != '_').collect()
}

fn split(text: &str) -> (String, &str) {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    (plain_digits(number), unit.trim())
}

/// For serde's `deserialize_with`.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(|error| serde::de::Error::custom(format!("`{text}` {error}")))
}

/// For serde's `deserialize_with`, where the key may be left out.
pub(crate) fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_sizes_and_rates_read_as_people_write_them() {
        assert_eq!(parse_duration("4500ms"), Ok(Duration::from_millis(4500)));
        assert_eq!(parse_duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_duration("10_000 s"), Ok(Duration::from_secs(10_000)));
        assert_eq!(parse_size("1MiB"), Ok(1 << 20));
        assert_eq!(parse_size("10KB"), Ok(10_000));
        let rate = |count, seconds| Rate { count: NonZeroU32::new(count).unwrap(), per: Duration::from_secs(seconds) };
        assert_eq!(parse_rate("200/s"), Ok(rate(200, 1)));
        assert_eq!(parse_rate("10/5m"), Ok(rate(10, 300)));
        assert_eq!(parse_rate("1_000 / 2h"), Ok(rate(1_000, 7_200)));
        assert_eq!(show_duration(Duration::from_millis(4500)), "4500ms");
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
        assert_eq!(show_duration(Duration::from_secs(86_400)), "1d");
        assert_eq!(show_duration(Duration::ZERO), "0ms");
        assert_eq!(show_size(1 << 20), "1MiB");
        assert_eq!(show_size(1_000), "1000B");
        for bad in ["", "s", "10", "10 parsecs", "99999999999999999999s", "18446744073709551615d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        for bad in ["", "MiB", "1XB", "99999999999999999GiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        for bad in ["", "/", "200", "0/s", "200/", "200/0s", "200/week", "-1/s"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }
}
