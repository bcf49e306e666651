//! Commits that are not the end of what somebody writes: those that nobody waits for, and those that somebody else waits for.
//!
//! Owns: telling, within one, that it is one. Does not own: what it does otherwise than others (`commit`, `record`, `moments`).

/// Who waits for a commit, if not whoever writes the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Nobody,
    /// Whoever changes the name of the file, or syncs its directory.
    Bystander,
}

tokio::task_local! {
    static WAITING: Waiting;
}

/// Carries out `work`, for whose commits nobody waits. Not so in tasks that it spawns.
pub async fn unattended<T>(work: impl Future<Output = T>) -> T {
    WAITING.scope(Waiting::Nobody, work).await
}

/// Carries out `work`, for whose commits somebody waits who does not write the files. They send nothing that somebody has half written.
/// Not so in tasks that it spawns.
pub async fn for_bystander<T>(work: impl Future<Output = T>) -> T {
    WAITING.scope(Waiting::Bystander, work).await
}

fn waiting() -> Option<Waiting> {
    WAITING.try_with(|waiting| *waiting).ok()
}

/// Whether whoever asks is a part of work for whose commits nobody waits.
pub fn is_unattended() -> bool {
    waiting() == Some(Waiting::Nobody)
}

/// Whether somebody else waits for them than whoever writes the files.
pub fn is_for_bystander() -> bool {
    waiting() == Some(Waiting::Bystander)
}

/// Whether one of both: then nobody hears by their end that what he has written is safe.
pub(super) fn acknowledges_nothing() -> bool {
    waiting().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_work_itself_is_unattended() {
        assert!(!is_unattended());
        let told = unattended(async {
            tokio::task::yield_now().await;
            (is_unattended(), tokio::spawn(async { is_unattended() }).await.unwrap())
        });
        assert_eq!((told.await, is_unattended()), ((true, false), false));
    }

    #[tokio::test]
    async fn who_waits_is_told_within_the_work_only() {
        let told = || (is_unattended(), is_for_bystander(), acknowledges_nothing());
        assert_eq!(told(), (false, false, false));
        assert_eq!(unattended(async { told() }).await, (true, false, true));
        assert_eq!(for_bystander(async { told() }).await, (false, true, true));
    }
}
