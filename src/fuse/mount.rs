//! Mounting and unmounting.
//!
//! Owns: mount(2) where we may, fusermount3 where we may not, and taking the mount away again.
//! Does not own: when (`daemon`). fuser's own mounting is not used: after an unmount by somebody else it unmounts the path
//! once more, whoever has mounted there by then.

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::sys::socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair};
use nix::unistd::{getegid, geteuid};
use std::fs::OpenOptions;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How it is mounted.
#[derive(Debug, Clone)]
pub struct MountSettings {
    /// Where.
    pub mountpoint: PathBuf,
    /// What /proc/mounts names as the source. No secrets.
    pub source: String,
    /// Nothing may be changed.
    pub read_only: bool,
    /// Other users may look inside.
    pub allow_other: bool,
    /// noexec, nosuid, nodev and the like, as mount(8) names them.
    pub flags: Vec<String>,
}

/// Why it could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no /dev/fuse.
    #[error("/dev/fuse does not exist: load the kernel module (modprobe fuse), or give the container the device")]
    NoDevice,
    /// /dev/fuse may not be opened.
    #[error("/dev/fuse cannot be opened: {0}")]
    Device(io::Error),
    /// fusermount3 is not installed.
    #[error("fusermount3 was not found: install the package fuse3, or mount as root")]
    NoFusermount,
    /// The kernel or fusermount3 refused.
    #[error("{0}")]
    Refused(String),
}

const DEVICE: &str = "/dev/fuse";

/// Mounts, and answers the descriptor over which the kernel sends its requests.
///
/// # Errors
/// [`MountError`].
pub fn mount(settings: &MountSettings) -> Result<OwnedFd, MountError> {
    if !Path::new(DEVICE).exists() {
        return Err(MountError::NoDevice);
    }
    if geteuid().is_root() { mount_as_root(settings) } else { mount_by_fusermount(settings) }
}

fn mount_as_root(settings: &MountSettings) -> Result<OwnedFd, MountError> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(DEVICE)
        .map_err(MountError::Device)?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        geteuid(),
        getegid()
    );
    if settings.allow_other {
        data.push_str(",allow_other");
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | flags_of(&settings.flags);
    let refused = |e: Errno| MountError::Refused(format!("mount: {}", e.desc()));
    let target = &settings.mountpoint;
    nix::mount::mount(Some(settings.source.as_str()), target, Some("fuse.objfs"), flags, Some(data.as_str()))
        .map_err(refused)?;
    if settings.read_only {
        // Only what is visible is read-only, not the superblock: changes made elsewhere are replayed through it.
        let flags = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        nix::mount::mount(None::<&str>, target, None::<&str>, flags, None::<&str>).map_err(refused)?;
    }
    Ok(device.into())
}

fn flags_of(names: &[String]) -> MsFlags {
    let flag = |name: &String| match name.as_str() {
        "noexec" => MsFlags::MS_NOEXEC,
        "noatime" => MsFlags::MS_NOATIME,
        "nodiratime" => MsFlags::MS_NODIRATIME,
        "relatime" => MsFlags::MS_RELATIME,
        "sync" => MsFlags::MS_SYNCHRONOUS,
        "dirsync" => MsFlags::MS_DIRSYNC,
        _ => MsFlags::empty(),
    };
    names.iter().map(flag).fold(MsFlags::empty(), |all, one| all | one)
}

/// fusermount3 mounts for us and sends the descriptor over a socket (libfuse, util/fusermount.c, `_FUSE_COMMFD`).
fn mount_by_fusermount(settings: &MountSettings) -> Result<OwnedFd, MountError> {
    let refused = |e: Errno| MountError::Refused(format!("socketpair: {}", e.desc()));
    // Without CLOEXEC on the child's end: fusermount3 inherits it.
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::empty()).map_err(refused)?;
    let mut options = format!("fsname={},subtype=objfs,default_permissions,nosuid,nodev", escape(&settings.source));
    if settings.allow_other {
        options.push_str(",allow_other");
    }
    if settings.flags.iter().any(|f| f == "noexec") {
        options.push_str(",noexec");
    }
    let child = Command::new("fusermount3")
        .args(["-o", &options, "--"])
        .arg(&settings.mountpoint)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(no_fusermount)?;
    drop(theirs);
    let fd = receive_fd(&ours);
    let output = child.wait_with_output().map_err(|e| MountError::Refused(e.to_string()))?;
    match fd {
        Ok(Some(fd)) if output.status.success() => Ok(fd),
        _ => Err(MountError::Refused(last_line(&output.stderr))),
    }
}

fn no_fusermount(error: io::Error) -> MountError {
    match error.kind() {
        io::ErrorKind::NotFound => MountError::NoFusermount,
        _ => MountError::Refused(format!("fusermount3: {error}")),
    }
}

/// Commas and backslashes separate options.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,")
}

fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("fusermount3 failed and did not say why").to_owned()
}

#[expect(unsafe_code, reason = "a descriptor received over a socket is a plain number until somebody owns it")]
fn receive_fd(socket: &OwnedFd) -> nix::Result<Option<OwnedFd>> {
    let mut byte = [0u8; 1];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(*fd) }));
        }
    }
    Ok(None)
}

/// Takes the mount away. `lazy`: even if it is in use; it then goes when the last user does.
///
/// # Errors
/// What umount2(2) or fusermount3 says ("busy").
pub fn unmount(mountpoint: &Path, lazy: bool) -> Result<(), MountError> {
    if geteuid().is_root() {
        let flags = if lazy { MntFlags::MNT_DETACH } else { MntFlags::empty() };
        return nix::mount::umount2(mountpoint, flags).map_err(|e| MountError::Refused(e.desc().to_owned()));
    }
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(mountpoint).output().map_err(no_fusermount)?;
    if output.status.success() { Ok(()) } else { Err(MountError::Refused(last_line(&output.stderr))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_with_commas_stays_one_option() {
        assert_eq!(escape("s3://a,b\\c"), "s3://a\\,b\\\\c");
    }

    #[test]
    fn flags_are_given_to_the_kernel_by_their_names() {
        let known = [
            ("noexec", MsFlags::MS_NOEXEC),
            ("noatime", MsFlags::MS_NOATIME),
            ("nodiratime", MsFlags::MS_NODIRATIME),
            ("relatime", MsFlags::MS_RELATIME),
            ("sync", MsFlags::MS_SYNCHRONOUS),
            ("dirsync", MsFlags::MS_DIRSYNC),
        ];
        for (name, flag) in known {
            assert_eq!(flags_of(&[name.to_owned()]), flag, "{name}");
        }
        assert_eq!(flags_of(&["noexec".to_owned(), "sync".to_owned()]), MsFlags::MS_NOEXEC | MsFlags::MS_SYNCHRONOUS);
    }

    #[test]
    fn the_last_line_says_why() {
        assert_eq!(last_line(b"a\nfusermount3: bad mount point /x\n\n"), "fusermount3: bad mount point /x");
        assert!(last_line(b"").contains("did not say why"));
    }
}
