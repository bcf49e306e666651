//! The moment at which a request has become an operation and has not run yet.
//!
//! Owns: refusing the unsigned, counting, drawing faults and making those happen that come before the operation; what is
//! known about one request ([`Exchange`]). Does not own: faults after the operation (`http`, `transport`).

use super::conditions::Conditions;
use super::counters::Counters;
use super::faults::{Faults, Plan};
use super::log::{Draft, Log};
use hyper::body::Incoming;
use s3s::access::{S3Access, S3AccessContext};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::Notify;

/// What is known about one request; travels with it as an extension.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// The request id.
    pub(super) id: String,
    /// Set once it has become an operation.
    plan: OnceLock<Plan>,
    /// The request's body, if it was let go of before its end.
    unread: Mutex<Option<Incoming>>,
    /// Told when the connection is to be closed in the midst of the request's body.
    cut: Notify,
    /// What the log will tell of it.
    pub(super) draft: Draft,
}

impl Exchange {
    pub(super) fn new(log: &Arc<Log>) -> Arc<Exchange> {
        let id = uuid::Uuid::new_v4().simple().to_string()[..16].to_ascii_uppercase();
        Arc::new(Exchange { id, draft: Draft::new(log), ..Exchange::default() })
    }

    /// The exchange that a request belongs to.
    pub(super) fn of(extensions: &http::Extensions) -> Arc<Exchange> {
        extensions.get::<Arc<Exchange>>().cloned().unwrap_or_default()
    }

    /// What was drawn for it; `None` if it never became an operation.
    pub(super) fn drawn(&self) -> Option<Plan> {
        self.plan.get().copied()
    }

    /// What was drawn for it, or nothing.
    pub(super) fn plan(&self) -> Plan {
        self.drawn().unwrap_or_default()
    }

    /// Leaves the rest of the request's body to whoever wants to read it off the connection.
    pub(super) fn leave(&self, body: Incoming) {
        *self.unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }

    /// What [`Exchange::leave`] left.
    pub(super) fn unread(&self) -> Option<Incoming> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Has the connection closed while the body still comes.
    pub(super) fn cut(&self) {
        self.cut.notify_one();
    }

    /// Waits for [`Exchange::cut`].
    pub(super) async fn is_cut(&self) {
        self.cut.notified().await;
    }

    /// The conditions of a write as this server pretends to understand them.
    pub(super) fn write_conditions(&self, conditions: Conditions) -> S3Result<Conditions> {
        let plan = self.plan();
        match conditions.is_some() {
            true if plan.refuse_conditions => {
                Err(s3_error!(NotImplemented, "A header you provided implies functionality that is not implemented"))
            }
            true if plan.ignore_conditions => Ok(Conditions::default()),
            _ => Ok(conditions),
        }
    }
}

/// Where every operation passes.
pub(super) struct Gate {
    pub(super) faults: Faults,
    pub(super) counters: Arc<Counters>,
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        if cx.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "Signature is required"));
        }
        let op = cx.s3_op().name();
        self.counters.request(op);
        let plan = self.faults.draw(op);
        let exchange = Exchange::of(cx.extensions_mut());
        let _ = exchange.plan.set(plan);
        exchange.draft.begin(cx);
        if !plan.latency.is_zero() {
            tokio::time::sleep(plan.latency).await;
        }
        if plan.reset_before || plan.internal_error {
            return Err(s3_error!(InternalError, "We encountered an internal error. Please try again."));
        }
        if plan.slow_down {
            return Err(s3_error!(SlowDown, "Please reduce your request rate."));
        }
        if plan.access_denied {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        if plan.quota_exceeded {
            return Err(quota_exceeded());
        }
        if plan.refuse_checksums
            && let Some(name) = cx.headers().keys().find(|name| name.as_str().starts_with("x-amz-checksum-"))
        {
            return Err(s3_error!(InvalidArgument, "Unsupported header '{name}' received for this API call."));
        }
        Ok(())
    }
}

/// What Ceph and others answer when an account or bucket is full; AWS has no quotas.
fn quota_exceeded() -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom("QuotaExceeded".into()), "The quota is exceeded.");
    error.set_status_code(http::StatusCode::FORBIDDEN);
    error
}
