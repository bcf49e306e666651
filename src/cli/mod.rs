//! How a person starts and asks objfs.
//!
//! Owns: arguments, mount options, subcommands, what is printed, exit codes. Does not own: S3, mounting, files.

mod args;
mod ask;
mod demo;
mod dev_server;
mod doctor;
mod exit_code;
mod mount;
mod options;
mod pending;
mod storage;

use args::{Arguments, Command, MountHelper};
use clap::Parser;
use exit_code::{ExitCode, Failure};
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

/// Runs the program with these arguments, the first of which is its name. Answers the exit code.
pub fn main(arguments: Vec<OsString>) -> u8 {
    let outcome = match parse(&arguments) {
        Ok(command) => run(command, &arguments),
        Err(e) => {
            // Help and version are errors to clap, but not to whoever asked.
            let code = if e.use_stderr() { ExitCode::Usage } else { ExitCode::Ok };
            return if e.print().is_ok() { code as u8 } else { ExitCode::Usage as u8 };
        }
    };
    match outcome {
        Ok(()) => ExitCode::Ok as u8,
        Err(failure) => {
            // Nowhere else to say it if standard error is closed.
            let _ = writeln!(std::io::stderr(), "objfs: {failure}");
            failure.code as u8
        }
    }
}

/// `mount.objfs` (a link to this program, called by mount(8)) is `objfs mount`.
fn parse(arguments: &[OsString]) -> Result<Command, clap::Error> {
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    if name.is_some_and(|n| n == "mount.objfs") {
        return MountHelper::try_parse_from(arguments).map(|helper| Command::Mount(helper.mount));
    }
    Arguments::try_parse_from(arguments).map(|a| a.command)
}

fn run(command: Command, arguments: &[OsString]) -> Result<(), Failure> {
    match command {
        Command::Mount(args) => mount::run(&args, arguments),
        Command::Umount(args) => ask::umount(&args),
        Command::Status(args) => ask::status(&args),
        Command::Refresh(args) => ask::refresh(&args),
        Command::Sync(args) => pending::sync(&args),
        Command::Retry(args) => pending::retry(&args),
        Command::Export(args) => pending::export(&args),
        Command::Discard(args) => pending::discard(&args),
        Command::Uploads(args) => pending::uploads(&args),
        Command::Ls(args) => ask::ls(&args),
        Command::Demo(args) => demo::run(&args, arguments),
        Command::Doctor => doctor::run(),
        Command::DevServer(args) => dev_server::run(&args),
    }
}

/// Prints a line for people or programs. A reader that has gone away (`| head`) is no failure.
fn out(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(ExitCode::MountFailure, format!("standard output: {e}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
        MountHelper::command().debug_assert();
    }

    #[test]
    fn the_name_decides() {
        let parse = |args: &[&str]| parse(&args.iter().map(OsString::from).collect::<Vec<_>>());
        let mount = parse(&["/sbin/mount.objfs", "s3://b", "/mnt", "-o", "ro", "-n", "-t", "objfs"]);
        assert!(matches!(mount, Ok(Command::Mount(_))));
        assert!(matches!(parse(&["objfs", "mount", "s3://b", "/mnt"]), Ok(Command::Mount(_))));
        assert!(parse(&["objfs", "s3://b", "/mnt"]).is_err());
    }
}
