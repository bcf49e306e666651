//! The log, and the faults that tests of uploads need.
//!
//! Owns: what the log tells of writes. Does not own: the client (`client`).

use crate::client::*;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::primitives::ByteStream;
use objfs::devserver::{Effect, LogEntry, Rule};

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_who_replaced_what() {
    let (server, client) = start().await;
    put(&client, "k", b"unseen").await;
    server.log().start();
    let first = put(&client, "k", b"first").await;
    let second = client.put_object().bucket("demo").key("k").if_match(&first).body(ByteStream::from_static(b"second"));
    let second = second.send().await.unwrap().e_tag.unwrap();
    let refused = client.put_object().bucket("demo").key("k").if_none_match("*").body(ByteStream::from_static(b"x"));
    assert_eq!(refused.send().await.code_or_status(), "PreconditionFailed");
    client.head_object().bucket("demo").key("k").send().await.unwrap();
    server.faults().add(Rule::new(Effect::ResetAfter).on("DeleteObject").times(1));
    assert_eq!(client.delete_object().bucket("demo").key("k").send().await.code_or_status(), "dispatch");
    let other = client_with(&server.endpoint(), "objfs-secret", RequestChecksumCalculation::WhenRequired);
    assert!(other.head_object().bucket("demo").key("k").send().await.is_err());

    let log: Vec<LogEntry> = server.log().take();
    let bare = |etag: &str| Some(etag.trim_matches('"').to_owned());
    let told: Vec<_> = log.iter().map(|e| (e.op.as_str(), e.place, e.changed, e.status)).collect();
    let expected = [
        ("PutObject", Some(0), true, Some(200)),
        ("PutObject", Some(1), true, Some(200)),
        ("PutObject", None, false, Some(412)),
        ("HeadObject", Some(2), false, Some(200)),
        ("DeleteObject", Some(3), true, None),
        ("HeadObject", Some(4), false, Some(404)),
    ];
    assert_eq!(told, expected);
    assert!(log.iter().all(|e| e.key == "k" && e.region == "us-east-1"));
    assert_eq!((&log[1].if_match, &log[1].before, &log[1].after), (&bare(&first), &bare(&first), &bare(&second)));
    assert_eq!((log[1].bytes().as_deref(), log[2].if_none_match.as_deref()), (Some(&b"second"[..]), Some("*")));
    assert_eq!((&log[3].before, &log[4].before, &log[4].after), (&bare(&second), &bare(&second), &None));
    assert_eq!((&log[5].before, log[5].bytes()), (&None, None));
    assert!(server.log().take().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_told_apart_and_break_half_way() {
    let (server, client) = start().await;
    server.log().start();
    let created = client.create_multipart_upload().bucket("demo").key("k").send().await.unwrap();
    let id = created.upload_id.unwrap();
    server.faults().add(Rule::new(Effect::ResetHalfway).on("UploadPart").after(1).times(1));
    server.faults().add(Rule::new(Effect::QuotaExceeded).on("UploadPart").after(2).times(1));
    let send = |number| {
        let part = client.upload_part().bucket("demo").key("k").upload_id(&id).part_number(number);
        part.body(ByteStream::from(vec![7; 6 << 20])).send()
    };
    assert!(send(1).await.is_ok());
    assert_eq!(send(2).await.code_or_status(), "dispatch");
    assert_eq!(send(2).await.code_or_status(), "QuotaExceeded");
    assert!(send(2).await.is_ok());
    let told: Vec<_> = server.log().take().into_iter().map(|e| (e.upload, e.part, e.status)).collect();
    let of = |part, status| (Some(id.clone()), Some(part), status);
    let expected = [of(1, Some(200)), of(2, None), of(2, Some(403)), of(2, Some(200))];
    assert_eq!(told[1..], expected);
    assert_eq!(told[0], (None, None, Some(200)));
}
