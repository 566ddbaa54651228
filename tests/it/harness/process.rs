//! Processes that end with this one, whatever ends it.
//!
//! Rust drops no statics, and `kill -9` runs no destructor at all. So one small shell, the reaper, holds the reading
//! end of a pipe whose writing end only this process has. It is told what was started; when the pipe closes, for
//! whatever reason, it ends what is left and removes the temporary folders.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How much of a log a failure shows.
const TAIL_LINES: usize = 60;

/// Reads `group SIGNAL PGID`, `forget PGID` and `folder PATH`; at the end of the pipe it sends each group its signal,
/// gives them three seconds, kills what is left, and removes the folders.
const REAPER: &str = r#"
groups=''
folders=''
while read -r verb first rest; do
  case $verb in
    group) groups="$groups $first:$rest" ;;
    forget)
      kept=''
      for group in $groups; do [ "${group#*:}" = "$first" ] || kept="$kept $group"; done
      groups=$kept ;;
    folder) folders="$folders $first" ;;
  esac
done
for group in $groups; do kill -s "${group%%:*}" -- "-${group#*:}"; done
tries=0
while [ "$tries" -lt 30 ]; do
  alive=''
  for group in $groups; do if kill -s 0 -- "-${group#*:}"; then alive=yes; fi; done
  [ -n "$alive" ] || break
  sleep 0.1
  tries=$((tries + 1))
done
for group in $groups; do kill -s KILL -- "-${group#*:}"; done
[ -z "$folders" ] || rm -rf -- $folders
"#;

static REAPER_PIPE: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| {
    // A group of its own: Ctrl-C in a terminal must reach us and not it.
    // No inherited output either: whoever reads ours would wait for its end as well.
    #[allow(clippy::zombie_processes, reason = "it outlives us: our end is what it waits for")]
    let mut shell = Command::new("sh")
        .args(["-c", REAPER])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("`sh` starts");
    Mutex::new(shell.stdin.take().expect("its standard input is a pipe"))
});

fn tell_reaper(line: &str) {
    let mut pipe = REAPER_PIPE.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(pipe, "{line}").expect("the reaper lives as long as we do");
}

/// The folder of this run, removed when the run ends; `HOOKBRIDGE_TEST_KEEP=1` keeps it.
static RUN_FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = tempfile::Builder::new().prefix("hookbridge-it-").tempdir().expect("a temporary folder").keep();
    assert!(
        !folder.to_string_lossy().contains(char::is_whitespace),
        "{}: the reaper wants no blanks",
        folder.display()
    );
    // Postgres runs as another user and has to pass through.
    make_passable(&folder);
    if std::env::var_os("HOOKBRIDGE_TEST_KEEP").is_none() {
        tell_reaper(&format!("folder {}", folder.display()));
    }
    folder
});

fn make_passable(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("our own folder");
}

/// A new folder of that name below the run's own, for logs and data.
pub(crate) fn folder(name: &str) -> PathBuf {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let folder = RUN_FOLDER.join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir_all(&folder).expect("a folder below the run's own");
    folder
}

/// A port that is free now and was not given out before by this process.
///
/// Taken below the range from which the kernel serves outgoing connections, so that no client's connection can sit on
/// it before its server has started. Where to start differs between processes that run at once.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 15_000;
    const PORTS: u16 = 15_000;
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let mixed = std::process::id().wrapping_mul(0x9E37_79B9) >> 16;
        AtomicU16::new(u16::try_from(mixed % u32::from(PORTS)).expect("smaller than PORTS"))
    });
    for _ in 0..PORTS {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}

#[derive(Debug, Default)]
struct Seen {
    ready: bool,
    ended: bool,
}

/// A child process in a process group of its own, its output in a file.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    reaped: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`, writing what it says to `log`. `is_ready` is asked about every line until it says yes.
    /// `signal` is what ends it in good order (`TERM`, or `QUIT` for Postgres) where this process dies before it.
    pub(crate) fn start(
        name: &str,
        mut command: Command,
        log: &Path,
        signal: &str,
        is_ready: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Self, String> {
        let (reader, writer) = io::pipe().map_err(|error| format!("{name}: no pipe: {error}"))?;
        let other = writer.try_clone().map_err(|error| format!("{name}: no pipe: {error}"))?;
        let file = File::options().create(true).append(true).open(log);
        let file = file.map_err(|error| format!("{name}: {}: {error}", log.display()))?;
        command.stdin(Stdio::null()).stdout(writer).stderr(other).process_group(0);
        let child = command
            .spawn()
            .map_err(|error| format!("{name} does not start ({}): {error}", command.get_program().to_string_lossy()))?;
        // Our copies of the writing end go with the command: the pipe must end with the child.
        drop(command);
        tell_reaper(&format!("group {signal} {}", child.id()));
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let watcher = Arc::clone(&seen);
        std::thread::spawn(move || follow(reader, file, &watcher, is_ready));
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), seen, reaped: None })
    }

    /// Waits for the line that says it is ready.
    pub(crate) fn wait_ready(&self, bound: Duration) -> Result<(), String> {
        let seen = self.wait(bound, |seen| seen.ready || seen.ended);
        match seen {
            (true, _) => Ok(()),
            (false, true) => Err(format!("{} ended instead of starting\n{}", self.name, self.tail())),
            (false, false) => Err(format!("{} is not ready after {bound:?}\n{}", self.name, self.tail())),
        }
    }

    /// Waits for its end, which is the end of its output.
    pub(crate) fn wait_ended(&mut self, bound: Duration) -> Result<ExitStatus, String> {
        if let Some(status) = self.reaped {
            return Ok(status);
        }
        let (_, ended) = self.wait(bound, |seen| seen.ended);
        if !ended {
            return Err(format!("{} still runs after {bound:?}\n{}", self.name, self.tail()));
        }
        let status = self.child.wait().map_err(|error| format!("{}: {error}", self.name))?;
        tell_reaper(&format!("forget {}", self.child.id()));
        self.reaped = Some(status);
        Ok(status)
    }

    fn wait(&self, bound: Duration, enough: impl Fn(&Seen) -> bool) -> (bool, bool) {
        let (seen, changed) = &*self.seen;
        let guard = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(guard, bound, |seen| !enough(seen));
        let (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (guard.ready, guard.ended)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, by its own will or ours.
    pub(crate) fn has_ended(&self) -> bool {
        self.wait(Duration::ZERO, |_| true).1
    }

    /// Sends a signal to the process, and returns at once.
    pub(crate) fn signal(&self, signal: &str) {
        if self.reaped.is_some() {
            return;
        }
        // The shell's own `kill`: a slim image has no other.
        let sent = Command::new("sh").args(["-c", &format!("kill -s {signal} {}", self.child.id())]).output();
        sent.expect("`sh` starts");
    }

    /// What a power cut is to a process.
    pub(crate) fn kill9(&mut self) {
        if self.reaped.is_none() {
            // It may have ended by itself in the meantime, which is as good.
            let _ = self.child.kill();
            self.wait_ended(Duration::from_secs(30)).expect("nothing survives SIGKILL");
        }
    }

    /// The end of what it said.
    pub(crate) fn tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The last lines of a log, for the message of a failure.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    format!("--- {} ({} lines, the last {}):\n{}\n---", log.display(), lines.len(), shown.len(), shown.join("\n"))
}

fn follow(
    reader: io::PipeReader,
    mut file: File,
    (seen, changed): &(Mutex<Seen>, Condvar),
    is_ready: impl Fn(&str) -> bool,
) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    let mut ready = false;
    while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        // A full disk must not block the child on its pipe; the test that needs the line fails by itself.
        let _ = file.write_all(&line);
        if !ready && is_ready(&String::from_utf8_lossy(&line)) {
            ready = true;
            seen.lock().unwrap_or_else(PoisonError::into_inner).ready = true;
            changed.notify_all();
        }
        line.clear();
    }
    seen.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
    changed.notify_all();
}

/// Runs a command to its end and returns its standard output, or an error that holds all it said.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<Vec<u8>, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{what}: `{program}`: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{what}: `{program}` ended with {}\n{}", output.status, String::from_utf8_lossy(&said)))
}

/// Prints a line of progress past the test harness's capture, with the time since the first one.
pub(crate) fn progress(text: &str) {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let elapsed = START.elapsed().as_secs_f32();
    // `eprintln!` is captured and shown for failed tests only; a person who waits for a download must see it now.
    let _ = writeln!(io::stderr(), "[it {elapsed:5.1}s] {text}");
}
