//! Dates and times written as text: RFC 3339, section 5.6, and its parts on their own.

/// Days since 1970-01-01 of `YYYY-MM-DD`.
pub(super) fn date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    let [b'0'..=b'9', _, _, _, b'-', _, _, b'-', _, _] = bytes else { return None };
    let (year, month, day) = (digits(&bytes[..4])?, digits(&bytes[5..7])?, digits(&bytes[8..])?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    i32::try_from(days(year, month, day)).ok()
}

/// Seconds and nanoseconds since midnight of `HH:MM:SS[.fraction]`. A second of 60 is no time of day.
pub(super) fn time(text: &str) -> Option<(i64, i64)> {
    clock(text.as_bytes()).filter(|(seconds, _)| *seconds < 86_400 && !text[6..].starts_with("60"))
}

/// Seconds and nanoseconds since 1970-01-01T00:00:00 of a date-time. `zoned`: with an offset, which is applied;
/// otherwise one without. A leap second is the second that follows it, as POSIX time has it.
pub(super) fn date_time(text: &str, zoned: bool) -> Option<(i64, i64)> {
    let bytes = text.as_bytes();
    let day = i64::from(date(text.get(..10)?)?);
    // RFC 3339 lets applications write a space for the T.
    let [b'T' | b't' | b' ', rest @ ..] = &bytes[10..] else { return None };
    let (rest, offset) = if zoned { split_offset(rest)? } else { (rest, 0) };
    let (seconds, nanos) = clock(rest)?;
    let total = day * 86_400 + seconds - offset;
    // A leap second ends a UTC day, so what follows it is midnight.
    if rest[6..].starts_with(b"60") && total.rem_euclid(86_400) != 0 {
        return None;
    }
    Some((total, nanos))
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

/// Digits past the ninth are below a nanosecond and are cut.
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

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. Years are counted from March, so that the leap day
/// is the last of a year and 153 days make every five months.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(date(text), days, "{text}");
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
            assert_eq!(date_time(text, zoned), instant, "{text}");
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
            assert_eq!(time(text), instant, "{text}");
        }
    }
}
