//! Extended attributes that tell what the mount knows of a file. Owns nothing else.

use super::*;
use sha2::{Digest, Sha256};

#[tokio::test]
async fn what_is_told_of_a_file_is_what_the_bucket_says() {
    let b = bench().await;
    let (_, fh) = b.create("a").await;
    for n in ["user.objfs.etag", "user.objfs.sha256", "user.objfs.version", "user.objfs.url"] {
        assert_eq!(get(&b, "a", n).await.unwrap_err().errno(), libc::ENODATA, "{n}");
    }
    assert_eq!(get(&b, "a", "user.objfs.state").await.unwrap(), "open");
    b.fs.write(fh, Some(0), b"text", false).await.unwrap();
    b.close(fh).await;
    let made = b.memory.head(&key("a")).await.unwrap();
    assert_eq!(get(&b, "a", "user.objfs.etag").await.unwrap(), made.version.etag.bare());
    assert_eq!(get(&b, "a", "user.objfs.state").await.unwrap(), "clean");
    assert_eq!(get(&b, "a", "user.objfs.storage-class").await.unwrap(), "STANDARD");
    for n in ["user.objfs.version", "user.objfs.url", "user.objfs.conflict", "user.objfs.refresh"] {
        assert_eq!(get(&b, "a", n).await.unwrap_err().errno(), libc::ENODATA, "{n}");
    }
    assert_eq!(list(&b, "a").await, [] as [String; 0], "copies do not carry them along");
    let (_, fh) = b.open("a", libc::O_WRONLY | libc::O_TRUNC).await;
    b.faults.fail_next(Op::Put, ErrorKind::AccessDenied, 1);
    b.fs.flush(CALLER, fh).await.unwrap_err();
    assert_eq!(get(&b, "a", "user.objfs.state").await.unwrap(), "parked");
    b.fs.release(fh).await;
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn the_sum_is_that_of_the_bytes_that_are_there_or_none() {
    const SUM: &str = "user.objfs.sha256";
    let b = bench().await;
    b.write("a", "text").await.unwrap();
    let gets = b.count(Op::Get);
    assert_eq!(get(&b, "a", SUM).await.unwrap(), sha256(b"text"));
    // The same bytes with other attributes, and under another name.
    let private = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    b.fs.setattr(CALLER, entry(&b, "a").await.ino, private, false).await.unwrap();
    mv(&b, "a", "b").await;
    assert_eq!(get(&b, "b", SUM).await.unwrap(), sha256(b"text"));
    // Other bytes, of ours and before they are in the bucket.
    b.write("b", "changed").await.unwrap();
    assert_eq!(get(&b, "b", SUM).await.unwrap(), sha256(b"changed"));
    let (_, fh) = b.open("b", libc::O_WRONLY).await;
    b.fs.write(fh, Some(0), b"CHANGED", false).await.unwrap();
    assert_eq!(get(&b, "b", SUM).await.unwrap_err().errno(), libc::ENODATA);
    b.close(fh).await;
    assert_eq!(get(&b, "b", SUM).await.unwrap(), sha256(b"CHANGED"));
    // Other bytes, of somebody who copies the metadata along.
    let headers = b.memory.head(&key("b")).await.unwrap().headers;
    b.memory.put(&key("b"), Bytes::from_static(b"changeD"), &headers, &Condition::Always).await.unwrap();
    b.advance(120);
    assert_eq!(get(&b, "b", SUM).await.unwrap_err().errno(), libc::ENODATA);
    assert_eq!(b.count(Op::Get), gets, "nobody reads for that");
    // Nobody knows it of what was sent in parts.
    let large = "large ".repeat(4 << 20);
    b.write("large", &large).await.unwrap();
    assert_eq!(get(&b, "large", SUM).await.unwrap_err().errno(), libc::ENODATA);
    b.write("large", "small").await.unwrap();
    assert_eq!(get(&b, "large", SUM).await.unwrap(), sha256(b"small"));
    b.write("large", &large).await.unwrap();
    assert_eq!(b.memory.head(&key("large")).await.unwrap().headers.user.get("objfs-sha256"), None);
}
