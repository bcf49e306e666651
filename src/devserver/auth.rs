//! Whose signatures are accepted.
//!
//! Owns: the one key that is let in, and S3's own answer to every other. Does not own: checking signatures (s3s).

use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

/// One access key.
pub(super) struct OneKey {
    pub(super) access_key: String,
    pub(super) secret_key: SecretKey,
}

#[async_trait::async_trait]
impl S3Auth for OneKey {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.access_key {
            return Ok(self.secret_key.clone());
        }
        // S3's words; s3s' own provider answers NotSignedUp, which S3 keeps for accounts.
        Err(s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records."))
    }
}
