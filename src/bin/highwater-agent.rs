use std::process::ExitCode;

fn main() -> ExitCode {
    highwater::agent::cli::main(std::env::args_os())
}
