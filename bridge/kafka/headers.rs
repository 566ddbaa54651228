//! A record's headers in two pieces of memory: a record has ten of them, and each would be two allocations.

use std::fmt;

/// What a record of ours has, so that nothing grows while they are read.
const USUAL: usize = 12;
const USUAL_BYTES: usize = 512;

/// Names and values, in the order in which they were written. A name may repeat.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// Where each name and each value ends, so that a name of another length is passed over without a look at it.
    ends: Box<[(u32, u32)]>,
    bytes: Box<[u8]>,
}

impl Headers {
    /// Each header's name and value.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &[u8])> + Clone {
        // It was text when it came in.
        self.raw().map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value))
    }

    /// The value of the last header of that name.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<&[u8]> {
        self.raw().rfind(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
    }

    /// How many bytes names and values have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn raw(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> + Clone {
        (0..self.ends.len()).map(|at| {
            let begins = if at == 0 { 0 } else { self.ends[at - 1].1 };
            let (name, value) = self.ends[at];
            (self.slice(begins, name), self.slice(name, value))
        })
    }

    fn slice(&self, from: u32, to: u32) -> &[u8] {
        self.bytes.get(index(from)..index(to)).unwrap_or_default()
    }
}

fn index(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let (mut ends, mut bytes) = (Vec::with_capacity(USUAL), Vec::with_capacity(USUAL_BYTES));
        // A record is far smaller than what a length could not say.
        let end = |bytes: &Vec<u8>| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        for (name, value) in headers {
            bytes.extend_from_slice(name.as_ref().as_bytes());
            let name_ends = end(&bytes);
            bytes.extend_from_slice(value.as_ref());
            ends.push((name_ends, end(&bytes)));
        }
        Self { ends: ends.into_boxed_slice(), bytes: bytes.into_boxed_slice() }
    }
}

impl From<Vec<(String, Vec<u8>)>> for Headers {
    fn from(headers: Vec<(String, Vec<u8>)>) -> Self {
        headers.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_were_written_and_of_a_name_that_repeats_the_last_counts() {
        let written: [(&str, &[u8]); 4] = [("ce_id", b"1"), ("", b""), ("ce_type", &[0xff, 0]), ("ce_id", b"22")];
        let headers: Headers = written.into_iter().collect();
        assert_eq!(headers.iter().collect::<Vec<_>>(), written);
        assert_eq!(
            (headers.last("ce_id"), headers.last(""), headers.last("ce")),
            (Some(&b"22"[..]), Some(&b""[..]), None)
        );
        assert_eq!(headers.bytes(), 5 + 1 + 7 + 2 + 5 + 2);
        assert_eq!(Headers::default().iter().next(), None);
    }
}
