//! Renames of directories that were not ended. Owns nothing else.

use super::*;

async fn with_directory() -> Bench {
    let b = bench().await;
    // The first write of a mount probes the bucket.
    b.write("probe", "x").await.unwrap();
    b.fs.unlink(Ino::ROOT, name("probe")).await.unwrap();
    b.foreign("old/", "").await;
    for i in 0..20 {
        b.foreign(&format!("old/f{i:02}"), "content").await;
    }
    b.ls(Ino::ROOT).await;
    let old = b.fs.lookup(Ino::ROOT, &name("old")).await.unwrap().unwrap();
    assert_eq!(b.ls(old.ino).await.len(), 20);
    b
}

async fn rename(b: &Bench) -> Result<()> {
    b.fs.rename((Ino::ROOT, name("old")), (Ino::ROOT, name("new")), false).await
}

/// The background of the next mount, until the journal knows of no rename.
async fn ended(b: &Bench) {
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    for _ in 0..1000 {
        if b.fs.writer.journal().renames().unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(b.fs.writer.journal().renames().unwrap().is_empty());
    background.abort();
}

async fn keys(b: &Bench) -> (usize, usize) {
    let request = |prefix: &str| crate::store::ListRequest {
        prefix: key(prefix),
        delimited: false,
        continuation: None,
        max_keys: 1000,
    };
    let (old, new) = (b.memory.list(&request("old/")).await.unwrap(), b.memory.list(&request("new/")).await.unwrap());
    (old.objects.len(), new.objects.len())
}

#[tokio::test]
async fn a_mount_that_is_killed_among_the_copies_leaves_them_to_the_next() {
    let b = with_directory().await;
    let held: Vec<_> = (0..5).map(|_| b.faults.hold_next(Op::Copy)).collect();
    let fs = Arc::clone(&b.fs);
    tokio::spawn(async move { fs.rename((Ino::ROOT, name("old")), (Ino::ROOT, name("new")), false).await });
    for hold in &held {
        hold.reached().await;
    }
    while keys(&b).await.1 < 16 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let b = b.crash().await;
    assert_eq!(keys(&b).await.0, 21, "nothing has gone before all was copied");
    // Somebody writes to one of them before the rename is ended: that is no longer what was to be moved.
    b.foreign("old/f07", "newer").await;
    ended(&b).await;
    let (old, new) = keys(&b).await;
    assert!((old, new) == (1, 20) || (old, new) == (1, 21), "{:?}", (old, new));
    assert_eq!(b.object("old/f07").await.as_deref(), Some("newer"));
    assert_eq!(b.object("new/f08").await.as_deref(), Some("content"));
    assert_eq!(b.ls(Ino::ROOT).await, ["new", "old"]);
}

#[tokio::test]
async fn old_names_that_could_not_be_deleted_go_with_the_next_mount() {
    let b = with_directory().await;
    b.faults.fail_next(Op::Delete, ErrorKind::Unreachable, 60);
    rename(&b).await.unwrap_err();
    assert_eq!(b.ls(Ino::ROOT).await[0], "new");
    let (old, new) = keys(&b).await;
    assert!(old > 0 && new == 21, "{:?}", (old, new));
    let b = b.crash().await;
    ended(&b).await;
    assert_eq!(keys(&b).await, (0, 21));
    assert_eq!(b.ls(Ino::ROOT).await, ["new"]);
}

#[tokio::test]
async fn what_was_copied_for_a_rename_that_failed_goes_with_the_next_mount() {
    let b = with_directory().await;
    // A copy is lost on the way back, another fails, and no copy can be deleted.
    b.faults.lose_next(Op::Copy, ErrorKind::Broken, 1);
    b.faults.fail_next(Op::Copy, ErrorKind::AccessDenied, 1);
    b.faults.fail_next(Op::Delete, ErrorKind::Unreachable, 99);
    rename(&b).await.unwrap_err();
    assert!(keys(&b).await.0 == 21 && keys(&b).await.1 > 0);
    let b = b.crash().await;
    ended(&b).await;
    let (old, new) = keys(&b).await;
    assert!(old == 21 && new <= 1, "{:?}", (old, new));
}
