//! The `hookbridge` command. Everything is in the library: see `bridge/cli.rs` for what it understands.

use std::process::ExitCode;

/// An event is allocated on a worker and freed on librdkafka's threads or the other way round, which glibc's arenas pay
/// for with locks. The feature `override` gives it to librdkafka as well. See docs/adr/0024.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hookbridge::cli::main()
}
