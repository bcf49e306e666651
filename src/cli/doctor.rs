//! `objfs doctor`: what this machine lacks, and what to do about it.
//!
//! Owns: its layout, and when it counts as a failure. Does not own: what is looked at (`daemon::doctor`).

use super::exit_code::{ExitCode, Failure};
use super::out;
use crate::daemon::doctor::{Rating, examine};

/// `objfs doctor`.
///
/// # Errors
/// Something keeps mounts from working.
pub(super) fn run() -> Result<(), Failure> {
    let mut problems = 0;
    for finding in examine() {
        let rating = match finding.rating {
            Rating::Good => "ok",
            Rating::Hint => "hint",
            Rating::Problem => {
                problems += 1;
                "PROBLEM"
            }
        };
        out(&format!("{rating:<8} {}", finding.what))?;
        if let Some(advice) = finding.advice {
            out(&format!("{:<8} {advice}", ""))?;
        }
    }
    match problems {
        0 => Ok(()),
        _ => Err(Failure::new(ExitCode::MountFailure, "mounts will fail until the problems above are solved")),
    }
}
