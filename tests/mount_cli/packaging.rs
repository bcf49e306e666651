//! What packagers and administrators get.
//!
//! Owns: packaging/install into a root of its own, the manual page, the lines of fstab.example.
//! Does not own: what an installed objfs does.

use crate::world::{World, binary, project};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

/// Files that an installation has, with their modes.
const FILES: [(&str, u32); 4] = [
    ("usr/local/bin/objfs", 0o755),
    ("usr/local/share/man/man8/mount.objfs.8", 0o644),
    ("etc/systemd/system/objfs@.service", 0o644),
    ("etc/udev/rules.d/60-objfs.rules", 0o644),
];
const LINK: &str = "sbin/mount.objfs";

#[test]
fn install_and_uninstall() {
    let world = World::new();
    std::fs::create_dir_all(world.path("target/release")).unwrap();
    std::fs::copy(binary(), world.path("target/release/objfs")).unwrap();
    let root = world.path("root");
    let install = |args: &[&str]| {
        let mut command = world.command(project().join("packaging/install"));
        command.args(args).env("DESTDIR", &root).env("CARGO_TARGET_DIR", world.path("target"));
        world.run(command).good().out
    };
    let said = install(&[]);
    assert!(said.contains("mount.objfs"), "{said}");
    for (file, mode) in FILES {
        let found = std::fs::metadata(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(found.mode() & 0o7777, mode, "{file}");
    }
    assert_eq!(std::fs::read_link(root.join(LINK)).unwrap(), Path::new("/usr/local/bin/objfs"));
    let mut version = world.command(root.join("usr/local/bin/objfs"));
    version.arg("--version");
    assert!(world.run(version).good().out.starts_with("objfs "));
    install(&[]);
    install(&["--uninstall"]);
    for file in FILES.iter().map(|(file, _)| *file).chain([LINK]) {
        assert!(std::fs::symlink_metadata(root.join(file)).is_err(), "{file} is left");
    }
}

/// Runs as mount.objfs, as mount(8) does with a line of fstab.
#[test]
fn lines_of_fstab_example_are_understood() {
    let world = World::new();
    let link = world.path("mount.objfs");
    symlink(binary(), &link).unwrap();
    let text = std::fs::read_to_string(project().join("packaging/fstab.example")).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).collect();
    assert!(lines.len() >= 3, "{text}");
    for line in lines {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [source, _, "objfs", options, "0", "0"] = fields[..] else { panic!("{line}") };
        let mut command = world.command(&link);
        // State elsewhere, and a mountpoint that is not there: all that comes before was understood.
        command.arg(source).arg(world.path("missing")).args(["-o", &format!("{options},{}", world.options(""))]);
        let outcome = world.run(command);
        assert_eq!(outcome.code, Some(50), "{line}: {outcome:?}");
    }
}

#[test]
fn the_manual_page_names_every_option() {
    let world = World::new();
    let page = std::fs::read_to_string(project().join("packaging/mount.objfs.8")).unwrap().replace("\\-", "-");
    let help = world.run(world.objfs(["mount", "--help"])).good().out;
    let options: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Options for -o"))
        .skip(1)
        .map_while(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with("Kernel")))
        .filter_map(|line| line.split([' ', '=']).next().filter(|name| !name.is_empty()))
        .collect();
    assert!(options.len() > 15, "{help}");
    let missing: Vec<&&str> = options.iter().filter(|name| !page.contains(**name)).collect();
    assert!(missing.is_empty(), "the manual page lacks {missing:?}");
}
