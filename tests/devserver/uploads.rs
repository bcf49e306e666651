//! Multipart uploads and what outlives the server.
//!
//! Owns: uploads in both kinds of storage, a restart. Does not own: the client (`client`).

use crate::client::*;
use aws_sdk_s3::types::CompletedPart;
use objfs::devserver::{Server, Settings, Storage};

#[tokio::test(flavor = "multi_thread")]
async fn multipart_uploads() {
    const MIB: usize = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    for storage in [Storage::Memory, Storage::Directory(dir.path().join("s"))] {
        let server = Server::start(Settings { storage, ..Settings::default() }).await.unwrap();
        let client = client_of(&server);
        let bodies = [vec![1; 5 * MIB], vec![2; 6 * MIB], vec![3; 10]];
        let (id, parts) = upload_parts(&client, "big", &bodies).await;
        let complete = |parts: &[CompletedPart]| {
            let done = client.complete_multipart_upload().bucket("demo").key("big").upload_id(&id);
            done.multipart_upload(of_parts(parts))
        };
        let listed = client.list_parts().bucket("demo").key("big").upload_id(&id).max_parts(2).send().await.unwrap();
        assert_eq!((listed.parts().len(), listed.is_truncated()), (2, Some(true)));
        assert_eq!(listed.parts()[1].e_tag(), parts[1].e_tag());
        let uploads = client.list_multipart_uploads().bucket("demo").send().await.unwrap();
        assert_eq!(uploads.uploads()[0].upload_id(), Some(id.as_str()));
        let swapped = [parts[1].clone(), parts[0].clone()];
        assert_eq!(complete(&swapped).send().await.code_or_status(), "InvalidPartOrder");
        let wrong = [CompletedPart::builder().part_number(1).e_tag("\"0\"").build()];
        assert_eq!(complete(&wrong).send().await.code_or_status(), "InvalidPart");
        let small = [parts[2].clone(), CompletedPart::builder().part_number(4).e_tag("\"x\"").build()];
        assert_eq!(complete(&small).send().await.code_or_status(), "InvalidPart");
        assert_eq!(complete(&parts).if_match("\"x\"").send().await.code_or_status(), "NoSuchKey");
        let etag = complete(&parts).if_none_match("*").send().await.unwrap().e_tag.unwrap();
        assert!(etag.ends_with("-3\""), "{etag}");
        assert_eq!(complete(&parts).send().await.code_or_status(), "NoSuchUpload");
        let head = client.head_object().bucket("demo").key("big").send().await.unwrap();
        assert_eq!((head.e_tag(), head.content_type()), (Some(etag.as_str()), Some("x/y")));
        assert_eq!(head.metadata().unwrap()["a"], "b");
        assert!(get(&client, "big").await == bodies.concat());

        let (id, mut parts) = upload_parts(&client, "copy", &[]).await;
        let copy = |range: &str| {
            let part = client.upload_part_copy().bucket("demo").key("copy").upload_id(&id).part_number(1);
            part.copy_source("demo/big").copy_source_range(range)
        };
        assert_eq!(copy("bytes=0-99999999").send().await.code_or_status(), "InvalidRange");
        assert_eq!(copy("bytes=0-9").copy_source_if_match("\"x\"").send().await.code_or_status(), "PreconditionFailed");
        let range = format!("bytes={}-{}", 5 * MIB - 1, 11 * MIB + 3);
        let part = copy(&range).copy_source_if_match(&etag).send().await.unwrap().copy_part_result.unwrap();
        parts.push(CompletedPart::builder().part_number(1).e_tag(part.e_tag.unwrap()).build());
        let done = client.complete_multipart_upload().bucket("demo").key("copy").upload_id(&id);
        done.multipart_upload(of_parts(&parts)).send().await.unwrap();
        assert!(get(&client, "copy").await == bodies.concat()[5 * MIB - 1..11 * MIB + 4]);
        let whole = client.copy_object().bucket("demo").key("whole").copy_source("demo/big").send().await.unwrap();
        assert!(!whole.copy_object_result.unwrap().e_tag.unwrap().contains('-'), "a copy is one part");

        let (id, parts) = upload_parts(&client, "small", &[vec![1; 10], vec![2; 10]]).await;
        let done = client.complete_multipart_upload().bucket("demo").key("small").upload_id(&id);
        assert_eq!(done.multipart_upload(of_parts(&parts)).send().await.code_or_status(), "EntityTooSmall");
        client.abort_multipart_upload().bucket("demo").key("small").upload_id(&id).send().await.unwrap();
        let part = client.upload_part().bucket("demo").key("small").upload_id(&id).part_number(1);
        assert_eq!(part.send().await.code_or_status(), "NoSuchUpload");
        assert!(client.list_multipart_uploads().bucket("demo").send().await.unwrap().uploads().is_empty());
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_survives() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::Directory(dir.path().join("s"));
    let settings = Settings { storage, ..Settings::default() };
    let server = Server::start(settings.clone()).await.unwrap();
    let client = client_of(&server);
    let body = vec![9; 3_000_000];
    put(&client, "k/ü", &body).await;
    put(&client, "gone", b"x").await;
    put(&client, "replaced", b"1").await;
    let etag = put(&client, "replaced", b"2").await;
    client.copy_object().bucket("demo").key("copy").copy_source("demo/replaced").send().await.unwrap();
    client.delete_object().bucket("demo").key("gone").send().await.unwrap();
    client.create_bucket().bucket("second").send().await.unwrap();
    let (id, parts) = upload_parts(&client, "mpu", &[b"part".to_vec()]).await;
    assert!(Server::start(settings.clone()).await.is_err(), "one server at a time");
    server.shutdown().await;
    assert_eq!(std::fs::read_dir(dir.path().join("s/bodies")).unwrap().count(), 3);

    let server = Server::start(settings).await.unwrap();
    let client = client_of(&server);
    assert!(get(&client, "k/ü").await == body);
    let part = client.get_object().bucket("demo").key("k/ü").range("bytes=1048570-2097160").send().await.unwrap();
    assert_eq!(part.body.collect().await.unwrap().to_vec(), vec![9; 2097160 - 1048570 + 1]);
    client.delete_object().bucket("demo").key("replaced").send().await.unwrap();
    assert_eq!(get(&client, "copy").await, b"2", "copies share a body");
    let head = client.head_object().bucket("demo").key("copy").send().await.unwrap();
    assert_eq!(head.e_tag(), Some(etag.as_str()));
    assert_eq!(client.list_buckets().send().await.unwrap().buckets().len(), 2);
    let done = client.complete_multipart_upload().bucket("demo").key("mpu").upload_id(&id);
    done.multipart_upload(of_parts(&parts)).send().await.unwrap();
    assert_eq!(get(&client, "mpu").await, b"part");
    client.delete_object().bucket("demo").key("copy").send().await.unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("s/bodies")).unwrap().count(), 2);
    server.shutdown().await;
}
