//! Forms, as queries and bodies carry them: `name=value` pairs, escaped (WHATWG URL, section 5.1). Pure.

/// Why there is no one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    Missing,
    /// Two readers could take two values.
    Repeated,
}

/// The value of the only pair of that name, decoded; it may be empty.
pub(super) fn only(form: &[u8], name: &str) -> Result<Vec<u8>, Lack> {
    let pairs = form.split(|byte| *byte == b'&').map(|pair| {
        let (key, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len()));
        (key, value.get(1..).unwrap_or_default())
    });
    let mut values = pairs.filter(|(key, _)| unescaped(key) == name.as_bytes()).map(|(_, value)| value);
    let value = values.next().ok_or(Lack::Missing)?;
    if values.next().is_some() { Err(Lack::Repeated) } else { Ok(unescaped(value)) }
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let mut byte = [0];
        let escape = after.get(..2).filter(|digits| *first == b'%' && hex::decode_to_slice(digits, &mut byte).is_ok());
        rest = if escape.is_some() { after.get(2..).unwrap_or_default() } else { after };
        bytes.push(match (escape, first) {
            (Some(_), _) => byte[0],
            (None, b'+') => b' ',
            (None, first) => *first,
        });
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forms_value_is_decoded_and_stands_there_once() {
        let form = b"a=1&b+c=x%20y%2Bz+%zz&d&e=&a=2&%66=f=g";
        for (name, value) in [
            ("b c", Ok("x y+z %zz")),
            ("d", Ok("")),
            ("e", Ok("")),
            ("f", Ok("f=g")),
            ("a", Err(Lack::Repeated)),
            ("nothing", Err(Lack::Missing)),
        ] {
            assert_eq!(only(form, name), value.map(|text| text.as_bytes().to_vec()), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_form_is_read_and_what_was_escaped_comes_back(
            soup in proptest::collection::vec(0u8.., 0..200), name in "[a-c%&=+]{0,3}", value in ".{0,20}",
        ) {
            let _ = only(&soup, &name);
            let escaped = |text: &str| text.bytes().fold(String::new(), |all, byte| all + &format!("%{byte:02x}"));
            let form = format!("{}={}", escaped(&name), escaped(&value));
            proptest::prop_assert_eq!(only(form.as_bytes(), &name), Ok(value.into_bytes()));
        }
    }
}
