//! `objfs demo`, the first thing that a newcomer runs.
//!
//! Owns: that it works, keeps what the user did, and ends. Does not own: the library's files in detail (`demo_files`).

use crate::failures::assert_refused;
use crate::world::{LONG, Outcome, World, eventually, files_below};
use objfs::daemon::mounts;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn demo(world: &World) -> Outcome {
    world.run(world.objfs(["demo", world.mnt().to_str().unwrap(), "--dir", world.path("demo").to_str().unwrap()]))
}

/// Every file of the mount with its content.
fn content(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    let mnt = world.mnt();
    world.within("reading everything", move || {
        let files = files_below(&mnt);
        files.into_iter().map(|f| (f.strip_prefix(&mnt).unwrap().to_owned(), std::fs::read(&f).unwrap())).collect()
    })
}

#[test]
fn a_library_is_mounted_and_stays_the_users() {
    let world = World::new();
    std::fs::remove_dir(world.mnt()).unwrap();
    let first = demo(&world).good();
    println!("started in {:?}", first.took);
    for words in ["A bucket is mounted at", "README.txt", "Books/", "objfs status", "fusermount3 -u"] {
        assert!(first.out.contains(words), "{words:?} is not in\n{}", first.out);
    }
    let library: BTreeMap<PathBuf, Vec<u8>> =
        objfs::demo::library().unwrap().into_iter().map(|item| (PathBuf::from(item.key), item.body)).collect();
    assert!(content(&world) == library, "the mount shows other files than the library's");
    for (program, arguments, ending) in
        [("unzip", &["-tq"][..], "epub"), ("flac", &["-ts"], "flac"), ("ffprobe", &["-v", "error"], "mp4")]
    {
        let file = library.keys().find(|key| key.extension().is_some_and(|e| e == ending)).unwrap();
        let mut command = world.command(program);
        command.args(arguments).arg(world.mnt().join(file));
        world.run(command).good();
    }
    world.write("mine.txt", b"mine").unwrap();
    world.write("README.txt", b"changed").unwrap();
    world.unmount_foreign();
    world.assert_over();

    let second = demo(&world).good();
    println!("started again in {:?}", second.took);
    let mut expected = library;
    expected.insert("mine.txt".into(), b"mine".to_vec());
    expected.insert("README.txt".into(), b"changed".to_vec());
    assert!(content(&world) == expected);
    let files = files_below(&world.path("demo"));
    for file in files.iter().filter(|f| f.exists()) {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600, "{}", file.display());
    }
    world.umount();
    world.assert_over();
}

#[test]
fn what_it_tells_other_programs_is_true() {
    let world = World::new();
    demo(&world).good();
    let credentials = std::fs::read_to_string(world.path("demo/credentials")).unwrap();
    let of = |name: &str| credentials.lines().find_map(|l| l.strip_prefix(&format!("{name} = "))).unwrap().to_owned();
    let second = world.path("second");
    std::fs::create_dir(&second).unwrap();
    let state = format!("state_dir={},cache_size=0", world.path("state").display());
    // objfs itself is the other program: keys and endpoint from that file alone.
    let mut command = world.objfs(["mount", "s3://demo", second.to_str().unwrap(), "-o", &state]);
    command.env_remove("S3_ACCESS_KEY_ID").env_remove("S3_SECRET_ACCESS_KEY");
    command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", world.path("demo/credentials"));
    world.run(command).good();
    assert!(of("endpoint_url").starts_with("http://127.0.0.1:") && of("aws_secret_access_key").len() > 20);
    let there = second.join("README.txt");
    assert!(!world.within("reading", move || std::fs::read(there)).unwrap().is_empty());
    world.run(world.objfs(["umount", second.to_str().unwrap()])).good();
    world.umount();
    world.assert_over();
}

#[test]
fn a_demo_that_cannot_start_says_why_once() {
    let world = World::new();
    demo(&world).good();
    let other = world.path("other");
    let folder = world.path("demo");
    let taken = world.run(world.objfs(["demo", other.to_str().unwrap(), "--dir", folder.to_str().unwrap()]));
    assert_eq!((taken.code, taken.err.lines().count()), (Some(32), 1), "{taken:?}");
    assert!(taken.err.contains("demo/server"), "{taken:?}");
    let again = demo(&world);
    assert_eq!((again.code, again.err.lines().count()), (Some(52), 1), "{again:?}");
    world.umount();
    world.assert_over();
    std::fs::write(world.path("file"), "").unwrap();
    let bad = world.run(world.objfs(["demo", other.to_str().unwrap(), "--dir", world.path("file").to_str().unwrap()]));
    assert_refused(&world, &bad, 32, &["file"]);
    std::fs::write(world.in_mnt("a"), "").unwrap();
    assert_refused(&world, &demo(&world), 51, &["not empty"]);
    world.assert_over();
}

#[test]
fn in_the_foreground_it_ends_with_its_mount() {
    let world = World::new();
    let folder = world.path("demo");
    let mut command = world.objfs(["demo", "-f", world.mnt().to_str().unwrap(), "--dir", folder.to_str().unwrap()]);
    let log = std::fs::File::create(world.path("out/log")).unwrap();
    let mut child = command.stderr(log).stdout(std::process::Stdio::null()).spawn().unwrap();
    let mnt = world.mnt();
    assert!(eventually(LONG, || mounts::is_mounted(&mnt)));
    assert!(world.names().contains(&"README.txt".to_owned()));
    world.unmount_foreign();
    assert_eq!(world.end_of(&mut child, LONG), Some(0));
    world.assert_over();
}
