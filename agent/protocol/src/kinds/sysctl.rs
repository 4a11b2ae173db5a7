//! `sysctl`: kernel parameters, now and at every boot.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    ini::Scalar,
    kind::Kind,
    problem::Problem,
};
use crate::{effect::Effect, ids::TaskId};

/// Kernel parameters by name, such as `"net.ipv4.ip_forward" = 1`: set at once, and again at every boot. Removal restores
/// the values that were there before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Sysctl {
    /// Values by name, as in sysctl(8).
    pub values: BTreeMap<String, Scalar>,
}

impl Sysctl {
    /// The claim of a parameter: `net/ipv4/ip_forward` and `net.ipv4.ip_forward` are one (sysctl.d(5)).
    pub fn claim_of(name: &str) -> Claim<'_> {
        let swap = |c| match c {
            '/' => '.',
            '.' => '/',
            c => c,
        };
        // The first of the two characters separates; the other one stands for it within a name, such as that of a network device.
        let by_slashes = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/'));
        let name = if by_slashes { name.chars().map(swap).collect::<String>().into() } else { Cow::Borrowed(name) };
        Claim::named("kernel parameter", name)
    }

    /// The values as the kernel shows them, by name; `true` is 1.
    pub fn wanted(&self) -> BTreeMap<String, String> {
        let text = |value: &Scalar| match value {
            Scalar::Bool(on) => u8::from(*on).to_string(),
            value => value.text().split_whitespace().collect::<Vec<_>>().join(" "),
        };
        self.values.iter().map(|(key, value)| (key.clone(), text(value))).collect()
    }
}

impl Kind for Sysctl {
    const NAME: &'static str = "sysctl";
    const SUMMARY: &'static str = "kernel parameters, now and at every boot";
    const EFFECTS: &'static [Effect] = &[];

    fn problems(&self) -> Vec<Problem> {
        let none = self.values.is_empty().then(|| {
            Problem::new("", "names no kernel parameter", "write it as sysctl = { \"net.ipv4.ip_forward\" = 1 }")
        });
        let bad = |key: &&String| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@".contains(c);
            !key.chars().all(is_plain) || key.split(['.', '/']).any(str::is_empty)
        };
        let names = self.values.keys().filter(bad).map(|key| {
            let message = format!("`{}` is not the name of a kernel parameter", key.escape_debug());
            Problem::new("", message, "write it as sysctl(8) does, such as `net.ipv4.ip_forward`")
        });
        let empty = self
            .wanted()
            .into_iter()
            .filter(|(_, value)| value.is_empty())
            .map(|(key, _)| Problem::new("", format!("`{key}` has no value"), "give it one"));
        none.into_iter().chain(names).chain(empty).collect()
    }

    fn claims<'a>(&'a self, task: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::part("kernel parameters", task), ""));
        self.values.keys().for_each(|name| claim(TaskClaim::exclusive(Self::claim_of(name), "")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_parameter_is_one_claim() {
        for (name, own) in [
            ("net/ipv4/ip_forward", "net.ipv4.ip_forward"),
            ("net/ipv4/conf/eth0.1/x", "net.ipv4.conf.eth0/1.x"),
            ("net.ipv4.conf.eth0/1.x", "net.ipv4.conf.eth0/1.x"),
        ] {
            assert_eq!(Sysctl::claim_of(name), Claim::named("kernel parameter", own), "{name}");
        }
    }

    #[test]
    fn names_and_values() {
        let sysctl: Sysctl =
            serde_json::from_str(r#"{"net.ipv4.ip_forward": true, "a.b": " 1\t 2 ", "net.ipv4.conf.eth0/1.x": 0}"#)
                .unwrap();
        assert_eq!(sysctl.problems(), []);
        assert_eq!(sysctl.wanted().into_values().collect::<Vec<_>>(), ["1 2", "0", "1"]);
        for bad in [r#"{}"#, r#"{"a..b": 1}"#, r#"{"../x": 1}"#, r#"{"a b": 1}"#, r#"{"/a": 1}"#, r#"{"a": ""}"#] {
            assert_ne!(serde_json::from_str::<Sysctl>(bad).unwrap().problems(), [], "{bad}");
        }
    }
}
