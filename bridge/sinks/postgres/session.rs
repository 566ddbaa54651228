//! Connections to PostgreSQL: a few that are kept, each with limits set so that nothing waits for ever.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use postgres_native_tls::MakeTlsConnector;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::{Client, Config};

use super::failure::Failure;
use crate::config::postgres_url::{self, Verify};

/// Connections, and so transactions, at once: each partition waits for one round trip to disk, and a few of them side
/// by side keep the disk busy; more would take connections (PostgreSQL's default is 100) from the database's own users.
pub const SESSIONS: usize = 4;

/// For one server; a database that takes longer to shake hands is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For connecting with everything around it (TLS, authentication, several hosts, the settings below).
const OPEN_DEADLINE: Duration = Duration::from_secs(15);

/// Set on each connection.
/// - `lock_timeout`: a bridge that was stopped while it held a partition's row must not block its successor for long;
///   short of `idle_in_transaction_session_timeout`, so that the wait is seen and repeated.
/// - `idle_in_transaction_session_timeout`: the server ends such a bridge's transaction itself and frees the row.
/// - `statement_timeout`: a batch takes milliseconds; one that takes this long is stuck.
/// - `TimeZone`: texts of timestamps carry their zone; nothing else may depend on the server's.
const SETTINGS: &str = "SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '10s'; \
    SET statement_timeout = '20s'; SET TimeZone = 'UTC'";

/// Why there can be no connections.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Url(#[from] postgres_url::Error),
    #[error("TLS cannot be set up")]
    Tls(#[source] native_tls::Error),
}

pub(super) struct Sessions {
    config: Config,
    tls: MakeTlsConnector,
    permits: Semaphore,
    idle: Mutex<Vec<Client>>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The configuration holds a password.
        f.write_str("Sessions")
    }
}

impl Sessions {
    pub(super) fn new(url: &str) -> Result<Self, Error> {
        let (mut config, verify) = postgres_url::read(url)?;
        if config.get_application_name().is_none() {
            config.application_name("hookbridge");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        // A server that vanished without a word is noticed in under half a minute, whether we wait or have just sent.
        config.keepalives(true).keepalives_idle(Duration::from_secs(10)).keepalives_interval(Duration::from_secs(5));
        config.keepalives_retries(3).tcp_user_timeout(Duration::from_secs(20));
        let connector = native_tls::TlsConnector::builder()
            .danger_accept_invalid_certs(verify == Verify::Nothing)
            .danger_accept_invalid_hostnames(verify != Verify::Host)
            .build()
            .map_err(Error::Tls)?;
        let tls = MakeTlsConnector::new(connector);
        Ok(Self { config, tls, permits: Semaphore::new(SESSIONS), idle: Mutex::new(Vec::new()) })
    }

    /// A connection of one's own, waiting for a free place among [`SESSIONS`].
    pub(super) async fn open(&self) -> Result<Session<'_>, Failure> {
        let permit = self.permits.acquire().await.map_err(|_| Failure::transient("the sink is closing"))?;
        let idle = self.idle().pop();
        let client = match idle {
            Some(client) if !client.is_closed() => client,
            _ => tokio::time::timeout(OPEN_DEADLINE, self.connect())
                .await
                .map_err(|_| Failure::transient("connecting took too long"))??,
        };
        Ok(Session { client, home: self, _permit: permit })
    }

    async fn connect(&self) -> Result<Client, Failure> {
        let (client, connection) =
            self.config.connect(self.tls.clone()).await.map_err(|error| Failure::of_session(&error))?;
        tokio::spawn(async move {
            // Ends when the client is dropped, or with the connection; whoever waits on the client is told why.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to postgres ended");
            }
        });
        client.batch_execute(SETTINGS).await.map_err(|error| Failure::of_session(&error))?;
        Ok(client)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection while one transaction has it. Dropped, it is closed, and the server rolls back what it had open;
/// only [`Session::keep`] gives it back for others.
pub(super) struct Session<'a> {
    client: Client,
    home: &'a Sessions,
    _permit: SemaphorePermit<'a>,
}

impl Session<'_> {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Gives the connection back: nothing is open on it.
    pub(super) fn keep(self) {
        if !self.client.is_closed() {
            self.home.idle().push(self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_never_prints() {
        let sessions = Sessions::new("postgres://u:hunter2@h/d").unwrap();
        assert_eq!(format!("{sessions:?}"), "Sessions");
        let error = Sessions::new("postgres://u:hunter2@h/d?nonsense=hunter3").unwrap_err();
        let source = std::error::Error::source(&error).unwrap();
        assert!(!format!("{error} {source} {source:?}").contains("hunter"), "{source}");
    }
}
