//! Commits that nobody waits for.
//!
//! Owns: telling, within one, that it is one. Does not own: what it does otherwise than others (`commit`, `record`, `moments`).

tokio::task_local! {
    static UNATTENDED: ();
}

/// Carries out `work`, for whose commits nobody waits. Not so in tasks that it spawns.
pub async fn unattended<T>(work: impl Future<Output = T>) -> T {
    UNATTENDED.scope((), work).await
}

/// Whether whoever asks is a part of such work.
pub fn is_unattended() -> bool {
    UNATTENDED.try_with(|()| ()).is_ok()
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
}
