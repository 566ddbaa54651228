//! Records: fields are written as they come, and put into the schema's order where they came in another.
//!
//! What has come is a list of runs: ascending neighbours, whose bytes lie together. A sender who keeps the schema's
//! order makes one run and nothing is moved. Otherwise the runs are stitched, once, when the object ends, with defaults
//! for what did not come. Records within are whole by then, so their bytes move as one.

use std::ops::Range;

use serde::de::DeserializeSeed;
use serde_json::value::RawValue;

use super::Reason;
use super::pointer::{Path, compact};
use super::shape::{Field, Record};
use super::walk::Text;
use super::writer::{Writer, put_bytes, put_long};
use crate::config::UnknownFields;

/// Buffers that outlive an event, so that the next one allocates nothing. They hold no event's data between two calls
/// that matters, and grow to the largest event seen, which `ingest.max_body` bounds.
#[derive(Debug, Default)]
pub struct Scratch {
    /// All of these are stacks: a record within works above its parent's part.
    runs: Vec<Run>,
    /// A bit for each field of each open record.
    seen: Vec<u64>,
    /// Entries of capture maps, encoded.
    captured: Vec<u8>,
    /// Where in `captured` the keys are.
    captured_keys: Vec<Range<usize>>,
    /// Where in the datum the keys of open maps are.
    map_keys: Vec<Range<usize>>,
    stitched: Vec<u8>,
}

impl Scratch {
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.seen.clear();
        self.captured.clear();
        self.captured_keys.clear();
        self.map_keys.clear();
    }
}

#[derive(Debug, Clone)]
struct Run {
    fields: Range<usize>,
    bytes: Range<usize>,
}

/// An open record: where its parts of the stacks begin, and the run that is being written.
#[derive(Debug)]
pub(super) struct Frame {
    start: usize,
    runs: usize,
    seen: usize,
    captured: usize,
    captured_keys: usize,
    run: Run,
    /// The capture map as the event itself gave it.
    given: Option<Range<usize>>,
}

impl Frame {
    /// The field that would continue the run.
    #[inline]
    pub(super) fn next(&self) -> usize {
        self.run.fields.end
    }
}

impl Writer<'_> {
    #[inline]
    pub(super) fn open_record(&mut self, record: &Record) -> Frame {
        let start = self.out.len();
        let seen = self.scratch.seen.len();
        self.scratch.seen.resize(seen + record.fields.len().div_ceil(64), 0);
        Frame {
            start,
            runs: self.scratch.runs.len(),
            seen,
            captured: self.scratch.captured.len(),
            captured_keys: self.scratch.captured_keys.len(),
            run: Run { fields: 0..0, bytes: start..start },
            given: None,
        }
    }

    /// Before a field's value is written; false where it has come before.
    #[inline]
    pub(super) fn open_field(&mut self, record: &Record, frame: &mut Frame, field: usize) -> bool {
        let bit = 1 << (field % 64);
        let word = &mut self.scratch.seen[frame.seen + field / 64];
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        if field != frame.next() || record.capture == Some(field) {
            self.start_run(frame, field);
        }
        true
    }

    #[inline]
    pub(super) fn close_field(&mut self, record: &Record, frame: &mut Frame, field: usize) {
        frame.run.fields.end = field + 1;
        if record.capture == Some(field) {
            // What is captured goes into the same map, so its bytes are no run: they are taken up when the record ends.
            let end = self.out.len();
            frame.given = Some(frame.run.bytes.start..end);
            frame.run = Run { fields: field + 1..field + 1, bytes: end..end };
        }
    }

    fn start_run(&mut self, frame: &mut Frame, field: usize) {
        let end = self.out.len();
        let ended = std::mem::replace(&mut frame.run, Run { fields: field..field, bytes: end..end });
        if !ended.fields.is_empty() {
            self.scratch.runs.push(Run { bytes: ended.bytes.start..end, ..ended });
        }
    }

    /// A field that the record does not know. What becomes of it is the plan's policy; on a record without a map to
    /// capture into, capturing is dropping with a warning.
    pub(super) fn stray(&mut self, at: &Path<'_>, record: &Record, name: &str, value: &RawValue) {
        self.strays += 1;
        match self.unknown {
            UnknownFields::Reject => {
                self.violation(at, Reason::UnknownField, || "the schema has no such field".to_owned());
            }
            UnknownFields::Drop => {}
            UnknownFields::Capture if record.capture.is_some() => self.capture(at, name, value.get()),
            UnknownFields::Warn | UnknownFields::Capture => self.warn(at),
        }
    }

    /// Strings as themselves, anything else as its JSON text, without the whitespace.
    fn capture(&mut self, at: &Path<'_>, name: &str, value: &str) {
        let Scratch { captured, captured_keys, stitched, .. } = &mut *self.scratch;
        stitched.clear();
        if value.starts_with('"') {
            match Text.deserialize(&mut serde_json::Deserializer::from_str(value)) {
                Ok(text) => stitched.extend_from_slice(text.as_bytes()),
                // Half a surrogate pair is all that can be wrong with it.
                Err(_) => return self.violation(at, Reason::BadFormat, || "the text is not Unicode".to_owned()),
            }
        } else {
            compact(value, stitched);
        }
        put_bytes(name.as_bytes(), captured);
        captured_keys.push(captured.len() - name.len()..captured.len());
        put_bytes(stitched, captured);
    }

    #[inline]
    pub(super) fn open_map(&self) -> usize {
        self.scratch.map_keys.len()
    }

    pub(super) fn map_key(&mut self, key: &str) {
        put_bytes(key.as_bytes(), self.out);
        self.scratch.map_keys.push(self.out.len() - key.len()..self.out.len());
    }

    /// `keys` is what `open_map` gave.
    pub(super) fn close_map(&mut self, keys: usize, at: &Path<'_>) {
        let repeated = repeated(&mut self.scratch.map_keys[keys..], self.out);
        self.scratch.map_keys.truncate(keys);
        for key in repeated {
            let name = String::from_utf8_lossy(&self.out[key]).into_owned();
            self.duplicate(&at.name(&name));
        }
    }

    #[cold]
    pub(super) fn duplicate(&mut self, at: &Path<'_>) {
        self.violation(at, Reason::DuplicateField, || "the field comes twice".to_owned());
    }

    pub(super) fn close_record(&mut self, record: &Record, mut frame: Frame, at: &Path<'_>) {
        let in_order = self.scratch.runs.len() == frame.runs && frame.run.fields == (0..record.fields.len());
        if !in_order {
            self.start_run(&mut frame, record.fields.len());
            self.stitch(record, &frame, at);
        }
        if self.scratch.captured_keys.len() > frame.captured_keys {
            self.refuse_repeated_captures(&frame, at);
        }
        self.scratch.runs.truncate(frame.runs);
        self.scratch.seen.truncate(frame.seen);
        self.scratch.captured.truncate(frame.captured);
        self.scratch.captured_keys.truncate(frame.captured_keys);
    }

    fn stitch(&mut self, record: &Record, frame: &Frame, at: &Path<'_>) {
        let mut stitched = std::mem::take(&mut self.scratch.stitched);
        stitched.clear();
        self.scratch.runs[frame.runs..].sort_unstable_by_key(|run| run.fields.start);
        // A first run that already lies where it belongs stays there.
        let (mut field, mut kept) = (0, frame.start);
        for position in frame.runs..self.scratch.runs.len() {
            let Run { fields, bytes } = self.scratch.runs[position].clone();
            if field == 0 && fields.start == 0 && bytes.start == frame.start {
                kept = bytes.end;
            } else {
                self.fill(record, field..fields.start, frame, at, &mut stitched);
                stitched.extend_from_slice(&self.out[bytes]);
            }
            field = fields.end;
        }
        self.fill(record, field..record.fields.len(), frame, at, &mut stitched);
        self.out.truncate(kept);
        self.out.extend_from_slice(&stitched);
        self.scratch.stitched = stitched;
    }

    /// Fields that did not come, or that were kept aside: only a default, or what was captured, can stand for them.
    fn fill(&mut self, record: &Record, fields: Range<usize>, frame: &Frame, at: &Path<'_>, into: &mut Vec<u8>) {
        for index in fields {
            let field = &record.fields[index];
            if record.capture == Some(index) {
                self.fill_capture(field, frame, into);
            } else if let Some(default) = &field.default {
                into.extend_from_slice(default);
            } else {
                self.violation(&at.name(&field.name), Reason::MissingField, || {
                    format!("expected {}, and the schema has no default", field.node.describe())
                });
            }
        }
    }

    fn fill_capture(&self, field: &Field, frame: &Frame, into: &mut Vec<u8>) {
        let count = self.scratch.captured_keys.len() - frame.captured_keys;
        if let (0, None, Some(default)) = (count, &frame.given, &field.default) {
            into.extend_from_slice(default);
            return;
        }
        // A map is a row of blocks; the given one's end, a zero, is left out and ours comes after both.
        if let Some([blocks @ .., 0]) = frame.given.clone().map(|given| &self.out[given]) {
            into.extend_from_slice(blocks);
        }
        if count > 0 {
            put_long(count.try_into().unwrap_or(i64::MAX), into);
            into.extend_from_slice(&self.scratch.captured[frame.captured..]);
        }
        into.push(0);
    }

    /// Captured names among themselves, and with those of the map that the event gave.
    fn refuse_repeated_captures(&mut self, frame: &Frame, at: &Path<'_>) {
        let Scratch { captured, captured_keys, .. } = &mut *self.scratch;
        let keys = &mut captured_keys[frame.captured_keys..];
        let repeated: Vec<_> = repeated(keys, captured).into_iter().map(|key| captured[key].to_vec()).collect();
        let given = frame.given.clone().map_or(&[][..], |given| &self.out[given]);
        let both =
            given_keys(given).filter(|given| keys.binary_search_by(|key| captured[key.clone()].cmp(given)).is_ok());
        let names: Vec<_> = repeated.into_iter().chain(both.map(<[u8]>::to_vec)).collect();
        for name in names {
            self.duplicate(&at.name(&String::from_utf8_lossy(&name)));
        }
    }
}

/// The keys that occur again. Sorts them; allocates only for what it finds.
fn repeated(keys: &mut [Range<usize>], text: &[u8]) -> Vec<Range<usize>> {
    keys.sort_unstable_by(|left, right| text[left.clone()].cmp(&text[right.clone()]));
    let pairs = keys.windows(2).filter(|pair| text[pair[0].clone()] == text[pair[1].clone()]);
    pairs.map(|pair| pair[1].clone()).collect()
}

/// The keys of a map of strings as this writer left it: one block, or none.
fn given_keys(map: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = map;
    let mut entries = take_long(&mut rest).unwrap_or(0);
    std::iter::from_fn(move || {
        entries = entries.checked_sub(1)?;
        let key = take_bytes(&mut rest)?;
        take_bytes(&mut rest)?;
        Some(key)
    })
}

fn take_bytes<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = take_long(rest)?;
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

/// A length or a count; both are never negative here.
fn take_long(rest: &mut &[u8]) -> Option<usize> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7F) << shift;
        if *byte < 0x80 {
            return usize::try_from(value >> 1).ok();
        }
    }
    None
}
