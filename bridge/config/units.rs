//! Durations and sizes as people write them: `4500ms`, `30s`, `24h`, `30d`; `512KiB`, `1MiB`.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Reads a duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a duration such as `4500ms`, `30s`, `5m`, `24h`, `30d`"))?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("`{text}` needs a unit: `ms`, `s`, `m`, `h` or `d`")),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| format!("`{text}` is too long"))
}

/// Reads a size in bytes: a whole number and one of `B`, `KiB`, `MiB`, `GiB`, or `KB`, `MB`, `GB` (powers of ten).
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let number: usize =
        number.parse().map_err(|_| format!("`{text}` is not a size such as `512KiB`, `1MiB`, `2GiB`"))?;
    let bytes = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(format!("`{text}` needs a unit: `B`, `KiB`, `MiB`, `GiB`, `KB`, `MB` or `GB`")),
    };
    number.checked_mul(bytes).ok_or_else(|| format!("`{text}` is too large"))
}

fn split(text: &str) -> (&str, &str) {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    (number, unit.trim())
}

/// For serde's `deserialize_with`.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

/// For serde's `deserialize_with`, where the key may be left out.
pub(crate) fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_as_people_write_them() {
        assert_eq!(parse_duration("4500ms"), Ok(Duration::from_millis(4500)));
        assert_eq!(parse_duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_size("1MiB"), Ok(1 << 20));
        assert_eq!(parse_size("10KB"), Ok(10_000));
        for bad in ["", "s", "10", "10 parsecs", "99999999999999999999s", "18446744073709551615d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        for bad in ["", "MiB", "1XB", "99999999999999999GiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
