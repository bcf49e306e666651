//! `objfs mount` and `mount.objfs`.
//!
//! Owns: arguments, options and environment becoming one configuration; which of them counts.
//! Does not own: the mount (`daemon`).

use super::args::MountArgs;
use super::exit_code::{ExitCode, Failure};
use super::options::{Options, parse_endpoint, parse_time};
use crate::daemon::{
    self, Filter, MountConfig, Ready, S3Settings, Secret, StaticCredentials, TempNames, WriteMode, Writes,
    default_cache_dir, default_state_dir,
};
use crate::types::{Key, Unmappable};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

const POLL_INTERVAL: Duration = Duration::from_secs(60);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(600);
const MEMORY: u64 = 256 << 20;
const REQUESTS: usize = 64;
/// LIST requests of the poller in each interval, unless `poll_budget=` says otherwise: 28,800 a day, 14 cents at AWS.
const POLL_BUDGET: u32 = 20;
const UMASK: u16 = 0o022;

/// The variables of the environment that count here.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Mounts, in the background unless asked otherwise. `arguments` are this process' own, to start the daemon with.
///
/// # Errors
/// Why not.
pub(super) fn run(args: &MountArgs, arguments: &[OsString]) -> Result<(), Failure> {
    let variables = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let config = configure(args, &variables)?;
    serve_or_start(config, args.foreground, arguments)
}

/// Serves the mount in this process if it is the daemon or stays in the foreground; else starts the daemon.
pub(super) fn serve_or_start(mut config: MountConfig, foreground: bool, arguments: &[OsString]) -> Result<(), Failure> {
    match Ready::inherited() {
        Some(ready) => Ok(daemon::serve(config, ready)?),
        None if foreground => {
            config.foreground = true;
            Ok(daemon::serve(config, Ready::nobody())?)
        }
        None => Ok(daemon::start_in_background(arguments)?),
    }
}

/// The configuration that arguments and environment make together. Pure but for the current directory
/// and the file of a key.
///
/// # Errors
/// What is missing or wrong.
pub(super) fn configure(args: &MountArgs, variables: Environment<'_>) -> Result<MountConfig, Failure> {
    let mut options = Options::default();
    args.options.iter().try_for_each(|list| options.add(list))?;
    let (source, mountpoint) = match &args.places[..] {
        [mountpoint] => (None, mountpoint),
        [source, mountpoint, ..] => (Some(source.as_str()), mountpoint),
        [] => return Err(Failure::new(ExitCode::Usage, "a mountpoint is needed")),
    };
    let (bucket, prefix) = place(source, variables)?;
    let poll_interval = match (options.poll_interval, variables("S3_POLL_INTERVAL")) {
        (Some(given), _) => given,
        (None, Some(text)) => parse_time(&text).ok_or_else(|| {
            Failure::new(
                ExitCode::Usage,
                format!("S3_POLL_INTERVAL={text} is not a time such as 60s, 10 years at most"),
            )
        })?,
        (None, None) => POLL_INTERVAL,
    };
    if let Some(Err(what)) = variables("S3_ENDPOINT").map(|text| parse_endpoint(&text)) {
        return Err(Failure::new(ExitCode::Usage, format!("S3_ENDPOINT is not {what}")));
    }
    Ok(MountConfig {
        s3: S3Settings { storage: options.storage.clone().options()?, ..s3_settings(bucket, &options, variables) },
        prefix,
        mountpoint: daemon::absolute(Path::new(mountpoint)),
        read_only: options.read_only,
        allow_other: options.allow_other,
        non_empty: options.non_empty,
        uid: options.uid,
        gid: options.gid,
        umask: options.umask.unwrap_or(UMASK),
        file_mode: options.file_mode,
        dir_mode: options.dir_mode,
        nometa: options.nometa,
        poll_interval,
        poll_budget: options.poll_budget.unwrap_or(POLL_BUDGET),
        events: options.events,
        filter: filter(&options)?,
        writes: writes(&options)?,
        drain_timeout: options.drain_timeout.unwrap_or(DRAIN_TIMEOUT),
        state_dir: options.state_dir.unwrap_or_else(default_state_dir),
        state_name: None,
        aws_profile: variables("AWS_PROFILE").filter(|name| !name.is_empty() && name != "default"),
        cache_dir: options.cache_dir.unwrap_or_else(default_cache_dir),
        cache_size: options.cache_size,
        staging_size: options.staging_size,
        memory: options.memory.unwrap_or(MEMORY),
        requests_max: options.requests.unwrap_or(REQUESTS),
        mount_flags: options.flags,
        disabled_features: options.disable,
        log: options.log,
        foreground: false,
    })
}

fn filter(options: &Options) -> Result<Filter, Failure> {
    let wrong = |what| Failure::new(ExitCode::Usage, format!("include= or exclude=: {what}"));
    Filter::new(&options.include, &options.exclude).map_err(wrong)
}

fn writes(options: &Options) -> Result<Writes, Failure> {
    let usual = Writes::default();
    let usage = |message: String| Failure::new(ExitCode::Usage, message);
    if options.fsync_local && options.write != WriteMode::Back {
        return Err(usage("fsync=local goes with write=back: otherwise close waits for the bucket as well".to_owned()));
    }
    let temp_names = match &options.temp_names {
        None => usual.temp_names,
        Some(patterns) => {
            let names = TempNames::new(patterns.split(':').filter(|p| !p.is_empty()));
            names.map_err(|what| usage(format!("temp_names=: {what}")))?
        }
    };
    Ok(Writes {
        mode: options.write,
        fsync_local: options.fsync_local,
        temp_names,
        delay: options.upload_delay.unwrap_or(usual.delay),
        uploads: options.uploads.unwrap_or(usual.uploads),
        queue_max: options.upload_queue.unwrap_or(usual.queue_max),
        conflict: options.conflict,
        databases: options.databases,
    })
}

/// Bucket and prefix, from the source or from S3_BUCKET and S3_PREFIX.
fn place(source: Option<&str>, variables: Environment<'_>) -> Result<(String, Key), Failure> {
    let usage = |message: String| Failure::new(ExitCode::Usage, message);
    let (bucket, prefix) = match source {
        Some(source) => {
            let rest = source
                .strip_prefix("s3://")
                .ok_or_else(|| usage(format!("{source:?} is not of the form s3://BUCKET[/PREFIX]")))?;
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            (bucket.to_owned(), prefix.to_owned())
        }
        None => {
            let bucket = variables("S3_BUCKET")
                .ok_or_else(|| usage("name the bucket: s3://BUCKET[/PREFIX], or set S3_BUCKET".to_owned()))?;
            (bucket, variables("S3_PREFIX").unwrap_or_default())
        }
    };
    if bucket.is_empty() {
        return Err(usage("the bucket has no name: s3://BUCKET[/PREFIX]".to_owned()));
    }
    let prefix = prefix.trim_start_matches('/');
    let key = Key::parse(prefix).and_then(|key| key.to_dir()).map_err(|e| usage(e.to_string()))?;
    match key.unmappable() {
        // Nobody sees its names.
        None | Some(Unmappable::OtherSpelling) => Ok((bucket, if prefix.is_empty() { Key::root() } else { key })),
        Some(why) => Err(usage(format!("the prefix {prefix:?} cannot be a directory: {}", why.as_str()))),
    }
}

/// The endpoint that the AWS environment names
/// (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>). It has to be known before the state folder is chosen.
fn aws_endpoint(variables: Environment<'_>) -> Option<String> {
    let named = |name| variables(name).filter(|url| !url.is_empty());
    let is_ignored = || named("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    named("AWS_ENDPOINT_URL_S3").or_else(|| named("AWS_ENDPOINT_URL").filter(|_| !is_ignored()))
}

/// Options first, then the S3_ names; what neither says, the AWS environment and configuration files decide.
fn s3_settings(bucket: String, options: &Options, variables: Environment<'_>) -> S3Settings {
    let keys = (variables("S3_ACCESS_KEY_ID"), variables("S3_SECRET_ACCESS_KEY"));
    let credentials = match keys {
        // A profile that was asked for counts more than what happens to be in the environment.
        (Some(access_key), Some(secret)) if options.profile.is_none() => Some(StaticCredentials {
            access_key,
            secret_key: Secret::new(secret),
            session_token: variables("S3_SESSION_TOKEN").map(Secret::new),
        }),
        _ => None,
    };
    S3Settings {
        endpoint: options.endpoint.clone().or_else(|| variables("S3_ENDPOINT")).or_else(|| aws_endpoint(variables)),
        region: options.region.clone().or_else(|| variables("S3_REGION")),
        profile: options.profile.clone(),
        path_style: options.path_style,
        ca_bundle: options.ca_bundle.clone(),
        credentials,
        anonymous: options.anonymous,
        ..S3Settings::new(bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn config(args: &[&str], env: &[(&str, &str)]) -> Result<MountConfig, String> {
        let parsed = super::super::args::MountHelper::try_parse_from([&["mount.objfs"], args].concat()).unwrap();
        let variables = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        configure(&parsed.mount, &variables).map_err(|f| f.message)
    }

    #[test]
    fn times_and_numbers_that_nobody_gives_are_those_of_the_documents() {
        let c = config(&["s3://b", "/mnt/x"], &[]).unwrap();
        assert_eq!([c.poll_interval, c.drain_timeout, c.writes.delay].map(|time| time.as_secs()), [60, 600, 5]);
        assert_eq!((c.writes.uploads, c.writes.queue_max), (8, 10_000));
    }

    #[test]
    fn temporary_names_are_those_that_somebody_gives_or_none() {
        let is_temp = |option: &str, name: &str| {
            let c = config(&["s3://b", "/mnt/x", "-o", option], &[]).unwrap();
            c.writes.temp_names.contains(&crate::types::Name::parse(name).unwrap())
        };
        assert!(is_temp("ro", "a.part") && !is_temp("temp_names=none", "a.part"));
        let own = "temp_names=*.x:new-*";
        assert!(is_temp(own, "a.x") && is_temp(own, "new-a") && !is_temp(own, "a.part"));
    }

    #[test]
    fn source_and_options() {
        let c = config(&["s3://b/p/q", "/mnt/x", "-o", "ro,endpoint=http://h"], &[]).unwrap();
        assert_eq!((c.s3.bucket.as_str(), c.prefix.as_str(), c.read_only), ("b", "p/q/", true));
        assert_eq!(c.source(), "s3://b/p/q");
        assert_eq!(config(&["s3://b", "/mnt/x"], &[]).unwrap().prefix, Key::root());
    }

    #[test]
    fn the_environment_of_existing_programs_is_enough() {
        let env = [
            ("S3_BUCKET", "b"),
            ("S3_PREFIX", "books"),
            ("S3_ACCESS_KEY_ID", "ak"),
            ("S3_SECRET_ACCESS_KEY", "sk"),
            ("S3_ENDPOINT", "http://h"),
            ("S3_REGION", "auto"),
            ("S3_POLL_INTERVAL", "5"),
        ];
        let c = config(&["/mnt/x"], &env).unwrap();
        assert_eq!((c.s3.bucket.as_str(), c.prefix.as_str()), ("b", "books/"));
        assert_eq!((c.s3.endpoint.as_deref(), c.s3.region.as_deref()), (Some("http://h"), Some("auto")));
        assert_eq!(c.poll_interval, Duration::from_secs(5));
        assert!(c.s3.credentials.is_some());
        assert!(!format!("{c:?}").contains("\"sk\""), "secrets do not show");
        let c = config(&["/mnt/x", "-o", "profile=p,endpoint=http://o"], &env).unwrap();
        assert!(c.s3.credentials.is_none() && c.s3.endpoint.as_deref() == Some("http://o"));
    }

    /// As SEMANTICS.md says.
    #[test]
    fn what_nobody_says_has_its_default() {
        let c = config(&["s3://b", "/mnt/x"], &[]).unwrap();
        assert!(!c.read_only && !c.allow_other && !c.non_empty && c.mount_flags.is_empty());
        assert_eq!((c.uid, c.gid, c.umask), (None, None, 0o022));
        assert_eq!((c.poll_interval, c.poll_budget, c.events), (Duration::from_secs(60), 20, daemon::Events::Auto));
        assert_eq!((c.memory, c.requests_max, c.drain_timeout), (256 << 20, 64, Duration::from_secs(600)));
        assert!(c.filter.is_off() && c.disabled_features.is_empty());
        let w = c.writes;
        assert_eq!((w.mode, w.fsync_local, w.delay), (WriteMode::Through, false, Duration::from_secs(5)));
        assert_eq!((w.uploads, w.queue_max), (8, 10_000));
        assert_eq!((w.conflict, w.databases), (daemon::Conflicts::KeepBoth, daemon::Databases::Consistent));
        assert_eq!((c.s3.path_style, c.s3.anonymous, c.s3.ca_bundle), (None, false, None));
        assert!(config(&["s3://b", "/mnt/x", "-o", "fsync=local"], &[]).unwrap_err().contains("write=back"));
    }

    #[test]
    fn each_endpoint_bucket_and_prefix_has_a_folder() {
        let folder = |source: &str, endpoint: &str| {
            let options = format!("state_dir=/state,endpoint={endpoint}");
            config(&[source, "/mnt/x", "-o", &options], &[]).unwrap().state_folder()
        };
        let places = [("s3://b", "http://h"), ("s3://b/p", "http://h"), ("s3://c", "http://h"), ("s3://b", "http://i")];
        let folders: std::collections::BTreeSet<_> = places.map(|(source, endpoint)| folder(source, endpoint)).into();
        assert_eq!(folders.len(), 4);
        assert!(folders.iter().all(|folder| folder.parent() == Some(Path::new("/state"))), "{folders:?}");
        assert_eq!(folder("s3://b/p/", "http://h"), folder("s3://b/p", "http://h"));
        assert_eq!(folder("s3://b", "http://h/"), folder("s3://b", "http://h"));
        // Whoever names the server, it is the same one; and another profile may name another.
        let of = |env: &[(&str, &str)], option: &str| {
            config(&["s3://b", "/mnt/x", "-o", &format!("state_dir=/state{option}")], env).unwrap().state_folder()
        };
        assert_eq!(of(&[("AWS_ENDPOINT_URL", "http://h")], ""), folder("s3://b", "http://h"));
        let both = [("AWS_ENDPOINT_URL", "http://h"), ("AWS_ENDPOINT_URL_S3", "http://i")];
        assert_eq!(of(&both, ""), folder("s3://b", "http://i"));
        let ignored = [("AWS_ENDPOINT_URL", "http://h"), ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")];
        assert_eq!(of(&ignored, ""), of(&[], ""));
        assert!(of(&[], ",profile=a") != of(&[], ",profile=b") && of(&[], ",profile=a") != of(&[], ""));
        assert_eq!(of(&[("AWS_PROFILE", "a")], ""), of(&[], ",profile=a"));
        assert_eq!(of(&[("AWS_PROFILE", "a")], ",profile=b"), of(&[], ",profile=b"));
        assert!([("AWS_PROFILE", ""), ("AWS_PROFILE", "default")].iter().all(|same| of(&[*same], "") == of(&[], "")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(config(&["b", "/mnt/x"], &[]).unwrap_err().contains("s3://BUCKET"));
        assert!(config(&["s3:///p", "/mnt/x"], &[]).unwrap_err().contains("no name"));
        assert!(config(&["/mnt/x"], &[]).unwrap_err().contains("S3_BUCKET"));
        assert!(config(&["s3://b/a/../b", "/mnt/x"], &[]).unwrap_err().contains("dot-component"));
    }
}
