//! How objects are to be stored, and what every request is to say: options of the mount that become headers.
//!
//! Owns: the options as data, S3's rules for tags and for customers' keys, which verb carries which header (the SDK's requests
//! and those without it alike). Does not own: the options' syntax and the key's file (`cli`), signatures.

use super::super::Op;
use super::settings::Secret;
use aws_sdk_s3::config::Intercept;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::base64;
use aws_smithy_types::config_bag::ConfigBag;
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::error::Error;

/// What must be encoded in `x-amz-tagging`: all but RFC 3986's unreserved characters.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// S3's limits of tags: how many, and the characters of a name and of a value.
const TAGS_MAX: usize = 10;
const TAG_NAME_MAX: usize = 128;
const TAG_VALUE_MAX: usize = 256;
/// Bytes of a customer's key.
const KEY_LEN: usize = 32;

const STORAGE_CLASS: &str = "x-amz-storage-class";
/// The class that S3 takes where none is named. It is named only against an option, since not every server has it.
const STANDARD: &str = "STANDARD";

/// How objects are to be stored, and what every request is to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageOptions {
    /// The storage class of objects that have none of their own. `None`: the server's default.
    pub storage_class: Option<String>,
    /// Who encrypts, and with which key. `None`: what the bucket says.
    pub encryption: Option<Encryption>,
    /// A canned ACL for what is written.
    pub acl: Option<String>,
    /// Tags of new objects.
    pub tags: Option<Tags>,
    /// We pay for requests and transfers, not the bucket's owner.
    pub requester_pays: bool,
    /// The account that must own the bucket, or requests are refused.
    pub bucket_owner: Option<String>,
}

/// Who encrypts objects, and with which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// S3 with its own key (`AES256`).
    Managed,
    /// S3 with a key of the key management service; its ETags say nothing of the bytes.
    Kms {
        /// The key's id or ARN. `None`: the account's default key.
        key: Option<String>,
        /// In two layers (`aws:kms:dsse`).
        dual: bool,
    },
    /// S3 with a key that each request brings along (SSE-C); its ETags say nothing of the bytes.
    Customer(CustomerKey),
}

/// A key for SSE-C, as headers have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomerKey {
    /// In base64.
    key: Secret,
    /// Its MD5 in base64, by which the server sees that the key has arrived whole.
    md5: Secret,
}

impl CustomerKey {
    /// 32 bytes, as they are or as a line of base64. `None` for anything else.
    pub fn parse(bytes: &[u8]) -> Option<CustomerKey> {
        let decoded = match bytes.len() {
            KEY_LEN => bytes.to_vec(),
            _ => base64::decode(std::str::from_utf8(bytes).ok()?.trim()).ok()?,
        };
        (decoded.len() == KEY_LEN).then(|| CustomerKey {
            key: Secret::new(base64::encode(&decoded)),
            md5: Secret::new(base64::encode(Md5::digest(&decoded))),
        })
    }
}

/// Tags, as `x-amz-tagging` has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags(String);

impl Tags {
    /// From `name=value&name=value`, nothing of which is encoded yet.
    ///
    /// # Errors
    /// What it should have been.
    pub fn parse(text: &str) -> Result<Tags, &'static str> {
        let mut encoded: Vec<String> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for tag in text.split('&') {
            let (name, value) = tag.split_once('=').ok_or("of the form name=value&name=value")?;
            if name.is_empty() || text.contains(char::is_control) {
                return Err("of the form name=value&name=value");
            }
            if name.chars().count() > TAG_NAME_MAX || value.chars().count() > TAG_VALUE_MAX {
                return Err("made of names up to 128 and values up to 256 characters");
            }
            if name.starts_with("aws:") {
                return Err("free of names that begin with aws:, which are Amazon's own");
            }
            if names.contains(&name) {
                return Err("free of names that are given twice");
            }
            names.push(name);
            encoded.push(format!("{}={}", utf8_percent_encode(name, QUERY), utf8_percent_encode(value, QUERY)));
        }
        if names.len() > TAGS_MAX {
            return Err("at most 10 tags");
        }
        Ok(Tags(encoded.join("&")))
    }
}

impl StorageOptions {
    /// The headers that a request carries because of the options. They are to be signed like all others.
    pub(super) fn headers(&self, op: Op) -> Vec<(&'static str, &str)> {
        let is_new = matches!(op, Op::Put | Op::CreateUpload);
        let is_copy = matches!(op, Op::Copy | Op::UploadPartCopy);
        let mut headers = Vec::new();
        if self.requester_pays {
            headers.push(("x-amz-request-payer", "requester"));
        }
        if let Some(owner) = &self.bucket_owner {
            headers.push(("x-amz-expected-bucket-owner", owner.as_str()));
            headers.extend(is_copy.then_some(("x-amz-source-expected-bucket-owner", owner.as_str())));
        }
        if let Some(encryption) = &self.encryption {
            encryption.add_to(op, &mut headers);
        }
        if is_new || op == Op::Copy {
            headers.extend(self.acl.as_deref().map(|acl| ("x-amz-acl", acl)));
        }
        if is_new {
            // A copy has its source's tags.
            headers.extend(self.tags.as_ref().map(|tags| ("x-amz-tagging", tags.0.as_str())));
        }
        headers
    }

    /// The class to name for an object whose own is `own`.
    pub(super) fn class_for<'a>(&'a self, own: Option<&'a str>) -> Option<&'a str> {
        match self.storage_class.as_deref() {
            None => own.filter(|class| *class != STANDARD),
            default => own.or(default),
        }
    }
}

impl Encryption {
    fn add_to<'a>(&'a self, op: Op, headers: &mut Vec<(&'static str, &'a str)>) {
        let is_written = matches!(op, Op::Put | Op::CreateUpload | Op::Copy);
        match self {
            Encryption::Managed if is_written => headers.push(("x-amz-server-side-encryption", "AES256")),
            Encryption::Kms { key, dual } if is_written => {
                let algorithm = if *dual { "aws:kms:dsse" } else { "aws:kms" };
                headers.push(("x-amz-server-side-encryption", algorithm));
                let key = key.as_deref().map(|key| ("x-amz-server-side-encryption-aws-kms-key-id", key));
                headers.extend(key);
            }
            Encryption::Customer(customer) => customer.add_to(op, headers),
            Encryption::Managed | Encryption::Kms { .. } => {}
        }
    }
}

impl CustomerKey {
    fn add_to<'a>(&'a self, op: Op, headers: &mut Vec<(&'static str, &'a str)>) {
        // The last two: S3 wants the key where an upload has checksums.
        let is_object = matches!(
            op,
            Op::Put
                | Op::CreateUpload
                | Op::UploadPart
                | Op::Get
                | Op::Head
                | Op::Copy
                | Op::UploadPartCopy
                | Op::CompleteUpload
                | Op::ListParts
        );
        if is_object {
            headers.extend([
                ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
                ("x-amz-server-side-encryption-customer-key", self.key.reveal()),
                ("x-amz-server-side-encryption-customer-key-md5", self.md5.reveal()),
            ]);
        }
        if matches!(op, Op::Copy | Op::UploadPartCopy) {
            headers.extend([
                ("x-amz-copy-source-server-side-encryption-customer-algorithm", "AES256"),
                ("x-amz-copy-source-server-side-encryption-customer-key", self.key.reveal()),
                ("x-amz-copy-source-server-side-encryption-customer-key-md5", self.md5.reveal()),
            ]);
        }
    }
}

/// Adds the headers to the SDK's requests before it signs them.
#[derive(Debug)]
pub(super) struct AddHeaders(pub(super) StorageOptions);

impl Intercept for AddHeaders {
    fn name(&self) -> &'static str {
        "objfs::AddHeaders"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let name = cfg.load::<Metadata>().map(Metadata::name);
        // What is none of our verbs (a session for a directory bucket) is the SDK's own business.
        let Some(op) = Op::ALL.into_iter().find(|op| name == Some(op.as_str())) else { return Ok(()) };
        let headers = context.request_mut().headers_mut();
        for (name, value) in self.0.headers(op) {
            headers.try_insert(name, value.to_owned())?;
        }
        if matches!(op, Op::Put | Op::CreateUpload | Op::Copy) {
            let own = headers.remove(STORAGE_CLASS);
            if let Some(class) = self.0.class_for(own.as_deref()) {
                headers.try_insert(STORAGE_CLASS, class.to_owned())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

    fn names(options: &StorageOptions, op: Op) -> Vec<&'static str> {
        options.headers(op).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn keys_are_32_bytes_or_base64_of_them() {
        let raw = CustomerKey::parse(KEY).unwrap();
        let text = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        assert_eq!(CustomerKey::parse(format!("{text}\n").as_bytes()).unwrap(), raw);
        assert_eq!((raw.key.reveal(), raw.md5.reveal()), (text, base64::encode(Md5::digest(KEY)).as_str()));
        for wrong in [&KEY[1..], b"", b"MDEyMw==\n", b"not base64, and longer than thirty-two bytes", &[0xff; 33]] {
            assert_eq!(CustomerKey::parse(wrong), None);
        }
    }

    #[test]
    fn the_key_does_not_show() {
        let key = CustomerKey::parse(KEY).unwrap();
        let options = StorageOptions { encryption: Some(Encryption::Customer(key.clone())), ..Default::default() };
        let shown = format!("{options:?} {options:#?} {:?}", AddHeaders(options.clone()));
        for secret in [key.key.reveal(), key.md5.reveal(), "0123456789abcdef"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn tags_are_encoded() {
        let of = |text: &str| Tags::parse(text).map(|tags| tags.0);
        let counted = |count: u32| (0..count).map(|n| format!("t{n}=x")).collect::<Vec<_>>().join("&");
        assert_eq!(of("team=a b&cost centre=ü+1=2").unwrap(), "team=a%20b&cost%20centre=%C3%BC%2B1%3D2");
        assert_eq!(of("empty=").unwrap(), "empty=");
        for (wrong, why) in [
            ("", "name=value"),
            ("a", "name=value"),
            ("=b", "name=value"),
            ("a=b&", "name=value"),
            ("a=\n", "name=value"),
            ("a=1&a=2", "twice"),
            ("aws:a=1", "aws:"),
            (format!("a={}", "x".repeat(257)).as_str(), "256"),
            (counted(11).as_str(), "10"),
        ] {
            assert!(of(wrong).unwrap_err().contains(why), "{wrong}");
        }
        assert!(of(&counted(10)).is_ok());
    }

    #[test]
    fn each_verb_carries_what_concerns_it() {
        assert!(Op::ALL.into_iter().all(|op| StorageOptions::default().headers(op).is_empty()));
        let options = StorageOptions {
            encryption: Some(Encryption::Kms { key: Some("k".to_owned()), dual: false }),
            acl: Some("private".to_owned()),
            tags: Some(Tags::parse("a=b").unwrap()),
            requester_pays: true,
            bucket_owner: Some("123456789012".to_owned()),
            ..StorageOptions::default()
        };
        let every = ["x-amz-request-payer", "x-amz-expected-bucket-owner"];
        for op in Op::ALL {
            assert!(names(&options, op).starts_with(&every), "{op:?}");
            let has = |name: &str| names(&options, op).contains(&name);
            let (new, copy) = (matches!(op, Op::Put | Op::CreateUpload), op == Op::Copy);
            assert_eq!(has("x-amz-tagging"), new, "{op:?}");
            assert_eq!(has("x-amz-acl"), new || copy, "{op:?}");
            assert_eq!(has("x-amz-server-side-encryption"), new || copy, "{op:?}");
            assert_eq!(has("x-amz-server-side-encryption-aws-kms-key-id"), new || copy, "{op:?}");
            assert_eq!(has("x-amz-source-expected-bucket-owner"), copy || op == Op::UploadPartCopy, "{op:?}");
        }
    }

    #[test]
    fn each_encryption_has_its_word() {
        let word = |encryption: Encryption| {
            let options = StorageOptions { encryption: Some(encryption), ..StorageOptions::default() };
            let headers = options.headers(Op::Put);
            let header = headers.iter().find(|(name, _)| *name == "x-amz-server-side-encryption");
            header.map(|(_, value)| (*value).to_owned()).unwrap()
        };
        assert_eq!(word(Encryption::Managed), "AES256");
        assert_eq!(word(Encryption::Kms { key: None, dual: false }), "aws:kms");
        assert_eq!(word(Encryption::Kms { key: None, dual: true }), "aws:kms:dsse");
    }

    #[test]
    fn an_object_keeps_its_class() {
        let with = |class: Option<&str>| StorageOptions {
            storage_class: class.map(str::to_owned),
            ..StorageOptions::default()
        };
        assert_eq!(with(None).class_for(None), None);
        assert_eq!(with(None).class_for(Some("STANDARD")), None, "not every server knows the word");
        assert_eq!(with(None).class_for(Some("COLD")), Some("COLD"));
        assert_eq!(with(Some("COLD")).class_for(None), Some("COLD"));
        assert_eq!(with(Some("COLD")).class_for(Some("STANDARD")), Some("STANDARD"));
    }
}
