//! The servers that contestants are measured on, and their profiles.
//!
//! Owns: starting and ending them, faults and counters of the dev server. Does not own: what is in the bucket (`data`).

use crate::client::Plain;
use crate::garage::{self, Garage};
use crate::sdk::Place;
use crate::workload::{LISTED, LISTED_FANOUT, MILLION, MILLION_FANOUT};
use anyhow::{Context, bail};
use bytes::Bytes;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The bucket that everything happens in.
pub(crate) const BUCKET: &str = "bench";
/// What the profile `s3` does to each request: 30 ms to the first byte, 90 MB/s per connection.
const S3_FAULTS: &str =
    r#"{"rules":[{"effect":"latency","ms":30},{"effect":"bandwidth","bytes_per_second":90000000}]}"#;
const NO_FAULTS: &str = r#"{"rules":[]}"#;

/// The profiles, with what a reader should know of each.
pub(crate) const PROFILES: [(&str, &str); 3] = [
    ("lan", "`objfs dev-server`, objects in memory, no delay"),
    ("s3", "`objfs dev-server`, 30 ms to the first byte, 90 MB/s per connection"),
    ("garage", "Garage, a real store: one node, SQLite, data on the disk"),
];

enum Process {
    Dev(Child),
    Garage { _server: Garage },
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Process::Dev(child) = self {
            crate::process::end(child, Duration::from_secs(5));
        }
    }
}

/// A running server.
pub(crate) struct Server {
    _process: Process,
    pub(crate) place: Place,
    profile: String,
}

/// What the dev server counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
}

impl Server {
    /// Starts the profile's server. `objfs` is our program.
    pub(crate) fn start(profile: &str, objfs: &Path) -> anyhow::Result<Server> {
        match profile {
            "lan" | "s3" => Server::dev(profile, objfs),
            "garage" => {
                let server = Garage::start(BUCKET)?;
                let place = Place {
                    endpoint: server.endpoint.clone(),
                    region: garage::REGION.to_owned(),
                    access_key: server.access_key.clone(),
                    secret_key: server.secret_key.clone(),
                    bucket: BUCKET.to_owned(),
                };
                Ok(Server { _process: Process::Garage { _server: server }, place, profile: profile.to_owned() })
            }
            other => bail!("there is no profile {other:?}"),
        }
    }

    fn dev(profile: &str, objfs: &Path) -> anyhow::Result<Server> {
        let generated = |count, fanout, prefix| format!("count={count},fanout={fanout},size=4096,prefix={prefix}");
        let generated = [
            generated(LISTED, LISTED_FANOUT, crate::data::LISTED_PREFIX),
            generated(MILLION, MILLION_FANOUT, crate::data::MILLION_PREFIX),
        ];
        let (access_key, secret_key) = ("objfs".to_owned(), "objfs-secret".to_owned());
        let mut child = Command::new(objfs)
            .args(["dev-server", "--listen", "127.0.0.1:0", "--bucket", BUCKET, "--synthetic", &generated.join(";")])
            .env("S3_ACCESS_KEY_ID", &access_key)
            .env("S3_SECRET_ACCESS_KEY", &secret_key)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} cannot be started", objfs.display()))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let process = Process::Dev(child);
        let endpoint = line.split(' ').find(|word| word.starts_with("http://")).map(str::to_owned);
        let endpoint = endpoint.with_context(|| format!("the dev server said {line:?} instead of where it listens"))?;
        let place = Place { endpoint, region: "us-east-1".into(), access_key, secret_key, bucket: BUCKET.into() };
        Ok(Server { _process: process, place, profile: profile.to_owned() })
    }

    /// Whether requests are counted.
    fn counts(&self) -> bool {
        self.profile != "garage"
    }

    /// Makes the server as slow as its profile says, or not, while objects are laid out.
    pub(crate) async fn slow(&self, slow: bool) -> anyhow::Result<()> {
        if self.profile == "s3" {
            let faults = if slow { S3_FAULTS } else { NO_FAULTS };
            Plain::ask(&self.place, "PUT", "/-/faults", Bytes::from_static(faults.as_bytes())).await?;
        }
        Ok(())
    }

    /// What was asked of the server so far.
    pub(crate) async fn traffic(&self) -> Option<Traffic> {
        if !self.counts() {
            return None;
        }
        let json = Plain::ask(&self.place, "GET", "/-/counters", Bytes::new()).await.ok()?;
        let counts: serde_json::Value = serde_json::from_slice(&json).ok()?;
        let requests = counts["requests"].as_object()?.values().filter_map(serde_json::Value::as_u64).sum();
        Some(Traffic { requests, bytes: counts["bytes_in"].as_u64()? + counts["bytes_out"].as_u64()? })
    }
}
