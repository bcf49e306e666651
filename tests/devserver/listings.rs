//! Keys and listings.
//!
//! Owns: which keys there may be, pages of them, generated keys. Does not own: the client (`client`).

use crate::client::*;
use aws_sdk_s3::types::{Delete, EncodingType, ObjectIdentifier};
use objfs::devserver::{Server, Settings, Synthetic};

/// Keys that paths, XML or URLs find difficult.
fn odd_keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        "a",
        "a/b",
        "a/",
        "a//b",
        "/",
        "//",
        "/lead",
        "..",
        "../up",
        "a/../b",
        ".",
        "./x",
        "sp ace",
        "plus+",
        "per%20cent",
        "que?ry",
        "ha#sh",
        "am&p",
        "<xml>",
        "quo\"te'",
        "back\\slash",
        "ümläut",
        "日本/語",
        "\u{1F600}",
        "semi;colon",
        "co,mma=eq",
        "tilde~*",
        "a:b@c$d!e(f)",
        "tab\there",
        "line\nfeed",
        "return\rcarriage",
        "bell\x07",
        "\x01",
        "versionId=3",
        "x?versionId=3",
        "trail ",
        " lead",
        "%2F",
        "arn:x",
    ]
    .map(str::to_owned)
    .to_vec();
    keys.push("k".repeat(1024));
    keys.push("é".repeat(512));
    keys.sort();
    keys
}

fn url_decode(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8().unwrap().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_key() {
    let (_server, client) = start().await;
    let keys = odd_keys();
    for key in &keys {
        put(&client, key, key.as_bytes()).await;
    }
    for key in &keys {
        assert_eq!(get(&client, key).await, key.as_bytes(), "{key:?}");
    }
    let listed = client.list_objects_v2().bucket("demo").encoding_type(EncodingType::Url).send().await.unwrap();
    let found: Vec<_> = listed.contents().iter().map(|o| url_decode(o.key().unwrap())).collect();
    assert_eq!(found, keys);
    for key in &keys {
        let source: String = key.bytes().map(|b| format!("%{b:02X}")).collect();
        let copy = client.copy_object().bucket("demo").key("copied").copy_source(format!("demo/{source}"));
        copy.send().await.unwrap();
        assert_eq!(get(&client, "copied").await, key.as_bytes(), "{key:?}");
        let upload = client.create_multipart_upload().bucket("demo").key(key).send().await.unwrap();
        let id = upload.upload_id().unwrap();
        client.abort_multipart_upload().bucket("demo").key(key).upload_id(id).send().await.unwrap();
    }
    let ids = keys.iter().map(|k| ObjectIdentifier::builder().key(k).build().unwrap());
    let delete = Delete::builder().set_objects(Some(ids.collect())).build().unwrap();
    let gone = client.delete_objects().bucket("demo").delete(delete).send().await.unwrap();
    assert_eq!((gone.deleted().len(), gone.errors().len()), (keys.len(), 0));
    let left = client.list_objects_v2().bucket("demo").send().await.unwrap();
    assert_eq!(left.contents().iter().map(|o| o.key().unwrap()).collect::<Vec<_>>(), ["copied"]);
    let long = client.put_object().bucket("demo").key("k".repeat(1025)).send().await;
    assert_eq!(long.code_or_status(), "KeyTooLongError");
}

#[tokio::test(flavor = "multi_thread")]
async fn listings() {
    let (_server, client) = start().await;
    for key in ["a/1", "a/2", "b", "c/x/1", "c/y", "d e/1", "z"] {
        put(&client, key, b"x").await;
    }
    for max in 1..=8 {
        let (mut keys, mut prefixes, mut token) = (Vec::new(), Vec::new(), None);
        loop {
            let list = client.list_objects_v2().bucket("demo").delimiter("/").max_keys(max);
            let page = list.set_continuation_token(token).send().await.unwrap();
            assert_eq!(page.key_count().unwrap() as usize, page.contents().len() + page.common_prefixes().len());
            assert!(page.key_count().unwrap() <= max);
            keys.extend(page.contents().iter().map(|o| o.key().unwrap().to_owned()));
            prefixes.extend(page.common_prefixes().iter().map(|p| p.prefix().unwrap().to_owned()));
            token = page.next_continuation_token().map(str::to_owned);
            assert_eq!(page.is_truncated(), Some(token.is_some()));
            if token.is_none() {
                break;
            }
        }
        assert_eq!((keys.join(" "), prefixes.join(" ")), ("b z".to_owned(), "a/ c/ d e/".to_owned()));
        let (mut keys, mut marker) = (Vec::new(), None::<String>);
        loop {
            let list = client.list_objects().bucket("demo").delimiter("/").max_keys(max);
            let page = list.set_marker(marker).send().await.unwrap();
            keys.extend(page.contents().iter().map(|o| o.key().unwrap().to_owned()));
            keys.extend(page.common_prefixes().iter().map(|p| p.prefix().unwrap().to_owned()));
            marker = page.next_marker().map(str::to_owned);
            if page.is_truncated() != Some(true) {
                break;
            }
        }
        keys.sort();
        assert_eq!(keys, ["a/", "b", "c/", "d e/", "z"]);
    }
    let after = client.list_objects_v2().bucket("demo").start_after("b").prefix("c/").send().await.unwrap();
    assert_eq!(after.contents().len(), 2);
    let object = &after.contents()[0];
    assert_eq!(object.e_tag(), Some("\"9dd4e461268c8034f5c8564e155c67a6\""));
    assert_eq!((object.size(), object.storage_class().unwrap().as_str()), (Some(1), "STANDARD"));
    let encoded = client.list_objects_v2().bucket("demo").delimiter(" ").encoding_type(EncodingType::Url);
    let encoded = encoded.prefix("d ").send().await.unwrap();
    assert_eq!((encoded.prefix(), encoded.delimiter()), (Some("d+"), Some("+")));
    let wrong = client.list_objects_v2().bucket("demo").continuation_token("nonsense").send().await;
    assert_eq!(wrong.code_or_status(), "InvalidArgument");
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_objects() {
    let synthetic =
        Synthetic::parse_list("count=1000000,fanout=1000,size=4096,prefix=s/;count=1,size=1GiB,prefix=big/");
    let server = Server::start(Settings { synthetic: synthetic.unwrap(), ..Settings::default() }).await.unwrap();
    let client = client_of(&server);
    let list = || client.list_objects_v2().bucket("demo").delimiter("/");
    let dirs = list().prefix("s/").send().await.unwrap();
    assert_eq!((dirs.common_prefixes().len(), dirs.is_truncated()), (1000, Some(false)));
    let files = list().prefix("s/d000123/").send().await.unwrap();
    assert_eq!((files.contents().len(), files.is_truncated()), (1000, Some(false)));
    let file = &files.contents()[456];
    assert_eq!(file.key(), Some("s/d000123/f000456"));
    let head = client.head_object().bucket("demo").key("s/d000123/f000456").send().await.unwrap();
    assert_eq!((head.e_tag(), head.content_length()), (file.e_tag(), Some(4096)));
    let body = get(&client, "s/d000123/f000456").await;
    assert_eq!(body.len(), 4096);
    let read = |key: &'static str, range: &'static str| {
        let part = client.get_object().bucket("demo").key(key).range(range).send();
        async { part.await.unwrap().body.collect().await.unwrap().to_vec() }
    };
    assert_eq!(read("s/d000123/f000456", "bytes=100-199").await, body[100..200]);
    let big = "big/d000000/f000000";
    let across = read(big, "bytes=1048000-3146000").await;
    assert_eq!(across.len(), 2098001);
    assert_eq!(across[1000..2000], read(big, "bytes=1049000-1049999").await);

    put(&client, "s/d000000/f000001", b"mine").await;
    put(&client, "s/d000000/f000001a", b"new").await;
    client.delete_object().bucket("demo").key("s/d000000/f000000").send().await.unwrap();
    let first = list().prefix("s/d000000/").max_keys(3).send().await.unwrap();
    let keys: Vec<_> = first.contents().iter().map(|o| (o.key().unwrap(), o.size().unwrap())).collect();
    assert_eq!(keys, [("s/d000000/f000001", 4), ("s/d000000/f000001a", 3), ("s/d000000/f000002", 4096)]);
    client.copy_object().bucket("demo").key("copy").copy_source("demo/s/d000123/f000456").send().await.unwrap();
    assert_eq!(get(&client, "copy").await, body);
}
