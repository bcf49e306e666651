//! A client of the bucket that shares no code with objfs.
//!
//! Owns: short forms of frequent requests, all of them blocking.
//! Does not own: the client's settings (`sdk`), servers (`common`), boto3 (`common::Store::boto`).

use crate::sdk::{self, Place};
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::EncodingType;
use std::collections::{BTreeMap, HashMap};
use tokio::runtime::Handle;

/// A bucket, seen from elsewhere.
#[derive(Debug)]
pub(crate) struct Client {
    s3: aws_sdk_s3::Client,
    bucket: String,
    runtime: Handle,
}

impl Client {
    pub(crate) fn new(place: &Place, runtime: Handle) -> Client {
        let s3 = sdk::client(place, RequestChecksumCalculation::WhenRequired);
        Client { s3, bucket: place.bucket.clone(), runtime }
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub(crate) fn create_bucket(&self) {
        self.wait(self.s3.create_bucket().bucket(&self.bucket).send()).unwrap();
    }

    pub(crate) fn bucket_exists(&self) -> bool {
        self.wait(self.s3.head_bucket().bucket(&self.bucket).send()).is_ok()
    }

    pub(crate) fn put(&self, key: &str, body: impl AsRef<[u8]>) {
        self.put_with(key, body, &[]);
    }

    /// With user metadata.
    pub(crate) fn put_with(&self, key: &str, body: impl AsRef<[u8]>, metadata: &[(&str, &str)]) {
        let mut put = self.s3.put_object().bucket(&self.bucket).key(key);
        for (name, value) in metadata {
            put = put.metadata(*name, *value);
        }
        let sent = put.body(ByteStream::from(body.as_ref().to_vec())).send();
        self.wait(sent).unwrap_or_else(|e| panic!("PUT {key:?}: {e:?}"));
    }

    pub(crate) fn try_get(&self, key: &str) -> Option<Vec<u8>> {
        self.wait(async {
            let answer = self.s3.get_object().bucket(&self.bucket).key(key).send().await;
            match answer {
                Ok(answer) => Some(answer.body.collect().await.unwrap().to_vec()),
                Err(e) if e.as_service_error().is_some_and(|e| e.is_no_such_key()) => None,
                Err(e) => panic!("GET {key:?}: {e:?}"),
            }
        })
    }

    pub(crate) fn get(&self, key: &str) -> Vec<u8> {
        self.try_get(key).unwrap_or_else(|| panic!("the bucket has no {key:?}, but {:?}", self.keys()))
    }

    pub(crate) fn text(&self, key: &str) -> String {
        String::from_utf8(self.get(key)).unwrap()
    }

    /// User metadata.
    pub(crate) fn metadata(&self, key: &str) -> HashMap<String, String> {
        let head = self.wait(self.s3.head_object().bucket(&self.bucket).key(key).send());
        head.unwrap_or_else(|e| panic!("HEAD {key:?}: {e:?}")).metadata.unwrap_or_default()
    }

    pub(crate) fn content_type(&self, key: &str) -> Option<String> {
        self.wait(self.s3.head_object().bucket(&self.bucket).key(key).send()).unwrap().content_type
    }

    /// A server-side copy, metadata included.
    pub(crate) fn copy(&self, from: &str, to: &str) {
        let source = format!("{}/{from}", self.bucket);
        self.wait(self.s3.copy_object().bucket(&self.bucket).key(to).copy_source(source).send()).unwrap();
    }

    pub(crate) fn delete(&self, key: &str) {
        self.wait(self.s3.delete_object().bucket(&self.bucket).key(key).send()).unwrap();
    }

    /// Every key with its ETag and size, but for objfs' own.
    pub(crate) fn list(&self) -> BTreeMap<String, (String, i64)> {
        let mut all = self.list_everything();
        all.retain(|key, _| !key.starts_with(".objfs/"));
        all
    }

    /// Every key with its ETag and size.
    pub(crate) fn list_everything(&self) -> BTreeMap<String, (String, i64)> {
        let decode = |key: &str| {
            let plus = key.replace('+', " ");
            percent_encoding::percent_decode_str(&plus).decode_utf8().unwrap().into_owned()
        };
        self.wait(async {
            let mut all = BTreeMap::new();
            let mut pages =
                self.s3.list_objects_v2().bucket(&self.bucket).encoding_type(EncodingType::Url).into_paginator().send();
            while let Some(page) = pages.next().await {
                for object in page.unwrap().contents.unwrap_or_default() {
                    let etag = object.e_tag.unwrap_or_default();
                    all.insert(decode(&object.key.unwrap()), (etag, object.size.unwrap_or(0)));
                }
            }
            all
        })
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.list().into_keys().collect()
    }

    /// Uploads that were begun and neither completed nor aborted.
    pub(crate) fn open_uploads(&self) -> usize {
        let listed = self.wait(self.s3.list_multipart_uploads().bucket(&self.bucket).send());
        listed.unwrap().uploads.unwrap_or_default().len()
    }
}
