//! README's commands work as they stand there.
//!
//! Owns: running every `sh` block after a line `<!-- run -->`, with ENDPOINT, BUCKET and MNT set and objfs on PATH.
//! Does not own: what README says.

use crate::world::{SECRET, World, binary, is_root, project};
use std::os::unix::fs::symlink;

const MARK: &str = "<!-- run -->";

/// The marked blocks of a text, in order.
fn blocks(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == MARK {
            assert_eq!(lines.next().map(str::trim), Some("```sh"), "{MARK} stands before a block of sh");
            let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
            found.push(block.join("\n"));
        }
    }
    found
}

#[test]
fn marked_blocks_run() {
    let path = project().join("README.md");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let blocks = blocks(&text);
    assert!(!blocks.is_empty(), "README.md marks no block with {MARK}: its commands are not tested");
    let world = World::new();
    std::fs::create_dir(world.path("bin")).unwrap();
    symlink(binary(), world.path("bin/objfs")).unwrap();
    symlink(binary(), world.path("bin/mount.objfs")).unwrap();
    // Root's state would be in /var/lib: it is elsewhere in the mount namespace of this test.
    let private = if is_root() { "mount -t tmpfs tmpfs /var/lib\n" } else { "" };
    let script =
        format!("set -eu\n{private}{}\nif mountpoint -q \"$MNT\"; then objfs umount \"$MNT\"; fi", blocks.join("\n"));
    let mut command = world.command(if is_root() { "unshare" } else { "sh" });
    if is_root() {
        command.args(["--mount", "sh"]);
    }
    let path = format!("{}:{}", world.path("bin").display(), std::env::var("PATH").unwrap());
    command.args(["-c", &script]).current_dir(world.path("home")).env("PATH", path);
    command.env("ENDPOINT", world.endpoint()).env("BUCKET", "demo").env("MNT", world.mnt());
    command.env("AWS_ACCESS_KEY_ID", "objfs").env("AWS_SECRET_ACCESS_KEY", SECRET).env("AWS_REGION", "us-east-1");
    let outcome = world.run(command);
    assert_eq!(outcome.code, Some(0), "{}\n{}\n{}", outcome.out, outcome.err, script);
    println!("{} blocks in {:?}:\n{}", blocks.len(), outcome.took, outcome.out);
    world.assert_over();
}

#[test]
fn blocks_are_found() {
    assert_eq!(blocks("a\n```sh\nno\n```\n<!-- run -->\n```sh\nyes\nyes\n```\nb"), ["yes\nyes"]);
    assert!(blocks("```sh\nls\n```").is_empty());
}
