//! A real Apache Kafka broker: KRaft, one node that is broker and controller.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::{Process, folder, free_port, run};
use super::proxy::Proxy;

/// A JVM on two shared cores may take its time; a start that hangs is worse than a slow one.
const START: Duration = Duration::from_secs(120);

/// A broker that can go down and come back on the same port with the same data.
#[derive(Debug)]
pub(crate) struct Kafka {
    classpath: String,
    folder: PathBuf,
    port: u16,
    /// A second listener, and the port under which it tells clients that it is reached: a proxy's, where one listens.
    behind: (u16, u16),
    process: Process,
}

impl Kafka {
    /// Formats a new log folder and starts a broker on it.
    pub(crate) fn start(classpath: &str) -> Result<Self, String> {
        let folder = folder("kafka");
        let port = free_port();
        let behind = (free_port(), free_port());
        let settings = folder.join("server.properties");
        fs::write(&settings, properties(&folder, port, behind, free_port())).map_err(|error| error.to_string())?;
        fs::write(folder.join("log4j2.properties"), LOGGING).map_err(|error| error.to_string())?;
        let mut format = java(classpath, &folder, "64m", "kafka.tools.StorageTool");
        format.args(["format", "-t", "aG9va2JyaWRnZS1pdC0wMQ", "-c"]).arg(&settings);
        run("formatting Kafka's log folder", &mut format)?;
        let process = launch(classpath, &folder)?;
        process.wait_ready(START)?;
        Ok(Self { classpath: classpath.to_owned(), folder, port, behind, process })
    }

    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A proxy before this broker; clients that start from its port never get past it. One a broker.
    pub(crate) fn proxied(&self) -> Proxy {
        let (target, port) = self.behind;
        Proxy::start(port, target)
    }

    /// The broker is gone from one moment to the next, and clients see connections refused.
    pub(crate) fn kill9(&mut self) {
        self.process.kill9();
    }

    /// The broker hangs: connections stay open and nothing answers.
    pub(crate) fn freeze(&self) {
        self.process.signal("STOP");
    }

    pub(crate) fn thaw(&self) {
        self.process.signal("CONT");
    }

    /// Comes back on the same port with the same data.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        self.process.kill9();
        self.process = launch(&self.classpath, &self.folder)?;
        self.process.wait_ready(START)
    }
}

fn launch(classpath: &str, folder: &Path) -> Result<Process, String> {
    let mut command = java(classpath, folder, "512m", "kafka.Kafka");
    command.arg(folder.join("server.properties"));
    Process::start("Kafka", command, &folder.join("kafka.log"), "KILL", |line| line.contains("Kafka Server started"))
}

fn java(classpath: &str, folder: &Path, heap: &str, main: &str) -> Command {
    let mut command = Command::new("java");
    command
        .arg(format!("-Xmx{heap}"))
        // One small heap, few cores: the serial collector and the first compiler start fastest and hold least memory.
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .arg(format!("-Dlog4j2.configurationFile={}", folder.join("log4j2.properties").display()))
        .args(["-cp", classpath, main])
        .current_dir(folder);
    command
}

fn properties(folder: &Path, port: u16, (behind, proxy): (u16, u16), controller: u16) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{behind},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
# A topic comes into being because somebody asked for it, never because somebody wrote to it.
auto.create.topics.enable=false
# One broker: what Kafka keeps for itself has one replica, too.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# A consumer that was killed is missed after its own session timeout; the broker must allow short ones.
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
num.network.threads=2
num.io.threads=4
log.cleaner.enable=false
",
        data = folder.join("data").display()
    )
}

/// To standard output, where the line that says "started" is awaited.
const LOGGING: &str = "status = error
appender.stdout.type = Console
appender.stdout.name = STDOUT
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d{HH:mm:ss.SSS} %-5p %c{1} %m%n
rootLogger.level = info
rootLogger.appenderRef.stdout.ref = STDOUT
";
