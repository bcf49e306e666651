//! Mount options that say how objects are stored: `storage_class=`, `sse=` and their kin.
//!
//! Owns: which values make sense, alone and together; reading the file of a key. Does not own: the headers that they become.

use super::exit_code::{ExitCode, Failure};
use crate::daemon::{CustomerKey, Encryption, StorageOptions, Tags};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// S3's canned ACLs for objects.
const ACLS: [&str; 7] = [
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
];
/// Classes whose objects cannot be read as they are.
const ARCHIVES: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];
/// Digits of the number of an account.
const ACCOUNT_LEN: usize = 12;
/// Most bytes of the file of a key that are read: more than any key has.
const KEY_FILE_MAX: u64 = 256;
/// Permission bits by which a group or others could read a key, or put another in its place.
const OPEN_TO_OTHERS: u32 = 0o066;

/// The options as they were given, each checked for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StorageWords {
    storage_class: Option<String>,
    sse: Option<Sse>,
    sse_kms_key: Option<String>,
    sse_c_key_file: Option<PathBuf>,
    acl: Option<String>,
    tags: Option<Tags>,
    bucket_owner: Option<String>,
    /// `requester_pays`.
    pub(super) requester_pays: bool,
}

/// What `sse=` may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sse {
    Managed,
    Kms,
    KmsDual,
}

impl StorageWords {
    /// Takes the value of one option.
    ///
    /// # Errors
    /// What it should have been.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        match name {
            "storage_class" => self.storage_class = Some(class(value)?),
            "sse" => {
                self.sse = Some(match value {
                    "AES256" => Sse::Managed,
                    "aws:kms" => Sse::Kms,
                    "aws:kms:dsse" => Sse::KmsDual,
                    _ => return Err("AES256, aws:kms or aws:kms:dsse"),
                });
            }
            "sse_kms_key" if value.bytes().all(|b| b.is_ascii_graphic()) => self.sse_kms_key = Some(value.to_owned()),
            "sse_kms_key" => return Err("the id or the ARN of a key"),
            "sse_c_key_file" => self.sse_c_key_file = Some(PathBuf::from(value)),
            "acl" if ACLS.contains(&value) => self.acl = Some(value.to_owned()),
            "acl" => return Err("a canned ACL such as private, public-read or bucket-owner-full-control"),
            "tags" => self.tags = Some(Tags::parse(value)?),
            _ if value.len() == ACCOUNT_LEN && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.bucket_owner = Some(value.to_owned());
            }
            _ => return Err("the number of an account, which has 12 digits"),
        }
        Ok(())
    }

    /// What the options mean together. Reads the file of the key, if there is one.
    ///
    /// # Errors
    /// Options that contradict each other, or a file that holds no key or that others may read.
    pub(super) fn options(self) -> Result<StorageOptions, Failure> {
        let encryption = self.encryption()?;
        Ok(StorageOptions {
            storage_class: self.storage_class,
            encryption,
            acl: self.acl,
            tags: self.tags,
            requester_pays: self.requester_pays,
            bucket_owner: self.bucket_owner,
        })
    }

    fn encryption(&self) -> Result<Option<Encryption>, Failure> {
        let key = self.sse_kms_key.clone();
        match (self.sse, &self.sse_c_key_file) {
            (Some(_), Some(_)) => {
                Err(usage("sse= and sse_c_key_file= exclude each other: who encrypts needs one key".to_owned()))
            }
            (None | Some(Sse::Managed), _) if key.is_some() => {
                Err(usage("the mount option sse_kms_key= needs sse=aws:kms or sse=aws:kms:dsse".to_owned()))
            }
            (None, None) => Ok(None),
            (None, Some(file)) => Ok(Some(Encryption::Customer(read_key(file)?))),
            (Some(Sse::Managed), None) => Ok(Some(Encryption::Managed)),
            (Some(sse), None) => Ok(Some(Encryption::Kms { key, dual: sse == Sse::KmsDual })),
        }
    }
}

fn usage(message: String) -> Failure {
    Failure::new(ExitCode::Usage, message)
}

fn class(value: &str) -> Result<String, &'static str> {
    if ARCHIVES.contains(&value) {
        return Err("a class whose objects can be read at once: use a lifecycle rule to archive, or GLACIER_IR");
    }
    let is_word = value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    is_word.then(|| value.to_owned()).ok_or("the name of a storage class, such as STANDARD_IA")
}

/// The key in a file. What is in there is in no message.
fn read_key(path: &Path) -> Result<CustomerKey, Failure> {
    let wrong = |what: &str| usage(format!("the mount option sse_c_key_file=: {} {what}", path.display()));
    let unreadable = |e: std::io::Error| wrong(&format!("cannot be read: {e}"));
    // Before it is opened: a pipe would wait for its other end.
    if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(wrong("is not a file"));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    if mode & OPEN_TO_OTHERS != 0 {
        return Err(wrong(&format!("has mode {:o}, so others can read or change it (chmod 600)", mode & 0o7777)));
    }
    let mut bytes = Vec::new();
    file.take(KEY_FILE_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    CustomerKey::parse(&bytes).ok_or_else(|| wrong("holds neither 32 bytes nor 32 bytes in base64"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn options(words: &[(&str, &str)]) -> Result<StorageOptions, String> {
        let mut given = StorageWords::default();
        words.iter().try_for_each(|(name, value)| given.set(name, value)).map_err(str::to_owned)?;
        given.options().map_err(|f| f.message)
    }

    #[test]
    fn options_become_data() {
        let o = options(&[
            ("storage_class", "STANDARD_IA"),
            ("sse", "aws:kms:dsse"),
            ("sse_kms_key", "arn:aws:kms:eu-west-1:123456789012:key/k"),
            ("acl", "bucket-owner-full-control"),
            ("tags", "a=b"),
            ("bucket_owner", "123456789012"),
        ])
        .unwrap();
        let key = Some("arn:aws:kms:eu-west-1:123456789012:key/k".to_owned());
        assert_eq!(o.encryption, Some(Encryption::Kms { key, dual: true }));
        assert_eq!((o.storage_class.as_deref(), o.tags), (Some("STANDARD_IA"), Some(Tags::parse("a=b").unwrap())));
        assert_eq!(o.acl.as_deref(), Some("bucket-owner-full-control"));
        assert_eq!(o.bucket_owner.as_deref(), Some("123456789012"));
        assert_eq!(options(&[("sse", "AES256")]).unwrap().encryption, Some(Encryption::Managed));
        assert_eq!(options(&[]).unwrap(), StorageOptions::default());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases: [(&[(&str, &str)], &str); 12] = [
            (&[("storage_class", "a b")], "STANDARD_IA"),
            (&[("storage_class", "GLACIER")], "lifecycle"),
            (&[("storage_class", "DEEP_ARCHIVE")], "lifecycle"),
            (&[("sse", "aes")], "AES256"),
            (&[("sse_kms_key", "k")], "needs sse=aws:kms"),
            (&[("sse", "AES256"), ("sse_kms_key", "k")], "needs sse=aws:kms"),
            (&[("sse", "aws:kms"), ("sse_c_key_file", "/x")], "exclude"),
            (&[("sse_c_key_file", "/no/such/file")], "/no/such/file cannot be read"),
            (&[("sse_c_key_file", "/")], "is not a file"),
            (&[("acl", "open")], "canned"),
            (&[("tags", "a")], "name=value"),
            (&[("bucket_owner", "me")], "12 digits"),
        ];
        for (words, why) in cases {
            let error = options(words).unwrap_err();
            assert!(error.contains(why), "{words:?}: {error}");
        }
    }

    #[test]
    fn a_key_is_taken_from_a_file_that_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let with = |bytes: &[u8], mode: u32| {
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            options(&[("sse_c_key_file", path.to_str().unwrap())])
        };
        let key = b"0123456789abcdef0123456789abcdef";
        let expected = Some(Encryption::Customer(CustomerKey::parse(key).unwrap()));
        assert_eq!(with(key, 0o600).unwrap().encryption, expected);
        assert_eq!(with(b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n", 0o600).unwrap().encryption, expected);
        for mode in [0o644, 0o640, 0o604, 0o620] {
            assert!(with(key, mode).unwrap_err().contains("chmod 600"), "{mode:o}");
        }
        let error = with(b"0123456789", 0o600).unwrap_err();
        assert!(error.contains("32 bytes") && !error.contains("0123456789"), "{error}");
    }
}
