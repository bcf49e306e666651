//! One cell: a workload, on one server, by one contestant, once.
//!
//! Owns: the order of laying out, mounting, measuring, unmounting and removing. Does not own: each of these.

use crate::contestant::{Contestant, Mounting};
use crate::data::Bucket;
use crate::figures::{Figures, Outcome};
use crate::limit;
use crate::mounted::Mounted;
use crate::process::{self, Trouble};
use crate::server::{Server, Traffic};
use crate::step::{Order, Step};
use crate::workload::{Action, GIB, Layout, Limit, Measure, Workload};
use std::path::{Path, PathBuf};

/// What all cells of a profile share.
pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) bucket: Bucket,
    /// Scratch space of our own, on a native file system.
    pub(crate) work: PathBuf,
    /// Seconds that a step may take.
    pub(crate) cap: f64,
}

/// What came of each measured step, in the workload's order.
pub(crate) type Outcomes = Vec<(&'static str, Outcome)>;

impl Bench {
    fn local(&self) -> PathBuf {
        self.work.join("local")
    }

    /// Runs the workload on a mount of the contestant.
    pub(crate) async fn run(&self, workload: &Workload, contestant: &Contestant, round: usize) -> Outcomes {
        let own = format!("own/{}-{}-{round}/", workload.name, contestant.name);
        let folder = self.work.join("mounts").join(format!("{}-{round}", contestant.name));
        let mut outcomes = Outcomes::new();
        if let Err(why) = self.try_run(workload, contestant, &own, &folder, &mut outcomes).await {
            fill(workload, &mut outcomes, &why);
        }
        _ = self.server.slow(false).await;
        _ = self.bucket.clear(&own).await;
        if !process::is_mounted(&folder.join("mnt")) {
            _ = std::fs::remove_dir_all(&folder);
        }
        outcomes
    }

    async fn try_run(
        &self,
        workload: &Workload,
        contestant: &Contestant,
        own: &str,
        folder: &Path,
        outcomes: &mut Outcomes,
    ) -> Result<(), String> {
        let text = |e: &dyn std::fmt::Display| format!("not measured: {e}");
        let prefix =
            self.bucket.lay_out(workload.layout, own, &self.local()).await.map_err(|e| text(&format!("{e:#}")))?;
        std::fs::create_dir_all(folder).map_err(|e| text(&e))?;
        self.server.slow(true).await.map_err(|e| text(&e))?;
        let root = folder.join("mnt");
        let mounting = Mounting { place: &self.server.place, prefix: &prefix, root: &root, folder };
        process::drop_pages();
        let mut mounted = Mounted::start(contestant, &mounting)?;
        for action in &workload.actions {
            match action {
                Action::Prepare(step) => {
                    let done = process::run_step(&self.order(step, &root)).map_err(|t| told(&t, &mut mounted))?;
                    if done.capped {
                        return Err(format!("its preparation did not end within {} s", self.cap));
                    }
                }
                Action::Remount => {
                    mounted.end()?;
                    process::drop_pages();
                    mounted = Mounted::start(contestant, &mounting)?;
                }
                Action::Measure(measure) => {
                    let figures = self.measure(measure, &mut mounted, &prefix).await?;
                    outcomes.push((measure.row, Outcome::Done(figures)));
                }
            }
        }
        // The figures stand, whether it ends in order or has to be made to.
        _ = mounted.end();
        Ok(())
    }

    fn order(&self, step: &Step, root: &Path) -> Order {
        Order { step: step.clone(), root: root.to_owned(), source: self.local(), cap: self.cap }
    }

    async fn measure(&self, measure: &Measure, mounted: &mut Mounted, prefix: &str) -> Result<Figures, String> {
        if !measure.keep_pages {
            process::make_cold();
        }
        mounted.reset_peak();
        let (cpu, traffic) = (mounted.cpu_seconds(), self.server.traffic().await);
        let order = self.order(&measure.step, mounted.root());
        let report = tokio::task::block_in_place(|| process::run_step(&order)).map_err(|t| told(&t, mounted))?;
        if !mounted.is_alive() {
            return Err(format!("crashed: {}", mounted.last_words()));
        }
        // Before anything else reaches the server: what is not there now was not durable when the step returned.
        let after = self.server.traffic().await;
        let durable = match measure.leaves {
            Some(leaves) if !report.capped => Some(self.bucket.has(prefix, leaves).await),
            _ => None,
        };
        let difference = |of: fn(&Traffic) -> u64| {
            // The question itself is no S3 request and is not counted.
            Some(of(after.as_ref()?).saturating_sub(of(traffic.as_ref()?)))
        };
        Ok(Figures {
            amount: report.amount,
            seconds: report.seconds,
            first_byte_ms: report.first_byte_ms,
            cpu_seconds: mounted.cpu_seconds().zip(cpu).map(|(after, before)| after - before),
            rss_mib: mounted.peak_mib(),
            requests: difference(|t| t.requests),
            bytes: difference(|t| t.bytes),
            capped: report.capped,
            durable,
            how: None,
        })
    }

    /// Measures the limits of the workload's steps.
    pub(crate) async fn run_limits(&self, workload: &Workload, round: usize) -> Outcomes {
        let own = format!("own/{}-limit-{round}/", workload.name);
        let mut outcomes = Outcomes::new();
        for action in &workload.actions {
            let Action::Measure(measure) = action else { continue };
            let outcome = match self.limit(workload, measure, &own).await {
                Ok(figures) => Outcome::Done(figures),
                Err(e) => Outcome::Failed(format!("{e:#}")),
            };
            outcomes.push((measure.row, outcome));
        }
        _ = self.server.slow(false).await;
        _ = self.bucket.clear(&own).await;
        outcomes
    }

    async fn limit(&self, workload: &Workload, measure: &Measure, own: &str) -> anyhow::Result<Figures> {
        if measure.limit == Limit::Native {
            return self.native(measure);
        }
        let layout = match workload.layout {
            Layout::Empty | Layout::Directory => own.to_owned(),
            layout => self.bucket.lay_out(layout, own, &self.local()).await?,
        };
        self.server.slow(true).await?;
        let figures = limit::measure(measure.limit, measure.unit, &self.server.place, &self.bucket, own, &layout).await;
        self.server.slow(false).await?;
        figures
    }

    /// The same step on the same file, on the native file system.
    fn native(&self, measure: &Measure) -> anyhow::Result<Figures> {
        let root = self.work.join("native");
        let file = root.join("1GiB.bin");
        if !file.exists() {
            std::fs::create_dir_all(&root)?;
            let write = Step::Write { name: "1GiB.bin".to_owned(), size: GIB };
            process::run_step(&self.order(&write, &root)).map_err(|t| anyhow::anyhow!("{t:?}"))?;
        }
        if measure.keep_pages {
            // Once, so that its pages are there.
            process::run_step(&self.order(&measure.step, &root)).map_err(|t| anyhow::anyhow!("{t:?}"))?;
        } else {
            process::make_cold();
        }
        let report = process::run_step(&self.order(&measure.step, &root)).map_err(|t| anyhow::anyhow!("{t:?}"))?;
        Ok(Figures {
            amount: report.amount,
            seconds: report.seconds,
            first_byte_ms: report.first_byte_ms,
            how: Some("native file system".to_owned()),
            ..Figures::default()
        })
    }
}

fn told(trouble: &Trouble, mounted: &mut Mounted) -> String {
    match trouble {
        _ if !mounted.is_alive() => format!("crashed: {}", mounted.last_words()),
        Trouble::Refused(why) => why.clone(),
        Trouble::Endless(limit) => format!("did not end within {} s, and was killed", limit.as_secs()),
    }
}

/// Every measured step that has no outcome yet gets the reason.
fn fill(workload: &Workload, outcomes: &mut Outcomes, why: &str) {
    let done = outcomes.len();
    let rows = workload.actions.iter().filter_map(|a| if let Action::Measure(m) = a { Some(m.row) } else { None });
    outcomes.extend(rows.skip(done).map(|row| (row, Outcome::Failed(why.to_owned()))));
}
