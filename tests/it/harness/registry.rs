//! A real schema registry: Apicurio, through its Confluent-compatible API.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::process::{Process, folder, free_port};

const START: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(crate) struct Registry {
    port: u16,
    _process: Process,
}

impl Registry {
    /// Starts Apicurio with its schemas in memory.
    pub(crate) fn start(installation: &Path) -> Result<Self, String> {
        let folder = folder("registry");
        let port = free_port();
        let mut command = Command::new("java");
        command
            .args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-Dapicurio.storage.kind=sql", "-Dquarkus.http.host=127.0.0.1"])
            .arg(format!("-Dquarkus.http.port={port}"))
            // Otherwise silent, and the line that says "Listening on" is what we wait for.
            .arg("-Dquarkus.log.category.\"io.quarkus\".level=INFO")
            .arg("-jar")
            .args(
                installation
                    .read_dir()
                    .ok()
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path())
                    .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("-runner.jar"))),
            )
            .current_dir(&folder);
        let ready = |line: &str| line.contains("Listening on:");
        let process = Process::start("Apicurio", command, &folder.join("registry.log"), "KILL", ready)?;
        process.wait_ready(START)?;
        Ok(Self { port, _process: process })
    }

    /// The root of the Confluent-compatible API.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/apis/ccompat/v7", self.port)
    }
}
