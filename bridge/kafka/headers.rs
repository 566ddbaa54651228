//! A record's headers in one piece of memory: a record has ten of them, and each would be two small allocations.

use std::fmt;

/// Bytes before each header: the lengths of its name and of its value.
const LENGTHS: usize = 8;

/// Names and values, in the order in which they were written. A name may repeat.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Box<[u8]>);

impl Headers {
    /// Each header's name and value.
    pub fn iter(&self) -> Iter<'_> {
        Iter(&self.0)
    }

    /// The value of the last header of that name.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<&[u8]> {
        Raw(&self.0).filter(|(found, _)| *found == name.as_bytes()).last().map(|(_, value)| value)
    }

    /// Of names and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        Raw(&self.0).map(|(name, value)| name.len() + value.len()).sum()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut all = Vec::new();
        for (name, value) in headers {
            let (name, value) = (name.as_ref().as_bytes(), value.as_ref());
            // A record is far smaller than what a length could not say.
            let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
            all.reserve(LENGTHS + name.len() + value.len());
            all.extend_from_slice(&length(name));
            all.extend_from_slice(&length(value));
            all.extend_from_slice(name);
            all.extend_from_slice(value);
        }
        Self(all.into_boxed_slice())
    }
}

impl From<Vec<(String, Vec<u8>)>> for Headers {
    fn from(headers: Vec<(String, Vec<u8>)>) -> Self {
        headers.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'a str, &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Of [`Headers::iter`].
#[derive(Debug, Clone)]
pub struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut raw = Raw(self.0);
        let (name, value) = raw.next()?;
        self.0 = raw.0;
        // It was text when it came in.
        Some((std::str::from_utf8(name).unwrap_or_default(), value))
    }
}

struct Raw<'a>(&'a [u8]);

impl<'a> Iterator for Raw<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = self.0.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_first_chunk::<4>()?;
        let length = |bytes: &[u8; 4]| usize::try_from(u32::from_le_bytes(*bytes)).unwrap_or(usize::MAX);
        let (name, rest) = rest.split_at_checked(length(name))?;
        let (value, rest) = rest.split_at_checked(length(value))?;
        self.0 = rest;
        Some((name, value))
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
