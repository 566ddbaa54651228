//! Times as text: RFC 3339 out of Avro's counts since the epoch, and back from headers.
//! Proleptic Gregorian calendar, UTC, no leap seconds, as RFC 3339 and PostgreSQL have it.

const SECONDS_A_DAY: i64 = 86_400;
/// The Gregorian calendar repeats after 400 years.
const DAYS_AN_ERA: i64 = 146_097;
/// From 0000-03-01, where an era starts, to 1970-01-01.
const EPOCH_FROM_ERA: i64 = 719_468;

/// Year, month, day of a count of days since 1970-01-01. Years start in March here, so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + EPOCH_FROM_ERA;
    let era = shifted.div_euclid(DAYS_AN_ERA);
    let day_of_era = shifted.rem_euclid(DAYS_AN_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let march_month = (month + 9) % 12;
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    era * DAYS_AN_ERA + 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year - EPOCH_FROM_ERA
}

/// A day, as `2026-01-31`.
pub(crate) fn date(days: i64) -> String {
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// How finely a count of time is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    fn a_second(self) -> i64 {
        match self {
            Self::Millis => 1_000,
            Self::Micros => 1_000_000,
            Self::Nanos => 1_000_000_000,
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Millis => 3,
            Self::Micros => 6,
            Self::Nanos => 9,
        }
    }
}

/// A time of day, as `13:00:00.123`.
pub(crate) fn time(count: i64, unit: Unit) -> String {
    let seconds = count.div_euclid(unit.a_second());
    let fraction = count.rem_euclid(unit.a_second());
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{fraction:0digits$}", digits = unit.digits())
}

/// A date and time without a zone, as `2026-01-31T13:00:00.123`: the count is of local time.
pub(crate) fn local_timestamp(count: i64, unit: Unit) -> String {
    let a_day = SECONDS_A_DAY * unit.a_second();
    format!("{}T{}", date(count.div_euclid(a_day)), time(count.rem_euclid(a_day), unit))
}

/// An instant in UTC (RFC 3339), as `2026-01-31T13:00:00.123Z`, with as many digits as the unit has.
pub(crate) fn timestamp(count: i64, unit: Unit) -> String {
    format!("{}Z", local_timestamp(count, unit))
}

/// Milliseconds since the epoch of an RFC 3339 instant; finer digits are cut off. `None`: it is not one.
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let fixed = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if bytes.len() < 20 || !text.is_ascii() || fixed.iter().any(|(at, byte)| bytes[*at] != *byte) {
        return None;
    }
    if !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (number(&text[0..4])?, number(&text[5..7])?, number(&text[8..10])?);
    let (hour, minute, second) = (number(&text[11..13])?, number(&text[14..16])?, number(&text[17..19])?);
    let seconds = instant(year, month, day, hour, minute, second)?;

    let mut rest = &text[19..];
    let mut millis = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        for place in 0..3 {
            millis = millis * 10 + fraction.as_bytes()[..digits].get(place).map_or(0, |digit| i64::from(digit - b'0'));
        }
        rest = &fraction[digits..];
    }
    Some((seconds - zone_offset(rest)?) * 1_000 + millis)
}

/// Seconds east of UTC.
fn zone_offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match zone.as_bytes().first()? {
        b'+' => (1, &zone[1..]),
        b'-' => (-1, &zone[1..]),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    Some(sign * (number(hours)? * 3_600 + number(minutes)? * 60))
}

/// Seconds since the epoch of an HTTP date in the form that senders must use (RFC 9110, section 5.6.7).
/// The two obsolete forms are not read: `None`.
pub(crate) fn parse_http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_weekday, rest) = text.split_once(", ")?;
    let mut parts = rest.split(' ');
    let day = number(parts.next()?)?;
    let name = parts.next()?;
    let month = i64::try_from(MONTHS.iter().position(|month| *month == name)?).ok()? + 1;
    let year = number(parts.next()?)?;
    let mut clock = parts.next()?.split(':');
    let (hour, minute, second) = (number(clock.next()?)?, number(clock.next()?)?, number(clock.next()?)?);
    if parts.next() != Some("GMT") || clock.next().is_some() {
        return None;
    }
    instant(year, month, day, hour, minute, second)
}

fn instant(year: i64, month: i64, day: i64, hour: i64, minute: i64, second: i64) -> Option<i64> {
    let days = days_of(year, month, day);
    // A day that the month does not have comes back as another one. Second 60 is a leap second and allowed.
    if !(1..=12).contains(&month) || civil(days) != (year, month, day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days * SECONDS_A_DAY + hour * 3_600 + minute * 60 + second)
}

/// Digits only: no sign, no blanks, at most as many as a year has.
fn number(text: &str) -> Option<i64> {
    if text.is_empty() || text.len() > 4 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_become_text_with_the_digits_of_their_unit() {
        for (count, unit, expected) in [
            (0, Unit::Millis, "1970-01-01T00:00:00.000Z"),
            (1_767_225_600_123, Unit::Millis, "2026-01-01T00:00:00.123Z"),
            (951_782_399_999_999, Unit::Micros, "2000-02-28T23:59:59.999999Z"),
            (951_782_400_000_000, Unit::Micros, "2000-02-29T00:00:00.000000Z"),
            (-1, Unit::Millis, "1969-12-31T23:59:59.999Z"),
            (1, Unit::Nanos, "1970-01-01T00:00:00.000000001Z"),
        ] {
            assert_eq!(timestamp(count, unit), expected);
        }
        assert_eq!(date(-1), "1969-12-31");
        assert_eq!(time(86_399_999, Unit::Millis), "23:59:59.999");
    }

    #[test]
    fn the_ends_of_a_count_do_not_panic() {
        for unit in [Unit::Millis, Unit::Micros, Unit::Nanos] {
            for count in [i64::MIN, i64::MAX] {
                assert!(!timestamp(count, unit).is_empty());
            }
        }
        assert!(!date(i64::from(i32::MIN)).is_empty());
    }

    #[test]
    fn instants_are_read_with_their_zone() {
        for (text, expected) in [
            ("2026-01-01T00:00:00Z", Some(1_767_225_600_000)),
            ("2026-01-01T01:30:00.5+01:30", Some(1_767_225_600_500)),
            ("2025-12-31T23:00:00.123456-01:00", Some(1_767_225_600_123)),
            ("2026-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-01-01T24:00:00Z", None),
            ("2026-01-01T00:00:00", None),
            ("2026-01-01T00:00:00.Z", None),
            ("2026-01-01T00:00:00+1:00", None),
            ("yesterday, at about noon", None),
            ("２０２６-01-01T00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(parse_rfc3339(text), expected, "{text}");
        }
    }

    #[test]
    fn http_dates_are_read_in_the_form_that_senders_must_use() {
        assert_eq!(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse_http_date("Sunday, 06-Nov-94 08:49:37 GMT"), None);
        assert_eq!(parse_http_date("120"), None);
    }

    proptest! {
        #[test]
        fn an_instant_written_is_the_instant_read(millis in -62_135_596_800_000_i64..253_402_300_799_999) {
            prop_assert_eq!(parse_rfc3339(&timestamp(millis, Unit::Millis)), Some(millis));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC*") {
            let _ = parse_rfc3339(&text);
            let _ = parse_http_date(&text);
        }
    }
}
