//! The source's word for when an event happened, as RFC 3339.

/// Numbers above it are milliseconds: in seconds it is the year 5138, in milliseconds March 1973.
const MILLISECONDS_FROM: f64 = 100_000_000_000.0;
/// 9999-12-31T23:59:59.999Z, the last instant that RFC 3339 can write, in milliseconds.
const LAST: f64 = 253_402_300_799_999.0;

/// RFC 3339 text is kept as it is; a number is seconds, or milliseconds where seconds would be far in the future.
/// Anything else is no time.
pub(super) fn rfc3339(word: &str) -> Option<String> {
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

/// Milliseconds since the Unix epoch, as UTC; whole seconds without a fraction.
fn format(milliseconds: i64) -> String {
    let (days, within) = (milliseconds.div_euclid(86_400_000), milliseconds.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (hour, minute, second, fraction) =
        (within / 3_600_000, within / 60_000 % 60, within / 1000 % 60, within % 1000);
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:03}") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Days since 1970-01-01 as a date of the Gregorian calendar. Years are counted from March, so that the leap day is a
/// year's last: then a month's first day is a straight line, 153 days in five months.
fn civil(days: i64) -> (i64, i64, i64) {
    /// From 0000-03-01 to 1970-01-01.
    const EPOCH: i64 = 719_468;
    /// In the four centuries after which the calendar repeats.
    const CYCLE: i64 = 146_097;
    let (cycle, day) = ((days + EPOCH).div_euclid(CYCLE), (days + EPOCH).rem_euclid(CYCLE));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + next, month, day)
}

/// RFC 3339, section 5.6, with its ranges; not which months have thirty days.
fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((stamp, rest)) = bytes.split_at_checked(19) else { return false };
    let digits = |part: &[u8]| {
        part.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
    };
    let within = |from: usize, range: std::ops::RangeInclusive<u32>| {
        digits(&stamp[from..from + 2]).is_some_and(|number| range.contains(&number))
    };
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')].iter().all(|(at, mark)| stamp[*at] == *mark);
    let sound = marks
        && digits(&stamp[..4]).is_some()
        && within(5, 1..=12)
        && within(8, 1..=31)
        && matches!(stamp[10], b'T' | b't')
        && within(11, 0..=23)
        && within(14, 0..=59)
        && within(17, 0..=60);
    let zone = match rest.strip_prefix(b".") {
        Some(fraction) => {
            let end = fraction.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(fraction.len());
            if !(1..=9).contains(&end) {
                return false;
            }
            &fraction[end..]
        }
        None => rest,
    };
    let offset = |zone: &[u8]| {
        matches!(zone, [b'+' | b'-', h, i, b':', m, n]
            if digits(&[*h, *i]).is_some_and(|it| it < 24) && digits(&[*m, *n]).is_some_and(|it| it < 60))
    };
    sound && (matches!(zone, b"Z" | b"z") || offset(zone))
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
