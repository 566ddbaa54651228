//! The rows of the fault matrix, each by its name and in a sentence.

use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    F0,
    F1,
    F6,
    F7,
    F8,
    F23,
    F24,
    F26,
    F28,
    F36,
    Twenty,
    F3,
    F4,
    F5,
    F16,
    F18,
    F37,
}

impl Row {
    pub(crate) const ALL: [Self; 17] = [
        Self::F0,
        Self::F1,
        Self::F6,
        Self::F7,
        Self::F8,
        Self::F23,
        Self::F24,
        Self::F26,
        Self::F28,
        Self::F36,
        Self::Twenty,
        Self::F3,
        Self::F4,
        Self::F5,
        Self::F16,
        Self::F18,
        Self::F37,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F0 => "F0",
            Self::F1 => "F1",
            Self::F6 => "F6",
            Self::F7 => "F7",
            Self::F8 => "F8",
            Self::F23 => "F23",
            Self::F24 => "F24",
            Self::F26 => "F26",
            Self::F28 => "F28",
            Self::F36 => "F36",
            Self::Twenty => "twenty",
            Self::F3 => "F3",
            Self::F4 => "F4",
            Self::F5 => "F5",
            Self::F16 => "F16",
            Self::F18 => "F18",
            Self::F37 => "F37",
        }
    }

    /// Those whose runs close the question whether it holds.
    pub(crate) const TWELVE: [Self; 12] = [
        Self::F0,
        Self::F1,
        Self::F3,
        Self::F4,
        Self::F5,
        Self::F6,
        Self::F7,
        Self::F8,
        Self::F18,
        Self::F23,
        Self::F24,
        Self::F28,
    ];

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|row| row.name().eq_ignore_ascii_case(name))
    }

    /// For the published table.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::F0 => "nothing (control)",
            Self::F1 => "`kill -9` of a bridge every 3 to 10 s, started again at once",
            Self::F6 => {
                "`kill -9` of the leader of a partition, of a group's coordinator or of a transaction's; back after 3 to 8 s"
            }
            Self::F7 => "SIGSTOP of a partition's leader for 5 or 20 s, then SIGCONT",
            Self::F8 => "`kill -9` of all three brokers; back after 10 to 30 s",
            Self::F23 => "a third bridge joins and leaves every 2 s, by SIGTERM or `kill -9`",
            Self::F24 => {
                "SIGSTOP of a bridge for 4 to 8 s, past its session of 3 s, at times at the first step of a transaction; its work is taken over; SIGCONT"
            }
            Self::F26 => "Postgres ends every session of the sink, every 0.2 to 2 s",
            Self::F28 => "each event comes 2 to 20 times at once, to both bridges",
            Self::F36 => "SIGTERM of a bridge under load, started again when it has ended",
            Self::Twenty => "each event comes 2 to 20 times at once, to both bridges, while leaders are killed",
            Self::F3 => "`kill -9` of a bridge right after a vendor has answered 2xx, before that is settled",
            Self::F4 => {
                "`kill -9` of a bridge at a step of its transaction; the step's request reaches Kafka never, then, or after its successor's start"
            }
            Self::F5 => "a request that ends a transaction, or sends its offsets, is held for 0.2 to 14 s, then let go",
            Self::F16 => "a vendor answers 503, or 429 with `Retry-After`, or takes the call and answers too late",
            Self::F18 => "a vendor answers 400 to one event in twenty, and at times 401 to all",
            Self::F37 => "any two of F1, F6, F7, F24 and F26 at once",
        }
    }

    /// Requests that bring each event at once, at most.
    pub(crate) fn copies(self) -> u64 {
        if matches!(self, Self::F28 | Self::Twenty) { 20 } else { 1 }
    }

    /// Whether a bridge's counters survive it.
    pub(crate) fn spares_the_bridges(self) -> bool {
        !matches!(self, Self::F1 | Self::F3 | Self::F4 | Self::F23 | Self::F36 | Self::F37)
    }

    /// Whether it is about an HTTP sink.
    pub(crate) fn wants_a_vendor(self) -> bool {
        matches!(self, Self::F3 | Self::F16 | Self::F18)
    }

    /// Whether it is about a Kafka sink.
    pub(crate) fn wants_copies(self) -> bool {
        matches!(self, Self::F4 | Self::F5 | Self::F23)
    }

    /// Whether the bridges speak to the brokers by way of a proxy, which tampers with requests.
    pub(crate) fn wants_a_proxy(self) -> bool {
        matches!(self, Self::F4 | Self::F5 | Self::F24)
    }

    /// The session time-out of the sinks' consumers. Where one is to be frozen within a transaction, so short that its work
    /// is taken over before the transaction's own bounds end it.
    pub(crate) fn session(self) -> Duration {
        Duration::from_secs(if self == Self::F24 { 3 } else { 6 })
    }

    /// Whether no call of a vendor's may be repeated: nothing dies but in good order.
    pub(crate) fn repeats_no_call(self) -> bool {
        matches!(self, Self::F0 | Self::F36)
    }
}
