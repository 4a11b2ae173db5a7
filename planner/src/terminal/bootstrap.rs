//! Progress of `groundplan bootstrap`, and its table of results.

use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};

use groundplan_protocol::ids::NodeId;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Cell, Style, Table, format::count};
use crate::bootstrap::{Done, State, Step, Told};

/// Progress: on a terminal one live line, and for everybody a line for each host that is done, on standard error.
pub(crate) struct Progress {
    live: Option<ProgressBar>,
    lines: bool,
    color: bool,
    hosts: usize,
    done: usize,
    steps: BTreeMap<NodeId, Step>,
}

impl Progress {
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
        Self { live, lines, color, hosts, done: 0, steps: BTreeMap::new() }
    }

    pub(crate) fn tell(&mut self, told: Told) {
        match told {
            Told::Step(node, step) => _ = self.steps.insert(node, step),
            Told::Done(done) => {
                self.steps.remove(&done.node);
                self.done += 1;
                if self.lines {
                    let (words, style) = words(&done);
                    let line = format!("{}: {}", done.node, style.paint(&words, self.color));
                    match &self.live {
                        Some(live) => live.println(line),
                        None => eprintln!("{line}"),
                    }
                }
            }
        }
        if let Some(live) = &self.live {
            let at_work: Vec<String> =
                self.steps.iter().map(|(node, step)| format!("{node} {}", step.words())).collect();
            live.set_message(format!("{} of {}; {}", self.done, count(self.hosts, "host"), at_work.join(", ")));
        }
    }

    pub(crate) fn end(&self) {
        if let Some(live) = &self.live {
            live.finish_and_clear();
        }
    }
}

/// What came of a host, in a few words.
fn words(done: &Done) -> (String, Style) {
    let versions = match (&done.had, &done.version) {
        (Some(had), Some(version)) if had != version => format!(" from {had} to {version}"),
        (_, Some(version)) => format!(", {version}"),
        _ => String::new(),
    };
    match done.state {
        State::AsItWas => ("as it should be".to_owned(), Style::Dim),
        State::Installed => (format!("installed{versions}"), Style::Good),
        State::Upgraded => (format!("upgraded{versions}"), Style::Good),
        State::Downgraded => (format!("downgraded{versions}"), Style::Warn),
        State::Changed => ("changed".to_owned(), Style::Good),
        State::Started => ("started anew".to_owned(), Style::Good),
        State::Would => ("would be changed".to_owned(), Style::Warn),
        State::Refused => ("refused".to_owned(), Style::Bad),
        State::Failed => ("failed".to_owned(), Style::Bad),
        State::Interrupted => ("broken off".to_owned(), Style::Warn),
    }
}

/// The table, and below it what went wrong in full.
pub(crate) fn text(nodes: &[Done], color: bool) -> String {
    let mut table = Table::new(&["NODE", "ADDRESS", "AGENT", "WHY"]);
    for done in nodes {
        let (words, style) = words(done);
        let why = match &done.error {
            Some(error) => error.lines().next().unwrap_or_default().to_owned(),
            None => done.because.join(", "),
        };
        table.row([done.node.as_str().into(), done.address.as_str().into(), Cell::styled(words, style), why.into()]);
    }
    let mut text = table.render(color);
    for done in nodes {
        let moved = done
            .moved
            .iter()
            .filter(|_| done.state.is_good())
            .map(|to| format!("the state of the agent before lies in {to}"));
        let hint = done
            .hint
            .iter()
            .filter(|_| !done.state.is_good())
            .map(|hint| format!("{} {hint}", Style::Bold.paint("→", color)));
        let lines: Vec<String> = done.error.iter().cloned().chain(done.left.clone()).chain(moved).chain(hint).collect();
        if lines.is_empty() {
            continue;
        }
        text.push_str(&format!("\n{}\n", Style::Bold.paint(done.node.as_str(), color)));
        for line in lines.iter().flat_map(|line| line.lines()) {
            text.push_str(&format!("  {line}\n"));
        }
        if !done.journal.is_empty() {
            text.push_str("  the agent's journal:\n");
            done.journal.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(node: &str, state: State) -> Done {
        Done {
            node: NodeId::new(node).unwrap(),
            address: "10.0.0.1".to_owned(),
            state,
            because: vec!["another program".to_owned()],
            had: Some("0.1.0".to_owned()),
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
    fn a_table_of_all_and_below_it_what_went_wrong() {
        let failed = Done {
            error: Some("its agent does not start: its unit has failed".to_owned()),
            left: Some("what was there before is there again, and its agent runs".to_owned()),
            hint: Some("its journal's last lines say more".to_owned()),
            journal: vec!["error: no".to_owned()],
            because: Vec::new(),
            ..done("h2", State::Failed)
        };
        let expected = "\
NODE  ADDRESS   AGENT                         WHY
h1    10.0.0.1  upgraded from 0.1.0 to 0.2.0  another program
h2    10.0.0.1  failed                        its agent does not start: its unit has failed

h2
  its agent does not start: its unit has failed
  what was there before is there again, and its agent runs
  → its journal's last lines say more
  the agent's journal:
    error: no
";
        assert_eq!(text(&[done("h1", State::Upgraded), failed], false), expected);
    }
}
