//! Identifiers as vendors want them: normalised, then hashed. Nothing in gives nothing out: null for null, and for a
//! text with nothing in it, since the hash of nothing is the same for everybody and would make them one person.

use jaq_core::box_iter::box_once;
use jaq_core::native::{bome, unary, v};
use jaq_json::Val;
use openssl::hash::MessageDigest;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Native;
use crate::expr::meter;
use crate::expr::value::{Result, Value, error};

/// ITU-T E.164: at most fifteen digits, country code included. The shortest in use have seven.
const E164_DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

pub(super) fn natives() -> Vec<Native> {
    vec![
        ("sha256", v(0), |cv| bome(of_text(&cv.1, |text| Ok(Some(sha256(text)))))),
        ("md5", v(0), |cv| bome(of_text(&cv.1, |text| md5(text).map(Some)))),
        ("hmac_sha256", v(1), |cv| {
            unary(cv, |value, key| of_text(&value, |text| hmac_sha256(key.str()?, text).map(Some)))
        }),
        ("normalize_email", v(0), |cv| bome(of_text(&cv.1, |text| Ok(Some(text.trim().to_lowercase()))))),
        ("e164", v(0), |cv| box_once(of_text(&cv.1, |text| Ok(e164(text))).map_err(Into::into))),
        ("uuid5", v(1), |cv| {
            unary(cv, |value, space| {
                let space = namespace(space.str()?)?;
                of_text(&value, |text| Ok(Some(Uuid::new_v5(&space, text.as_bytes()).to_string())))
            })
        }),
    ]
}

/// `f` of a text, and null of null and of blank text, where `f` gives none, too.
fn of_text(value: &Value, f: impl Fn(&str) -> Result<Option<String>>) -> Result {
    if let Val::Null = value.val {
        return Ok(Value::default());
    }
    let text = value.str()?;
    meter::bytes(text.len())?;
    meter::steps(1 + text.len() / 64)?;
    if text.trim().is_empty() {
        return Ok(Value::default());
    }
    Ok(f(text)?.map_or_else(Value::default, Value::from))
}

/// In lower-case hex. What is a SHA-256 in hex already stays as it is: many senders hash before they send, and the
/// hash of a hash matches nobody.
fn sha256(text: &str) -> String {
    let hashed = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hashed { text.to_ascii_lowercase() } else { hex::encode(Sha256::digest(text)) }
}

fn md5(text: &str) -> Result<String> {
    let digest = openssl::hash::hash(MessageDigest::md5(), text.as_bytes());
    Ok(hex::encode(digest.map_err(|_| error("this machine's OpenSSL does not offer md5"))?))
}

fn hmac_sha256(key: &str, text: &str) -> Result<String> {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).map_err(|_| error("a key that hmac does not take"))?;
    mac.update(text.as_bytes());
    Ok(hex::encode(mac.finalize().into_bytes()))
}

/// `+` and digits, of a number in international form (`+49 151 …`, `0049 (0)151-…`). A national number is null: without
/// its country it would be somebody else's.
fn e164(text: &str) -> Option<String> {
    let text = text.trim();
    let number = text.strip_prefix('+').or_else(|| text.strip_prefix("00"))?;
    // The trunk zero that some write in brackets is not dialled from abroad.
    let number = number.replace("(0)", "");
    let mut digits = String::from("+");
    for character in number.chars() {
        match character {
            '0'..='9' => digits.push(character),
            ' ' | '\u{a0}' | '-' | '.' | '/' | '(' | ')' => {}
            _ => return None,
        }
    }
    let sound = E164_DIGITS.contains(&(digits.len() - 1)) && !digits.starts_with("+0");
    sound.then_some(digits)
}

/// A namespace by its name in RFC 9562, section 6.6, or any UUID.
fn namespace(text: &str) -> Result<Uuid> {
    match text {
        "dns" => Ok(Uuid::NAMESPACE_DNS),
        "url" => Ok(Uuid::NAMESPACE_URL),
        "oid" => Ok(Uuid::NAMESPACE_OID),
        "x500" => Ok(Uuid::NAMESPACE_X500),
        _ => Uuid::parse_str(text).map_err(|_| error("uuid5's namespace is dns, url, oid, x500 or a UUID")),
    }
}
