//! From errors of the SDK, of HTTP and of servers to ours.
//!
//! Owns: which kind each S3 code and status is, what a failed connection means, messages that say what to do.
//! Does not own: what follows from a kind (`retry`, errnos).

use super::super::{ErrorKind, Op, StoreError};
use super::http::TimedOut;
use crate::types::Key;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_xml::decode::Document;
use std::error::Error;
use std::time::Duration;

/// Any error.
type Cause = Box<dyn Error + Send + Sync>;

/// The kind of an answer. `code` is empty where the answer had no body (HEAD).
pub(super) fn classify(op: Op, status: u16, code: &str, message: &str) -> ErrorKind {
    by_code(code).or_else(|| by_message(status, message)).unwrap_or_else(|| by_status(op, status))
}

/// What a code of S3 ("Error responses" in the S3 API reference) or of a server like it means.
fn by_code(code: &str) -> Option<ErrorKind> {
    Some(match code {
        "NoSuchKey" => ErrorKind::NotFound,
        "NoSuchBucket" => ErrorKind::NoSuchBucket,
        "NoSuchUpload" => ErrorKind::NoSuchUpload,
        "PreconditionFailed" => ErrorKind::Precondition,
        "ConditionalRequestConflict" | "OperationAborted" => ErrorKind::Conflict,
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "RequestTimeTooSkewed"
        | "InvalidSecurity" => ErrorKind::Credentials,
        "InvalidObjectState" => ErrorKind::Archived,
        "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" => {
            ErrorKind::Quota
        }
        "EntityTooLarge" | "MaxMessageLengthExceeded" => ErrorKind::TooLarge,
        "MetadataTooLarge" => ErrorKind::MetadataTooLarge,
        "InvalidRange" => ErrorKind::InvalidRange,
        "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "ServiceUnavailable"
        | "SlowDownRead"
        | "SlowDownWrite" => ErrorKind::Throttled,
        "InternalError" | "XMinioServerNotInitialized" => ErrorKind::Server,
        "RequestTimeout" => ErrorKind::Timeout,
        "IncompleteBody" => ErrorKind::Broken,
        "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => ErrorKind::Corrupt,
        "NotImplemented" | "MethodNotAllowed" => ErrorKind::NotImplemented,
        _ => return None,
    })
}

/// Servers that answer AccessDenied or InvalidRequest for a bad signature say so only in the message (Garage: "Forbidden:
/// No such key: GK…", "Forbidden: Invalid signature", "Bad request: Date is too old").
fn by_message(status: u16, message: &str) -> Option<ErrorKind> {
    const ABOUT_CREDENTIALS: [&str; 5] =
        ["no such key: gk", "invalid signature", "access key", "unknown key", "date is too old"];
    let message = message.to_ascii_lowercase();
    let speaks = matches!(status, 400 | 401 | 403) && ABOUT_CREDENTIALS.iter().any(|words| message.contains(words));
    speaks.then_some(ErrorKind::Credentials)
}

fn by_status(op: Op, status: u16) -> ErrorKind {
    match status {
        401 => ErrorKind::Credentials,
        403 => ErrorKind::AccessDenied,
        404 if matches!(op, Op::HeadBucket | Op::List | Op::ListUploads) => ErrorKind::NoSuchBucket,
        404 => ErrorKind::NotFound,
        405 | 501 => ErrorKind::NotImplemented,
        408 => ErrorKind::Timeout,
        409 => ErrorKind::Conflict,
        412 => ErrorKind::Precondition,
        413 => ErrorKind::TooLarge,
        416 => ErrorKind::InvalidRange,
        429 | 503 => ErrorKind::Throttled,
        507 => ErrorKind::Quota,
        500.. => ErrorKind::Server,
        300..500 => ErrorKind::Invalid,
        _ => ErrorKind::Corrupt,
    }
}

/// Our error for one of the SDK's.
pub(super) fn from_sdk<E>(op: Op, key: Option<&Key>, error: SdkError<E, HttpResponse>) -> StoreError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let answer = error.raw_response();
    let status = answer.map_or(0, |a| a.status().as_u16());
    let header = |name| answer.and_then(|a| a.headers().get(name)).map(str::to_owned);
    let request_id = header("x-amz-request-id");
    let region = header("x-amz-bucket-region");
    let code = error.code().map(str::to_owned);
    let (kind, message) = match &error {
        // The deserializer of an answer fails as a service error too when it met no error document.
        SdkError::ServiceError(_) if status >= 300 || code.is_some() => {
            let said = error.message().unwrap_or_default();
            let code = code.as_deref().unwrap_or_default();
            (classify(op, status, code, said), explain(status, code, said, region.as_deref()))
        }
        SdkError::ServiceError(_) | SdkError::ResponseError(_) => {
            let kind = match broken(&error) {
                ErrorKind::Broken if !has::<hyper::Error>(&error) => ErrorKind::Corrupt,
                kind => kind,
            };
            let kind = if status >= 300 { classify(op, status, "", "") } else { kind };
            (kind, format!("the answer cannot be understood (HTTP status {status}): {}", causes(&error)))
        }
        SdkError::TimeoutError(_) => (ErrorKind::Timeout, "no answer in time".to_owned()),
        _ => unanswered(&error),
    };
    // The SDK's error itself is not kept: it holds the whole answer, and what it shows is not ours to vouch for.
    StoreError { kind, op, key: key.cloned(), code, request_id, message, source: None }
}

/// What a request, or the body of an answer, failed of, below all messages of its own.
#[derive(Debug, thiserror::Error)]
#[error("failed")]
struct Failure(#[source] Cause);

/// Our error for a request that got no answer, and why.
pub(super) fn from_unanswered(op: Op, key: &Key, cause: impl Into<Cause>) -> StoreError {
    let (kind, message) = unanswered(&Failure(cause.into()));
    StoreError::new(kind, op, Some(key), message)
}

/// Our error for a request that took too long as a whole.
pub(super) fn late(op: Op, key: Option<&Key>, limit: Duration) -> StoreError {
    StoreError::new(ErrorKind::Timeout, op, key, format!("no answer within {limit:?}"))
}

/// Our error for an answer that is one, as status, headers and document say.
pub(super) fn from_answer(op: Op, key: &Key, status: u16, headers: &http::HeaderMap, document: &[u8]) -> StoreError {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (code, said) = parse_document(document);
    let (code_text, said) = (code.as_deref().unwrap_or_default(), said.unwrap_or_default());
    let kind = classify(op, status, code_text, &said);
    let message = explain(status, code_text, &said, header("x-amz-bucket-region").as_deref());
    let request_id = header("x-amz-request-id");
    StoreError { kind, op, key: Some(key.clone()), code, request_id, message, source: None }
}

/// Code and message of an error document ("REST error responses" in the S3 API reference).
fn parse_document(document: &[u8]) -> (Option<String>, Option<String>) {
    let (mut code, mut message) = (None, None);
    let Ok(mut xml) = Document::try_from(document) else { return (code, message) };
    if let Ok(mut root) = xml.root_element() {
        while let Some(mut element) = root.next_tag() {
            let into = match element.start_el().local() {
                "Code" => &mut code,
                "Message" => &mut message,
                _ => continue,
            };
            *into = aws_smithy_xml::decode::try_data(&mut element).ok().map(|text| text.trim().to_owned());
        }
    }
    (code.filter(|code| !code.is_empty()), message)
}

/// Our error for a body that broke.
pub(super) fn from_body(key: &Key, cause: Cause) -> StoreError {
    let error = Failure(cause);
    let message = format!("the body broke off: {}", causes(&error));
    StoreError::new(broken(&error), Op::Get, Some(key), message)
}

/// A request that got no answer: no credentials, no connection, or the connection broke.
fn unanswered(error: &(dyn Error + 'static)) -> (ErrorKind, String) {
    let causes_text = causes(error);
    if let Some(credentials) = find::<CredentialsError>(error) {
        let temporary = matches!(credentials, CredentialsError::ProviderTimedOut(_))
            || has::<TimedOut>(error)
            || has::<hyper_util::client::legacy::Error>(error);
        let kind = if temporary { ErrorKind::Unreachable } else { ErrorKind::Credentials };
        let tried = "environment, profile, SSO, web identity, process, container and instance role were tried";
        return (kind, format!("no credentials found ({tried}): {causes_text}"));
    }
    let kind = broken(error);
    let what = match kind {
        ErrorKind::Unreachable => "no connection",
        ErrorKind::Timeout => "no answer",
        ErrorKind::Invalid => "the request cannot be built",
        _ => "the connection broke",
    };
    (kind, format!("{what}: {causes_text}"))
}

/// What a failure below HTTP is.
fn broken(error: &(dyn Error + 'static)) -> ErrorKind {
    match find::<TimedOut>(error) {
        Some(TimedOut::Connect(_)) => return ErrorKind::Unreachable,
        Some(TimedOut::Read(_)) => return ErrorKind::Timeout,
        None => {}
    }
    if find::<hyper_util::client::legacy::Error>(error).is_some_and(|e| e.is_connect()) {
        return ErrorKind::Unreachable;
    }
    if has::<aws_sdk_s3::error::BuildError>(error) {
        return ErrorKind::Invalid;
    }
    ErrorKind::Broken
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&e| e.source())
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|e| e.downcast_ref::<T>())
}

fn has<T: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    find::<T>(error).is_some()
}

/// The causes of an error, outermost first, without repetitions, in one line.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut said: Vec<String> = Vec::new();
    for text in chain(error).skip(1).map(|cause| cause.to_string().replace('\n', ";")) {
        if !text.is_empty() && !said.iter().any(|s| s.contains(&text)) {
            said.push(text);
        }
    }
    said.join(": ")
}

/// What the server said, and what the user can do about it.
fn explain(status: u16, code: &str, said: &str, region: Option<&str>) -> String {
    let said = match (said, code) {
        ("", "SignatureDoesNotMatch") => "the signature does not match: is the secret key right?".to_owned(),
        ("", "InvalidAccessKeyId") => "the access key is not known".to_owned(),
        ("", "") => format!("HTTP status {status}"),
        ("", code) => format!("{code}, HTTP status {status}"),
        (said, _) => said.to_owned(),
    };
    let redirected =
        matches!(code, "PermanentRedirect" | "AuthorizationHeaderMalformed") || matches!(status, 301 | 307);
    match (code, region) {
        ("RequestTimeTooSkewed", _) => format!("{said} (is the clock of this machine right?)"),
        (_, Some(region)) if redirected || status == 400 => format!("{said} (the bucket is in region {region})"),
        _ if redirected => format!("{said} (is the region or the endpoint right?)"),
        ("InvalidObjectState", _) => format!("{said} (the object is archived: restore it first)"),
        _ => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_win_over_statuses() {
        let cases = [
            (Op::Get, 404, "NoSuchKey", ErrorKind::NotFound),
            (Op::Get, 404, "NoSuchBucket", ErrorKind::NoSuchBucket),
            (Op::Head, 404, "NotFound", ErrorKind::NotFound),
            (Op::HeadBucket, 404, "NotFound", ErrorKind::NoSuchBucket),
            (Op::CompleteUpload, 404, "NoSuchUpload", ErrorKind::NoSuchUpload),
            (Op::CompleteUpload, 200, "InternalError", ErrorKind::Server),
            (Op::Put, 412, "", ErrorKind::Precondition),
            (Op::Put, 409, "ConditionalRequestConflict", ErrorKind::Conflict),
            (Op::Get, 403, "InvalidObjectState", ErrorKind::Archived),
            (Op::Get, 403, "AccessDenied", ErrorKind::AccessDenied),
            (Op::Get, 403, "SignatureDoesNotMatch", ErrorKind::Credentials),
            (Op::Get, 416, "", ErrorKind::InvalidRange),
            (Op::Put, 503, "SlowDown", ErrorKind::Throttled),
            (Op::Put, 500, "", ErrorKind::Server),
            (Op::Put, 501, "NotImplemented", ErrorKind::NotImplemented),
            (Op::Put, 400, "RequestTimeout", ErrorKind::Timeout),
            (Op::Put, 400, "XAmzContentChecksumMismatch", ErrorKind::Corrupt),
            (Op::Put, 400, "KeyTooLongError", ErrorKind::Invalid),
            (Op::Copy, 400, "MetadataTooLarge", ErrorKind::MetadataTooLarge),
            (Op::Put, 301, "PermanentRedirect", ErrorKind::Invalid),
        ];
        for (op, status, code, kind) in cases {
            assert_eq!(classify(op, status, code, ""), kind, "{status} {code}");
        }
    }

    #[test]
    fn garage_speaks_of_keys_in_its_messages() {
        let kind = |message| classify(Op::Get, 403, "AccessDenied", message);
        assert_eq!(kind("Forbidden: No such key: GK31c2"), ErrorKind::Credentials);
        assert_eq!(kind("Forbidden: Invalid signature"), ErrorKind::Credentials);
        assert_eq!(kind("Forbidden: Operation is not allowed for this key."), ErrorKind::AccessDenied);
    }

    #[test]
    fn messages_say_what_to_do() {
        assert!(explain(301, "PermanentRedirect", "", Some("eu-west-1")).contains("eu-west-1"));
        assert!(explain(403, "RequestTimeTooSkewed", "x", None).contains("clock"));
        assert_eq!(explain(500, "", "", None), "HTTP status 500");
    }
}
