//! What the tests run against, from Maven Central, kept in a folder that survives `cargo test`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::process::{progress, run};

/// The versions that DESIGN section 7 found to work together.
const KAFKA: &str = "4.3.1";
const LOG4J: &str = "2.24.3";
const REGISTRY: &str = "3.0.9";
const POSTGRES: &str = "17.5.0";

const READER_SOURCE: &str = include_str!("../java/Reader.java");
#[allow(dead_code, reason = "for tests/faults")]
const OPERATOR_SOURCE: &str = include_str!("../java/Operator.java");

/// One folder with all that was downloaded.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// `HOOKBRIDGE_TEST_CACHE`, else `target/it-cache`.
    pub(crate) fn open() -> Result<Self, String> {
        let folder = std::env::var_os("HOOKBRIDGE_TEST_CACHE").map(PathBuf::from);
        let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("it-cache"));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Kafka's jars, the client's among them, as a Java classpath.
    pub(crate) fn kafka(&self) -> Result<String, String> {
        let jars = self.item(&format!("kafka-{KAFKA}"), "Apache Kafka (43 MB)", |folder| {
            let project = folder.join("pom.xml");
            fs::write(&project, kafka_project()).map_err(|error| error.to_string())?;
            maven(&["dependency:copy-dependencies", "-DincludeScope=runtime"], |command| {
                command.arg("-f").arg(&project).arg(format!("-DoutputDirectory={}", folder.display()));
            })
        })?;
        Ok(format!("{}/*", jars.display()))
    }

    /// The folder of Apicurio's runner jar and its libraries.
    pub(crate) fn registry(&self) -> Result<PathBuf, String> {
        self.item(&format!("apicurio-{REGISTRY}"), "Apicurio Registry (109 MB)", |folder| {
            copy(&format!("io.apicurio:apicurio-registry-app:{REGISTRY}:tar.gz:all"), folder)?;
            let archive = folder.join(format!("apicurio-registry-app-{REGISTRY}-all.tar.gz"));
            run("unpacking Apicurio", Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(folder))?;
            fs::remove_file(&archive).map_err(|error| error.to_string())
        })
    }

    /// The folder with Postgres' `bin`, `lib` and `share`.
    pub(crate) fn postgres(&self) -> Result<PathBuf, String> {
        let platform = match std::env::consts::ARCH {
            "x86_64" => "linux-amd64",
            "aarch64" => "linux-arm64v8",
            other => return Err(format!("no Postgres binaries for {other}: set POSTGRES_URL to a server of yours")),
        };
        self.item(&format!("postgres-{POSTGRES}"), "Postgres (15 MB)", |folder| {
            let artefact = format!("embedded-postgres-binaries-{platform}");
            copy(&format!("io.zonky.test.postgres:{artefact}:{POSTGRES}"), folder)?;
            let jar = folder.join(format!("{artefact}-{POSTGRES}.jar"));
            run("unpacking Postgres", Command::new("jar").arg("-xf").arg(&jar).current_dir(folder))?;
            let archive = fs::read_dir(folder).map_err(|error| error.to_string())?.flatten().map(|entry| entry.path());
            let archive = archive.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "txz"));
            let archive = archive.ok_or("the jar of Postgres holds no .txz")?;
            need("xz", &["--version"], "Postgres is packed with it: apt-get install xz-utils")?;
            run("unpacking Postgres", Command::new("tar").arg("-xJf").arg(&archive).arg("-C").arg(folder))?;
            fs::remove_file(&archive).and_then(|()| fs::remove_file(&jar)).map_err(|error| error.to_string())
        })
    }

    /// The folder of the compiled reader.
    pub(crate) fn reader(&self) -> Result<PathBuf, String> {
        self.compiled("Reader", READER_SOURCE)
    }

    /// The folder of what ends transactions that hang, compiled.
    #[allow(dead_code, reason = "for tests/faults")]
    pub(crate) fn operator(&self) -> Result<PathBuf, String> {
        self.compiled("Operator", OPERATOR_SOURCE)
    }

    /// The folder of a compiled class, by the content of its source.
    fn compiled(&self, class: &str, text: &str) -> Result<PathBuf, String> {
        use sha2::{Digest, Sha256};
        let digest = hex::encode(Sha256::digest(text));
        let classpath = self.kafka()?;
        let name = format!("{}-{}", class.to_lowercase(), &digest[..16]);
        self.item(&name, &format!("the Java class {class}"), |folder| {
            let source = folder.join(format!("{class}.java"));
            fs::write(&source, text).map_err(|error| error.to_string())?;
            let mut compiler = Command::new("javac");
            compiler.args(["-cp", &classpath, "-d"]).arg(folder).arg(&source);
            run(&format!("compiling the Java class {class}"), &mut compiler).map(drop)
        })
    }

    /// The folder `name`, filled by `fill` where it is not there yet.
    ///
    /// Filled under another name and renamed, so that what is there is whole; under a lock, so that two test runs
    /// that start at once download once.
    fn item(&self, name: &str, what: &str, fill: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
        let folder = self.folder.join(name);
        if folder.is_dir() {
            return Ok(folder);
        }
        let lock = self.folder.join("lock");
        let lock = File::create(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
        lock.lock().map_err(|error| format!("the lock of {}: {error}", self.folder.display()))?;
        if folder.is_dir() {
            return Ok(folder);
        }
        check_java()?;
        progress(&format!("fetching {what}, once"));
        let start = Instant::now();
        let partial = self.folder.join(format!("{name}.partial"));
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial).map_err(|error| format!("{}: {error}", partial.display()))?;
        fill(&partial).map_err(|error| format!("{what}: {error}"))?;
        fs::rename(&partial, &folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        progress(&format!("{what}: there after {:.1} s", start.elapsed().as_secs_f32()));
        Ok(folder)
    }
}

/// A JDK of 17 or later, `javac` and `jar` included, and Maven: what `cargo test` needs besides Rust.
fn check_java() -> Result<(), String> {
    let hint = "the tests start the real Kafka and registry: apt-get install openjdk-17-jdk-headless maven";
    let version = need("javac", &["-version"], hint)?;
    let major = version.split_whitespace().nth(1).and_then(|number| number.split('.').next()?.parse::<u32>().ok());
    if major.is_none_or(|major| major < 17) {
        return Err(format!("`javac -version` says {:?}; 17 or later is needed: {hint}", version.trim()));
    }
    need("mvn", &["--version"], hint)?;
    Ok(())
}

fn need(program: &str, arguments: &[&str], hint: &str) -> Result<String, String> {
    let output = run(program, Command::new(program).args(arguments)).map_err(|error| format!("{error}\n{hint}"))?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

fn copy(artefact: &str, folder: &Path) -> Result<(), String> {
    maven(&["dependency:copy", &format!("-Dartifact={artefact}")], |command| {
        // Without a project of its own, Maven would take one that lies above the working directory.
        command.arg(format!("-DoutputDirectory={}", folder.display())).current_dir(folder);
    })
}

fn maven(goals: &[&str], with: impl FnOnce(&mut Command)) -> Result<(), String> {
    let mut command = Command::new("mvn");
    command.args(["--batch-mode", "--quiet"]).args(goals);
    with(&mut command);
    run("downloading from Maven Central", &mut command).map(drop)
}

fn kafka_project() -> String {
    format!(
        r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>hookbridge</groupId><artifactId>it</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA}</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>{LOG4J}</version></dependency>
  </dependencies>
</project>
"#
    )
}
