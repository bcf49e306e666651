//! Programs that must be installed, and servers that run beside a test.
//!
//! Owns: finding them, starting them, their end whatever happens. Does not own: what is asked of them.

use crate::world::{eventually, kill};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};

/// Where a program is; if it is not there, the test fails and names the Debian package that has it.
pub(crate) fn need(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers are where only root's path leads.
    let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = dirs.map(|dir| dir.join(program)).find(|at| at.is_file());
    found.unwrap_or_else(|| {
        panic!("{program} is not installed: it is in Debian's package {package}, which scripts/test installs")
    })
}

/// A program that goes on until this is dropped.
pub(crate) struct Running {
    child: Child,
    leads_group: bool,
}

impl Running {
    /// A program that starts no other.
    pub(crate) fn start(command: &mut Command) -> Running {
        Running::spawn(command, false)
    }

    /// A server that makes itself the leader of a session, with all that it starts in it.
    pub(crate) fn start_leader(command: &mut Command) -> Running {
        Running::spawn(command, true)
    }

    fn spawn(command: &mut Command, leads_group: bool) -> Running {
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"));
        Running { child, leads_group }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        if self.leads_group {
            // A negative number means the group: kill(2). There is none yet if it has failed before.
            kill(-pid);
        }
        kill(pid);
        _ = self.child.wait();
    }
}

/// Waits until somebody listens on this port.
pub(crate) fn wait_for_port(port: u16) {
    eventually("a server listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(drop));
}
