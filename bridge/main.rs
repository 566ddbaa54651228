//! The `hookbridge` command. Everything is in the library: see `bridge/cli.rs` for what it understands.

use std::process::ExitCode;

fn main() -> ExitCode {
    hookbridge::cli::main()
}
