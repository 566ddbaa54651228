//! The entries of a signature header: which of its parts could be a signature, and their bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::catalog::{Algorithm, Encoding, Signature};

/// Bytes of the longest signature: SHA-512 and Ed25519.
pub(super) const MAX_SIGNATURE: usize = 64;

/// How a header's entries are written, and how many of them are looked at.
#[derive(Debug)]
pub(super) struct Form {
    prefix: Vec<u8>,
    separator: Option<u8>,
    encoding: Encoding,
    /// Bytes of a signature.
    length: usize,
    /// Of well-formed entries. A sender that rotates keys writes two or three.
    limit: usize,
}

impl Form {
    /// # Errors
    /// The separator, if it is not ASCII.
    pub(super) fn compile(signature: &Signature) -> Result<Self, char> {
        let (length, limit) = match signature.algorithm {
            // Costs one comparison each; the header's own size bounds it in practice.
            Algorithm::HmacSha256 => (32, 256),
            Algorithm::HmacSha512 => (64, 256),
            // Costs a curve operation of some 100 µs each, which anybody could ask for without a key.
            Algorithm::Ed25519 => (64, 16),
        };
        Ok(Self {
            prefix: signature.prefix.clone().into_bytes(),
            separator: signature.separator.map(ascii).transpose()?,
            encoding: signature.encoding,
            length,
            limit,
        })
    }

    /// The bytes of an entry, if it has the prefix, the encoding and the length.
    /// A shorter signature is no entry at all, so that none is ever compared over its own length only (CVE-2024-21491).
    fn decode(&self, entry: &[u8]) -> Option<Candidate> {
        let text = entry.strip_prefix(self.prefix.as_slice())?;
        let mut candidate = Candidate { bytes: [0; MAX_SIGNATURE], length: self.length };
        let bytes = candidate.bytes.get_mut(..self.length)?;
        match self.encoding {
            Encoding::HexLower if text.iter().any(u8::is_ascii_uppercase) => None,
            Encoding::Hex | Encoding::HexLower => hex::decode_to_slice(text, bytes).ok().map(|()| candidate),
            // Padded, in the standard alphabet, without stray bits: one text for each signature, as in a comparison of
            // the texts. Anything longer does not fit, and is an error.
            Encoding::Base64 => match STANDARD.decode_slice(text, bytes) {
                Ok(length) if length == self.length => Some(candidate),
                _ => None,
            },
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

/// The parts of a header between separators; all of it where there is no separator.
pub(super) fn parts(value: &[u8], separator: Option<u8>) -> impl Iterator<Item = &[u8]> + Clone {
    value.split(move |byte| Some(*byte) == separator)
}

/// What a sender claims to be the signature.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    bytes: [u8; MAX_SIGNATURE],
    length: usize,
}

impl Candidate {
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Compares in constant time.
    pub(super) fn equals(&self, expected: &[u8]) -> bool {
        // `memcmp::eq` asks for equal lengths.
        self.length == expected.len() && openssl::memcmp::eq(self.bytes(), expected)
    }
}

/// The well-formed entries of a header, decoded on the way: a clone starts over and costs nothing.
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
