//! Who is measured: objfs and the peers, each with the fast options of its manual.
//!
//! Owns: how each is started and what it is called. Does not own: its process (`mounted`).

use crate::sdk::Place;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a mount is made of.
#[derive(Debug)]
pub(crate) struct Mounting<'a> {
    pub(crate) place: &'a Place,
    /// Ends in a slash.
    pub(crate) prefix: &'a str,
    pub(crate) root: &'a Path,
    /// For state and caches; it outlives a remount.
    pub(crate) folder: &'a Path,
}

/// One of the programs.
#[derive(Debug, Clone)]
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    /// As the program says it.
    pub(crate) version: String,
    /// Fast options, for the report as well.
    pub(crate) options: &'static [&'static str],
    start: fn(&Contestant, &Mounting<'_>) -> std::io::Result<Command>,
}

struct Known {
    name: &'static str,
    program: &'static str,
    version: &'static [&'static str],
    options: &'static [&'static str],
    start: fn(&Contestant, &Mounting<'_>) -> std::io::Result<Command>,
}

/// s3fs: "Performance considerations" of its wiki and s3fs(1). rclone: "VFS Performance" of rclone mount and the S3 page.
/// mount-s3: CONFIGURATION.md. geesefs: its bench/README. goofys: README.
const PEERS: [Known; 5] = [
    Known {
        name: "s3fs",
        program: "s3fs",
        version: &["--version"],
        options: &[
            "use_path_request_style",
            "parallel_count=16",
            "multipart_size=16",
            "multireq_max=100",
            "max_stat_cache_size=2000000",
            "enable_noobj_cache",
            "kernel_cache",
            "big_writes",
            "max_write=131072",
        ],
        start: s3fs,
    },
    Known {
        name: "rclone",
        program: "rclone",
        version: &["version"],
        options: &[
            "--vfs-cache-mode=full",
            "--vfs-read-chunk-size=32M",
            "--buffer-size=32M",
            "--max-read-ahead=1M",
            "--transfers=16",
            "--dir-cache-time=1h",
            "--attr-timeout=1h",
            "--use-server-modtime",
            "--vfs-fast-fingerprint",
            "--no-checksum",
            "--s3-upload-concurrency=8",
            "--s3-chunk-size=16M",
        ],
        start: rclone,
    },
    Known {
        name: "mount-s3",
        program: "mount-s3",
        version: &["--version"],
        options: &["--allow-delete", "--allow-overwrite", "--metadata-ttl=60", "--max-threads=16"],
        start: mount_s3,
    },
    Known {
        name: "geesefs",
        program: "geesefs",
        version: &["--version"],
        options: &["--no-checksum", "--memory-limit=4000", "--max-flushers=32", "--max-parallel-parts=32"],
        start: geesefs,
    },
    Known {
        name: "goofys",
        program: "goofys",
        version: &["--version"],
        options: &["--stat-cache-ttl=60s"],
        start: geesefs,
    },
];

/// objfs as it comes: what it does by default is what is measured.
pub(crate) fn ours(program: &Path) -> Contestant {
    let version = first_line(Command::new(program).arg("--version"));
    Contestant { name: crate::figures::OBJFS, program: program.to_owned(), version, options: &[], start: objfs }
}

/// objfs again, with closes that wait for the journal only: measured when it is asked for by this name, as if it were a peer.
const BACK: &str = "objfs-back";

/// The peers that are installed, limited to `names` if there are any.
///
/// # Errors
/// A name that is not known, or not installed.
pub(crate) fn peers(names: &[String], ours: &Contestant) -> anyhow::Result<Vec<Contestant>> {
    if let Some(unknown) = names.iter().find(|n| *n != BACK && !PEERS.iter().any(|known| known.name == **n)) {
        anyhow::bail!("there is no peer {unknown:?}, but {}, {BACK}", PEERS.map(|known| known.name).join(", "));
    }
    let mut found = Vec::new();
    if names.iter().any(|name| name == BACK) {
        found.push(Contestant { name: BACK, options: &["write=back"], ..ours.clone() });
    }
    for known in &PEERS {
        if !names.is_empty() && !names.iter().any(|n| n == known.name) {
            continue;
        }
        match on_path(known.program) {
            Some(program) => found.push(Contestant {
                name: known.name,
                version: first_line(Command::new(&program).args(known.version)),
                program,
                options: known.options,
                start: known.start,
            }),
            None if names.is_empty() => {}
            None => anyhow::bail!("{} is not on the PATH", known.program),
        }
    }
    Ok(found)
}

impl Contestant {
    /// The command that mounts and stays in the foreground.
    pub(crate) fn command(&self, mounting: &Mounting<'_>) -> std::io::Result<Command> {
        let mut command = (self.start)(self, mounting)?;
        // Nothing of the caller's decides anything.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        command.env("AWS_ACCESS_KEY_ID", &mounting.place.access_key);
        command.env("AWS_SECRET_ACCESS_KEY", &mounting.place.secret_key).env("AWS_REGION", &mounting.place.region);
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        Ok(command)
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|o| [o.stdout, o.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("unknown version").to_owned()
}

fn objfs(contestant: &Contestant, at: &Mounting<'_>) -> std::io::Result<Command> {
    let mut command = Command::new(&contestant.program);
    let (state, cache) = (at.folder.join("state"), at.folder.join("cache"));
    let source = format!("s3://{}/{}", at.place.bucket, at.prefix.trim_end_matches('/'));
    command.arg("mount").arg(source).arg(at.root).arg("-f");
    command.arg("-o").arg(format!("endpoint={},region={}", at.place.endpoint, at.place.region));
    command.arg("-o").arg(format!("state_dir={},cache_dir={}", state.display(), cache.display()));
    for option in contestant.options {
        command.args(["-o", option]);
    }
    Ok(command)
}

fn s3fs(contestant: &Contestant, at: &Mounting<'_>) -> std::io::Result<Command> {
    let keys = at.folder.join("passwd-s3fs");
    std::fs::write(&keys, format!("{}:{}\n", at.place.access_key, at.place.secret_key))?;
    std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let mut command = Command::new(&contestant.program);
    command.arg(format!("{}:/{}", at.place.bucket, at.prefix.trim_end_matches('/'))).arg(at.root).arg("-f");
    command.arg("-o").arg(format!("url={},endpoint={}", at.place.endpoint, at.place.region));
    command.arg("-o").arg(format!("passwd_file={},tmpdir={}", keys.display(), at.folder.display()));
    command.arg("-o").arg(contestant.options.join(","));
    Ok(command)
}

fn rclone(contestant: &Contestant, at: &Mounting<'_>) -> std::io::Result<Command> {
    let (config, cache) = (at.folder.join("rclone.conf"), at.folder.join("cache"));
    let place = at.place;
    let text = format!(
        "[bench]\ntype = s3\nprovider = Other\nenv_auth = true\nendpoint = {}\nregion = {}\nforce_path_style = true\n",
        place.endpoint, place.region
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new(&contestant.program);
    command.arg("mount").arg(format!("bench:{}/{}", place.bucket, at.prefix.trim_end_matches('/'))).arg(at.root);
    command.arg("--config").arg(config).arg("--cache-dir").arg(cache).args(contestant.options);
    Ok(command)
}

fn mount_s3(contestant: &Contestant, at: &Mounting<'_>) -> std::io::Result<Command> {
    let mut command = Command::new(&contestant.program);
    command.arg(&at.place.bucket).arg(at.root).args(["--foreground", "--force-path-style", "--prefix", at.prefix]);
    command.args(["--endpoint-url", &at.place.endpoint, "--region", &at.place.region]).args(contestant.options);
    Ok(command)
}

/// geesefs is a fork of goofys and takes the same.
fn geesefs(contestant: &Contestant, at: &Mounting<'_>) -> std::io::Result<Command> {
    let mut command = Command::new(&contestant.program);
    command.args(["-f", "--endpoint", &at.place.endpoint, "--region", &at.place.region]).args(contestant.options);
    command.arg(format!("{}:{}", at.place.bucket, at.prefix.trim_end_matches('/'))).arg(at.root);
    Ok(command)
}
