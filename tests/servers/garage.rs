//! Garage, a server in Rust that ignores conditions on writes: a single node with one bucket.
//!
//! Owns: its configuration, start and end. Used by several test binaries and by the benchmarks, hence no panics.
//! Does not own: waiting until the bucket is there, a moment after the port (whoever has a client does that).

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The region that it signs for.
pub(crate) const REGION: &str = "garage";
/// How long it may take to listen.
const START_MAX: Duration = Duration::from_secs(60);

/// A running server. It ends, and its objects are gone, when this is dropped.
pub(crate) struct Garage {
    child: Child,
    _dir: TempDir,
    pub(crate) endpoint: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
}

impl Drop for Garage {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Garage {
    /// Starts it with this bucket, on free ports of the loopback interface.
    pub(crate) fn start(bucket: &str) -> io::Result<Garage> {
        let dir = tempfile::tempdir()?;
        let (api, rpc) = (free_port()?, free_port()?);
        let (access_key, secret_key) = (format!("GK{}", "0123456789ab".repeat(2)), "0123456789abcdef".repeat(4));
        let config = format!(
            "metadata_dir = {meta:?}\ndata_dir = {data:?}\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
             rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\nrpc_secret = \"{secret_key}\"\n\
             [s3_api]\ns3_region = \"{REGION}\"\napi_bind_addr = \"127.0.0.1:{api}\"\n",
            meta = dir.path().join("meta"),
            data = dir.path().join("data"),
        );
        let path = dir.path().join("garage.toml");
        std::fs::write(&path, config)?;
        let mut command = Command::new("garage");
        command.arg("-c").arg(&path).args(["server", "--single-node", "--default-bucket"]);
        command.env("GARAGE_DEFAULT_ACCESS_KEY", &access_key).env("GARAGE_DEFAULT_SECRET_KEY", &secret_key);
        command.env("GARAGE_DEFAULT_BUCKET", bucket).current_dir(dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|e| io::Error::new(e.kind(), format!("garage cannot be started: {e}")))?;
        let endpoint = format!("http://127.0.0.1:{api}");
        let server = Garage { child, _dir: dir, endpoint, access_key, secret_key };
        wait_for_port(api)?;
        Ok(server)
    }
}

fn wait_for_port(port: u16) -> io::Result<()> {
    let deadline = Instant::now() + START_MAX;
    while let Err(e) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
        if Instant::now() >= deadline {
            return Err(io::Error::new(e.kind(), format!("garage does not answer on port {port}: {e}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A port that was free a moment ago.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
