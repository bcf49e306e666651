//! `objfs doctor`: what it says of this machine, and that its advice helps.
//!
//! Owns: the command as a person runs it. Does not own: each lack by itself (unit tests beside the code).

use crate::world::{World, is_root};

#[test]
fn what_it_advises_helps() {
    let world = World::new();
    world.mount("").good();
    let doctor = || world.run(world.objfs(["doctor"])).good().out;
    let text = doctor();
    assert!(text.contains("ok       /dev/fuse can be opened"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() < 300), "{text}");
    if !is_root() {
        return;
    }
    let info = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mnt = world.mnt();
    let line = info.lines().find(|line| line.split(' ').nth(4) == mnt.to_str()).unwrap();
    let knob = format!("/sys/class/bdi/{}/read_ahead_kb", line.split(' ').nth(2).unwrap());
    assert!(!text.contains(&knob), "root's own mounts need no advice: {text}");
    std::fs::write(&knob, "128").unwrap();
    let text = doctor();
    let hint = text.lines().skip_while(|line| !line.contains(mnt.to_str().unwrap())).nth(1).unwrap_or_default();
    let advice = hint.split_once("sudo ").map(|(_, advice)| advice).unwrap_or_else(|| panic!("no advice in {text}"));
    let mut shell = world.command("sh");
    shell.args(["-c", advice]);
    world.run(shell).good();
    assert_eq!(std::fs::read_to_string(&knob).unwrap().trim(), "1024");
    assert!(!doctor().contains(&knob));
    world.umount().good();
}
