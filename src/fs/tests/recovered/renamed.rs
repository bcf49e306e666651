//! Files whose name, or one above it, changes while they are half written or shortly before the power fails. Owns nothing else.

use super::*;
use crate::write::Span;

/// `d/f` in the bucket: the inodes of both.
async fn below(b: &Bench) -> (Ino, Ino) {
    b.foreign("d/f", "in the bucket").await;
    let d = b.ino("d").await;
    let f = b.fs.lookup(d, &name("f")).await.unwrap().unwrap().ino;
    (d, f)
}

/// As whoever writes a file anew, and has not come to its end.
async fn write_half(b: &Bench, ino: Ino, text: &str) -> Fh {
    let fh = b.fs.open(CALLER, ino, libc::O_WRONLY | libc::O_TRUNC).await.unwrap().fh;
    b.fs.write(fh, Some(0), text.as_bytes(), false).await.unwrap();
    fh
}

async fn write_whole(b: &Bench, ino: Ino, text: &str) {
    let fh = write_half(b, ino, text).await;
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
}

#[tokio::test]
async fn what_is_half_written_over_an_object_is_not_sent_because_a_name_changes_or_its_directory_is_synced() {
    for is_acknowledged in [false, true] {
        for (act, now) in [("rename", "d/g"), ("rename of the directory", "e/f"), ("fsync of the directory", "d/f")] {
            let b = late_bench().await;
            let (d, f) = below(&b).await;
            if is_acknowledged {
                write_whole(&b, f, "acknowledged").await;
            }
            write_half(&b, f, "half").await;
            match act {
                "rename" => b.fs.rename((d, name("f")), (d, name("g")), false).await.unwrap(),
                "rename of the directory" => b.mv("d", "e").await.unwrap(),
                _ => b.fs.fsyncdir(d).await.unwrap(),
            }
            let there = (b.object(now).await, b.object("d/f").await.is_some());
            assert_eq!(there, (Some("in the bucket".to_owned()), now == "d/f"), "{act}");
            let b = b.crash().await;
            let wanted = if is_acknowledged { "acknowledged" } else { "in the bucket" };
            assert_eq!(b.drained(&[now]).await, [wanted], "{act}");
            assert_eq!(b.fs.pending().unwrap().conflicts, 0, "{act}");
        }
    }
}

#[tokio::test]
async fn what_somebody_begins_to_write_while_a_rename_waits_for_its_turn_is_not_sent_by_that() {
    let b = late_bench().await;
    let (d, f) = below(&b).await;
    write_whole(&b, f, "acknowledged").await;
    let claim = b.fs.claims.claim(vec![Span::Key(key("d/f"))]).await;
    let fs = Arc::clone(&b.fs);
    let renaming = tokio::spawn(async move { fs.rename((d, name("f")), (d, name("g")), false).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    write_half(&b, f, "half").await;
    drop(claim);
    renaming.await.unwrap().unwrap();
    assert_eq!(b.object("d/g").await.as_deref(), Some("in the bucket"));
    let b = b.crash().await;
    assert_eq!(b.drained(&["d/f", "d/g"]).await, ["nothing", "acknowledged"]);
    assert_eq!(b.fs.pending().unwrap().conflicts, 0);
}

#[tokio::test]
async fn what_is_saved_over_a_version_that_the_catalogue_has_lost_is_of_that_version() {
    for is_removed in [true, false] {
        let b = late_bench().await;
        b.write("known.new", "saved").await.unwrap();
        let saved = b.ino("known.new").await;
        let private = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        b.fs.setattr(CALLER, saved, private, false).await.unwrap();
        b.mv("known.new", "known").await.unwrap();
        // Power is lost, and with it what the catalogue was told last.
        let lost = |row: &mut InodeRow| {
            row.version = None;
            row.headers = None;
        };
        b.fs.meta.change(saved, lost).await.unwrap();
        let b = b.crash().await;
        if is_removed {
            b.fs.unlink(Ino::ROOT, name("known")).await.unwrap();
            assert_eq!(b.object("known").await, None);
        } else {
            assert_eq!(b.drained(&["known"]).await, ["saved"]);
            assert_eq!(b.memory.head(&key("known")).await.unwrap().headers.user["mode"], "33152");
        }
    }
}
