//! Decimals, from the number's own text into Avro's two's complement bytes, never by way of a float.

use super::shape::Decimal;
use super::writer::{Fault, put_long};

/// A number's text taken apart: the digits that count, and where the point is.
struct Parts<'t> {
    negative: bool,
    /// Digits before and after the point as written; leading and trailing zeros included.
    whole: &'t [u8],
    fraction: &'t [u8],
    exponent: i64,
}

/// `-?digits(.digits)?([eE][+-]?digits)?`: JSON's grammar, save that leading zeros pass, for strings have them.
fn parse(text: &str) -> Option<Parts<'_>> {
    let bytes = text.as_bytes();
    let (negative, rest) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, bytes),
    };
    let (whole, rest) = leading_digits(rest)?;
    let (fraction, rest) = match rest {
        [b'.', rest @ ..] => leading_digits(rest)?,
        _ => (&[][..], rest),
    };
    let exponent = match rest {
        [] => 0,
        [b'e' | b'E', rest @ ..] => {
            let (sign, rest) = match rest {
                [b'-', rest @ ..] => (-1, rest),
                [b'+', rest @ ..] => (1, rest),
                _ => (1, rest),
            };
            let (digits, []) = leading_digits(rest)? else { return None };
            // Far beyond any precision already; a longer exponent changes nothing.
            let far = |sum: i64, digit: &u8| (sum * 10 + i64::from(digit - b'0')).min(1 << 40);
            sign * digits.iter().fold(0, far)
        }
        _ => return None,
    };
    Some(Parts { negative, whole, fraction, exponent })
}

fn leading_digits(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    if end == 0 { None } else { Some(text.split_at(end)) }
}

/// Appends the decimal's datum. Trailing zeros are not digits: `1.50` fits a scale of 1.
pub(super) fn write(text: &str, decimal: Decimal, out: &mut Vec<u8>) -> Result<(), Fault> {
    let parts = parse(text).ok_or(Fault::Format("a decimal number"))?;
    let (skip, count) = significant(&parts);
    let digits = || parts.whole.iter().chain(parts.fraction).skip(skip).take(count).map(|digit| digit - b'0');
    // The value is `digits` times ten to the `exponent`.
    let tail = parts.whole.len() + parts.fraction.len() - skip - count;
    let exponent = signed(tail) - signed(parts.fraction.len()) + parts.exponent;
    if count == 0 {
        return put(&[0], decimal.size, out);
    }
    let scale = signed(decimal.scale);
    if -exponent > scale {
        return Err(Fault::Digits(u32::try_from(decimal.scale).unwrap_or(u32::MAX)));
    }
    let zeros = exponent + scale;
    let room = signed(decimal.precision) - signed(count);
    if zeros > room {
        return Err(Fault::Range("more digits than the decimal's precision"));
    }
    let digits = digits().chain(std::iter::repeat_n(0, usize::try_from(zeros).unwrap_or(0)));
    // Thirty-eight nines are below 2 to the 127.
    if decimal.precision <= 38 {
        let magnitude = digits.fold(0_i128, |sum, digit| sum * 10 + i128::from(digit));
        let value = if parts.negative { -magnitude } else { magnitude };
        put(&value.to_be_bytes(), decimal.size, out)
    } else {
        put(&long_twos_complement(digits, parts.negative), decimal.size, out)
    }
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX / 4)
}

/// How many leading zeros there are, and how many digits between them and the trailing ones.
fn significant(parts: &Parts<'_>) -> (usize, usize) {
    let digits = parts.whole.iter().chain(parts.fraction);
    let total = parts.whole.len() + parts.fraction.len();
    let leading = digits.clone().take_while(|digit| **digit == b'0').count();
    if leading == total {
        return (0, 0);
    }
    let trailing = digits.rev().take_while(|digit| **digit == b'0').count();
    (leading, total - leading - trailing)
}

/// Big-endian two's complement with a sign byte in front, for precisions that no machine integer holds.
fn long_twos_complement(digits: impl Iterator<Item = u8>, negative: bool) -> Vec<u8> {
    // Little-endian while it grows.
    let mut bytes: Vec<u8> = Vec::new();
    for digit in digits {
        let mut carry = u16::from(digit);
        for byte in &mut bytes {
            carry += u16::from(*byte) * 10;
            [*byte, _] = carry.to_le_bytes();
            carry >>= 8;
        }
        if carry > 0 {
            bytes.push(carry.to_le_bytes()[0]);
        }
    }
    bytes.push(0);
    if negative {
        let mut carry = true;
        for byte in &mut bytes {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    bytes.reverse();
    bytes
}

/// Trims the sign's repetition, then writes with a length, or widened to the fixed's size.
fn put(bytes: &[u8], size: Option<usize>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut bytes = bytes;
    while let [first @ (0 | 0xFF), next, ..] = bytes {
        if (*first == 0) != (*next < 0x80) {
            break;
        }
        bytes = &bytes[1..];
    }
    match size {
        None => put_long(signed(bytes.len()), out),
        Some(size) if bytes.len() > size => return Err(Fault::Range("a number too large for the fixed")),
        Some(size) => {
            let sign = if bytes.first().is_some_and(|byte| *byte >= 0x80) { 0xFF } else { 0 };
            out.resize(out.len() + size - bytes.len(), sign);
        }
    }
    out.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, precision: usize, scale: usize, expected: Result<&[u8], Fault>) {
        let mut out = Vec::new();
        let written = write(text, Decimal { precision, scale, size: None }, &mut out);
        assert_eq!(written.map(|()| &out[1..]), expected, "{text} as decimal({precision}, {scale})");
    }

    #[test]
    fn a_decimal_is_its_unscaled_integer() {
        check("1.50", 10, 2, Ok(&[0, 150]));
        check("-1.50", 10, 2, Ok(&[0xFF, 0x6A]));
        check("0", 10, 2, Ok(&[0]));
        check("-0.000000", 10, 2, Ok(&[0]));
        check("0e99999999999999999999999", 10, 2, Ok(&[0]));
        check("1e2", 10, 2, Ok(&[0x27, 0x10]));
        check("12E-1", 10, 2, Ok(&[120]));
        check("-1.28", 10, 2, Ok(&[0x80]));
        check("1.28", 10, 2, Ok(&[0, 0x80]));
        check("007.5", 10, 1, Ok(&[75]));
    }

    #[test]
    fn trailing_zeros_are_not_digits() {
        check("1.500000000000", 10, 1, Ok(&[15]));
        check("100", 3, 0, Ok(&[100]));
        check("1.005", 10, 2, Err(Fault::Digits(2)));
        check("1e-400", 10, 2, Err(Fault::Digits(2)));
    }

    #[test]
    fn more_digits_than_the_precision_are_out_of_range() {
        check("99.99", 4, 2, Ok(&[0x27, 0x0F]));
        check("100.00", 4, 2, Err(Fault::Range("more digits than the decimal's precision")));
        check("1e999999999999999999", 38, 0, Err(Fault::Range("more digits than the decimal's precision")));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-", "1.", ".5", "+1", "1e", "1e+", "1,5", "0x10", "NaN", " 1", "1 ", "1.2.3"] {
            check(text, 10, 2, Err(Fault::Format("a decimal number")));
        }
    }

    #[test]
    fn long_decimals_agree_with_the_short_way() {
        for text in
            ["0", "1", "-1", "127", "128", "-128", "-129", "255", "-256", "99999999999999999999999999999999999999"]
        {
            let (mut short, mut long) = (Vec::new(), Vec::new());
            write(text, Decimal { precision: 38, scale: 0, size: Some(20) }, &mut short).unwrap();
            write(text, Decimal { precision: 39, scale: 0, size: Some(20) }, &mut long).unwrap();
            assert_eq!(short, long, "{text}");
        }
    }

    #[test]
    fn a_fixed_is_filled_with_the_sign() {
        let mut out = Vec::new();
        let decimal = Decimal { precision: 9, scale: 0, size: Some(4) };
        write("-2", decimal, &mut out).unwrap();
        assert_eq!(out, [0xFF, 0xFF, 0xFF, 0xFE]);
        let narrow = Decimal { precision: 9, scale: 0, size: Some(1) };
        assert_eq!(write("128", narrow, &mut out), Err(Fault::Range("a number too large for the fixed")));
    }
}
