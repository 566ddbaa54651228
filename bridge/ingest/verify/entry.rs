//! The entries of a signature's place: which of its parts could be a signature, and their bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::catalog::{Algorithm, Encoding, Signature};

/// Bytes of the longest signature: RSA with a key of 4096 bits.
const MAX_SIGNATURE: usize = 512;
/// Bytes of the longest signature that is kept without an allocation: ECDSA's, in DER.
const SHORT: usize = 72;

/// How a place's entries are written, and how many of them are looked at.
#[derive(Debug)]
pub(super) struct Form {
    prefix: Vec<u8>,
    separator: Option<u8>,
    encoding: Encoding,
    length: Length,
    /// Of well-formed entries. A sender that rotates keys writes two or three.
    limit: usize,
}

/// Bytes of a signature.
#[derive(Debug, Clone, Copy)]
enum Length {
    Exactly(usize),
    /// Where it depends on the number (DER) or on the key (RSA); the algorithm itself is strict then.
    AtMost(usize),
}

impl Form {
    /// # Errors
    /// The separator, if it is not ASCII.
    pub(super) fn compile(signature: &Signature, encoding: Encoding) -> Result<Self, char> {
        let (length, limit) = match signature.algorithm {
            // Costs one comparison each; the place's own size bounds it in practice.
            Algorithm::HmacSha1 => (Length::Exactly(20), 256),
            Algorithm::HmacSha256 | Algorithm::Sha256 => (Length::Exactly(32), 256),
            Algorithm::HmacSha512 => (Length::Exactly(64), 256),
            // Costs an operation of some 100 µs each, which anybody could ask for without a key.
            Algorithm::Ed25519 => (Length::Exactly(64), 16),
            Algorithm::EcdsaP256 => (Length::AtMost(SHORT), 16),
            Algorithm::RsaSha256 => (Length::AtMost(MAX_SIGNATURE), 16),
            // Tokens have no entries.
            Algorithm::Equals | Algorithm::Basic | Algorithm::Bearer => (Length::Exactly(0), 0),
        };
        Ok(Self {
            prefix: signature.prefix.clone().into_bytes(),
            separator: signature.separator.map(ascii).transpose()?,
            encoding,
            length,
            limit,
        })
    }

    /// The bytes of an entry, if it has the prefix, the encoding and the length.
    /// A shorter signature is no entry at all, so that none is ever compared over its own length only (CVE-2024-21491).
    fn decode(&self, entry: &[u8]) -> Option<Candidate> {
        let text = entry.strip_prefix(self.prefix.as_slice())?;
        match self.length {
            Length::Exactly(length) => {
                let mut bytes = [0; SHORT];
                let decoded = self.decode_into(text, bytes.get_mut(..length)?)?;
                (decoded == length).then_some(Candidate::Short { bytes, length })
            }
            Length::AtMost(length) => {
                let mut bytes = vec![0; length];
                let decoded = self.decode_into(text, &mut bytes)?;
                bytes.truncate(decoded);
                (decoded > 0).then_some(Candidate::Long(bytes))
            }
        }
    }

    /// How many bytes there are; `None` where the text is not of the encoding, or is longer than there is room.
    fn decode_into(&self, text: &[u8], bytes: &mut [u8]) -> Option<usize> {
        match self.encoding {
            Encoding::HexLower if text.iter().any(u8::is_ascii_uppercase) => None,
            Encoding::Hex | Encoding::HexLower => {
                let bytes = bytes.get_mut(..text.len() / 2)?;
                hex::decode_to_slice(text, bytes).ok().map(|()| bytes.len())
            }
            // Padded, in the standard alphabet, without stray bits: one text for each signature, as in a comparison of
            // the texts. Anything longer does not fit, and is an error.
            Encoding::Base64 => STANDARD.decode_slice(text, bytes).ok(),
        }
    }
}

/// The separator as a byte.
///
/// # Errors
/// The separator, if it is not ASCII: it could not be told from parts of other characters.
pub(super) fn ascii(separator: char) -> Result<u8, char> {
    u8::try_from(separator).ok().filter(u8::is_ascii).ok_or(separator)
}

/// The parts of a value between separators; all of it where there is no separator.
pub(super) fn parts(value: &[u8], separator: Option<u8>) -> impl Iterator<Item = &[u8]> + Clone {
    value.split(move |byte| Some(*byte) == separator)
}

/// What a sender claims to be the signature.
#[derive(Debug, Clone)]
pub(super) enum Candidate {
    Short { bytes: [u8; SHORT], length: usize },
    Long(Vec<u8>),
}

impl Candidate {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { bytes, length } => bytes.get(..*length).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }

    /// Compares in constant time.
    pub(super) fn equals(&self, expected: &[u8]) -> bool {
        let bytes = self.bytes();
        // `memcmp::eq` asks for equal lengths.
        bytes.len() == expected.len() && openssl::memcmp::eq(bytes, expected)
    }
}

/// The well-formed entries of a value, decoded on the way: a clone starts over and costs nothing.
#[derive(Debug, Clone)]
pub(super) struct Entries<'a> {
    rest: Option<&'a [u8]>,
    form: &'a Form,
    left: usize,
}

impl<'a> Entries<'a> {
    pub(super) fn new(value: &'a [u8], form: &'a Form) -> Self {
        Self { rest: Some(value), form, left: form.limit }
    }
}

impl Iterator for Entries<'_> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        while let Some(rest) = self.rest.filter(|_| self.left > 0) {
            let end = rest.iter().position(|byte| Some(*byte) == self.form.separator);
            self.rest = end.and_then(|end| rest.get(end + 1..));
            let entry = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            if let Some(candidate) = self.form.decode(entry) {
                self.left -= 1;
                return Some(candidate);
            }
        }
        None
    }
}
