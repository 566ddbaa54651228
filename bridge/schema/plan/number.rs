//! Numbers, from their own text, which is well-formed JSON.

use super::writer::Fault;

/// Whether a number is written as an integer. `1.0` and `1e3` are not: a sender who writes them counts in something
/// else, and what stands behind the point of a longer one would be lost in silence.
pub(super) fn is_whole(number: &str) -> bool {
    !number.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
}

/// An integer within bounds.
pub(super) fn ranged(text: &str, min: i64, max: i64) -> Result<i64, Fault> {
    if !is_whole(text) {
        return Err(Fault::Kind);
    }
    let parsed = text.parse().ok().filter(|value| (min..=max).contains(value));
    parsed.ok_or(Fault::Range("a number beyond the range"))
}

/// The nearest double; an integer only if it is held exactly.
pub(super) fn double(text: &str) -> Result<f64, Fault> {
    /// Below it every integer is a double; one beyond it may have been rounded to it.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let value: f64 = text.parse().map_err(|_| Fault::Kind)?;
    if value.is_infinite() {
        return Err(Fault::Range("a number beyond the range"));
    }
    if value.abs() >= EXACT && is_whole(text) && format!("{value:.0}") != text {
        return Err(Fault::Range("an integer that is not held exactly"));
    }
    Ok(value)
}

/// The nearest float, rounded once; an integer only if it is held exactly.
pub(super) fn float(text: &str) -> Result<f32, Fault> {
    const EXACT: f32 = 16_777_216.0;
    let value: f32 = text.parse().map_err(|_| Fault::Kind)?;
    if value.is_infinite() {
        return Err(Fault::Range("a number beyond the range"));
    }
    if value.abs() >= EXACT && is_whole(text) && format!("{value:.0}") != text {
        return Err(Fault::Range("an integer that is not held exactly"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_that_a_double_would_change_is_refused() {
        assert_eq!(double("9007199254740992"), Ok(9_007_199_254_740_992.0));
        assert_eq!(double("9007199254740993"), Err(Fault::Range("an integer that is not held exactly")));
        assert_eq!(double("100000000000000000000"), Ok(1e20));
        assert_eq!(double("100000000000000000001"), Err(Fault::Range("an integer that is not held exactly")));
        assert_eq!(double("1e400"), Err(Fault::Range("a number beyond the range")));
        assert_eq!(float("16777217"), Err(Fault::Range("an integer that is not held exactly")));
        assert_eq!(float("3.5e38"), Err(Fault::Range("a number beyond the range")));
    }
}
