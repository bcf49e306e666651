//! Faults on demand.
//!
//! Owns: the rules, their text and JSON forms, drawing from them what happens to one request.
//! Does not own: making it happen (`gate` before the operation, `http` and `transport` after it).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a rule does to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "kebab-case")]
pub enum Effect {
    /// Waits before the operation.
    Latency {
        /// How long.
        ms: u64,
    },
    /// Lets so many bytes through each second, in both directions together, over all requests of one connection.
    Bandwidth {
        /// Bytes in a second.
        bytes_per_second: u64,
    },
    /// Answers 500 InternalError without doing anything.
    InternalError,
    /// Answers 503 SlowDown without doing anything.
    SlowDown,
    /// Answers 403 AccessDenied without doing anything.
    AccessDenied,
    /// Answers 403 QuotaExceeded without doing anything.
    QuotaExceeded,
    /// Closes the connection without doing anything.
    ResetBefore,
    /// Closes the connection after half of the request's body, without doing anything.
    ResetHalfway,
    /// Does what was asked and closes the connection instead of answering: the lost reply.
    ResetAfter,
    /// Closes the connection after half of the answer's body.
    Truncate,
    /// Stops for a while after half of the answer's body.
    Stall {
        /// How long.
        ms: u64,
    },
    /// Writes as if If-Match and If-None-Match had not been sent (PutObject, CopyObject, CompleteMultipartUpload,
    /// DeleteObject; conditions on reads and on sources of copies are kept).
    IgnoreConditions,
    /// Answers 501 NotImplemented to writes with If-Match or If-None-Match.
    RefuseConditions,
    /// Answers 400 InvalidArgument to requests with a header `x-amz-checksum-…`, as Backblaze B2 does.
    RefuseChecksums,
}

/// When something goes wrong, and what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// What it does.
    #[serde(flatten)]
    pub effect: Effect,
    /// Names of S3 operations (`GetObject`) that it is limited to; none means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<String>,
    /// The probability, 0 to 1.
    #[serde(default = "always")]
    pub rate: f64,
    /// How many more times it may happen; `None` is without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// How many more requests it lets pass before that.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub after: u64,
}

fn always() -> f64 {
    1.0
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Rule {
    /// A rule that always applies, to all operations.
    pub fn new(effect: Effect) -> Rule {
        Rule { effect, ops: Vec::new(), rate: 1.0, times: None, after: 0 }
    }

    /// The same, limited to one more operation.
    #[must_use]
    pub fn on(mut self, op: &str) -> Rule {
        self.ops.push(op.to_owned());
        self
    }

    /// The same, for the next `times` requests only.
    #[must_use]
    pub fn times(mut self, times: u64) -> Rule {
        self.times = Some(times);
        self
    }

    /// The same, but the next `after` requests pass.
    #[must_use]
    pub fn after(mut self, after: u64) -> Rule {
        self.after = after;
        self
    }

    /// The same, with this probability.
    #[must_use]
    pub fn rate(mut self, rate: f64) -> Rule {
        self.rate = rate;
        self
    }
}

/// A rule's text makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no fault: write EFFECT[=VALUE][,rate=0.1][,times=3][,after=2][,ops=GetObject|PutObject], where \
     EFFECT is latency=MS, bandwidth=BYTES_PER_SECOND, internal-error, slow-down, access-denied, quota-exceeded, \
     reset-before, reset-halfway, reset-after, truncate, stall=MS, ignore-conditions, refuse-conditions or \
     refuse-checksums"
)]
pub struct RuleError(String);

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Rule, RuleError> {
        let wrong = || RuleError(text.to_owned());
        let mut words = text.split(',').map(|word| match word.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (word.trim(), None),
        });
        let (name, value) = words.next().ok_or_else(wrong)?;
        let number = || value.and_then(|v| v.parse::<u64>().ok()).ok_or_else(wrong);
        let mut rule = Rule::new(match name {
            "latency" => Effect::Latency { ms: number()? },
            "bandwidth" => Effect::Bandwidth { bytes_per_second: number()? },
            "internal-error" => Effect::InternalError,
            "slow-down" => Effect::SlowDown,
            "access-denied" => Effect::AccessDenied,
            "quota-exceeded" => Effect::QuotaExceeded,
            "reset-before" => Effect::ResetBefore,
            "reset-halfway" => Effect::ResetHalfway,
            "reset-after" => Effect::ResetAfter,
            "truncate" => Effect::Truncate,
            "stall" => Effect::Stall { ms: number()? },
            "ignore-conditions" => Effect::IgnoreConditions,
            "refuse-conditions" => Effect::RefuseConditions,
            "refuse-checksums" => Effect::RefuseChecksums,
            _ => return Err(wrong()),
        });
        for (name, value) in words {
            match (name, value) {
                ("rate", Some(rate)) => rule.rate = rate.parse().map_err(|_| wrong())?,
                ("times", Some(times)) => rule.times = Some(times.parse().map_err(|_| wrong())?),
                ("after", Some(after)) => rule.after = after.parse().map_err(|_| wrong())?,
                ("ops", Some(ops)) => rule.ops = ops.split('|').map(str::to_owned).collect(),
                _ => return Err(wrong()),
            }
        }
        if (0.0..=1.0).contains(&rule.rate) { Ok(rule) } else { Err(wrong()) }
    }
}

/// All rules, and the seed of their dice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultSettings {
    /// Seed of the dice: the same requests in the same order meet the same faults.
    #[serde(default)]
    pub seed: u64,
    /// Rules; all that match apply together.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// What the rules decided for one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) latency: Duration,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) internal_error: bool,
    pub(super) slow_down: bool,
    pub(super) access_denied: bool,
    pub(super) quota_exceeded: bool,
    pub(super) reset_before: bool,
    pub(super) reset_halfway: bool,
    pub(super) reset_after: bool,
    pub(super) truncate: bool,
    pub(super) stall: Option<Duration>,
    pub(super) ignore_conditions: bool,
    pub(super) refuse_conditions: bool,
    pub(super) refuse_checksums: bool,
}

impl Plan {
    fn add(&mut self, effect: Effect) {
        match effect {
            Effect::Latency { ms } => self.latency += Duration::from_millis(ms),
            Effect::Bandwidth { bytes_per_second } => {
                let least = self.bytes_per_second.map_or(bytes_per_second, |b| b.min(bytes_per_second));
                self.bytes_per_second = Some(least.max(1));
            }
            Effect::InternalError => self.internal_error = true,
            Effect::SlowDown => self.slow_down = true,
            Effect::AccessDenied => self.access_denied = true,
            Effect::QuotaExceeded => self.quota_exceeded = true,
            Effect::ResetBefore => self.reset_before = true,
            Effect::ResetHalfway => self.reset_halfway = true,
            Effect::ResetAfter => self.reset_after = true,
            Effect::Truncate => self.truncate = true,
            Effect::Stall { ms } => self.stall = Some(self.stall.unwrap_or_default() + Duration::from_millis(ms)),
            Effect::IgnoreConditions => self.ignore_conditions = true,
            Effect::RefuseConditions => self.refuse_conditions = true,
            Effect::RefuseChecksums => self.refuse_checksums = true,
        }
    }
}

struct State {
    settings: FaultSettings,
    dice: fastrand::Rng,
}

/// The faults of a running server; clones are the same.
#[derive(Clone)]
pub struct Faults {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Faults").field(&self.get()).finish()
    }
}

impl Faults {
    pub(super) fn new(settings: FaultSettings) -> Faults {
        let dice = fastrand::Rng::with_seed(settings.seed);
        Faults { state: Arc::new(Mutex::new(State { settings, dice })) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The rules as they are now; `times` counts down.
    pub fn get(&self) -> FaultSettings {
        self.with(|state| state.settings.clone())
    }

    /// Replaces all rules.
    pub fn set(&self, settings: FaultSettings) {
        self.with(|state| {
            state.dice = fastrand::Rng::with_seed(settings.seed);
            state.settings = settings;
        });
    }

    /// Adds one rule.
    pub fn add(&self, rule: Rule) {
        self.with(|state| state.settings.rules.push(rule));
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.with(|state| state.settings.rules.clear());
    }

    /// What happens to a request for this operation.
    pub(super) fn draw(&self, op: &str) -> Plan {
        self.with(|State { settings, dice }| {
            let mut plan = Plan::default();
            for rule in &mut settings.rules {
                let here = rule.ops.is_empty() || rule.ops.iter().any(|o| o == op);
                if !here || rule.times == Some(0) || (rule.rate < 1.0 && dice.f64() >= rule.rate) {
                    continue;
                }
                if rule.after > 0 {
                    rule.after -= 1;
                    continue;
                }
                rule.times = rule.times.map(|t| t - 1);
                plan.add(rule.effect);
            }
            plan
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_in_text() {
        let rule: Rule = "slow-down,rate=0.5,times=3,ops=GetObject|PutObject".parse().unwrap();
        assert_eq!(rule, Rule::new(Effect::SlowDown).rate(0.5).times(3).on("GetObject").on("PutObject"));
        assert_eq!("latency=20".parse(), Ok(Rule::new(Effect::Latency { ms: 20 })));
        assert_eq!("refuse-checksums".parse(), Ok(Rule::new(Effect::RefuseChecksums)));
        for wrong in ["", "latency", "fire", "truncate,rate=2", "truncate,when=now"] {
            assert!(wrong.parse::<Rule>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rules_in_json() {
        let json =
            r#"{"seed":7,"rules":[{"effect":"stall","ms":9,"ops":["GetObject"],"times":1},{"effect":"truncate"}]}"#;
        let settings: FaultSettings = serde_json::from_str(json).unwrap();
        assert_eq!(settings.rules[0], Rule::new(Effect::Stall { ms: 9 }).on("GetObject").times(1));
        assert_eq!(settings.rules[1], Rule::new(Effect::Truncate));
        let again: FaultSettings = serde_json::from_str(&serde_json::to_string(&settings).unwrap()).unwrap();
        assert_eq!(again, settings);
    }

    #[test]
    fn counts_run_out_and_operations_limit() {
        let faults = Faults::new(FaultSettings::default());
        faults.add(Rule::new(Effect::SlowDown).on("GetObject").times(2));
        assert!(!faults.draw("PutObject").slow_down);
        assert!(faults.draw("GetObject").slow_down);
        assert!(faults.draw("GetObject").slow_down);
        assert!(!faults.draw("GetObject").slow_down);
        faults.clear();
        assert_eq!(faults.draw("GetObject"), Plan::default());
        faults.add(Rule::new(Effect::AccessDenied).after(1).times(1));
        let denied = [0; 3].map(|_| faults.draw("UploadPart").access_denied);
        assert_eq!(denied, [false, true, false]);
    }

    #[test]
    fn rates_follow_the_seed() {
        let rules = vec![Rule::new(Effect::InternalError).rate(0.25)];
        let draw = |seed| {
            let faults = Faults::new(FaultSettings { seed, rules: rules.clone() });
            (0..1000).map(|_| faults.draw("GetObject").internal_error).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let hit = draw(1).into_iter().filter(|hit| *hit).count();
        assert!((200..300).contains(&hit), "{hit}");
    }
}
