//! The Confluent wire format: a zero byte, the schema's id as four bytes, the highest first, then the Avro datum
//! (Confluent Platform, "Wire format" in "Formats, Serializers, and Deserializers").

/// The first byte of a framed value.
pub const MAGIC: u8 = 0;

/// Bytes before the datum.
pub const HEADER_LEN: usize = 5;

/// Bytes that are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{len} bytes are too few for a schema id ({HEADER_LEN} are needed)")]
    TooShort { len: usize },
    #[error("the first byte is {found:#04x}, not 0x00: not written by a schema registry's serializer")]
    NoMagic { found: u8 },
}

/// The bytes that a value written under schema `id` begins with.
#[must_use]
pub const fn header(id: u32) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = id.to_be_bytes();
    [MAGIC, a, b, c, d]
}

/// Begins a value in `out`: the datum is to be written behind it.
pub fn frame(id: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&header(id));
}

/// Takes a value apart: the schema's id, and the datum.
pub fn unframe(bytes: &[u8]) -> Result<(u32, &[u8]), Error> {
    match bytes {
        [MAGIC, a, b, c, d, datum @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), datum)),
        [MAGIC, ..] | [] => Err(Error::TooShort { len: bytes.len() }),
        [found, ..] => Err(Error::NoMagic { found: *found }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_id_stands_highest_byte_first_behind_a_zero() {
        let mut out = Vec::new();
        frame(0x0102_0304, &mut out);
        assert_eq!(out, [0, 1, 2, 3, 4]);
        assert_eq!(unframe(&out), Ok((0x0102_0304, &[][..])));
    }

    #[test]
    fn what_is_no_frame_says_why() {
        assert_eq!(unframe(&[]), Err(Error::TooShort { len: 0 }));
        assert_eq!(unframe(&[0, 0, 0, 1]), Err(Error::TooShort { len: 4 }));
        assert_eq!(unframe(b"{\"a\":1}"), Err(Error::NoMagic { found: b'{' }));
    }

    proptest! {
        #[test]
        fn what_was_framed_comes_apart_again(id: u32, datum: Vec<u8>) {
            let mut out = Vec::new();
            frame(id, &mut out);
            out.extend_from_slice(&datum);
            prop_assert_eq!(unframe(&out), Ok((id, datum.as_slice())));
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error_and_a_frame_is_made_of_all_of_them(bytes: Vec<u8>) {
            if let Ok((id, datum)) = unframe(&bytes) {
                prop_assert_eq!([header(id).as_slice(), datum].concat(), bytes);
            }
        }
    }
}
