//! Whether the process may open as many descriptors as the configuration asks for connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are no webhook's: listeners, logs, connections to brokers (two or three each), the registry, the
/// database and the sinks, and the admin port's.
const OTHERS: u64 = 512;

/// How many connections the process has descriptors for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    Enough,
    /// What the limit leaves, of what was asked for.
    Short {
        connections: usize,
        limit: u64,
    },
}

/// Raises the soft limit as far as `connections` needs and the hard limit allows, and says what that is enough for.
/// No further: what starts other programs may walk through all descriptors that there could be.
#[must_use]
pub fn make_room(connections: usize) -> Room {
    let wanted = (connections as u64).saturating_add(OTHERS);
    let before = getrlimit(Resource::Nofile);
    let raised = raised(before, wanted);
    let now = if raised == before || setrlimit(Resource::Nofile, raised).is_err() { before } else { raised };
    room(connections, now.current)
}

/// What [`make_room`] would say here and now; nothing is changed.
#[must_use]
pub fn room_for(connections: usize) -> Room {
    let wanted = (connections as u64).saturating_add(OTHERS);
    room(connections, raised(getrlimit(Resource::Nofile), wanted).current)
}

fn raised(now: Rlimit, wanted: u64) -> Rlimit {
    let enough = now.current.is_none_or(|limit| limit >= wanted);
    let most = now.maximum.unwrap_or(wanted);
    if enough { now } else { Rlimit { current: Some(wanted.min(most)), ..now } }
}

/// `limit`: none is no limit.
fn room(connections: usize, limit: Option<u64>) -> Room {
    match limit {
        Some(limit) if limit < connections as u64 + OTHERS => {
            // At least one, or the server could say nothing to anybody.
            let left = usize::try_from(limit.saturating_sub(OTHERS)).unwrap_or(usize::MAX).max(1);
            Room::Short { connections: left, limit }
        }
        _ => Room::Enough,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_as_far_as_needed_and_allowed() {
        let limit = |current, maximum| Rlimit { current, maximum };
        assert_eq!(raised(limit(Some(1024), Some(1 << 30)), 4608), limit(Some(4608), Some(1 << 30)));
        assert_eq!(raised(limit(Some(1024), None), 4608), limit(Some(4608), None));
        assert_eq!(raised(limit(Some(1024), Some(4096)), 4608), limit(Some(4096), Some(4096)));
        assert_eq!(raised(limit(Some(8192), Some(8192)), 4608), limit(Some(8192), Some(8192)));
        assert_eq!(raised(limit(None, None), 4608), limit(None, None));
    }

    #[test]
    fn what_the_limit_leaves_is_told() {
        assert_eq!(room(4096, Some(4608)), Room::Enough);
        assert_eq!(room(4096, None), Room::Enough);
        assert_eq!(room(4096, Some(1024)), Room::Short { connections: 512, limit: 1024 });
        assert_eq!(room(4096, Some(256)), Room::Short { connections: 1, limit: 256 });
    }
}
