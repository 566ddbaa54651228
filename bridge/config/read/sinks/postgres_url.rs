//! PostgreSQL's connection strings, with libpq's `sslmode` in full: tokio-postgres knows `disable`, `prefer` and
//! `require` only.

/// What of the server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verify {
    Nothing,
    /// That an authority which we trust has signed it.
    Chain,
    /// The chain, and that it was made out to the host that we call.
    Host,
}

/// What is wrong with a connection string. No message repeats a part of it: the password is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("its sslmode is not one of disable, prefer, require, verify-ca, verify-full")]
    SslMode,
    /// The parser's own text says which key, never its value.
    #[error("the connection string cannot be read")]
    ConnectionString(#[source] tokio_postgres::Error),
}

/// Reads `url`, an address (`postgres://…`) or `key=value` pairs.
///
/// # Errors
/// [`Error`].
pub(crate) fn read(url: &str) -> Result<(tokio_postgres::Config, Verify), Error> {
    let (url, verify) = sslmode_of(url)?;
    Ok((url.parse().map_err(Error::ConnectionString)?, verify))
}

/// The string with a `sslmode` that tokio-postgres knows, and what is checked: nothing for `prefer` and `require`, as
/// libpq documents (PostgreSQL documentation, 34.19.1); the chain for `verify-ca`; the name too for `verify-full`.
fn sslmode_of(url: &str) -> Result<(String, Verify), Error> {
    const KEY: &str = "sslmode";
    // In an address it is a parameter; what looks like it before the question mark is a name or a password.
    let is_address = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let from = if is_address { url.find('?').unwrap_or(url.len()) } else { 0 };
    let Some(at) = url[from..].rfind(KEY) else { return Ok((url.to_owned(), Verify::Nothing)) };
    let after = &url[from + at + KEY.len()..];
    let Some(value) = after.trim_start().strip_prefix('=').map(str::trim_start) else {
        return Ok((url.to_owned(), Verify::Nothing));
    };
    let mode = value.trim_start_matches('\'').split(['&', ' ', '\'']).next().unwrap_or_default();
    let verify = match mode {
        "disable" | "prefer" | "require" => return Ok((url.to_owned(), Verify::Nothing)),
        "verify-ca" => Verify::Chain,
        "verify-full" => Verify::Host,
        _ => return Err(Error::SslMode),
    };
    let start = url.len() - value.len();
    Ok((format!("{}{}", &url[..start], value.replacen(mode, "require", 1)), verify))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sslmode_of_libpq_is_read() {
        for (url, expected, verify) in [
            ("postgres://u@h/d", "postgres://u@h/d", Verify::Nothing),
            ("postgres://u@h/d?sslmode=require", "postgres://u@h/d?sslmode=require", Verify::Nothing),
            ("postgres://u@h/d?sslmode=verify-full&a=b", "postgres://u@h/d?sslmode=require&a=b", Verify::Host),
            ("host=h sslmode='verify-ca' user=u", "host=h sslmode='require' user=u", Verify::Chain),
            ("host=h sslmode = verify-full", "host=h sslmode = require", Verify::Host),
            ("postgres://u:sslmode@h/d", "postgres://u:sslmode@h/d", Verify::Nothing),
            ("postgres://u:sslmode=x@h/d", "postgres://u:sslmode=x@h/d", Verify::Nothing),
        ] {
            assert_eq!(sslmode_of(url).unwrap(), (expected.to_owned(), verify), "{url}");
        }
        assert!(matches!(sslmode_of("host=h sslmode=always"), Err(Error::SslMode)));
        assert_eq!(read("postgres://u@h/d?sslmode=verify-full").unwrap().1, Verify::Host);
    }
}
