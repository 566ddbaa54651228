//! Money: the smallest unit into exact decimal text. jq divides in floating point, which cannot hold a cent.

use jaq_core::native::{unary, v};
use jaq_json::{Num, Val};

use super::Native;
use crate::expr::meter;
use crate::expr::value::{Result, Value, error};

/// Digits of an amount in smallest units: the world's money has fifteen.
const MAX_DIGITS: usize = 38;

// ISO 4217, list one, by the digits after the decimal point.
const NONE: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF";
const THREE: &str = "BHD IQD JOD KWD LYD OMR TND";
const FOUR: &str = "CLF UYW";
const TWO: &str = "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD \
    CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD \
    HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR \
    MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD \
    SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER \
    ZAR ZMW ZWG";

pub(super) fn natives() -> Vec<Native> {
    vec![("minor_units", v(1), |cv| unary(cv, |amount, currency| minor_units(&amount, &currency)))]
}

fn minor_units(amount: &Value, currency: &Value) -> Result {
    meter::steps(2)?;
    let units = match &amount.val {
        Val::Null => return Ok(Value::default()),
        Val::Num(number @ (Num::Int(_) | Num::BigInt(_))) => number.to_string(),
        Val::TStr(_) => amount.str()?.to_owned(),
        _ => return Err(error("minor_units takes a whole number of the currency's smallest unit")),
    };
    let code = currency.str().map_err(|_| error(format!("minor_units takes a currency's code, and got {currency}")))?;
    let Some(digits) = fraction_digits(code) else {
        return Err(error("minor_units does not know this currency; it takes the codes of ISO 4217"));
    };
    let (sign, whole) = units.strip_prefix('-').map_or(("", units.as_str()), |whole| ("-", whole));
    if whole.is_empty() || whole.len() > MAX_DIGITS || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(error(format!("minor_units takes a whole number of at most {MAX_DIGITS} digits")));
    }
    let padded = format!("{whole:0>width$}", width = digits + 1);
    let (major, minor) = padded.split_at(padded.len() - digits);
    let point = if digits == 0 { "" } else { "." };
    Ok(Value::from(format!("{sign}{major}{point}{minor}")))
}

/// Digits after the decimal point of a currency, whose code may be written small, as Stripe does.
fn fraction_digits(code: &str) -> Option<usize> {
    let listed = |list: &str| list.split(' ').any(|known| known.eq_ignore_ascii_case(code));
    [(TWO, 2), (NONE, 0), (THREE, 3), (FOUR, 4)].into_iter().find(|(list, _)| listed(list)).map(|(_, digits)| digits)
}
