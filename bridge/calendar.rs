//! The calendar: counts since 1970-01-01 into text and back. RFC 3339, and the one form of HTTP date that senders must
//! use. Proleptic Gregorian, UTC, without leap seconds, as POSIX time, RFC 3339 and PostgreSQL have it.
//!
//! Pure, and the only place that knows how long a month is.

use std::fmt;

const SECONDS_A_DAY: i64 = 86_400;
/// The calendar repeats after 400 years.
const DAYS_AN_ERA: i64 = 146_097;
/// From 0000-03-01, where an era starts, to 1970-01-01.
const EPOCH_FROM_ERA: i64 = 719_468;

/// Year, month, day of a count of days since 1970-01-01. Years start in March here, so that the leap day comes last and
/// 153 days make every five months.
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

/// The inverse of [`civil`]; `None`: there is no such day.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    let (year, march_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leap_days + (153 * march_month + 2) / 5 + day - 1 - EPOCH_FROM_ERA)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

// === Counts into text ===

/// An instant as RFC 3339 text in UTC with milliseconds: `2026-11-24T07:15:00.123Z`. Made without an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rfc3339([u8; 24]);

impl Rfc3339 {
    /// `ms`: milliseconds since the Unix epoch, taken into the years 0000 to 9999 where it lies outside.
    #[must_use]
    pub fn from_ms(ms: i64) -> Self {
        const YEAR_0: i64 = -62_167_219_200_000;
        const YEAR_9999_END: i64 = 253_402_300_799_999;
        let ms = ms.clamp(YEAR_0, YEAR_9999_END);
        let (days, in_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
        let (year, month, day) = civil(days);

        let mut text = *b"0000-00-00T00:00:00.000Z";
        put(&mut text[..4], year);
        put(&mut text[5..7], month);
        put(&mut text[8..10], day);
        put(&mut text[11..13], in_day / 3_600_000);
        put(&mut text[14..16], in_day / 60_000 % 60);
        put(&mut text[17..19], in_day / 1000 % 60);
        put(&mut text[20..23], in_day % 1000);
        Self(text)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How finely a count of time is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    pub(crate) fn per_second(self) -> i64 {
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

/// A count of days, as `2026-01-31`.
#[must_use]
pub fn date(days: i64) -> String {
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A time of day, as `13:00:00.123`.
#[must_use]
pub fn time(count: i64, unit: Unit) -> String {
    let seconds = count.div_euclid(unit.per_second());
    let fraction = count.rem_euclid(unit.per_second());
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{fraction:0digits$}", digits = unit.digits())
}

/// A date and time without a zone, as `2026-01-31T13:00:00.123`: the count is of local time.
#[must_use]
pub fn local_timestamp(count: i64, unit: Unit) -> String {
    let a_day = SECONDS_A_DAY * unit.per_second();
    format!("{}T{}", date(count.div_euclid(a_day)), time(count.rem_euclid(a_day), unit))
}

/// An instant in UTC (RFC 3339) with as many digits as the unit has, in whatever year it lies.
#[must_use]
pub fn timestamp(count: i64, unit: Unit) -> String {
    format!("{}Z", local_timestamp(count, unit))
}

// === Counts into a buffer ===
//
// The same texts, digit by digit: what is formatted costs several times as much. Counts that no clock shows, which only
// a broken producer writes, are left to the formatting.

/// Appends [`date`].
pub fn write_date(days: i64, out: &mut Vec<u8>) {
    match civil(days) {
        (year @ 0..=9_999, month, day) => {
            let mut text = *b"0000-00-00";
            put(&mut text[..4], year);
            put(&mut text[5..7], month);
            put(&mut text[8..], day);
            out.extend_from_slice(&text);
        }
        _ => out.extend_from_slice(date(days).as_bytes()),
    }
}

/// Appends [`time`].
pub fn write_time(count: i64, unit: Unit, out: &mut Vec<u8>) {
    let seconds = count.div_euclid(unit.per_second());
    if !(0..SECONDS_A_DAY).contains(&seconds) {
        return out.extend_from_slice(time(count, unit).as_bytes());
    }
    let mut text = *b"00:00:00.000000000";
    put(&mut text[..2], seconds / 3_600);
    put(&mut text[3..5], seconds / 60 % 60);
    put(&mut text[6..8], seconds % 60);
    let end = 9 + unit.digits();
    put(&mut text[9..end], count.rem_euclid(unit.per_second()));
    out.extend_from_slice(&text[..end]);
}

/// Appends [`local_timestamp`], which [`timestamp`] is too but for the `Z` behind it.
pub fn write_local_timestamp(count: i64, unit: Unit, out: &mut Vec<u8>) {
    let a_day = SECONDS_A_DAY * unit.per_second();
    write_date(count.div_euclid(a_day), out);
    out.push(b'T');
    write_time(count.rem_euclid(a_day), unit, out);
}

/// Fills `text` with the last digits of a number that is not negative.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "each digit is reduced modulo ten")]
fn put(text: &mut [u8], mut value: i64) {
    for place in text.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

// === Text into counts ===

/// Days since 1970-01-01 of `YYYY-MM-DD`.
#[must_use]
pub fn parse_date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    let [b'0'..=b'9', _, _, _, b'-', _, _, b'-', _, _] = bytes else { return None };
    let (year, month, day) = (digits(&bytes[..4])?, digits(&bytes[5..7])?, digits(&bytes[8..])?);
    i32::try_from(days(year, month, day)?).ok()
}

/// Seconds and nanoseconds since midnight of `HH:MM:SS[.fraction]`. A second of 60 is no time of day.
#[must_use]
pub fn parse_time(text: &str) -> Option<(i64, i64)> {
    clock(text.as_bytes()).filter(|(seconds, _)| *seconds < SECONDS_A_DAY && !text[6..].starts_with("60"))
}

/// Seconds and nanoseconds since 1970-01-01T00:00:00 of a date-time (RFC 3339, section 5.6). `zoned`: with an offset,
/// which is applied; otherwise one without. A leap second is the second that follows it, as POSIX time has it.
#[must_use]
pub fn parse_date_time(text: &str, zoned: bool) -> Option<(i64, i64)> {
    let bytes = text.as_bytes();
    let day = i64::from(parse_date(text.get(..10)?)?);
    // RFC 3339 lets applications write a space for the T.
    let [b'T' | b't' | b' ', rest @ ..] = &bytes[10..] else { return None };
    let (rest, offset) = if zoned { split_offset(rest)? } else { (rest, 0) };
    let (seconds, nanos) = clock(rest)?;
    let total = day * SECONDS_A_DAY + seconds - offset;
    // A leap second ends a UTC day, so what follows it is midnight.
    if rest[6..].starts_with(b"60") && total.rem_euclid(SECONDS_A_DAY) != 0 {
        return None;
    }
    Some((total, nanos))
}

/// Milliseconds since the epoch of an RFC 3339 instant; finer digits are cut off. `None`: it is not one.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let (seconds, nanos) = parse_date_time(text, true)?;
    Some(seconds * 1_000 + nanos / 1_000_000)
}

/// Seconds since the epoch of an HTTP date in the form that senders must use (RFC 9110, section 5.6.7).
/// The two obsolete forms are not read: `None`.
#[must_use]
pub fn parse_http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_weekday, rest) = text.split_once(", ")?;
    let (date, time) = rest.strip_suffix(" GMT")?.rsplit_once(' ')?;
    let [d1, d2, b' ', month @ .., b' ', y1, y2, y3, y4] = date.as_bytes() else { return None };
    let month = i64::try_from(MONTHS.iter().position(|name| name.as_bytes() == month)?).ok()? + 1;
    let days = days(digits(&[*y1, *y2, *y3, *y4])?, month, digits(&[*d1, *d2])?)?;
    match clock(time.as_bytes())? {
        // No fraction: the form has none.
        (seconds, _) if time.len() == 8 => Some(days * SECONDS_A_DAY + seconds),
        _ => None,
    }
}

fn split_offset(text: &[u8]) -> Option<(&[u8], i64)> {
    if let [rest @ .., b'Z' | b'z'] = text {
        return Some((rest, 0));
    }
    let [rest @ .., sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] = text else { return None };
    let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset = (hours * 60 + minutes) * 60;
    Some((rest, if *sign == b'-' { -offset } else { offset }))
}

/// Seconds and nanoseconds since midnight. Digits past the ninth are below a nanosecond and are cut.
fn clock(text: &[u8]) -> Option<(i64, i64)> {
    let [h1, h2, b':', m1, m2, b':', s1, s2, fraction @ ..] = text else { return None };
    let (hours, minutes, seconds) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?, digits(&[*s1, *s2])?);
    if hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    let nanos = match fraction {
        [] => 0,
        [b'.', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            let padded = digits.iter().copied().chain(std::iter::repeat(b'0'));
            padded.take(9).fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
        }
        _ => return None,
    };
    Some(((hours * 60 + minutes) * 60 + seconds, nanos))
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_instant_becomes_text_without_an_allocation() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (i64::MAX, "9999-12-31T23:59:59.999Z"),
            (i64::MIN, "0000-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(Rfc3339::from_ms(ms).as_str(), text);
        }
    }

    #[test]
    fn dates_are_days_since_1970() {
        for (text, days) in [
            ("1970-01-01", Some(0)),
            ("1969-12-31", Some(-1)),
            ("2000-02-29", Some(11_016)),
            ("2024-12-31", Some(20_088)),
            ("0000-03-01", Some(-719_468)),
            ("9999-12-31", Some(2_932_896)),
            ("2023-02-29", None),
            ("1900-02-29", None),
            ("2023-13-01", None),
            ("2023-00-10", None),
            ("2023-01-00", None),
            ("2023-1-01", None),
            ("2023-01-01T", None),
            ("+023-01-01", None),
            ("2023-01-0\u{e9}", None),
        ] {
            assert_eq!(parse_date(text), days, "{text}");
        }
    }

    #[test]
    fn date_times_follow_rfc_3339() {
        for (text, zoned, instant) in [
            ("1970-01-01T00:00:00Z", true, Some((0, 0))),
            ("1970-01-01t00:00:01.5z", true, Some((1, 500_000_000))),
            ("1970-01-01 02:00:00+02:00", true, Some((0, 0))),
            ("1969-12-31T19:00:00.000000001-05:00", true, Some((0, 1))),
            ("1969-12-31T23:59:59.999Z", true, Some((-1, 999_000_000))),
            ("1970-01-01T00:00:00.1234567899Z", true, Some((0, 123_456_789))),
            // The leap second at the end of 2016, in two zones; and one that cannot be.
            ("2016-12-31T23:59:60Z", true, Some((1_483_228_800, 0))),
            ("2017-01-01T00:59:60+01:00", true, Some((1_483_228_800, 0))),
            ("2016-12-31T12:30:60Z", true, None),
            ("1970-01-01T00:00:00", true, None),
            ("1970-01-01T00:00:00", false, Some((0, 0))),
            ("1970-01-01T00:00:00Z", false, None),
            ("1970-01-01T24:00:00Z", true, None),
            ("1970-01-01T00:60:00Z", true, None),
            ("1970-01-01T00:00:00.Z", true, None),
            ("1970-01-01T00:00Z", true, None),
            ("1970-01-01T00:00:00+24:00", true, None),
            ("1970-01-01T00:00:00+0100", true, None),
            ("1970-01-01", true, None),
            ("1970-01-0\u{20ac}", true, None),
            ("", true, None),
        ] {
            assert_eq!(parse_date_time(text, zoned), instant, "{text}");
        }
    }

    #[test]
    fn times_of_day_end_before_midnight() {
        for (text, instant) in [
            ("00:00:00", Some((0, 0))),
            ("23:59:59.999999", Some((86_399, 999_999_000))),
            ("23:59:60", None),
            ("24:00:00", None),
            ("12:00", None),
            ("12:00:00Z", None),
            ("1\u{e9}:00:00", None),
        ] {
            assert_eq!(parse_time(text), instant, "{text}");
        }
    }

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
            let text = timestamp(millis, Unit::Millis);
            prop_assert_eq!(parse_rfc3339(&text), Some(millis));
            prop_assert_eq!(Rfc3339::from_ms(millis).to_string(), text);
        }

        #[test]
        fn what_is_appended_is_what_is_formatted(count in any::<i64>(), shift in 0_u32..64, unit in 0_usize..3) {
            let unit = [Unit::Millis, Unit::Micros, Unit::Nanos][unit];
            // Of every magnitude.
            let count = count >> shift;
            let appended = |write: &dyn Fn(&mut Vec<u8>)| {
                let mut out = Vec::new();
                write(&mut out);
                String::from_utf8(out).unwrap()
            };
            prop_assert_eq!(appended(&|out| write_time(count, unit, out)), time(count, unit));
            prop_assert_eq!(appended(&|out| write_local_timestamp(count, unit, out)), local_timestamp(count, unit));
            let days = i64::from(i32::try_from(count >> 32).unwrap());
            prop_assert_eq!(appended(&|out| write_date(days, out)), date(days));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC*") {
            let _ = parse_rfc3339(&text);
            let _ = parse_http_date(&text);
            let _ = (parse_date(&text), parse_time(&text), parse_date_time(&text, false));
        }
    }
}
