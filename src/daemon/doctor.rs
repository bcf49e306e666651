//! What this machine offers a mount, and what somebody without root can do about it.
//!
//! Owns: looking, and what follows from what was seen. Does not own: how it is printed (`cli`), a running mount's health (`status`).

use super::config::{default_cache_dir, default_state_dir};
use super::mounts;
use crate::fuse::READ_AHEAD_KIB;
use nix::unistd::geteuid;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How good what was found is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rating {
    /// As it should be.
    Good,
    /// Works, and could be better.
    Hint,
    /// Mounts fail.
    Problem,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How good it is.
    pub rating: Rating,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// What was seen of the machine.
#[derive(Debug, Clone)]
struct Seen {
    is_root: bool,
    kernel: String,
    device: Result<(), String>,
    /// fusermount3, and whether it may mount.
    helper: Option<(PathBuf, bool)>,
    allows_others: bool,
    has_rule: bool,
    /// Mounts of objfs: where, the device, and how many KiB the kernel reads ahead.
    mounts: Vec<(PathBuf, String, u32)>,
    /// Folders: what for, where, and what is wrong with them, or the bytes that are free.
    folders: Vec<(&'static str, PathBuf, Result<u64, String>)>,
    /// Bytes of memory that are available.
    memory: Option<u64>,
}

/// Looks at this machine, as the user who runs this.
pub fn examine() -> Vec<Finding> {
    findings(&look())
}

/// What follows from what was seen. Pure.
fn findings(seen: &Seen) -> Vec<Finding> {
    let mut all = vec![good(format!("Linux {}", seen.kernel))];
    all.push(match &seen.device {
        Ok(()) => good("/dev/fuse can be opened"),
        Err(e) => problem(
            format!("/dev/fuse cannot be opened: {e}"),
            "Root loads the kernel's module (modprobe fuse) and makes the device usable for all (chmod 0666 /dev/fuse); a \
             container gets it with --device /dev/fuse --cap-add SYS_ADMIN.",
        ),
    });
    if !seen.is_root {
        all.extend(without_root(seen));
    }
    all.push(read_ahead(seen));
    for (mountpoint, device, kib) in &seen.mounts {
        if *kib < READ_AHEAD_KIB {
            let what = format!("{} reads {kib} KiB ahead", mountpoint.display());
            let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
            all.push(hint(what, format!("Until it is unmounted: sudo sh -c 'echo {READ_AHEAD_KIB} > {path}'")));
        }
    }
    for (what, path, state) in &seen.folders {
        let path = path.display();
        all.push(match state {
            Ok(free) => good(format!("{what}: {path}, {} GiB free", free >> 30)),
            Err(e) => problem(
                format!("{what}: {path}: {e}"),
                format!("Name another folder: -o {what}_dir=DIR, on a local disk."),
            ),
        });
    }
    if let Some(memory) = seen.memory.filter(|memory| *memory < 1 << 30) {
        let advice = "-o memory=64M holds less at once; the default is 256M.";
        all.push(hint(format!("only {} MiB of memory are available", memory >> 20), advice));
    }
    all
}

fn without_root(seen: &Seen) -> Vec<Finding> {
    let helper = match &seen.helper {
        Some((path, true)) => good(format!("{} mounts for users", path.display())),
        Some((path, false)) => problem(
            format!("{} may not mount for users: it is not setuid root", path.display()),
            format!("sudo chmod u+s {}", path.display()),
        ),
        None => problem("fusermount3 is not installed, and only root mounts without it", "Install the package fuse3."),
    };
    let others = if seen.allows_others {
        good("other users may be let in with -o allow_other")
    } else {
        hint(
            "only you can look into your mounts, not even services of this machine",
            "To use -o allow_other: echo user_allow_other | sudo tee -a /etc/fuse.conf",
        )
    };
    vec![helper, others]
}

fn read_ahead(seen: &Seen) -> Finding {
    if seen.is_root {
        return good(format!("mounts that root makes read {READ_AHEAD_KIB} KiB ahead"));
    }
    if seen.has_rule {
        return good(format!("a rule of udev lets your mounts read {READ_AHEAD_KIB} KiB ahead"));
    }
    hint(
        "your mounts read 128 KiB ahead, which takes twice the processor time of 1 MiB",
        "Only root can change that, once for all: packaging/60-objfs.rules goes to /etc/udev/rules.d (packaging/install does \
         that), then: sudo udevadm control --reload. Or mount by the systemd unit objfs@.service, as root.",
    )
}

fn good(what: impl Into<String>) -> Finding {
    Finding { rating: Rating::Good, what: what.into(), advice: None }
}

fn hint(what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { rating: Rating::Hint, what: what.into(), advice: Some(advice.into()) }
}

fn problem(what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { rating: Rating::Problem, what: what.into(), advice: Some(advice.into()) }
}

fn look() -> Seen {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").map(drop).map_err(|e| e.to_string());
    let conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    let folders = [("state", default_state_dir()), ("cache", default_cache_dir())];
    Seen {
        is_root: geteuid().is_root(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        device,
        helper: helper(),
        allows_others: conf.lines().any(|line| line.trim() == "user_allow_other"),
        has_rule: has_rule(),
        mounts: mounts::of_type("fuse.objfs").into_iter().filter_map(|(at, dev)| with_read_ahead(at, dev)).collect(),
        folders: folders.map(|(what, path)| (what, path.clone(), usable(&path))).into(),
        memory: available_memory(),
    }
}

fn helper() -> Option<(PathBuf, bool)> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("fusermount3")).find_map(|path| {
        let known = fs::metadata(&path).ok()?;
        Some((path, known.permissions().mode() & libc::S_ISUID != 0))
    })
}

/// udev(7): where rules are.
fn has_rule() -> bool {
    let dirs = ["/etc/udev/rules.d", "/run/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d"];
    let files = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    let mut texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    texts.any(|text| {
        text.lines().any(|line| !line.starts_with('#') && line.contains("bdi") && line.contains("read_ahead_kb"))
    })
}

fn with_read_ahead(at: PathBuf, device: String) -> Option<(PathBuf, String, u32)> {
    let kib = fs::read_to_string(format!("/sys/class/bdi/{device}/read_ahead_kb")).ok()?;
    Some((at, device, kib.trim().parse().ok()?))
}

/// Bytes that are free where a folder is or would be made, or why it cannot be used.
fn usable(path: &Path) -> Result<u64, String> {
    let there = path.ancestors().find(|dir| dir.exists()).unwrap_or(path);
    nix::unistd::access(there, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK)
        .map_err(|e| format!("you may not write to {}: {}", there.display(), e.desc()))?;
    let space = nix::sys::statvfs::statvfs(there).map_err(|e| e.desc().to_owned())?;
    Ok(space.blocks_available().saturating_mul(space.fragment_size()))
}

fn available_memory() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen {
            is_root: false,
            kernel: "6.18".to_owned(),
            device: Ok(()),
            helper: Some(("/usr/bin/fusermount3".into(), true)),
            allows_others: true,
            has_rule: true,
            mounts: vec![("/mnt/a".into(), "0:50".to_owned(), 1024)],
            folders: vec![("state", "/home/u/.local/state/objfs".into(), Ok(5 << 30))],
            memory: Some(8 << 30),
        }
    }

    /// Findings that are not good, rated, with their advice.
    fn bad(seen: &Seen) -> Vec<(Rating, String)> {
        let all = findings(seen).into_iter().filter(|f| f.rating > Rating::Good);
        all.map(|f| (f.rating, f.advice.unwrap())).collect()
    }

    #[test]
    fn nothing_is_said_against_a_good_machine() {
        assert_eq!(bad(&seen()), []);
        assert_eq!(bad(&Seen { is_root: true, helper: None, allows_others: false, has_rule: false, ..seen() }), []);
    }

    #[test]
    fn each_lack_has_its_remedy() {
        use Rating::{Hint, Problem};
        let cases = [
            (Seen { device: Err("Permission denied".to_owned()), ..seen() }, Problem, "chmod 0666 /dev/fuse"),
            (Seen { helper: None, ..seen() }, Problem, "package fuse3"),
            (
                Seen { helper: Some(("/bin/fusermount3".into(), false)), ..seen() },
                Problem,
                "chmod u+s /bin/fusermount3",
            ),
            (Seen { allows_others: false, ..seen() }, Hint, "user_allow_other"),
            (Seen { has_rule: false, ..seen() }, Hint, "60-objfs.rules"),
            (
                Seen { mounts: vec![("/mnt/a".into(), "0:50".to_owned(), 128)], ..seen() },
                Hint,
                "echo 1024 > /sys/class/bdi/0:50/read_ahead_kb",
            ),
            (
                Seen { folders: vec![("cache", "/x".into(), Err("no".to_owned()))], ..seen() },
                Problem,
                "-o cache_dir=DIR",
            ),
            (Seen { memory: Some(200 << 20), ..seen() }, Hint, "memory=64M"),
        ];
        for (seen, rating, words) in cases {
            let bad = bad(&seen);
            assert_eq!(bad.len(), 1, "{bad:?}");
            assert!(bad[0].0 == rating && bad[0].1.contains(words), "{words}: {bad:?}");
        }
    }
}
