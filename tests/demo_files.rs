//! The demo library's files are opened by the programs that read such files.
//!
//! Owns: the proof by `ffprobe`, `ffmpeg`, `flac` and `unzip`, which scripts/test installs.
//! Does not own: structure in detail (unit tests beside the code).

#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, but not in what those call

use std::path::PathBuf;
use std::process::Command;

use objfs::demo::{self, Item};

/// Runs `program` and gives what it printed. It has to be there, exit with 0, and, if `silent`, print no complaint.
fn run(program: &str, arguments: &[&str], silent: bool) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program} ({error}); scripts/test installs what the tests need"));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{complaint}", output.status);
    assert!(!silent || complaint.is_empty(), "{program} {arguments:?} complains:\n{complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The library's one file with that ending, written to a folder that goes away with the first part.
fn file(ending: &str) -> (tempfile::TempDir, PathBuf, Item) {
    let item = demo::library().unwrap().into_iter().find(|item| item.key.ends_with(ending)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(item.key.rsplit('/').next().unwrap());
    std::fs::write(&path, &item.body).unwrap();
    (folder, path, item)
}

#[test]
fn mp4_is_two_seconds_of_h264_that_decode() {
    let (_folder, path, _) = file(".mp4");
    let path = path.to_str().unwrap();
    let entries = "stream=codec_name,profile,width,height,avg_frame_rate,nb_read_frames:format=duration";
    let probe = run("ffprobe", &["-v", "error", "-count_frames", "-show_entries", entries, path], true);
    let lines = ["codec_name=h264", "width=128", "height=96", "avg_frame_rate=25/1", "nb_read_frames=50"];
    for line in lines.into_iter().chain(["profile=Constrained Baseline", "duration=2.000000"]) {
        assert!(probe.lines().any(|found| found == line), "{line} is not in\n{probe}");
    }
    run("ffmpeg", &["-v", "warning", "-xerror", "-err_detect", "explode", "-i", path, "-f", "null", "-"], true);
}

#[test]
fn mp4_shows_fifty_different_pictures() {
    let (_folder, path, _) = file(".mp4");
    let sums = run("ffmpeg", &["-v", "error", "-i", path.to_str().unwrap(), "-f", "framemd5", "-"], true);
    let mut pictures: Vec<&str> =
        sums.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit(',').next()).collect();
    pictures.sort_unstable();
    pictures.dedup();
    assert_eq!(pictures.len(), 50);
}

#[test]
fn flac_decodes_to_the_sum_in_its_header() {
    let (_folder, path, _) = file(".flac");
    let path = path.to_str().unwrap();
    run("flac", &["--test", "--silent", "--warnings-as-errors", path], true);
    run("ffmpeg", &["-v", "warning", "-xerror", "-err_detect", "explode", "-i", path, "-f", "null", "-"], true);
    let entries = "stream=codec_name,sample_rate,channels:format=duration:format_tags=TITLE,ARTIST";
    let probe = run("ffprobe", &["-v", "error", "-show_entries", entries, path], true);
    for line in ["codec_name=flac", "sample_rate=44100", "channels=1", "TAG:TITLE=Ode to Joy", "duration=12.800000"] {
        assert!(probe.lines().any(|found| found == line), "{line} is not in\n{probe}");
    }
}

#[test]
fn epub_is_a_sound_zip_with_its_parts() {
    let (_folder, path, _) = file(".epub");
    let path = path.to_str().unwrap();
    run("unzip", &["-t", path], true);
    let names = run("unzip", &["-Z1", path], true);
    assert_eq!(names.lines().next(), Some("mimetype"));
    assert_eq!(run("unzip", &["-p", path, "mimetype"], true), "application/epub+zip");
    assert!(run("unzip", &["-p", path, "EPUB/chapter-2.xhtml"], true).contains("南の灯台"));
}

#[test]
fn content_types_fit_the_endings() {
    for (ending, content_type) in
        [(".mp4", "video/mp4"), (".flac", "audio/flac"), (".epub", "application/epub+zip"), (".pdf", "application/pdf")]
    {
        assert_eq!(file(ending).2.content_type, content_type);
    }
}
