//! The allow-list. What is not on it cannot be called, and what jaq adds in a later version stays out until it is
//! read here and found to be bounded, deterministic and without effects.

/// What a program may call: name and number of arguments.
#[rustfmt::skip]
const CALLABLE: &[(&str, usize)] = &[
    // Values and choices.
    ("empty", 0), ("error", 0), ("error", 1), ("true", 0), ("false", 0), ("null", 0), ("not", 0), ("select", 1),
    ("isempty", 1), ("type", 0), ("values", 0), ("nulls", 0), ("booleans", 0), ("numbers", 0), ("strings", 0),
    ("arrays", 0), ("objects", 0), ("iterables", 0), ("scalars", 0), ("toarray", 0),
    ("isboolean", 0), ("isnumber", 0), ("isstring", 0), ("isarray", 0), ("isobject", 0),
    // Arrays and objects.
    ("length", 0), ("keys", 0), ("keys_unsorted", 0), ("has", 1), ("in", 1), ("contains", 1), ("inside", 1),
    ("map", 1), ("map_values", 1), ("to_entries", 0), ("from_entries", 0), ("with_entries", 1), ("del", 1),
    ("add", 0), ("add", 1), ("any", 0), ("any", 1), ("any", 2), ("all", 0), ("all", 1), ("all", 2), ("flatten", 0),
    ("flatten", 1), ("range", 1), ("range", 2), ("range", 3), ("reverse", 0), ("sort", 0), ("sort_by", 1),
    ("group_by", 1), ("unique", 0), ("unique_by", 1), ("min", 0), ("max", 0), ("min_by", 1), ("max_by", 1),
    ("first", 0), ("first", 1), ("last", 0), ("last", 1), ("nth", 1), ("nth", 2), ("limit", 2), ("skip", 2),
    ("index", 1), ("rindex", 1), ("indices", 1), ("transpose", 0), ("combinations", 0), ("walk", 1), ("recurse", 0),
    ("pick", 1), ("path", 1), ("paths", 0), ("paths", 1), ("getpath", 1), ("setpath", 2), ("delpaths", 1),
    // Text.
    ("tostring", 0), ("tonumber", 0), ("toboolean", 0), ("tojson", 0), ("fromjson", 0), ("join", 1), ("split", 1),
    ("startswith", 1), ("endswith", 1), ("ltrimstr", 1), ("rtrimstr", 1), ("trimstr", 1), ("trim", 0), ("ltrim", 0),
    ("rtrim", 0), ("ascii_downcase", 0), ("ascii_upcase", 0), ("explode", 0), ("implode", 0), ("utf8bytelength", 0),
    ("@text", 0), ("@json", 0), ("@html", 0), ("@uri", 0), ("@urid", 0), ("@sh", 0), ("@base64", 0), ("@base64d", 0),
    // Numbers.
    ("floor", 0), ("ceil", 0), ("round", 0), ("trunc", 0), ("abs", 0), ("fabs", 0), ("sqrt", 0), ("pow", 2),
    ("log", 0), ("log2", 0), ("log10", 0), ("exp", 0), ("exp2", 0), ("exp10", 0), ("fmin", 2), ("fmax", 2),
    ("fmod", 2), ("isnan", 0), ("isinfinite", 0), ("isnormal", 0), ("nan", 0), ("infinite", 0),
    // Times.
    ("todate", 0), ("fromdate", 0), ("todateiso8601", 0), ("fromdateiso8601", 0), ("strftime", 1), ("strptime", 1),
    ("gmtime", 0), ("mktime", 0),
    // Added.
    ("sha256", 0), ("hmac_sha256", 1), ("md5", 0), ("e164", 0), ("normalize_email", 0), ("uuid5", 1),
    ("minor_units", 1),
];

/// Definitions of jaq's that the callable ones lean on, and which a program cannot name.
const INTERNAL: &[(&str, usize)] = &[("recurse", 1), ("totype", 2), ("isfinite", 0)];

/// Definitions of jaq's that lean on what was renamed; `definitions.jq` has ours.
const REPLACED: &[(&str, usize)] = &[("todate", 0)];

/// Functions of jaq's in Rust, by the name that they get here. Those not named are left out.
const RENAMED: &[(&str, usize, &str)] = &[
    ("todateiso8601", 0, "jaq_todateiso8601"),
    ("strftime", 1, "jaq_strftime"),
    ("gmtime", 0, "jaq_gmtime"),
    ("mktime", 0, "jaq_mktime"),
];

/// Those that keep their names.
#[rustfmt::skip]
const NATIVES: &[(&str, usize)] = &[
    ("error_empty", 0), ("path", 1), ("path_value", 1), ("keys_unsorted", 0), ("key_values", 0), ("first", 1),
    ("last", 1), ("limit", 2), ("skip", 2),
    ("floor", 0), ("round", 0), ("ceil", 0), ("utf8bytelength", 0), ("explode", 0), ("implode", 0),
    ("ascii_downcase", 0), ("ascii_upcase", 0), ("reverse", 0), ("min_by_or_empty", 1), ("max_by_or_empty", 1),
    ("escape_sh", 0), ("escape_html", 0), ("encode_uri", 0), ("decode_uri", 0), ("encode_base64", 0),
    ("decode_base64", 0),
    ("fabs", 0), ("sqrt", 0), ("pow", 2), ("log", 0), ("log2", 0), ("log10", 0), ("exp", 0), ("exp2", 0),
    ("exp10", 0), ("trunc", 0), ("fmin", 2), ("fmax", 2), ("fmod", 2),
    ("fromdateiso8601", 0), ("strptime", 1),
];

pub(in crate::expr) fn is_callable(name: &str, arity: usize) -> bool {
    CALLABLE.contains(&(name, arity))
}

/// Whether jaq's definition is taken over.
pub(super) fn is_kept(name: &str, arity: usize) -> bool {
    let it = (name, arity);
    (CALLABLE.contains(&it) || INTERNAL.contains(&it)) && !REPLACED.contains(&it)
}

/// The name that jaq's native gets here, where it is taken over.
pub(super) fn native(name: &'static str, arity: usize) -> Option<&'static str> {
    if NATIVES.contains(&(name, arity)) {
        return Some(name);
    }
    RENAMED.iter().find(|(jaq, n, _)| *jaq == name && *n == arity).map(|(_, _, ours)| *ours)
}

/// Why a program may not call a function, and what to do.
pub(in crate::expr) fn refusal(name: &str, arity: usize) -> String {
    let why = match (name, arity) {
        ("env" | "getenv" | "$ENV", _) => "a program sees the event and nothing of the process",
        ("now" | "localtime" | "strflocaltime" | "date" | "dateadd" | "datesub", _) => {
            "the answer must be the same whenever and wherever it runs; take the time from the event"
        }
        ("input" | "inputs" | "input_line_number" | "input_filename", _) => "there is one event at a time: it is `.`",
        ("debug" | "stderr", _) => "it would write a customer's data to the log; try `hookbridge eval`",
        ("halt" | "halt_error", _) => "it would end the process; use `error` for this event, `empty` for none",
        ("import" | "include" | "module" | "modulemeta" | "get_search_list", _) => "a program is one text in the file",
        ("while" | "until" | "repeat", _) | ("recurse", 1 | 2) => {
            "it may never end, and a program cannot be interrupted; use `..`, `range`, `limit` or `reduce`"
        }
        ("combinations", 1) => "its argument may be a sender's number; use `combinations` on an array of arrays",
        _ => return unknown(name, arity),
    };
    format!("`{name}` is not allowed: {why}")
}

fn unknown(name: &str, arity: usize) -> String {
    let signature = |name: &str, arity: usize| match arity {
        0 => format!("`{name}`"),
        n => format!("`{name}({})`", vec!["…"; n].join("; ")),
    };
    let other_arity = CALLABLE.iter().find(|(known, _)| *known == name);
    let near = CALLABLE
        .iter()
        .map(|(known, n)| (strsim::osa_distance(name, known), known, n))
        .filter(|(distance, known, _)| *distance <= 1 + known.len() / 4)
        .min_by_key(|(distance, ..)| *distance);
    let hint = match (other_arity, near) {
        (Some((known, n)), _) => format!("; it is {}", signature(known, *n)),
        (None, Some((_, known, n))) => format!("; did you mean {}?", signature(known, *n)),
        (None, None) => "; docs/mapping.md lists the functions".to_owned(),
    };
    format!("there is no function {}{hint}", signature(name, arity))
}
