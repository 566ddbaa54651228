//! What went wrong, by what to do next. SQLSTATE classes: PostgreSQL documentation, appendix A.

use std::error::Error as StdError;
use std::io;

use tokio_postgres::error::DbError;

use crate::outcome::Outcome;

/// Why a transaction did not commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// A value in the batch is refused: some event of it will never pass.
    Refused { reason: String },
    /// Nothing to do with one event.
    Answer(Outcome),
    /// The offset row is not as this claim left it.
    Fenced,
    /// COMMIT was sent and no answer came.
    InDoubt,
}

impl Failure {
    pub(super) fn transient(reason: impl Into<String>) -> Self {
        Self::Answer(Outcome::Transient { reason: reason.into() })
    }

    pub(super) fn misconfigured(reason: impl Into<String>) -> Self {
        Self::Answer(Outcome::Misconfigured { reason: reason.into() })
    }

    /// Of a statement that carried events.
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(answer) => {
                let reason = describe(answer);
                match class_of(answer.code().code()) {
                    Class::Data => Self::Refused { reason },
                    Class::Transient => Self::transient(reason),
                    Class::Misconfigured => Self::misconfigured(reason),
                }
            }
            None => Self::of_connection(error),
        }
    }

    /// Of a statement without events (connecting, claiming, looking a table up): no event is to blame.
    pub(super) fn of_session(error: &tokio_postgres::Error) -> Self {
        match Self::of(error) {
            Self::Refused { reason } => Self::misconfigured(reason),
            other => other,
        }
    }

    /// Of CREATE or ALTER: two bridges that do the same at once meet in the catalogue's own unique indexes
    /// (`pg_type`, `pg_class`), and the one that comes second only has to look again.
    pub(super) fn of_ddl(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(answer) if matches!(answer.code().code(), "23505" | "42P07" | "42701" | "42710") => {
                Self::transient(describe(answer))
            }
            _ => Self::of_session(error),
        }
    }

    /// Of COMMIT. A server that says why has rolled back (a deferred constraint, a serialization failure); anything
    /// else, even an administrator's shutdown while a standby was awaited, may have committed.
    pub(super) fn of_commit(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(answer) if matches!(&answer.code().code()[..2], "23" | "40") => Self::of(error),
            _ => Self::InDoubt,
        }
    }

    fn of_connection(error: &tokio_postgres::Error) -> Self {
        let mut causes = Vec::new();
        let mut io_error = false;
        let mut next: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(cause) = next {
            io_error |= cause.is::<io::Error>();
            causes.push(cause.to_string());
            next = cause.source();
        }
        let reason = causes.join(": ");
        // What has a cause that is no IO error is TLS, authentication or the connection string's own contents.
        if io_error || causes.len() == 1 { Self::transient(reason) } else { Self::misconfigured(reason) }
    }

    /// The answer to hand on where a batch cannot be cut any further.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Refused { reason } => Outcome::Rejected { reason },
            Self::Answer(outcome) => outcome,
            Self::Fenced => Outcome::Transient { reason: "the partition's offset row has moved".into() },
            Self::InDoubt => Outcome::Unknown { reason: "the connection broke between COMMIT and its answer".into() },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// An event's value is to blame.
    Data,
    /// It may pass later, without anybody's doing.
    Transient,
    /// A person has to mend something.
    Misconfigured,
}

fn class_of(code: &str) -> Class {
    match code.get(..2).unwrap_or_default() {
        // Data exception; integrity constraint.
        "22" | "23" => Class::Data,
        // Program limit: a value too large for an index. The rest of its class is of statements and tables, not of a row.
        "54" if code == "54000" => Class::Data,
        // Connection; transaction state (25006, read-only: a standby that is about to be promoted); rollback; resources
        // (disk full, too many connections); object not in state (lock_timeout); operator intervention (statement
        // timeout, shutdown, starting up); system; internal. 0A: a plan that an ALTER by somebody else has outdated.
        "08" | "0A" | "25" | "40" | "53" | "55" | "57" | "58" | "XX" => Class::Transient,
        // 28 authentication, 3D database, 3F schema, 42 permission and names, and whatever else there is: held and
        // tried again, with the server's own words in the log.
        _ => Class::Misconfigured,
    }
}

/// The server's message with where it applies. Its DETAIL is left out, for that repeats the event's values.
fn describe(error: &DbError) -> String {
    let mut text = format!("{} (SQLSTATE {}", error.message(), error.code().code());
    for (name, value) in [("table", error.table()), ("column", error.column()), ("constraint", error.constraint())] {
        if let Some(value) = value {
            text.push_str(", ");
            text.push_str(name);
            text.push(' ');
            text.push_str(value);
        }
    }
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_classed_by_what_to_do_next() {
        for (code, expected) in [
            ("22P05", Class::Data),
            ("22021", Class::Data),
            ("22003", Class::Data),
            ("23502", Class::Data),
            ("54000", Class::Data),
            ("54001", Class::Misconfigured),
            ("54011", Class::Misconfigured),
            ("08006", Class::Transient),
            ("25006", Class::Transient),
            ("40001", Class::Transient),
            ("40P01", Class::Transient),
            ("53100", Class::Transient),
            ("53300", Class::Transient),
            ("55P03", Class::Transient),
            ("57014", Class::Transient),
            ("57P03", Class::Transient),
            ("XX000", Class::Transient),
            ("28P01", Class::Misconfigured),
            ("3D000", Class::Misconfigured),
            ("3F000", Class::Misconfigured),
            ("42501", Class::Misconfigured),
            ("42P01", Class::Misconfigured),
            ("42703", Class::Misconfigured),
            ("", Class::Misconfigured),
        ] {
            assert_eq!(class_of(code), expected, "{code}");
        }
    }
}
