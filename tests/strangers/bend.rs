//! Seeds, bent: what a stranger's bytes look like that are almost right.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

#[path = "../sim/chance.rs"]
#[allow(dead_code, reason = "the simulation needs more of it")]
mod chance;

use chance::Chance;

/// For each reader; all of them together stay below the ten seconds that a person waits for. `HOOKBRIDGE_STRANGERS_SECONDS`
/// gives each more.
const MOMENT: Duration = Duration::from_millis(800);

/// However slow the machine is: each seed as it is, and some of each bent.
const LEAST_FOR_A_SEED: usize = 20;

/// What an input may grow to: longer ones find no more, and cost more.
const MAX_LENGTH: usize = 4 << 10;

/// Numbers at edges, signs of the formats that are read, and characters of several bytes.
const WORDS: &[&[u8]] = &[
    b"0",
    b"-1",
    b"1e400",
    b"2147483648",
    b"-9223372036854775809",
    b"18446744073709551616",
    b"0.1",
    b"NaN",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"[[[[[[[[",
    b"{\"a\":",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"\\",
    b",",
    b":",
    b"=",
    b";",
    b"\n",
    b"\r\n",
    b"  ",
    b"- ",
    b": ",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!int ",
    b"|\n",
    b">\n",
    b"#",
    b"'",
    b"${",
    b"${A:-",
    b"}",
    b"%00",
    b"%",
    b"+",
    b"&",
    b"\0",
    b"\xff",
    b"\xc3\xbc",
    b"\xf0\x9f\xa6\x80",
    b"\xed\xa0\x80",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\xff\xff\xff\xff\x0f",
    b"\x00\x00\x00\x00\x07",
    b"\x02",
    b"v1=",
    b"t=",
];

/// Feeds the seeds, bent, to a reader. The seed of a run that fails is printed with the input.
pub(crate) fn meet(seeds: &[Vec<u8>], reader: fn(&[u8])) {
    assert!(!seeds.is_empty(), "nothing to bend");
    let given = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let moment = given("HOOKBRIDGE_STRANGERS_SECONDS").map_or(MOMENT, Duration::from_secs);
    let seed = given("HOOKBRIDGE_TEST_SEED");
    let seed = seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let mut chance = Chance::new(seed);
    for input in seeds {
        try_one(seed, input, reader);
    }
    let began = Instant::now();
    let least = LEAST_FOR_A_SEED * seeds.len();
    let mut tried = 0;
    while tried < least || began.elapsed() < moment {
        let mut input = seeds[chance.index(seeds.len())].clone();
        for _ in 0..=chance.below(4) {
            bend(&mut input, seeds, &mut chance);
        }
        input.truncate(MAX_LENGTH.max(seeds[0].len()));
        try_one(seed, &input, reader);
        tried += 1;
    }
}

fn try_one(seed: u64, input: &[u8], reader: fn(&[u8])) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| reader(input))) {
        let hex = hex::encode(input);
        eprintln!("HOOKBRIDGE_TEST_SEED={seed}, with {:?}, which is {hex}", String::from_utf8_lossy(input));
        std::panic::resume_unwind(panic);
    }
}

fn bend(input: &mut Vec<u8>, seeds: &[Vec<u8>], chance: &mut Chance) {
    let at = chance.index(input.len() + 1);
    let end = at + chance.index((input.len() - at).min(64) + 1);
    match chance.below(9) {
        0 if at < input.len() => input[at] ^= 1 << chance.below(8),
        1 if at < input.len() => input[at] = chance.next().to_le_bytes()[0],
        2 => drop(input.drain(at..end)),
        3 => {
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
        4 => input.truncate(at),
        // The rest of another, so that parts meet that never stood together.
        5 => {
            let other = &seeds[chance.index(seeds.len())];
            let from = chance.index(other.len() + 1);
            input.splice(at.., other[from..].iter().copied());
        }
        6 => {
            let many = vec![chance.next().to_le_bytes()[0]; chance.index(200)];
            input.splice(at..at, many);
        }
        _ => {
            let word = WORDS[chance.index(WORDS.len())];
            input.splice(at..end, word.iter().copied());
        }
    }
}
