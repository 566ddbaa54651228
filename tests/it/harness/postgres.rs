//! A real Postgres server, and a database for each test.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use super::process::{Process, folder, free_port, run};

const START: Duration = Duration::from_secs(120);

/// Who Postgres runs as where we are root, whom it refuses: `nobody`, which every Linux has under this number.
const NOBODY: u32 = 65_534;

#[derive(Debug)]
pub(crate) struct Postgres {
    port: u16,
    _process: Process,
}

impl Postgres {
    pub(crate) fn start(installation: &Path) -> Result<Self, String> {
        let folder = folder("postgres");
        let user = other_user(&folder)?;
        let installation = readable_copy(installation, &folder, user)?;
        let data = folder.join("data");
        let program = |name: &str| {
            let mut command = Command::new(installation.join("bin").join(name));
            command.current_dir(&folder).env("LC_ALL", "C");
            if let Some(user) = user {
                command.uid(user).gid(user);
            }
            command
        };
        let mut initdb = program("initdb");
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]);
        run("initdb", initdb.arg("-D").arg(&data))?;
        let port = free_port();
        let mut postgres = program("postgres");
        postgres.arg("-D").arg(&data).arg("-p").arg(port.to_string());
        // The tests end bridges by force, never the database: what it would lose with the machine is not theirs.
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=200"] {
            postgres.args(["-c", setting]);
        }
        let ready = |line: &str| line.contains("database system is ready to accept connections");
        let process = Process::start("Postgres", postgres, &folder.join("postgres.log"), "QUIT", ready)?;
        process.wait_ready(START)?;
        Ok(Self { port, _process: process })
    }

    /// The database of the server that is always there.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

/// `nobody` where we are root, with `folder` given to it; else nobody else.
fn other_user(folder: &Path) -> Result<Option<u32>, String> {
    let owner = folder.metadata().map_err(|error| error.to_string())?.uid();
    if owner != 0 {
        return Ok(None);
    }
    chown(folder, Some(NOBODY), Some(NOBODY)).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(Some(NOBODY))
}

/// Another user may not reach a cache below root's home: the run's folder it does reach.
fn readable_copy(installation: &Path, folder: &Path, user: Option<u32>) -> Result<PathBuf, String> {
    if user.is_none() {
        return Ok(installation.to_owned());
    }
    let copy = folder.join("installation");
    run("copying Postgres", Command::new("cp").arg("-r").arg(installation).arg(&copy))?;
    Ok(copy)
}

/// A database of one test's own.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) url: String,
}

impl Database {
    /// Creates it on the server of `admin_url`.
    pub(crate) async fn create(admin_url: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("it_{}_{number}_{}", std::process::id(), super::random_name());
        let admin = connect(admin_url).await;
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a new database");
        let mut url = reqwest::Url::parse(admin_url).expect("POSTGRES_URL is a URL");
        url.set_path(&name);
        Self { url: url.into() }
    }

    pub(crate) async fn connect(&self) -> Client {
        connect(&self.url).await
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("Postgres answers");
    tokio::spawn(async move {
        // Where the server goes away, the client's next query says so.
        let _ = connection.await;
    });
    client
}
