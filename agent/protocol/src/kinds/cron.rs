//! `cron`: a command that cron runs at given times.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    existence::Existence,
    kind::Kind,
    problem::Problem,
};
use crate::{digest::Digest, effect::Effect, ids::TaskId};

/// A command that cron runs at given times, in a file of its own in `/etc/cron.d`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cron {
    /// When it runs: five fields as in crontab(5), such as `"*/5 2 * * mon-fri"`, or `"@daily"` and the like.
    pub schedule: String,
    /// A shell line; unlike in crontab(5), `%` and `\` have no special meaning but the shell's.
    pub run: String,
    /// The user who runs it; `root` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Environment variables, such as `MAILTO` and `PATH`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// `present` (if not given) or `absent`.
    #[serde(default, skip_serializing_if = "Existence::is_present")]
    pub state: Existence,
}

/// Names for whole schedules.
const SPECIAL: [&str; 8] = ["@reboot", "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// The fields of a schedule: the name of each, its least and greatest number, and names for its numbers from the least on.
const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of the month", 1, 31, &[]),
    ("month", 1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    ("day of the week", 0, 7, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

impl Cron {
    /// The file that holds it. cron(8) ignores files with a dot in their name.
    pub fn path(task: &TaskId) -> String {
        // Without a dot the name alone no longer shows where the service ends; the digest does.
        let digest = Digest::of(task.to_string().as_bytes()).short();
        format!("/etc/cron.d/groundplan-{}-{}-{}", task.service, task.task, digest.get(..6).unwrap_or(&digest))
    }
}

impl Kind for Cron {
    const NAME: &'static str = "cron";
    const SUMMARY: &'static str = "a command that cron runs at given times";
    const EFFECTS: &'static [Effect] = &[];

    fn problems(&self) -> Vec<Problem> {
        let schedule = schedule_fault(&self.schedule).map(|message| {
            let hint = "give five fields, such as \"*/5 2 * * mon-fri\" for every five minutes after two on working days, or \"@daily\"";
            Problem::new("schedule", message, hint)
        });
        let run = (self.run.trim().is_empty() || self.run.contains(['\n', '\r', '\0'])).then(|| {
            Problem::new("run", "is empty or more than one line", "put several lines into a script of their own")
        });
        let is_user = |user: &str| {
            !user.is_empty()
                && user.chars().all(|c| c.is_ascii_alphanumeric() || "._-$".contains(c))
                && !user.starts_with('-')
        };
        let user = self.user.as_deref().filter(|user| !is_user(user)).map(|user| {
            Problem::new("user", format!("`{}` is not the name of a user", user.escape_debug()), "name one")
        });
        let env = self.env.iter().filter(|(name, value)| {
            let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            !plain || value.contains(['\n', '\r', '\0', '"'])
        });
        let env = env.map(|(name, _)| {
            let message = format!("`{}` cannot be written to a crontab", name.escape_debug());
            Problem::new("env", message, "a name has letters, digits and `_`; a value neither line breaks nor `\"`")
        });
        schedule.into_iter().chain(run).chain(user).chain(env).collect()
    }

    fn claims<'a>(&'a self, task: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::Path(Self::path(task).into()), ""));
    }

    /// Its file is named after the task, so another task's comes in its place.
    fn identity<'a>(&'a self, _: &'a TaskId, _: &mut dyn FnMut(Claim<'a>)) {}

    /// Two of them would run it twice.
    fn contends<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(Claim<'a>)) {
        claim(Claim::named("cron entry of", format!("{}: {}", self.user.as_deref().unwrap_or("root"), self.run)));
    }
}

/// The fault of a schedule, if it has one.
fn schedule_fault(schedule: &str) -> Option<String> {
    if schedule.starts_with('@') {
        return (!SPECIAL.contains(&schedule)).then(|| format!("`{schedule}` is not one of {}", SPECIAL.join(", ")));
    }
    let fields: Vec<&str> = schedule.split([' ', '\t']).filter(|field| !field.is_empty()).collect();
    if fields.len() != 5 || schedule.contains('\n') {
        return Some(format!("`{}` has {} fields instead of five", schedule.escape_debug(), fields.len()));
    }
    fields.iter().zip(FIELDS).find_map(|(field, (name, least, most, names))| {
        let bad = field.split(',').find(|part| !part_is_good(part, least, most, names))?;
        Some(format!("`{bad}` is not a {name}: from {least} to {most}, as `1`, `1-5`, `*/2` or `1-9/2`"))
    })
}

/// Whether it is `*`, `n` or `n-m`, the first and the last optionally with `/step`.
fn part_is_good(part: &str, least: u32, most: u32, names: &[&str]) -> bool {
    let number = |text: &str| {
        let named = names.iter().position(|name| text.eq_ignore_ascii_case(name)).map(|at| at as u32 + least);
        let plain = || text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        named.or_else(plain).filter(|n| (least..=most).contains(n))
    };
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    let steps =
        step.is_none_or(|step| step.parse().is_ok_and(|n: u32| (1..=most).contains(&n)) && !step.starts_with('+'));
    match range.split_once('-') {
        _ if range == "*" => steps,
        Some((from, to)) => steps && number(from).zip(number(to)).is_some_and(|(from, to)| from <= to),
        None => step.is_none() && number(range).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in
            ["* * * * *", "*/5 2 1,15 * mon-fri", "0-30/10 0 1-7 JAN,jul 7", "@daily", "@reboot", "5\t4 * *  sun"]
        {
            assert_eq!(schedule_fault(good), None, "{good}");
        }
        for (bad, word) in [
            ("* * * *", "has 4 fields instead of five"),
            ("60 * * * *", "`60` is not a minute: from 0 to 59"),
            ("* 24 * * *", "`24` is not a hour"),
            ("* * 0 * *", "`0` is not a day of the month"),
            ("* * * foo *", "`foo` is not a month"),
            ("* * * * 8", "`8` is not a day of the week"),
            ("5-1 * * * *", "`5-1` is not a minute"),
            ("*/0 * * * *", "`*/0` is not a minute"),
            ("1/2 * * * *", "`1/2` is not a minute"),
            ("1,,2 * * * *", "`` is not a minute"),
            ("+1 * * * *", "`+1` is not a minute"),
            ("@often", "`@often` is not one of @reboot"),
        ] {
            assert!(schedule_fault(bad).is_some_and(|fault| fault.contains(word)), "{bad}: {:?}", schedule_fault(bad));
        }
    }

    #[test]
    fn problems_are_reported() {
        let cron: Cron =
            serde_json::from_str(r#"{"schedule": "x", "run": "a\nb", "user": "-x", "env": {"A B": ""}}"#).unwrap();
        let params: Vec<&str> = cron.problems().iter().map(|problem| problem.param).collect();
        assert_eq!(params, ["schedule", "run", "user", "env"]);
    }
}
