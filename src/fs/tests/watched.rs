//! Names that appear in directories which somebody watches. Owns nothing else.

use super::*;

#[tokio::test]
async fn a_new_name_in_a_watched_directory_is_shown_with_its_event_or_to_who_asks_for_it() {
    let b = bench().await;
    b.foreign("known", "x").await;
    b.ls(Ino::ROOT).await;
    let _told = b.kernel();
    b.fs.meta.watches().set(std::collections::HashSet::from([Ino::ROOT]));
    for n in ["asked", "replayed"] {
        b.foreign(n, "x").await;
    }
    b.advance(120);
    b.fs.refresh(Ino::ROOT).await.unwrap();
    assert_eq!(b.ls(Ino::ROOT).await, ["known"], "their events come first");
    let asked = b.fs.lookup(Ino::ROOT, &name("asked")).await.unwrap().unwrap().ino;
    assert_eq!(b.ls(Ino::ROOT).await, ["asked", "known"]);
    let created = |n: &str| Replay::Created { parent: Ino::ROOT, name: name(n) };
    let step = b.fs.begin_replay(&created("replayed")).unwrap();
    assert!(matches!(step.act, Act::Create(FileKind::File, _)), "{step:?}");
    assert!(matches!(b.fs.end_replay(&created("replayed"), Ok(())), Replayed::Done));
    assert_eq!(b.ls(Ino::ROOT).await, ["asked", "known", "replayed"]);
    let step = b.fs.begin_replay(&created("asked")).unwrap();
    assert_eq!(step.act, Act::Touch(asked), "as if it had other content");
}
