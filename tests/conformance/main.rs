//! One suite, every store: what `ObjectStore` promises, checked on the in-memory reference and on real servers.
//!
//! Owns: which stores the suite runs on. The reference runs first in mind and cheapest in fact; moto always runs and must
//! start; Garage runs in the full run (`OBJFS_TEST_FULL=1`), and must start there.
//! Does not own: the cases (`suite`), starting servers (`stores`), what happens without a server (`network`),
//! headers that follow from options (`storage`), bodies that are changed on the way and refused checksums (`checksums`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod checksums;
#[path = "../servers/garage.rs"]
mod garage;
mod line;
mod network;
mod storage;
mod stores;
mod suite;

use objfs::devserver::{Effect, Rule, Storage};
use objfs::store::{Capabilities, Conditions, MemoryStore, Support};
use std::sync::Arc;

/// The limits of a small part, so that uploads stay small where the server lets them.
fn small_parts() -> Capabilities {
    Capabilities { part_size_min: 5 << 20, ..Capabilities::default() }
}

#[tokio::test]
async fn memory() {
    let conditions = Conditions::all(Support::Honoured);
    suite::run(suite::Subject::new(Arc::new(MemoryStore::with(small_parts(), conditions)), conditions)).await;
}

#[tokio::test]
async fn memory_that_ignores_conditions() {
    let conditions = Conditions::all(Support::Ignored);
    suite::run(suite::Subject::new(Arc::new(MemoryStore::with(small_parts(), conditions)), conditions)).await;
}

#[tokio::test]
async fn memory_that_refuses_conditions() {
    let conditions = Conditions::all(Support::Refused);
    suite::run(suite::Subject::new(Arc::new(MemoryStore::with(small_parts(), conditions)), conditions)).await;
}

#[tokio::test]
async fn memory_without_copy_conditions() {
    let conditions = Conditions { copy: Support::Ignored, ..Conditions::all(Support::Honoured) };
    suite::run(suite::Subject::new(Arc::new(MemoryStore::with(small_parts(), conditions)), conditions)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_server() {
    let server = stores::dev_server(Storage::Memory).await;
    suite::run(stores::dev_server_subject(&server).await).await;
}

/// Where its endpoint wants more than Signature Version 4, all goes through the SDK.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_server_through_the_sdk() {
    let server = stores::dev_server(Storage::Memory).await;
    suite::run(stores::dev_server_subject_through_the_sdk(&server).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_server_in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let server = stores::dev_server(Storage::Directory(dir.path().join("server"))).await;
    suite::run(stores::dev_server_subject(&server).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_server_that_refuses_checksums() {
    let server = stores::dev_server(Storage::Memory).await;
    server.faults().add(Rule::new(Effect::RefuseChecksums));
    suite::run(stores::dev_server_subject(&server).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moto() {
    let server = stores::moto().await;
    suite::run(server.subject().await).await;
}

#[tokio::test]
async fn tls_full() {
    if std::env::var_os("OBJFS_TEST_FULL").is_none() {
        eprintln!("left to the full run (OBJFS_TEST_FULL=1)");
        return;
    }
    let server = stores::moto_tls().await;
    network::certificates_are_checked(server.settings()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garage_full() {
    if std::env::var_os("OBJFS_TEST_FULL").is_none() {
        eprintln!("left to the full run (OBJFS_TEST_FULL=1)");
        return;
    }
    let server = stores::garage().await;
    network::wrong_credentials_are_told_apart(server.settings()).await;
    suite::run(server.subject().await).await;
}
