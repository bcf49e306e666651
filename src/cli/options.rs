//! Mount options: `-o name,name=value`, as in fstab(5).
//!
//! Owns: the table of options that are known, their syntax, their help. Does not own: what they do (`daemon`).

use super::exit_code::{ExitCode, Failure};
use super::storage::StorageWords;
use crate::daemon::{Conflicts, Databases, Events, FEATURES, WriteMode};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Options as they were given, each value parsed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// `ro` or `rw`, the last one given.
    pub(super) read_only: bool,
    /// `allow_other`.
    pub(super) allow_other: bool,
    /// `nonempty`.
    pub(super) non_empty: bool,
    /// `uid=`.
    pub(super) uid: Option<u32>,
    /// `gid=`.
    pub(super) gid: Option<u32>,
    /// `umask=`.
    pub(super) umask: Option<u16>,
    /// `file_mode=`.
    pub(super) file_mode: Option<u16>,
    /// `dir_mode=`.
    pub(super) dir_mode: Option<u16>,
    /// `nometa`.
    pub(super) nometa: bool,
    /// `endpoint=`.
    pub(super) endpoint: Option<String>,
    /// `region=`.
    pub(super) region: Option<String>,
    /// `profile=`.
    pub(super) profile: Option<String>,
    /// `path_style` or `virtual_host`.
    pub(super) path_style: Option<bool>,
    /// `ca_bundle=`.
    pub(super) ca_bundle: Option<PathBuf>,
    /// `anonymous`.
    pub(super) anonymous: bool,
    /// `state_dir=`.
    pub(super) state_dir: Option<PathBuf>,
    /// `cache_dir=`.
    pub(super) cache_dir: Option<PathBuf>,
    /// `cache_size=`, in bytes.
    pub(super) cache_size: Option<u64>,
    /// `staging_size=`, in bytes.
    pub(super) staging_size: Option<u64>,
    /// `memory=`, in bytes.
    pub(super) memory: Option<u64>,
    /// `requests=`.
    pub(super) requests: Option<usize>,
    /// `poll_interval=`.
    pub(super) poll_interval: Option<Duration>,
    /// `poll_budget=`.
    pub(super) poll_budget: Option<u32>,
    /// `events=`.
    pub(super) events: Events,
    /// `include=`, each.
    pub(super) include: Vec<String>,
    /// `exclude=`, each.
    pub(super) exclude: Vec<String>,
    /// `write=`.
    pub(super) write: WriteMode,
    /// `fsync=local`.
    pub(super) fsync_local: bool,
    /// `temp_names=`, patterns with colons between; empty for `none`.
    pub(super) temp_names: Option<String>,
    /// `upload_delay=`.
    pub(super) upload_delay: Option<Duration>,
    /// `uploads=`.
    pub(super) uploads: Option<usize>,
    /// `upload_queue=`.
    pub(super) upload_queue: Option<usize>,
    /// `storage_class=`, `sse=` and their kin.
    pub(super) storage: StorageWords,
    /// `conflict=`.
    pub(super) conflict: Conflicts,
    /// `sqlite=`.
    pub(super) databases: Databases,
    /// `drain_timeout=`.
    pub(super) drain_timeout: Option<Duration>,
    /// `disable=`.
    pub(super) disable: Vec<String>,
    /// `log=`.
    pub(super) log: Option<String>,
    /// Flags that mount(2) is given.
    pub(super) flags: Vec<String>,
}

/// An option of ours, for `--help`.
struct Known {
    name: &'static str,
    value: &'static str,
    help: &'static str,
}

const fn known(name: &'static str, value: &'static str, help: &'static str) -> Known {
    Known { name, value, help }
}

const KNOWN: [Known; 47] = [
    known("ro", "", "nothing may be changed"),
    known("rw", "", "files may be changed (default)"),
    known("allow_other", "", "other users may look inside (see user_allow_other in /etc/fuse.conf)"),
    known("nonempty", "", "mount over a directory that has entries"),
    known("uid", "N", "owner of everything (default: what objects say, else who mounts)"),
    known("gid", "N", "group of everything"),
    known("umask", "OCTAL", "permissions taken from what names none (default 022)"),
    known("file_mode", "OCTAL", "permissions of every file, such as 640 (default: what objects say)"),
    known("dir_mode", "OCTAL", "permissions of every directory"),
    known("nometa", "", "no modes, owners and times in objects: kept on this machine only"),
    known("endpoint", "URL", "the server (default: AWS)"),
    known("region", "NAME", "the region to sign for; auto for R2"),
    known("profile", "NAME", "profile in the AWS configuration files"),
    known("path_style", "", "bucket in the path (default for every server but AWS)"),
    known("virtual_host", "", "bucket in the host name (default for AWS)"),
    known("ca_bundle", "FILE", "certificates (PEM) to trust beside the system's"),
    known("anonymous", "", "unsigned requests, for public buckets"),
    known("storage_class", "NAME", "storage class of new objects, such as STANDARD_IA"),
    known("sse", "AES256|aws:kms|aws:kms:dsse", "encryption by the server (default: the bucket's)"),
    known("sse_kms_key", "ID", "key for sse=aws:kms (default: the account's own)"),
    known("sse_c_key_file", "FILE", "encryption by the server with the key in this file (SSE-C)"),
    known("acl", "CANNED", "access to what is written, such as bucket-owner-full-control"),
    known("tags", "K=V[&K=V]", "tags of new objects, at most 10"),
    known("requester_pays", "", "pay for requests to somebody else's bucket"),
    known("bucket_owner", "ACCOUNT", "refuse buckets that another account owns"),
    known("state_dir", "DIR", "catalogue, journal, staged files, log"),
    known("cache_dir", "DIR", "what may be deleted at any time"),
    known("cache_size", "SIZE", "disk for what was read (default 10G, or a tenth of what is free; 0: none)"),
    known("staging_size", "SIZE", "disk for what is not uploaded yet (default nine tenths of what is free)"),
    known("memory", "SIZE", "memory for blocks and parts (default 256M)"),
    known("requests", "N", "most requests in flight (default 64)"),
    known("poll_interval", "TIME", "how often directories in use are listed again (default 60s)"),
    known("poll_budget", "N", "LIST requests for that in an interval (default 20; 0: none)"),
    known("events", "auto|all|off", "inotify events of changes made elsewhere (default auto)"),
    known("include", "GLOB", "files to show, such as *.{pdf,epub}; may be repeated (default: all)"),
    known("exclude", "GLOB", "files and directories not to show; may be repeated"),
    known("write", "through|back", "close waits for the bucket (through), or for the journal on this machine"),
    known("fsync", "bucket|local", "with write=back: what fsync waits for (default bucket)"),
    known("temp_names", "GLOB[:GLOB]", "names that are uploaded when they are renamed; none: no such names"),
    known("upload_delay", "TIME", "how long an upload waits after its file was acknowledged (default 5s)"),
    known("uploads", "N", "such uploads at once (default 8)"),
    known("upload_queue", "N", "files that may wait for that; then close waits for the bucket"),
    known("conflict", "keep-both|theirs|ours", "which version stays when somebody else wrote (default keep-both)"),
    known("sqlite", "consistent|through", "upload databases between transactions, or at each fsync"),
    known("drain_timeout", "TIME", "how long an unmount waits for uploads (default 10m)"),
    known("disable", "NAME[+NAME]", "do without kernel features, as an older kernel would"),
    known("log", "FILTER", "what is logged: error, warn, info, debug (default info)"),
];

/// Options of mount(8) and fstab(5) that are the business of mount(8), systemd or nobody here.
const IGNORED: [&str; 17] = [
    "_netdev", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "defaults", "suid", "nosuid",
    "dev", "nodev", "exec", "async", "atime",
];

/// Flags that mount(2) is given as they are. `noatime` means something to us as well.
const FLAGS: [&str; 6] = ["noexec", "noatime", "nodiratime", "relatime", "sync", "dirsync"];

/// Of these the last one counts.
const ATIMES: [&str; 3] = ["noatime", "relatime", "atime"];

/// The longest time that an option may say: clocks have an end.
const TIME_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Options {
    /// Adds what one `-o` says. A backslash before a comma makes it part of a value.
    ///
    /// # Errors
    /// An option that is not known, or a value that makes no sense; the message names it.
    pub(super) fn add(&mut self, list: &str) -> Result<(), Failure> {
        for option in split(list) {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (option.as_str(), None),
            };
            self.set(name, value)?;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), Failure> {
        if ATIMES.contains(&name) {
            self.flags.retain(|flag| !ATIMES.contains(&flag.as_str()));
        }
        if IGNORED.contains(&name) || name.starts_with("x-") || name == "comment" {
            return Ok(());
        }
        if FLAGS.contains(&name) {
            self.flags.push(name.to_owned());
            return Ok(());
        }
        let Some(option) = KNOWN.iter().find(|k| k.name == name) else {
            return Err(usage(format!("unknown mount option {name:?}: `objfs mount --help` lists them")));
        };
        match (option.value, value) {
            ("", None) => self.set_flag(name),
            ("", Some(_)) => return Err(usage(format!("the mount option {name} takes no value"))),
            (shape, None | Some("")) => return Err(usage(format!("the mount option {name}={shape} needs its value"))),
            (_, Some(value)) if self.set_writing(name, value)? => {}
            (_, Some(value)) => self.set_value(name, value)?,
        }
        Ok(())
    }

    fn set_flag(&mut self, name: &str) {
        match name {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "allow_other" => self.allow_other = true,
            "nonempty" => self.non_empty = true,
            "nometa" => self.nometa = true,
            "path_style" => self.path_style = Some(true),
            "virtual_host" => self.path_style = Some(false),
            "requester_pays" => self.storage.requester_pays = true,
            _ => self.anonymous = true,
        }
    }

    /// Options of the write path. `false` if this is none.
    fn set_writing(&mut self, name: &str, value: &str) -> Result<bool, Failure> {
        let bad = |what: &str| usage(format!("the mount option {name}={value} is not {what}"));
        match name {
            "write" => {
                self.write = match value {
                    "through" => WriteMode::Through,
                    "back" => WriteMode::Back,
                    _ => return Err(bad("through or back")),
                };
            }
            "fsync" => match value {
                "bucket" | "local" => self.fsync_local = value == "local",
                _ => return Err(bad("bucket or local")),
            },
            "conflict" => {
                self.conflict = match value {
                    "keep-both" => Conflicts::KeepBoth,
                    "theirs" => Conflicts::Theirs,
                    "ours" => Conflicts::Ours,
                    _ => return Err(bad("keep-both, theirs or ours")),
                };
            }
            "sqlite" => {
                self.databases = match value {
                    "consistent" => Databases::Consistent,
                    "through" => Databases::Through,
                    _ => return Err(bad("consistent or through")),
                };
            }
            "temp_names" => self.temp_names = Some(if value == "none" { String::new() } else { value.to_owned() }),
            "upload_delay" => self.upload_delay = Some(time_of(name, value, "2s")?),
            "uploads" => {
                let count = value.parse().ok().filter(|n| (1..=256).contains(n));
                self.uploads = Some(count.ok_or_else(|| bad("a number from 1 to 256"))?);
            }
            "upload_queue" => {
                let count = value.parse().ok().filter(|n| (1..=1_000_000).contains(n));
                self.upload_queue = Some(count.ok_or_else(|| bad("a number from 1 to 1000000"))?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set_value(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        let text = || Some(value.to_owned());
        let path = || Some(PathBuf::from(value));
        let bad = |what: &str| usage(format!("the mount option {name}={value} is not {what}"));
        match name {
            "uid" => self.uid = Some(value.parse().map_err(|_| bad("a number"))?),
            "gid" => self.gid = Some(value.parse().map_err(|_| bad("a number"))?),
            "umask" => {
                self.umask = Some(parse_octal(value, 0o777).ok_or_else(|| bad("an octal number up to 777"))?);
            }
            "file_mode" | "dir_mode" => {
                let bits = Some(parse_octal(value, 0o7777).ok_or_else(|| bad("an octal number up to 7777"))?);
                *(if name == "file_mode" { &mut self.file_mode } else { &mut self.dir_mode }) = bits;
            }
            // The value is not repeated: a password may stand in it.
            "endpoint" => {
                let wrong = |what| usage(format!("the mount option endpoint= is not {what}"));
                self.endpoint = Some(parse_endpoint(value).map_err(wrong)?);
            }
            "region" => self.region = text(),
            "profile" => self.profile = text(),
            "ca_bundle" => self.ca_bundle = path(),
            "state_dir" => self.state_dir = path(),
            "cache_dir" => self.cache_dir = path(),
            "cache_size" => self.cache_size = Some(parse_size(value).ok_or_else(|| bad("a size such as 10G, or 0"))?),
            "staging_size" => {
                let size = parse_size(value).filter(|size| *size > 0);
                self.staging_size = Some(size.ok_or_else(|| bad("a size such as 50G"))?);
            }
            "memory" => self.memory = Some(parse_size(value).ok_or_else(|| bad("a size such as 256M"))?),
            "requests" => {
                let count = value.parse().ok().filter(|n| (1..=10_000).contains(n));
                self.requests = Some(count.ok_or_else(|| bad("a number from 1 to 10000"))?);
            }
            "poll_interval" => {
                let time = Some(time_of(name, value, "60s")?).filter(|time| !time.is_zero());
                self.poll_interval =
                    Some(time.ok_or_else(|| bad("a time such as 60s; poll_budget=0 turns polling off"))?);
            }
            "poll_budget" => {
                let count = value.parse().ok().filter(|n| *n <= 100_000);
                self.poll_budget = Some(count.ok_or_else(|| bad("a number from 0 to 100000"))?);
            }
            "events" => {
                self.events = match value {
                    "auto" => Events::Auto,
                    "all" => Events::All,
                    "off" => Events::Off,
                    _ => return Err(bad("auto, all or off")),
                };
            }
            "storage_class" | "sse" | "sse_kms_key" | "sse_c_key_file" | "acl" | "tags" | "bucket_owner" => {
                self.storage.set(name, value).map_err(bad)?;
            }
            "include" => self.include.push(value.to_owned()),
            "exclude" => self.exclude.push(value.to_owned()),
            "drain_timeout" => self.drain_timeout = Some(time_of(name, value, "10m")?),
            "disable" => {
                for feature in value.split('+') {
                    if !FEATURES.iter().any(|f| f.name == feature) {
                        return Err(bad("made of kernel features; `objfs mount --help` lists them"));
                    }
                    self.disable.push(feature.to_owned());
                }
            }
            _ => self.log = text(),
        }
        Ok(())
    }
}

/// The options, for `--help`.
pub(super) fn help() -> String {
    let mut text = String::from("Options for -o, separated by commas:\n");
    for option in &KNOWN {
        let shape = match option.value {
            "" => option.name.to_owned(),
            value => format!("{}={value}", option.name),
        };
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(text, "  {shape:<24} {}", option.help);
    }
    let features: Vec<_> = FEATURES.iter().map(|f| f.name).collect();
    let _ = writeln!(text, "  Kernel features for disable=: {}.", features.join(", "));
    let _ = writeln!(text, "  Flags of mount(8): {}.", FLAGS.join(", "));
    let _ = writeln!(text, "  Accepted and left to mount(8): {}, x-*.", IGNORED.join(", "));
    text
}

fn usage(message: String) -> Failure {
    Failure::new(ExitCode::Usage, message)
}

/// At commas, but neither behind a backslash nor in the braces of a pattern.
fn split(list: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        let is_open = |part: &String| {
            let is_pattern = part.starts_with("include=") || part.starts_with("exclude=");
            is_pattern && part.matches('{').count() > part.matches('}').count()
        };
        match (c, parts.last_mut()) {
            (',', Some(last)) if is_open(last) => last.push(c),
            (',', _) => parts.push(String::new()),
            ('\\', Some(last)) => last.extend(chars.next()),
            (c, Some(last)) => last.push(c),
            (_, None) => {}
        }
    }
    parts.retain(|p| !p.is_empty());
    parts
}

/// The URL of a server. Names and passwords in it would end up in logs and in /proc.
///
/// # Errors
/// What it should have been.
pub(super) fn parse_endpoint(text: &str) -> Result<String, &'static str> {
    let shape = "a URL such as https://s3.example.com";
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or(shape)?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match host {
        "" => Err(shape),
        _ if text.contains(|c: char| c.is_whitespace() || c.is_control()) => Err(shape),
        _ if host.contains('@') => Err("a URL without user name and password"),
        _ => Ok(text.to_owned()),
    }
}

/// Permission bits up to `max`.
fn parse_octal(text: &str, max: u16) -> Option<u16> {
    u16::from_str_radix(text, 8).ok().filter(|bits| *bits <= max)
}

/// Bytes, with K, M, G, T (powers of 1,024) behind.
fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
    let shift = match unit.to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The time that an option says; `like` is one for people.
fn time_of(name: &str, value: &str, like: &str) -> Result<Duration, Failure> {
    let wrong = || usage(format!("the mount option {name}={value} is not a time such as {like}, 10 years at most"));
    parse_time(value).ok_or_else(wrong)
}

/// Seconds, or with ms, s, m, h behind; [`TIME_MAX`] at most.
pub(super) fn parse_time(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
    let number: u64 = digits.parse().ok()?;
    let time = match unit {
        "ms" => Duration::from_millis(number),
        "" | "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        _ => return None,
    };
    Some(time).filter(|time| *time <= TIME_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<Options, String> {
        let mut options = Options::default();
        options.add(list).map(|()| options).map_err(|f| f.message)
    }

    #[test]
    fn options_as_in_fstab() {
        let o =
            parse("_netdev,ro,allow_other,uid=1000,umask=027,endpoint=http://h:1,x-systemd.automount,noexec").unwrap();
        assert!(o.read_only && o.allow_other);
        assert_eq!((o.uid, o.umask, o.endpoint.as_deref()), (Some(1000), Some(0o027), Some("http://h:1")));
        assert_eq!(o.flags, ["noexec"]);
        assert_eq!(parse("noatime,noexec,relatime").unwrap().flags, ["noexec", "relatime"]);
        assert_eq!(parse("relatime,noatime").unwrap().flags, ["noatime"]);
        assert!(parse("noatime,atime").unwrap().flags.is_empty());
        let o = parse("file_mode=0640,dir_mode=2750").unwrap();
        assert_eq!((o.file_mode, o.dir_mode), (Some(0o640), Some(0o2750)));
        assert!(!parse("ro,rw").unwrap().read_only);
        let o = parse("include=*.{pdf,epub},include=a,exclude=tmp*,ro").unwrap();
        assert_eq!((o.include, o.exclude), (vec!["*.{pdf,epub}".into(), "a".into()], vec!["tmp*".into()]));
        assert!(o.read_only);
    }

    #[test]
    fn every_option_that_is_listed_is_taken() {
        for option in &KNOWN {
            let value = match option.value {
                "" => "",
                "N" | "OCTAL" => "=7",
                "SIZE" => "=64M",
                "TIME" => "=5s",
                "NAME[+NAME]" => "=killpriv_v2+noflush",
                "URL" => "=https://h",
                "auto|all|off" => "=all",
                "through|back" => "=back",
                "consistent|through" => "=through",
                "keep-both|theirs|ours" => "=ours",
                "bucket|local" => "=local",
                "AES256|aws:kms|aws:kms:dsse" => "=aws:kms",
                "CANNED" => "=private",
                "K=V[&K=V]" => "=a=b",
                "ACCOUNT" => "=123456789012",
                _ => "=x",
            };
            let parsed = parse(&format!("{}{value}", option.name)).unwrap();
            let is_default = parsed == Options::default();
            assert!(!is_default || option.name == "rw", "{} does nothing", option.name);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(parse("colour=red").unwrap_err().contains("colour"));
        assert!(parse("uid=me").unwrap_err().contains("uid=me"));
        assert!(parse("uid").unwrap_err().contains("uid=N"));
        assert!(parse("ro=1").unwrap_err().contains("ro"));
        assert!(parse("file_mode=0888").unwrap_err().contains("file_mode=0888 is not an octal number up to 7777"));
        assert!(parse("dir_mode=10000").is_err() && parse("dir_mode").unwrap_err().contains("dir_mode=OCTAL"));
        assert!(parse("umask=999").is_err() && parse("memory=lots").is_err() && parse("disable=x").is_err());
        for option in ["drain_timeout", "upload_delay", "poll_interval"] {
            assert!(parse(&format!("{option}=99999999999")).unwrap_err().contains("10 years at most"), "{option}");
        }
        assert!(parse("endpoint=s3.example.com").unwrap_err().contains("https://"));
        assert!(parse("endpoint=https://").is_err() && parse("endpoint=ftp://h").is_err());
        assert!(parse("acl=open").unwrap_err().contains("acl=open") && parse("tags=a").is_err());
        assert!(parse("requester_pays=1").is_err() && parse("sse").unwrap_err().contains("sse=AES256"));
        assert!(!parse("endpoint=https://me:secret@h").unwrap_err().contains("secret"));
    }

    #[test]
    fn the_last_one_counts_but_of_patterns_all() {
        let o = parse("uid=1,memory=1M,write=back,path_style,uid=2,virtual_host,write=through,memory=2M").unwrap();
        assert_eq!((o.uid, o.memory, o.write, o.path_style), (Some(2), Some(2 << 20), WriteMode::Through, Some(false)));
        let o = parse("exclude=a,include=b,exclude=c,include=d").unwrap();
        assert_eq!((o.include.concat(), o.exclude.concat()), ("bd".to_owned(), "ac".to_owned()));
    }

    #[test]
    fn what_is_for_mount_8_or_systemd_has_no_effect_here() {
        let others = "_netdev,auto,noauto,user,users,nouser,owner,group,nofail,defaults,suid,nosuid,dev,nodev,exec,async,\
            atime,comment=mine,x-systemd.automount,x-gvfs-name=b";
        assert_eq!(parse(others).unwrap(), Options::default());
        let but = |flag: &str| FLAGS.into_iter().filter(|f| *f != flag).collect::<Vec<_>>();
        assert_eq!(parse("noexec,nodiratime,relatime,sync,dirsync").unwrap().flags, but("noatime"));
        assert_eq!(parse("noexec,noatime,nodiratime,sync,dirsync").unwrap().flags, but("relatime"));
    }

    #[test]
    fn numbers_have_bounds() {
        for (good, bad) in [
            ("requests=1", "requests=0"),
            ("requests=10000", "requests=10001"),
            ("uploads=1", "uploads=0"),
            ("uploads=256", "uploads=257"),
            ("upload_queue=1", "upload_queue=0"),
            ("upload_queue=1000000", "upload_queue=1000001"),
            ("poll_budget=0", "poll_budget=-1"),
            ("poll_budget=100000", "poll_budget=100001"),
            ("poll_interval=500ms", "poll_interval=0"),
            ("poll_interval=1h", "poll_interval=1d"),
            ("umask=777", "umask=1000"),
            ("cache_size=0", "cache_size=none"),
            ("staging_size=1M", "staging_size=0"),
        ] {
            assert!(parse(good).is_ok(), "{good}");
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn units() {
        assert_eq!(parse_size("256M"), Some(256 << 20));
        assert_eq!(parse_size("1GiB"), Some(1 << 30));
        assert_eq!(parse_time("90"), Some(Duration::from_secs(90)));
        assert_eq!(parse_time("2m"), Some(Duration::from_secs(120)));
        assert_eq!((parse_time("87600h"), parse_time("87601h")), (Some(TIME_MAX), None));
        assert_eq!((parse_time("18446744073709551615"), parse_time("307445734561825861m")), (None, None));
        assert_eq!(split("a\\,b,c"), ["a,b", "c"]);
    }
}
