//! The `groundplan` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    groundplan::cli::main()
}
