//! `hookbridge run`, `dev` and `schema register`: the commands that talk to the world.

use std::io::{self, Write};

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::check::{compiled, logging};
use super::{Common, Exit, report};
use crate::app::{self, Ask, Mode, Reloads, Stop};
use crate::schema::registry::Registry;

pub(super) const EXAMPLES: &str = "\
It waits for Kafka, its leaders and the registry for as long as they are away, and says for what: in the log and on \
`/readyz` of `admin.listen`. SIGHUP reads the configuration again; SIGTERM and Ctrl-C end what is under way and stop, \
a second one stops at once.

Examples:
  hookbridge run
  hookbridge run --config /etc/hookbridge.yaml --log hookbridge=debug
  curl -s http://127.0.0.1:9000/readyz

Exit codes: 0 it was stopped, 2 usage, 69 an address is in use or a part has failed that it cannot do without, \
78 the configuration, the topics or the schemas are refused, or another process has this one's `instance`";

pub(super) fn run(common: &Common, err: &mut dyn Write) -> io::Result<Exit> {
    if let Some(exit) = logging(common, "info", err)? {
        return Ok(exit);
    }
    let runtime = Runtime::new()?;
    let ended = runtime.block_on(async {
        // Before the file is read: until then a SIGHUP, which asks for nothing but a reload, would end the process.
        let stop = on_signals()?;
        let (ask, reloads) = Reloads::of(&common.config);
        on_hangup(ask)?;
        let compiled = match compiled(common, err)? {
            Ok(compiled) => compiled,
            Err(exit) => return Ok(Err(exit)),
        };
        let mode = Mode { real_cluster: true, observer: None, reloads: Some(reloads) };
        Ok::<_, io::Error>(Ok(app::run(compiled, mode, stop).await))
    })?;
    finish(runtime);
    let ended = match ended {
        Ok(ended) => ended,
        Err(exit) => return Ok(exit),
    };
    match ended {
        Ok(()) => Ok(Exit::Fine),
        Err(error) => {
            report(err, &error, None)?;
            Ok(if error.is_config() { Exit::Config } else { Exit::Unavailable })
        }
    }
}

pub(super) fn dev(common: &Common, options: &crate::dev::Options, err: &mut dyn Write) -> io::Result<Exit> {
    if let Some(exit) = logging(common, "warn", err)? {
        return Ok(exit);
    }
    let runtime = Runtime::new()?;
    let ended = runtime.block_on(async {
        let stop = on_signals()?;
        Ok::<_, io::Error>(Box::pin(crate::dev::run(options, stop)).await)
    })?;
    finish(runtime);
    match ended {
        Ok(()) => Ok(Exit::Fine),
        Err(error) => {
            report(err, &error, error.hint())?;
            Ok(Exit::Unavailable)
        }
    }
}

pub(super) fn register(common: &Common, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Exit> {
    let compiled = match compiled(common, err)? {
        Ok(compiled) => compiled,
        Err(exit) => return Ok(exit),
    };
    let registry = match Registry::new(&compiled.config.registry) {
        Ok(registry) => registry,
        Err(error) => {
            report(err, &error, None)?;
            return Ok(Exit::Config);
        }
    };
    let runtime = Runtime::new()?;
    let mut exit = Exit::Fine;
    for event in compiled.events.values() {
        match runtime.block_on(registry.register(&event.schema)) {
            Ok(registered) => {
                writeln!(out, "{} version {} id {}", event.schema.subject, registered.version, registered.id)?;
            }
            Err(error) => {
                let unreachable = error.is_transient();
                report(err, &error, unreachable.then_some("`registry.url` says where it is looked for"))?;
                exit = if unreachable { Exit::Unavailable } else { Exit::Problems };
                if unreachable {
                    // The next one would wait for it as long.
                    break;
                }
            }
        }
    }
    Ok(exit)
}

/// SIGTERM and SIGINT ask for a stop; a second one ends the process at once, for a person who will not wait.
fn on_signals() -> io::Result<Stop> {
    let (sender, stop) = Stop::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for round in 0..2 {
            tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
            if round == 0 {
                let _ = sender.send(true);
            }
        }
        #[allow(clippy::exit, reason = "the second signal asks for exactly this")]
        std::process::exit(130);
    });
    Ok(stop)
}

/// SIGHUP asks for a reload, as of most servers; one that comes during the start is heard after it.
fn on_hangup(ask: Ask) -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            ask.reload();
        }
    });
    Ok(())
}

/// Ends the runtime without waiting for librdkafka's blocking calls: everything that matters has been flushed.
fn finish(runtime: Runtime) {
    runtime.shutdown_background();
}
