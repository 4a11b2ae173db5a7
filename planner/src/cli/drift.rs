//! `groundplan drift`: what nodes find otherwise than it was applied, and how it differs.

use std::{
    fmt::Write as _,
    io::IsTerminal as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use groundplan_inventory::DriftPolicy;
use groundplan_protocol::ids::{NodeId, TaskId};

use super::{
    Failure, Format, Output,
    ask::{Planner, now_ms},
    output::{FormatArg, Style},
    table::{ago, count},
    what::{What, Whats},
};
use crate::{
    api::{
        Client, ClientError,
        drift::{Difference, Drift, LookRequest, NodeAnswered, NodeDrift, TaskDrift, one_line, plain},
        types::NodePresence,
    },
    select::{self, Selector},
};

/// How often the nodes' answers are looked for.
const POLL: Duration = Duration::from_millis(100);
/// Most of one value that is shown on its line, in characters.
const WORDS: usize = 200;
/// The exit code that says that something has drifted.
const DRIFTED: u8 = 2;

/// Show what was changed behind the agents' backs, and how it differs from what was applied.
///
/// Has the nodes that are there look now, without changing anything, and waits for their answers; of the others it shows what
/// they found last. What becomes of drift says `[drift]` in site.toml and service.toml: `report` leaves it alone, `heal` puts it right with
/// the restarts that follow. `groundplan recheck` puts right what is named.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
Examples:
  groundplan drift                          all nodes
  groundplan drift --on ctl-0 keystone      one service on one node
  groundplan drift --last                   what is known, without asking
  groundplan drift --format json | jq -r '.nodes[] | select(.drifted) | .node'

{}

Exit codes: 0 nothing has drifted, 2 something has, 1 it could not be told of all nodes that are there", select::HELP))]
pub(super) struct Args {
    /// Services (`keystone`) or tasks (`keystone.config`) to show; everything if none is named.
    #[arg(value_name = "WHAT")]
    what: Vec<What>,

    /// On these nodes only; given more than once, on the nodes of any.
    #[arg(long, value_name = "SELECTOR")]
    on: Vec<Selector>,

    /// Show what nodes found last, and have none look now.
    #[arg(long)]
    last: bool,

    /// How long to wait for nodes that are there, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let whats = Whats::new(&args.what);
    let (services, tasks) = (whats.services.clone(), whats.tasks.clone());
    let request = LookRequest { on: args.on.clone(), services, tasks, name_only: args.last };
    let patience = Duration::from_secs(args.timeout);
    let talk = args.format.format == Format::Text && std::io::stderr().is_terminal();
    let (mut drift, silent) = args.planner.ask(async |client| look(client, &request, patience, talk).await)?;
    for node in &mut drift.nodes {
        node.drifted.retain(|task, _| whats.name(task));
        node.failed.retain(|task, _| whats.name(task));
    }
    match args.format.format {
        Format::Json => out.json(&drift)?,
        Format::Text => out.print(&text(&drift, now_ms(), out.color()))?,
    }
    if !silent.is_empty() {
        let names = silent.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
        return Err(Failure::new(format!("no answer within {} s from {names}", args.timeout)).hint(
            "a node looks once it has nothing else to do: `groundplan status` shows what it is about\n\
                   give it longer with --timeout, or show what it found last with --last",
        ));
    }
    let drifted = drift.nodes.iter().any(|node| !node.drifted.is_empty());
    let failed = drift.nodes.iter().any(|node| !node.failed.is_empty());
    Ok(match (failed, drifted) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => DRIFTED.into(),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// Has nodes look, and waits for those that are there. Returns those that did not answer.
async fn look(
    mut client: Client,
    request: &LookRequest,
    patience: Duration,
    talk: bool,
) -> Result<(Drift, Vec<NodeId>), ClientError> {
    let asked = client.look(request).await?.asked;
    let until = Instant::now() + patience;
    loop {
        let answered = client.answered().await?;
        let awaited = |(node, answered): &(&NodeId, &NodeAnswered)| is_awaited(answered, asked.get(*node));
        let silent: Vec<NodeId> = answered.nodes.iter().filter(awaited).map(|(node, _)| node.clone()).collect();
        if talk {
            eprint!("\r\x1b[K{} of {} still look", silent.len(), count(asked.len(), "node"));
        }
        if silent.is_empty() || Instant::now() >= until {
            if talk {
                eprint!("\r\x1b[K");
            }
            let mut drift = client.drift(&asked.keys().cloned().collect()).await?;
            drift.nodes.retain(|node| asked.contains_key(&node.node));
            return Ok((drift, silent));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether a node is there and has not answered.
fn is_awaited(answered: &NodeAnswered, asked: Option<&u64>) -> bool {
    answered.presence == NodePresence::Online && asked.is_some_and(|asked| answered.asked < *asked)
}

fn text(drift: &Drift, now_ms: u64, color: bool) -> String {
    let mut out = String::new();
    drift.nodes.iter().for_each(|node| node_text(&mut out, node, now_ms, color));
    let nodes = drift.nodes.iter().filter(|node| !node.drifted.is_empty()).count();
    let tasks: usize = drift.nodes.iter().map(|node| node.drifted.len()).sum();
    match tasks {
        0 if drift.nodes.is_empty() => out.push_str("no node is declared\n"),
        0 => out.push_str("\nnothing has drifted, as far as is known\n"),
        _ => {
            let left = drift.nodes.iter().flat_map(|node| node.drifted.values()).filter(|task| !task.healing).count();
            let words = format!("\n{} on {} drifted", count(tasks, "task"), count(nodes, "node"));
            out.push_str(&words);
            out.push_str(if left > 0 { "; `groundplan recheck` puts right what is not healing\n" } else { "\n" });
        }
    }
    out
}

fn node_text(out: &mut String, node: &NodeDrift, now_ms: u64, color: bool) {
    let name = Style::Bold.paint(node.node.as_str(), color);
    let away = match node.presence {
        NodePresence::Online => "",
        NodePresence::Offline => "offline; ",
        NodePresence::Unknown => "never heard of; ",
    };
    let Some(look) = &node.look else {
        let _ = writeln!(out, "{name}  {away}{}", Style::Warn.paint("has not looked yet", color));
        return;
    };
    let (word, style) = match node.drifted.len() {
        0 => ("nothing drifted".to_owned(), Style::Good),
        n => (format!("{} drifted", count(n, "task")), Style::Bad),
    };
    let checked = count(look.checked as usize, "task");
    let _ = writeln!(out, "{name}  {away}{}, {checked} checked {}", style.paint(&word, color), ago(look.at_ms, now_ms));
    for (task, drifted) in &node.drifted {
        task_text(out, task, drifted, now_ms, color);
    }
    for (task, why) in &node.failed {
        let why = plain(why);
        let _ = writeln!(out, "  {task}  {}: {why}", Style::Bad.paint("cannot be checked", color));
    }
}

fn task_text(out: &mut String, task: &TaskId, drifted: &TaskDrift, now_ms: u64, color: bool) {
    let fate = match (drifted.healing, drifted.policy, drifted.tried_ms) {
        (true, ..) => "healing".to_owned(),
        (false, DriftPolicy::Heal, Some(tried)) => {
            format!("put right {}, and so again: it rests for a while", ago(tried, now_ms))
        }
        (false, DriftPolicy::Heal, None) => "to be healed, but the commit in force asks for something else".to_owned(),
        (false, DriftPolicy::Report, _) => "reported only".to_owned(),
    };
    let since = ago(drifted.since_ms, now_ms);
    let _ = writeln!(out, "  {}  since {since}, {fate}", Style::Warn.paint(&task.to_string(), color));
    if drifted.differences.is_empty() {
        out.push_str("    it is not so any more\n");
    }
    for Difference { what, expected, found, diff, .. } in &drifted.differences {
        let is = match (expected, found) {
            (Some(expected), Some(found)) => format!("{expected} → {found}"),
            (Some(expected), None) => format!("{expected} → nothing"),
            (None, Some(found)) => found.clone(),
            (None, None) => "differs".to_owned(),
        };
        let _ = writeln!(out, "    {}: {}", one_line(what, WORDS), one_line(&is, WORDS));
        for line in diff.iter().flat_map(|diff| diff.lines()) {
            let style = match line.as_bytes().first() {
                Some(b'+') => Style::Good,
                Some(b'-') => Style::Bad,
                _ => Style::Plain,
            };
            let _ = writeln!(out, "      {}", style.paint(&plain(line), color));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::drift::Looked;

    fn drift() -> Drift {
        let content = Difference {
            what: "content".into(),
            expected: None,
            found: None,
            diff: Some("--- applied\n+++ found\n@@ -1 +1 @@\n-a\n+b\n".into()),
            contents: None,
        };
        let mode = Difference {
            what: "mode".into(),
            expected: Some("0644".into()),
            found: Some("0600".into()),
            diff: None,
            contents: None,
        };
        let drifted = TaskDrift {
            policy: DriftPolicy::Report,
            healing: false,
            tried_ms: None,
            since_ms: 0,
            differences: vec![content, mode],
        };
        let look = Looked { asked: 7, at_ms: 60_000, duration_ms: 3, checked: 4, left_out: 0 };
        let node = |name: &str, presence, look, drifted: Vec<(&str, TaskDrift)>| NodeDrift {
            node: NodeId::new(name).unwrap(),
            presence,
            look,
            drifted: drifted.into_iter().map(|(task, drifted)| (task.parse().unwrap(), drifted)).collect(),
            failed: BTreeMap::new(),
        };
        let nodes = vec![
            node("a", NodePresence::Online, Some(look.clone()), vec![("web.config", drifted)]),
            node("b", NodePresence::Offline, Some(look), vec![]),
            node("c", NodePresence::Unknown, None, vec![]),
        ];
        Drift { version: 1, nodes }
    }

    #[test]
    fn drift_reads_from_node_to_line() {
        insta::assert_snapshot!(text(&drift(), 120_000, false), @r"
        a  1 task drifted, 4 tasks checked 60 s ago
          web.config  since 2 min ago, reported only
            content: differs
              --- applied
              +++ found
              @@ -1 +1 @@
              -a
              +b
            mode: 0644 → 0600
        b  offline; nothing drifted, 4 tasks checked 60 s ago
        c  never heard of; has not looked yet

        1 task on 1 node drifted; `groundplan recheck` puts right what is not healing
        ");
    }

    #[test]
    fn who_is_there_is_waited_for_until_it_answers() {
        let at = |presence, asked| NodeAnswered { presence, asked };
        assert!(is_awaited(&at(NodePresence::Online, 7), Some(&8)));
        assert!(!is_awaited(&at(NodePresence::Online, 8), Some(&8)));
        assert!(!is_awaited(&at(NodePresence::Online, 0), None), "it was not asked");
        assert!(!is_awaited(&at(NodePresence::Offline, 0), Some(&8)));
    }
}
