//! Progress of `groundplan bootstrap`, and its table of results.

use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};

use groundplan_protocol::ids::NodeId;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Cell, Style, Table, format::count, safe};
use crate::bootstrap::{HostResult, HostState, ProgressEvent, Step};

/// Progress on standard error: a line for each host that is finished and, on a terminal, one live line below.
pub(crate) struct Progress {
    live: Option<ProgressBar>,
    lines: bool,
    color: bool,
    /// How many hosts there are, and how many are finished.
    hosts: usize,
    finished: usize,
    /// The current step of each host that is not finished.
    steps: BTreeMap<NodeId, Step>,
}

impl Progress {
    /// Shows nothing at all unless `lines`, as for JSON.
    pub(crate) fn new(hosts: usize, lines: bool, color: bool) -> Self {
        let live = (lines && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(
                ProgressStyle::with_template("{spinner} {wide_msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { live, lines, color, hosts, finished: 0, steps: BTreeMap::new() }
    }

    /// Shows an event, either in the live display or as a line.
    pub(crate) fn show(&mut self, event: ProgressEvent) {
        match event {
            ProgressEvent::Step(node, step) => _ = self.steps.insert(node, step),
            ProgressEvent::Finished(result) => {
                self.steps.remove(&result.node);
                self.finished += 1;
                if self.lines {
                    let (state, style) = state(&result);
                    let line = format!("{}: {}", result.node, style.paint(&state, self.color));
                    let line = safe(&line);
                    match &self.live {
                        Some(live) => live.println(line),
                        None => eprintln!("{line}"),
                    }
                }
            }
        }
        if let Some(live) = &self.live {
            let steps: Vec<String> = self.steps.iter().map(|(node, step)| format!("{node} {}", step.text())).collect();
            let text = format!("{} of {}; {}", self.finished, count(self.hosts, "host"), steps.join(", "));
            live.set_message(safe(&text).into_owned());
        }
    }

    /// Removes the live line.
    pub(crate) fn end(&self) {
        if let Some(live) = &self.live {
            live.finish_and_clear();
        }
    }
}

/// How it ended on a host, with the versions.
fn state(result: &HostResult) -> (String, Style) {
    let versions = match (&result.previous_version, &result.version) {
        (Some(old), Some(new)) if old != new => format!(" from {old} to {new}"),
        (_, Some(version)) => format!(", {version}"),
        _ => String::new(),
    };
    match result.state {
        HostState::UpToDate => ("up to date".to_owned(), Style::Dim),
        HostState::Installed => (format!("installed{versions}"), Style::Good),
        HostState::Upgraded => (format!("upgraded{versions}"), Style::Good),
        HostState::Downgraded => (format!("downgraded{versions}"), Style::Warn),
        HostState::Changed => ("changed".to_owned(), Style::Good),
        HostState::Restarted => ("restarted".to_owned(), Style::Good),
        HostState::WouldChange => ("would be changed".to_owned(), Style::Warn),
        HostState::Refused => ("refused".to_owned(), Style::Bad),
        HostState::Failed => ("failed".to_owned(), Style::Bad),
        HostState::Interrupted => ("interrupted".to_owned(), Style::Warn),
    }
}

/// A table of all hosts, and below it the full error of each that failed, with its hint and journal.
pub(crate) fn text(results: &[HostResult], color: bool) -> String {
    let mut table = Table::new(&["NODE", "ADDRESS", "AGENT", "WHY"]);
    for result in results {
        let (state, style) = state(result);
        let why = match &result.error {
            Some(error) => error.lines().next().unwrap_or_default().to_owned(),
            None => result.because.join(", "),
        };
        table.row([
            result.node.as_str().into(),
            result.address.as_str().into(),
            Cell::styled(state, style),
            why.into(),
        ]);
    }
    let mut text = table.render(color);
    for result in results {
        let moved = result
            .moved
            .iter()
            .filter(|_| result.state.is_good())
            .map(|to| format!("the state of the previous agent was moved to {to}"));
        let hint = result
            .hint
            .iter()
            .filter(|_| !result.state.is_good())
            .map(|hint| format!("{} {hint}", Style::Bold.paint("→", color)));
        let lines: Vec<String> =
            result.error.iter().cloned().chain(result.left.clone()).chain(moved).chain(hint).collect();
        if lines.is_empty() {
            continue;
        }
        text.push_str(&format!("\n{}\n", Style::Bold.paint(result.node.as_str(), color)));
        for line in lines.iter().flat_map(|line| line.lines()) {
            text.push_str(&format!("  {line}\n"));
        }
        if !result.journal.is_empty() {
            text.push_str("  the agent's journal:\n");
            result.journal.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(node: &str, state: HostState) -> HostResult {
        HostResult {
            node: NodeId::new(node).unwrap(),
            address: "10.0.0.1".to_owned(),
            state,
            because: vec!["another program".to_owned()],
            previous_version: Some("0.1.0".to_owned()),
            version: Some("0.2.0".to_owned()),
            key: None,
            moved: None,
            error: None,
            left: None,
            hint: None,
            journal: Vec::new(),
        }
    }

    #[test]
    fn the_table_is_followed_by_the_errors() {
        let failed = HostResult {
            error: Some("the agent does not start: the unit has failed".to_owned()),
            left: Some("the previous files were restored, and the previous agent runs".to_owned()),
            hint: Some("read the last lines of the agent's journal".to_owned()),
            journal: vec!["error: no".to_owned()],
            because: Vec::new(),
            ..result("h2", HostState::Failed)
        };
        let expected = "\
NODE  ADDRESS   AGENT                         WHY
h1    10.0.0.1  upgraded from 0.1.0 to 0.2.0  another program
h2    10.0.0.1  failed                        the agent does not start: the unit has failed

h2
  the agent does not start: the unit has failed
  the previous files were restored, and the previous agent runs
  → read the last lines of the agent's journal
  the agent's journal:
    error: no
";
        assert_eq!(text(&[result("h1", HostState::Upgraded), failed], false), expected);
    }
}
