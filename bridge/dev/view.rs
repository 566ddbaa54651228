//! What a person sees of `hookbridge dev`: one line for each thing that happens, in the order in which it happens.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use crate::deliver::{Observer, State};
use crate::kafka::TopicPartition;

/// Prints lines to standard output, whole ones, whoever says them.
#[derive(Debug)]
pub(super) struct View {
    out: Mutex<io::Stdout>,
    colour: bool,
}

impl Default for View {
    fn default() -> Self {
        let out = io::stdout();
        // https://no-color.org
        let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, out: Mutex::new(out) }
    }
}

#[derive(Clone, Copy)]
enum Ink {
    Sent,
    Arrived,
    Skipped,
    Amiss,
}

impl View {
    /// Text as it stands.
    pub(super) fn say(&self, text: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody is left to tell where the terminal has gone.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    }

    fn line(&self, ink: Ink, arrow: &str, who: &str, event_type: &str, what: &str) {
        let (on, off) = match (self.colour, ink) {
            (false, _) => ("", ""),
            (true, Ink::Sent) => ("\x1b[36m", "\x1b[0m"),
            (true, Ink::Arrived) => ("\x1b[32m", "\x1b[0m"),
            (true, Ink::Skipped) => ("\x1b[33m", "\x1b[0m"),
            (true, Ink::Amiss) => ("\x1b[31m", "\x1b[0m"),
        };
        self.say(&format!("{on}{arrow} {who:<11}{off} {event_type:<21} {what}"));
    }

    /// A request was answered.
    pub(super) fn answered(&self, source: &str, event_type: &str, accepted: bool, what: &str) {
        self.line(if accepted { Ink::Sent } else { Ink::Amiss }, "──▶", source, event_type, what);
    }

    /// A delivery came in at the local receiver.
    pub(super) fn arrived(&self, sink: &str, event_type: &str, delivery_id: &str) {
        self.line(Ink::Arrived, "  ◀─", sink, event_type, &format!("delivered   {delivery_id}"));
    }

    fn skipped(&self, sink: &str, reason: &str) {
        self.line(Ink::Skipped, "  ✕ ", sink, "", &format!("skipped     {reason}"));
    }
}

impl Observer for View {
    fn attempt(&self, _: &str, _: &'static str) {}

    fn settled(&self, sink: &str, outcome: &'static str, reason: &'static str, _: Option<f64>) {
        if outcome == "skipped" {
            self.skipped(sink, reason);
        }
    }

    fn lag(&self, _: &str, _: &TopicPartition, _: u64) {}

    fn state(&self, sink: &str, state: State) {
        if state != State::Running {
            self.line(Ink::Amiss, "  ! ", sink, "", state.name());
        }
    }
}
