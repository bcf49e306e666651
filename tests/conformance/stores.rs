//! Servers to run the suite on, started by the tests on free loopback ports.
//!
//! Owns: starting, waiting until they answer, ending them, what is known to differ on each. Does not own: the cases.

use crate::garage::{self, Garage};
use crate::suite::Subject;
use objfs::store::s3::{S3Settings, S3Store, Secret, StaticCredentials};
use objfs::store::{Conditions, Support};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The bucket that every server has.
const BUCKET: &str = "conformance";
/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(60);

/// What moto 5.2 does differently: it drops conditions on the source of copies, answers 500 for an upload that is gone,
/// and ListParts with a root element that the SDK does not take; keys that its routes do not match.
const MOTO_DIFFERS: &[&str] = &["copy-source-condition", "no-such-upload", "list-parts", "new\nline"];
/// What Garage 2.5 does differently: it takes parts of any size, but copies none below 5 MiB.
const GARAGE_DIFFERS: &[&str] = &["part-size", "small-part-copy"];

/// What the dev server does differently: s3s decodes encoded words of RFC 2047 once itself, so that a value which only looks
/// like one, and travels encoded, comes back decoded twice.
const DEV_SERVER_DIFFERS: &[&str] = &["encoded-word"];

enum Process {
    Moto { child: Child, _dir: tempfile::TempDir },
    Garage { _server: Garage },
}

/// A server that ends with the test.
pub(crate) struct Server {
    _process: Process,
    settings: S3Settings,
    conditions: Conditions,
    differs: &'static [&'static str],
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Process::Moto { child, .. } = self {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

impl Server {
    /// How to reach it.
    pub(crate) fn settings(&self) -> &S3Settings {
        &self.settings
    }

    /// The server as the suite sees it.
    pub(crate) async fn subject(&self) -> Subject {
        let store = Arc::new(S3Store::connect(&self.settings).await.expect("settings are valid"));
        Subject::new(store, self.conditions).differing(self.differs)
    }
}

/// The S3 server in Python that AWS users test with. `$OBJFS_MOTO` names it where it is not on the PATH.
pub(crate) async fn moto() -> Server {
    let server = start_moto(tempfile::tempdir().unwrap(), "http", &[]).await;
    // moto checks no signatures.
    let port = server.settings.endpoint.as_ref().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let answer = ask(port, &format!("PUT /{BUCKET} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "moto did not create the bucket: {answer}");
    server
}

/// moto behind TLS, with a certificate that only its own file vouches for. It has no bucket.
pub(crate) async fn moto_tls() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=objfs test", "-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"]);
    let made = openssl.current_dir(dir.path()).stderr(Stdio::null()).status().expect("openssl cannot be started");
    assert!(made.success(), "openssl made no certificate");
    let certificate = dir.path().join("cert.pem");
    let mut server = start_moto(dir, "https", &["-c", "cert.pem", "-k", "key.pem"]).await;
    server.settings.ca_bundle = Some(certificate);
    server
}

async fn start_moto(dir: tempfile::TempDir, scheme: &str, args: &[&str]) -> Server {
    let program = std::env::var("OBJFS_MOTO").unwrap_or_else(|_| "moto_server".to_owned());
    let port = free_port();
    let mut command = Command::new(&program);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).args(args).current_dir(dir.path());
    let child = start(command, &program);
    let settings = settings(&format!("{scheme}://127.0.0.1:{port}"), "us-east-1", "AKIATEST", "test");
    // Of a completion it honours If-None-Match, but not If-Match.
    let conditions =
        Conditions { complete: Support::Ignored, copy: Support::Ignored, ..Conditions::all(Support::Honoured) };
    let process = Process::Moto { child, _dir: dir };
    let server = Server { _process: process, settings, conditions, differs: MOTO_DIFFERS };
    wait_for(port).await;
    server
}

/// Garage, a server in Rust that ignores conditions on writes.
pub(crate) async fn garage() -> Server {
    let garage = Garage::start(BUCKET).unwrap();
    let settings = settings(&garage.endpoint, garage::REGION, &garage.access_key, &garage.secret_key);
    wait_for_bucket(&settings).await;
    let conditions = Conditions::all(Support::Ignored);
    Server { _process: Process::Garage { _server: garage }, settings, conditions, differs: GARAGE_DIFFERS }
}

/// How to reach a server at a URL. A server in this process needs no more: `S3Store::connect` on these settings, and
/// `Subject::new` around it.
pub(crate) fn settings(endpoint: &str, region: &str, access_key: &str, secret_key: &str) -> S3Settings {
    S3Settings {
        endpoint: Some(endpoint.to_owned()),
        region: Some(region.to_owned()),
        credentials: Some(StaticCredentials {
            access_key: access_key.to_owned(),
            secret_key: Secret::new(secret_key),
            session_token: None,
        }),
        ..S3Settings::new(BUCKET)
    }
}

fn start(mut command: Command, program: &str) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|e| panic!("{program} cannot be started: {e}"))
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn wait_for(port: u16) {
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(start.elapsed() < START_MAX, "the server on port {port} does not answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A bucket that a server makes for itself may come a moment after its port.
async fn wait_for_bucket(settings: &S3Settings) {
    use objfs::store::ObjectStore;
    let store = S3Store::connect(settings).await.unwrap();
    let start = Instant::now();
    while let Err(e) = store.head_bucket().await {
        assert!(start.elapsed() < START_MAX, "no bucket: {e}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ask(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(format!("{request}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The dev server, in this process.
pub(crate) async fn dev_server(storage: objfs::devserver::Storage) -> objfs::devserver::Server {
    let settings = objfs::devserver::Settings {
        buckets: vec!["conformance".to_owned()],
        storage,
        ..objfs::devserver::Settings::default()
    };
    objfs::devserver::Server::start(settings).await.unwrap()
}

/// The suite's view of it: it keeps every condition.
pub(crate) async fn dev_server_subject(server: &objfs::devserver::Server) -> Subject {
    dev_server_with(server, true).await
}

/// The same, without requests of our own.
pub(crate) async fn dev_server_subject_through_the_sdk(server: &objfs::devserver::Server) -> Subject {
    dev_server_with(server, false).await
}

async fn dev_server_with(server: &objfs::devserver::Server, direct: bool) -> Subject {
    let keys = objfs::devserver::Settings::default();
    let settings = settings(&server.endpoint(), "us-east-1", &keys.access_key, &keys.secret_key);
    let store = S3Store::connect(&S3Settings { direct, ..settings }).await.unwrap();
    Subject::new(Arc::new(store), Conditions::all(Support::Honoured)).differing(DEV_SERVER_DIFFERS)
}
