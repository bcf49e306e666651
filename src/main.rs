//! The program. Owns: nothing but the way into `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(objfs::cli::main(std::env::args_os().collect()))
}
