//! How scalars look in JSON, each appended to a buffer.

use std::io::Write as _;

/// About 2,400 digits. The division below is quadratic, and no amount of money is longer.
pub(crate) const MAX_DECIMAL_BYTES: usize = 1024;

/// Below it a float's shortest text is the integer itself. Above, `11175179000` would say more than the float holds, and
/// whoever reads integers exactly, as `schema/plan` does, would refuse it.
const FLOAT_INTEGERS: f32 = 16_777_216.0;

/// Bytes that cannot stand in a JSON text as they are (RFC 8259, section 7).
const ESCAPED: [bool; 256] = {
    let mut escaped = [false; 256];
    let mut at = 0;
    while at < 0x20 {
        escaped[at] = true;
        at += 1;
    }
    escaped[b'"' as usize] = true;
    escaped[b'\\' as usize] = true;
    escaped
};

/// A text with its quotes.
pub(crate) fn string(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    out.reserve(rest.len() + 2);
    out.push(b'"');
    while let Some(at) = rest.iter().position(|byte| ESCAPED[usize::from(*byte)]) {
        out.extend_from_slice(&rest[..at]);
        escape(rest[at], out);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xF)]]);
        }
    }
}

/// Bytes as Avro's JSON encoding has them: a code point for each.
pub(crate) fn latin1(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    for byte in bytes {
        match byte {
            // The two bytes of a code point up to U+00FF in UTF-8.
            0x80.. => out.extend_from_slice(&[0xC0 | (byte >> 6), 0x80 | (byte & 0x3F)]),
            _ if ESCAPED[usize::from(*byte)] => escape(*byte, out),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}

pub(crate) fn integer(value: i64, out: &mut Vec<u8>) {
    // 19 digits and a sign.
    let mut text = [0; 20];
    let mut from = digits(value.unsigned_abs(), &mut text);
    if value < 0 {
        from -= 1;
        text[from] = b'-';
    }
    out.extend_from_slice(&text[from..]);
}

/// Writes digits to the end of `text`, which has room for them; gives where they begin.
fn digits(mut value: u64, text: &mut [u8]) -> usize {
    let mut from = text.len();
    loop {
        from -= 1;
        text[from] = digit(value % 10);
        value /= 10;
        if value == 0 {
            return from;
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "it is below ten")]
const fn digit(value: u64) -> u8 {
    b'0' + value as u8
}

pub(super) fn float(value: f32, out: &mut Vec<u8>) {
    if !unlike_numbers(f64::from(value), out) {
        // Into memory; it cannot fail.
        let _ = write!(out, "{value:?}");
        if value.abs() < FLOAT_INTEGERS {
            without_point(out);
        }
    }
}

pub(super) fn double(value: f64, out: &mut Vec<u8>) {
    if !unlike_numbers(value, out) {
        let _ = write!(out, "{value:?}");
        without_point(out);
    }
}

/// PostgreSQL and XML Schema share these names; JSON has none of its own.
fn unlike_numbers(value: f64, out: &mut Vec<u8>) -> bool {
    let name: &[u8] = match value {
        _ if value.is_finite() => return false,
        _ if value.is_nan() => br#""NaN""#,
        _ if value > 0.0 => br#""Infinity""#,
        _ => br#""-Infinity""#,
    };
    out.extend_from_slice(name);
    true
}

/// Whole numbers stand without a point.
fn without_point(out: &mut Vec<u8>) {
    if out.ends_with(b".0") {
        out.truncate(out.len() - 2);
    }
}

/// An unscaled two's complement big-endian integer with its decimal point: exact, whatever its length. `false`: there are
/// no bytes, or more than [`MAX_DECIMAL_BYTES`].
pub(super) fn decimal(bytes: &[u8], scale: usize, out: &mut Vec<u8>) -> bool {
    /// 20 digits of a u64, a zero before them, a point, a sign.
    const SHORT: usize = 32;
    match bytes {
        [] => return false,
        // Nearly every amount of money.
        [first, ..] if bytes.len() <= size_of::<i64>() && scale < SHORT - 3 => {
            let sign = if *first < 0x80 { 0 } else { -1 };
            let value = bytes.iter().fold(sign, |value: i64, byte| value << 8 | i64::from(*byte));
            let mut text = [b'0'; SHORT];
            // At least one digit before the point.
            let from = digits(value.unsigned_abs(), &mut text).min(SHORT - 1 - scale);
            let (whole, fraction) = text[from..].split_at(SHORT - scale - from);
            if value < 0 {
                out.push(b'-');
            }
            out.extend_from_slice(whole);
            if scale > 0 {
                out.push(b'.');
                out.extend_from_slice(fraction);
            }
        }
        _ if bytes.len() > MAX_DECIMAL_BYTES => return false,
        _ => out.extend_from_slice(long_decimal(bytes, scale).as_bytes()),
    }
    true
}

/// The same of any length, slowly.
pub(crate) fn long_decimal(bytes: &[u8], scale: usize) -> String {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut magnitude = bytes.to_vec();
    if negative {
        // Two's complement: invert, add one.
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            let (sum, overflow) = (!*byte).overflowing_add(u8::from(carry));
            *byte = sum;
            carry = overflow;
        }
    }
    let mut digits = Vec::with_capacity(bytes.len() * 3);
    while magnitude.iter().any(|byte| *byte != 0) {
        // Long division by ten, most significant byte first; what is left over is the next digit from the right.
        let mut left = 0_u32;
        for byte in &mut magnitude {
            let part = left * 256 + u32::from(*byte);
            *byte = u8::try_from(part / 10).unwrap_or_default();
            left = part % 10;
        }
        digits.push(char::from_digit(left, 10).unwrap_or('0'));
    }
    while digits.len() <= scale {
        digits.push('0');
    }
    let mut text = String::with_capacity(digits.len() + 2);
    if negative {
        text.push('-');
    }
    for (at, digit) in digits.iter().rev().enumerate() {
        if at == digits.len() - scale {
            text.push('.');
        }
        text.push(*digit);
    }
    text
}
