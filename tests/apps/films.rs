//! Films, books, trees and changed files, on each server that the tests run on, judged by an independent client
//! (boto3): the proof that the main job is done.

use crate::compare::finish;
use crate::world::{Mount, Store, eventually, is_full_run, names, noise, stdout_of};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use std::process::Command;

const SUM: &str = "digest = hashlib.sha256()\n\
    for piece in s3.get_object(Bucket=bucket, Key=sys.argv[1])['Body'].iter_chunks(1 << 20):\n\
    \x20   digest.update(piece)\n\
    print(digest.hexdigest(), end='')";
const LIST: &str = "pages = s3.get_paginator('list_objects_v2').paginate(Bucket=bucket, Prefix=sys.argv[1])\n\
    for page in pages:\n\
    \x20   for o in page.get('Contents', []): print(o['Key'], o['Size'])";

fn sha256(path: &Path) -> String {
    let mut digest = Sha256::new();
    std::io::copy(&mut fs::File::open(path).unwrap(), &mut DigestWriter(&mut digest)).unwrap();
    digest.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

struct DigestWriter<'a>(&'a mut Sha256);

impl std::io::Write for DigestWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A film of at least 200 MB, whose frames can be told apart.
fn make_film(path: &Path) {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-nostdin", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25:duration=8"]);
    // Hardly compressed, so that it is large within seconds.
    ffmpeg.args(["-c:v", "mjpeg", "-q:v", "1", "-vf", "noise=alls=60:allf=t", "-pix_fmt", "yuvj444p", "-f", "mp4"]);
    stdout_of(ffmpeg.arg(path));
    let size = fs::metadata(path).unwrap().len();
    assert!(size >= 200_000_000, "ffmpeg made {size} bytes only");
}

/// `reads_all`: the server is fast enough to read all of it once more.
fn a_film_is_copied_in_probed_and_decoded(store: &Store, mount: &Mount<'_>, reads_all: bool) {
    let original = mount.outside("film.mp4");
    make_film(&original);
    let sum = sha256(&original);
    mount.sh("cp ../film.mp4 film.mp4");
    assert_eq!(store.boto(SUM, &["film.mp4"]), sum, "the object is the film");
    let decode = |path: &Path| {
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-v", "error", "-nostdin", "-ss", "4.2", "-i"]).arg(path);
        stdout_of(ffmpeg.args(["-frames:v", "5", "-f", "framemd5", "-"]))
    };
    let probe = |path: &Path| {
        let mut ffprobe = Command::new("ffprobe");
        ffprobe.args([
            "-v",
            "error",
            "-show_entries",
            "format=duration,size:stream=codec_name,nb_frames",
            "-of",
            "csv",
        ]);
        stdout_of(ffprobe.arg(path))
    };
    let film = mount.at("film.mp4");
    assert_eq!(probe(&film), probe(&original));
    assert_eq!(decode(&film), decode(&original));
    // The same through a mount that has never seen it.
    let other = store.mount_with(&["ro"]);
    assert_eq!(decode(&other.at("film.mp4")), decode(&original));
    if reads_all {
        assert_eq!(sha256(&other.at("film.mp4")), sum);
    }
}

fn an_epub_passes_unzip(store: &Store, mount: &Mount<'_>) {
    let epub = "import zipfile\n\
        with zipfile.ZipFile(sys.argv[1], 'w') as z:\n\
        \x20   z.writestr('mimetype', 'application/epub+zip')\n\
        \x20   z.writestr('META-INF/container.xml', '<container/>', zipfile.ZIP_DEFLATED)\n\
        \x20   for i in range(40):\n\
        \x20       z.writestr(f'OEBPS/chapter{i}.xhtml', f'<p>Kapitel {i} \u{65e5}\u{672c}</p>' * 500, zipfile.ZIP_DEFLATED)";
    mount.py(epub, &["book.epub"]);
    let tested = mount.sh("unzip -t book.epub");
    assert!(tested.contains("No errors detected"), "{tested}");
    assert_eq!(store.boto(SUM, &["book.epub"]), sha256(&mount.at("book.epub")));
    // One that the other client uploads.
    let outside = mount.outside("other.epub");
    fs::copy(mount.at("book.epub"), &outside).unwrap();
    store.boto("s3.upload_file(sys.argv[1], bucket, 'other.epub')", &[outside.to_str().unwrap()]);
    eventually("the upload is seen", || mount.at("other.epub").exists().then_some(()));
    assert!(mount.sh("unzip -t other.epub").contains("No errors detected"));
}

fn a_tree_of_500_files_is_copied_moved_and_removed(store: &Store, mount: &Mount<'_>) {
    let tree = mount.outside("tree");
    let mut wanted = Vec::new();
    for i in 0..500usize {
        let path = format!("{}/sub {}/file-{i:03}.bin", i % 7, i % 5);
        let full = tree.join(&path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, noise(i as u64, i * 37)).unwrap();
        wanted.push((path, i * 37));
    }
    let listed = |prefix: &str| {
        let mut files: Vec<String> = store.boto(LIST, &[prefix]).lines().map(str::to_owned).collect();
        files.retain(|l| !l.ends_with("/ 0"));
        files.sort();
        files
    };
    let expected = |prefix: &str| {
        let mut lines: Vec<String> = wanted.iter().map(|(path, size)| format!("{prefix}{path} {size}")).collect();
        lines.sort();
        lines
    };
    mount.sh("cp -r ../tree copied; diff -r ../tree copied");
    assert_eq!(listed("copied/"), expected("copied/"));
    mount.sh("mv copied moved; diff -r ../tree moved");
    assert_eq!(listed("moved/"), expected("moved/"));
    assert_eq!(listed("copied/"), [] as [String; 0]);
    mount.sh("rm -r moved");
    mount.settle();
    assert_eq!(store.boto(LIST, &["moved/"]), "");
    assert!(!names(mount.root()).iter().any(|n| n == "moved"));
}

fn a_file_changed_in_its_middle_and_appended_to_agrees(store: &Store, mount: &Mount<'_>) {
    let mut bytes = noise(1, 21 << 20);
    let original = mount.outside("original");
    fs::write(&original, &bytes).unwrap();
    store.boto("s3.upload_file(sys.argv[1], bucket, 'changing.bin')", &[original.to_str().unwrap()]);
    eventually("the upload is seen", || mount.at("changing.bin").exists().then_some(()));
    fs::write(mount.outside("patch"), noise(2, 100_000)).unwrap();
    mount.sh("dd if=../patch of=changing.bin bs=4k seek=2000 conv=notrunc status=none; cat ../patch >> changing.bin");
    bytes[2000 * 4096..2000 * 4096 + 100_000].copy_from_slice(&noise(2, 100_000));
    bytes.extend(noise(2, 100_000));
    assert!(fs::read(mount.at("changing.bin")).unwrap() == bytes, "through the mount");
    let sum: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(store.boto(SUM, &["changing.bin"]), sum, "through boto3");
    fs::write(mount.outside("expected"), &bytes).unwrap();
    mount.sh("cmp changing.bin ../expected");
}

fn film(store: &Store, reads_all: bool) {
    let mut mount = store.mount();
    a_film_is_copied_in_probed_and_decoded(store, &mount, reads_all);
    finish(store, &mut mount);
}

fn books_trees_and_changes(store: &Store) {
    let mut mount = store.mount();
    an_epub_passes_unzip(store, &mount);
    a_tree_of_500_files_is_copied_moved_and_removed(store, &mount);
    a_file_changed_in_its_middle_and_appended_to_agrees(store, &mount);
    finish(store, &mut mount);
}

#[test]
fn a_film_works_on_the_dev_server() {
    film(&Store::dev(), true);
}

#[test]
fn books_trees_and_changes_work_on_the_dev_server() {
    books_trees_and_changes(&Store::dev());
}

#[test]
fn a_film_works_on_moto() {
    // moto reads a whole object for each range of it that is asked for.
    film(&Store::moto(), false);
}

#[test]
fn books_trees_and_changes_work_on_moto() {
    books_trees_and_changes(&Store::moto());
}

#[test]
fn garage_full_a_film_works_on_garage() {
    if is_full_run() {
        film(&Store::garage(), true);
    }
}

#[test]
fn garage_full_books_trees_and_changes_work_on_garage() {
    if is_full_run() {
        books_trees_and_changes(&Store::garage());
    }
}
