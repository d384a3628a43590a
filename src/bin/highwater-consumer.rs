//! `highwater-consumer`: the command line goes to the library, and an exit code comes back.

use std::process::ExitCode;

fn main() -> ExitCode {
    highwater::consumer::cli::main(std::env::args_os())
}
