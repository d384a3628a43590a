use std::process::ExitCode;

fn main() -> ExitCode {
    highwater::consumer::cli::main(std::env::args_os())
}
