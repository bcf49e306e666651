//! Answers that are lost on their way: what was written is written once, and nobody calls it a conflict.
//!
//! Owns: many saves while answers are lost at random. Does not own: the loss of a single answer (`tests/mount`).

use crate::programs::{eventually, noise};
use crate::world::World;
use objfs::devserver::{Effect, Rule};
use std::collections::BTreeMap;
use std::time::Duration;

const SAVES: u64 = 200;
const FILES: u64 = 20;
/// Of those, the last few are multipart uploads.
const LARGE_FILES: u64 = 2;

/// The bytes of a save.
fn content(save: u64) -> Vec<u8> {
    let is_large = save % FILES >= FILES - LARGE_FILES;
    noise(save, if is_large { (17 << 20) + usize::try_from(save).unwrap() } else { 1000 * (1 + save as usize % 50) })
}

#[test]
fn lost_answers_are_no_conflicts() {
    let world = World::new();
    let client = world.client("us-east-1");
    let mut mount = world.mount("m", "us-east-1", &[], Duration::from_secs(240));
    mount.write("probe", b"x").unwrap();
    let lose = |op: &str| Rule::new(Effect::ResetAfter).on(op).rate(0.3);
    world.faults(["PutObject", "UploadPart", "CompleteMultipartUpload"].map(lose).to_vec());
    let mut expected = BTreeMap::new();
    for save in 0..SAVES {
        let name = format!("f{:02}", save % FILES);
        // Every third file is saved as editors do: the new one gets the old one's name.
        let written = if save % 3 == 0 {
            let draft = format!("{name}.new");
            mount.write(&draft, &content(save)).and_then(|()| std::fs::rename(mount.at(&draft), mount.at(&name)))
        } else {
            mount.write(&name, &content(save))
        };
        written.unwrap_or_else(|e| panic!("save {save} of {name}: {e}"));
        expected.insert(name, save);
    }
    let counts = world.server().counters();
    println!("{SAVES} saves: {:?} {:?}", counts.requests, counts.statuses);
    world.heal();
    assert_eq!(mount.status()["pending"]["conflicts"], 0);
    mount.unmount();
    let mut keys: Vec<String> = expected.keys().cloned().collect();
    keys.push("probe".to_owned());
    assert_eq!(client.keys(), keys);
    for (name, save) in expected {
        assert!(client.get(&name) == content(save), "{name} is not as save {save} left it");
    }
    eventually("no upload is left open", || (client.open_uploads() == 0).then_some(()));
}
