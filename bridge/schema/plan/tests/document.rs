//! JSON documents that know their own texts, and what may be planted in them.

/// A generator's source of randomness: proptest gives (and shrinks) the seed.
#[derive(Debug, Clone)]
pub(in crate::schema) struct Dice(u64);

impl Dice {
    pub(in crate::schema) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    pub(in crate::schema) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(in crate::schema) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub(in crate::schema) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(in crate::schema) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }

    /// Between the two, the second left out.
    pub(in crate::schema) fn among(&mut self, from: i64, to: i64) -> i64 {
        let span = to.wrapping_sub(from).cast_unsigned();
        from.wrapping_add((self.next() % span.max(1)).cast_signed())
    }
}

pub(in crate::schema) fn quote(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// A JSON document with its own texts, and with what may be planted in it.
#[derive(Debug, Clone)]
pub(in crate::schema) enum Doc {
    Leaf { text: String, wrong: Option<(String, &'static str)> },
    Array(Vec<Doc>),
    Object { entries: Vec<Entry>, record: bool },
}

#[derive(Debug, Clone)]
pub(in crate::schema) struct Entry {
    pub(in crate::schema) key: String,
    /// Without a default.
    pub(in crate::schema) required: bool,
    pub(in crate::schema) doc: Doc,
}

impl Doc {
    pub(in crate::schema) fn leaf(text: &(impl ToString + ?Sized), wrong: &str, reason: &'static str) -> Self {
        Self::Leaf { text: text.to_string(), wrong: Some((wrong.to_owned(), reason)) }
    }

    pub(in crate::schema) fn sound(text: &str) -> Self {
        Self::Leaf { text: text.to_owned(), wrong: None }
    }

    pub(in crate::schema) fn tagged(self, tag: Option<&str>) -> Self {
        match tag {
            None => self,
            Some(tag) => {
                let entries = vec![Entry { key: tag.to_owned(), required: false, doc: self }];
                Self::Object { entries, record: false }
            }
        }
    }

    /// The fields of every record, in another order. (A map's order is part of its datum.)
    pub(in crate::schema) fn shuffle(&mut self, dice: &mut Dice) {
        match self {
            Self::Leaf { .. } => {}
            Self::Array(items) => {
                for item in items {
                    item.shuffle(dice);
                }
            }
            Self::Object { entries, record } => {
                if *record {
                    dice.shuffle(entries);
                }
                for entry in entries {
                    entry.doc.shuffle(dice);
                }
            }
        }
    }

    pub(in crate::schema) fn text(&self, dice: &mut Dice) -> String {
        let mut out = String::new();
        self.write(dice, &mut out);
        out
    }

    fn write(&self, dice: &mut Dice, out: &mut String) {
        let mut space = |out: &mut String| out.push_str(["", "", "", " ", "\n\t"][dice.below(5)]);
        match self {
            Self::Leaf { text, .. } => out.push_str(text),
            Self::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    space(out);
                    item.write(&mut Dice(out.len() as u64), out);
                }
                out.push(']');
            }
            Self::Object { entries, .. } => {
                out.push('{');
                for (at, entry) in entries.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    space(out);
                    out.push_str(&quote(&entry.key));
                    space(out);
                    out.push(':');
                    entry.doc.write(&mut Dice(out.len() as u64), out);
                    space(out);
                }
                out.push('}');
            }
        }
    }

    /// Spoils the document here and there, and tells what was planted: pointers and reasons.
    pub(in crate::schema) fn corrupt(
        &mut self,
        pointer: &str,
        dice: &mut Dice,
        planted: &mut Vec<(String, &'static str)>,
    ) {
        match self {
            Self::Leaf { text, wrong } => {
                if let Some((wrong, reason)) = wrong.take().filter(|_| dice.one_in(4)) {
                    *text = wrong;
                    planted.push((pointer.to_owned(), reason));
                }
            }
            Self::Array(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    item.corrupt(&format!("{pointer}/{at}"), dice, planted);
                }
            }
            Self::Object { entries, record } => {
                let record = *record;
                entries.retain_mut(|entry| {
                    let below = format!("{pointer}/{}", entry.key.replace('~', "~0").replace('/', "~1"));
                    if record && entry.required && dice.one_in(8) {
                        planted.push((below, "missing_field"));
                        return false;
                    }
                    entry.doc.corrupt(&below, dice, planted);
                    true
                });
                if record && dice.one_in(8) {
                    let doc = Self::sound(["1e2", "{\"a\": [null, \"]\"]}", "\"\\n\""][dice.below(3)]);
                    let at = dice.below(entries.len() + 1);
                    entries.insert(at, Entry { key: "stray".into(), required: false, doc });
                    planted.push((format!("{pointer}/stray"), "unknown_field"));
                }
                if record && dice.one_in(8) && !entries.is_empty() {
                    let again = entries[dice.below(entries.len())].key.clone();
                    if again != "stray" {
                        entries.push(Entry { key: again.clone(), required: false, doc: Self::sound("[{}]") });
                        planted.push((format!("{pointer}/{again}"), "duplicate_field"));
                    }
                }
            }
        }
    }
}
